import asyncio
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import kubernetes_validate
import numpy as np
import pytest
import requests
import yaml

from aimodels.cnn import lenet
from aimodels.deployment import (
    Batcher,
    Model,
    RequestError,
    application,
    load,
    read,
    replay,
    serve,
)

# Keras asks NumPy for a name of old versions before it converts to ONNX.
pytestmark = pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
PAIR = Model(lambda x: x.sum(axis=1, keepdims=True), (2,))
HALF = Model(lambda x: x / 2 + 3, ())
FORMATS = {
    "SavedModel": ("tf_saved_model", ""),
    "ONNX": ("onnx", "model.onnx"),
    "LiteRT": ("litert", "model.tflite"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    keras.utils.set_random_seed(3)
    model = lenet(10)
    model(np.zeros((1, 28, 28, 1)))
    root = tmp_path_factory.mktemp("models")
    for name, (format, file) in FORMATS.items():
        (root / name).mkdir()
        model.export(root / name / file, format=format, verbose=False)
    return model, root


@pytest.fixture(scope="module")
def url():
    models = {"half_plus_three": {123: HALF}, "pair": {2: PAIR, 12: Model(PAIR.predict, (2,), "z")}}
    with serve(application(models, limit=2000)) as address:
        yield address


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


# --- The formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_says_what_keras_says_for_every_size_of_batch(exported, name):
    model, root = exported
    loaded = load(root / name)
    assert loaded.shape == (28, 28, 1)
    for rows in (1, 2, 33, 5):
        x = np.random.default_rng(rows).random((rows, 28, 28, 1), dtype=np.float32)
        np.testing.assert_allclose(loaded.predict(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_a_loaded_model_outlives_its_files(exported, name, tmp_path):
    import gc
    import shutil

    model, root = exported
    shutil.copytree(root / name, tmp_path / "copy")
    loaded = load(tmp_path / "copy", threads=2)
    shutil.rmtree(tmp_path / "copy")
    gc.collect()
    x = np.full((3, 28, 28, 1), 0.5, dtype=np.float32)
    np.testing.assert_allclose(loaded.predict(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_model_of_two_inputs_is_refused(tmp_path):
    ends = [keras.Input((1,), name=name) for name in ("a", "b")]
    model = keras.Model(ends, keras.layers.Add()(ends))
    model.export(tmp_path, format="tf_saved_model", verbose=False)
    with pytest.raises(ValueError, match=r"must have one input; received .*'[ab]', '[ab]'"):
        load(tmp_path)


def test_an_empty_folder_and_two_formats_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"one of saved_model.pb, model.onnx, model.tflite"):
        load(tmp_path)
    for name in ("model.onnx", "model.tflite"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"one format; received model.onnx, model.tflite"):
        load(tmp_path)


def test_golden_answers_are_replayed_when_a_version_is_loaded(exported):
    model, root = exported
    x = np.random.default_rng(0).random((4, 28, 28, 1), dtype=np.float32)
    golden = {"instances": x.tolist(), "predictions": np.array(model(x)).tolist()}
    path = root / "ONNX" / "golden.json"
    try:
        path.write_text(json.dumps(golden))
        load(root / "ONNX")
        golden["predictions"][3][9] += 0.001
        path.write_text(json.dumps(golden))
        with pytest.raises(ValueError, match=r"met within 0.0001; received 0.001 off"):
            load(root / "ONNX")
    finally:
        path.unlink()


def test_golden_answers_of_another_shape_or_nan_are_missed():
    golden = {"instances": [[1, 2]], "predictions": [[3]]}
    replay(PAIR, golden)
    replay(Model(lambda x: x[:, :1] * 0 + 3.5, (2,)), golden, within=0.5)
    with pytest.raises(ValueError, match=r"shape \(1, 1\); received \(1,\)"):
        replay(Model(lambda x: x.sum(1), (2,)), golden)
    with pytest.raises(ValueError, match="received nan off"):
        replay(Model(lambda x: x[:, :1] * np.nan, (2,)), golden)


# --- The protocol --------------------------------------------------------------------------------


def test_the_examples_of_the_protocols_documentation_are_answered_as_there(url):
    asked = requests.post(
        f"{url}/v1/models/half_plus_three:predict", data='{"instances": [1.0,2.0,5.0]}'
    )
    assert asked.status_code == 200
    assert asked.json() == {"predictions": [3.5, 4.0, 5.5]}
    assert asked.headers["content-type"] == "application/json"
    status = requests.get(f"{url}/v1/models/half_plus_three")
    good = {"error_code": "OK", "error_message": ""}
    expected = [{"version": "123", "state": "AVAILABLE", "status": good}]
    assert status.json() == {"model_version_status": expected}
    wrong = requests.post(f"{url}/v1/models/half:predict", data='{"instances": [1.0,5.0]}')
    assert wrong.status_code == 404
    assert wrong.json() == {"error": "Servable not found for request: Latest(half)"}


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"instances": [[1, 2], [3, 4.5]]}, "predictions"),
        ({"instances": [{"x": [1, 2]}, {"x": [3, 4.5]}]}, "predictions"),
        ({"inputs": [[1, 2], [3, 4.5]]}, "outputs"),
        ({"inputs": {"x": [[1, 2], [3, 4.5]]}}, "outputs"),
        ({"signature_name": "serving_default", "inputs": [[1, 2], [3, 4.5]]}, "outputs"),
    ],
)
def test_rows_and_columns_named_or_not_mean_the_same(url, asked, key):
    reply = requests.post(f"{url}/v1/models/pair/versions/2:predict", json=asked)
    assert reply.json() == {key: [[3.0], [7.5]]}


def test_the_latest_version_is_the_default_and_by_number_not_by_text(url):
    named = {"inputs": {"z": [[1, 2]]}}  # only version 12 calls its input z
    assert requests.post(f"{url}/v1/models/pair:predict", json=named).status_code == 200
    old = requests.post(f"{url}/v1/models/pair/versions/2:predict", json=named)
    assert old.status_code == 400
    status = requests.get(f"{url}/v1/models/pair").json()["model_version_status"]
    assert [one["version"] for one in status] == ["12", "2"]
    one = requests.get(f"{url}/v1/models/pair/versions/2").json()["model_version_status"]
    assert [each["version"] for each in one] == ["2"]


def test_metadata_tells_name_version_and_shape_of_the_input(url):
    told = requests.get(f"{url}/v1/models/pair/versions/2/metadata").json()
    assert told["model_spec"] == {"name": "pair", "signature_name": "", "version": "2"}
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    axes = signature["inputs"]["x"]["tensor_shape"]["dim"]
    assert [axis["size"] for axis in axes] == ["-1", "2"]
    assert list(signature["outputs"]) == ["y"]
    latest = requests.get(f"{url}/v1/models/pair/metadata").json()
    assert latest["model_spec"]["version"] == "12"


BAD = {
    "": "JSON Parse error",
    '{"instances": [[1, 2': "JSON Parse error",
    "[" * 1900: "JSON Parse error",
    "[1]": "a request must be an object; received list",
    "{}": r"must have 'instances' or 'inputs'; received \[\]",
    '{"instances": [[1, 2]], "inputs": [[1, 2]]}': r"received \['instances', 'inputs'\]",
    '{"signature_name": "other", "inputs": [[1, 2]]}': "signature_name must be 'serving_default'",
    '{"instances": 1}': "instances must be a list; received int",
    '{"inputs": 1}': r"shape \[1 to 1024, 2\]; received \[\]",
    '{"instances": []}': "instances must ",
    '{"instances": [1, 2]}': r"received \[2\]",
    '{"instances": [[1, 2, 3]]}': r"received \[1, 3\]",
    '{"instances": [[1, 2], [3]]}': "must be rectangular",
    '{"instances": [["1", "2"]]}': "must hold numbers",
    '{"instances": [[true, false]]}': "must hold numbers",
    '{"instances": [[null, 1]]}': "must hold numbers",
    '{"instances": [[{"b64": "AA=="}, 1]]}': "must hold numbers",
    '{"instances": [[1, NaN]]}': "must be finite",
    '{"instances": [[1, 1e39]]}': "must be finite",
    '{"instances": [[1, 1e400]]}': "must be finite",
    '{"instances": [[1, 1' + "0" * 400 + "]]}": "must ",
    '{"instances": [{"a": [1, 2]}]}': "the input 'x' alone",
    '{"instances": [{"x": [1, 2]}, [1, 2]]}': "the input 'x' alone",
    '{"instances": {"x": [[1, 2]]}}': "instances must be a list",
    '{"inputs": {"x": [[1, 2]], "y": 1}}': "the input 'x' alone",
}


@pytest.mark.parametrize("body", BAD)
def test_what_is_wrong_with_a_request_is_said_with_a_400(url, body):
    reply = requests.post(f"{url}/v1/models/pair/versions/2:predict", data=body)
    assert reply.status_code == 400
    assert re.search(BAD[body], reply.json()["error"])
    assert list(reply.json()) == ["error"]


def test_bytes_that_are_no_text_are_refused(url):
    reply = requests.post(f"{url}/v1/models/pair:predict", data=b"\xff\xfe\x00")
    assert reply.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 400),
        ("GET", "/v1/models/pair:predict", 400),
        ("PUT", "/v1/models/pair:predict", 400),
        ("POST", "/v1/models/pair", 400),
        ("POST", "/v1/models/pair:classify", 400),
        ("POST", "/v1/models/pair/versions/x:predict", 400),
        ("POST", f"/v1/models/pair/versions/{'9' * 5000}:predict", 400),
        ("POST", "/v1/models/pair/versions/3:predict", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/other/metadata", 404),
    ],
)
def test_an_address_that_leads_nowhere_is_answered_with_an_error(url, method, path, status):
    reply = requests.request(method, url + path, json={"instances": [[1, 2]]})
    assert reply.status_code == status
    assert list(reply.json()) == ["error"]


