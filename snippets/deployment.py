# --8<-- [start:tail]
import numpy as np

slow = 0.01
for servers in (1, 10, 100):
    print(f"{servers:3} servers: {1 - (1 - slow) ** servers:.3f}")
# --8<-- [end:tail]

# --8<-- [start:simulate]
import matplotlib.pyplot as plt


def simulate(arrivals, most, wait, fixed=0.6, each=0.02):
    free, i, latencies = 0.0, 0, []
    while i < len(arrivals):
        ready = max(free, arrivals[i])
        last = i + most - 1
        full = arrivals[last] if last < len(arrivals) else np.inf
        start = max(ready, min(arrivals[i] + wait, full))  # (1)!
        there = np.searchsorted(arrivals, start, side="right")
        end = min(there, i + most)
        free = start + fixed + each * (end - i)
        latencies.extend(free - arrivals[i:end])
        i = end
    return np.array(latencies)


settings = {
    "one by one": {"most": 1, "wait": 0},
    "batches, wait 0 ms": {"most": 32, "wait": 0},
    "batches, wait 5 ms": {"most": 32, "wait": 5},
}
rng = np.random.default_rng(0)
gaps = rng.exponential(size=20_000)  # (2)!
rates = (100, 500, 1000, 1400, 3000, 8000)
figure, ax = plt.subplots(figsize=(6.4, 3.2))
for name, setting in settings.items():
    p99 = []
    for rate in rates:
        arrivals = np.cumsum(gaps) * 1000 / rate
        p99.append(np.quantile(simulate(arrivals, **setting), 0.99))
    print(f"{name:18}", "".join(f"{value:8.1f}" for value in p99))
    ax.plot(rates, p99, marker="o", label=name)
ax.set(xscale="log", yscale="log", ylim=(0.5, 200))
ax.set(xlabel="requests per second", ylabel="p99 in milliseconds")
ax.legend()
# --8<-- [end:simulate]

# --8<-- [start:protocol]
import requests

from aimodels.deployment import Model, application, serve

half = Model(lambda x: x / 2 + 3, shape=())  # (1)!
body = '{"instances": [1.0,2.0,5.0]}'
with serve(application({"half_plus_three": {123: half}})) as url:
    known = f"{url}/v1/models/half_plus_three"
    print(requests.post(f"{known}:predict", data=body).text)
    print(requests.get(known).json())
    wrong = requests.post(f"{url}/v1/models/half:predict", data=body)
    print(wrong.status_code, wrong.text)
# --8<-- [end:protocol]

# --8<-- [start:train]
import keras

from aimodels.cnn import lenet
from aimodels.datasets import fashion_mnist
from aimodels.training import batches, make_step, train

(images, labels), (test_images, test_labels) = fashion_mnist()


def scaled(images):
    return np.round(images[..., None] / 255, 4).astype("float32")  # (1)!


x, x_test = scaled(images[:10_000]), scaled(test_images)
keras.utils.set_random_seed(0)
model = lenet(10)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
step = make_step(model, keras.optimizers.Adam(0.003), loss)
stream = batches((x, labels[:10_000]), 64, seed=0)


def accuracy(logits):
    return np.mean(np.argmax(logits, axis=1) == test_labels[: len(logits)])


answers = {}  # (2)!
weights = {}
for version in (1, 2):
    train(step, stream, steps=200)
    answers[version] = model.predict(x_test[:2000], verbose=0)
    weights[version] = model.get_weights()
    print(f"version {version}: accuracy {accuracy(answers[version]):.2f}")
# --8<-- [end:train]

# --8<-- [start:export]
import json
import tempfile
import warnings
from pathlib import Path

home = tempfile.TemporaryDirectory()
root = Path(home.name) / "lenet"
FORMATS = {  # version: name, what `export` calls it, file
    2: ("SavedModel", "tf_saved_model", ""),
    3: ("ONNX", "onnx", "model.onnx"),
    4: ("LiteRT", "litert", "model.tflite"),
}
warnings.filterwarnings("ignore", "In the future `np.object`")  # (1)!


