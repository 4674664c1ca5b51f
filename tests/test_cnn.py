"""Convolution and pooling agree with Keras and SciPy, and LeNet with its own weights."""

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from aimodels.cnn import (
    conv2d,
    convolution_matrix,
    convolve2d,
    correlate2d,
    lenet,
    max_pool2d,
    output_size,
    same_padding,
    windows,
)

FLOAT32, FLOAT64 = 1e-5, 1e-12  # the largest error relative to the largest number
X = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])

# image height and width, kernel rows and columns, stride
SHAPES = [
    (6, 7, 3, 3, 1),
    (5, 5, 1, 1, 1),  # one weight
    (5, 5, 1, 1, 3),  # stride > kernel, and the windows skip pixels
    (4, 6, 4, 6, 1),  # kernel as large as the image
    (9, 8, 2, 3, 4),  # stride > kernel
    (8, 8, 2, 2, 2),  # even kernel, stride 2
    (7, 8, 4, 4, 2),  # even kernel, stride 2, odd image
    (7, 9, 4, 2, 1),  # even kernel, stride 1
    (28, 28, 3, 3, 2),  # the odd zero of "same" goes after
    (1, 1, 1, 1, 1),  # one pixel
]


def random_pair(height, width, rows, columns):
    rng = np.random.default_rng(height * 1000 + width * 100 + rows * 10 + columns)
    return rng.normal(size=(height, width)), rng.normal(size=(rows, columns))


def relative_error(ours, peer):
    return np.abs(ours - peer).max() / np.abs(peer).max()


# Worked by hand


def test_valid_correlation_of_x_with_itself_plus_one_is_six():
    np.testing.assert_array_equal(np.maximum(correlate2d(X, X) + 1, 0), [[6]])


def test_same_correlation_of_x_with_itself_plus_one():
    ours = np.maximum(correlate2d(X, X, padding="same") + 1, 0)
    np.testing.assert_array_equal(ours, [[3, 1, 3], [1, 6, 1], [3, 1, 3]])


def test_max_pooling_by_hand():
    image = [[1, 2, 5, 0], [3, 4, 1, 1], [0, 0, 9, 8], [0, 7, 6, 5]]
    np.testing.assert_array_equal(max_pool2d(image), [[4, 5], [7, 9]])
    np.testing.assert_array_equal(max_pool2d(image, 3, 1), [[9, 9], [9, 9]])


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "positions"),
    [
        (28, 5, 1, "valid", 24),
        (28, 5, 1, "same", 28),
        (28, 2, 2, "valid", 14),
        (7, 3, 2, "valid", 3),
        (8, 3, 2, "valid", 3),  # the last column is never read
        (7, 3, 2, "same", 4),
        (2, 5, 1, "same", 2),
    ],
)
def test_output_size_by_hand(size, kernel, stride, padding, positions):
    assert output_size(size, kernel, stride, padding) == positions


def test_the_odd_zero_of_same_padding_goes_after():
    assert same_padding(28, 3, 2) == (0, 1)
    assert same_padding(7, 3, 2) == (1, 1)
    assert same_padding(5, 1, 3) == (0, 0)


# The same numbers as peers


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("channels", "filters"), [(1, 1), (3, 5)])
def test_conv2d_equals_keras(shape, channels, filters, padding):
    height, width, rows, columns, stride = shape
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, height, width, channels))
    kernels = rng.normal(size=(rows, columns, channels, filters))
    bias = rng.normal(size=filters)
    ours = conv2d(images, kernels, bias, stride, padding)
    peer = keras.ops.conv(
        images.astype("float32"), kernels.astype("float32"), stride, padding=padding
    )
    peer = keras.ops.convert_to_numpy(peer) + bias
    assert ours.shape == peer.shape
    assert relative_error(ours, peer) < FLOAT32


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("height", "width", "size", "stride"),
    [(6, 7, 2, None), (7, 7, 3, 2), (8, 8, 2, 3), (5, 5, 1, 1), (4, 4, 4, 1), (9, 6, 4, 2)],
)
def test_max_pool2d_equals_keras(height, width, size, stride, padding):
    # All negative: a zero from "same" padding would win.
    images = -np.random.default_rng(0).uniform(1, 2, size=(2, height, width, 3))
    ours = max_pool2d(images, size, stride, padding)
    peer = keras.ops.max_pool(images.astype("float32"), size, stride, padding=padding)
    peer = keras.ops.convert_to_numpy(peer)
    assert ours.shape == peer.shape
    assert relative_error(ours, peer) < FLOAT32


