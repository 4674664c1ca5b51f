"""Why we believe aimodels.distributed: it equals one device, or it says why not."""

import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import keras
import kubernetes_validate
import numpy as np
import pytest
import tensorflow as tf
import yaml
from keras import layers
from kubeflow_trainer_api import models as trainer
from tensorflow.experimental import dtensor

from aimodels.distributed import (
    devices,
    job_config,
    launch,
    make_parallel_step,
    memory,
    mirrored,
    ring_all_reduce,
    shares,
    split_network,
    tf_config,
)

ROOT = Path(__file__).parents[1]


def rng(seed=0):
    return np.random.default_rng(seed)


# --- What is exchanged ---------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "parts"), [(1, 1), (5, 5), (7, 3), (64, 4), (11, 4)])
def test_shares_cover_all_in_order_and_differ_by_one_at_most(total, parts):
    cut = shares(total, parts)
    np.testing.assert_array_equal(
        np.concatenate([np.arange(total)[s] for s in cut]), np.arange(total)
    )
    sizes = [s.stop - s.start for s in cut]
    assert len(cut) == parts
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("workers", "length"), [(1, 1), (2, 2), (2, 9), (3, 7), (5, 5), (8, 101)])
def test_the_ring_gives_the_sum_to_every_worker(workers, length, seed):
    vectors = rng(seed).integers(-1000, 1000, (workers, length))
    kept = vectors.copy()
    everywhere, sent = ring_all_reduce(vectors)
    np.testing.assert_array_equal(everywhere, np.tile(kept.sum(0), (workers, 1)))
    np.testing.assert_array_equal(vectors, kept)
    assert sent.sum() == 2 * (workers - 1) * length


def test_in_the_ring_each_worker_sends_two_vectors_less_two_pieces():
    _, sent = ring_all_reduce(np.ones((4, 12)))
    np.testing.assert_array_equal(sent, [18] * 4)


def test_the_ring_rounds_alike_everywhere():
    vectors = rng().normal(size=(7, 1000)).astype("float32")
    everywhere, _ = ring_all_reduce(vectors)
    assert everywhere.dtype == np.float32
    assert (everywhere == everywhere[0]).all()
    np.testing.assert_allclose(everywhere[0], vectors.astype("float64").sum(0), atol=1e-5)


def test_a_number_that_is_none_reaches_all():
    vectors = np.ones((3, 5))
    vectors[1, 2] = np.nan
    everywhere, _ = ring_all_reduce(vectors)
    assert np.isnan(everywhere[:, 2]).all()
    assert np.isfinite(np.delete(everywhere, 2, 1)).all()


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_the_parts_of_a_split_network_add_up_to_the_whole(parts):
    draw = rng().normal
    x, w1, b1, w2 = draw(size=(4, 3)), draw(size=(3, 5)), draw(size=5), draw(size=(5, 2))
    found = split_network(x, w1, b1, w2, parts)
    assert found.shape == (parts, 4, 2)
    np.testing.assert_allclose(found.sum(0), np.maximum(x @ w1 + b1, 0) @ w2)


def test_memory_is_that_of_the_paper():
    found = [round(memory(7_500_000_000, 64, stage) / 1e9, 1) for stage in range(4)]
    assert found == [120.0, 31.4, 16.6, 1.9]
    assert {memory(10, 1, stage) for stage in range(4)} == {160}


# --- One step on all devices: in a process with four devices, beside one device here --------------


def cross_entropy(y, z):
    return keras.losses.sparse_categorical_crossentropy(y, z, from_logits=True)


