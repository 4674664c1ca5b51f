"""Real data that installed packages carry; nothing here downloads anything.

Axes: N samples, T steps, D features, H height, W width, C colours.
"""

import csv
import gzip
import hashlib
import importlib.util
import json
import os
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_FONT = Path("/usr/share/fonts/truetype/noto")
DEBIAN_SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
# What is said in the sounds whose file names do not say it themselves, in the order of their numbers.
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
)
UNITS += " sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth"
)
ORDINALS += " fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday"
MONTHS = "January February March April May June July August September October November December"
ALPHABET = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar"
)
ALPHABET += " papa quebec romeo sierra tango uniform victor whiskey x-ray yankee zulu"


class Table(NamedTuple):
    """Rows `x` `[N, D]` and targets `y` `[N]`, with the D column names."""

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, ...]


class Images(NamedTuple):
    """Images `x` `[N, H, W]` and integer labels `y` `[N]`."""

    x: np.ndarray
    y: np.ndarray


class Sequences(NamedTuple):
    """Padded sequences `x` `[N, T, D]`, `mask` `[N, T]` (True where real), labels `y` `[N]`."""

    x: np.ndarray
    mask: np.ndarray
    y: np.ndarray


class Graph(NamedTuple):
    """Names of E entities and R relations; triples (head, relation, tail), `[N, 3]` integers."""

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


class Prices(NamedTuple):
    """N trading days `dates` `[N]`, rising; what was paid, `x` `[N, 5]`, with the column names."""

    dates: np.ndarray
    x: np.ndarray
    names: tuple[str, ...]


class Text(NamedTuple):
    """A section of the handbook: the name of its page, its id, its text in English and Chinese."""

    page: str
    section: str
    en: str
    zh: str


class Emoji(NamedTuple):
    """N emoji: the characters, their names in English and in Chinese, `images` `[N, H, W, C]`."""

    characters: tuple[str, ...]
    en: tuple[str, ...]
    zh: tuple[str, ...]
    images: np.ndarray


class Sound(NamedTuple):
    """The name of a recording, as "letters/a"; what is said; the wave `[T]` from -1 to 1."""

    name: str
    said: str
    wave: np.ndarray


