"""Vision Transformer: patches by hand, a strided convolution, Keras' own layers, counts, edges."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from aimodels.cnn import conv2d
from aimodels.vit import (
    VisionTransformer,
    assemble,
    multiply_adds,
    parameter_count,
    patches,
    resize_positions,
)

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def normal(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def message(text):
    return f"^{re.escape(text)}"


def randomize(model, seed, scale=0.3):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) * scale for w in model.get_weights()])


def small(shape=(6, 4, 3), **options):
    """A built model with random weights."""
    arguments = {"classes": 5, "image_size": shape[:2], "patch": 2, "width": 8, "heads": 2}
    model = VisionTransformer(**{**arguments, "depth": 2, "hidden": 12, **options})
    model.build((None, *shape))
    randomize(model, 0)
    return model


# ---- patches


def test_patches_of_a_four_by_four_image_by_hand():
    image = np.arange(16).reshape(1, 4, 4, 1)
    wanted = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert np.asarray(patches(image, 2))[0].tolist() == wanted


def test_channels_of_a_pixel_stay_side_by_side_and_columns_may_outnumber_rows():
    image = np.arange(2 * 6 * 2).reshape(1, 2, 6, 2)
    wanted = [
        [0, 1, 2, 3, 12, 13, 14, 15],
        [4, 5, 6, 7, 16, 17, 18, 19],
        [8, 9, 10, 11, 20, 21, 22, 23],
    ]
    assert np.asarray(patches(image, 2))[0].tolist() == wanted


@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (1, 2, 8, 1), (3, 4, 2, 2), (0, 4, 4, 1)])
@pytest.mark.parametrize("size", [1, 2])
def test_assembling_undoes_cutting(shape, size):
    images = normal(0, *shape)
    again = assemble(patches(images, size), shape[1:3], size)
    assert np.array_equal(again, images)


def test_a_patch_can_be_the_whole_image():
    images = normal(0, 2, 3, 3, 2)
    assert np.array_equal(patches(images, 3), images.reshape(2, 1, 18))
    assert np.array_equal(assemble(images.reshape(2, 1, 18), 3, 3), images)


@pytest.mark.parametrize(
    ("height", "width", "size", "channels", "filters"),
    [(6, 4, 2, 3, 5), (8, 8, 4, 1, 7), (3, 3, 3, 2, 1), (2, 4, 1, 2, 3), (1, 1, 1, 1, 1)],
)
def test_embedding_patches_is_a_convolution_with_that_stride(
    height, width, size, channels, filters
):
    images = normal(0, 2, height, width, channels)
    kernel, bias = normal(1, size, size, channels, filters), normal(2, filters)
    rows = np.asarray(patches(images, size))
    embedded = rows @ kernel.reshape(-1, filters) + bias
    by_keras = ops.conv(images, kernel, strides=size, padding="valid") + bias
    close(embedded, ops.reshape(by_keras, embedded.shape))
    close(embedded, conv2d(images, kernel, bias, size).reshape(embedded.shape))


def test_whole_numbers_and_tensors_are_cut_as_they_are():
    image = np.arange(16, dtype="uint8").reshape(1, 4, 4, 1)
    assert np.asarray(patches(image, 2)).dtype == "uint8"
    assert np.array_equal(patches(tf.constant(image), 2), patches(image, 2))


# ---- the same numbers as Keras' own layers


def by_keras(setting):
    """Assemble the network from Keras' layers: a strided convolution, its attention, its norms."""
    shape, patch, width, heads, depth, hidden, classes, pool, positions = setting
    layers = keras.layers
    images = keras.Input(shape)
    x = layers.Conv2D(width, patch, strides=patch, name="embed")(images)
    x = layers.Reshape((-1, width))(x)
    steps = x.shape[1] + (pool == "token")

    class Read(layers.Layer):
        def build(self, shape):
            if pool == "token":
                self.token = self.add_weight((1, 1, width))
            if positions:
                self.place = self.add_weight((steps, width))

        def call(self, x):
            if pool == "token":
                first = ops.repeat(self.token, ops.shape(x)[0], axis=0)
                x = ops.concatenate([first, x], 1)
            return x + self.place if positions else x

    x = Read(name="read")(x)
    for _ in range(depth):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = x + layers.MultiHeadAttention(heads, width // heads)(y, y)
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(hidden, activation="gelu")(y)
        x = x + layers.Dense(width)(y)
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    x = x[:, 0] if pool == "token" else layers.GlobalAveragePooling1D()(x)
    return keras.Model(images, layers.Dense(classes)(x) if classes else x)


def weights_in_order(model):
    """Our weights in the order in which the assembly above makes them."""
    yield from model.embed.get_weights()
    yield from (np.asarray(w) for w in (model.token, model.positions) if w is not None)
    for block in model.blocks:
        yield from block.norms[0].get_weights()
        yield from block.attend.get_weights()
        yield from block.norms[1].get_weights()
        yield from block.feed.get_weights()
    yield from model.norm.get_weights()
    if model.head:
        yield from model.head.get_weights()


SETTINGS = [
    # shape, patch, width, heads, depth, hidden, classes, pool, positions
    ((6, 4, 3), 2, 8, 2, 2, 12, 5, "token", True),
    ((8, 8, 1), 4, 6, 3, 1, 4, 3, "mean", True),
    ((4, 8, 2), 4, 4, 1, 3, 9, 0, "token", True),
    ((3, 3, 1), 1, 4, 4, 1, 1, 2, "mean", False),
    ((2, 2, 1), 1, 2, 1, 0, 3, 1, "token", False),
    ((5, 5, 2), 5, 1, 1, 1, 2, 2, "token", True),
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_equals_the_assembly_of_keras_layers(setting):
    shape, patch, width, heads, depth, hidden, classes, pool, positions = setting
    ours = small(
        shape,
        patch=patch,
        width=width,
        heads=heads,
        depth=depth,
        hidden=hidden,
        classes=classes,
        pool=pool,
        positions=positions,
    )
    theirs = by_keras(setting)
    theirs.set_weights(
        [w.reshape(v.shape) for w, v in zip(weights_in_order(ours), theirs.weights, strict=True)]
    )
    images = normal(1, 3, *shape)
    close(ours(images), theirs(images))
    sizes = {"width": width, "depth": depth, "hidden": hidden}
    count = parameter_count(classes, shape[:2], patch, **sizes, channels=shape[2], pool=pool)
    if positions:
        assert ours.count_params() == theirs.count_params() == count


# ---- how many parameters, how much work

SIZES = {  # Dosovitskiy et al. 2020, table 1: depth, width, hidden
    "B": {"depth": 12, "width": 768, "hidden": 3072},
    "L": {"depth": 24, "width": 1024, "hidden": 4096},
    "H": {"depth": 32, "width": 1280, "hidden": 5120},
}


def published(name, patch, classes=1000):
    return parameter_count(classes, 224, patch, **SIZES[name])


def test_published_counts():
    # torchvision 0.15 and later states these, with a head of 1,000 classes.
    assert published("B", 16) == 86_567_656
    assert published("B", 32) == 88_224_232
    assert published("L", 16) == 304_326_632
    assert published("L", 32) == 306_535_400
    assert published("H", 14) == 632_045_800
    assert parameter_count(1000, 518, 14, **SIZES["H"]) == 633_470_440
    # the paper's table 1, in millions
    assert round(published("B", 16, classes=0) / 1e6) == 86
    assert round(published("L", 32) / 1e6) == 307
    assert round(published("H", 14) / 1e6) == 632


def test_published_work():
    # torchvision states 17.56 and 61.55 thousand millions.
    for name, patch, wanted in [("B", 16, 17.56), ("L", 16, 61.55), ("B", 32, 4.41)]:
        work = multiply_adds(1000, 224, patch, **SIZES[name])
        assert round(work / 1e9, 2) == wanted


def test_the_base_model_built_without_memory_has_the_published_count():
    with keras.StatelessScope(initialize_variables=False):
        model = VisionTransformer(1000, 224, 16, heads=12, **SIZES["B"])
        model.build((None, 224, 224, 3))
    assert model.count_params() == 86_567_656


def test_work_counted_by_hand():
    # 2 x 2 patches of 1 pixel and a token, D = 2, E = 3, one block, 2 classes.
    # embed 4 · 1 · 2; projections 5 · 4 · 4; feedforward 5 · 2 · 6; scores and reading 2 · 25 · 2
    sizes = {"width": 2, "depth": 1, "hidden": 3, "channels": 1}
    assert multiply_adds(2, 2, 1, **sizes) == 8 + 80 + 60 + 100 + 4
    assert multiply_adds(0, 2, 1, **sizes, pool="mean") == 8 + 64 + 48 + 64


def test_heads_and_dropout_change_no_count():
    assert small(heads=1).count_params() == small(heads=8, dropout=0.5).count_params()


# ---- what is seen of the order


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_without_positions_shuffled_patches_give_the_same_answer(pool):
    images = normal(2, 3, 6, 4, 3)
    order = np.array([3, 0, 5, 1, 4, 2])
    moved = assemble(np.asarray(patches(images, 2))[:, order], (6, 4), 2)
    blind, seeing = small(pool=pool, positions=False), small(pool=pool)
    close(blind(moved), blind(images))
    assert np.abs(np.asarray(seeing(moved) - seeing(images))).max() > 0.01


def test_shuffling_patches_and_their_positions_together_changes_nothing():
    model, images = small(), normal(2, 3, 6, 4, 3)
    before = np.asarray(model(images))
    order = np.array([3, 0, 5, 1, 4, 2])
    moved = assemble(np.asarray(patches(images, 2))[:, order], (6, 4), 2)
    model.positions.assign(np.asarray(model.positions)[[0, *(order + 1)]])
    close(model(moved), before)


def test_tokens_are_the_class_token_then_embedded_patches_plus_positions():
    model, images = small(), normal(2, 3, 6, 4, 3)
    tokens = np.asarray(model.tokens(images))
    positions = np.asarray(model.positions)
    close(tokens[:, 0], np.repeat(np.asarray(model.token)[0] + positions[:1], 3, 0))
    close(tokens[:, 1:], np.asarray(model.embed(patches(images, 2))) + positions[1:])


def test_images_of_a_batch_do_not_meet():
    model, images = small(), normal(2, 3, 6, 4, 3)
    close(model(images)[1:2], model(images[1:2]))


def test_every_pixel_counts():
    for pool in ("token", "mean"):
        model, images = small(pool=pool), tf.constant(normal(2, 1, 6, 4, 3))
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = ops.sum(model(images)[:, 0])
        assert (np.abs(tape.gradient(loss, images)) > 0).all()


def test_a_nan_pixel_shows_in_its_image_alone():
    images = normal(2, 3, 6, 4, 3)
    images[1, 5, 3, 2] = np.nan
    for pool in ("token", "mean"):
        shown = np.isnan(small(pool=pool)(images))
        assert shown.all(axis=1).tolist() == [False, True, False]
        assert shown.any(axis=1).tolist() == [False, True, False]


# ---- positions for another size


def test_positions_on_the_same_grid_stay():
    positions = normal(0, 7, 4)
    close(resize_positions(positions, (3, 2), (3, 2)), positions, 1e-6)


def test_positions_between_are_means():
    # Bilinear, pixel centres: 1 of 2 places to 4 places lie at -1/4, 1/4, 3/4, 5/4.
    positions = np.array([[9.0], [0.0], [1.0]], "float32")
    wanted = [[9], [0], [0.25], [0.75], [1]]
    close(resize_positions(positions, (1, 2), (1, 4)), wanted)
    close(resize_positions(positions[1:], (2, 1), (4, 1)), wanted[1:])


def test_rows_and_columns_are_not_exchanged():
    plane = np.add.outer(10 * np.arange(2.0), np.arange(3.0)).reshape(6, 1)
    wide = np.asarray(resize_positions(plane, (2, 3), (2, 6))).reshape(2, 6)
    close(wide, np.add.outer([0, 10], [0, 0.25, 0.75, 1.25, 1.75, 2]))


@pytest.mark.parametrize("shape", [(5, 2), (8, 2), (7,)])
def test_positions_of_another_grid_are_refused(shape):
    text = f"positions must be [6 or 7, D] on a grid of (3, 2); received {shape}"
    with pytest.raises(ValueError, match=message(text)):
        resize_positions(np.zeros(shape), (3, 2), (4, 4))


# ---- dropout, precision, compilation, saving


def test_dropout_acts_in_training_alone():
    model, images = small(dropout=0.5), normal(2, 2, 6, 4, 3)
    close(model(images), small()(images))
    once, twice = (np.asarray(model(images, training=True)) for _ in range(2))
    assert np.abs(once - twice).max() > 0.01


def test_dropout_acts_on_the_tokens_too():
    model, images = small(dropout=0.5, depth=0, pool="mean"), normal(2, 2, 6, 4, 3)
    assert np.abs(np.asarray(model(images, training=True) - model(images))).max() > 0.01


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
def test_it_follows_its_policy(policy):
    images = normal(2, 3, 6, 4, 3)
    model, exact = small(dtype=policy), small()
    output = model(images)
    for made in (output, model.tokens(images)):
        assert keras.backend.standardize_dtype(made.dtype) == policy.removeprefix("mixed_")
    wanted = np.asarray(exact(images))
    assert np.abs(np.asarray(output, "float32") - wanted).max() < 0.05 * np.abs(wanted).max()


def test_whole_numbers_from_0_to_255_are_the_same_numbers():
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 3))
    model = small()
    close(model(images.astype("uint8")), model(images.astype("float32")))


