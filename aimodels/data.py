"""Files of text, images and sound: read with errors that name the file, and streamed in a fixed order.

Axes: N files, H height, W width, C colours or channels, T values of a sound, B batch.
"""

import io
import struct
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


class Files(NamedTuple):
    """N paths, `labels` `[N]` from 0, and the names of the classes, which the labels number."""

    paths: list[str]
    labels: np.ndarray
    names: tuple[str, ...]

    def pick(self, rows):
        """Return some of them, in the order of `rows`; classes keep their numbers."""
        return Files([self.paths[row] for row in rows], self.labels[rows], self.names)

    def without(self, paths):
        """Return all but some, as those that `samples` had to skip."""
        return self.pick([row for row, path in enumerate(self.paths) if path not in paths])


def labelled_files(folder, suffixes, names=None):
    """Return the files of a folder whose subfolders are the classes.

    Args:
        folder: one with subfolders; files beside these, hidden ones and other endings are passed over.
        suffixes: the endings that count, as `(".png", ".jpg")`, in small letters; `.PNG` counts too.
        names: the classes in the order of their numbers; None takes the subfolders in the order of
            their characters. Give a test set those of the training set: it may lack a class.

    Returns:
        Files, class by class, each in the order of its file names.

    Raises:
        ValueError: no folder, no subfolder, one without files, or one that is not in `names`.
    """
    folder = Path(folder)
    if isinstance(suffixes, str) or not all(s.startswith(".") for s in suffixes):
        raise ValueError(f"suffixes must be several, as ('.png', '.jpg'); received {suffixes!r}")
    if not folder.is_dir():
        raise ValueError(f"folder must be one that exists; received {folder}")
    found = {p.name: p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}
    names = tuple(sorted(found) if names is None else names)
    if not found or not found.keys() <= set(names):
        raise ValueError(
            f"folder must have subfolders {names or 'that are classes'}; received {sorted(found)} in"
            f" {folder}"
        )
    paths, labels = list[str](), list[int]()
    for label, name in enumerate(names):
        files = found[name].iterdir() if name in found else ()
        kept = [p for p in files if p.suffix.lower() in suffixes and not p.name.startswith(".")]
        if name in found and not kept:
            raise ValueError(
                f"each subfolder must hold files {tuple(suffixes)}; received none in {found[name]}"
            )
        paths += map(str, sorted(kept))
        labels += [label] * len(kept)
    return Files(paths, np.array(labels), names)