def _need(module, how):
    """Return where a package lies, without importing it; if it is missing, say how to get it."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{module} is not installed; run: {how}", name=module)
    return Path(spec.submodule_search_locations[0])


def diabetes():
    """Return 442 patients, ten measurements each, and how far diabetes advanced in a year.

    Returns:
        Table: `x` `[442, 10]` float64 in the units in which it was measured, `y` `[442]` from 25
        to 346.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Source: Efron, Hastie, Johnstone and Tibshirani 2004, <https://doi.org/10.1214/009053604000000067>.
    Differs: scikit-learn scales the columns unless told otherwise; here they are left alone.
    """
    _need("sklearn", "pip install scikit-learn")
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    return Table(data.data, data.target, tuple(data.feature_names))


def breast_cancer():
    """Return 569 breast masses, thirty measurements of the cell nuclei each, and the diagnosis.

    Returns:
        Table: `x` `[569, 30]` float64 as measured; `y` `[569]`, 1 where malignant (212), 0 where
        benign (357).

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Source: Street, Wolberg and Mangasarian 1993, <https://doi.org/10.1117/12.148698>.
    Differs: scikit-learn counts benign as 1; here 1 is what the doctor looks for.
    """
    _need("sklearn", "pip install scikit-learn")
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return Table(data.data, 1 - data.target, tuple(str(name) for name in data.feature_names))


def digits():
    """Return 1,797 handwritten digits of 8 by 8 pixels.

    Returns:
        Images: `x` `[1797, 8, 8]` float64, whole numbers from 0 (paper) to 16 (ink); `y` 0 to 9.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Source: Alpaydin and Kaynak 1998, <https://doi.org/10.24432/C50P49> (its test part).
    """
    _need("sklearn", "pip install scikit-learn")
    from sklearn.datasets import load_digits

    data = load_digits()
    return Images(data.images, data.target)


def photograph(name):
    """Return a colour photograph, `[427, 640, 3]` uint8.

    Args:
        name: "china" (a temple) or "flower".

    Raises:
        ValueError: if there is no such photograph.
        ModuleNotFoundError: if scikit-learn or Pillow is not installed.
    """
    if name not in ("china", "flower"):
        raise ValueError(f"name is {name!r}; allowed are 'china' and 'flower'")
    _need("sklearn", "pip install scikit-learn")
    _need("PIL", "pip install pillow")
    from sklearn.datasets import load_sample_image

    return load_sample_image(f"{name}.jpg")


def japanese_vowels():
    """Return 640 spoken vowels of nine men, each a sequence of 7 to 29 steps of 12 coefficients.

    Returns:
        Two Sequences, train (270) and test (370): `x` `[N, 29, 12]` float64, 0 after the end;
        `mask` `[N, 29]` True where a step is real; `y` `[N]` the speaker, 0 to 8.

    Raises:
        ModuleNotFoundError: if aeon is not installed. Its files are read; it is not imported.
        FileNotFoundError: if the installed aeon does not carry them.

    Source: Kudo, Toyama and Shimbo 1999, <https://doi.org/10.1016/S0167-8655(99)00077-X>.
    """
    how = "pip install --no-deps aeon==1.6.0"
    folder = _need("aeon", how) / "datasets" / "data" / "JapaneseVowels"
    if not folder.is_dir():
        raise FileNotFoundError(f"the installed aeon has no Japanese vowels; run: {how}")
    return tuple(_read_ts(folder / f"JapaneseVowels_{part}.ts", 29) for part in ("TRAIN", "TEST"))


def _read_ts(path, steps):
    """Read a `.ts` file: after @data one sample a line, `series:series:...:label`."""
    _, _, body = path.read_text(encoding="utf-8").partition("@data\n")
    rows = [line.split(":") for line in body.splitlines() if line]
    x = np.zeros((len(rows), steps, len(rows[0]) - 1))
    mask = np.zeros((len(rows), steps), dtype=bool)
    for sample, (*series, _) in enumerate(rows):
        values = np.array([one.split(",") for one in series], dtype=float).T  # [steps here, D]
        x[sample, : len(values)] = values
        mask[sample, : len(values)] = True
    return Sequences(x, mask, np.array([int(row[-1]) - 1 for row in rows]))


def fashion_mnist():
    """Return 70,000 grey pictures of clothes, as `keras.datasets.fashion_mnist.load_data` does.

    Returns:
        Two Images, train (60,000) and test (10,000): `x` `[N, 28, 28]` uint8; `y` 0 to 9.

    Raises:
        FileNotFoundError: if the files are neither in Keras' cache nor in Debian's package.

    Source: Xiao, Rasul and Vollgraf 2017, <https://arxiv.org/abs/1708.07747>.
    """
    parts = [(f"{p}-images-idx3-ubyte.gz", f"{p}-labels-idx1-ubyte.gz") for p in ("train", "t10k")]
    for folder in (_cache("fashion-mnist"), DEBIAN_FASHION):
        if all((folder / name).exists() for part in parts for name in part):
            return tuple(Images(*(_read_idx(folder / name) for name in part)) for part in parts)
    raise FileNotFoundError(
        "Fashion-MNIST is not installed; run: apt install dataset-fashion-mnist, or, with a "
        "network: python -c 'import keras; keras.datasets.fashion_mnist.load_data()'"
    )


def _cache(name):
    """Return the folder of Keras' cache in which a data set lies, if it is there."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "datasets" / name


