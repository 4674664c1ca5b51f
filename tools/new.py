"""Start a page: `python -m tools.new NAME "Title" "标题" [group]` writes all five files.

The files hold a small working example in the form of every page, to be replaced piece by piece.
Existing files are never overwritten.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from tools import layout
from tools.page import DOCS, ROOT, SNIPPETS
from tools.runner import write

MODULE = '''\
"""{title}: what this module holds, in one sentence.

Axes: B samples, D features.
"""

import numpy as np


def center(x):
    """Return each column of `x` with its mean subtracted.

    Args:
        x: `[B, D]`, at least one row.

    Returns:
        `[B, D]`; every column sums to zero.

    Raises:
        ValueError: `x` is not a table or has no rows.
    """
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"x must have shape [B, D] with B at least 1, got {{x.shape}}")
    return x - x.mean(axis=0)
'''

TEST = """\
import numpy as np
import pytest

from aimodels.{name} import center


def test_every_column_sums_to_zero():
    x = np.random.default_rng(0).normal(size=(7, 3))
    np.testing.assert_allclose(center(x).sum(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (0, 2), (1, 2, 3)])
def test_a_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"x must have shape \\[B, D\\]"):
        center(np.ones(shape))
"""

SNIPPET = """\
# --8<-- [start:center]
import numpy as np

from aimodels.{name} import center

x = np.array([[1.0, 10.0], [3.0, 30.0]])
print(center(x))  # (1)!
# --8<-- [end:center]

# --8<-- [start:picture]
import matplotlib.pyplot as plt

figure, axes = plt.subplots()
axes.plot(*center(x).T, "o-")
axes.set_xlabel("first column")
# --8<-- [end:picture]

# --8<-- [start:check]
difference = np.abs(center(x) - (x - np.mean(x, axis=0))).max()
print(f"largest difference: {{difference:.1f}}")
# --8<-- [end:check]

# --8<-- [start:solution-twice]
assert np.array_equal(center(center(x)), center(x))
# --8<-- [end:solution-twice]
"""

PAGE = {
    "en": """\
---
title: {title}
description: What this page teaches, in one sentence.
reviewed: '000000000000'
---

# {title} {{#{name}}}

## The problem {{#problem}}

What problem does it solve, and for whom?

## The idea {{#idea}}

The idea in words, and one diagram.

``` {{ .dot alt="A table goes in, its columns centred on zero come out." }}
digraph {{ rankdir=LR; table -> centred; }}
```

## The mathematics {{#mathematics}}

With $X \\in \\mathbb{{R}}^{{B \\times D}}$, where $B$ counts samples and $D$ features:

$$
X'_{{bd}} = X_{{bd}} - \\frac{{1}}{{B}} \\sum_{{i=1}}^{{B}} X_{{id}}
$$

## In code {{#code}}

``` python
--8<-- "{name}.py:center"
```

1.  What the marked line does.

``` {{ .text .output }}
--8<-- "{name}.txt:center"
```

## On real data {{#run}}

``` python
--8<-- "{name}.py:picture"
```

![Two points joined by a line.](figures/{name}-picture.svg)

## How we know that it is right {{#check}}

``` python
--8<-- "{name}.py:check"
```

``` {{ .text .output }}
--8<-- "{name}.txt:check"
```

## What goes wrong {{#pitfalls}}

What goes wrong in practice.

## Exercises {{#exercises}}

!!! question "Exercise 1: twice"
    What does centring twice change?

??? success "Solution"
    ``` python
    --8<-- "{name}.py:solution-twice"
    ```

    Nothing: the means are zero already.

## What to read next {{#next}}

Back to the [home page](index.md).
""",
    "zh": """\
---
title: {title}
description: 用一句话说明本页讲什么。
reviewed: '000000000000'
figure_words:
  first column: 第一列
---

# {title} {{#{name}}}

## 问题 {{#problem}}

它解决什么问题？为谁解决？

## 思路 {{#idea}}

用文字讲清思路，配一张示意图。

