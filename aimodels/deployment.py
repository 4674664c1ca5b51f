"""Exported models behind a server that speaks TensorFlow Serving's predict protocol over HTTP.

Axes: N rows of a request, B rows of a batch. One row has the shape that the model was exported with.
"""

import asyncio
import contextlib
import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILES = {"saved_model.pb": "SavedModel", "model.onnx": "ONNX", "model.tflite": "LiteRT"}
SIGNATURE = "serving_default"
PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[0-9]{1,18}))?(?P<verb>:predict|/metadata)?"
)


class Model(NamedTuple):
    """A loaded model: `predict` maps `[N, *shape]` float32 to `[N, ...]`; names of its tensors."""

    predict: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, ...]
    input: str = "x"
    output: str = "y"


class RequestError(Exception):
    """A request that is answered with an error: an HTTP status and what is wrong."""

    def __init__(self, status, message):
        """Keep the status beside the message."""
        super().__init__(message)
        self.status = status


def load(folder, threads=1):
    """Load the exported model of one version, in whichever format it lies there.

    Args:
        folder: holds `saved_model.pb`, `model.onnx` or `model.tflite`. If it also holds
            `golden.json`, the model must give those answers, see `replay`.
        threads: of ONNX Runtime or LiteRT; TensorFlow shares those of the process.

    Returns:
        Model, for one input and one output; call `predict` from one thread at a time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: two formats in one folder; more than one input or output; a golden answer missed.
    """
    folder = Path(folder)
    found = [name for name in FILES if (folder / name).exists()]
    if not found:
        raise FileNotFoundError(f"folder must hold one of {', '.join(FILES)}; received {folder}")
    if len(found) > 1:
        raise ValueError(f"folder must hold one format; received {', '.join(found)}")
    loaders = {"saved_model.pb": _saved_model, "model.onnx": _onnx, "model.tflite": _litert}
    model = loaders[found[0]](folder, threads)
    if (folder / "golden.json").exists():
        replay(model, json.loads((folder / "golden.json").read_text("utf-8")))
    return model


def _only(what, names):
    names = list(names)
    if len(names) != 1:
        raise ValueError(f"a model must have one {what}; received {names}")
    return names[0]


def _saved_model(folder, threads):
    import tensorflow as tf

    run = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
    specs = run.structured_input_signature[1]
    name, answer = _only("input", specs), _only("output", run.structured_outputs)

    def predict(x):
        return run(**{name: tf.constant(x)})[answer].numpy()

    return Model(predict, tuple(specs[name].shape[1:]), name, answer)


def _onnx(folder, threads):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    path, where = str(folder / "model.onnx"), ["CPUExecutionProvider"]
    session = ort.InferenceSession(path, options, providers=where)
    given = _only("input", session.get_inputs())
    answer = _only("output", session.get_outputs()).name

    def predict(x):
        return session.run([answer], {given.name: x})[0]

    return Model(predict, tuple(given.shape[1:]), given.name, answer)