def test_a_body_above_the_limit_gets_a_413_with_or_without_its_length(url):
    address = f"{url}/v1/models/pair:predict"
    body = json.dumps({"instances": [[1, 2]]}).encode()
    just = body + b" " * (2000 - len(body))
    assert requests.post(address, data=just).status_code == 200
    reply = requests.post(address, data=just + b" ")
    assert reply.status_code == 413
    assert reply.json() == {"error": "a body must have at most 2000 bytes"}
    assert requests.post(address, data=iter([just, b" "])).status_code == 413  # chunked
    assert requests.post(address, data=body).status_code == 200  # and goes on


def test_more_rows_than_allowed_are_refused():
    asked = {"instances": [[1, 2]] * 3}
    assert len(read(asked, PAIR, most=3)[0]) == 3
    with pytest.raises(RequestError, match=r"shape \[1 to 2, 2\]; received \[3, 2\]"):
        read(asked, PAIR, most=2)


def test_a_model_that_fails_or_gives_nan_is_a_500_without_its_reason(caplog):
    def fails(x):
        raise RuntimeError("a secret")

    nan = Model(lambda x: x * np.nan, ())
    models = {
        "bad": {1: Model(fails, ())},
        "nan": {1: nan},
        "short": {1: Model(lambda x: x[1:], ())},
    }
    with serve(application(models)) as url:
        for name in models:
            reply = requests.post(f"{url}/v1/models/{name}:predict", json={"instances": [1]})
            assert reply.status_code == 500
            assert reply.json() == {"error": "the model failed on this request"}
            again = requests.get(f"{url}/v1/models/{name}")
            assert again.status_code == 200
    assert "a secret" in caplog.text