def _read_idx(path):
    """Read an IDX file of bytes: 0, 0, 8, the number of axes, each length, then the values."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=axes, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def knowledge_graph(name):
    """Return a small knowledge graph with its usual three parts.

    Args:
        name: "umls", how 135 kinds of things in medicine may be related (6,529 triples), or
            "nations", how 14 countries stood to each other from 1950 to 1965 (1,992).

    Returns:
        Graph: names in alphabetical order; each triple is in one part only, and every name is in
        `train`.

    Raises:
        ValueError: if there is no such graph.
        ModuleNotFoundError: if pykeen is not installed. Its files are read; it is not imported.
        FileNotFoundError: if the installed pykeen does not carry them.

    Source: McCray 2003 <https://doi.org/10.1002/cfg.255> (umls), Rummel (nations), Kemp et al. 2006;
    parts as in Dettmers et al. 2018, <https://arxiv.org/abs/1707.01476>.
    """
    if name not in ("umls", "nations"):
        raise ValueError(f"name is {name!r}; allowed are 'umls' and 'nations'")
    how = "pip install --no-deps pykeen==1.11.1"
    folder = _need("pykeen", how) / "datasets" / name
    parts = []
    for part in ("train", "valid", "test"):
        if not (folder / f"{part}.txt").is_file():
            raise FileNotFoundError(f"the installed pykeen has no {name}; run: {how}")
        lines = (folder / f"{part}.txt").read_text(encoding="utf-8").splitlines()
        parts.append([line.split("\t") for line in lines])
    rows = [row for part in parts for row in part]
    entities = sorted({end for head, _, tail in rows for end in (head, tail)})
    relations = sorted({relation for _, relation, _ in rows})
    of_entity = {entity: number for number, entity in enumerate(entities)}
    of_relation = {relation: number for number, relation in enumerate(relations)}
    triples = [
        np.array([(of_entity[h], of_relation[r], of_entity[t]) for h, r, t in p]) for p in parts
    ]
    return Graph(tuple(entities), tuple(relations), *triples)


def emoji(size=32):
    """Return 1,377 emoji of one character each: a picture, and the name in two languages.

    Flags, skin tones and other emoji that are put together from several characters are left out,
    and so are those that came after version 15 of the standard.

    Args:
        size: height and width of the pictures, from 1 to 128.

    Returns:
        Emoji: in the order of the English names; `images` `[1377, size, size, 3]` uint8, red, green,
        blue on white.

    Raises:
        ValueError: if the size is not allowed.
        ModuleNotFoundError: if emoji or Pillow is not installed. The files of emoji are read; it is
            not imported.
        FileNotFoundError: if the font is neither in Keras' cache nor in Debian's package.

    Source: names from Unicode's CLDR by way of the package emoji; pictures from the font Noto Color
    Emoji.
    """
    if not isinstance(size, int) or not 1 <= size <= 128:
        raise ValueError(f"size must be a whole number from 1 to 128; received {size!r}")
    folder = _need("emoji", "pip install --no-deps emoji==2.16.0") / "unicode_codes"
    _need("PIL", "pip install pillow")
    from PIL import Image, ImageDraw, ImageFont

    places = [_cache("noto-color-emoji"), DEBIAN_FONT]
    files = [place / "NotoColorEmoji.ttf" for place in places]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            "Noto Color Emoji is not installed; run: apt install fonts-noto-color-emoji"
        )
    english, chinese = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("emoji.json", "emoji_zh.json")
    )
    rows = []
    for character, entry in english.items():
        single = len(character.removesuffix("\ufe0f")) == 1  # U+FE0F asks for a coloured picture
        if single and entry["status"] == 2 and entry["E"] <= 15 and character in chinese:
            names = (entry["en"], chinese[character])
            rows.append((character, *(name.strip(":").replace("_", " ") for name in names)))
    rows.sort(key=lambda row: row[1])
    # The font holds pictures of 136 by 128 pixels, which belong to the size 109.
    font = ImageFont.truetype(file, 109, layout_engine=ImageFont.Layout.BASIC)
    images = np.empty((len(rows), size, size, 3), np.uint8)
    for number, (character, *_) in enumerate(rows):
        picture = Image.new("RGB", (136, 128), "white")
        ImageDraw.Draw(picture).text((0, 0), character[0], font=font, embedded_color=True)
        images[number] = picture.resize((size, size), Image.Resampling.LANCZOS)
    characters, en, zh = zip(*rows, strict=True)
    return Emoji(characters, en, zh, images)


def spoken():
    """Return recordings of one woman who says letters, numbers, days and months in English.

    They are those prompts of the telephone exchange Asterisk whose file names tell what is said.

    Returns:
        146 Sounds in the order of their names; 8,000 values a second, float32, of 16 bits each.

    Raises:
        FileNotFoundError: if the recordings are neither in Keras' cache nor in Debian's package, or
            not all of them.

    Source: Asterisk Core Sounds 1.6.1, recorded by Allison Smith, CC BY-SA 3.0.
    """
    said = {f"letters/{letter}": letter for letter in "abcdefghijklmnopqrstuvwxyz"}
    said |= {f"phonetic/{word[0]}_p": word for word in ALPHABET.split()}
    said |= {f"digits/{number}": word for number, word in enumerate(UNITS.split())}
    said |= {f"digits/{number}0": word for number, word in enumerate(TENS.split(), 2)}
    said |= {f"digits/h-{number}": word for number, word in enumerate(ORDINALS.split(), 1)}
    said |= {f"digits/h-{n}0": f"{w[:-1]}ieth" for n, w in enumerate(TENS.split(), 2)}
    said |= {f"digits/day-{number}": word for number, word in enumerate(DAYS.split())}
    said |= {f"digits/mon-{number}": word for number, word in enumerate(MONTHS.split())}
    words = "billion dollars hundred million minus oh star thousand today tomorrow yesterday"
    said |= {f"digits/{word}": word for word in words.split()} | {"digits/oclock": "o'clock"}
    words = "dash dollar dot equals plus slash space zed"
    said |= {f"letters/{word}": word for word in words.split()}
    folders = [_cache("asterisk-sounds"), DEBIAN_SOUNDS]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None or not all((folder / f"{name}.wav").is_file() for name in said):
        raise FileNotFoundError(
            "Asterisk's sounds are not installed; run: apt install asterisk-core-sounds-en-wav"
        )
    return [Sound(name, said[name], _read_wave(folder / f"{name}.wav")) for name in sorted(said)]


def _read_wave(path):
    """Read a file of one channel with 16 bits a value."""
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype("float32") / 32768


def sp500():
    """Return the index of 500 large American companies on the 5,031 trading days from 1999 to 2018.

    Returns:
        Prices: columns open, high, low, close in points of the index, and the number of shares
        traded; float64.

    Raises:
        ModuleNotFoundError: if arch is not installed. Its file is read; it is not imported.
        FileNotFoundError: if the installed arch does not carry it.

    Source: the package arch, which had it from Yahoo Finance.
    Differs: the column of adjusted closes is left out; it is equal to the closes.
    """
    how = "pip install --no-deps arch==8.0.0"
    path = _need("arch", how) / "data" / "sp500" / "sp500.csv.gz"
    if not path.is_file():
        raise FileNotFoundError(f"the installed arch has no S&P 500; run: {how}")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    days = (row["Date"].split("/") for row in rows)  # month/day/year
    dates = [f"{year}-{month:0>2}-{day:0>2}" for month, day, year in days]
    names = ("Open", "High", "Low", "Close", "Volume")
    x = np.array([[float(row[name]) for name in names] for row in rows])
    return Prices(np.array(dates, "datetime64[D]"), x, tuple(name.lower() for name in names))


def handbook():
    """Return the prose of this handbook's pages, section by section, as it stood on 2026-11-22.

    Returns:
        Texts in reading order, in both languages: one line a paragraph or item, no code, tables
        or displayed formulas. Frozen, so that an edit of a page does not change what is learned.

    Source: this handbook, CC BY 4.0; made by `nox -s corpus`.
    """
    lines = Path(__file__).with_name("handbook.jsonl").read_text(encoding="utf-8").splitlines()
    return [Text(**json.loads(line)) for line in lines]


def fingerprint(array):
    """Return the SHA-256 hash, 64 hexadecimal digits, of an array's type, shape and values.

    Args:
        array: any numeric array. Its layout in memory and its byte order make no difference.
    """
    array = np.asarray(array)
    array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).reshape(array.shape)
    head = f"{array.dtype.kind}{array.dtype.itemsize}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def split(samples, test, rng):
    """Return the shuffled row numbers of a training part and of a test part.

    Args:
        samples: how many rows there are.
        test: how many of them are held out, at least 1 and fewer than `samples`.
        rng: a `numpy.random.Generator`; the same state gives the same split.

    Returns:
        `[samples - test]` and `[test]` integers; together each row number once.
    """
    if not 0 < test < samples:
        raise ValueError(f"test is {test}; allowed are 1 to {samples - 1} of {samples} samples")
    order = rng.permutation(samples)
    return order[test:], order[:test]


def standardize(train, *others):
    """Shift and scale columns by the training rows' mean and standard deviation.

    Args:
        train: `[N, D]`; its columns come out with mean 0 and standard deviation 1.
        *others: `[any, D]`; moved by the same numbers, so that nothing is learned from them.

    Returns:
        As many arrays as were given. A column that is constant in `train` is only shifted.
    """
    if np.ndim(train) != 2 or len(train) == 0:
        raise ValueError(f"train has shape {np.shape(train)}; allowed is [N, D] with N at least 1")
    mean, scale = np.mean(train, axis=0), np.std(train, axis=0)
    scale = np.where(np.ptp(train, axis=0) == 0, 1.0, scale)
    moved = tuple((np.asarray(part) - mean) / scale for part in (train, *others))
    return moved if others else moved[0]
