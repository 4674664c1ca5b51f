"""Compare what a snippet prints and plots now with what is recorded."""

from __future__ import annotations

import difflib
import re
from typing import Any

from tools.page import TOLERANCE

# A number as it is printed; a digit inside a word (conv2d, 0x1f) is text.
NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?![\w])")
# Figures are stored with four digits.
PLOTTED = 2e-3


def _unit(number: str) -> float:
    """Return one unit in the last printed place; zero for `3` and NumPy's `3.`, which are exact."""
    mantissa, _, exponent = number.lower().partition("e")
    if not mantissa.partition(".")[2] and not exponent:
        return 0.0
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def _near(recorded: str, printed: str, tolerance: tuple[float, bool] | None) -> bool:
    if recorded == printed:
        return True
    unit = min(_unit(recorded), _unit(printed))
    if not unit and tolerance is None:
        return False
    a, b = float(recorded.replace("−", "-")), float(printed.replace("−", "-"))
    allowed = unit
    if tolerance is not None:
        value, relative = tolerance
        allowed = max(unit, value * max(abs(a), abs(b)) if relative else value)
    return abs(a - b) <= allowed * (1 + 1e-9)


def tolerance(title: str) -> tuple[float, bool] | None:
    """Read `± 0.02` or `± 5 %` out of a title: the value, and whether it is relative."""
    match = TOLERANCE.search(title)
    if not match:
        return None
    return float(match["value"]) / (100 if match["percent"] else 1), bool(match["percent"])


def texts(recorded: str, printed: str, title: str = "") -> str:
    """Return the difference between two outputs, or nothing when they agree.

    Words must be equal, integers too; a number with decimals may differ by one unit in its last
    printed place, or by the tolerance that the page shows as the title of the output. Runs of
    blanks count as one, because the width of a column follows the numbers in it.
    """
    before, after = recorded.rstrip().split("\n"), printed.rstrip().split("\n")
    allowed = tolerance(title)
    same = len(before) == len(after)
    for line, now in zip(before, after, strict=False):
        same = same and _blank(line) == _blank(now)
        same = same and all(
            _near(a, b, allowed)
            for a, b in zip(NUMBER.findall(line), NUMBER.findall(now), strict=True)
        )
    if same:
        return ""
    return "\n".join(
        difflib.unified_diff(before, after, "recorded", "printed now", lineterm="", n=1)
    )


def _blank(line: str) -> str:
    return " ".join(NUMBER.sub(" # ", line).split()).replace("[ ", "[")


def plots(recorded: Any, drawn: Any, title: str = "", where: str = "figure") -> str:
    """Return the first difference between the data of two figures, or nothing.

    Numbers may differ by 0.2 % of the largest of their list, or by the tolerance in the title.
    """
    if isinstance(recorded, dict) and isinstance(drawn, dict):
        if recorded.keys() != drawn.keys():
            return f"{where} has {', '.join(sorted(drawn))}; recorded {', '.join(sorted(recorded))}"
        differences = (plots(recorded[k], drawn[k], title, f"{where}, {k}") for k in recorded)
        return next((d for d in differences if d), "")
    if isinstance(recorded, list) and isinstance(drawn, list):
        if len(recorded) != len(drawn):
            return f"{where} has {len(drawn)} entries; recorded {len(recorded)}"
        if recorded and all(isinstance(v, int | float) for v in [*recorded, *drawn]):
            value, relative = tolerance(title) or (PLOTTED, True)
            scale = max(map(abs, recorded), default=0.0) if relative else 1.0
            for index, (a, b) in enumerate(zip(recorded, drawn, strict=True)):
                if abs(a - b) > value * scale + 1e-12:
                    return f"{where}[{index}]: recorded {a}, drawn now {b}"
            return ""
        pairs = enumerate(zip(recorded, drawn, strict=True))
        return next((d for i, (a, b) in pairs if (d := plots(a, b, title, f"{where}[{i}]"))), "")
    return "" if recorded == drawn else f"{where}: recorded {recorded!r}, drawn now {drawn!r}"