def test_an_application_needs_models():
    for models in ({}, {"a": {}}):
        with pytest.raises(ValueError, match="models must hold versions for each name"):
            application(models)


# --- Batches -------------------------------------------------------------------------------------


async def started(predict, **settings):
    batcher = Batcher(predict, **settings)
    batcher.start()
    return batcher


def test_requests_that_wait_together_are_one_batch_and_keep_their_rows():
    async def main():
        batcher = await started(lambda x: x * 10, most=8, wait=5)
        parts = [np.arange(n) + 100 * n for n in (1, 3, 4)]  # 8 rows: full, so nobody waits 5 s
        start = time.monotonic()
        answers = await asyncio.gather(*map(batcher, parts))
        assert time.monotonic() - start < 2
        await batcher.close()
        assert batcher.sizes == [8]
        for part, answer in zip(parts, answers, strict=True):
            np.testing.assert_array_equal(answer, part * 10)

    run(main())


def test_a_request_is_never_split_and_a_large_one_goes_alone():
    async def main():
        batcher = await started(lambda x: x, most=4, wait=0.01)
        parts = [np.full(n, n) for n in (3, 2, 9, 1, 1)]
        answers = await asyncio.gather(*map(batcher, parts))
        await batcher.close()
        assert batcher.sizes == [3, 2, 9, 2]
        assert [list(answer) for answer in answers] == [list(part) for part in parts]

    run(main())


