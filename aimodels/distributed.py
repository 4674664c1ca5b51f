"""Training on several devices: what they exchange, one step on all of them, and worker processes.

Axes: B rows of a batch, D width, E hidden width; n devices, replicas or workers.
"""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.experimental import dtensor

from aimodels.training import check_whole

ROOT = Path(__file__).parents[1]


class Ended(NamedTuple):
    """How a worker ended: its exit code, minus the signal if one killed it; when; what it printed.

    `seconds` count from the moment at which the first worker ended. `killed` is True where the
    launcher ended it.
    """

    code: int
    seconds: float
    said: str
    killed: bool


# --- What is exchanged ---------------------------------------------------------------------------


def shares(total, parts):
    """Return `parts` slices that cut 0 to `total` into pieces as equal as can be, larger ones first."""
    check_whole("parts", parts, 1)
    check_whole("total", total, parts)
    ends = [total // parts * i + min(i, total % parts) for i in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def ring_all_reduce(vectors):
    """Return the sum of n vectors, as each of n workers in a ring has it in the end.

    Each vector is cut into n pieces. In n - 1 steps each worker sends one piece to its right
    neighbour, which adds it to its own; then each piece is whole at one worker. In n - 1 more
    steps the whole pieces go round.

    Args:
        vectors: `[n, D]`, one of each worker; D at least n.

    Returns:
        `[n, D]`, all rows equal; and `[n]`, how many numbers each worker has sent.

    Source: Patarasuk and Yuan 2009, <https://doi.org/10.1016/j.jpdc.2008.09.002>.
    """
    held = np.array(vectors)
    if held.ndim != 2 or not 1 <= held.shape[0] <= held.shape[1]:
        raise ValueError(f"vectors must have shape [n, D], D at least n; received {held.shape}")
    n = len(held)
    pieces, sent = shares(held.shape[1], n), np.zeros(n, int)
    for step in range(2 * (n - 1)):
        for worker in range(n):  # no piece that is written here is sent in the same step
            piece, right = pieces[(worker - step) % n], (worker + 1) % n
            adding = step < n - 1
            held[right, piece] = held[worker, piece] + (held[right, piece] if adding else 0)
            sent[worker] += piece.stop - piece.start
    return held, sent


def split_network(x, w1, b1, w2, parts):
    """Return what each device computes of relu(x w1 + b1) w2, with the hidden units shared out.

    A device holds some columns of w1 and b1 and the same rows of w2. The sum of the parts is the
    output; no device needs to know another's hidden units.

    Args:
        x: `[B, D]`.
        w1: `[D, E]`.
        b1: `[E]`.
        w2: `[E, D']`.
        parts: n, from 1 to E.

    Returns:
        `[n, B, D']`.

    Source: Shoeybi et al. 2019, section 3, <https://arxiv.org/abs/1909.08053>.
    """
    own = shares(w1.shape[1], parts)
    return np.stack([np.maximum(x @ w1[:, e] + b1[e], 0) @ w2[e] for e in own])


def memory(parameters, devices, stage):
    """Return the bytes that a device holds of a model trained with Adam in half precision.

    A parameter needs 2 bytes, its gradient 2, and the optimizer 12: a copy in float32 and two
    moments. Activations come on top.

    Args:
        parameters: how many, from 1.
        devices: n, from 1.
        stage: what is shared out: 0 nothing, 1 the optimizer's part, 2 gradients too, 3 all.

    Source: Rajbhandari et al. 2020, figure 1, <https://arxiv.org/abs/1910.02054>.
    """
    check_whole("parameters", parameters, 1)
    check_whole("devices", devices, 1)
    check_whole("stage", stage, 0, 3)
    each = zip((12, 2, 2), (1, 2, 3), strict=True)
    return parameters * sum(b / (devices if stage >= first else 1) for b, first in each)


# --- One step on all devices ---------------------------------------------------------------------


def devices(count):
    """Return the names of `count` devices: GPUs if there are as many, else parts of the CPU.

    Parts of the CPU are devices in name: they share its cores. TensorFlow divides it only before
    its first computation, so call this first.

    Raises:
        RuntimeError: TensorFlow has started with fewer.
    """
    check_whole("count", count, 1)
    if len(tf.config.list_physical_devices("GPU")) >= count:
        return [device.name for device in tf.config.list_logical_devices("GPU")[:count]]
    with contextlib.suppress(RuntimeError):  # started, perhaps with enough
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration() for _ in range(count)],
        )
    found = [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(found) < count:
        raise RuntimeError(
            f"count must be at most {len(found)}, as TensorFlow has started; received {count}"
        )
    return found[:count]


def mirrored(names):
    """Return a strategy with a copy of the model on each of the named devices.

    GPUs add up their gradients by NCCL's all-reduce; parts of the CPU at one of them, since
    TensorFlow's all-reduce between them allows only one group of devices in a process.
    """
    on_gpus = all("GPU" in name for name in names)
    how = None if on_gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=how)


