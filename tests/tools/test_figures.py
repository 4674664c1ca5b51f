"""Figures: their data is kept, their words follow the language, their ink follows the page."""

import re

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("agg")

import matplotlib.pyplot as plt

from tools import figures


def _draw():
    with mpl.rc_context(figures.STYLE):
        figure, (left, right) = plt.subplots(1, 2)
        left.plot([1, 2, 3], [1.23456, 4, 9], label="loss")
        left.set(xlabel="training step", yscale="log")
        left.legend()
        right.imshow(np.arange(9.0).reshape(3, 3))
        right.bar([0], [2.0])
        right.scatter([0, 1], [1, 0])
    return figure


@pytest.fixture
def figure():
    yield _draw()
    plt.close("all")


def test_every_plotted_thing_is_in_the_data(figure):
    left, right = figures.data(figure)
    assert left["lines"] == [[[1.0, 2.0, 3.0], [1.235, 4.0, 9.0]]]
    assert left["words"][1] == "training step"
    assert left["legend"] == ["loss"]
    assert right["images"] == [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]]
    assert right["points"] == [[[0.0, 1.0], [1.0, 0.0]]]
    assert right["patches"] == [[-0.4, 0.0, 0.8, 2.0]]


def test_a_large_image_is_kept_by_its_block_means():
    image = np.zeros((120, 240))
    image[:10, :20] = 1
    kept = figures._array(image)
    assert kept["shape"] == [120, 240]
    assert kept["block means"][0][0] == 1.0
    assert np.sum(kept["block means"]) == 1.0


def test_words_are_texts_that_are_more_than_numbers(figure):
    assert figures.words(figure) == ["training step", "loss"]


def test_words_are_translated_and_put_back(figure):
    svg = figures.svg(figure, "page-name", {"training step": "训练步数"})
    assert "训练步数" in svg
    assert "training step" not in svg
    assert figures.words(figure) == ["training step", "loss"]


def test_words_at_ticks_are_translated_and_put_back():
    figure, axes = plt.subplots()
    axes.barh([0, 1], [1, 2])
    axes.set_yticks([0, 1], ["shirt", "coat"])
    svg = figures.svg(figure, "page-name", {"shirt": "衬衫", "coat": "大衣"})
    assert "衬衫" in svg
    assert "shirt" not in svg
    assert figures.words(figure) == ["shirt", "coat"]


def test_the_svg_can_share_a_page_and_follows_its_colours(figure):
    svg = figures.svg(figure, "page-name")
    assert figures.INK not in svg
    assert "currentColor" in svg
    assert "<style" not in svg
    assert "font-family" not in svg
    assert all(ident.startswith("page-name-") for ident in re.findall(r'\bid="([^"]*)', svg))
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', svg)
    assert used
    assert set(used) <= set(re.findall(r'\bid="([^"]*)', svg))


def test_the_same_figure_gives_the_same_file(figure):
    assert figures.svg(figure, "a") == figures.svg(_draw(), "a")


def _contrast(one: str, two: str) -> float:
    """Return WCAG's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(parts, [0.2126, 0.7152, 0.0722]))

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#1e2129"])
@pytest.mark.parametrize("colour", figures.PALETTE)
def test_every_colour_is_seen_on_both_schemes(colour, background):
    assert _contrast(colour, background) >= 3