def test_a_batch_of_one_is_batching_off():
    async def main():
        batcher = await started(lambda x: x, most=1, wait=5)
        await asyncio.gather(*[batcher(np.ones(1)) for _ in range(5)])
        await batcher.close()
        assert batcher.sizes == [1] * 5

    run(main())


def test_the_first_request_waits_no_longer_than_it_should():
    async def main():
        batcher = await started(lambda x: x, most=100, wait=0.2)
        start = time.monotonic()
        first = asyncio.create_task(batcher(np.ones(1)))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(batcher(np.ones(1)))
        await asyncio.gather(first, second)
        assert 0.15 < time.monotonic() - start < 0.29 + 0.5
        await batcher.close()
        assert batcher.sizes == [2]

    run(main())


def test_without_waiting_a_batch_is_what_came_while_the_model_was_busy():
    gate = threading.Event()

    def slow(x):
        gate.wait(10)
        return x

    async def main():
        batcher = await started(slow, most=100, wait=0)
        first = asyncio.create_task(batcher(np.zeros(1)))
        await asyncio.sleep(0.1)
        rest = [asyncio.create_task(batcher(np.full(1, i))) for i in range(7)]
        await asyncio.sleep(0.1)
        gate.set()
        answers = await asyncio.gather(first, *rest)
        await batcher.close()
        assert batcher.sizes == [1, 7]
        assert [float(a[0]) for a in answers] == [0, 0, 1, 2, 3, 4, 5, 6]

    run(main())


def test_closing_answers_what_waits_and_takes_nothing_new():
    def slow(x):
        time.sleep(0.1)
        return x

    async def main():
        batcher = await started(slow, most=2, wait=60)  # the last would wait for a minute
        waiting = [asyncio.create_task(batcher(np.full(1, i))) for i in range(5)]
        await asyncio.sleep(0.05)
        await batcher.close()
        assert [float((await one)[0]) for one in waiting] == [0, 1, 2, 3, 4]
        assert batcher.sizes == [2, 2, 1]
        with pytest.raises(RequestError, match="closing") as caught:
            await batcher(np.ones(1))
        assert caught.value.status == 503

    run(main())


def test_more_than_there_is_room_for_is_a_503_and_room_comes_back():
    gate = threading.Event()

    async def main():
        batcher = await started(lambda x: gate.wait(10) and x, most=1, wait=0, room=3)
        running = asyncio.create_task(batcher(np.ones(1)))
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(batcher(np.ones(1))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="3 rows wait, 3 may") as caught:
            await batcher(np.ones(1))
        assert caught.value.status == 503
        gate.set()
        await asyncio.gather(running, *waiting)
        await batcher(np.ones(3))
        await batcher.close()

    run(main())


