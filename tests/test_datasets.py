"""The data are what the handbook says: counts, hashes, peers, and clear words when absent."""

import gzip
import hashlib
import subprocess
import sys
import wave

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from aimodels import datasets
from aimodels.datasets import (
    breast_cancer,
    diabetes,
    digits,
    emoji,
    fashion_mnist,
    fingerprint,
    handbook,
    japanese_vowels,
    knowledge_graph,
    photograph,
    sp500,
    split,
    spoken,
    standardize,
)

HASHES = {
    "diabetes": (
        "fdc8d23b35497cf0bf2e50e7576854b23e9393811b93a0a72e47bbfa864cad04",
        "00d4469ae4185d6e06331c6013280ed70f289bdfc5081a946375909e27e858b4",
    ),
    "breast cancer": (
        "3fcefac04d2f7a0a4adfd6e4342502d0b8e9570ec1cd6031dd16c5c9267b0331",
        "4c5669a8e3b6a6f24836d9e34d97b5e3b0496b6524c0e88093462a992100dcd3",
    ),
    "digits": (
        "27a04a5e76cd4c15a369041ac94ca6f707cb0424b713632b122e907745dda9e0",
        "3ae55310f106173e11023d7223e953a2956246d0b6e6398486ecc6c2af80cc7d",
    ),
    "vowels train": (
        "a5953697bbdd5c0aaaf0eeb86901b202be181a7bbf9c3a396ad0d2d1b24f9689",
        "0b830e87ed98aa116bf28628199e5be9cd8febdd13d659dab87dd1c11aa1979f",
    ),
    "vowels test": (
        "3c2b501aee736149818ab736af13bb87962d587510f4c0eddb10defde84e93d1",
        "65c61ecc1d36adc78bfca5d035304c5aa81ca610c1962e7be625b2cb74f65833",
    ),
    "fashion train": (
        "5b52e021656f8a69d4fb0f45f99cd5be355881667f529e85624760e4d24109e8",
        "856615f0b39070d025a880cfe4e46e56e6af946cc42dfe5e0746a20edb525b7e",
    ),
    "fashion test": (
        "9cb30da854a18ab15a507c71b338b8907f46e6962a1612a246b4abbd904ce8df",
        "cc6d5fc84b712b5341f99f60f719c02808ce31cd225242985cca0fc25b71c4b7",
    ),
}

GRAPHS = {
    "umls": (
        "fca1face438e697453eeaf88ebb5591e56327a6c6af15038bf08f4c9353228ed",
        "b17aea5d7203a05414d64cc8cb600ff82869815644db9e219993eb4cd7f6dec4",
        "1aa6556ae370de76478f44f49ef8460e14848be6e13aceb910932b0822d9cf88",
    ),
    "nations": (
        "781fdef14c88ffce1b76cab6af90df76b3ff9008a72a97562974a8a72d529d96",
        "92c26a8f0808cf0a6e1a5f0276629d8040ac286791bcdbbc3defda211a082a74",
        "24ccca5322450c57bb29e4fb1723612f32aedb06d40f93c3cd69dac0e152269e",
    ),
}

NAMES = "7daa45339b3fca78197da1072afa5d438ba3d8ab4274c9406783624636abb1e0"
SOUNDS = "c66556ebf5541c1d3068bf02de58d2d0b55a0a3dfcde43ed208c7d159284b257"
FONT = "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec"
PICTURES = "e35ab0b237c4ee43234a0024b92e0e194388f81354771f119e462574d2aa1dad"

HANDBOOK = "fcf4a9a27a0f576f341f78163e0fc2a64874711aa822ad960ee6002e9ea639ce"


def hashes(part):
    return fingerprint(part.x), fingerprint(part.y)


def test_diabetes_is_the_table_of_the_paper():
    table = diabetes()
    assert table.x.shape == (442, 10)
    assert table.names == ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    assert hashes(table) == HASHES["diabetes"]


def test_diabetes_scaled_is_what_scikit_learn_returns():
    table, theirs = diabetes(), load_diabetes()
    ours = standardize(table.x) / np.sqrt(442)
    np.testing.assert_allclose(ours, theirs.data, atol=1e-12)
    np.testing.assert_array_equal(table.y, theirs.target)


