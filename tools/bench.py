"""Compare our layers with Keras' own: both in one run, taking turns, as ratios with spread.

`python -m tools.bench [--rounds N]`. A ratio above 1 means that ours is faster. The last column is ours
against the machine's matrix-product peak, measured in the same run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from tools import runner


def seconds(step: Callable[[], object], repeats: int) -> float:
    """Return the time of one call, averaged over `repeats`."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def compare(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> list[float]:
    """Return peer's time over ours for each round; the two take turns at going first."""
    for step in (ours, peer):
        seconds(step, 3)  # traces and warms up
    repeats = max(1, int(0.2 / seconds(peer, 3)))
    ratios = []
    for number in range(rounds):
        order = (ours, peer) if number % 2 else (peer, ours)
        times = {step: seconds(step, repeats) for step in order}
        ratios.append(times[peer] / times[ours])
    return ratios


def training(layer: Any, x: Any) -> Callable[[], object]:
    """Return a compiled step: self-attention over `x` and the gradients of the layer's weights."""
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def step() -> list:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, x) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    return step


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error(f"--rounds is at least 1, got {rounds}")
    os.environ.update(runner._environment("cpu"))
    import keras
    import tensorflow as tf

    from aimodels.attention import MultiHeadAttention

    tf.config.threading.set_intra_op_parallelism_threads(runner.THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(runner.THREADS)
    keras.utils.set_random_seed(0)
    matrix = tf.random.normal((1024, 1024))
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    product()
    peak = 2 * 1024**3 / min(seconds(product, 5) for _ in range(5))
    print(
        f"matrix-product peak {peak / 1e9:.0f} GFLOP/s, {runner.THREADS} threads, {rounds} rounds"
    )
    print(f"{'forward and backward':34s} {'ratio':>6s} {'from':>6s} {'to':>6s} {'of peak':>8s}")
    for batch, steps, width, heads in ((16, 128, 128, 4), (4, 512, 128, 4), (32, 32, 256, 8)):
        x = tf.random.normal((batch, steps, width))
        ours = MultiHeadAttention(heads)
        peer = keras.layers.MultiHeadAttention(heads, width // heads)
        ours(x, x), peer(x, x)
        step = training(ours, x)
        ratios = compare(step, training(peer, x), rounds)
        # Projections of width × width: four forward, five backward, since the input needs no
        # gradient; products of steps × steps: two forward, four backward.
        work = 2 * batch * steps * width * (9 * width + 6 * steps)
        share = work / seconds(step, 5) / peak
        name = f"attention B={batch} T={steps} D={width} H={heads}"
        print(
            f"{name:34s} {statistics.median(ratios):6.2f} {min(ratios):6.2f} {max(ratios):6.2f} {share:8.0%}"
        )


if __name__ == "__main__":
    _main()