def test_it_learns_and_compiled_it_gives_the_same_numbers():
    model, images = small(), normal(2, 8, 6, 4, 3)
    before = np.asarray(model(images))
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=True, autograph=False)
    close(compiled(tf.constant(images)), before)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    losses = [model.train_on_batch(images, np.arange(8) % 5) for _ in range(15)]
    assert losses[-1] < losses[0]


def test_every_weight_gets_a_gradient():
    model, images = small(), normal(2, 3, 6, 4, 3)
    with tf.GradientTape() as tape:
        loss = ops.sum(model(images) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    for gradient, variable in zip(gradients, model.trainable_variables, strict=True):
        if "key" not in variable.path or "bias" not in variable.path:  # moves all scores alike
            assert np.abs(gradient).max() > 1e-6, variable.path


def test_a_batch_of_unknown_size_keeps_its_shapes():
    images = keras.Input((6, 4, 3))
    model = small()
    assert model(images).shape == (None, 5)
    assert patches(images, 2).shape == (None, 6, 12)


@SAVING
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_a_saved_model_gives_the_same_numbers(tmp_path, pool):
    model, images = small(pool=pool, dropout=0.1), normal(2, 2, 6, 4, 3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (np.asarray(model(images)) == np.asarray(again(images))).all()


def test_the_configuration_makes_the_same_model():
    sizes = {"width": 6, "heads": 3, "depth": 1, "hidden": 5}
    given = {"classes": 3, "image_size": (4, 8), "patch": 4, **sizes, "name": "v"}
    given |= {"pool": "mean", "positions": False, "dropout": 0.2}
    model = VisionTransformer(**given)
    assert given.items() <= model.get_config().items()
    assert VisionTransformer.from_config(model.get_config()).get_config() == model.get_config()


# ---- bad arguments


@pytest.mark.parametrize(
    ("shape", "size", "text"),
    [
        ((4, 4, 1), 2, "images must be [B, H, W, C]; received (4, 4, 1)"),
        ((1, 28, 30, 1), 7, "image_size must be multiples of the patch 7; received 28 x 30"),
        ((1, 30, 28, 1), 7, "image_size must be multiples of the patch 7; received 30 x 28"),
        ((1, 4, 4, 1), 8, "image_size must be multiples of the patch 8; received 4 x 4"),
        ((1, 4, 4, 1), 0, "patch must be an integer of at least 1; received 0"),
        ((1, 4, 4, 1), 2.0, "patch must be an integer of at least 1; received 2.0"),
    ],
)
def test_images_that_cannot_be_cut_are_refused(shape, size, text):
    with pytest.raises(ValueError, match=message(text)):
        patches(np.zeros(shape), size)


@pytest.mark.parametrize("shape", [(1, 5, 4), (1, 6, 5), (6, 4)])
def test_rows_that_are_no_patches_are_refused(shape):
    text = f"rows must be [B, 6, a multiple of 4]; received {shape}"
    with pytest.raises(ValueError, match=message(text)):
        assemble(np.zeros(shape), (4, 6), 2)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"classes": -1}, "classes must be an integer of at least 0; received -1"),
        ({"depth": 1.5}, "depth must be an integer of at least 0; received 1.5"),
        ({"pool": "max"}, "pool must be one of ('token', 'mean'); received 'max'"),
        ({"patch": 3}, "image_size must be multiples of the patch 3; received 6 x 4"),
        ({"image_size": 0}, "image_size must be multiples of the patch 2; received 0 x 0"),
        ({"heads": 3}, "heads must divide the width 8; received 3"),
        ({"hidden": 0}, "hidden must be an integer of at least 1; received 0"),
    ],
)
def test_arguments_that_make_no_network_are_refused(changed, text):
    with pytest.raises(ValueError, match=message(text)):
        small(**changed)


@pytest.mark.parametrize("shape", [(6, 6, 3), (4, 6, 3), (4, 6)])
def test_images_of_another_size_are_refused_before_and_after_building(shape):
    images = np.zeros((2, *shape), "float32")
    text = f"images must be [B, 6, 4, C]; received {images.shape}"
    sizes = {"width": 8, "heads": 2, "depth": 1, "hidden": 12}
    with pytest.raises(ValueError, match=re.escape(text)):
        VisionTransformer(5, (6, 4), 2, **sizes)(images)
    with pytest.raises(ValueError, match=re.escape(text)):
        small()(images)


def test_no_image_at_all_is_refused():
    with pytest.raises(ValueError, match="images must hold at least one; received none"):
        small()(np.zeros((0, 6, 4, 3), "float32"))
