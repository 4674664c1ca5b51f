"""Vision Transformer: an image cut into patches, read by Transformer blocks as a sequence.

Axes: B images, H height, W width, C channels, P side of a patch, T = (H / P)(W / P) patches, row
by row from the upper left, S tokens: T + 1 with the class token, else T; D width.
"""

import keras
from keras import ops

from aimodels.transformer import Block, block_parameters

POOLS = ("token", "mean")


def _grid(image_size, patch):
    """Return (rows, columns) of patches in an image of (H, W) or of one number for both."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(patch, int) or patch < 1:
        raise ValueError(f"patch must be an integer of at least 1; received {patch!r}")
    if min(height, width) < 1 or height % patch or width % patch:
        raise ValueError(
            f"image_size must be multiples of the patch {patch}; received {height} x {width}"
        )
    return height // patch, width // patch


def patches(images, size):
    """Cut images into squares that lie side by side and write each as one row.

    Args:
        images: `[B, H, W, C]`.
        size: P, a divisor of H and W.

    Returns:
        `[B, T, P P C]`; patch t = (row, column) of the grid, row by row; in it pixel by pixel,
        row by row, the channels of a pixel side by side.

    Raises:
        ValueError: a rank other than 4; sides that are no multiples of the size.

    Source: Dosovitskiy et al. 2020, section 3.1, <https://arxiv.org/abs/2010.11929>.
    """
    if len(images.shape) != len("BHWC"):
        raise ValueError(f"images must be [B, H, W, C]; received {tuple(images.shape)}")
    (rows, columns), channels = _grid(images.shape[1:3], size), images.shape[3]
    x = ops.reshape(images, (-1, rows, size, columns, size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # [B, rows, columns, P, P, C]
    return ops.reshape(x, (-1, rows * columns, size * size * channels))


def assemble(rows, image_size, size):
    """Put patches together again: the inverse of `patches`.

    Args:
        rows: `[B, T, P P C]`.
        image_size: (H, W), or one number for both.
        size: P.

    Returns:
        `[B, H, W, C]`.

    Raises:
        ValueError: a shape that these images cannot have given.
    """
    down, across = _grid(image_size, size)
    shape = tuple(rows.shape)
    if len(shape) != len("BTD") or shape[1] != down * across or shape[2] % size**2:
        allowed = f"[B, {down * across}, a multiple of {size**2}]"
        raise ValueError(f"rows must be {allowed}; received {shape}")
    channels = shape[2] // size**2
    x = ops.reshape(rows, (-1, down, across, size, size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, down * size, across * size, channels))


def resize_positions(positions, grid, new_grid):
    """Stretch learned positions to another grid of patches by bilinear interpolation.

    Args:
        positions: `[S, D]`; if S is one more than the grid has places, row 0 (class token) stays.
        grid: (rows, columns) that the positions were learned for.
        new_grid: (rows, columns) wanted.

    Returns:
        `[S', D]`, S' for the new grid.

    Raises:
        ValueError: positions that do not belong to the grid.

    Source: Dosovitskiy et al. 2020, section 3.2, <https://arxiv.org/abs/2010.11929>.
    """
    places = grid[0] * grid[1]
    if len(positions.shape) != 2 or positions.shape[0] not in (places, places + 1):
        raise ValueError(
            f"positions must be [{places} or {places + 1}, D] on a grid of {tuple(grid)};"
            f" received {tuple(positions.shape)}"
        )
    first = positions.shape[0] - places
    plane = ops.reshape(positions[first:], (*grid, -1))
    plane = ops.image.resize(plane, tuple(new_grid), interpolation="bilinear")
    plane = ops.reshape(plane, (new_grid[0] * new_grid[1], -1))
    return ops.concatenate([positions[:first], ops.cast(plane, positions.dtype)])


def parameter_count(classes, image_size, patch, *, width, depth, hidden, channels=3, pool="token"):
    """Return how many parameters `VisionTransformer` has; the number of heads changes nothing."""
    rows, columns = _grid(image_size, patch)
    extra = 1 if pool == "token" else 0
    embed = patch * patch * channels * width + width
    positions = (rows * columns + extra) * width + extra * width  # and the class token itself
    norm, head = 2 * width, classes * (width + 1)
    return embed + positions + depth * block_parameters(width, hidden) + norm + head


def multiply_adds(classes, image_size, patch, *, width, depth, hidden, channels=3, pool="token"):
    """Return the multiplications in the matrix products of one forward pass of one image."""
    rows, columns = _grid(image_size, patch)
    tokens = rows * columns + (1 if pool == "token" else 0)
    each = 4 * width * width + 2 * width * hidden  # per token; attention: per pair of tokens
    block = tokens * each + 2 * tokens * tokens * width
    return rows * columns * patch * patch * channels * width + depth * block + width * classes


@keras.saving.register_keras_serializable("aimodels")
class VisionTransformer(keras.Model):
    """Patches, one dense layer for all, learned positions, blocks with norm first, a head.

    Args:
        classes: numbers in the output; 0 for no head.
        image_size: (H, W), or one number for both.
        patch: P, a divisor of H and W.
        width: D.
        heads: a divisor of D.
        depth: number of blocks.
        hidden: width inside their feedforward networks.
        pool: "token", the head reads a class token; "mean", it reads the mean over the patches.
        positions: whether to add them; without, the order of the patches is not seen.
        dropout: share set to zero in training, after the positions and in the blocks.

    Call:
        images: `[B, H, W, C]`, scaled, for instance to 0 to 1.

    Returns:
        `[B, classes]` logits, or `[B, D]` without a head. A NaN pixel makes its image's row NaN.

    Raises:
        ValueError: a pool of another name; classes or depth below 0; images of another size, or none.

    Source: Dosovitskiy et al. 2020, section 3.1, <https://arxiv.org/abs/2010.11929>.
    Differs: there the head has a hidden layer during pre-training; here it is one dense layer.
    """

    def __init__(
        self,
        classes,
        image_size,
        patch,
        *,
        width,
        heads,
        depth,
        hidden,
        pool="token",
        positions=True,
        dropout=0.0,
        **kwargs,
    ):
        """Keep the arguments and make the layers."""
        super().__init__(**kwargs)
        for name, value in {"classes": classes, "depth": depth}.items():
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be an integer of at least 0; received {value!r}")
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {POOLS}; received {pool!r}")
        self.grid = _grid(image_size, patch)
        self.image_size = (self.grid[0] * patch, self.grid[1] * patch)
        self.options = {
            "classes": classes,
            "image_size": self.image_size,
            "patch": patch,
            "width": width,
            "heads": heads,
            "depth": depth,
            "hidden": hidden,
            "pool": pool,
            "positions": positions,
            "dropout": dropout,
        }
        policy, layers = self.dtype_policy, keras.layers
        self.embed = layers.Dense(width, name="embed", dtype=policy)
        self.drop = layers.Dropout(dropout, name="drop", dtype=policy)
        self.blocks = [
            Block(heads, hidden, dropout=dropout, epsilon=1e-6, name=f"block_{n}", dtype=policy)
            for n in range(depth)
        ]
        self.norm = layers.LayerNormalization(epsilon=1e-6, name="norm", dtype=policy)
        self.head = layers.Dense(classes, name="head", dtype=policy) if classes else None

    def build(self, shape):
        """Make the weights for images of this shape."""
        if len(shape) != len("BHWC") or tuple(shape[1:3]) != self.image_size:
            wanted = f"[B, {self.image_size[0]}, {self.image_size[1]}, C]"
            raise ValueError(f"images must be {wanted}; received {tuple(shape)}")
        width, patch = self.options["width"], self.options["patch"]
        class_token = self.options["pool"] == "token"
        steps = self.grid[0] * self.grid[1] + class_token
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.token = self.positions = None
        if class_token:
            self.token = self.add_weight((1, 1, width), "zeros", name="token")
        if self.options["positions"]:
            self.positions = self.add_weight((steps, width), small, name="positions")
        self.embed.build((None, None, patch * patch * shape[3]))
        for layer in (*self.blocks, self.norm):
            layer.build((None, steps, width))
        if self.head:
            self.head.build((None, width))
        self.built = True

    def tokens(self, images):
        """Return `[B, S, D]`: what the first block reads."""
        x = self.embed(ops.cast(patches(images, self.options["patch"]), self.compute_dtype))
        if self.token is not None:
            token = ops.cast(self.token, x.dtype)
            token = ops.broadcast_to(token, (ops.shape(x)[0], 1, x.shape[-1]))
            x = ops.concatenate([token, x], axis=1)
        return x if self.positions is None else x + ops.cast(self.positions, x.dtype)

    def call(self, images):
        """Cut, embed, read, pool, decide."""
        if tuple(images.shape[1:3]) != self.image_size:
            self.build(images.shape)  # raises
        if images.shape[0] == 0:
            raise ValueError("images must hold at least one; received none")
        x = self.drop(self.tokens(images))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        x = ops.mean(x, axis=1) if self.token is None else x[:, 0]
        return x if self.head is None else self.head(x)

    def get_config(self):
        """Return the arguments that make this model again."""
        return {**super().get_config(), **self.options}
