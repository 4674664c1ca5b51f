"""Cross-modal learning: the loss by hand, by Keras, by differences; ranks; texts; towers; edges."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from scipy.signal import stft

from aimodels.clip import (
    COLDEST,
    Towers,
    Vocabulary,
    contrast,
    image_tower,
    ngrams,
    ranks,
    recall,
    sound_tower,
    spectrogram,
    symmetric_loss,
    text_tower,
)
from aimodels.contrastive import info_nce
from aimodels.training import make_step

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def normal(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def message(text):
    return f"^{re.escape(text)}"


def by_loops(queries, keys, temperature):
    """Each row and each column once, without a matrix."""
    unit = [rows.astype("float64") for rows in (queries, keys)]
    u, v = ([row / math.sqrt(row @ row) for row in rows] for rows in unit)
    total = 0
    for i in range(len(u)):
        for one, others in ((u[i], v), (v[i], u)):
            scores = [math.exp(one @ other / temperature) for other in others]
            total -= math.log(scores[i] / sum(scores))
    return total / 2 / len(u)


# ---- the loss


def test_two_pairs_by_hand():
    queries, keys = np.eye(2), np.array([[1.0, 0.0], [1.0, 0.0]])
    # From the queries: log 2 twice. From the keys: logits (1, 0)/0.5, right once and wrong once.
    back = math.log(1 + math.exp(-2)) / 2 + math.log(1 + math.exp(2)) / 2
    wanted = (math.log(2) + back) / 2
    assert float(symmetric_loss(queries, keys, 0.5)) == pytest.approx(wanted)


@pytest.mark.parametrize(("size", "width"), [(2, 1), (2, 5), (3, 2), (17, 6)])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_the_loss_is_that_of_loops_and_of_keras_in_both_directions(size, width, temperature):
    a, b = normal(0, size, width), normal(1, size, width)
    ours = float(symmetric_loss(a, b, temperature))
    assert ours == pytest.approx(by_loops(a, b, temperature), rel=1e-5)
    u, v = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
    logits = u @ v.T / temperature
    cross_entropy = keras.losses.sparse_categorical_crossentropy
    theirs = [cross_entropy(np.arange(size), z, from_logits=True) for z in (logits, logits.T)]
    assert ours == pytest.approx(np.mean(theirs), rel=1e-4)


def test_the_sides_may_be_exchanged_and_both_count():
    a, b = normal(2, 5, 3), normal(3, 5, 3)
    loss = float(symmetric_loss(a, b, 0.2))
    assert loss == pytest.approx(float(symmetric_loss(b, a, 0.2)))
    one, other = float(info_nce(a, b, 0.2)), float(info_nce(b, a, 0.2))
    assert abs(one - other) > 0.01
    assert loss == pytest.approx((one + other) / 2)


@pytest.mark.parametrize("size", [2, 50])
def test_where_all_directions_are_equal_the_loss_is_that_of_chance(size):
    rows = np.ones((size, 3), "float32")
    assert float(symmetric_loss(rows, rows, 0.1)) == pytest.approx(math.log(size))


def test_the_gradient_by_the_temperature_is_that_of_finite_differences():
    a, b = normal(4, 6, 4, dtype="float64"), normal(5, 6, 4, dtype="float64")
    tau = tf.Variable(0.3, dtype="float64")
    with tf.GradientTape() as tape:
        value = symmetric_loss(a, b, tau)
    found = float(symmetric_loss(a, b, 0.3 + 1e-6) - symmetric_loss(a, b, 0.3 - 1e-6)) / 2e-6
    assert float(tape.gradient(value, tau)) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    a, b = (ops.cast(normal(seed, 6, 8) * 200, dtype) for seed in (6, 7))
    exact = by_loops(*(np.asarray(ops.cast(x, "float64")) for x in (a, b)), 0.1)
    assert float(symmetric_loss(a, b, 0.1)) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "temperature", "words"),
    [
        ((1, 3), (1, 3), 0.1, "keys must be [B, D], B at least 2; received (1, 3)"),
        ((0, 3), (0, 3), 0.1, "queries must be [B, D], B at least 1; received (0, 3)"),
        ((3, 2), (3, 2), 0, "temperature must be above 0 and finite; received 0"),
        ((3, 2), (3, 2), -1.0, "temperature must be above 0 and finite; received -1"),
        ((3, 2), (3, 2), math.nan, "temperature must be above 0 and finite; received nan"),
        ((3, 2), (2, 2), 0.1, "queries and keys must have one shape [B, D]; received (3, 2) and"),
        ((2, 2), (3, 2), 0.1, "queries and keys must have one shape [B, D]; received (2, 2) and"),
        ((3, 2), (3, 4), 0.1, "queries and keys must have one shape [B, D]; received (3, 2) and"),
        ((3,), (3,), 0.1, "queries must be [B, D], B at least 1; received (3,)"),
    ],
)
def test_what_cannot_be_compared_is_said(a, b, temperature, words):
    with pytest.raises(ValueError, match=message(words)):
        symmetric_loss(np.ones(a), np.ones(b), temperature)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_nan_is_never_a_number(bad):
    rows = normal(8, 3, 2)
    broken = rows.copy()
    broken[1, 0] = bad
    for pair in ((rows, broken), (broken, rows)):
        with pytest.raises(ValueError, match="must be finite"):
            symmetric_loss(*pair, 0.1)
    loss = tf.function(lambda a, b: symmetric_loss(a, b, 0.1), jit_compile=True, autograph=False)
    assert np.isnan(loss(tf.constant(rows), tf.constant(broken)))


def test_contrast_averages_the_pairs_that_are_named():
    rows = {name: normal(seed, 4, 3) for seed, name in enumerate(("image", "en", "zh"))}
    rows["temperature"] = 0.2
    pairs = [("image", "en"), ("zh", "image")]
    wanted = np.mean([float(symmetric_loss(rows[a], rows[b], 0.2)) for a, b in pairs])
    assert float(contrast(*pairs)((), rows)) == pytest.approx(wanted)
    with pytest.raises(ValueError, match=r"pairs must name some of \[.*'zh'\]; received 'sound'"):
        contrast(("image", "sound"))((), rows)
    with pytest.raises(ValueError, match="pairs must hold at least one; received none"):
        contrast()


# ---- ranks


def test_ranks_by_hand():
    keys = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    assert ranks(keys, keys).tolist() == [1, 1, 1]
    assert ranks(keys[[2, 1]], keys).tolist() == [3, 1]
    # At 45 degrees the first two keys are equally near: the own one comes last of them.
    assert ranks(np.array([[5.0, 5.0]]), keys).tolist() == [2]


def test_a_network_that_says_the_same_of_everything_gets_the_last_rank():
    assert ranks(np.ones((4, 3)), np.ones((6, 3))).tolist() == [6] * 4
    rows = normal(9, 1, 7) * np.linspace(0.1, 3, 50)[:, None]  # directions differ by rounding
    assert ranks(rows, rows[::-1] * 0.7).tolist() == [50] * 50


@pytest.mark.parametrize(("size", "keys", "width"), [(1, 1, 1), (5, 5, 2), (7, 30, 4)])
def test_ranks_are_those_of_sorting(size, keys, width):
    q, k = normal(10, size, width), normal(11, keys, width) + 0.1
    if width == 1:
        assert ranks(np.abs(q), np.abs(k)).tolist() == [1]
        return
    cosines = q @ k.T / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(k, axis=1)
    order = np.argsort(-cosines, axis=1)
    wanted = [list(order[i]).index(i) + 1 for i in range(size)]
    assert ranks(q, k).tolist() == wanted


def test_ranks_are_those_of_chance_for_random_rows():
    found = ranks(normal(12, 2000, 50), normal(13, 2000, 50))
    assert recall(found, 200) == pytest.approx(0.1, abs=0.03)
    assert np.median(found) / 2000 == pytest.approx(0.5, abs=0.04)


def test_recall_counts_up_to_and_including():
    found = np.array([1, 5, 6, 10])
    assert [recall(found, most) for most in (1, 5, 6, 9, 10)] == [0.25, 0.5, 0.75, 0.75, 1.0]


@pytest.mark.parametrize(
    ("q", "k", "words"),
    [
        (np.ones((2, 3)), np.ones((1, 3)), "keys must be [2 or more, 3]; received (1, 3)"),
        (np.ones((2, 3)), np.ones((2, 4)), "keys must be [2 or more, 3]; received (2, 4)"),
        (np.ones((0, 3)), np.ones((2, 3)), "queries must be [B, D] with no zero; received (0, 3)"),
        (np.ones(3), np.ones((2, 3)), "queries must be [B, D] with no zero; received (3,)"),
        (np.zeros((1, 3)), np.ones((2, 3)), "queries must be finite, no row zero"),
        (np.ones((1, 3)), np.full((2, 3), np.nan), "keys must be finite, no row zero"),
    ],
)
def test_rows_without_a_rank_are_refused(q, k, words):
    with pytest.raises(ValueError, match=message(words)):
        ranks(q, k)


@pytest.mark.parametrize("found", [[], [0, 1], [[1]], [math.nan]])
def test_recall_refuses_what_are_no_ranks(found):
    with pytest.raises(ValueError, match=r"found must be \[B\] ranks from 1, B at least 1"):
        recall(np.array(found), 1)


def test_recall_refuses_the_first_none():
    with pytest.raises(ValueError, match="most must be at least 1; received 0"):
        recall([1], 0)


# ---- texts


def test_ngrams_by_hand():
    assert ngrams("At", 2) == {"<", "a", "t", ">", "<a", "at", "t>"}
    assert ngrams("红猫!", 2) == {"红", "猫", "红猫"}
    assert ngrams("…") == set()
    assert ngrams("a b", 3) == {"<", ">", "a", "b", "<a", "a>", "<b", "b>", "<a>", "<b>"}


def test_a_row_has_length_one_and_says_which_ngrams_occur():
    known = Vocabulary(["at", "红"], 2)
    assert len(known) == 1 + 8
    rows = known(["at", "红", "unknown…", "?"])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert rows.dtype == np.float32
    assert (rows > 0).sum(axis=1).tolist() == [8, 2, 3, 1]  # of "unknown" the two ends
    assert (rows[:, 0] > 0).all()
    assert rows[1, known.columns["红"]] == pytest.approx(math.sqrt(0.5))


def test_a_vocabulary_does_not_depend_on_the_order_of_its_texts():
    one, other = Vocabulary(["red cat", "红猫"]), Vocabulary(["红猫", "red cat"])
    assert one.columns == other.columns
    assert list(one.columns) == sorted(one.columns)  # else it would change from run to run


@pytest.mark.parametrize("bad", ["text", [], ()])
def test_texts_are_several(bad):
    with pytest.raises(ValueError, match="texts must be a sequence of at least one string"):
        Vocabulary(bad)
    with pytest.raises(ValueError, match="texts must be a sequence of at least one string"):
        Vocabulary(["a"])(bad)


def test_ngrams_refuse_what_is_no_text():
    with pytest.raises(ValueError, match="text must be a string; received bytes"):
        ngrams(b"a")
    with pytest.raises(ValueError, match="longest must be at least 1; received 0"):
        ngrams("a", 0)


# ---- sound


@pytest.mark.parametrize(
    ("length", "hop", "bands"), [(256, 200, 32), (1000, 128, 16), (999, 1, 128)]
)
def test_a_spectrogram_is_that_of_scipy(length, hop, bands):
    wave = normal(14, length, dtype="float64") * 0.1
    _, _, theirs = stft(
        wave, window=np.hanning(256), nperseg=256, noverlap=256 - hop, boundary=None, padded=False
    )
    energy = np.abs(theirs[:128] * np.hanning(256).sum()) ** 2  # scipy divides by the sum
    wanted = np.log(energy.reshape(bands, -1, energy.shape[1]).sum(axis=1).T + 1e-3)
    np.testing.assert_allclose(spectrogram(wave, hop=hop, bands=bands), wanted, atol=1e-9)


def test_a_tone_is_loud_in_its_band_and_silence_is_the_floor():
    tone = np.sin(2 * np.pi * 1000 * np.arange(2000) / 8000)
    assert set(spectrogram(tone).argmax(axis=1)) == {8}  # 1,000 of 4,000 Hz: band 8 of 32
    np.testing.assert_allclose(spectrogram(np.zeros(300)), math.log(1e-3))


@pytest.mark.parametrize("wave", [np.zeros(255), np.zeros((300, 1)), np.full(300, np.nan)])
def test_a_wave_that_cannot_be_cut_is_refused(wave):
    with pytest.raises(ValueError, match=r"wave must be \[256 or more\], finite; received"):
        spectrogram(wave)


@pytest.mark.parametrize("options", [{"hop": 0}, {"bands": 0}, {"bands": 48}, {"frame": 255}])
def test_bands_that_do_not_divide_are_refused(options):
    with pytest.raises(ValueError, match="hop must be 1 or more and bands divide half the frame"):
        spectrogram(np.zeros(300), **options)


def test_silence_behind_a_sound_changes_nothing():
    tower = sound_tower()
    sound = np.concatenate([normal(15, 2, 40, 32), np.zeros((2, 32, 32))], axis=1)
    longer = np.concatenate([sound, np.zeros((2, 56, 32))], axis=1)
    np.testing.assert_allclose(tower(sound), tower(longer), atol=1e-5)
    moved = np.abs(tower(sound) - tower(sound[:, 8:])).max()
    assert moved > 1e-3


# ---- towers


def small(**options):
    keras.utils.set_random_seed(0)
    text = text_tower(20, width=8, hidden=16)
    image = image_tower((8, 8, 3), width=8)
    return Towers({"image": image, "en": text, "zh": text}, **options)


def batch(size=4):
    names = {"en": 20, "zh": 20}
    texts = {name: np.abs(normal(i, size, n)) for i, (name, n) in enumerate(names.items())}
    return texts | {"image": np.abs(normal(2, size, 8, 8, 3))}


def test_one_tower_under_two_names_is_counted_once_and_reads_both():
    model = small()
    parts = model.towers["image"].count_params() + model.towers["en"].count_params()
    assert model.count_params() == parts + 1
    text = batch()["en"]
    rows = model({"en": text, "zh": text})
    np.testing.assert_array_equal(rows["en"], rows["zh"])
    assert sorted(rows) == ["en", "temperature", "zh"]


@SAVING
def test_a_saved_model_answers_the_same_and_its_towers_are_still_one(tmp_path):
    model = small(temperature=0.2)
    model.log_temperature.assign(-1.0)
    model.save(tmp_path / "towers.keras")
    again = keras.saving.load_model(tmp_path / "towers.keras")
    assert again.towers["en"] is again.towers["zh"]
    for name, rows in model(batch()).items():
        np.testing.assert_array_equal(rows, again(batch())[name])
    assert float(again(batch())["temperature"]) == pytest.approx(math.exp(-1))
    assert again.get_config()["learned"] is True
    assert len(again.get_config()["models"]) == 2  # the shared one is written once


def test_a_step_learns_all_towers_and_the_temperature():
    model = small()
    before = [v.numpy() for v in model.trainable_variables]
    step = make_step(model, keras.optimizers.Adam(0.01), contrast(("image", "en"), ("image", "zh")))
    losses = [float(step(batch(8), ())) for _ in range(30)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert np.abs(old - new.numpy()).max() > 0


def test_dropout_is_at_work_in_training_only():
    model = small()
    asleep = [np.array(model(batch())["en"]) for _ in range(2)]
    np.testing.assert_array_equal(*asleep)
    awake = [np.array(model(batch(), training=True)["en"]) for _ in range(2)]
    assert np.abs(awake[0] - awake[1]).max() > 0


def test_a_learned_temperature_stops_at_the_coldest_and_a_fixed_one_stays():
    def colder(y, rows):
        return rows["temperature"] + 0 * sum(ops.sum(rows[k]) for k in ("image", "en", "zh"))

    model = small(temperature=0.0101)
    make_step(model, keras.optimizers.SGD(100.0), colder)(batch(), ())
    assert float(model(batch())["temperature"]) == pytest.approx(COLDEST)
    model = small(temperature=0.5, learned=False)
    make_step(model, keras.optimizers.SGD(0.1), contrast(("image", "en")))(
        {k: v for k, v in batch().items() if k != "zh"}, ()
    )
    assert float(model(batch())["temperature"]) == pytest.approx(0.5)


def test_compiled_by_xla_the_loss_is_the_same():
    model = small()
    loss = contrast(("image", "en"))
    run = tf.function(lambda x: loss((), model(x)), jit_compile=True, autograph=False)
    assert float(run(batch())) == pytest.approx(float(loss((), model(batch()))), rel=1e-4)


def test_a_batch_of_unknown_size_is_accepted():
    model = small()
    shapes = {"image": (None, 8, 8, 3), "en": (None, 20), "zh": (None, 20)}
    specs = {name: tf.TensorSpec(shape) for name, shape in shapes.items()}
    loss = contrast(("image", "en"))
    run = tf.function(lambda x: loss((), model(x)), input_signature=[specs], autograph=False)
    for size in (2, 5):
        assert float(run(batch(size))) == pytest.approx(
            float(loss((), model(batch(size)))), rel=1e-4
        )


@pytest.mark.parametrize("towers", [{}, [1], {"temperature": 1}])
def test_towers_are_models_by_name(towers):
    with pytest.raises(ValueError, match="towers must be models by name; received"):
        Towers(towers)


@pytest.mark.parametrize("temperature", [0, -1.0, 0.005, math.inf, math.nan])
def test_a_temperature_that_cannot_be_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature must be at least 0.01; received"):
        small(temperature=temperature)


def test_an_input_without_a_tower_is_named():
    with pytest.raises(ValueError, match=r"inputs must be some of .*; received 'sound'"):
        small()({"sound": np.ones((2, 3))})