def setting(name):
    """Return layers and an optimizer of a name, and the rows of a batch."""
    sgd, adam = keras.optimizers.SGD, keras.optimizers.Adam
    optimizer = {
        "sgd": lambda: sgd(0.5, momentum=0.9),
        "adam": lambda: adam(0.01),
        "decay": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
        "half": lambda: keras.optimizers.LossScaleOptimizer(sgd(0.5), initial_scale=64.0),
        "overflow": lambda: keras.optimizers.LossScaleOptimizer(sgd(0.5), initial_scale=2.0**16),
    }.get(name, lambda: sgd(0.5))
    dtype = "mixed_float16" if name in ("half", "overflow") else "float32"
    penalty = None if name in ("half", "overflow", "whole") else keras.regularizers.L2(0.01)
    inner = [
        layers.Dense(7, "relu", kernel_regularizer=penalty, dtype=dtype),
        layers.Dense(3, dtype=dtype),
    ]
    if name == "norm":
        inner.insert(1, layers.BatchNormalization(synchronized=True))
    return inner, optimizer(), 5 if name == "unequal" else 12


NAMES = ("sgd", "adam", "decay", "unequal", "norm", "half", "overflow")


def learned(strategy, name):
    """Return losses of three steps and all weights after them."""
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(12, 5)).astype("float32"), draw.integers(3, size=12)
    if name == "overflow":
        x[9] *= 50  # never on the first of several replicas; too much for the first two steps
    with strategy.scope():
        keras.utils.set_random_seed(0)
        inner, optimizer, rows = setting(name)
        model = keras.Sequential([keras.Input((5,)), *inner])
    step = make_parallel_step(strategy, model, optimizer, cross_entropy)
    losses = [float(step(x[:rows], y[:rows])) for _ in range(3)]
    weights = [keras.ops.convert_to_tensor(v).numpy().ravel() for v in model.weights]
    return np.concatenate([losses, *weights])


def network_gradient(x, y, weights):
    with tf.GradientTape() as tape:
        tape.watch(weights)
        w1, b1, w2 = weights
        z = tf.nn.relu(x @ w1 + b1) @ w2
        value = tf.reduce_mean(tf.square(z - y))
    return (value, *tape.gradient(value, weights))


def network_data():
    draw = np.random.default_rng(2).normal
    sizes = ((8, 6), (8, 4), (6, 12), (12,), (12, 4))
    return [draw(size=size).astype("float32") for size in sizes]


CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
MESHES = ((1, 4), (2, 2), (4, 1))
CUTS = (("rows", None), ("rows", None), (None, "units"), ("units",), ("units", None))


def on_four_devices(path):
    """Run in a process of its own: write what several devices make of everything above."""
    from aimodels.distributed import collect, place

    names, found = devices(4), {}
    found["names"] = names
    for count in (1, 2, 3, 4):
        for name in NAMES:
            found[f"{name} {count}"] = learned(mirrored(names[:count]), name)
    for shape in MESHES:
        mesh = dtensor.create_mesh([("rows", shape[0]), ("units", shape[1])], devices=names)
        x, y, *weights = [
            place(array, mesh, *cut) for array, cut in zip(network_data(), CUTS, strict=True)
        ]
        found[f"pieces {shape}"] = [
            dtensor.unpack(t)[0].shape.as_list()[0] for t in (x, weights[1])
        ]
        results = tf.function(network_gradient, autograph=False)(x, y, weights)
        for index, tensor in enumerate(results):
            found[f"mesh {shape} {index}"] = collect(tensor)
    two = mirrored(names[:2])
    for label, call in {
        "more": lambda: devices(5),
        **{
            word: lambda word=word: make_parallel_step(
                two, *made(two, **{word: 1.0}), cross_entropy
            )
            for word in CLIPS
        },
        "few": lambda: make_parallel_step(two, *made(two), cross_entropy)(
            np.ones((1, 5)), np.ones(1)
        ),
    }.items():
        try:
            call()
        except (ValueError, RuntimeError) as error:
            found[label] = f"{type(error).__name__}: {error}"
    np.savez(path, **found)