def _litert(folder, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"), num_threads=threads)
    names = interpreter.get_signature_list()[SIGNATURE]
    name, answer = _only("input", names["inputs"]), _only("output", names["outputs"])
    run = interpreter.get_signature_runner(SIGNATURE)
    shape = run.get_input_details()[name]["shape_signature"][1:]
    return Model(lambda x: run(**{name: x})[answer], tuple(map(int, shape)), name, answer)


def replay(model, golden, within=1e-4):
    """Check that a model still gives the answers that were kept with it.

    Args:
        model: Model.
        golden: a request and its answer, `{"instances": [N, ...], "predictions": [N, ...]}`.
        within: largest difference that is allowed, absolute.

    Raises:
        ValueError: another shape, or a difference above `within`, NaN included.
    """
    x, _ = read({"instances": golden["instances"]}, model)
    expected, given = np.asarray(golden["predictions"]), model.predict(x)
    if given.shape != expected.shape:
        raise ValueError(f"golden answers have shape {expected.shape}; received {given.shape}")
    worst = np.abs(given - expected).max()
    if not worst <= within:
        raise ValueError(f"golden answers must be met within {within}; received {worst:.3g} off")


def read(request, model, most=1024):
    """Return the rows of a predict request, and the key of its answer.

    Args:
        request: the body, as bytes or already parsed: "instances", a list of rows or of objects
            with the name of the input; or "inputs", all rows in one array, named or not.
        model: Model, which knows its shape and the name of its input.
        most: largest number of rows.

    Returns:
        `[N, *shape]` float32, N from 1 to `most`, and "predictions" or "outputs".

    Raises:
        RequestError: 400, whatever is wrong with the request.

    Source: TensorFlow Serving, RESTful API, <https://www.tensorflow.org/tfx/serving/api_rest>.
    Differs: NaN and infinity are refused; a layer may turn them into a plain number unseen.
    """
    if isinstance(request, bytes):
        try:
            request = json.loads(request)
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise RequestError(400, f"a request must be an object; received {type(request).__name__}")
    if request.get("signature_name", SIGNATURE) != SIGNATURE:
        raise RequestError(400, f"signature_name must be {SIGNATURE!r}; received another")
    keys = [key for key in ("instances", "inputs") if key in request]
    if len(keys) != 1:
        raise RequestError(400, f"a request must have 'instances' or 'inputs'; received {keys}")
    rows = request[keys[0]]
    if keys[0] == "inputs":
        rows = _named(rows, model.input) if isinstance(rows, dict) else rows
    elif not isinstance(rows, list):
        raise RequestError(400, f"instances must be a list; received {type(rows).__name__}")
    elif rows and isinstance(rows[0], dict):
        rows = [_named(row, model.input) for row in rows]
    try:
        x = np.asarray(rows)
    except ValueError as error:
        raise RequestError(400, f"{keys[0]} must be rectangular: {error}") from error
    if x.dtype.kind not in "iuf":
        raise RequestError(400, f"{keys[0]} must hold numbers; received {x.dtype}")
    if x.ndim == 0 or x.shape[1:] != model.shape or not 1 <= len(x) <= most:
        wanted = ", ".join(map(str, (f"1 to {most}", *model.shape)))
        raise RequestError(400, f"{keys[0]} must have shape [{wanted}]; received {list(x.shape)}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise RequestError(400, f"{keys[0]} must be finite in float32; received NaN or infinity")
    return x, {"instances": "predictions", "inputs": "outputs"}[keys[0]]


def _named(row, name):
    if not isinstance(row, dict) or list(row) != [name]:
        raise RequestError(
            400, f"each object must have the input {name!r} alone; received {row!r:.60}"
        )
    return row[name]


class Batcher:
    """Join requests that wait at the same time into one call of the model.

    A request is never split, and rows never change places: the answer to a request is the slice
    of the batch that its rows were.

    Args:
        predict: function of `[B, ...]` that returns `[B, ...]`; it runs in one thread of its own.
        most: rows at which a batch is full, at least 1; 1 turns batching off. A larger request
            goes alone.
        wait: seconds from its arrival that a request waits for others; 0 takes what is there.
        room: rows that may wait; more are refused with status 503.

    Raises:
        ValueError: a number that is not allowed.
    """

    def __init__(self, predict, most=32, wait=0.002, room=1024):
        """Keep the arguments; `start` begins."""
        for name, value, least in (("most", most, 1), ("wait", wait, 0), ("room", room, 1)):
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}; received {value}")
        self.predict, self.most, self.wait, self.room = predict, most, wait, room
        self.sizes = []  # rows of each batch so far
        self._queue: deque = deque()  # rows, future answer, time of arrival
        self._rows, self._open = 0, False

    def start(self):
        """Begin to take requests, inside a running event loop."""
        self._changed, self._open = asyncio.Event(), True
        self._thread = ThreadPoolExecutor(1)
        self._task = asyncio.create_task(self._work())

    async def __call__(self, x):
        """Return the answer to the rows `[N, ...]` of one request.

        Raises:
            RequestError: 503, closed, or too many rows wait.
        """
        if not self._open:
            raise RequestError(503, "the server is closing")
        if self._rows + len(x) > self.room:
            raise RequestError(503, f"too busy: {self._rows} rows wait, {self.room} may")
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._queue.append((x, answer, loop.time()))
        self._rows += len(x)
        self._changed.set()
        return await answer

    async def close(self):
        """Take nothing new, answer what waits, and end."""
        self._open = False
        self._changed.set()
        await self._task
        self._thread.shutdown()

    async def _gather(self):
        """Wait for a first request, then for a full batch or the end of `wait`."""
        while not self._queue:
            if not self._open:
                return []
            self._changed.clear()
            await self._changed.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._queue[0][2] + self.wait):
                while self._rows < self.most and self._open:
                    self._changed.clear()
                    await self._changed.wait()
        batch: list[tuple] = []
        rows = 0
        while self._queue and (not batch or rows + len(self._queue[0][0]) <= self.most):
            x, answer, _ = self._queue.popleft()
            self._rows -= len(x)
            if not answer.cancelled():  # else its client has gone
                batch.append((x, answer))
                rows += len(x)
        return batch

    async def _work(self):
        while self._open or self._queue:
            batch = await self._gather()
            if not batch:
                continue
            loop = asyncio.get_running_loop()
            try:
                x = np.concatenate([x for x, _ in batch])
                self.sizes.append(len(x))
                y = await loop.run_in_executor(self._thread, self.predict, x)
                if len(y) != len(x):
                    raise ValueError(f"predict must return {len(x)} rows; received {len(y)}")
                parts = np.split(y, np.cumsum([len(x) for x, _ in batch])[:-1])
            except Exception as error:  # the model failed: each of the batch is told
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for part, (_, answer) in zip(parts, batch, strict=True):
                if not answer.done():
                    answer.set_result(part)