``` {{ .dot alt="输入一张表，输出各列均值为零的表。" }}
digraph {{ rankdir=LR; table -> centred; }}
```

## 数学 {{#mathematics}}

设 $X \\in \\mathbb{{R}}^{{B \\times D}}$，其中 $B$ 是样本数，$D$ 是特征数：

$$
X'_{{bd}} = X_{{bd}} - \\frac{{1}}{{B}} \\sum_{{i=1}}^{{B}} X_{{id}}
$$

## 代码 {{#code}}

``` python
--8<-- "{name}.py:center"
```

1.  说明标记处做了什么。

``` {{ .text .output }}
--8<-- "{name}.txt:center"
```

## 用真实数据运行 {{#run}}

``` python
--8<-- "{name}.py:picture"
```

![两个点连成一条线。](figures/{name}-picture.svg)

## 怎样确认它是对的 {{#check}}

``` python
--8<-- "{name}.py:check"
```

``` {{ .text .output }}
--8<-- "{name}.txt:check"
```

## 常见问题 {{#pitfalls}}

实践中会出什么错。

## 练习 {{#exercises}}

!!! question "练习 1：做两次"
    对一张表做两次中心化，第二次会改变什么？

??? success "解答"
    ``` python
    --8<-- "{name}.py:solution-twice"
    ```

    什么也不变：均值已经是零。

## 接下来读什么 {{#next}}

回到[首页](index.md)。
""",
}


def create(name: str, english: str, chinese: str, group: str = "") -> list[Path]:
    """Write the five files of a page and put it at the end of a group of the navigation.

    Args:
        name: of the module and the page: lower-case letters, digits and underscores.
        english: the page's title.
        chinese: the page's title in Chinese.
        group: a group of `mkdocs.yml`; empty for the last one that teaches.

    Returns:
        The new files.

    Raises:
        ValueError: a name that Python cannot import, an unknown group.
        FileExistsError: one of the five files is there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(
            f"name is a Python module's: lower-case letters, digits, underscores; got {name!r}"
        )
    if not english.strip() or not chinese.strip():
        raise ValueError(f"both titles are needed, got {english!r} and {chinese!r}")
    groups = list(
        dict.fromkeys(g for g, _ in layout.navigation() if g not in ("", layout.REFERENCE))
    )
    group = group or groups[-1]
    if group not in groups:
        raise ValueError(f"group is one of {', '.join(groups)}; got {group!r}")
    contents = {
        ROOT / "aimodels" / f"{name}.py": MODULE.format(title=english),
        SNIPPETS / f"{name}.py": SNIPPET.format(name=name),
        DOCS / "en" / f"{name}.md": PAGE["en"].format(name=name, title=english),
        DOCS / "zh" / f"{name}.md": PAGE["zh"].format(name=name, title=chinese),
        ROOT / "tests" / f"test_{name}.py": TEST.format(name=name),
    }
    there = [path.relative_to(ROOT).as_posix() for path in contents if path.exists()]
    if there:
        raise FileExistsError(f"already there, nothing was written: {', '.join(there)}")
    configuration = ROOT / "mkdocs.yml"
    lines = configuration.read_text("utf-8").split("\n")
    last = [n for g, n in layout.navigation() if g == group][-1]
    place = next(number for number, line in enumerate(lines) if line.strip() == f"- {last}.md")
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    lines.insert(place + 1, f"{indent}- {name}.md")
    for path, text in contents.items():
        write(path, text)
    write(configuration, "\n".join(lines))
    return list(contents)


def _main() -> int:
    words = sys.argv[1:]
    if len(words) not in (3, 4):
        print('usage: nox -s new -- name "Title" "标题" [group]', file=sys.stderr)
        return 2
    try:
        made = create(*words)
    except (ValueError, FileExistsError) as error:
        print(error, file=sys.stderr)
        return 2
    for path in made:
        print(path.relative_to(ROOT).as_posix())
    print(f"next: write, then nox -s record -- {words[0]} and nox -s review -- {words[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
