"""Pre-training by hidden patches: a Vision Transformer learns from images that carry no labels.

Axes: B images, T patches, K patches that may be read, D width, P side of a patch, C channels.
"""

import keras
import numpy as np
from keras import ops

from aimodels.transformer import Block
from aimodels.vit import VisionTransformer


def visible_patches(samples, count, share, rng):
    """Draw which patches of each image may be read; all others are hidden.

    Args:
        samples: B, at least 1.
        count: T, at least 2.
        share: which part of the patches to hide; rounded to a number from 1 to T − 1.
        rng: a NumPy generator.

    Returns:
        `[B, K]` int32, K = T − round(share · T): different numbers from 0 to T − 1, ascending.
        Each set of K patches is equally likely.

    Raises:
        ValueError: a number that is not allowed, or a share that hides none or all.

    Source: He et al. 2021, section 3, <https://arxiv.org/abs/2111.06377>.
    """
    for name, value, least in (("samples", samples, 1), ("count", count, 2)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}; received {value!r}")
    hidden = round(share * count) if 0 < share < 1 else 0
    if not 0 < hidden < count:
        raise ValueError(f"share must hide 1 to {count - 1} of {count} patches; received {share!r}")
    order = rng.random((samples, count)).argsort(axis=1)
    return np.sort(order[:, : count - hidden], axis=1).astype("int32")


def readable(visible, count):
    """Return the mask of `[B, K]` visible patches: boolean `[B, T]`, True where one may read."""
    return ops.any(ops.one_hot(visible, count, dtype="bool"), axis=1)


def hidden_loss(target, predicted):
    """Return the mean squared error over the pixels of the hidden patches alone.

    Args:
        target: pair of the true patches `[B, T, P P C]` and the visible ones `[B, K]`.
        predicted: `[B, T, P P C]`; its rows at visible patches change nothing.

    Returns:
        A number from 0, float32.

    Raises:
        ValueError: patches and predictions of different shapes.

    Source: He et al. 2021, section 3.
    Differs: the paper's best runs first bring each patch to mean 0 and variance 1.
    """
    rows, visible = target
    if tuple(rows.shape) != tuple(predicted.shape):
        shapes = f"{tuple(predicted.shape)}; received {tuple(rows.shape)}"
        raise ValueError(f"target must hold patches shaped as predicted, {shapes}")
    hidden = ops.cast(ops.logical_not(readable(visible, rows.shape[1])), "float32")
    errors = ops.mean(ops.square(ops.cast(rows, "float32") - ops.cast(predicted, "float32")), -1)
    return ops.sum(hidden * errors) / ops.sum(hidden)


def transfer(body, classifier, blocks=None):
    """Copy what a body has learned into a classifier, from the pixels upwards.

    Args:
        body: a built `VisionTransformer`.
        classifier: another with the same sizes; its head stays as it is.
        blocks: how many blocks to copy, the lowest first; None for all of them and the last
            normalization. The embedding of patches and positions always comes along.

    Returns:
        The classifier. What was copied equals the body's, bit by bit.

    Raises:
        ValueError: one is not built; sizes that differ; more blocks than there are.
    """
    for name, model in (("body", body), ("classifier", classifier)):
        if not model.built:
            raise ValueError(f"{name} must be built; call it once")
    for name, size in body.options.items():
        if name not in ("classes", "dropout") and classifier.options[name] != size:
            wanted, received = f"the body's {name} {size!r}", repr(classifier.options[name])
            raise ValueError(f"classifier must have {wanted}; received {received}")
    depth = len(body.blocks)
    if blocks is not None and (type(blocks) is not int or not 0 <= blocks <= depth):
        allowed = f"an integer from 0 to {depth}, or None"
        raise ValueError(f"blocks must be {allowed}; received {blocks!r}")
    pairs = [(body.embed, classifier.embed)]
    pairs += list(zip(body.blocks, classifier.blocks, strict=True))[:blocks]
    if blocks is None:
        pairs.append((body.norm, classifier.norm))
    for old, new in pairs:
        new.set_weights(old.get_weights())
    for old, new in ((body.token, classifier.token), (body.positions, classifier.positions)):
        if old is not None:
            new.assign(old)
    return classifier