@pytest.mark.parametrize("shape", SHAPES)
def test_correlate2d_and_convolve2d_equal_scipy(shape):
    *sizes, stride = shape
    image, kernel = random_pair(*sizes)
    for ours, peer in (
        (correlate2d, scipy.signal.correlate2d),
        (convolve2d, scipy.signal.convolve2d),
    ):
        expected = peer(image, kernel, "valid")[::stride, ::stride]
        assert relative_error(ours(image, kernel, stride), expected) < FLOAT64


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (3, 5), (2, 2), (4, 3)])
def test_same_correlation_equals_scipy_also_with_even_kernels(rows, columns):
    image, kernel = random_pair(7, 6, rows, columns)
    expected = scipy.signal.correlate2d(image, kernel, "same")
    assert relative_error(correlate2d(image, kernel, padding="same"), expected) < FLOAT64


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (3, 5), (2, 2), (4, 2)])
def test_same_convolution_of_scipy_starts_one_pixel_earlier_with_even_kernels(rows, columns):
    image, kernel = random_pair(7, 6, rows, columns)
    ours = convolve2d(image, kernel, padding="same")
    peer = scipy.signal.convolve2d(image, kernel, "same")
    down, right = 1 - rows % 2, 1 - columns % 2
    kept = ours[: 7 - down, : 6 - right]
    assert relative_error(kept, peer[down:, right:]) < FLOAT64


# Invariants


def test_flipping_the_kernel_turns_correlation_into_convolution():
    image, kernel = random_pair(6, 6, 3, 2)
    np.testing.assert_array_equal(convolve2d(image, kernel), correlate2d(image, kernel[::-1, ::-1]))


def test_convolution_commutes_and_correlation_does_not():
    one, other = random_pair(3, 3, 3, 3)
    np.testing.assert_allclose(convolve2d(np.pad(one, 2), other), convolve2d(np.pad(other, 2), one))
    assert not np.allclose(correlate2d(np.pad(one, 2), other), correlate2d(np.pad(other, 2), one))


@pytest.mark.parametrize(("down", "right"), [(0, 1), (2, 0), (3, 2)])
def test_a_shifted_image_gives_a_shifted_result(down, right):
    image, kernel = random_pair(6, 6, 3, 3)
    framed = np.pad(image, 6)
    shifted = np.roll(framed, (down, right), axis=(0, 1))
    np.testing.assert_allclose(
        correlate2d(shifted, kernel),
        np.roll(correlate2d(framed, kernel), (down, right), axis=(0, 1)),
        atol=1e-12,
    )


def test_stride_keeps_every_second_result():
    image, kernel = random_pair(9, 8, 3, 2)
    np.testing.assert_array_equal(
        correlate2d(image, kernel, 2), correlate2d(image, kernel)[::2, ::2]
    )


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_matrix_does_what_the_window_does(shape, padding):
    *sizes, stride = shape
    image, kernel = random_pair(*sizes)
    expected = correlate2d(image, kernel, stride, padding)
    matrix = convolution_matrix(kernel, image.shape, stride, padding)
    assert matrix.shape == (image.size, expected.size)
    assert relative_error(image.ravel() @ matrix, expected.ravel()) < FLOAT64


def test_the_matrix_is_sparse_and_shared():
    kernel = np.arange(1.0, 10).reshape(3, 3)
    matrix = convolution_matrix(kernel, (6, 6))
    assert np.count_nonzero(matrix) == 9 * 16
    for column in matrix.T:
        np.testing.assert_array_equal(column[column != 0], kernel.ravel())


def test_the_transposed_matrix_is_conv_transpose_of_keras():
    small, kernel = random_pair(3, 3, 3, 3)
    matrix = convolution_matrix(kernel, (7, 7), stride=2)
    ours = (small.ravel() @ matrix.T).reshape(7, 7)
    peer = keras.ops.conv_transpose(
        small[None, :, :, None].astype("float32"),
        kernel[:, :, None, None].astype("float32"),
        strides=2,
        padding="valid",
    )
    assert relative_error(ours, keras.ops.convert_to_numpy(peer)[0, :, :, 0]) < FLOAT32


@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_of_the_kernel_is_summed_over_all_windows(stride):
    image, kernel = random_pair(7, 6, 3, 2)
    variable = tf.Variable(kernel[:, :, None, None])
    with tf.GradientTape() as tape:
        result = tf.nn.conv2d(image[None, :, :, None], variable, stride, "VALID")
        loss = tf.reduce_sum(result**3)
    peer = tape.gradient(loss, variable).numpy()[:, :, 0, 0]
    upstream = 3 * correlate2d(image, kernel, stride) ** 2
    view = windows(image[None, :, :, None], kernel.shape, stride)[0, :, :, 0]
    assert relative_error(np.einsum("ij,ijuv->uv", upstream, view), peer) < FLOAT64


def test_windows_are_read_channel_by_channel():
    images = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    view = windows(images, (2, 2), 2)
    assert view.shape == (2, 2, 2, 3, 2, 2)
    np.testing.assert_array_equal(view[1, 0, 1, 2], images[1, 0:2, 2:4, 2])


# Numeric edges


def test_nan_shows_in_the_windows_that_read_it_and_nowhere_else():
    image = np.ones((5, 5))
    image[0, 0] = np.nan
    reads = np.zeros((3, 3), dtype=bool)
    reads[0, 0] = True
    np.testing.assert_array_equal(np.isnan(correlate2d(image, np.ones((3, 3)))), reads)
    np.testing.assert_array_equal(np.isnan(max_pool2d(image, 3, 1)), reads)


