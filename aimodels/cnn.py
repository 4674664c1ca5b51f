"""Convolution and pooling as sums over windows, in NumPy, and a LeNet in Keras.

B images, H height, W width, C channels; a kernel of U rows and V columns, F filters; H' and W'
are the height and width of the result. Everywhere `stride` is the number of pixels from one window
to the next and `padding` is "valid", windows inside the image only, or "same", zeros around it.
"""

import keras
import numpy as np

PADDINGS = ("valid", "same")
SMALLEST = 12  # pixels that lenet needs for one to be left after both poolings


def _array(name, value, letters):
    array = np.asarray(value, dtype=float)
    if array.ndim != len(letters):
        raise ValueError(f"{name} must have shape [{', '.join(letters)}], got {list(array.shape)}")
    return array


def output_size(size, kernel, stride=1, padding="valid"):
    """Return how many windows of `kernel` pixels fit along an axis of `size` pixels.

    Returns:
        `(size - kernel) // stride + 1` for "valid", `size / stride` rounded up for "same".

    Raises:
        ValueError: a size below 1, an unknown padding, or a window that does not fit.

    Source: Dumoulin and Visin 2016, section 2, <https://arxiv.org/abs/1603.07285>.
    """
    for name, value in (("size", size), ("kernel", kernel), ("stride", stride)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {PADDINGS}, got {padding!r}")
    if padding == "same":
        return -(-size // stride)
    if kernel > size:
        raise ValueError(f'kernel of {kernel} must not exceed the size {size} when "valid"')
    return (size - kernel) // stride + 1


def same_padding(size, kernel, stride=1):
    """Return the zeros that "same" puts before and after an axis; an odd one goes after.

    Source: TensorFlow, notes on padding, <https://www.tensorflow.org/api_docs/python/tf/nn>.
    Differs: `padding=p` of PyTorch puts `p` on both sides, whatever the stride.
    """
    covered = (output_size(size, kernel, stride, "same") - 1) * stride + kernel
    zeros = max(covered - size, 0)
    return zeros // 2, zeros - zeros // 2


def windows(images, size, stride=1, padding="valid", fill=0.0):
    """Return every window of the images, as a view.

    Args:
        images: `[B, H, W, C]`.
        size: (U, V), rows and columns of a window.
        stride: see the module.
        padding: see the module.
        fill: what "same" puts around the images.

    Returns:
        `[B, H', W', C, U, V]`.
    """
    images = _array("images", images, "BHWC")
    axes = list(zip(images.shape[1:3], size, strict=True))
    for pair in axes:
        output_size(*pair, stride, padding)
    if padding == "same":
        rows, columns = (same_padding(*pair, stride) for pair in axes)
        images = np.pad(images, ((0, 0), rows, columns, (0, 0)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(images, size, axis=(1, 2))
    return view[:, ::stride, ::stride]


def conv2d(images, kernels, bias=0.0, stride=1, padding="valid"):
    """Return what a convolution layer computes: each filter correlated with each image.

    Args:
        images: `[B, H, W, C]`.
        kernels: `[U, V, C, F]`, one kernel for each pair of channel and filter.
        bias: `[F]`, or one number.
        stride: see the module.
        padding: see the module.

    Returns:
        `[B, H', W', F]`; a NaN in an image shows in the windows that read it, nowhere else.
    """
    kernels = _array("kernels", kernels, "UVCF")
    view = windows(images, kernels.shape[:2], stride, padding)
    if view.shape[3] != kernels.shape[2]:
        raise ValueError(f"kernels read {kernels.shape[2]} channels, images have {view.shape[3]}")
    return np.einsum("bijcuv,uvcf->bijf", view, kernels, optimize=True) + bias


def correlate2d(image, kernel, stride=1, padding="valid"):
    """Slide a kernel `[U, V]` over an image `[H, W]`: `y[i, j] = sum x[i + u, j + v] k[u, v]`.

    Returns:
        `[H', W']`. Keras, TensorFlow and PyTorch call this a convolution.
    """
    image, kernel = _array("image", image, "HW"), _array("kernel", kernel, "UV")
    images, kernels = image[None, :, :, None], kernel[:, :, None, None]
    return conv2d(images, kernels, stride=stride, padding=padding)[0, :, :, 0]


def convolve2d(image, kernel, stride=1, padding="valid"):
    """Convolve as mathematics does: correlate with the kernel turned by 180 degrees.

    Differs: with an even kernel and "same", SciPy puts the odd zeros before, not after.
    """
    return correlate2d(image, _array("kernel", kernel, "UV")[::-1, ::-1], stride, padding)


def max_pool2d(image, size=2, stride=None, padding="valid"):
    """Return the largest value of each window: `y[i, j] = max x[s i + u, s j + v]`.

    Args:
        image: `[H, W]`, or `[B, H, W, C]` where each channel is pooled by itself.
        size: rows and columns of a window.
        stride: None takes `size`, so that windows lie side by side.
        padding: see the module; what "same" adds never wins.

    Returns:
        `[H', W']` or `[B, H', W', C]`.
    """
    plane = np.ndim(image) == len("HW")
    images = _array("image", image, "HW")[None, :, :, None] if plane else image
    stride = size if stride is None else stride
    pooled = windows(images, (size, size), stride, padding, -np.inf).max(axis=(4, 5))
    return pooled[0, :, :, 0] if plane else pooled


def convolution_matrix(kernel, shape, stride=1, padding="valid"):
    """Return the matrix M with `image.ravel() @ M == correlate2d(image, kernel).ravel()`.

    Args:
        kernel: `[U, V]`.
        shape: (H, W) of the image.
        stride: see the module.
        padding: see the module.

    Returns:
        `[H W, H' W']`; a column holds the kernel where its window lies, and zeros elsewhere.
    """
    kernel = _array("kernel", kernel, "UV")
    if len(shape) != kernel.ndim:
        raise ValueError(f"shape must be (H, W) of one image, got {tuple(shape)}")
    axes = list(zip(shape, kernel.shape, strict=True))
    outs = [output_size(*pair, stride, padding) for pair in axes]
    top, left = (same_padding(*pair, stride)[0] if padding == "same" else 0 for pair in axes)
    matrix = np.zeros((*shape, *outs))
    for i, j in np.ndindex(*outs):
        for u, v in np.ndindex(*kernel.shape):
            row, column = stride * i + u - top, stride * j + v - left
            if 0 <= row < shape[0] and 0 <= column < shape[1]:
                matrix[row, column, i, j] = kernel[u, v]
    return matrix.reshape(np.prod(shape), np.prod(outs))


def lenet(classes, shape=(28, 28, 1)):
    """Return LeNet-5 with today's parts: an untrained `keras.Sequential` that gives logits.

    Args:
        classes: numbers in the output, at least 2.
        shape: (H, W, C) of an image; H and W at least 12.

    Source: LeCun et al. 1998, section II.B, <https://doi.org/10.1109/5.726791>.
    Differs: there tanh, trained average pooling, C3 reads some maps only, distances as output.
    """
    if not isinstance(classes, (int, np.integer)) or classes <= 1:
        raise ValueError(f"classes must be a whole number of at least 2, got {classes!r}")
    if len(shape) != len("HWC") or min(shape[:2]) < SMALLEST:
        raise ValueError(f"shape must be (H, W, C), H and W at least 12, got {tuple(shape)}")
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(classes),
        ]
    )
