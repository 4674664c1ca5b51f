"""Figures: the style they are drawn in, the data they plot, their SVG in each language."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

# Replaced by `currentColor` in the SVG, so that words and axes follow the page's colour scheme.
INK = "#010203"
# Each at least 3:1 against white and against the dark scheme's #1e2129.
PALETTE = ("#2b7bd6", "#d9730d", "#1f9d63", "#a662d0", "#d9485f", "#8a7a00", "#0e93a8", "#808890")
STYLE: dict[str, Any] = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "figure.figsize": (6.4, 3.2),
    "font.family": "sans-serif",
    "font.size": 11,
    "grid.color": "#808890",
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
# A larger array is stored as its shape and the means of this many blocks a side.
BLOCKS = 12
NUMBER = re.compile(r"^(\$\\mathdefault\{.*\}\$|[\s\d.,:;%×^/()+\-−–e]*)$")


def _array(values: Any) -> Any:
    """Return an array as nested lists of numbers, four digits each; a large one in summary."""
    array = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    if array.size > 4 * BLOCKS**2:
        parts = np.array_split(array.reshape(array.shape[0], -1), min(BLOCKS, array.shape[0]))
        means = [
            [part.mean() for part in np.array_split(row, min(BLOCKS, row.shape[1]), axis=1)]
            for row in parts
        ]
        return {"shape": list(array.shape), "block means": _array(means)}
    return _rounded(array.tolist())


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if not np.isfinite(value):
        return str(value)
    return float(f"{value:.4g}")


def data(figure: Figure) -> list[dict[str, Any]]:
    """Return what a figure plots, one entry for each of its axes, ready for JSON."""
    result = []
    for axes in figure.axes:
        entry: dict[str, Any] = {
            "words": [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()],
            "scales": [axes.get_xscale(), axes.get_yscale()],
            "legend": [t.get_text() for t in legend.get_texts()]
            if (legend := axes.get_legend())
            else [],
            "lines": [[_array(x), _array(y)] for x, y in (_xy(line) for line in axes.lines)],
            "images": [_array(image.get_array()) for image in axes.images],
            "points": [],
            "patches": [
                _array(patch.get_path().get_extents(patch.get_patch_transform()).bounds)
                for patch in axes.patches
            ],
            "texts": [t.get_text() for t in axes.texts],
        }
        for collection in axes.collections:
            if isinstance(collection, QuadMesh):
                entry["images"].append(_array(collection.get_array()))
            elif isinstance(collection, PathCollection):
                entry["points"].append(_array(collection.get_offsets()))
            else:
                entry["points"].append([_array(path.vertices) for path in collection.get_paths()])
        result.append({key: value for key, value in entry.items() if value})
    return result


def _xy(line: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = line.get_data(orig=False)
    return np.asarray(x, float), np.asarray(y, float)


def _texts(figure: Figure) -> list[Text]:
    figure.canvas.draw()  # tick labels exist only once drawn
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def words(figure: Figure) -> list[str]:
    """Return every text in a figure that is more than a number, each once."""
    found = [t.get_text() for t in _texts(figure)]
    return list(dict.fromkeys(text for text in found if not NUMBER.match(text)))


def svg(figure: Figure, name: str, translation: dict[str, str] | None = None) -> str:
    """Return a figure as SVG, its words translated, text in the page's colour.

    Args:
        figure: the drawn figure; its own words are put back afterwards.
        name: prefix of every id, so that figures can share one page.
        translation: each word of the figure in the other language; None leaves them.
    """
    changed: list[tuple[Callable[[Any], object], Any]] = []
    known = translation or {}
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # Glyphs come from the reader's fonts, not from this machine's.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            # Drawing sets the labels of ticks anew, so they are not changed as texts.
            labels = [text.get_text() for text in axis.get_ticklabels()]
            if not known.keys().isdisjoint(labels):
                changed.append((axis.set_major_locator, axis.get_major_locator()))
                changed.append((axis.set_major_formatter, axis.get_major_formatter()))
                axis.set_ticks(axis.get_ticklocs(), [known.get(word, word) for word in labels])
        for text in _texts(figure):
            before = text.get_text()
            if before in known:
                changed.append((text.set_text, before))
                text.set_text(known[before])
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    for put_back, before in changed:
        put_back(before)
    source = stream.getvalue()
    source = source[source.index("<svg") :]
    source = re.sub(r"<metadata>.*?</metadata>\s*", "", source, flags=re.DOTALL)
    source = source.replace(INK, "currentColor")
    source = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", source)
    source = re.sub(r"font-family: [^;\"]*;?", "", source)
    source = re.sub(r'\bid="', f'id="{name}-', source)
    source = re.sub(r'(href="#|url\(#)', rf"\1{name}-", source)
    # A style element would leak into the page that the figure stands in.
    source = re.sub(r"<style.*?</style>", "", source, flags=re.DOTALL)
    source = re.sub(r'\b(width|height)="([\d.]+)pt"', r'\1="\2"', source)
    source = source.replace("<svg ", '<svg stroke-linejoin="round" ', 1)
    return re.sub(r"[ \t]*\n[ \t\n]*", "\n", source)