def test_whole_numbers_and_booleans_are_accepted():
    assert max_pool2d(np.array([[True, False], [False, False]])) == 1
    assert correlate2d(X.astype("uint8") * 255, -X).item() == -5 * 255


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlate2d([1, 2], X), r"image must have shape \[H, W\], got \[2\]"),
        (lambda: correlate2d(X, [1, 2]), r"kernel must have shape \[U, V\], got \[2\]"),
        (lambda: correlate2d(X, np.ones((4, 2))), "kernel of 4 must not exceed the size 3 when"),
        (lambda: correlate2d(X, np.ones((2, 4))), "kernel of 4 must not exceed the size 3 when"),
        (lambda: correlate2d(X, X, stride=0), "stride must be a whole number of at least 1, got 0"),
        (lambda: correlate2d(X, X, stride=1.5), "stride must be a whole number .* got 1.5"),
        (lambda: correlate2d(X, np.ones((0, 3))), "kernel must be a whole number .* got 0"),
        (lambda: correlate2d(np.ones((0, 3)), X), "size must be a whole number .* got 0"),
        (lambda: correlate2d(X, X, padding="full"), r"padding must be one of .* got 'full'"),
        (lambda: max_pool2d(X, padding="full"), r"padding must be one of .* got 'full'"),
        (lambda: max_pool2d(X, 4), "kernel of 4 must not exceed the size 3"),
        (lambda: max_pool2d(np.ones(4)), r"images must have shape \[B, H, W, C\], got \[4\]"),
        (lambda: windows(X, (2, 2)), r"images must have shape \[B, H, W, C\], got \[3, 3\]"),
        (
            lambda: conv2d(np.ones((1, 5, 5, 3)), np.ones((3, 3, 1, 2))),
            "kernels read 1 channels, images have 3",
        ),
        (
            lambda: conv2d(np.ones((1, 5, 5, 3)), X),
            r"kernels must have shape \[U, V, C, F\], got \[3, 3\]",
        ),
        (lambda: convolve2d(X, [1, 2]), r"kernel must have shape \[U, V\], got \[2\]"),
        (lambda: convolution_matrix([1, 2], X.shape), r"kernel must have shape \[U, V\], got"),
        (
            lambda: convolution_matrix(X, (3, 3, 1)),
            r"shape must be \(H, W\) of one image, got \(3, 3, 1\)",
        ),
        (lambda: convolution_matrix(X, (2, 3)), "kernel of 3 must not exceed the size 2"),
        (lambda: lenet(1), "classes must be a whole number of at least 2, got 1"),
        (lambda: lenet(10, (28, 28)), r"shape must be \(H, W, C\), .* got \(28, 28\)"),
        (lambda: lenet(10, (28, 11, 1)), r"H and W at least 12, got \(28, 11, 1\)"),
    ],
)
def test_a_bad_argument_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# LeNet


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return lenet(10)


def test_lenet_has_the_parameters_of_its_table(model):
    counts = [layer.count_params() for layer in model.layers if layer.weights]
    assert counts == [6 * 26, 16 * (6 * 25 + 1), 120 * 401, 84 * 121, 10 * 85]
    assert model.count_params() == sum(counts)


def test_the_smallest_image_lenet_takes_works():
    assert lenet(3, (12, 12, 2)).output_shape == (None, 3)


def test_lenet_by_our_functions_gives_the_logits_of_keras(model):
    images = np.random.default_rng(1).uniform(size=(4, 28, 28, 1)).astype("float32")
    first, second, *dense = [layer.get_weights() for layer in model.layers if layer.weights]
    hidden = max_pool2d(np.maximum(conv2d(images, *first, padding="same"), 0))
    hidden = max_pool2d(np.maximum(conv2d(hidden, *second), 0)).reshape(4, -1)
    for depth, (weights, bias) in enumerate(dense):
        hidden = hidden @ weights + bias
        if depth < len(dense) - 1:
            hidden = np.maximum(hidden, 0)
    peer = keras.ops.convert_to_numpy(model(images))
    assert relative_error(hidden, peer) < FLOAT32


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras saving
def test_lenet_saved_and_loaded_gives_the_same_logits(model, tmp_path):
    images = np.random.default_rng(2).uniform(size=(3, 28, 28, 1)).astype("float32")
    model.save(tmp_path / "lenet.keras")
    again = keras.saving.load_model(tmp_path / "lenet.keras")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(images)), keras.ops.convert_to_numpy(again(images))
    )


def test_lenet_learns_eight_images_by_heart():
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(3).uniform(size=(8, 16, 16, 1)).astype("float32")
    labels = np.arange(8) % 2
    net = lenet(2, (16, 16, 1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    net.fit(images, labels, epochs=60, verbose=0)
    assert net.evaluate(images, labels, verbose=0)[1] == 1