def make_parallel_step(strategy, model, optimizer, loss):
    """Return `step(x, y)` for `training.train`: one update from the rows of a batch, shared out.

    Each replica gets a share of the rows and computes loss and gradients of the sum over them,
    divided by all rows B. Keras' optimizers add up the gradients of all replicas themselves.
    With a `LossScaleOptimizer`, an overflow on one replica makes all of them skip the update.

    Layers that draw random numbers, as dropout, draw others than on one device.

    Args:
        strategy: a `tf.distribute.Strategy`, the default one included.
        model: a built Keras model, made in the strategy's scope.
        optimizer: a Keras optimizer, made there as well.
        loss: function of targets and outputs that returns one number a row.

    Returns:
        Function of x `[B, ...]` and y `[B, ...]`, the whole batch on every worker; it returns the
        mean loss before the update. B is at least the number of replicas.

    Raises:
        ValueError: model or optimizer of another strategy; an optimizer that clips, which Keras
            does to each replica's part and not to their sum; at a step, too few rows, x and y of
            different lengths, or not one loss a row.
    """
    if not optimizer.built:
        with strategy.scope():
            optimizer.build(model.trainable_variables)
    for variable in (*model.variables, *optimizer.variables):
        if not strategy.extended.variable_created_in_scope(variable.value):
            raise ValueError(
                f"model and optimizer must be made in the strategy's scope; {variable.name} was not"
            )
    variables, replicas = model.trainable_variables, strategy.num_replicas_in_sync
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    clips = [n for n in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(inner, n)]
    if clips and replicas > 1:
        raise ValueError(f"optimizer must not clip on {replicas} replicas; received {clips[0]}")

    def agreed(gradients):  # the optimizer asks each replica alone whether its part is finite
        overflow = tf.cast(tf.logical_not(optimizer.check_finite(gradients)), tf.float32)
        anywhere = tf.distribute.get_replica_context().all_reduce("sum", overflow) > 0
        spoilt = tf.where(anywhere, np.nan, 0.0)
        return [g if g is None else tf.add(g, tf.cast(spoilt, g.dtype)) for g in gradients]

    def replica_step(x, y, rows):
        with tf.GradientTape() as tape:
            each = tf.convert_to_tensor(loss(y, model(x, training=True)))
            if each.shape.rank != 1:
                raise ValueError(f"loss must return [rows]; received shape {each.shape}")
            value = tf.reduce_sum(each) / tf.cast(rows, each.dtype)
            for extra in model.losses:
                value += tf.cast(tf.reduce_sum(extra), value.dtype) / replicas
            scaled = optimizer.scale_loss(value)
        gradients = tape.gradient(scaled, variables)
        if inner is not optimizer and replicas > 1:
            gradients = agreed(gradients)
        optimizer.apply(gradients, variables)
        return value

    @tf.function(autograph=False)
    def run(x, y, rows):
        return strategy.reduce("SUM", strategy.run(replica_step, (x, y, rows)), axis=None)

    def step(x, y):
        if len(x) != len(y) or len(x) < replicas:
            raise ValueError(
                f"x and y must have one length from {replicas}; received {len(x)} and {len(y)}"
            )
        own = shares(len(x), replicas)

        def give(array):
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.convert_to_tensor(array[own[context.replica_id_in_sync_group]])
            )

        return run(give(x), give(y), tf.constant(len(x)))

    return step


