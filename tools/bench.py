"""Compare our layers and models with their peers: all in one run, taking turns, as ratios with spread.

`python -m tools.bench [--rounds N] [PART …]`. A ratio above 1 means that ours is faster. The last column
is ours against the machine's matrix-product peak, measured in the same run. PyTorch and keras-hub
take part where they are installed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tools import runner
from tools.peers import (
    Size,
    hub_fit,
    hub_generation,
    hub_model,
    keras_hub_installed,
    torch_generation,
    torch_installed,
    torch_products,
    torch_training,
)

Step = Callable[[], object]


# Batch and sizes of the models that are trained.
GPTS = ((16, Size(1000, 128, 128, 4, 4)), (8, Size(2000, 128, 256, 8, 4)))


class Case(NamedTuple):
    """One thing that is measured: ours, its peers by name, and the multiply-adds of ours, twice."""

    name: str
    ours: Step
    peers: dict[str, Step]
    work: float


def seconds(step: Step, repeats: int) -> float:
    """Return the time of one call, averaged over `repeats`."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def compare(case: Case, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Return each peer's time over ours by round, and our best time; all take turns at going first."""
    steps = {"": case.ours, **case.peers}
    for step in steps.values():
        seconds(step, 3)  # traces, compiles and warms up
    repeats = {name: max(1, int(0.3 / seconds(step, 2))) for name, step in steps.items()}
    ratios: dict[str, list[float]] = {name: [] for name in case.peers}
    best = math.inf
    for number in range(rounds):
        order = list(steps)[:: 1 if number % 2 else -1]
        times = {name: seconds(steps[name], repeats[name]) for name in order}
        best = min(best, times[""])
        for name in case.peers:
            ratios[name].append(times[name] / times[""])
    return ratios, best


def layer_step(layer: Any, *x: Any) -> Step:
    """Return a compiled step: a layer's output for `x` and the gradients of its weights."""
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def step() -> list:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(*x) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    def finished() -> object:
        return step()[0].numpy()  # waits

    return finished