def read_text(path, encoding="utf-8"):
    r"""Return the text of a file; line ends are `\n`, and a byte order mark is taken off.

    Args:
        path: the file.
        encoding: of its bytes. Nothing is guessed and nothing replaced.

    Raises:
        ValueError: an empty file; bytes that are not of the encoding; U+0000, which UTF-16 read as
            UTF-8 is full of.
    """
    raw = _bytes(path)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise ValueError(
            f"{path} must be {encoding}; received byte 0x{byte:02x} at {error.start} of {len(raw)}:"
            f" {error.reason}"
        ) from error
    if "\0" in text:
        raise ValueError(f"{path} must be text; received U+0000 at {text.index(chr(0))}")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_image(path, channels=3):
    """Return the pixels of a PNG or JPEG file, turned upright.

    What the file is, its first bytes say, not its name. Transparency is dropped, grey repeated for
    three channels. For one channel the decoder makes grey of colours: for a PNG within 1 of
    Pillow's, for a JPEG the brightness that it stores.

    Args:
        path: the file.
        channels: C, 1 or 3.

    Returns:
        `[H, W, C]` red first: uint8, 0 to 255; of a PNG with 16 bits uint16, 0 to 65535.

    Raises:
        ValueError: an empty, truncated or other file; a PNG with a changed byte. In a JPEG such a
            byte mostly goes unnoticed: the format has no check sums.

    Source: RFC 2083 (PNG), <https://doi.org/10.17487/RFC2083>.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3; received {channels}")
    raw = _bytes(path)
    try:
        if raw.startswith(PNG):
            depth = tf.uint16 if raw[24:25] == b"\x10" else tf.uint8
            image = tf.io.decode_png(raw, channels, depth).numpy()
        elif raw.startswith(JPEG):
            # TensorFlow's default, a faster transform, gives other pixels.
            image = tf.io.decode_jpeg(raw, channels, dct_method="INTEGER_ACCURATE").numpy()
        else:
            raise ValueError(f"{path} must be PNG or JPEG; received a file that begins {raw[:8]!r}")
    except tf.errors.InvalidArgumentError as error:
        kind = "PNG" if raw.startswith(PNG) else "JPEG"
        raise ValueError(
            f"{path} must be a whole {kind}; received {len(raw)} bytes that do not decode"
        ) from error
    turn = _orientation(raw)
    if turn >= 5:
        image = image.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image[::-1] if turn in (3, 4, 7, 8) else image)


def _orientation(raw):
    """Return which way is up, from 1 (as stored) to 8, by the Exif block if there is one."""
    place, block = (8, b"") if raw.startswith(PNG) else (2, b"")
    try:
        while not block:  # chunk by chunk of a PNG, segment by segment of a JPEG
            if raw.startswith(PNG):
                size, kind = struct.unpack_from(">I4s", raw, place)
                block = raw[place + 8 : place + 8 + size] if kind == b"eXIf" else b""
                place += size + 12
            else:
                kind, size = struct.unpack_from(">2sH", raw, place)
                if kind == b"\xff\xda":  # pixels from here on
                    return 1
                here = raw[place + 4 : place + 2 + size]
                block = here[6:] if kind == b"\xff\xe1" and here[:6] == b"Exif\0\0" else b""
                place += size + 2
        order = "<" if block[:2] == b"II" else ">"
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, entry)
            if tag == 0x0112 and 1 <= value <= 8:
                return value
    except struct.error:  # the file ends, or the block is damaged: nothing says which way
        pass
    return 1


def read_sound(path, rate=None):
    """Return the wave of a WAV file, and how many values a second it has.

    Args:
        path: a file of 8 or 16 bits a value, uncompressed.
        rate: the number that is wanted; None takes any. Nothing is resampled.

    Returns:
        `[T, C]` float32 from -1 to below 1, one column a channel, and the rate. 16 bits are divided
        by 32768; 8 bits are stored from 0 to 255, so 128 is taken off before they are divided by 128.

    Raises:
        ValueError: an empty, truncated or other file; another number of bits; another rate.
    """
    raw = _bytes(path)
    try:
        with wave.open(io.BytesIO(raw)) as file:
            form, data = file.getparams(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(
            f"{path} must be WAV with plain values; received {len(raw)} bytes: {error!r}"
        ) from error
    if form.sampwidth not in (1, 2):
        raise ValueError(f"{path} must have 8 or 16 bits a value; received {8 * form.sampwidth}")
    wanted = form.nframes * form.nchannels * form.sampwidth
    if not wanted or len(data) != wanted:
        raise ValueError(f"{path} must hold sound, {wanted} bytes as stated; received {len(data)}")
    if form.framerate != (rate or form.framerate):
        raise ValueError(f"{path} must have {rate} values a second; received {form.framerate}")
    if form.sampwidth == 1:
        values = (np.frombuffer(data, "u1").astype("float32") - 128) / 128
    else:
        values = np.frombuffer(data, "<i2").astype("float32") / 32768
    return values.reshape(-1, form.nchannels), form.framerate


def samples(
    files,
    reader,
    shape,
    dtype="float32",
    *,
    seed=None,
    epoch=0,
    start=0,
    skipped=None,
    workers=tf.data.AUTOTUNE,
):
    """Return one epoch of files as a `tf.data.Dataset`, read by several threads in a fixed order.

    The order is that of `aimodels.training.batches`: `np.random.default_rng((seed,
    epoch)).permutation(N)`. It is an order of paths, so it costs no reading, and a run that was
    stopped goes on with `start` without reading what it has seen.

    Args:
        files: Files, or anything with `paths` and `labels`.
        reader: function of a path that returns an array; for what it cannot read, ValueError.
        shape: of these arrays; None for a length that differs from file to file.
        dtype: of the samples, a number's; values that do not fit into it are an error.
        seed: a whole number; None keeps the order of the files.
        epoch: which epoch, from 0; each has an order of its own.
        start: how many files of the order to pass over, from 0 to N.
        skipped: None stops at the first bad file. A dict makes the run pass over bad files, and
            gets `{path: what is wrong}`, an entry each time an epoch meets one.
        workers: how many files are read at a time.

    Returns:
        Pairs of a sample and its label (int32), not batched yet.

    Raises:
        ValueError: no files, or a number that is not allowed. When the dataset is read,
            `tf.errors.InvalidArgumentError` with the message of the ValueError for a bad file, or if
            every file is bad.
    """
    count = len(files.paths)
    if not count or len(files.labels) != count:
        raise ValueError(f"files must be 1 or more with a label each; received {count} paths")
    if not 0 <= start <= count:
        raise ValueError(f"start must be from 0 to {count}; received {start}")
    if epoch < 0 or (seed is not None and seed < 0):
        raise ValueError(f"seed and epoch must be from 0; received {seed} and {epoch}")
    form = np.dtype(dtype)

    def read(path):
        path = path.decode()
        try:
            array = np.asarray(reader(path))
            fits = len(array.shape) == len(shape) and all(
                size in (None, here) for size, here in zip(shape, array.shape, strict=True)
            )
            if not fits or not array.size:
                raise ValueError(f"{path} must give shape {shape}; received {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{path} must give finite numbers; received NaN or infinity")
            if form.kind in "iu" and not np.array_equal(array.astype(form), array):
                raise ValueError(f"{path} must give {form}; received {array.dtype} beyond it")
        except (ValueError, OSError) as error:
            if skipped is None:
                raise
            skipped[path] = str(error)
            if skipped.keys() >= set(files.paths):
                raise ValueError(f"files must hold one that can be read; {error}") from error
            return np.zeros([size or 0 for size in shape], form), False
        return array.astype(form), True

    def load(path, label):
        sample, good = tf.numpy_function(read, [path], (form, tf.bool))
        return tf.ensure_shape(sample, shape), label, good

    def is_good(sample, label, good):
        return good

    def pair(sample, label, good):
        return sample, label

    order = np.arange(count)
    if seed is not None:
        order = np.random.default_rng((seed, epoch)).permutation(count)
    order = order[start:]
    paths = np.array(files.paths)[order]
    labels = np.asarray(files.labels)[order].astype("int32")
    found = tf.data.Dataset.from_tensor_slices((paths, labels)).map(load, workers)
    return (found if skipped is None else found.filter(is_good)).map(pair)


def _bytes(path):
    """Return what is in a file, which must be something."""
    raw = Path(path).read_bytes()
    if not raw:
        raise ValueError(f"{path} must hold something; received an empty file")
    return raw