def made(strategy, **words):
    with strategy.scope():
        model = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
        return model, keras.optimizers.SGD(0.1, **words)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    path = tmp_path_factory.mktemp("four") / "found.npz"
    code = f"""
        import importlib.util, sys
        spec = importlib.util.spec_from_file_location("these", {__file__!r})
        these = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(these)
        these.on_four_devices({str(path)!r})
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment)
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("name", NAMES)
def test_replicas_learn_what_one_device_learns(four, name):
    alone = learned(tf.distribute.get_strategy(), name)
    assert np.isfinite(alone).all()
    for count in (1, 2, 3, 4):
        within = 2e-2 if name in ("half", "overflow") else 2e-5
        np.testing.assert_allclose(four[f"{name} {count}"], alone, atol=within)


@pytest.mark.parametrize("name", ["adam", "norm"])
def test_the_parallel_step_is_that_of_the_training_page_on_one_device(name):
    from aimodels.training import make_step

    def mean(y, z):
        return keras.ops.mean(cross_entropy(y, z))

    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(12, 5)).astype("float32"), draw.integers(3, size=12)
    keras.utils.set_random_seed(0)
    inner, optimizer, _ = setting(name)
    model = keras.Sequential([keras.Input((5,)), *inner])
    step = make_step(model, optimizer, mean)
    losses = [float(step(x, y)) for _ in range(3)]
    np.testing.assert_allclose(learned(tf.distribute.get_strategy(), name)[:3], losses, atol=1e-6)


def test_scaling_the_loss_in_half_precision_changes_no_update():
    one = tf.distribute.get_strategy()
    np.testing.assert_allclose(learned(one, "half"), learned(one, "whole"), atol=0.02)


def test_in_the_test_of_an_overflow_two_updates_are_skipped_and_the_third_is_made():
    first, second, third, *_, bias = learned(tf.distribute.get_strategy(), "overflow")
    assert first == second == third
    assert bias != 0  # it was, before the first update


@pytest.mark.parametrize("shape", MESHES)
def test_a_mesh_gives_loss_and_gradients_of_one_device(four, shape):
    x, y, *weights = map(tf.constant, network_data())
    for index, wanted in enumerate(network_gradient(x, y, weights)):
        np.testing.assert_allclose(four[f"mesh {shape} {index}"], wanted.numpy(), atol=1e-6)
    assert four[f"pieces {shape}"].tolist() == [8 // shape[0], 12 // shape[1]]


def test_parts_of_the_cpu_are_devices_and_are_not_more_than_asked_for(four):
    assert [str(name)[-5:] for name in four["names"]] == [f"CPU:{i}" for i in range(4)]
    assert str(four["more"]).startswith("RuntimeError: count must be at most 4, as TensorFlow has")


def test_what_would_not_equal_one_device_is_refused(four):
    words = "ValueError: optimizer must not clip on 2 replicas; received"
    assert [str(four[word]) for word in CLIPS] == [f"{words} {word}" for word in CLIPS]
    words = "ValueError: x and y must have one length from 2; received 1 and 1"
    assert str(four["few"]) == words


def test_one_device_may_clip():
    one = tf.distribute.get_strategy()
    step = make_parallel_step(one, *made(one, global_clipnorm=1.0), cross_entropy)
    assert np.isfinite(float(step(np.ones((2, 5), "float32"), np.ones(2))))


# --- Worker processes ----------------------------------------------------------------------------


def program(folder, function):
    """Write a file that calls the function with the number of the worker."""
    path = folder / f"{function.__name__}.py"
    lines = [
        "import json, os, signal, sys, time",
        inspect.getsource(function),
        'me = json.loads(os.environ["TF_CONFIG"])["task"]["index"]',
        f"{function.__name__}(me, *sys.argv[1:])",
    ]
    path.write_text("\n".join(lines), "utf-8")
    return path


def tell(me, word):
    config = json.loads(os.environ["TF_CONFIG"])
    print(me, word, *config["cluster"]["worker"], os.environ["CUDA_VISIBLE_DEVICES"])
    print("aside", file=sys.stderr)


def test_workers_know_themselves_and_the_others(tmp_path):
    ends = launch(program(tmp_path, tell), 3, "hello")
    assert [(end.code, end.killed) for end in ends] == [(0, False)] * 3
    words = [end.said.split() for end in ends]
    assert [w[:2] for w in words] == [[str(i), "hello"] for i in range(3)]
    hosts = {tuple(w[2:5]) for w in words}
    assert len(hosts) == 1
    assert len(set(hosts.pop())) == 3
    assert all(w[5:] == ["-1", "aside"] for w in words)


def fail(me):
    if me == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0 if me else 60)
    raise SystemExit(3)


def test_who_waits_for_the_dead_is_killed_after_a_while(tmp_path):
    waiting, dead, failed = launch(program(tmp_path, fail), 3, patience=1.0)
    assert (dead.code, dead.killed) == (-signal.SIGKILL, False)
    assert (failed.code, failed.killed) == (3, False)
    assert (waiting.code, waiting.killed) == (-signal.SIGKILL, True)
    assert waiting.seconds > 0.9


def end_well(me):
    time.sleep(2 * me)


def test_who_works_on_when_another_has_ended_well_is_left_alone(tmp_path):
    ends = launch(program(tmp_path, end_well), 2, patience=0.5)
    assert [(end.code, end.killed) for end in ends] == [(0, False)] * 2


def hang(me):
    time.sleep(60)


def test_nobody_runs_beyond_the_limit(tmp_path):
    ends = launch(program(tmp_path, hang), 2, limit=1.0)
    assert all(end.killed and end.code == -signal.SIGKILL for end in ends)


def collective(me, path, dies):
    import numpy as np
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    import keras

    from aimodels.distributed import make_parallel_step

    with strategy.scope():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
        model.set_weights([np.zeros((5, 1)), np.zeros(1)])
        optimizer = keras.optimizers.SGD(1.0)

    def loss(y, z):
        return keras.ops.square(z[:, 0] - y)

    step = make_parallel_step(strategy, model, optimizer, loss)
    x = np.arange(35, dtype="float32").reshape(7, 5) / 35
    value = float(step(x, x[:, 0]))
    np.savez(f"{path}.{me}.npz", value, *map(keras.ops.convert_to_tensor, model.weights))
    if dies == "1" and me == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    for _ in range(3):
        step(x, x[:, 0])


def test_two_processes_take_the_step_of_one_and_one_without_the_other_fails(tmp_path):
    ends = launch(program(tmp_path, collective), 2, tmp_path / "state", 1)
    survivor, dead = ends
    assert dead.code == -signal.SIGKILL
    assert survivor.code not in (0, None)
    assert not survivor.killed
    assert "errors_impl" in survivor.said
    x = np.arange(35, dtype="float32").reshape(7, 5) / 35
    slope, bias = 2 * x.T @ x[:, 0] / 7, 2 * x[:, 0].mean()
    for me in (0, 1):  # unequal shares: 4 rows and 3
        with np.load(tmp_path / f"state.{me}.npz") as file:
            np.testing.assert_allclose(file["arr_0"], (x[:, 0] ** 2).mean(), rtol=1e-5)
            np.testing.assert_allclose(file["arr_1"][:, 0], slope, rtol=1e-5)
            np.testing.assert_allclose(file["arr_2"], [bias], rtol=1e-5)


def overflow(me, path):
    import numpy as np
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    import keras

    from aimodels.distributed import make_parallel_step

    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.set_weights([np.ones((1, 1)), np.zeros(1)])
        inner = keras.optimizers.SGD(1.0)
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0)

    def loss(y, z):
        return z[:, 0] * y

    step = make_parallel_step(strategy, model, optimizer, loss)
    bad, good = np.array([1, np.inf], "float32"), np.array([1, 3], "float32")
    for y in (bad, good):  # the second row belongs to worker 1
        step(np.ones((2, 1), "float32"), y)
    np.savez(f"{path}.{me}.npz", *map(keras.ops.convert_to_tensor, model.weights))


def test_an_overflow_on_one_process_skips_the_update_on_both(tmp_path):
    ends = launch(program(tmp_path, overflow), 2, tmp_path / "state", limit=100.0)
    assert [end.code for end in ends] == [0, 0], ends[0].said
    for me in (0, 1):  # one update of length 2, the mean of 1 and 3
        with np.load(tmp_path / f"state.{me}.npz") as file:
            np.testing.assert_allclose(file["arr_0"], [[-1.0]])
            np.testing.assert_allclose(file["arr_1"], [-2.0])


def test_the_configuration_is_what_tensorflow_reads(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(["a:1", "b:2"], 1))
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert resolver.cluster_spec().as_dict() == {"worker": ["a:1", "b:2"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


# --- The cluster ---------------------------------------------------------------------------------


def manifests():
    page = ROOT / "docs" / "en" / "distributed.md"
    texts = re.findall(r"``` \{ \.yaml [^\n]*\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert len(texts) == 2
    return [list(yaml.safe_load_all(text)) for text in texts]


def as_read(thing):
    """Return what Trainer's own model of a kind keeps: it drops names that it does not know."""
    model = getattr(trainer, f"TrainerV1alpha1{thing['kind']}")
    return model.from_dict(thing).to_dict()