def export(model, version, name, format, file):
    folder = root / str(version)
    folder.mkdir(parents=True)
    model.export(folder / file, format=format, verbose=False)
    asked = x_test[:8]
    golden = {"instances": asked.tolist()}
    golden["predictions"] = model.predict(asked, verbose=0).tolist()
    (folder / "golden.json").write_text(json.dumps(golden))  # (2)!


for version, form in FORMATS.items():
    export(model, version, *form)
model.set_weights(weights[1])
export(model, 1, *FORMATS[2])
model.set_weights(weights[2])


def size(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(p.stat().st_size for p in files if p.name != "golden.json")


print(f"parameters  {model.count_params() * 4 / 1000:.0f} kB")
for version, (name, *_) in FORMATS.items():
    print(f"{name:11} {size(root / str(version)) / 1000:.0f} kB")
# --8<-- [end:export]

# --8<-- [start:compare]
from aimodels.deployment import load

loaded = {version: load(root / str(version)) for version in (1, 2, 3, 4)}
keras_says = answers[2]
print(f"largest logit {np.abs(keras_says).max():.0f}")
for version, (name, *_) in FORMATS.items():
    said = loaded[version].predict(x_test[:2000])
    apart = np.abs(said - keras_says).max()
    same = (said.argmax(1) == keras_says.argmax(1)).all()
    print(f"{name:11} apart {apart:.6f}   same labels: {same}")
    assert apart < 1e-4
# --8<-- [end:compare]

# --8<-- [start:long-speed]
import os
import subprocess
import sys
import time

MEMORY = """
import sys
import numpy as np
import psutil
from aimodels.deployment import load
load(sys.argv[1]).predict(np.zeros((1, 28, 28, 1), "float32"))
print(psutil.Process().memory_info().rss / 1e6)
"""


def run_alone(command):
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.PIPE
    return subprocess.run(command, env=paths, stdout=out, check=True)


def median(function, x, runs=200):
    function(x)  # the first call builds and is not counted
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function(x)
        times.append(time.perf_counter() - start)
    return np.median(times) * 1000


if "HANDBOOK_LONG" in os.environ:  # (1)!
    runs = {"Keras": lambda x: model.predict(x, verbose=0)}
    versions = {name: v for v, (name, *_) in FORMATS.items()}
    runs |= {name: loaded[v].predict for name, v in versions.items()}
    times = {
        name: [median(run, x_test[:b], 40) for b in (1, 32)]
        for name, run in runs.items()
    }
    print("             ms: 1 image  32 images   load   memory")
    for name, (single, many) in times.items():
        print(f"{name:15}{single:9.2f}{many:11.2f}", end="")
        if name in versions:
            folder = root / str(versions[name])
            start = time.perf_counter()
            load(folder)
            spent = (time.perf_counter() - start) * 1000
            command = [sys.executable, "-c", MEMORY, folder]
            done = run_alone(command)
            print(f"{spent:7.0f}{float(done.stdout):9.0f} MB", end="")
        print()
# --8<-- [end:long-speed]

# --8<-- [start:ask]
import contextlib

served = contextlib.ExitStack()  # (1)!
app = application({"lenet": loaded})
url = served.enter_context(serve(app))
client = requests.Session()


def request(x, key="instances"):
    rows = np.round(x.astype(float), 4).tolist()  # (2)!
    return json.dumps({"signature_name": "serving_default", key: rows})


def ask(x, version=2, key="instances"):
    kind = {"content-type": "application/json"}
    address = f"{url}/v1/models/lenet/versions/{version}:predict"
    reply = client.post(address, data=request(x, key), headers=kind)
    reply.raise_for_status()
    return reply.json()


rows = ask(x_test[:3])["predictions"]
columns = ask(x_test[:3], key="inputs")["outputs"]
print("predicted", np.argmax(rows, axis=1), "  true", test_labels[:3])
print("same in rows and columns:", rows == columns)
for version in loaded:
    many = np.array(ask(x_test[:32], version)["predictions"])
    keras_says = answers[1 if version == 1 else 2][:32]
    print(version, "as Keras:", np.allclose(many, keras_says, atol=1e-4))
# --8<-- [end:ask]

# --8<-- [start:long-load]
LOCUSTFILE = """
import pathlib
from locust import FastHttpUser, task

body = pathlib.Path(__file__).with_name("body.json").read_text()
kind = {"content-type": "application/json"}

class Client(FastHttpUser):
    @task
    def predict(self):
        path = "/v1/models/lenet:predict"
        self.client.post(path, data=body, headers=kind)
"""


def percentile(counts, share):  # (1)!
    times = sorted((float(ms), n) for ms, n in counts.items())
    reached = np.cumsum([n for _, n in times])
    return times[np.searchsorted(reached, share * reached[-1])][0]


def load_test(url, clients, seconds):
    command = [sys.executable, "-m", "locust", "--headless", "--json"]
    command += ["--reset-stats"]  # (2)!
    command += ["-f", str(root / "locustfile.py"), "--host", url]
    command += ["-u", str(clients), "-r", "100", "-t", f"{seconds}s"]
    return json.loads(run_alone(command).stdout)[0]


if "HANDBOOK_LONG" in os.environ:
    (root / "locustfile.py").write_text(LOCUSTFILE)
    (root / "body.json").write_text(request(x_test[:1]))
    shares = (0.5, 0.95, 0.99)
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.0), sharey=True)
    for ax, name in zip(axes, ("SavedModel", "ONNX"), strict=True):
        version = versions[name]
        print(f"{name:18}  per s   p50   p95   p99 ms  rows  failed")
        for label, setting in settings.items():
            seconds = setting | {"wait": setting["wait"] / 1000}
            models = {"lenet": {version: loaded[version]}}
            server = application(models, **seconds)
            with serve(server) as tested:
                got = load_test(tested, clients=16, seconds=4)
            spent = got["last_request_timestamp"] - got["start_time"]
            ms = [percentile(got["response_times"], s) for s in shares]
            batch = np.mean(server.state.batchers["lenet", version].sizes)
            print(f"{label:18}{got['num_requests'] / spent:7.0f}", end="")
            print("".join(f"{value:6.0f}" for value in ms), end="")
            print(f"{batch:8.1f}{got['num_failures']:8}")
            ax.plot(["p50", "p95", "p99"], ms, marker="o", label=label)
        ax.set_title(name)
    axes[0].set(ylabel="milliseconds", ylim=(0, None))
    axes[0].legend()
