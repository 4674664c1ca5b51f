"""Files into samples: Pillow's pixels, SciPy's values, damaged files by name, order and resumption."""

import re
import struct
import wave

import numpy as np
import pytest
import scipy.io.wavfile
import tensorflow as tf
from PIL import Image, ImageOps

from aimodels import datasets
from aimodels.data import Files, labelled_files, read_image, read_sound, read_text, samples
from aimodels.training import batches

PHOTO = datasets.photograph("flower")[100:163, 200:281]
GREY = PHOTO.mean(axis=2).astype("uint8")


def message(text):
    return re.escape(text)


def saved(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def sound(path, values, width=2, channels=1, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(values)
    return path


# ---- text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16"])
def test_text_comes_back_from_each_encoding(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("手写\r\n数字\rabc\n".encode(encoding))
    assert read_text(path, encoding) == "手写\n数字\nabc\n"


def test_a_byte_order_mark_is_taken_off_once_and_only_in_front(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff\ufeffa\ufeff".encode())
    assert read_text(path) == "\ufeffa\ufeff"


def test_a_wrong_byte_is_named_with_its_place(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("ab数".encode() + b"\xffcd")
    text = f"{path} must be utf-8; received byte 0xff at 5 of 8: invalid start byte"
    with pytest.raises(ValueError, match=message(text)):
        read_text(path)


def test_utf_16_without_its_mark_is_no_utf_8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("abc".encode("utf-16-le"))
    with pytest.raises(ValueError, match=message(f"{path} must be text; received U+0000 at 1")):
        read_text(path)


@pytest.mark.parametrize("reader", [read_text, read_image, read_sound])
def test_an_empty_file_is_named(tmp_path, reader):
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"a\.txt must hold something; received an empty file"):
        reader(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="nothing"):
        reader(tmp_path / "nothing")


# ---- images


def of_pillow(path, mode="RGB"):
    with Image.open(path) as file:
        return np.asarray(ImageOps.exif_transpose(file).convert(mode))


def test_pngs_of_every_kind_have_pillows_pixels(tmp_path):
    kinds = {
        "colour": PHOTO,
        "grey": GREY,
        "alpha": np.dstack([PHOTO, GREY]),
        "grey and alpha": np.dstack([GREY, GREY]),
        "bits": GREY > 100,
        "one pixel": PHOTO[:1, :1],
        "one row": PHOTO[:1],
    }
    for name, pixels in kinds.items():
        path = saved(tmp_path / f"{name}.png", pixels)
        assert read_image(path).dtype == np.uint8
        np.testing.assert_array_equal(read_image(path), of_pillow(path), name)
    path = tmp_path / "palette.png"
    Image.fromarray(PHOTO).quantize(17).save(path)
    np.testing.assert_array_equal(read_image(path), of_pillow(path))


@pytest.mark.parametrize("quality", [20, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [True, False])
def test_jpegs_have_pillows_pixels(tmp_path, quality, subsampling, progressive):
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    path = saved(tmp_path / "a.jpg", PHOTO, **options)
    np.testing.assert_array_equal(read_image(path), of_pillow(path))
    path = saved(tmp_path / "b.jpg", GREY, quality=quality, progressive=progressive)
    np.testing.assert_array_equal(read_image(path), of_pillow(path))
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], of_pillow(path, "L"))


def test_grey_from_colours_is_near_pillows(tmp_path):
    for name, allowed in {"a.png": 1, "a.jpg": 12}.items():
        path = saved(tmp_path / name, PHOTO)
        ours = read_image(path, 1)
        assert ours.shape == (*PHOTO.shape[:2], 1)
        assert np.abs(ours[..., 0].astype(int) - of_pillow(path, "L")).max() <= allowed


@pytest.mark.parametrize("end", ["jpg", "png"])
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("small_end_first", [True, False])
def test_pictures_are_turned_upright_as_by_pillow(tmp_path, end, turn, small_end_first):
    exif = Image.Exif()
    exif.endian = "<" if small_end_first else ">"
    exif[0x010F] = "another tag in front"
    exif[0x0112] = turn
    path = saved(tmp_path / f"a.{end}", PHOTO, exif=exif)
    np.testing.assert_array_equal(read_image(path), of_pillow(path))
    assert read_image(path).shape == (PHOTO.shape if turn < 5 else (81, 63, 3))


def test_a_damaged_exif_block_turns_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = saved(tmp_path / "a.jpg", PHOTO, exif=exif).read_bytes()
    block = raw.index(b"Exif\0\0") + 6
    for change in (b"\xff\xff\xff\xff", b"\0\0\0\xf0"):
        (tmp_path / "b.jpg").write_bytes(raw[: block + 4] + change + raw[block + 8 :])
        assert read_image(tmp_path / "b.jpg").shape == PHOTO.shape
    value = raw.index(b"\x01\x12\0\x03\0\0\0\x01\0\x06") + 9
    (tmp_path / "b.jpg").write_bytes(raw[:value] + b"\x63" + raw[value + 1 :])
    assert read_image(tmp_path / "b.jpg").shape == PHOTO.shape


def test_sixteen_bits_stay_sixteen(tmp_path):
    deep = np.arange(0, 65536, 16, dtype="uint16").reshape(64, 64)
    path = saved(tmp_path / "a.png", deep)
    assert read_image(path, 1).dtype == np.uint16
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], deep)
    np.testing.assert_array_equal(read_image(path), np.repeat(deep[..., None], 3, 2))


@pytest.mark.parametrize(("end", "kind"), [("png", "PNG"), ("jpg", "JPEG")])
def test_a_cut_picture_is_named_wherever_it_was_cut(tmp_path, end, kind):
    path = saved(tmp_path / f"a.{end}", PHOTO)
    raw = path.read_bytes()
    for length in (9, 30, len(raw) // 2, len(raw) - 20, len(raw) - 1):
        path.write_bytes(raw[:length])
        text = f"{path} must be a whole {kind}; received {length} bytes that do not decode"
        with pytest.raises(ValueError, match=message(text)):
            read_image(path)


def test_every_changed_byte_of_a_png_is_noticed(tmp_path):
    path = saved(tmp_path / "a.png", PHOTO)
    raw = path.read_bytes()
    for place in np.random.default_rng(0).integers(30, len(raw) - 20, 30):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(ValueError, match="must be a whole PNG"):
            read_image(path)


def test_the_name_of_a_picture_does_not_decide(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(tmp_path / "a.jpg", PHOTO).read_bytes())
    assert read_image(tmp_path / "a.png").shape == PHOTO.shape
    (tmp_path / "b.png").write_text("some text")
    text = "b.png must be PNG or JPEG; received a file that begins b'some tex'"
    with pytest.raises(ValueError, match=message(text)):
        read_image(tmp_path / "b.png")
    Image.fromarray(PHOTO).save(tmp_path / "c.png", format="GIF")
    with pytest.raises(ValueError, match="must be PNG or JPEG; received a file that begins b'GIF"):
        read_image(tmp_path / "c.png")


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels(tmp_path, channels):
    with pytest.raises(ValueError, match=f"channels must be 1 or 3; received {channels}"):
        read_image(tmp_path / "a.png", channels)


# ---- sound


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 777])
def test_sounds_have_scipys_values(tmp_path, channels, length):
    rng = np.random.default_rng(length)
    for kind, low, high in (("<i2", -32768, 32767), ("u1", 0, 255)):
        values = rng.integers(low, high + 1, (length, channels)).astype(kind)
        values[0, 0], values[-1, -1] = low, high
        path = tmp_path / "a.wav"
        scipy.io.wavfile.write(path, 11025, values)
        rate, theirs = scipy.io.wavfile.read(path)
        ours, ours_rate = read_sound(path)
        assert (ours_rate, ours.shape, ours.dtype) == (rate, (length, channels), np.float32)
        theirs = theirs.reshape(length, channels).astype("float64")
        scaled = theirs / 32768 if kind == "<i2" else (theirs - 128) / 128
        np.testing.assert_array_equal(ours, scaled)
        assert -1 <= ours.min() <= ours.max() < 1
        if kind == "<i2":
            np.testing.assert_array_equal(ours, tf.audio.decode_wav(path.read_bytes())[0])