def test_breast_cancer_has_the_published_counts_and_malignant_is_1():
    table, theirs = breast_cancer(), load_breast_cancer()
    assert table.x.shape == (569, 30)
    assert np.bincount(table.y).tolist() == [357, 212]
    assert theirs.target_names[1] == "benign"
    np.testing.assert_array_equal(table.y == 1, theirs.target == 0)
    assert table.names[:2] == ("mean radius", "mean texture")
    assert table.x[table.y == 1, 0].mean() > table.x[table.y == 0, 0].mean()
    assert hashes(table) == HASHES["breast cancer"]


def test_digits_are_the_ones_expected():
    images = digits()
    assert images.x.shape == (1797, 8, 8)
    assert set(np.unique(images.x)) == set(range(17))
    assert hashes(images) == HASHES["digits"]


def test_vowels_have_the_published_split_and_speakers():
    train, test = japanese_vowels()
    assert train.x.shape == (270, 29, 12)
    assert test.x.shape == (370, 29, 12)
    assert train.mask.dtype == bool
    assert np.bincount(train.y).tolist() == [30] * 9
    assert np.bincount(test.y).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert hashes(train) == HASHES["vowels train"]
    assert hashes(test) == HASHES["vowels test"]


def test_vowels_are_real_first_and_zero_after():
    for part in japanese_vowels():
        steps = part.mask.sum(axis=1)
        assert steps.min() == 7
        assert not np.diff(part.mask.astype(int), axis=1).max() > 0
        assert np.all(part.x[~part.mask] == 0)
        assert np.all(np.any(part.x[part.mask] != 0, axis=-1))


def test_vowels_start_with_the_numbers_in_the_file():
    train, _ = japanese_vowels()
    np.testing.assert_array_equal(train.x[0, :3, 0], [1.860936, 1.891651, 1.939205])
    np.testing.assert_array_equal(train.x[0, :2, 1], [-0.207383, -0.193249])


