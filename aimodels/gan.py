"""Generative adversarial networks: the losses, one step of the game, and a distance for samples.

Axes: B images in a batch, Z width of the noise, N samples, F width of the features.
A logit s of the discriminator stands for the probability `sigmoid(s)` that its input is real.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels.training import check_whole


def _logits(name, logits):
    """Return logits in float32 at least, so that a sum of many float16 does not overflow."""
    logits = ops.convert_to_tensor(logits)
    if 0 in logits.shape:
        raise ValueError(f"{name} must hold at least one logit; received {tuple(logits.shape)}")
    kind = keras.backend.standardize_dtype(logits.dtype)
    return logits if kind == "float64" else ops.cast(logits, "float32")


def discriminator_loss(real, fake):
    """Return -log D(x) over real samples plus -log(1 - D(G(z))) over generated ones, as means.

    Args:
        real: logits of real samples, any shape that holds at least one.
        fake: logits of generated samples; not necessarily as many.

    Returns:
        One number from 0, at least float32; 2 log 2 if every logit is 0. It is minus the value of
        the game. A NaN logit makes it NaN.

    Raises:
        ValueError: no logits.

    Source: Goodfellow et al. 2014, equation 1, <https://arxiv.org/abs/1406.2661>.
    """
    real, fake = _logits("real", real), _logits("fake", fake)
    return ops.add(ops.mean(ops.softplus(-real)), ops.mean(ops.softplus(fake)))


def generator_loss(fake, saturating=False):
    """Return what the generator lowers: -log D(G(z)), or log(1 - D(G(z))) if saturating, as a mean.

    Args:
        fake: logits of generated samples, any shape that holds at least one.
        saturating: whether to take the second form, that of the min-max game.

    Returns:
        One number, at least float32; from 0 up, or if saturating from 0 down. A NaN logit makes it
        NaN.

    Raises:
        ValueError: no logits.

    Source: Goodfellow et al. 2014, section 3, <https://arxiv.org/abs/1406.2661>.
    """
    fake = _logits("fake", fake)
    return -ops.mean(ops.softplus(fake)) if saturating else ops.mean(ops.softplus(-fake))


def optimal_discriminator(p, q):
    """Return p / (p + q), the probability that the best discriminator gives.

    Args:
        p: density, or probability, of real samples at some points; from 0, any shape.
        q: that of generated samples at the same points, same shape.

    Returns:
        From 0 to 1, float64, same shape; NaN where both are 0: no sample decides there.

    Raises:
        ValueError: shapes that differ; a density below 0, infinite or NaN.

    Source: Goodfellow et al. 2014, proposition 1, <https://arxiv.org/abs/1406.2661>.
    """
    p, q = np.asarray(p, float), np.asarray(q, float)
    if p.shape != q.shape:
        raise ValueError(f"q must have the shape {p.shape} of p; received {q.shape}")
    for name, density in (("p", p), ("q", q)):
        bad = ~((density >= 0) & (density < np.inf))
        if bad.any():
            raise ValueError(f"{name} must be finite and from 0; received {density[bad][0]}")
    larger = np.maximum(p, q)
    with np.errstate(invalid="ignore"):
        p, q = p / larger, q / larger  # so that p + q neither overflows nor loses digits near 0
    return p / (p + q)


def make_gan_step(generator, discriminator, optimizers, saturating=False, jit_compile=False):
    """Return `step(x, z)`: the discriminator's update, then the generator's, as one graph.

    Args:
        generator: a built Keras model from noise `[B, Z]` to samples.
        discriminator: a built Keras model from samples to logits.
        optimizers: of the generator and of the discriminator, two of them.
        saturating: which `generator_loss` the generator lowers.
        jit_compile: whether XLA compiles the graph further.

    Returns:
        A `tf.function` for `aimodels.training.train`, of real samples x and noise z. It returns the
        discriminator's loss before its update; the generator then meets the updated discriminator.
        What layers add to a loss (penalties, `add_loss`) is left out.

    Raises:
        ValueError: a model that is not built; not two different optimizers.

    Source: Goodfellow et al. 2014, algorithm 1, <https://arxiv.org/abs/1406.2661>.
    Differs: the same noise serves both updates; there it is drawn twice.
    """
    optimizers = tuple(optimizers)
    if len(optimizers) != 2 or optimizers[0] is optimizers[1]:
        raise ValueError(
            "optimizers must be two, of the generator and of the discriminator;"
            f" received {[type(one).__name__ for one in optimizers]}"
        )
    models = {"generator": generator, "discriminator": discriminator}
    for (name, model), optimizer in zip(models.items(), optimizers, strict=True):
        if not model.built:
            raise ValueError(f"{name} must be built; start it with an Input or call it once")
        if not optimizer.built:
            optimizer.build(model.trainable_variables)

    def update(optimizer, tape, scaled, model):
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(scaled, variables), variables)

    for_generator, for_discriminator = optimizers

    def step(x, z):
        with tf.GradientTape() as outer:
            made = generator(z, training=True)
            with outer.stop_recording():
                with tf.GradientTape() as inner:
                    real, fake = (discriminator(part, training=True) for part in (x, made))
                    loss = discriminator_loss(real, fake)
                    scaled = for_discriminator.scale_loss(loss)
                update(for_discriminator, inner, scaled, discriminator)
            fake = discriminator(made, training=True)
            scaled = for_generator.scale_loss(generator_loss(fake, saturating))
        update(for_generator, outer, scaled, generator)
        return loss

    return tf.function(step, jit_compile=jit_compile, autograph=False)


def frechet_distance(features_a, features_b):
    """Return the squared Fréchet distance between the Gaussians that fit two sets of features.

    Args:
        features_a: `[N, F]`, at least two rows; for instance what a trained network computes from
            N images before its last layer.
        features_b: `[N', F]`.

    Returns:
        One number from 0, `|m - m'|² + tr(C + C' - 2 (C C')^½)` of the means and covariances; 0 for
        the same set. N below F is allowed, the covariance then lacks rank. Few samples make the
        number too large; compare only numbers from equally many.

    Raises:
        ValueError: another rank, one row, widths that differ, a number that is not finite.

    Source: Heusel et al. 2017, equation 6, <https://arxiv.org/abs/1706.08500>.
    Differs: there the features come from one network, Inception; here from whichever is chosen.
    """
    (mean_a, root_a), (mean_b, root_b) = (
        _gaussian(name, features)
        for name, features in (("features_a", features_a), ("features_b", features_b))
    )
    if len(mean_a) != len(mean_b):
        raise ValueError(
            f"features_b must have the width {len(mean_a)} of features_a; received {len(mean_b)}"
        )
    # tr (C C')^½ is the sum of the singular values of C^½ C'^½; no difference of near equals, no
    # root of a tiny negative eigenvalue.
    cross = np.linalg.svd(root_a @ root_b, compute_uv=False).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * cross
    return max(float(distance), 0.0)


def _gaussian(name, features):
    """Return the mean of the rows and the square root of their covariance, by its eigenvalues."""
    features = np.asarray(features, float)
    if features.ndim != 2 or len(features) < 2 or features.shape[1] == 0:
        raise ValueError(f"{name} must be [N, F], N at least 2; received {list(features.shape)}")
    bad = np.argwhere(~np.isfinite(features))
    if len(bad):
        raise ValueError(
            f"{name} must be finite; received {features[tuple(bad[0])]} in row {bad[0][0]}"
        )
    values, vectors = np.linalg.eigh(np.cov(features, rowvar=False).reshape(2 * features.shape[1:]))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return features.mean(axis=0), root


def generator(noise=64, channels=16):
    """Return an untrained network from noise `[B, noise]` to images `[B, 28, 28, 1]` in -1 to 1.

    Args:
        noise: Z, from 1.
        channels: of the last feature maps, from 1; those before have twice as many.

    Raises:
        ValueError: a number that is not whole or below 1.

    Source: Radford, Metz and Chintala 2015, <https://arxiv.org/abs/1511.06434>.
    Differs: two transposed convolutions, of 7 to 14 to 28 pixels; there four, up to 64 pixels.
    """
    check_whole("noise", noise, 1)
    check_whole("channels", channels, 1)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((noise,)),
            layers.Dense(7 * 7 * 2 * channels),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Reshape((7, 7, 2 * channels)),
            layers.Conv2DTranspose(channels, 4, strides=2, padding="same"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="tanh"),
        ]
    )


def discriminator(channels=16):
    """Return an untrained network from images `[B, 28, 28, 1]` to logits `[B, 1]`.

    Args:
        channels: of the first feature maps, from 1; those after have twice as many.

    Raises:
        ValueError: a number that is not whole or below 1.

    Source: Radford, Metz and Chintala 2015, <https://arxiv.org/abs/1511.06434>.
    Differs: two convolutions, without batch normalization.
    """
    check_whole("channels", channels, 1)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(channels, 4, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.Conv2D(2 * channels, 4, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