def test_chunks_in_front_of_the_sound_are_passed_over(tmp_path):
    raw = sound(tmp_path / "a.wav", b"\1\0\2\0").read_bytes()
    raw = raw[:36] + b"LIST" + struct.pack("<I", 4) + b"INFO" + raw[36:]
    raw = raw[:4] + struct.pack("<I", len(raw) - 8) + raw[8:]
    (tmp_path / "b.wav").write_bytes(raw)
    np.testing.assert_array_equal(read_sound(tmp_path / "b.wav")[0][:, 0] * 32768, [1, 2])


def test_a_header_that_states_more_than_there_is(tmp_path):
    path = sound(tmp_path / "a.wav", bytes(200))
    raw = path.read_bytes()
    for cut in (1, 2, 150):
        path.write_bytes(raw[:-cut])
        text = rf"a\.wav must hold sound, 200 bytes as stated; received {200 - cut}"
        with pytest.raises(ValueError, match=text):
            read_sound(path)
    sound(path, b"")
    with pytest.raises(ValueError, match=r"a\.wav must hold sound, 0 bytes"):
        read_sound(path)


def test_no_wav_and_other_wavs(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"a\.wav must be WAV with plain values; received 4 bytes"):
        read_sound(path)
    path.write_bytes(b"no sound at all, but some bytes")
    with pytest.raises(ValueError, match=r"a\.wav must be WAV with plain values"):
        read_sound(path)
    scipy.io.wavfile.write(path, 8000, np.zeros(5, "float32"))
    with pytest.raises(ValueError, match=r"a\.wav must be WAV with plain values"):
        read_sound(path)
    for width in (3, 4):
        sound(path, bytes(24), width)
        text = rf"a\.wav must have 8 or 16 bits a value; received {8 * width}"
        with pytest.raises(ValueError, match=text):
            read_sound(path)


