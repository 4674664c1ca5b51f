"""A page's run depends on the page alone, and is measured."""

import pytest

from tools import runner

SNIPPET = """\
# --8<-- [start:one]
import keras
import numpy as np

keras.utils.set_random_seed(0)
layer = keras.layers.Dense(4)
drop = keras.layers.Dropout(0.5)
x = drop(layer(np.ones((8, 3), "float32")), training=True)
print(float(keras.ops.sum(x)), np.random.rand())
leak = "state"
# --8<-- [end:one]
"""


@pytest.fixture
def snippets(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.pages, "SNIPPETS", tmp_path)
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(SNIPPET, "utf-8")
    (tmp_path / "third.py").write_text(
        "# --8<-- [start:one]\nprint(leak)\n# --8<-- [end:one]\n", "utf-8"
    )
    return tmp_path


def test_a_page_prints_the_same_whatever_ran_before_it(snippets):
    engine = runner.Runner(["first", "second", "third"])
    first, second, again = (engine.run(name) for name in ("first", "second", "first"))
    assert first.error is None, first.error
    assert first.results[0].printed == second.results[0].printed == again.results[0].printed
    assert first.memory > 50 * 2**20
    assert first.seconds > 0
    assert set(first.versions) == {"python", "numpy", "keras", "tensorflow"}
    third = engine.run("third")
    assert "NameError: name 'leak' is not defined" in third.results[0].error


def test_an_unknown_device_is_named():
    with pytest.raises(ValueError, match="device is one of cpu, gpu, not 'tpu'"):
        runner.Runner([], "tpu")


def test_what_a_snippet_needs_is_followed_through_aimodels(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("from aimodels.attention import causal_mask\n", "utf-8")
    assert {"aimodels", "keras"} <= runner.needs(path)
    path.write_text("import numpy as np\n", "utf-8")
    assert runner.needs(path) == {"numpy"}
