"""Run a page's snippet in a process of its own, under limits, and report section by section."""

from __future__ import annotations

import ast
import faulthandler
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tools import page as pages

ROOT = pages.ROOT
THREADS = 2
# For a page whose front matter says nothing else: seconds, many times what a page may take, since
# machines differ and share their cores; and GiB beyond what the imported libraries map.
TIMEOUT = 300
MEMORY = 4
LONG = 6 * 3600  # seconds for `nox -s long`
DEVICES = ("cpu", "gpu")
VERSIONED = ("numpy", "keras", "tensorflow")


@dataclass
class Result:
    """What one section did."""

    section: str
    printed: str = ""
    figure: list[dict[str, Any]] | None = None
    words: list[str] = field(default_factory=list)
    svg: dict[str, str] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0


@dataclass
class Run:
    """What a page's snippet did: results up to the first error, time, peak memory, versions."""

    name: str
    device: str
    results: list[Result]
    seconds: float = 0.0
    memory: int = 0  # bytes
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def error(self) -> Result | None:
        """The section that failed, if one did."""
        return next((result for result in self.results if result.error), None)


class LimitError(RuntimeError):
    """A snippet did what a page may not do."""


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere in it, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def needs(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, through `aimodels` as well."""
    found, queue, seen = set(), [path], set()
    while queue:
        current = queue.pop()
        seen.add(current)
        for module in imports(current):
            head, _, rest = module.partition(".")
            inner = ROOT / "aimodels" / f"{rest}.py"
            if head == "aimodels" and inner.exists() and inner not in seen:
                queue.append(inner)
            found.add(head)
    return found


def _environment(device: str) -> dict[str, str]:
    """Return what must be set before the libraries are imported."""
    fixed = {
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": os.environ.get("KERAS_HOME", str(ROOT / ".cache" / "keras")),
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": str(THREADS),
        "OPENBLAS_NUM_THREADS": str(THREADS),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",
    }
    if device == "cpu":
        fixed["CUDA_VISIBLE_DEVICES"] = "-1"
    return fixed


class Runner:
    """Runs pages, each in a fresh child of one server process that has the libraries loaded.

    A child starts in milliseconds, cannot see another page's state, and can be stopped whatever it does.
    """

    def __init__(self, names: list[str], device: str = "cpu") -> None:
        """Prepare to run the pages `names` on `device`.

        Raises:
            ValueError: no such device.
        """
        if device not in DEVICES:
            raise ValueError(f"device is one of {', '.join(DEVICES)}, not {device!r}")
        self.device = device
        os.environ.update(_environment(device))
        self.context = multiprocessing.get_context("forkserver")
        wanted = set().union(*(needs(pages.SNIPPETS / f"{name}.py") for name in names))
        preload = ["matplotlib.pyplot", "tools.figures"] if "matplotlib" in wanted else []
        # On a GPU the server must not hold the device, so each child imports for itself.
        if device == "cpu" and wanted & {"keras", "tensorflow"}:
            preload += ["keras", "tensorflow"]
        self.context.set_forkserver_preload(preload)

    def run(self, name: str, *, draw: bool = False, long: bool = False) -> Run:
        """Run the snippet of a page.

        Args:
            name: the page's name.
            draw: make the SVG of each figure, in both languages, as well as its data.
            long: set HANDBOOK_LONG, which sections named `long-…` ask for before they compute.
        """
        english = pages.load(pages.DOCS / "en" / f"{name}.md").meta if _exists("en", name) else {}
        chinese = pages.load(pages.DOCS / "zh" / f"{name}.md").meta if _exists("zh", name) else {}
        timeout = LONG if long else english.get("timeout", TIMEOUT)
        memory = english.get("memory", MEMORY)
        todo = pages.sections(name)
        mine, theirs = self.context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory(prefix=f"page-{name}-") as folder:
            order = {
                "name": name,
                "device": self.device,
                "sections": [asdict(section) for section in todo],
                "folder": folder,
                "timeout": timeout,
                "memory": memory,
                "long": long,
                "words": chinese.get("figure_words", {}) if draw else None,
            }
            process = self.context.Process(target=_child, args=(order, theirs), daemon=True)
            process.start()
            theirs.close()
            run = Run(name, self.device, [])
            failed = True
            try:
                current, failed = _collect(mine, run, time.monotonic() + timeout + 30)
            finally:
                if failed:  # also when the runner itself is interrupted
                    process.kill()
            process.join(30)
            if failed and run.error is None:
                run.results.append(Result(current, error=_death(process.exitcode, folder, order)))
        return run


def _exists(language: str, name: str) -> bool:
    return (pages.DOCS / language / f"{name}.md").exists()


def _collect(connection: Connection, run: Run, deadline: float) -> tuple[str, bool]:
    """Receive the child's messages; return the section it was in, and whether it died there."""
    current = "(start)"
    while True:
        if not connection.poll(max(0.0, deadline - time.monotonic())):
            return current, True
        try:
            kind, payload = connection.recv()
        except EOFError:
            return current, True
        if kind == "start":
            current = payload
        elif kind == "result":
            run.results.append(Result(**payload))
        else:
            run.seconds, run.memory, run.versions = payload
            return current, False


def _death(exitcode: int | None, folder: str, order: dict) -> str:
    """Say why a child ended without a word of its own."""
    stuck = (
        Path(folder, ".stuck").read_text("utf-8", "replace")
        if Path(folder, ".stuck").exists()
        else ""
    )
    where = re.search(rf'File "[^"]*?(snippets/{order["name"]}\.py)", line (\d+)', stuck)
    if stuck:
        place = f"{where[1]}:{where[2]}: " if where else ""
        return f"{place}still running after {order['timeout']} s, the page's limit (timeout: in the front matter)"
    said = (
        Path(folder, ".stderr").read_text("utf-8", "replace")
        if Path(folder, ".stderr").exists()
        else ""
    )
    return (
        f"the process ended with exit code {exitcode} (a page may use {order['memory']} GiB; "
        f"memory: in the front matter)\n{said[-2000:]}".rstrip()
    )


def _child(order: dict, connection: Connection) -> None:
    """Run all sections of one page; this is the whole life of the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides, and kills
    sys.dont_write_bytecode = True
    folder = Path(order["folder"])
    os.chdir(folder)
    stderr = os.open(folder / ".stderr", os.O_WRONLY | os.O_CREAT)
    os.dup2(stderr, 2)
    stuck = (folder / ".stuck").open("w", encoding="utf-8")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    os.environ.pop("HANDBOOK_LONG", None)
    if order["long"]:
        os.environ["HANDBOOK_LONG"] = "1"
    _seed(order["device"])
    if order["device"] == "cpu":  # a GPU's driver maps more than any limit on addresses allows
        _limit_memory(order["memory"])
    _guard(folder)
    warnings.simplefilter("error")  # what warns today is an error on a reader's machine tomorrow
    module = type(sys)(f"page_{order['name']}")
    sys.modules[module.__name__] = module  # dataclasses and Keras look a class's module up
    faulthandler.dump_traceback_later(order["timeout"], exit=True, file=stuck)
    started = time.monotonic()
    for section in order["sections"]:
        connection.send(("start", section["name"]))
        result = _section(section, module.__dict__, order)
        connection.send(("result", asdict(result)))
        if result.error:
            break
    faulthandler.cancel_dump_traceback_later()
    stuck.close()
    (folder / ".stuck").unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in VERSIONED}
    connection.send(("end", (round(time.monotonic() - started, 2), peak, versions)))
    connection.close()
    os._exit(0)  # TensorFlow's own threads may keep a normal exit waiting


def _section(section: dict, namespace: dict, order: dict) -> Result:
    path = pages.SNIPPETS / f"{order['name']}.py"
    result = Result(section["name"])
    printed, started = StringIO(), time.monotonic()
    try:
        # Padding gives tracebacks, inspect.getsource and AutoGraph the snippet's own lines.
        code = compile(
            "\n" * section["offset"] + section["code"], str(path), "exec", dont_inherit=True
        )
        with redirect_stdout(printed):
            exec(code, namespace)
        _take_figure(result, order)
    except BaseException as error:
        result.error = _report(error, path)
    result.printed = printed.getvalue()
    result.seconds = round(time.monotonic() - started, 3)
    return result


def _take_figure(result: Result, order: dict) -> None:
    plt = sys.modules.get("matplotlib.pyplot")
    if plt is None or not plt.get_fignums():
        return
    from tools import figures

    if len(plt.get_fignums()) > 1:
        raise LimitError(
            f"section {result.section!r} leaves {len(plt.get_fignums())} figures open; one is allowed"
        )
    figure = plt.gcf()
    result.figure, result.words = figures.data(figure), figures.words(figure)
    if order["words"] is not None:
        name = f"{order['name']}-{result.section}"
        result.svg = {
            "en": figures.svg(figure, name),
            "zh": figures.svg(figure, name, order["words"]),
        }
    plt.close("all")


def _report(error: BaseException, path: Path) -> str:
    """Return an error with the frames that a contributor wrote, the snippet's line first."""
    details = traceback.TracebackException.from_exception(error)
    written = (pages.SNIPPETS, ROOT / "aimodels")
    own = [f for f in details.stack if any(Path(f.filename).is_relative_to(w) for w in written)]
    line = next((f.lineno for f in reversed(own) if f.filename == str(path)), None)
    if line is None and isinstance(error, SyntaxError):
        line = error.lineno
    place = f"{path.relative_to(ROOT).as_posix()}:{line}: " if line else ""
    message = "".join(details.format_exception_only()).strip()
    frames = "".join(traceback.StackSummary.from_list(own).format()).replace(f"{ROOT}/", "")
    return f"{place}{message}\n{frames}".rstrip()


def _seed(device: str) -> None:
    """Give every page the same start, whatever ran before it."""
    import random

    import numpy as np

    random.seed(0)
    np.random.seed(0)
    if "matplotlib.pyplot" in sys.modules:
        import matplotlib.pyplot as plt

        from tools import figures

        plt.rcParams.update(figures.STYLE)
    if "tensorflow" in sys.modules or device == "gpu":
        import keras
        import tensorflow as tf

        if device == "gpu" and not tf.config.list_physical_devices("GPU"):
            raise LimitError("--device gpu: TensorFlow sees no GPU")
        if device == "gpu":
            # Ten-bit products would differ from the recorded numbers in the third digit.
            tf.config.experimental.enable_tensor_float_32_execution(False)
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
        keras.utils.set_random_seed(0)


def _limit_memory(gibibytes: float) -> None:
    """Let allocations beyond what the imported libraries map fail with a MemoryError."""
    status = Path("/proc/self/status")
    if not status.exists():  # macOS cannot limit address space
        return
    mapped = int(re.search(r"VmSize:\s+(\d+)", status.read_text())[1]) * 1024  # type: ignore[index]
    limit = mapped + int(gibibytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _guard(folder: Path) -> None:
    """Refuse the network, and writing outside of the page's own folder, into the tree."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def inside_tree(path: Any) -> bool:
        try:
            where = Path(os.path.abspath(os.fsdecode(path)))
        except TypeError:  # a file descriptor
            return False
        return where.is_relative_to(ROOT) and not where.is_relative_to(ROOT / ".cache")

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            path, mode, flags = args
            writes = (
                any(c in mode for c in "wax+")
                if isinstance(mode, str)
                else bool((flags or 0) & writing)
            )
            if writes and inside_tree(path):
                raise LimitError(f"a page may not write into the tree: {path}")
        elif event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"):
            if inside_tree(args[0]):
                raise LimitError(f"a page may not change the tree ({event}): {args[0]}")
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            address = args[1] if event == "socket.connect" else args
            host = address[0] if isinstance(address, tuple) else address
            if host not in ("127.0.0.1", "::1", "localhost", None) and isinstance(address, tuple):
                raise LimitError(
                    f"a page may not open the network: {host} (data come from packages: tools/provide.py)"
                )

    sys.addaudithook(hook)


def stamp(run: Run) -> dict[str, Any]:
    """Return what the foot of a page says of its last verified run."""
    return {
        "device": run.device,
        "versions": run.versions,
        "seconds": run.seconds,
        "memory": run.memory,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": os.environ.get("GITHUB_SHA", "")[:12] or _commit(),
    }


def _commit() -> str:
    """Return the commit that is checked out, marked when files differ from it; empty without git."""
    import subprocess

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    return f"{head}+" if head and git("status", "--porcelain") else head


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    os.replace(file.name, path)


def save_stamp(run: Run) -> None:
    """Write the stamp of a verified page where the site looks for it."""
    write(ROOT / "build" / "verified" / f"{run.name}.json", json.dumps(stamp(run), indent=1) + "\n")