def attention() -> Iterator[Case]:
    """Self-attention, forward and backward."""
    import keras
    import tensorflow as tf

    from aimodels.attention import MultiHeadAttention

    for batch, steps, width, heads in ((16, 128, 128, 4), (4, 512, 128, 4), (32, 32, 256, 8)):
        x = tf.random.normal((batch, steps, width))
        ours, peer = (
            MultiHeadAttention(heads),
            keras.layers.MultiHeadAttention(heads, width // heads),
        )
        ours(x, x), peer(x, x)
        # Projections of width × width: four forward, five backward, since the input needs no
        # gradient; products of steps × steps: two forward, four backward.
        work = 2 * batch * steps * width * (9 * width + 6 * steps)
        yield Case(
            f"attention B={batch} T={steps} D={width} H={heads}",
            layer_step(ours, x, x),
            {"Keras": layer_step(peer, x, x)},
            work,
        )


def lstm() -> Iterator[Case]:
    """LSTM, all states returned, forward and backward."""
    import keras
    import tensorflow as tf

    from aimodels.lstm import LSTM

    for batch, steps, width, units in ((32, 64, 64, 128), (16, 128, 128, 256), (64, 28, 28, 64)):
        x = tf.random.normal((batch, steps, width))
        ours = LSTM(units, return_sequences=True)
        peer = keras.layers.LSTM(units, return_sequences=True)
        ours(x), peer(x)
        work = 2 * batch * steps * 4 * units * (2 * width + 3 * units)
        yield Case(
            f"LSTM B={batch} T={steps} D={width} U={units}",
            layer_step(ours, x),
            {"Keras": layer_step(peer, x)},
            work,
        )


def cnn() -> Iterator[Case]:
    """LeNet, one epoch of 40 batches: our loop against `fit`."""
    import keras
    import tensorflow as tf

    from aimodels.cnn import lenet
    from aimodels.training import make_step, train

    batch, count = 64, 40
    x = tf.random.normal((batch * count, 28, 28, 1))
    y = tf.random.uniform((batch * count,), 0, 10, tf.int32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours, peer = lenet(10), lenet(10)
    step = make_step(ours, keras.optimizers.Adam(1e-3), loss)
    peer.compile(keras.optimizers.Adam(1e-3), loss)
    data = [(x[n : n + batch], y[n : n + batch]) for n in range(0, len(x), batch)]
    pipe = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)
    # 6 kernels of 5 × 5 on 28 × 28 points, 16 of 5 × 5 × 6 on 10 × 10, dense 400-120-84-10;
    # the first layer's input needs no gradient.
    first, rest = 28 * 28 * 25 * 6, 100 * 150 * 16 + 400 * 120 + 120 * 84 + 840
    yield Case(
        f"LeNet B={batch}, {count} steps",
        lambda: train(step, iter(data), count),
        {"Keras fit": lambda: peer.fit(pipe, shuffle=False, verbose=0)},
        2 * batch * count * (2 * first + 3 * rest),
    )


def gpt() -> Iterator[Case]:
    """A training step of a GPT with AdamW."""
    import keras
    import numpy as np
    import tensorflow as tf

    from aimodels.gpt import GPT, next_token_loss
    from aimodels.training import make_step

    for batch, size in GPTS:
        ids = np.random.default_rng(0).integers(0, size.words, (batch, size.steps + 1), "int32")

        def stepped(model: Any, ids: Any = ids) -> Step:
            step = make_step(model, keras.optimizers.AdamW(1e-3), next_token_loss, jit_compile=True)
            x, y = tf.constant(ids[:, :-1]), tf.constant(ids[:, 1:])
            return lambda: step(x, y).numpy()

        peers = {}
        if keras_hub_installed():
            peers["keras-hub, our step"] = stepped(hub_model(size))
            peers["keras-hub, fit's step"] = hub_fit(size, ids)
        if torch_installed():
            peers |= torch_training(size, ids)
        yield Case(f"GPT step B={batch} {size}", stepped(GPT(*size)), peers, 3 * size.work(batch))


def products() -> Iterator[Case]:
    """The matrix products of a GPT's training step and nothing else: what is left to the library."""
    import numpy as np
    import tensorflow as tf

    for batch, size in GPTS:
        arrays = [(tf.random.normal(a), tf.random.normal(b)) for a, b in size.products(batch)]

        def multiply(arrays: Any = arrays) -> list:
            return [tf.matmul(a, b) for a, b in arrays]

        def finished(step: Callable[[], list]) -> Step:
            return lambda: np.asarray(step()[-1])  # waits

        plain, compiled = tf.function(multiply), tf.function(multiply, jit_compile=True)
        peers = {"TensorFlow, no XLA": finished(plain)}
        if torch_installed():
            peers["PyTorch"] = torch_products(arrays)
        yield Case(f"products B={batch} {size}", finished(compiled), peers, 3 * size.work(batch))


def generation() -> Iterator[Case]:
    """96 tokens one by one, each the most probable, with keys and values kept."""
    import numpy as np

    from aimodels.gpt import GPT, generate

    size, count = Size(2000, 128, 256, 8, 4), 96
    for batch in (1, 8):
        model = GPT(*size)
        ids = np.random.default_rng(0).integers(0, size.words, (batch, 32), "int32")
        peers = {}
        if keras_hub_installed():
            peers["keras-hub"] = hub_generation(size, ids)
        if torch_installed():
            peers |= torch_generation(size, ids, count)
        yield Case(
            f"{count} tokens B={batch} {size}",
            functools.partial(generate, model, ids, count),
            peers,
            size.work(batch),
        )


PARTS = {part.__name__: part for part in (attention, lstm, cnn, gpt, products, generation)}


def peak(threads: int) -> float:
    """Return the most additions and multiplications a second of a matrix product."""
    import tensorflow as tf

    matrix = tf.random.normal((1024, 1024))
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    product()
    return 2 * 1024**3 / min(seconds(lambda: product().numpy(), 5) for _ in range(5))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is at least 1, got {options.rounds}")
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    os.environ.update(runner._environment("cpu"))
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(runner.THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(runner.THREADS)
    keras.utils.set_random_seed(0)
    most = peak(runner.THREADS)
    print(f"peak {most / 1e9:.0f} GFLOP/s, {runner.THREADS} threads, {options.rounds} rounds")
    for name in ("torch", "keras_hub"):
        if not importlib.util.find_spec(name):
            print(f"{name} is not installed, so it takes no part")
    print(f"{'ours':44s} {'against':22s} {'ratio':>6s} {'from':>6s} {'to':>6s} {'of peak':>8s}")
    for name in options.parts or PARTS:
        for case in PARTS[name]():
            ratios, best = compare(case, options.rounds)
            share = case.work / best / most
            for peer, values in ratios.items():
                middle = statistics.median(values)
                line = f"{case.name:44s} {peer:22s} {middle:6.2f} {min(values):6.2f}"
                print(f"{line} {max(values):6.2f} {share:8.0%}", flush=True)


if __name__ == "__main__":
    _main()
