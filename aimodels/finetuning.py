"""Fine-tuning: freezing, learning rates by depth, and low-rank updates (LoRA) beside frozen weights.

Axes: D inputs of a dense layer, E outputs (D' on the page), R rank of the update. Rows are samples.
"""

import math

import keras
import numpy as np
from keras import ops


def low_rank_dense(x, kernel, a, b, scale=1.0):
    """Return x W + scale (x A) B, without ever making the matrix A B.

    Args:
        x: `[..., D]`.
        kernel: W, `[D, E]`.
        a: A, `[D, R]`.
        b: B, `[R, E]`.
        scale: the number α / R.

    Returns:
        `[..., E]`; exactly x W where B is zero.

    Raises:
        ValueError: matrices whose shapes do not fit.

    Source: Hu et al. 2021, section 4.1, <https://arxiv.org/abs/2106.09685>.
    Differs: there samples are columns, and what is A here is called B, transposed.
    """
    shapes = tuple(tuple(m.shape) for m in (x, kernel, a, b))
    if any(len(shape) < 2 for shape in shapes[1:]) or not (
        shapes[0][-1] == shapes[1][0] == shapes[2][0]
        and shapes[2][1] == shapes[3][0]
        and shapes[3][1] == shapes[1][1]
    ):
        raise ValueError(
            f"x, kernel, a and b must be [..., D], [D, E], [D, R] and [R, E]; received {shapes}"
        )
    return ops.matmul(x, kernel) + ops.matmul(ops.matmul(x, a), b) * scale


@keras.saving.register_keras_serializable("aimodels")
class LoRA(keras.layers.Layer):
    """A dense layer, frozen, and beside it a trained update of low rank.

    Args:
        dense: a built `Dense`. It is frozen, its bias too.
        rank: R, from 1 to the smaller of D and E.
        alpha: α above 0; the update is A B α / R. R if None, and then the scale is 1.

    Call:
        x: `[..., D]`.

    Returns:
        `[..., E]`; at first exactly what the dense layer returns, for B starts at zero.

    Raises:
        ValueError: dense is no built `Dense`, or a quantized one; a rank or alpha not allowed.

    Source: Hu et al. 2021, section 4.1, <https://arxiv.org/abs/2106.09685>.
    Differs: A starts uniform, as `Dense.enable_lora` has it, not Gaussian. That method leaves the
    bias trainable, and makes A B at each call.
    """

    def __init__(self, dense, rank, alpha=None, **kwargs):
        """Keep the dense layer and make A and B."""
        if not isinstance(dense, keras.layers.Dense):
            raise ValueError(f"dense must be a Dense layer; received {type(dense).__name__}")
        if not dense.built:
            raise ValueError(
                f"dense must be built, so that its shape is known; {dense.name} is not"
            )
        if dense.quantization_mode or dense.lora_enabled:
            raise ValueError(
                f"dense must be neither quantized nor adapted by enable_lora; {dense.name} is"
            )
        shape = tuple(dense.kernel.shape)
        _check_rank(rank, shape)
        alpha = rank if alpha is None else alpha
        if not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be a number above 0; received {alpha!r}")
        super().__init__(**{"dtype": dense.dtype_policy, "name": dense.name, **kwargs})
        self.rank, self.alpha = rank, alpha
        self.dense = dense
        # Half precision would lose small updates: A and B keep at least float32.
        wide = "float64" if dense.variable_dtype == "float64" else "float32"
        self.a = self.add_weight((shape[0], rank), "he_uniform", dtype=wide, name="a")
        self.b = self.add_weight((rank, shape[1]), "zeros", dtype=wide, name="b")
        _set_trainable(dense, False)
        self.built = True

    @property
    def trainable(self):
        """Whether A and B are trained; the dense layer never is."""
        return super().trainable

    @trainable.setter
    def trainable(self, value):
        keras.layers.Layer.trainable.fset(self, value)
        _set_trainable(self.dense, False)

    def call(self, x):
        """Multiply by the frozen kernel and, beside it, by A and B."""
        a, b = (ops.cast(matrix, self.compute_dtype) for matrix in (self.a, self.b))
        y = low_rank_dense(x, self.dense.kernel, a, b, self.alpha / self.rank)
        if self.dense.bias is not None:
            y = y + self.dense.bias
        return self.dense.activation(y)

    def update(self):
        """Return `[D, E]`: A B α / R, what is added to the kernel."""
        return ops.matmul(self.a.value, self.b.value) * (self.alpha / self.rank)

    def merge(self):
        """Add the update to the kernel and return the dense layer, trainable again."""
        kernel = self.dense.kernel
        total = ops.cast(kernel.value, self.a.dtype) + self.update()
        kernel.assign(ops.cast(total, kernel.dtype))
        self.b.assign(ops.zeros_like(self.b))  # so that this layer returns the same as before
        _set_trainable(self.dense, True)
        return self.dense

    def get_config(self):
        """Return the arguments that make this layer again."""
        config = {"dense": keras.saving.serialize_keras_object(self.dense)}
        return {**super().get_config(), **config, "rank": self.rank, "alpha": self.alpha}

    @classmethod
    def from_config(cls, config):
        """Return a layer made from `get_config`."""
        return cls(**{**config, "dense": keras.saving.deserialize_keras_object(config["dense"])})