@keras.saving.register_keras_serializable("aimodels")
class MaskedAutoencoder(keras.Model):
    """A body that reads the visible patches, and a light decoder that draws all of them.

    Args:
        body: a `VisionTransformer` without a head; what is kept after pre-training.
        width: of the decoder.
        heads: of the decoder, a divisor of its width.
        depth: blocks of the decoder; their hidden width is twice the width.

    Call:
        inputs: pair of images `[B, H, W, C]`, scaled, and visible patches `[B, K]` as
            `visible_patches` draws them.

    Returns:
        `[B, T, P P C]` predicted pixels. No pixel of a hidden patch has any influence on them.

    Raises:
        ValueError: a body with a head, or that is none; width or depth that cannot be; images or
            visible patches of another shape.

    Source: He et al. 2021, section 3, <https://arxiv.org/abs/2111.06377>.
    Differs: the decoder's positions are learned; there they are sines.
    """

    def __init__(self, body, *, width, heads, depth=1, **kwargs):
        """Keep the arguments and make the layers."""
        super().__init__(**kwargs)
        if not isinstance(body, VisionTransformer) or body.head is not None:
            kind = "one with a head" if isinstance(body, VisionTransformer) else f"{body!r}"
            raise ValueError(f"body must be a VisionTransformer with classes=0; received {kind}")
        for name, value, least in (("width", width, 1), ("depth", depth, 0)):
            if not isinstance(value, int) or value < least:
                allowed = f"an integer of at least {least}"
                raise ValueError(f"{name} must be {allowed}; received {value!r}")
        self.body = body
        self.count = body.grid[0] * body.grid[1]
        self.options = {"width": width, "heads": heads, "depth": depth}
        policy, layers = self.dtype_policy, keras.layers
        self.enter = layers.Dense(width, name="enter", dtype=policy)
        self.blocks = [
            Block(heads, 2 * width, epsilon=1e-6, name=f"block_{n}", dtype=policy)
            for n in range(depth)
        ]
        self.norm = layers.LayerNormalization(epsilon=1e-6, name="norm", dtype=policy)

    def build(self, shapes):
        """Make the weights for images of this shape."""
        images, _ = shapes
        if not self.body.built:
            self.body.build(images)
        width, small = self.options["width"], keras.initializers.RandomNormal(stddev=0.02)
        self.gap = self.add_weight((width,), small, name="gap")
        self.positions = self.add_weight((self.count, width), small, name="positions")
        self.enter.build((None, None, self.body.options["width"]))
        for layer in (*self.blocks, self.norm):
            layer.build((None, self.count, width))
        pixels = self.body.options["patch"] ** 2 * images[3]
        self.draw = keras.layers.Dense(pixels, name="draw", dtype=self.dtype_policy)
        self.draw.build((None, self.count, width))
        self.built = True

    def encode(self, images, visible):
        """Return `[B, K, D]`: the visible patches once they have read each other."""
        x = self.body.tokens(images)
        first = 0 if self.body.token is None else 1
        seen = ops.take_along_axis(x[:, first:], visible[:, :, None], axis=1)
        x = ops.concatenate([x[:, :first], seen], axis=1)
        for block in self.body.blocks:
            x = block(x)
        return self.body.norm(x)[:, first:]

    def call(self, inputs):
        """Read what is visible, put a learned row into each gap, draw."""
        images, visible = inputs
        height, width = self.body.image_size
        if len(images.shape) != len("BHWC") or tuple(images.shape[1:3]) != (height, width):
            wanted = f"[B, {height}, {width}, C]"
            raise ValueError(f"images must be {wanted}; received {tuple(images.shape)}")
        if (
            len(visible.shape) != len("BK")
            or visible.shape[0] != images.shape[0]
            or not (0 < visible.shape[1] <= self.count)
        ):
            wanted = f"[{images.shape[0]}, 1 to {self.count}]"
            raise ValueError(f"visible must be {wanted}; received {tuple(visible.shape)}")
        x = self.enter(self.encode(images, visible))
        place = ops.one_hot(visible, self.count, dtype=x.dtype)  # [B, K, T]
        gaps = ops.logical_not(readable(visible, self.count))[:, :, None]
        x = ops.einsum("bkt,bkd->btd", place, x)
        x = ops.where(gaps, ops.cast(self.gap, x.dtype), x) + ops.cast(self.positions, x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.draw(self.norm(x))

    def multiply_adds(self, visible):
        """Return the multiplications in the matrix products of one image with K visible patches."""
        body, own = self.body.options, self.options["width"]
        pixels, tokens = self.draw.units, visible + (self.body.token is not None)
        total = self.count * pixels * (body["width"] + own) + visible * body["width"] * own
        for count, depth, width, hidden in (
            (tokens, body["depth"], body["width"], body["hidden"]),
            (self.count, self.options["depth"], own, 2 * own),
        ):
            each = 4 * width * width + 2 * width * hidden  # per token, and per pair of tokens
            total += depth * (count * each + 2 * count * count * width)
        return total

    def get_config(self):
        """Return the arguments that make this model again."""
        body = keras.saving.serialize_keras_object(self.body)
        return {**super().get_config(), "body": body, **self.options}

    @classmethod
    def from_config(cls, config):
        """Return a model made from `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config.pop("body")), **config)