def test_a_client_that_has_gone_is_not_computed_and_the_others_are():
    async def main():
        batcher = await started(lambda x: x, most=10, wait=0.1)
        tasks = [asyncio.create_task(batcher(np.full(1, i))) for i in range(3)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        assert [float((await tasks[i])[0]) for i in (0, 2)] == [0, 2]
        await batcher.close()
        assert batcher.sizes == [2]

    run(main())


def test_a_batch_that_fails_tells_each_of_its_requests_and_the_next_goes_well():
    def odd(x):
        if (x < 0).any():
            raise RuntimeError("negative")
        return x

    async def main():
        batcher = await started(odd, most=2, wait=1)
        parts = [np.ones(1), -np.ones(1), np.ones(1), np.ones(1)]
        answers = await asyncio.gather(*map(batcher, parts), return_exceptions=True)
        await batcher.close()
        assert [isinstance(answer, RuntimeError) for answer in answers] == [
            True,
            True,
            False,
            False,
        ]

    run(main())


def test_rows_that_do_not_fit_together_fail_and_the_next_go_well():
    async def main():
        batcher = await started(lambda x: x, most=2, wait=1)
        parts = [np.ones((1, 2)), np.ones((1, 3))]
        answers = await asyncio.gather(*map(batcher, parts), return_exceptions=True)
        assert [type(answer) for answer in answers] == [ValueError, ValueError]
        assert (await batcher(np.ones((2, 3)))).shape == (2, 3)
        await batcher.close()

    run(main())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"most": 0}, "most must be at least 1; received 0"),
        ({"wait": -1}, "wait must be at least 0; received -1"),
        ({"wait": float("nan")}, "wait must be at least 0; received nan"),
        ({"room": 0}, "room must be at least 1; received 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Batcher(lambda x: x, **settings)


# --- The server under load -----------------------------------------------------------------------


def test_each_of_many_clients_gets_its_own_answer_beside_bad_requests():
    app = application({"pair": {1: PAIR}}, most=8, wait=0.005)
    with serve(app) as url, ThreadPoolExecutor(16) as clients:

        def ask(i):
            body = {"instances": [[i, j] for j in range(1 + i % 3)]}
            if i % 7 == 6:
                body["instances"][0] = [i]
            reply = requests.post(f"{url}/v1/models/pair:predict", json=body)
            right = {"predictions": [[float(i + j)] for j in range(1 + i % 3)]}
            return reply.status_code if i % 7 == 6 else reply.json() == right

        outcomes = list(clients.map(ask, range(280)))
    assert outcomes.count(400) == 40
    assert outcomes.count(True) == 240
    (batcher,) = app.state.batchers.values()
    assert sum(batcher.sizes) == sum(1 + i % 3 for i in range(280) if i % 7 != 6)
    assert 1 < max(batcher.sizes) <= 8


def test_stopping_the_server_answers_what_it_has_begun():
    begun = threading.Semaphore(0)

    def slow(x):
        begun.release()
        time.sleep(0.2)
        return x

    with ThreadPoolExecutor(6) as clients:
        with serve(application({"slow": {1: Model(slow, ())}}, most=2, wait=0)) as url:
            address = f"{url}/v1/models/slow:predict"

            def ask(i):
                return requests.post(address, json={"instances": [i]}).json()

            pending = [clients.submit(ask, i) for i in range(6)]
            begun.acquire()
            time.sleep(0.15)  # all six have arrived, at most two are being computed
        for i, one in enumerate(pending):
            assert one.result() == {"predictions": [float(i)]}
    with pytest.raises(requests.ConnectionError):
        requests.get(url)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_port_that_is_taken_is_said():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(RuntimeError, match=f"no server could be started at port {port}"),
            serve(application({"half": {1: HALF}}), port),
        ):
            pass


# --- The cluster ---------------------------------------------------------------------------------


def manifest():
    page = Path(__file__).parents[1] / "docs" / "en" / "deployment.md"
    (text,) = re.findall(r"``` \{ \.yaml [^\n]*\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return list(yaml.safe_load_all(text))


def test_the_manifest_of_the_page_is_valid_for_kubernetes():
    objects = manifest()
    kinds = [one["kind"] for one in objects]
    assert kinds == ["Deployment", "Service", "HorizontalPodAutoscaler"]
    for one in objects:
        kubernetes_validate.validate(one, "1.35", strict=True)
    objects[0]["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(objects[0], "1.35", strict=True)


def test_the_objects_of_the_manifest_find_each_other():
    deployment, service, scaler = manifest()
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        one = container[probe]
        assert (one.get("httpGet") or one.get("tcpSocket"))["port"] in ports
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert container["resources"]["requests"]["cpu"]  # utilization is measured against it