def place(array, mesh, *axes):
    """Return an array spread over a mesh of devices, as a DTensor.

    Args:
        array: any shape.
        mesh: a `dtensor.Mesh`.
        axes: for each axis of the array the name of an axis of the mesh that cuts it, or None.
            Devices along an axis that is not named hold copies.
    """
    names = [axis or dtensor.UNSHARDED for axis in axes]
    whole = dtensor.Layout.replicated(mesh, np.ndim(array))
    return dtensor.relayout(dtensor.copy_to_mesh(array, whole), dtensor.Layout(names, mesh))


def collect(tensor):
    """Return a DTensor as one NumPy array."""
    whole = dtensor.Layout.replicated(dtensor.fetch_layout(tensor).mesh, tensor.shape.rank)
    return dtensor.relayout(tensor, whole).numpy()


# --- Worker processes ----------------------------------------------------------------------------


def tf_config(hosts, index):
    """Return what TensorFlow reads from the variable TF_CONFIG: who takes part, and who I am.

    Args:
        hosts: `host:port` of each worker, in the same order for all.
        index: which of them this process is, from 0.
    """
    if not hosts or len(set(hosts)) != len(hosts):
        raise ValueError(f"hosts must be one or more, all different; received {list(hosts)}")
    check_whole("index", index, 0, len(hosts) - 1)
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(hosts)}, "task": task})


def job_config(environment):
    """Return TF_CONFIG for a pod of an indexed Job of Kubernetes.

    Args:
        environment: mapping with JOB_COMPLETION_INDEX, which Kubernetes sets, and from the file
            of the Job WORKERS, how many, and WORKER_ADDRESS with `{}` in place of the index.
    """
    needed = ("JOB_COMPLETION_INDEX", "WORKERS", "WORKER_ADDRESS")
    missing = [name for name in needed if not environment.get(name)]
    if missing:
        raise ValueError(f"environment must set {', '.join(needed)}; received no {missing[0]}")
    index, workers, address = (environment[name] for name in needed)
    if not (index.isdecimal() and workers.isdecimal() and "{}" in address):
        raise ValueError(
            "environment must hold two whole numbers and an address with {};"
            f" received {index!r}, {workers!r}, {address!r}"
        )
    return tf_config([address.format(i) for i in range(int(workers))], int(index))


def launch(program, workers, *arguments, patience=30.0, limit=240.0):
    """Run a Python program in `workers` processes on this machine, and wait for all.

    Each gets TF_CONFIG with free ports, and no GPU. If one fails, the others have `patience`
    seconds to notice; whoever still runs then, or after `limit` seconds in all, is killed.

    Args:
        program: path of the file.
        workers: how many, from 1.
        arguments: for the program, made to text.
        patience: seconds, 0 or more.
        limit: seconds, above 0.

    Returns:
        `workers` times Ended.
    """
    check_whole("workers", workers, 1)
    if not Path(program).is_file():
        raise ValueError(f"program must be a file; received {program}")
    if not (patience >= 0 and limit > 0):
        raise ValueError(f"patience and limit must not be negative; received {patience}, {limit}")
    with contextlib.ExitStack() as stack:
        doors = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(workers)
        ]
        hosts = [f"127.0.0.1:{door.getsockname()[1]}" for door in doors]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    settings = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, str(program), *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in hosts]
        running = [
            subprocess.Popen(
                command,
                env=settings | {"TF_CONFIG": tf_config(hosts, index)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            for index, file in enumerate(said)
        ]
        for process in running:
            stack.callback(process.wait)
            stack.callback(process.kill)
        started, ended, killed = time.monotonic(), dict[int, float](), set[int]()
        while len(ended) < workers:
            now = time.monotonic()
            for index in set(range(workers)) - set(ended):
                if running[index].poll() is not None:
                    ended[index] = now
            first = min((at for i, at in ended.items() if running[i].returncode), default=now)
            if now - first > patience or now - started > limit:
                for index in set(range(workers)) - set(ended):
                    killed.add(index)
                    running[index].kill()
            time.sleep(0.02)
        results = []
        for index, process in enumerate(running):
            said[index].seek(0)
            seconds = ended[index] - min(ended.values())
            results.append(Ended(process.returncode, seconds, said[index].read(), index in killed))
    return results