def adapt(model, names, rank, alpha=None):
    """Put a `LoRA` in the place of each dense layer of a model that has one of these names.

    Args:
        model: a built model or layer that holds its layers as attributes, or in lists, as all
            models of this handbook do; a functional model keeps them in its graph instead.
        names: names of attributes, as `("query", "value")`.
        rank: R, for all alike.
        alpha: see `LoRA`.

    Returns:
        List of the `LoRA` layers, in the order of the model. The model returns what it did.

    Raises:
        ValueError: a name that no dense layer has; what `LoRA` refuses. Then nothing is changed.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    found = [place for place in _places(model) if not isinstance(place[2], LoRA)]
    known = sorted({name for _, name, _ in found})
    if not names or not set(names) <= set(known):
        raise ValueError(f"names must be of dense layers without LoRA, {known}; received {names}")
    chosen = [place for place in found if place[1] in names]
    for _, _, dense in chosen:
        _check_rank(rank, tuple(dense.kernel.shape))
    unique = {id(dense): dense for _, _, dense in chosen}  # one may have several owners
    adapters = {key: LoRA(dense, rank, alpha) for key, dense in unique.items()}
    for owner, name, dense in chosen:
        _replace(owner, name, dense, adapters[id(dense)])
    return list(adapters.values())


def merge(model):
    """Put plain dense layers back in the place of each `LoRA`, with its update in their kernels.

    Returns:
        How many there were. The model returns what it did, up to rounding, and costs what it did.
    """
    places = [place for place in _places(model) if isinstance(place[2], LoRA)]
    for owner, name, adapter in places:
        _replace(owner, name, adapter, adapter.merge())
    return len(places)


def freeze(model, *keep):
    """Freeze a whole model but some of its layers. Do it before `make_step` or `compile`.

    Frozen layers run as in use: normalization by batches keeps its statistics. Of a `LoRA` in
    `keep`, A and B are trained.

    Args:
        model: a built Keras model.
        keep: layers of it that stay trainable, at any depth; the model itself thaws everything.

    Raises:
        ValueError: a layer in `keep` that is not part of the model.
    """
    mine = {id(v) for v in model.variables}
    for layer in keep:
        if not all(id(v) in mine for v in layer.variables):
            raise ValueError(f"keep must be layers of {model.name}; received {layer.name}")
    _set_trainable(model, True)  # of a frozen model Keras trains nothing, whatever its layers say
    for layer in model.layers:
        _set_trainable(layer, False)
    for variable in model.trainable_variables:  # weights that no layer holds, as positions
        variable.trainable = False
    for layer in keep:
        _set_trainable(layer, True)


def depth_factors(groups, ratio):
    """Return a factor of the learning rate for each variable: 1 at the top, smaller below.

    Args:
        groups: lists of variables, from the input to the output.
        ratio: how many times larger the rate of a group is than that of the group below; from 1.

    Returns:
        Dictionary from the path of a variable to ratio ** -(groups above its own).

    Raises:
        ValueError: a ratio below 1; a path that occurs twice.

    Source: Howard and Ruder 2018, section 3.2 (ratio 2.6), <https://arxiv.org/abs/1801.06146>.
    """
    if not 1 <= ratio < math.inf:
        raise ValueError(f"ratio must be at least 1; received {ratio!r}")
    factors = dict[str, float]()
    for above, group in enumerate(reversed(groups)):
        for variable in group:
            if variable.path in factors:
                raise ValueError(f"groups must hold each path once; received {variable.path} twice")
            factors[variable.path] = float(ratio) ** -above
    return factors


@keras.saving.register_keras_serializable("aimodels")
class LayerwiseAdam(keras.optimizers.Adam):
    """Adam with a learning rate of its own for each variable.

    Args:
        factors: from paths of variables to numbers from 0, which multiply `learning_rate`.

    Raises:
        ValueError: a negative factor; when built, a variable without one.
    """

    def __init__(self, learning_rate=0.001, factors=None, **kwargs):
        """Keep the factors."""
        super().__init__(learning_rate, **kwargs)
        self.factors = dict(factors or {})
        for path, factor in self.factors.items():
            if not 0 <= factor < math.inf:
                raise ValueError(f"factors must be numbers from 0; received {factor!r} for {path}")

    def build(self, variables):
        """Make the state, for variables that all have a factor."""
        missing = [v.path for v in variables if v.path not in self.factors]
        if missing:
            raise ValueError(f"factors must name every variable; received none for {missing[0]}")
        super().build(variables)
        self.rates = [self.factors[v.path] for v in variables]  # the step sees no paths

    def update_step(self, gradient, variable, learning_rate):
        """Take Adam's step with the rate of this variable."""
        # Not the gradient: Adam divides by its size, and a factor there would cancel.
        factor = self.rates[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self):
        """Return the arguments that make this optimizer again."""
        return {**super().get_config(), "factors": self.factors}