def test_reading_the_vowels_does_not_import_aeon():
    code = (
        "import sys; from aimodels.datasets import japanese_vowels; japanese_vowels();"
        "bad = {'aeon', 'keras', 'tensorflow', 'sklearn'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fashion_mnist_has_the_published_counts_and_hashes():
    train, test = fashion_mnist()
    assert np.bincount(train.y).tolist() == [6000] * 10
    assert np.bincount(test.y).tolist() == [1000] * 10
    assert hashes(train) == HASHES["fashion train"]
    assert hashes(test) == HASHES["fashion test"]


def test_fashion_mnist_is_what_keras_loads(tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    if not datasets.DEBIAN_FASHION.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    cache = tmp_path / "datasets" / "fashion-mnist"
    cache.mkdir(parents=True)
    for file in datasets.DEBIAN_FASHION.iterdir():
        (cache / file.name).symlink_to(file)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    theirs = keras.datasets.fashion_mnist.load_data()
    for ours, (x, y) in zip(fashion_mnist(), theirs, strict=True):
        np.testing.assert_array_equal(ours.x, x)
        np.testing.assert_array_equal(ours.y, y)


def test_keras_cache_is_read_before_debians_folder(tmp_path, monkeypatch):
    cache = tmp_path / "datasets" / "fashion-mnist"
    cache.mkdir(parents=True)
    pictures = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for part in ("train", "t10k"):
        head = bytes([0, 0, 8, 3]) + np.array(pictures.shape, dtype=">u4").tobytes()
        images = gzip.compress(head + pictures.tobytes())
        (cache / f"{part}-images-idx3-ubyte.gz").write_bytes(images)
        labels = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        (cache / f"{part}-labels-idx1-ubyte.gz").write_bytes(labels)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    train, test = fashion_mnist()
    np.testing.assert_array_equal(train.x, pictures)
    assert test.y.tolist() == [7, 9]


def test_fashion_mnist_says_what_to_install_when_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(datasets, "DEBIAN_FASHION", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="run: apt install dataset-fashion-mnist"):
        fashion_mnist()


@pytest.mark.parametrize(
    ("name", "entities", "relations", "sizes"),
    [("umls", 135, 46, (5216, 652, 661)), ("nations", 14, 55, (1592, 199, 201))],
)
def test_a_knowledge_graph_has_the_published_counts_and_hashes(name, entities, relations, sizes):
    graph = knowledge_graph(name)
    parts = graph.train, graph.valid, graph.test
    assert tuple(len(part) for part in parts) == sizes
    assert tuple(fingerprint(part) for part in parts) == GRAPHS[name]
    assert (len(graph.entities), len(graph.relations)) == (entities, relations)
    for names in (graph.entities, graph.relations):
        assert list(names) == sorted(set(names))
    everything = np.concatenate(parts)
    assert len({tuple(triple) for triple in everything.tolist()}) == sum(sizes)
    assert set(graph.train[:, ::2].ravel()) == set(range(entities))
    assert set(graph.train[:, 1]) == set(range(relations))


def test_knowledge_graphs_begin_with_the_lines_of_their_files():
    for name, first in (
        ("umls", ("acquired_abnormality", "location_of", "experimental_model_of_disease")),
        ("nations", ("netherlands", "militaryalliance", "uk")),
    ):
        graph = knowledge_graph(name)
        h, r, t = graph.train[0]
        assert (graph.entities[h], graph.relations[r], graph.entities[t]) == first


def test_reading_a_knowledge_graph_does_not_import_pykeen():
    code = (
        "import sys; from aimodels.datasets import knowledge_graph; knowledge_graph('umls');"
        "bad = {'pykeen', 'torch', 'keras'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_knowledge_graph_is_refused():
    with pytest.raises(ValueError, match="name is 'freebase'; allowed are 'umls' and 'nations'"):
        knowledge_graph("freebase")


def test_another_pykeen_without_the_graphs_is_answered_with_the_version(tmp_path, monkeypatch):
    (tmp_path / "pykeen").mkdir()
    (tmp_path / "pykeen" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no umls; run: .* pykeen==1\.11\.1"):
        knowledge_graph("umls")


@pytest.mark.parametrize(
    ("missing", "load", "words"),
    [
        ("sklearn", diabetes, "run: pip install scikit-learn"),
        ("sklearn", breast_cancer, "run: pip install scikit-learn"),
        ("sklearn", digits, "run: pip install scikit-learn"),
        ("sklearn", lambda: photograph("china"), "run: pip install scikit-learn"),
        ("PIL", lambda: photograph("china"), "run: pip install pillow"),
        ("aeon", japanese_vowels, "run: pip install --no-deps aeon==1.6.0"),
        ("emoji", emoji, "run: pip install --no-deps emoji==2.16.0"),
        ("PIL", emoji, "run: pip install pillow"),
        ("arch", sp500, r"run: pip install --no-deps arch==8\.0\.0"),
        (
            "pykeen",
            lambda: knowledge_graph("umls"),
            "run: pip install --no-deps pykeen==1.11.1",
        ),
    ],
)
def test_a_missing_package_is_named_with_the_command(monkeypatch, missing, load, words):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=words):
        load()


def test_another_aeon_without_the_vowels_is_answered_with_the_version(tmp_path, monkeypatch):
    (tmp_path / "aeon").mkdir()
    (tmp_path / "aeon" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no Japanese vowels; run: .* aeon==1\.6\.0"):
        japanese_vowels()


def test_the_index_has_a_row_for_each_trading_day():
    prices = sp500()
    assert prices.x.shape == (5031, 5)
    assert prices.names == ("open", "high", "low", "close", "volume")
    assert prices.dates.dtype == "datetime64[D]"
    assert str(prices.dates[0]) == "1999-01-04"
    assert str(prices.dates[-1]) == "2018-12-31"
    np.testing.assert_allclose(prices.x[0], [1229.23, 1248.81, 1219.1, 1228.1, 877e6], rtol=1e-5)
    assert np.all(np.diff(prices.dates) > np.timedelta64(0))
    assert not np.any(np.isin(prices.dates.astype(int) % 7, (2, 3)))  # Saturday, Sunday
    first, high, low, last, _ = prices.x.T
    assert np.all(low < high)
    assert np.all(
        (np.minimum(first, last) >= low - 0.01) & (np.maximum(first, last) <= high + 0.01)
    )


def test_another_arch_without_the_index_is_answered_with_the_version(tmp_path, monkeypatch):
    (tmp_path / "arch").mkdir()
    (tmp_path / "arch" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no S&P 500; run: .* arch==8\.0\.0"):
        sp500()


@pytest.mark.parametrize("name", ["china", "flower"])
def test_a_photograph_has_three_colours(name):
    picture = photograph(name)
    assert picture.shape == (427, 640, 3)
    assert picture.dtype == np.uint8
    assert picture.max() > 250


def test_an_unknown_photograph_is_refused():
    with pytest.raises(ValueError, match="name is 'cat'; allowed are 'china' and 'flower'"):
        photograph("cat")


def placed(path, there):
    """Give a test what only Debian carries, or skip it."""
    if not any((folder / path).exists() for folder in there):
        pytest.skip(f"{path} is not installed here")


def has_font():
    placed("NotoColorEmoji.ttf", (datasets._cache("noto-color-emoji"), datasets.DEBIAN_FONT))


def has_sounds():
    placed("letters/a.wav", (datasets._cache("asterisk-sounds"), datasets.DEBIAN_SOUNDS))


def test_emoji_have_one_picture_and_two_different_names_each():
    has_font()
    signs = emoji(8)
    assert signs.images.shape == (1377, 8, 8, 3)
    assert signs.images.dtype == np.uint8
    for names in (signs.characters, signs.en, signs.zh):
        assert len(set(names)) == 1377
        assert all(names)
    assert list(signs.en) == sorted(signs.en)
    joined = "".join(signs.en + signs.zh).encode()
    assert hashlib.sha256(joined).hexdigest() == NAMES
    assert len({picture.tobytes() for picture in emoji().images}) == 1377  # none is missing


def test_pictures_of_the_known_font_are_the_ones_expected():
    has_font()
    places = (datasets._cache("noto-color-emoji"), datasets.DEBIAN_FONT)
    files = [place / "NotoColorEmoji.ttf" for place in places]
    font = next(file for file in files if file.exists())
    if hashlib.sha256(font.read_bytes()).hexdigest() != FONT:
        pytest.skip("another version of the font is installed here")
    assert fingerprint(emoji().images) == PICTURES


def test_flags_skin_tones_and_composed_emoji_are_left_out():
    has_font()
    signs = emoji(1)
    assert all(len(character.removesuffix("\ufe0f")) == 1 for character in signs.characters)
    assert not any("skin tone" in name or "_" in name or ":" in name for name in signs.en)
    assert "France" not in signs.en


def test_an_emoji_is_its_colour_on_white():
    has_font()
    signs = emoji(16)
    of = {name: signs.images[row].astype(int) for row, name in enumerate(signs.en)}
    for name, channel in (("red circle", 0), ("green circle", 1), ("blue circle", 2)):
        assert of[name][8, 8].argmax() == channel
        assert of[name][0, 0].min() > 240
    assert signs.zh[signs.en.index("red circle")] == "红色圆"


@pytest.mark.parametrize("size", [0, 129, 8.0, None])
def test_pictures_of_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size must be a whole number from 1 to 128; received"):
        emoji(size)


def test_a_missing_font_is_answered_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(datasets, "DEBIAN_FONT", tmp_path)
    with pytest.raises(FileNotFoundError, match="run: apt install fonts-noto-color-emoji"):
        emoji()


def test_reading_emoji_does_not_import_the_package():
    has_font()
    code = (
        "import sys; from aimodels import datasets; datasets.emoji(1);"
        "bad = {'emoji', 'keras', 'tensorflow'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sounds_are_the_ones_expected():
    has_sounds()
    sounds = spoken()
    assert len(sounds) == 146
    assert [sound.name for sound in sounds] == sorted(sound.name for sound in sounds)
    joined = np.concatenate([sound.wave for sound in sounds])
    assert fingerprint(joined) == SOUNDS
    assert all(sound.wave.dtype == np.float32 and sound.wave.ndim == 1 for sound in sounds)
    assert 0.5 < max(np.abs(joined)) <= 1


def test_what_is_said_follows_from_the_names_of_the_files():
    has_sounds()
    said = {sound.name: sound.said for sound in spoken()}
    for name, words in {
        "letters/q": "q",
        "phonetic/q_p": "quebec",
        "digits/0": "zero",
        "digits/19": "nineteen",
        "digits/90": "ninety",
        "digits/h-3": "third",
        "digits/h-19": "nineteenth",
        "digits/h-20": "twentieth",
        "digits/h-90": "ninetieth",
        "digits/day-0": "Sunday",
        "digits/day-6": "Saturday",
        "digits/mon-0": "January",
        "digits/mon-11": "December",
        "digits/oclock": "o'clock",
    }.items():
        assert said[name] == words
    alphabet = [said[f"letters/{letter}"] for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert "".join(alphabet) == "abcdefghijklmnopqrstuvwxyz"
    assert all(said[f"phonetic/{letter}_p"].startswith(letter) for letter in alphabet)


def test_a_wave_is_read_from_minus_one_to_one(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.array([0, 16384, -32768], "<i2").tobytes())
    np.testing.assert_array_equal(datasets._read_wave(tmp_path / "a.wav"), [0, 0.5, -1])


@pytest.mark.parametrize("half", [False, True])
def test_missing_sounds_are_answered_with_the_command(tmp_path, monkeypatch, half):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(datasets, "DEBIAN_SOUNDS", tmp_path / "nowhere")
    if half:
        (tmp_path / "datasets" / "asterisk-sounds" / "letters").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="run: apt install asterisk-core-sounds-en-wav"):
        spoken()


def test_the_handbook_is_the_frozen_text_in_both_languages():
    text = handbook()
    joined = "".join(part.en + part.zh for part in text).encode()
    assert hashlib.sha256(joined).hexdigest() == HANDBOOK
    assert all(part.en and part.zh for part in text)
    assert len({(part.page, part.section) for part in text}) == len(text)


def test_a_fingerprint_depends_on_values_shape_and_type_only():
    a = np.arange(6.0).reshape(2, 3)
    assert fingerprint(a) == fingerprint(np.asfortranarray(a))
    assert fingerprint(a) == fingerprint(a.astype(">f8"))
    assert fingerprint(a[:, ::2]) == fingerprint(a[:, ::2].copy())
    different = [a + 1e-15, a.T, a.ravel(), a.astype("float32"), a.astype("int64"), a[:1]]
    assert len({fingerprint(a), *map(fingerprint, different)}) == 7


def test_a_fingerprint_is_the_hash_worked_by_hand():
    expected = hashlib.sha256(b"u1(2,)" + bytes([3, 4])).hexdigest()
    assert fingerprint(np.uint8([3, 4])) == expected


@pytest.mark.parametrize(("samples", "test"), [(2, 1), (7, 6), (100, 20)])
def test_split_gives_each_row_to_one_part(samples, test):
    kept, held_out = split(samples, test, np.random.default_rng(3))
    assert len(held_out) == test
    assert sorted([*kept, *held_out]) == list(range(samples))


def test_the_same_seed_gives_the_same_split():
    one, other = (split(50, 10, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("test", [0, -1, 10, 11])
def test_split_refuses_an_empty_part(test):
    with pytest.raises(ValueError, match=f"test is {test}; allowed are 1 to 9 of 10 samples"):
        split(10, test, np.random.default_rng(0))


def test_standardized_columns_have_mean_zero_and_deviation_one():
    x = diabetes().x
    done = standardize(x)
    np.testing.assert_allclose(done.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(done.std(axis=0), 1, rtol=1e-12)


def test_held_out_rows_do_not_change_the_scale():
    x = np.random.default_rng(0).normal(size=(20, 3))
    alone = standardize(x[:10])
    train, test = standardize(x[:10], x[10:] * 1000)
    np.testing.assert_array_equal(alone, train)
    np.testing.assert_allclose(test, (x[10:] * 1000 - x[:10].mean(0)) / x[:10].std(0))


def test_a_constant_column_is_only_shifted():
    # Three times 0.1 does not add up to 0.3: the deviation comes out as 1e-17, not as 0.
    train, test = standardize(np.full((3, 1), 0.1), np.array([[0.6]]))
    np.testing.assert_allclose(train, 0, atol=1e-15)
    np.testing.assert_allclose(test, 0.5)


def test_one_row_is_standardized_to_zero():
    np.testing.assert_array_equal(standardize(np.array([[4.0, -2.0]])), [[0.0, 0.0]])


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.zeros((2, 2, 2))])
def test_standardize_refuses_what_is_not_a_table(bad):
    with pytest.raises(ValueError, match=r"train has shape .*; allowed is \[N, D\]"):
        standardize(bad)