def test_the_files_for_a_cluster_are_valid():
    (service, job), (runtime, train) = manifests()
    for one in (service, job):
        kubernetes_validate.validate(one, "1.35", strict=True)
    for one in (runtime, train):
        assert as_read(one) == one
    pod = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    standing = {"restartPolicy": "Never"} | pod["spec"]
    alone = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, "spec": standing}
    kubernetes_validate.validate(alone, "1.35", strict=True)


def test_a_wrong_name_in_a_file_would_be_noticed():
    (_, job), (runtime, train) = manifests()
    job["spec"]["completion"] = 4
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.35", strict=True)
    train["spec"]["trainer"]["nodes"] = 4
    assert as_read(train) != train
    runtime["spec"]["template"]["spec"]["failurePolicy"]["restarts"] = 1
    assert as_read(runtime) != runtime
    train["spec"]["trainer"]["numNodes"] = "4"
    with pytest.raises(ValueError, match="numNodes"):
        as_read(train)


def test_pods_of_both_files_find_each_other():
    (service, job), (runtime, train) = manifests()
    pod = job["spec"]["template"]["spec"]
    box = pod["containers"][0]
    (port,) = box["ports"]
    workers = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == workers
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert service["spec"]["ports"][0]["port"] == port["containerPort"]
    names = {
        # Kubernetes: $(job-name)-$(index).subdomain; JobSet: job set, replicated job, job, index.
        f"{job['metadata']['name']}-{{}}.{pod['subdomain']}": (box, workers),
        "{0}-{1}-0-{{}}.{0}".format(
            train["metadata"]["name"],
            runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["name"],
        ): (train["spec"]["trainer"], train["spec"]["trainer"]["numNodes"]),
    }
    assert train["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    for name, (holder, count) in names.items():
        environment = {one["name"]: one["value"] for one in holder["env"]}
        for index in range(count):
            config = json.loads(job_config(environment | {"JOB_COMPLETION_INDEX": str(index)}))
            wanted = [f"{name.format(i)}:{port['containerPort']}" for i in range(count)]
            assert config["cluster"] == {"worker": wanted}
            assert config["task"] == {"type": "worker", "index": index}


def test_a_pod_alone_makes_its_configuration_and_trains(tmp_path):
    """What the page's program does in a pod, with one worker, so that no other is needed."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = str(door.getsockname()[1])
    code = """
        import os
        from aimodels.distributed import job_config
        os.environ["TF_CONFIG"] = job_config(os.environ)
        import tensorflow as tf
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        assert strategy.cluster_resolver.task_id == 0
        print(strategy.num_replicas_in_sync)
    """
    environment = {name: text for name, text in os.environ.items() if name != "TF_CONFIG"}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "-1",
        "JOB_COMPLETION_INDEX": "0",
        "WORKERS": "1",
        "WORKER_ADDRESS": f"127.0.0.1:{port[:-1]}{{}}",
    }
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


# --- What is wrong is named ----------------------------------------------------------------------

POD = {"JOB_COMPLETION_INDEX": "1", "WORKERS": "2", "WORKER_ADDRESS": "a-{}:1"}


def other_scope():
    one = tf.distribute.OneDeviceStrategy("/cpu:0")
    model, optimizer = made(tf.distribute.get_strategy())
    return make_parallel_step(one, model, optimizer, cross_entropy)


def other_optimizer():
    one = tf.distribute.OneDeviceStrategy("/cpu:0")
    model, _ = made(one)
    return make_parallel_step(one, model, keras.optimizers.SGD(0.1), cross_entropy)


def stepped(loss, x, y):
    one = tf.distribute.get_strategy()
    return make_parallel_step(one, *made(one), loss)(x, y)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shares(2, 3), "total must be a whole number from 3; received 2"),
        (lambda: shares(2, 0), "parts must be a whole number from 1; received 0"),
        (lambda: ring_all_reduce([1.0]), r"shape \[n, D\], D at least n; received \(1,\)"),
        (lambda: ring_all_reduce(np.ones((3, 2))), r"D at least n; received \(3, 2\)"),
        (lambda: ring_all_reduce(np.ones((0, 2))), r"D at least n; received \(0, 2\)"),
        (
            lambda: split_network(*map(np.ones, ((1, 2), (2, 3), 3, (3, 1))), 4),
            "total must be a whole number from 4; received 3",
        ),
        (lambda: memory(0, 1, 0), "parameters must be a whole number from 1; received 0"),
        (lambda: memory(1, 0.5, 0), "devices must be a whole number from 1; received 0.5"),
        (lambda: memory(1, 1, 4), "stage must be a whole number from 0 to 3; received 4"),
        (lambda: devices(0), "count must be a whole number from 1; received 0"),
        (other_scope, "must be made in the strategy's scope; kernel was not"),
        (other_optimizer, "must be made in the strategy's scope; iteration was not"),
        (
            lambda: stepped(cross_entropy, np.ones((2, 5)), np.ones(3)),
            "x and y must have one length from 1; received 2 and 3",
        ),
        (
            lambda: stepped(lambda y, z: keras.ops.mean(z), np.ones((2, 5)), np.ones(2)),
            r"loss must return \[rows\]; received shape \(\)",
        ),
        (lambda: tf_config([], 0), r"hosts must be one or more, all different; received \[\]"),
        (lambda: tf_config(["a:1", "a:1"], 0), "all different; received"),
        (lambda: tf_config(["a:1"], 1), "index must be a whole number from 0 to 0; received 1"),
        (lambda: job_config({}), "environment must set .* received no JOB_COMPLETION_INDEX"),
        (lambda: job_config(POD | {"WORKERS": ""}), "environment must set .* received no WORKERS"),
        (lambda: job_config(POD | {"WORKERS": "x"}), "two whole numbers and an address with {}"),
        (lambda: job_config(POD | {"WORKER_ADDRESS": "a:1"}), "received '1', '2', 'a:1'"),
        (
            lambda: job_config(POD | {"JOB_COMPLETION_INDEX": "2"}),
            "index must be a whole number from 0 to 1; received 2",
        ),
        (lambda: launch("nowhere.py", 1), "program must be a file; received nowhere.py"),
        (lambda: launch(__file__, 0), "workers must be a whole number from 1; received 0"),
        (lambda: launch(__file__, 1, patience=-1), "must not be negative; received -1, 240"),
        (lambda: launch(__file__, 1, limit=0), "must not be negative; received 30.0, 0"),
    ],
)
def test_what_is_wrong_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