def trainable_count(model):
    """Return how many numbers of a model are trained."""
    return sum(math.prod(v.shape) for v in model.trainable_variables)


def training_bytes(weights, trained, slots=2, width=4):
    """Return bytes of what training keeps besides activations, counted and not measured.

    Args:
        weights: numbers in the model, frozen ones too.
        trained: how many of them are trained, 0 to `weights`.
        slots: numbers that the optimizer keeps for each; Adam 2, momentum 1, SGD 0.
        width: bytes of a number.

    Returns:
        Dictionary: "weights", "gradients", "optimizer".

    Raises:
        ValueError: more trained than there are.
    """
    if not 0 <= trained <= weights:
        raise ValueError(f"trained must be from 0 to {weights}; received {trained}")
    sizes = {"weights": weights, "gradients": trained, "optimizer": slots * trained}
    return {name: size * width for name, size in sizes.items()}


def dense_work(inputs, outputs, rank=None):
    """Return multiplications for one row through a dense layer: forward, then backward.

    Backward is the derivative by the input and by what is trained: W, or A and B of this rank.
    """
    full = inputs * outputs
    if rank is None:
        return full, 2 * full
    _check_rank(rank, (inputs, outputs))
    low = rank * (inputs + outputs)
    return full + low, full + 2 * low


def captured(update):
    """Return which share of an update the best matrices of rank 1, 2, … carry.

    Args:
        update: `[D, E]`, not zero everywhere.

    Returns:
        `[min(D, E)]`, rising to 1: the sum of the largest squared singular values over that of all.

    Raises:
        ValueError: no matrix, or one that is zero or not finite.
    """
    update = np.asarray(update, "float64")
    if update.ndim != 2 or not np.isfinite(update).all() or not update.any():
        raise ValueError(f"update must be a finite matrix, not zero; received {update.shape}")
    squares = np.linalg.svd(update, compute_uv=False) ** 2
    return np.cumsum(squares) / squares.sum()


def _check_rank(rank, shape):
    """Raise ValueError unless a matrix of this shape can have this rank."""
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= min(shape):
        raise ValueError(
            f"rank must be a whole number from 1 to {min(shape)}, for a kernel of {shape};"
            f" received {rank!r}"
        )


def _set_trainable(layer, value):
    """Freeze or thaw a layer and all in it, but never the dense layer in a `LoRA`."""
    # Keras skips `layer.trainable = value` where the layer says so already, whatever its parts say.
    parts = layer._flatten_layers()
    for part in parts:
        keras.layers.Layer.trainable.fset(part, value)
    for part in parts:
        if isinstance(part, LoRA):
            keras.layers.Layer.trainable.fset(part.dense, False)


def _places(layer):
    """Return (owner, attribute, layer) of all `Dense` and `LoRA` held as attributes, in order."""
    found, seen = [], set[int]()

    def visit(owner):
        seen.add(id(owner))
        for name, value in vars(owner).items():
            if name.startswith("_"):
                continue
            if isinstance(value, keras.layers.Dense | LoRA):
                found.append((owner, name, value))
                continue
            for inner in value if isinstance(value, list | tuple) else [value]:
                if isinstance(inner, keras.layers.Layer) and id(inner) not in seen:
                    visit(inner)

    visit(layer)
    return found


def _replace(owner, name, old, new):
    """Put a layer in the place of another; a built layer allows no more than this."""
    owner._tracker.replace_tracked_value("layers", old, new)
    setattr(owner, name, new)
