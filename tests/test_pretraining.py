"""Pre-training: masks and patches in NumPy, the loss by hand, gradients, transfer bit by bit."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from aimodels.pretraining import (
    MaskedAutoencoder,
    hidden_loss,
    readable,
    transfer,
    visible_patches,
)
from aimodels.training import make_step
from aimodels.vit import VisionTransformer, assemble, patches

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SHAPE, T = (6, 4, 3), 6


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


def vit(classes=0, seed=0, **options):
    """A built Vision Transformer with random weights."""
    arguments = {"image_size": SHAPE[:2], "patch": 2, "width": 8, "heads": 2, "depth": 2}
    model = VisionTransformer(classes, **{**arguments, "hidden": 12, "pool": "mean", **options})
    model.build((None, *SHAPE))
    randomize(model, seed)
    return model


def autoencoder(depth=1, dtype=None, **options):
    model = MaskedAutoencoder(
        vit(dtype=dtype, **options), width=4, heads=2, depth=depth, dtype=dtype
    )
    model.build(((None, *SHAPE), (None, 2)))
    randomize(model, 1)
    return model


def some(samples=3, share=0.6, seed=2):
    images = normal(seed, samples, *SHAPE)
    return images, visible_patches(samples, T, share, np.random.default_rng(seed))


# ---- masks


def test_visible_patches_are_different_and_ascending():
    rng = np.random.default_rng(0)
    for count, share, hidden in [
        (2, 0.5, 1),
        (16, 0.75, 12),
        (49, 0.6, 29),
        (16, 0.01 + 1 / 32, 1),
    ]:
        drawn = visible_patches(50, count, share, rng)
        assert drawn.dtype == "int32"
        assert drawn.shape == (50, count - hidden)
        assert (np.diff(drawn, axis=1) > 0).all()
        assert drawn.min() >= 0
        assert drawn.max() < count


def test_one_seed_draws_the_same_masks_and_another_others():
    a, b, c = (visible_patches(9, 16, 0.5, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_images_of_a_batch_have_masks_of_their_own():
    assert len(np.unique(visible_patches(50, 16, 0.5, np.random.default_rng(0)), axis=0)) > 40


def test_every_pair_of_patches_is_equally_likely():
    drawn = visible_patches(30000, 5, 0.6, np.random.default_rng(0))
    pairs, times = np.unique(drawn, axis=0, return_counts=True)
    assert len(pairs) == 10
    assert np.abs(times / 3000 - 1).max() < 0.06  # about three standard deviations


def test_readable_is_true_at_the_visible_patches():
    visible = visible_patches(7, 9, 0.7, np.random.default_rng(0))
    by_hand = np.zeros((7, 9), bool)
    for image, row in enumerate(visible):
        by_hand[image, row] = True
    assert np.array_equal(readable(visible, 9), by_hand)


# ---- loss


def test_loss_by_hand():
    # Two images of three patches of two pixels; patch 1, then patch 0, is visible.
    rows = np.array([[[1, 2], [9, 9], [0, 0]], [[5, 5], [1, 1], [2, 4]]], "float32")
    drawn = np.array([[[0, 2], [0, 0], [2, 2]], [[0, 0], [1, 3], [2, 1]]], "float32")
    visible = np.array([[1], [0]])
    # (1 + 0)/2, (4 + 4)/2; (0 + 4)/2, (0 + 9)/2
    assert float(hidden_loss((rows, visible), drawn)) == (0.5 + 4 + 2 + 4.5) / 4


@pytest.mark.parametrize("shape", [(1, 2, 1), (5, 16, 49), (3, 9, 12)])
def test_loss_is_the_mean_over_hidden_pixels_in_numpy(shape):
    rows, drawn = normal(0, *shape), normal(1, *shape)
    visible = visible_patches(*shape[:2], 0.5, np.random.default_rng(0))
    hidden = np.ones(shape[:2], bool)
    np.put_along_axis(hidden, visible, False, axis=1)
    close(hidden_loss((rows, visible), drawn), ((rows - drawn) ** 2)[hidden].mean())


def test_the_loss_sends_no_gradient_to_visible_patches():
    rows, drawn = normal(0, 4, 9, 5), tf.constant(normal(1, 4, 9, 5))
    visible = visible_patches(4, 9, 0.6, np.random.default_rng(0))
    with tf.GradientTape() as tape:
        tape.watch(drawn)
        loss = hidden_loss((rows, visible), drawn)
    gradient = tape.gradient(loss, drawn).numpy()
    allowed = np.asarray(readable(visible, 9))
    assert (gradient[allowed] == 0).all()
    close(gradient[~allowed], (2 * (drawn.numpy() - rows) / (4 * 5 * 5))[~allowed])


def test_the_loss_of_half_precision_is_float32():
    rows, drawn = normal(0, 2, 4, 3), normal(1, 2, 4, 3) * 300  # squares above 65,504
    visible = np.array([[0], [1]])
    half = hidden_loss((rows.astype("float16"), visible), drawn.astype("float16"))
    assert half.dtype == "float32"
    close(half, hidden_loss((rows, visible), drawn), 1e-2)


# ---- the autoencoder


def by_loops(model, images, visible):
    """The same by masked attention over all patches, and by rows put into place one by one."""
    body, allowed = model.body, np.asarray(readable(visible, T))
    first = body.token is not None
    x = body.tokens(images)
    keys = np.concatenate([np.ones((len(images), int(first)), bool), allowed], axis=1)
    for block in body.blocks:
        x = block(x, attention_mask=keys[:, None, :])
    x = np.asarray(model.enter(body.norm(x)))[:, int(first) :]
    rows = np.array([[model.gap.numpy()] * T] * len(images))
    for image in range(len(images)):
        for patch in visible[image]:
            rows[image, patch] = x[image, patch]
    x = rows + model.positions.numpy()
    for block in model.blocks:
        x = block(x)
    return model.draw(model.norm(x))


@pytest.mark.parametrize("pool", ["mean", "token"])
@pytest.mark.parametrize(("depth", "share"), [(1, 0.6), (0, 0.2), (2, 0.8)])
def test_leaving_patches_out_is_masking_them(pool, depth, share):
    model = autoencoder(depth, pool=pool)
    images, visible = some(share=share)
    close(model((images, visible)), by_loops(model, images, visible))


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_hidden_pixels_have_no_influence(pool):
    model = autoencoder(pool=pool)
    images, visible = some()
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = ops.sum(model((images, visible)) ** 2)
    gradient = np.asarray(patches(tape.gradient(loss, images), 2))
    allowed = np.asarray(readable(visible, T))
    assert (gradient[~allowed] == 0).all()
    assert (gradient[allowed] != 0).all()


def test_a_nan_shows_where_it_may_be_read_and_only_there():
    model = autoencoder()
    images, visible = some()
    rows = np.array(patches(images, 2))
    seen, unseen = visible[0, 0], np.flatnonzero(~np.asarray(readable(visible, T))[1])[0]
    rows[0, seen, 0] = rows[1, unseen, 0] = np.nan
    shown = np.isnan(model((np.asarray(assemble(rows, (6, 4), 2)), visible)))
    assert shown.all(axis=(1, 2)).tolist() == [True, False, False]
    assert shown.any(axis=(1, 2)).tolist() == [True, False, False]
    assert np.isnan(hidden_loss((rows, visible), np.zeros_like(rows)))


def test_images_of_a_batch_do_not_meet():
    model, (images, visible) = autoencoder(), some()
    close(model((images, visible))[1:2], model((images[1:2], visible[1:2])))


def test_without_positions_all_gaps_are_drawn_alike():
    model, (images, visible) = autoencoder(), some()
    model.positions.assign(np.zeros(model.positions.shape))
    drawn = np.asarray(model((images, visible)))
    gaps = drawn[0][~np.asarray(readable(visible, T))[0]]
    close(gaps, np.repeat(gaps[:1], len(gaps), 0))
    assert np.abs(drawn[0] - gaps[0]).max() > 0.01


def test_every_weight_gets_a_gradient():
    model, (images, visible) = autoencoder(pool="token"), some()
    with tf.GradientTape() as tape:
        loss = hidden_loss((patches(images, 2), visible), model((images, visible)))
    gradients = tape.gradient(loss, model.trainable_variables)
    for gradient, variable in zip(gradients, model.trainable_variables, strict=True):
        if "key" not in variable.path or "bias" not in variable.path:  # moves all scores alike
            assert np.abs(gradient).max() > 1e-7, variable.path


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_loop_trains_it(jit_compile):
    model, (images, visible) = autoencoder(), some(8)
    step = make_step(model, keras.optimizers.Adam(0.01), hidden_loss, jit_compile)
    before = float(hidden_loss((patches(images, 2), visible), model((images, visible))))
    losses = [float(step((images, visible), (patches(images, 2), visible))) for _ in range(20)]
    close(losses[0], before, 1e-4)
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("policy", ["float16", "mixed_float16"])
def test_it_follows_its_policy(policy):
    images, visible = some()
    drawn = autoencoder(dtype=policy)((images, visible))
    assert keras.backend.standardize_dtype(drawn.dtype) == "float16"
    wanted = np.asarray(autoencoder()((images, visible)))
    assert np.abs(np.asarray(drawn, "float32") - wanted).max() < 0.05 * np.abs(wanted).max()


def test_a_batch_of_unknown_size_keeps_its_shapes():
    inputs = (keras.Input(SHAPE), keras.Input((2,), dtype="int32"))
    assert autoencoder()(inputs).shape == (None, T, 12)


@SAVING
def test_a_saved_model_gives_the_same_numbers(tmp_path):
    model, inputs = autoencoder(depth=2), some()
    before = np.asarray(model(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (np.asarray(again(inputs)) == before).all()
    assert again.options == model.options
    assert again.body.count_params() == model.body.count_params()


def test_it_builds_itself_when_it_is_called():
    body = VisionTransformer(0, (6, 4), 2, width=8, heads=2, depth=1, hidden=8)
    model = MaskedAutoencoder(body, width=4, heads=2)
    assert model(some()).shape == (3, T, 12)
    assert body.built
    inside = {id(v) for v in model.trainable_variables}
    assert {id(v) for v in body.trainable_variables} <= inside


# ---- work


def test_work_by_hand():
    # T = 6, P²C = 12, D = 8, E = 12, two blocks; K = 2; the decoder: 4 wide, 8 hidden, one block.
    embed, body = 6 * 12 * 8, 2 * (2 * (4 * 64 + 2 * 96) + 2 * 4 * 8)
    decoder = 2 * 8 * 4 + 6 * (4 * 16 + 2 * 32) + 2 * 36 * 4 + 6 * 4 * 12
    assert autoencoder().multiply_adds(2) == embed + body + decoder
    # with a class token one more is read, and nothing else changes
    more = 2 * ((4 * 64 + 2 * 96) + 2 * (9 - 4) * 8)
    assert autoencoder(pool="token").multiply_adds(2) == embed + body + decoder + more


# ---- transfer


@pytest.mark.parametrize("pool", ["mean", "token"])
@pytest.mark.parametrize("blocks", [None, 0, 1, 2])
def test_what_is_transferred_is_identical_bit_by_bit_and_nothing_else_changes(pool, blocks):
    body, classifier = vit(pool=pool), vit(5, seed=1, pool=pool)
    old = [w.copy() for w in classifier.get_weights()]
    assert transfer(body, classifier, blocks) is classifier
    copied = {id(v) for v in [*classifier.embed.weights, classifier.positions, classifier.token]}
    for block in classifier.blocks[:blocks]:
        copied |= {id(v) for v in block.weights}
    if blocks is None:
        copied |= {id(v) for v in classifier.norm.weights}
    theirs = {v.path.split("/", 1)[1]: v.numpy() for v in body.weights}
    for variable, before in zip(classifier.weights, old, strict=True):
        wanted = theirs[variable.path.split("/", 1)[1]] if id(variable) in copied else before
        assert np.array_equal(variable.numpy(), wanted), variable.path


def test_a_transferred_classifier_sees_what_the_body_sees():
    body, classifier, images = vit(), vit(5, seed=1), some()[0]
    transfer(body, classifier)
    kernel, bias = classifier.head.get_weights()
    close(classifier(images), np.asarray(body(images)) @ kernel + bias)


def test_training_the_classifier_leaves_the_body_alone():
    body, classifier = vit(), vit(5, seed=1)
    transfer(body, classifier)
    before = body.get_weights()
    randomize(classifier, 3)
    assert all(np.array_equal(a, b) for a, b in zip(before, body.get_weights(), strict=True))


def test_transfer_without_positions():
    body, classifier = vit(positions=False), vit(5, seed=1, positions=False)
    transfer(body, classifier)
    assert np.array_equal(body.embed.kernel, classifier.embed.kernel)


# ---- bad arguments


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 16, 0.5), "samples must be an integer of at least 1; received 0"),
        ((1.0, 16, 0.5), "samples must be an integer of at least 1; received 1.0"),
        ((3, 1, 0.5), "count must be an integer of at least 2; received 1"),
        ((3, 16, 0), "share must hide 1 to 15 of 16 patches; received 0"),
        ((3, 16, 0.01), "share must hide 1 to 15 of 16 patches; received 0.01"),
        ((3, 16, 0.99), "share must hide 1 to 15 of 16 patches; received 0.99"),
        ((3, 16, 75), "share must hide 1 to 15 of 16 patches; received 75"),
        ((3, 16, -0.5), "share must hide 1 to 15 of 16 patches; received -0.5"),
        ((3, 16, float("nan")), "share must hide 1 to 15 of 16 patches; received nan"),
    ],
)
def test_masks_that_cannot_be_drawn_are_refused(arguments, text):
    with pytest.raises(ValueError, match=message(text)):
        visible_patches(*arguments, np.random.default_rng(0))


def test_patches_of_another_shape_are_refused():
    text = "target must hold patches shaped as predicted, (2, 4, 3); received (2, 5, 3)"
    with pytest.raises(ValueError, match=message(text)):
        hidden_loss((np.zeros((2, 5, 3)), np.array([[0], [1]])), np.zeros((2, 4, 3)))


def test_bodies_that_are_none_are_refused():
    text = "body must be a VisionTransformer with classes=0; received one with a head"
    with pytest.raises(ValueError, match=message(text)):
        MaskedAutoencoder(vit(5), width=4, heads=2)
    text = "body must be a VisionTransformer with classes=0; received None"
    with pytest.raises(ValueError, match=message(text)):
        MaskedAutoencoder(None, width=4, heads=2)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"depth": -1}, "depth must be an integer of at least 0; received -1"),
        ({"depth": 1.5}, "depth must be an integer of at least 0; received 1.5"),
        ({"width": 0}, "width must be an integer of at least 1; received 0"),
        ({"width": 2.5}, "width must be an integer of at least 1; received 2.5"),
        ({"heads": 3}, "heads must divide the width 4; received 3"),
    ],
)
def test_decoders_that_cannot_be_are_refused(changed, text):
    with pytest.raises(ValueError, match=message(text)):
        MaskedAutoencoder(vit(), **{"width": 4, "heads": 2, **changed})(some())


@pytest.mark.parametrize("shape", [(6, 6, 3), (4, 6, 3)])
def test_images_of_another_size_are_refused(shape):
    images, visible = np.zeros((2, *shape), "float32"), np.array([[0], [1]])
    text = f"images must be [B, 6, 4, C]; received {images.shape}"
    with pytest.raises(ValueError, match=re.escape(text)):
        autoencoder()((images, visible))


@pytest.mark.parametrize("shape", [(3, 2), (2,), (2, 7), (2, 0)])
def test_masks_of_another_shape_are_refused(shape):
    text = f"visible must be [2, 1 to 6]; received {shape}"
    with pytest.raises(ValueError, match=re.escape(text)):
        autoencoder()((np.zeros((2, *SHAPE), "float32"), np.zeros(shape, "int32")))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"width": 4}, "classifier must have the body's width 8; received 4"),
        ({"depth": 3}, "classifier must have the body's depth 2; received 3"),
        ({"pool": "token"}, "classifier must have the body's pool 'mean'; received 'token'"),
        ({"positions": False}, "classifier must have the body's positions True; received False"),
    ],
)
def test_classifiers_of_other_sizes_are_refused(changed, text):
    with pytest.raises(ValueError, match=message(text)):
        transfer(vit(), vit(5, **changed))


@pytest.mark.parametrize("blocks", [-1, 3, 1.0, True])
def test_blocks_that_are_not_there_are_refused(blocks):
    text = f"blocks must be an integer from 0 to 2, or None; received {blocks!r}"
    with pytest.raises(ValueError, match=message(text)):
        transfer(vit(), vit(5), blocks)


def test_models_without_weights_are_refused():
    bare = VisionTransformer(5, (6, 4), 2, width=8, heads=2, depth=2, hidden=12, pool="mean")
    with pytest.raises(ValueError, match=message("classifier must be built; call it once")):
        transfer(vit(), bare)
    with pytest.raises(ValueError, match=message("body must be built; call it once")):
        transfer(bare, vit(5))