# --8<-- [end:long-load]

# --8<-- [start:refuse]
image = json.loads(request(x_test[:1]))["instances"][0]
bad = {
    "cut short": '{"instances": [[0.1, 0.2',
    "wrong shape": json.dumps({"instances": [image[:27]]}),
    "ragged": json.dumps({"instances": [image, image[:27]]}),
    "text": json.dumps({"instances": ["a boot"]}),
    "NaN": json.dumps({"instances": [[[[np.nan]] * 28] * 28]}),
    "both forms": json.dumps({"instances": [image], "inputs": [image]}),
    "too large": json.dumps({"instances": [image] * 300}),
}
address = f"{url}/v1/models/lenet:predict"
for name, data in bad.items():
    reply = client.post(address, data=data)
    print(reply.status_code, f"{name}: {reply.json()['error']:.60}")
reply = client.post(f"{url}/v1/models/lenet/versions/9:predict", data="{}")
print(reply.status_code, reply.json()["error"])
# --8<-- [end:refuse]

# --8<-- [start:together]
from concurrent.futures import ThreadPoolExecutor

expected = answers[2]


def one(i):
    good = request(x_test[i : i + 1])
    data = bad["wrong shape"] if i % 10 == 9 else good  # (1)!
    reply = requests.post(address, data=data)
    if reply.status_code != 200:
        return reply.status_code
    given = np.array(reply.json()["predictions"][0])
    return bool(np.allclose(given, expected[i], atol=1e-4))