def application(models, limit=2**20, **batching):
    """Return a server for versions of models, as an ASGI application.

    Args:
        models: `{name: {version: Model}}`, versions whole numbers; the largest is the default.
        limit: largest body in bytes; a longer one is answered with 413 and not read to its end.
        batching: `most`, `wait`, `room` of each version's Batcher.

    Returns:
        A Starlette application; `state.batchers` holds a Batcher for each (name, version).

    Raises:
        ValueError: no model, or no version of one.

    Source: TensorFlow Serving, RESTful API, <https://www.tensorflow.org/tfx/serving/api_rest>.
    Differs: no classify, regress, labels or base64; one input and one output; a largest body.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    if not models or not all(models.values()):
        raise ValueError(f"models must hold versions for each name; received {models}")
    batchers = {
        (name, version): Batcher(model.predict, **batching)
        for name, versions in models.items()
        for version, model in versions.items()
    }

    @contextlib.asynccontextmanager
    async def lifespan(app):
        for batcher in batchers.values():
            batcher.start()
        yield
        for batcher in batchers.values():
            await batcher.close()

    async def answer(request):
        match = PATH.fullmatch(request.url.path)
        verb = match["verb"] if match else None
        if not match or request.method != ("POST" if verb == ":predict" else "GET"):
            raise RequestError(400, f"Malformed request: {request.method} {request.url.path}")
        name, version = match["name"], match["version"]
        versions = models.get(name, {})
        chosen = int(version) if version else max(versions, default=None)
        if chosen not in versions:
            asked = f"Specific({name}, {version})" if version else f"Latest({name})"
            raise RequestError(404, f"Servable not found for request: {asked}")
        if verb == "/metadata":
            return _metadata(name, chosen, versions[chosen])
        if not verb:
            good = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            shown = [chosen] if version else sorted(versions, reverse=True)
            return {"model_version_status": [{"version": str(v), **good} for v in shown]}
        x, key = read(await _body(request, limit), versions[chosen])
        y = await batchers[name, chosen](x)
        return {key: y.tolist()}

    async def endpoint(request):
        try:
            return JSONResponse(await answer(request))
        except RequestError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except Exception:  # the reason belongs into the log and not to the client
            logging.getLogger(__name__).exception("%s failed", request.url.path)
            return JSONResponse({"error": "the model failed on this request"}, 500)

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]  # those not of the protocol get a 400
    app = Starlette(routes=[Route("/{path:path}", endpoint, methods=methods)], lifespan=lifespan)
    app.state.batchers = batchers
    return app


async def _body(request, limit):
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise RequestError(413, f"a body must have at most {limit} bytes")
    return bytes(body)


def _metadata(name, version, model):
    """Return what the input and output are; the shape of the output is not kept, so unknown."""

    def tensor(name, axes):
        shape = {"dim": axes or [], "unknown_rank": axes is None}
        return {name: {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": name}}

    given = tensor(model.input, [{"size": str(n), "name": ""} for n in (-1, *model.shape)])
    answer = tensor(model.output, None)
    method = "tensorflow/serving/predict"
    signature = {"inputs": given, "outputs": answer, "method_name": method}
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


@contextlib.contextmanager
def serve(app, port=0):
    """Run an ASGI application in a thread of this process, and yield its address.

    Leaving the context stops it as a signal would: no new requests, those begun are answered.

    Args:
        app: for example of `application`.
        port: 0 takes a free one.

    Raises:
        RuntimeError: it did not start; the log says why.
    """
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError(f"no server could be started at port {port}")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