def test_another_rate_than_the_one_wanted(tmp_path):
    path = sound(tmp_path / "a.wav", bytes(20), rate=16000)
    assert read_sound(path, 16000)[1] == read_sound(path)[1] == 16000
    text = f"{path} must have 8000 values a second; received 16000"
    with pytest.raises(ValueError, match=message(text)):
        read_sound(path, 8000)


# ---- folders


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.png", "b/10.PNG", "a/1.png", "a/1.txt", "a/.hidden.png", ".git/1.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        saved(path, PHOTO, format="PNG") if path.suffix != ".txt" else path.touch()
    saved(tmp_path / "beside.png", PHOTO)
    return tmp_path


def test_subfolders_are_classes(folder):
    files = labelled_files(folder, (".png",))
    assert files.names == ("a", "b")
    assert files.paths == [str(folder / name) for name in ("a/1.png", "b/10.PNG", "b/2.png")]
    assert files.labels.tolist() == [0, 1, 1]


def test_given_classes_keep_their_numbers(folder):
    files = labelled_files(folder, (".png",), ("z", "b", "a"))
    assert files.labels.tolist() == [1, 1, 2]
    assert files.names == ("z", "b", "a")


def test_picking_and_leaving_out(folder):
    files = labelled_files(folder, (".png",))
    assert files.pick([2, 0]).paths == [files.paths[2], files.paths[0]]
    assert files.pick([2, 0]).labels.tolist() == [1, 0]
    rest = files.without({files.paths[1]: "bad"})
    assert (rest.paths, rest.labels.tolist()) == ([files.paths[0], files.paths[2]], [0, 1])
    assert rest.names == files.names


def test_folders_that_are_wrong(folder):
    with pytest.raises(ValueError, match="folder must be one that exists; received"):
        labelled_files(folder / "nothing", (".png",))
    with pytest.raises(ValueError, match="folder must have subfolders that are classes"):
        labelled_files(folder / "a", (".png",))
    with pytest.raises(ValueError, match=message("received ['a', 'b'] in")):
        labelled_files(folder, (".png",), ("a", "c"))
    with pytest.raises(ValueError, match=r"must hold files \('\.txt',\); received none in .*b"):
        labelled_files(folder, (".txt",))
    for suffixes in (".png", ("png",)):
        with pytest.raises(ValueError, match="suffixes must be several"):
            labelled_files(folder, suffixes)


# ---- samples


@pytest.fixture
def files(tmp_path):
    paths = []
    for number in range(20):
        paths.append(str(tmp_path / f"{number}.txt"))
        (tmp_path / f"{number}.txt").write_text("x" * (number + 1))
    return Files(paths, np.arange(20) % 3, ("a", "b", "c"))


def number(path):
    return np.array([len(read_text(path)) - 1])


def read(files, reader=number, shape=(1,), **options):
    feed = samples(files, reader, shape, **options)
    return [int(x[0]) for x, _ in feed.as_numpy_iterator()]


def test_without_a_seed_files_come_in_order_with_their_labels(files):
    assert read(files) == [*range(20)]
    pairs = [(int(x[0]) % 3, int(y)) for x, y in samples(files, number, (1,), seed=1)]
    assert all(a == b for a, b in pairs)
    assert samples(files, number, (1,)).element_spec == (
        tf.TensorSpec((1,), tf.float32),
        tf.TensorSpec((), tf.int32),
    )