with ThreadPoolExecutor(16) as clients:
    outcomes = list(clients.map(one, range(500)))
print("own answer:", outcomes.count(True), "  refused:", outcomes.count(400))
print("another's:", outcomes.count(False), "  lost:", outcomes.count(None))
sizes = app.state.batchers["lenet", 4].sizes
print("rows computed:", sum(sizes), "  some together:", max(sizes) > 1)
# --8<-- [end:together]

# --8<-- [start:bad-golden]
folder = root / "5"
folder.mkdir()
other = keras.Sequential([keras.layers.Rescaling(1 / 255), model])
other(x_test[:1])  # (1)!
other.export(folder, format="tf_saved_model", verbose=False)
kept = (root / "2" / "golden.json").read_text()
(folder / "golden.json").write_text(kept)
try:
    load(folder)
except ValueError as error:
    print(str(error).partition(";")[0])
# --8<-- [end:bad-golden]

# --8<-- [start:skew]
grey = test_images[:500, ..., None].astype("float32")
views = {"as trained": x_test[:500], "0 to 255": grey}
views["white paper"] = 1 - x_test[:500]
for name, sent in views.items():
    replies = [ask(part) for part in np.split(sent, 10)]
    logits = np.concatenate([r["predictions"] for r in replies])
    print(f"{name:12} accuracy {accuracy(logits):.1f}", end="")
    print(f"   loss {loss(test_labels[:500], logits):.1f}")
served.close()
# --8<-- [end:skew]

# --8<-- [start:solution-scale]
inside = keras.Sequential([keras.Input((28, 28, 1))])
inside.add(keras.layers.Rescaling(1 / 255))
for layer in model.layers:
    inside.add(layer)
inside(grey[:1])  # (1)!
(root / "6").mkdir()
inside.export(root / "6" / "model.onnx", format="onnx", verbose=False)
raw = load(root / "6")
said = raw.predict(grey)
print(f"accuracy {accuracy(said):.2f}")
print("as before:", np.allclose(said, answers[2][:500], atol=0.05))
whole = test_images[:8, ..., None].tolist()
before, after = len(request(x_test[:8])), len(json.dumps({"instances": whole}))
print(f"body: {after / before:.2f} of what it was")
assert accuracy(said) > 0.7
# --8<-- [end:solution-scale]

# --8<-- [start:solution-hedge]
rng = np.random.default_rng(0)


def latency(n):  # (1)!
    times = rng.gamma(20, 0.5, n)
    return np.where(rng.random(n) < 0.02, times + 100, times)


first, second = latency(200_000), latency(200_000)
limit = np.quantile(first, 0.95)
hedged = np.minimum(first, limit + second)  # (2)!
more = np.mean(first > limit)
for name, times in (("one request", first), ("hedged", hedged)):
    print(f"{name:12}", end="")
    print("".join(f"{np.quantile(times, q):8.0f}" for q in (0.5, 0.99)))
print(f"requests more: {more:.2f}")
assert np.quantile(hedged, 0.99) < np.quantile(first, 0.99) / 3
# --8<-- [end:solution-hedge]

# --8<-- [start:solution-canary]
old, new = 0.01, 0.02  # share of failures


def noticed(requests, runs=2000):
    before = rng.binomial(requests, old, runs) / requests
    after = rng.binomial(requests, new, runs) / requests
    both = (before + after) / 2
    error = np.sqrt(np.maximum(2 * both * (1 - both) / requests, 1e-12))
    return np.mean(after - before > 2 * error)


for requests_each in (100, 1000, 3000):
    print(f"{requests_each:5} each: noticed {noticed(requests_each):.2f}")
assert noticed(3000) > 0.8 > noticed(1000)
# --8<-- [end:solution-canary]
