# --8<-- [start:write]
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import scipy.io.wavfile
import skimage.data
from PIL import Image

from aimodels import datasets

temporary = tempfile.TemporaryDirectory()
root = Path(temporary.name)
photographs = {name: datasets.photograph(name) for name in ("china", "flower")}
for name in ("astronaut", "chelsea", "coffee", "rocket"):
    photographs[name] = getattr(skimage.data, name)()

SIDE = 48
for name, photo in photographs.items():
    (root / "images" / name).mkdir(parents=True)
    for i in range(photo.shape[0] // SIDE):
        for j in range(photo.shape[1] // SIDE):
            tile = photo[i * SIDE :, j * SIDE :][:SIDE, :SIDE]
            end = "jpg" if (i + j) % 3 == 0 else "png"
            path = root / "images" / name / f"{i:02}-{j:02}.{end}"
            Image.fromarray(tile).save(path, quality=90)

for sound in datasets.spoken():
    path = root / "sounds" / f"{sound.name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.round(sound.wave * 32768).astype("int16")
    scipy.io.wavfile.write(path, 8000, values)

for language in ("en", "zh"):
    (root / "texts" / language).mkdir(parents=True)
    for text in datasets.handbook():
        path = root / "texts" / language / f"{text.page}-{text.section}.txt"
        path.write_text(getattr(text, language), encoding="utf-8")

for kind in sorted(root.iterdir()):
    for folder in sorted(kind.iterdir()):
        print(kind.name, folder.name, len([*folder.iterdir()]))
# --8<-- [end:write]

# --8<-- [start:bytes]
number = ord("数")
print(f"{number:#x} = {number:b}")
high, middle, low = number >> 12, number >> 6 & 63, number & 63
by_hand = bytes([0b11100000 | high, 0b10000000 | middle, 0b10000000 | low])
print(by_hand.hex(" "), by_hand == "数".encode())
print("數 数 é".encode().hex(" "))
one, two = "é", "e\u0301"  # (1)!
print(one, two, one == two, one.encode().hex(" "), two.encode().hex(" "))
# --8<-- [end:bytes]

# --8<-- [start:readers]
from aimodels.data import (
    labelled_files,
    read_image,
    read_sound,
    read_text,
    samples,
)

images = labelled_files(root / "images", (".png", ".jpg"))
sounds = labelled_files(root / "sounds", (".wav",))
texts = labelled_files(root / "texts", (".txt",))
print(images.names)
print(len(images.paths), "files", np.bincount(images.labels))

pixels = read_image(images.paths[0])
print("image", pixels.shape, pixels.dtype, pixels[0, 0])
wave, rate = read_sound(sounds.paths[0])
print("sound", wave.shape, wave.dtype, rate, "per second")
text = read_text(texts.paths[-1])
print("text ", len(text), "characters:", text[:10])
# --8<-- [end:readers]


# --8<-- [start:pipeline]
import tensorflow as tf

from aimodels.clip import spectrogram


def look(path):
    return read_image(path) / np.float32(255)


def listen(path):
    wave, _ = read_sound(path, rate=8000)
    return spectrogram(wave[:, 0])  # (1)!


def spell(path):
    return np.array([ord(character) for character in read_text(path)])


feed = samples(images, look, (SIDE, SIDE, 3), seed=0)
feed = feed.batch(32, drop_remainder=True).prefetch(2)
pictures, labels = next(iter(feed))
print("images", pictures.shape, pictures.dtype.name, labels.numpy()[:8])

for files, reader, shape, kind in (
    (sounds, listen, (None, 32), "float32"),
    (texts, spell, (None,), "int32"),
):
    feed = samples(files, reader, shape, kind, seed=0)
    x, y = next(iter(feed.padded_batch(32).prefetch(2)))  # (2)!
    print(files.names, x.shape, x.dtype.name, y.numpy()[:8])

figure, axes = plt.subplots(2, 6, figsize=(6.4, 2.5))
for axis, picture, label in zip(axes.flat, pictures, labels, strict=False):
    axis.imshow(picture)
    axis.set_axis_off()
    axis.set_title(images.names[label], fontsize=8)
# --8<-- [end:pipeline]

# --8<-- [start:spectrogram]
path = root / "sounds" / "digits" / "7.wav"
wave, rate = read_sound(path)
energy = spectrogram(wave[:, 0], frame=256, hop=64, bands=128)
seconds = len(wave) / rate
print(f"{len(wave)} values, {seconds:.2f} s →", energy.shape)
print(f"one step: {64 / rate * 1000:.0f} ms, one band: {rate / 256:.2f} Hz")

figure, axes = plt.subplots(2, 1, figsize=(6, 3.6), sharex=True)
axes[0].plot(np.arange(len(wave)) / rate, wave, linewidth=0.4)
axes[0].set_ylabel("wave")
axes[1].imshow(
    energy.T, origin="lower", aspect="auto", extent=(0, seconds, 0, 4)
)
axes[1].set(xlabel="seconds", ylabel="kHz")
# --8<-- [end:spectrogram]

# --8<-- [start:train]
import keras

from aimodels.training import make_step, train

keras.utils.set_random_seed(0)
train_rows, test_rows = datasets.split(
    len(images.paths), 140, np.random.default_rng(0)
)
known, new = images.pick(train_rows), images.pick(test_rows)


def epochs(files, size):
    for epoch in range(1000):
        feed = samples(files, look, (SIDE, SIDE, 3), seed=0, epoch=epoch)
        yield from feed.batch(size, drop_remainder=True).prefetch(2)


layers = keras.layers
model = keras.Sequential(
    [
        keras.Input((SIDE, SIDE, 3)),
        layers.Conv2D(16, 4, 4, activation="relu"),
        layers.Conv2D(32, 3, 2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(6),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
step = make_step(model, keras.optimizers.Adam(0.01), loss)
losses = train(step, epochs(known, 32), 260)

x, y = next(iter(samples(new, look, (SIDE, SIDE, 3)).batch(140)))


def accuracy(x):
    return np.mean(np.array(model(x)).argmax(axis=1) == y.numpy())


print(f"loss {losses[:10].mean():.1f} → {losses[-10:].mean():.1f}")
print(f"right on {len(y)} other tiles: {accuracy(x):.2f}")
# --8<-- [end:train]

# --8<-- [start:bucket]
lengths = np.array([len(listen(path)) for path in sounds.paths])
print("steps of a recording:", lengths.min(), "to", lengths.max())
feed = samples(sounds, listen, (None, 32), seed=0)


def steps(x, y):
    return tf.shape(x)[0]


buckets = [28, 32, 36, 40]
for name, batches in {
    "as they come": feed.padded_batch(16),
    "by length": feed.bucket_by_sequence_length(steps, buckets, [16] * 5),
}.items():
    shapes = [x.shape for x, _ in batches]
    held = sum(b * t for b, t, _ in shapes)
    print(f"{name}: {len(shapes)} batches", end=", ")
    print(f"{1 - lengths.sum() / held:.2f} of them padding")
# --8<-- [end:bucket]

# --8<-- [start:overlap]
from time import perf_counter, sleep

few = images.pick(np.arange(120))


def slow(path):
    sleep(0.01)
    return look(path)


def loop():
    for first in range(0, 120, 8):
        yield np.stack([slow(path) for path in few.paths[first : first + 8]])


def stream(workers, ahead):
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False  # (1)!
    feed = samples(few, slow, (SIDE, SIDE, 3), workers=workers).batch(8)
    feed = feed.prefetch(ahead) if ahead else feed
    return feed.with_options(options)


def spent(batches):
    begin = perf_counter()
    for _ in batches:
        sleep(0.04)  # (2)!
    return perf_counter() - begin


spent(stream(8, 2))  # (3)!
of_loop = spent(loop())
for name, workers, ahead in (
    ("one reader", None, 0),
    ("one reader, prefetch", None, 2),
    ("eight readers, prefetch", 8, 2),
):
    share = spent(stream(workers, ahead)) / of_loop
    print(f"{name:24}{share:.2f} of the loop's time")
# --8<-- [end:overlap]

# --8<-- [start:long-throughput]
import os

auto = tf.data.AUTOTUNE


def decode(raw):
    pixels = tf.io.decode_jpeg(raw, 3, dct_method="INTEGER_ACCURATE")  # (1)!
    return tf.cast(pixels, "float32") / 255


def in_batches(rows):
    for first in range(0, len(rows), 16):
        yield rows[first : first + 16]


def ways(files, shape):
    record, array = root / "all.tfrecord", root / "all.npy"
    with tf.io.TFRecordWriter(str(record)) as writer:
        for path in files.paths:
            writer.write(Path(path).read_bytes())
    np.save(array, np.stack([read_image(path) for path in files.paths]))
    pixels = np.load(array)
    paths = tf.data.Dataset.from_tensor_slices(files.paths)
    feeds = {
        "samples": samples(files, look, shape).map(lambda x, y: x),
        "TensorFlow": paths.map(tf.io.read_file, auto).map(decode, auto),
        "TFRecord": tf.data.TFRecordDataset(str(record)).map(decode, auto),
    }
    feeds["cache"] = feeds["TensorFlow"].cache()
    loops = {
        "plain loop": lambda: (
            np.stack([look(path) for path in part])
            for part in in_batches(files.paths)
        ),
        "one array": lambda: (
            part / np.float32(255) for part in in_batches(pixels)
        ),
    }
    feeds = {name: feed.batch(16).prefetch(2) for name, feed in feeds.items()}
    return loops | {name: feed.__iter__ for name, feed in feeds.items()}


def rate_of(way, count):
    times = []
    for _ in range(9):
        begin = perf_counter()
        for _ in way():
            pass
        times.append(perf_counter() - begin)
    return count / np.array(times[2:])  # (2)!


if "HANDBOOK_LONG" in os.environ:
    (root / "large" / "all").mkdir(parents=True)
    for copy in range(20):
        for name, photo in photographs.items():
            path = root / "large" / "all" / f"{name}-{copy}.jpg"
            Image.fromarray(photo[:300, :448]).save(path, quality=90)
    large = labelled_files(root / "large", (".jpg",))
    figure, axes = plt.subplots(
        1, 2, figsize=(6.6, 2.6), sharex=True, sharey=True
    )
    for axis, title, files, shape in (
        (axes[0], "562 tiles", images, (SIDE, SIDE, 3)),
        (axes[1], "120 photographs", large, (300, 448, 3)),
    ):
        rates = {
            name: rate_of(way, len(files.paths))
            for name, way in ways(files, shape).items()
        }
        print(f"{title}, files a second: median, lowest, highest")
        for place, (name, rate) in enumerate(rates.items()):
            middle = np.median(rate)
            print(
                f"{name:12}{middle:9,.0f}{rate.min():9,.0f}{rate.max():9,.0f}"
            )
            axis.barh(place, middle, color="C0", alpha=0.6)
            axis.plot([rate.min(), rate.max()], [place] * 2, color="C1")
        axis.set(title=title, xlabel="files a second", xscale="log")
        axis.set_yticks(range(len(rates)), rates)
    axes[0].invert_yaxis()
# --8<-- [end:long-throughput]

# --8<-- [start:peer]
import scipy.signal

same = {".png": 0, ".jpg": 0}
for path in images.paths:
    with Image.open(path) as file:
        equal = np.array_equal(
            read_image(path), np.asarray(file.convert("RGB"))
        )
    same[Path(path).suffix] += equal
print("images with the pixels of Pillow:", same, "of", len(images.paths))

same = 0
for path in sounds.paths:
    of_scipy, values = scipy.io.wavfile.read(path)
    ours, rate = read_sound(path)
    same += rate == of_scipy and np.array_equal(ours[:, 0] * 32768, values)
print("sounds with the values of SciPy:", same, "of", len(sounds.paths))

window, worst = np.hanning(256), 0
for path in sounds.paths:
    wave = read_sound(path)[0][:, 0].astype("float64")
    ours = np.exp(spectrogram(wave, 256, 64, 128)) - 0.001  # (1)!
    for scaling, scale in (
        ("density", 8000 * (window**2).sum()),
        ("spectrum", window.sum() ** 2),
    ):
        _, _, theirs = scipy.signal.spectrogram(
            wave, 8000, window, 256, 192, detrend=False, scaling=scaling
        )
        theirs = theirs.T[:, :128] * scale
        theirs[:, 1:] /= 2  # (2)!
        worst = max(worst, np.abs(ours - theirs).max() / ours.max())
print("largest difference, of the largest energy, below 1e-12:", worst < 1e-12)
# --8<-- [end:peer]

# --8<-- [start:broken]
folder = root / "broken" / "all"
folder.mkdir(parents=True)
jpeg, png = (Path(path).read_bytes() for path in images.paths[:2])


def changed(raw):
    raw = bytearray(raw)
    raw[-100] ^= 1  # (1)!
    return raw


for name, raw in {
    "changed.jpg": changed(jpeg),
    "changed.png": changed(png),
    "cut.jpg": jpeg[:-2],
    "cut.png": png[:-20],
    "empty.png": b"",
    "text.png": b"no picture at all",
    "whole.png": png,
}.items():
    (folder / name).write_bytes(raw)

broken = labelled_files(folder.parent, (".png", ".jpg"))
bad = {}
kept = [*samples(broken, look, (SIDE, SIDE, 3), skipped=bad)]
print(len(kept), "read,", len(bad), "skipped:")
for message in sorted(bad.values()):
    print(message.replace(f"{folder}/", ""))
print([Path(path).name for path in broken.without(bad).paths])

try:
    for _ in samples(broken, look, (SIDE, SIDE, 3)):
        pass
except tf.errors.InvalidArgumentError as error:
    print("ours says which file:", "changed.png" in str(error))
try:
    for _ in tf.data.Dataset.from_tensor_slices(broken.paths).map(
        lambda path: tf.io.decode_image(tf.io.read_file(path))
    ):
        pass
except tf.errors.InvalidArgumentError as error:
    print("TensorFlow's says it:", "changed.png" in str(error))
# --8<-- [end:broken]

# --8<-- [start:lies]
import wave as standard

raw = bytearray((root / "sounds" / "digits" / "7.wav").read_bytes())
longer, faster = raw.copy(), raw.copy()
longer[40:44] = (int.from_bytes(raw[40:44], "little") + 8000).to_bytes(
    4, "little"
)
faster[24:28] = (16000).to_bytes(4, "little")
for name, lie, wanted in (
    ("longer.wav", longer, None),
    ("faster.wav", faster, None),
    ("faster.wav", faster, 8000),
):
    path = folder / name
    path.write_bytes(lie)
    with standard.open(str(path)) as file:
        stated = file.getnframes()
        held = len(file.readframes(stated)) // 2
    print(f"{name}: {stated} values stated, {held} read without a word")
    try:
        wave, rate = read_sound(path, wanted)
        print(f"  ours with rate={wanted}: {len(wave) / rate:.2f} s")
    except ValueError as error:
        print(" ", str(error).replace(f"{folder}/", ""))
# --8<-- [end:lies]

# --8<-- [start:mojibake]
right = "手写数字识别"
print("written  read as")
for written, read in (
    ("utf-8", "gbk"),
    ("utf-8", "cp1252"),
    ("gbk", "cp1252"),
    ("gbk", "big5"),
    ("gbk", "utf-8"),
):
    raw = right.encode(written)
    path = folder / "text.txt"
    path.write_bytes(raw)
    try:
        print(f"{written:8} {read:8}", raw.decode(read))
    except UnicodeDecodeError:
        print(f"{written:8} {read:8}", raw.decode(read, "replace"))  # (1)!
        try:
            read_text(path)
        except ValueError as error:
            print(str(error).replace(f"{folder}/", ""))
path.write_text(right, encoding="utf-8-sig")
print(len(path.read_text("utf-8")), len(read_text(path)), "characters")
# --8<-- [end:mojibake]


# --8<-- [start:buffer]
def moved(count, buffer):
    order = tf.data.Dataset.range(count).shuffle(buffer, seed=0)
    order = np.fromiter(order.as_numpy_iterator(), "int64")
    return order, np.abs(order - np.arange(count)).mean()


for buffer in (10, 100, 1000):
    _, mean = moved(20_000, buffer)
    print(f"buffer {buffer:5}: moved by {mean:5.0f}", end="")
    print(f", 2b/e = {2 * buffer / np.e:4.0f}")
print(f"buffer 20000: moved by {moved(20_000, 20_000)[1]:5.0f}", end="")
print(f", N/3 = {20_000 / 3:.0f}")

figure, axes = plt.subplots(1, 3, figsize=(6.6, 2.4), sharey=True)
for axis, buffer in zip(axes, (16, 128, 562), strict=True):
    order, _ = moved(562, buffer)
    rows = images.labels[order]
    shares = [
        np.bincount(rows[i : i + 32]).max() / 32 for i in range(0, 544, 32)
    ]
    print(
        f"562 tiles, buffer {buffer:3}: {np.mean(shares):.2f} of a batch alike"
    )
    for label in range(6):
        place = np.flatnonzero(rows == label)
        axis.plot(place, order[place], ".", markersize=2)
    axis.set(title=f"buffer {buffer}", xlabel="place in the epoch")
axes[0].set_ylabel("place in the folders")
# --8<-- [end:buffer]

# --8<-- [start:late]
in_order = tf.data.Dataset.from_tensor_slices(images.labels)
for name, batches in {
    "shuffle, then batch": in_order.shuffle(562, seed=0).batch(32),
    "batch, then shuffle": in_order.batch(32).shuffle(562, seed=0),
}.items():
    classes = [len(np.unique(batch)) for batch in batches]
    print(f"{name}: {np.mean(classes):.1f} of 6 classes in a batch")

shuffled = in_order.shuffle(562, seed=0)
for name, order in {
    "shuffle": shuffled,
    "shuffle, then cache": shuffled.cache(),
    "cache, then shuffle": in_order.cache().shuffle(562, seed=0),
}.items():
    first, second = ([*order.as_numpy_iterator()] for _ in range(2))
    print(f"{name}: the second epoch is the first: {first == second}")
# --8<-- [end:late]

# --8<-- [start:folders]
import shutil

for path, label in zip(new.paths, new.labels, strict=True):
    name = images.names[label]
    if name != "astronaut":
        (root / "held-out" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "held-out" / name)
for names in (None, images.names):
    part = labelled_files(root / "held-out", (".png", ".jpg"), names)
    a, b = next(iter(samples(part, look, (SIDE, SIDE, 3)).batch(140)))
    right = np.mean(np.array(model(a)).argmax(axis=1) == b.numpy())
    print(f"chelsea is {part.names.index('chelsea')}: {right:.2f} right")
# --8<-- [end:folders]

# --8<-- [start:looks]
for name, other in {
    "as in training": x,
    "blue first": x[..., ::-1],
    "0 to 255": x * 255,
    "upside down": x[:, ::-1],
}.items():
    print(f"{name:15}{accuracy(other):.2f}")

path = folder / "turned.jpg"
exif = Image.Exif()
exif[0x0112] = 6  # (1)!
Image.fromarray(np.rot90(photographs["rocket"])).save(
    path, quality=90, exif=exif
)
stored = tf.io.decode_jpeg(path.read_bytes()).numpy()
print("stored", stored.shape, "upright", read_image(path).shape)

figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.6))
for axis, (title, pixels) in zip(
    axes,
    {
        "stored": stored,
        "upright": read_image(path),
        "blue first": read_image(path)[..., ::-1],
    }.items(),
    strict=True,
):
    axis.imshow(pixels[::4, ::4])
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
# --8<-- [end:looks]

# --8<-- [start:deep]
grey = photographs["china"].mean(axis=2)
path = folder / "deep.png"
Image.fromarray((grey * 257).astype("uint16")).save(path)
with Image.open(path) as file:
    clipped = np.asarray(file.convert("L"))
ours = read_image(path, 1)
print(ours.dtype, ours.min(), "to", ours.max())
print(f"white: {np.mean(clipped == 255):.2f} of the pixels by convert('L')")
print(f"       {np.mean(ours == 65535):.2f} of them in the file")
# --8<-- [end:deep]

# --8<-- [start:resize]
photo = photographs["chelsea"][:288, :448]
with_pillow = Image.fromarray(photo).resize((56, 36), Image.Resampling.BILINEAR)
figure, axes = plt.subplots(1, 3, figsize=(6.6, 1.9))
shown = {"Pillow": np.asarray(with_pillow)}
for antialias in (True, False):
    small = tf.image.resize(photo, (36, 56), antialias=antialias).numpy()
    apart = np.abs(small - np.asarray(with_pillow))
    print(f"antialias={antialias}: {apart.max():.0f} from Pillow", end="")
    print(f", {apart.mean():.1f} in the mean")
    shown[f"antialias={antialias}"] = small / 255
for axis, (title, pixels) in zip(axes, shown.items(), strict=True):
    axis.imshow(pixels)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
# --8<-- [end:resize]

# --8<-- [start:statistics]
every = np.concatenate([listen(path) for path in sounds.paths])
feed = samples(sounds, listen, (None, 32), seed=0).padded_batch(146)
padded = next(iter(feed))[0].numpy()
print(f"mean of the real steps {every.mean():.2f}", end="")
print(f", with the padding {padded.mean():.2f}")
rows, held = datasets.split(146, 30, np.random.default_rng(0))
part = np.concatenate([listen(sounds.paths[row]) for row in rows])
print(f"mean without the held-out recordings {part.mean():.2f}")
# --8<-- [end:statistics]


# --8<-- [start:solution-resume]
def labels_of(**options):
    feed = samples(images, look, (SIDE, SIDE, 3), seed=7, epoch=3, **options)
    return [y.numpy() for _, y in feed.batch(32)]


whole = labels_of()
rest = labels_of(start=5 * 32)
print(len(whole), "batches, from the sixth:", len(rest))
assert all(np.array_equal(a, b) for a, b in zip(whole[5:], rest, strict=True))
# --8<-- [end:solution-resume]


# --8<-- [start:solution-deep]
def read_24(path):
    with standard.open(str(path)) as file:
        raw = file.readframes(file.getnframes())
    low, middle, high = (
        np.frombuffer(raw, "u1").reshape(-1, 3).T.astype("int32")
    )
    values = low + (middle << 8) + (high << 16)
    return values - (values >> 23 << 24)  # (1)!


path = folder / "deep.wav"
values = np.array([0, 1, -1, 8388607, -8388608, 70000, -70000], "<i4")
with standard.open(str(path), "wb") as file:
    file.setparams((1, 3, 8000, 0, "NONE", ""))
    file.writeframes(values.view("u1").reshape(-1, 4)[:, :3].tobytes())
print(read_24(path))
assert np.array_equal(read_24(path), values)
assert np.array_equal(scipy.io.wavfile.read(path)[1] >> 8, values)  # (2)!
# --8<-- [end:solution-deep]


# --8<-- [start:solution-buffer]
def shuffle(items, buffer, rng):
    held = []
    for item in items:
        held.append(item)
        if len(held) == buffer:
            yield held.pop(rng.integers(buffer))
    rng.shuffle(held)
    yield from held


rng = np.random.default_rng(0)
order = np.fromiter(shuffle(range(20_000), 100, rng), "int64")
mean = np.abs(order - np.arange(20_000)).mean()
print(f"by hand {mean:.0f}, by tf.data {moved(20_000, 100)[1]:.0f}")
assert abs(mean / (200 / np.e) - 1) < 0.05
assert sorted(order) == [*range(20_000)]
# --8<-- [end:solution-buffer]