@pytest.mark.parametrize("workers", [None, 1, 4, tf.data.AUTOTUNE])
def test_the_order_is_that_of_the_training_loop(files, workers):
    theirs = batches(np.arange(20), 5, seed=4)
    theirs = np.concatenate([next(theirs) for _ in range(8)])
    ours = [read(files, seed=4, epoch=epoch, workers=workers) for epoch in (0, 1)]
    assert np.concatenate(ours).tolist() == theirs.tolist()
    assert ours[0] != ours[1]
    assert read(files, seed=5) != ours[0]


@pytest.mark.parametrize("start", [0, 1, 13, 19, 20])
def test_a_stopped_epoch_goes_on_without_reading_what_it_has_seen(files, start):
    seen = []

    def counted(path):
        seen.append(path)
        return number(path)

    whole = read(files, seed=2)
    assert read(files, counted, seed=2, start=start) == whole[start:]
    assert len(seen) == 20 - start


def test_bad_files_are_skipped_and_told_by_name(files, tmp_path):
    (tmp_path / "7.txt").write_bytes(b"")
    (tmp_path / "11.txt").write_bytes(b"\xff")
    (tmp_path / "12.txt").unlink()
    bad = {}
    kept = read(files, skipped=bad)
    assert kept == [n for n in range(20) if n not in (7, 11, 12)]
    assert bad.keys() == {str(tmp_path / f"{n}.txt") for n in (7, 11, 12)}
    assert "empty" in bad[str(tmp_path / "7.txt")]
    assert read(files.without(bad)) == kept
    assert read(files, skipped=bad) == kept
    assert len(bad) == 3


def test_a_bad_file_stops_by_default_and_is_named(files, tmp_path):
    (tmp_path / "7.txt").write_bytes(b"")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"7\.txt must hold something"):
        read(files)


def test_nothing_but_bad_files_is_an_error(files):
    def never(path):
        raise ValueError(f"{path} is never right")

    text = r"files must hold one that can be read; .* is never right"
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        read(files, never, skipped={})


@pytest.mark.parametrize(
    ("reader", "shape", "dtype", "text"),
    [
        (
            lambda path: np.zeros((2, 3)),
            (2, 4),
            "float32",
            r"must give shape \(2, 4\); received \(2, 3\)",
        ),
        (lambda path: np.zeros(3), (3, 1), "float32", r"must give shape \(3, 1\); received \(3,\)"),
        (
            lambda path: np.zeros((0, 3)),
            (None, 3),
            "float32",
            r"must give shape \(None, 3\); received \(0, 3\)",
        ),
        (lambda path: np.array([np.nan]), (1,), "float32", "must give finite numbers"),
        (lambda path: np.array([np.inf]), (1,), "int32", "must give finite numbers"),
        (
            lambda path: np.array([0.5]),
            (1,),
            "int32",
            "must give int32; received float64 beyond it",
        ),
        (lambda path: np.array([300]), (1,), "uint8", "must give uint8; received int64 beyond it"),
    ],
)
def test_what_a_reader_may_not_give(files, reader, shape, dtype, text):
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"0\.txt {text}"):
        read(files, reader, shape, dtype=dtype)


def test_lengths_may_differ_and_are_padded_with_zeros(files):
    feed = samples(files, lambda path: np.ones(len(read_text(path))), (None,), "int32", seed=0)
    x, y = next(iter(feed.padded_batch(20)))
    assert x.shape == (20, 20)
    assert x.dtype == tf.int32
    assert sorted(x.numpy().sum(axis=1)) == [*range(1, 21)]
    np.testing.assert_array_equal((x.numpy().sum(axis=1) - 1) % 3, y)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"start": -1}, "start must be from 0 to 20; received -1"),
        ({"start": 21}, "start must be from 0 to 20; received 21"),
        ({"epoch": -1}, "seed and epoch must be from 0; received None and -1"),
        ({"seed": -1}, "seed and epoch must be from 0; received -1 and 0"),
    ],
)
def test_numbers_that_are_not_allowed(files, options, text):
    with pytest.raises(ValueError, match=text):
        samples(files, number, (1,), **options)


def test_no_files_and_missing_labels(files):
    with pytest.raises(ValueError, match="files must be 1 or more with a label each; received 0"):
        samples(files.pick([]), number, (1,))
    with pytest.raises(ValueError, match="received 20 paths"):
        samples(Files(files.paths, files.labels[:3], files.names), number, (1,))


def test_fit_reads_it(files):
    import keras

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(samples(files, number, (1,), seed=0).batch(8).prefetch(2), shuffle=False, verbose=0)
