"""Outputs: words exactly, integers exactly, decimals within what is printed or stated."""

import pytest

from tools import compare


@pytest.mark.parametrize(("recorded", "printed", "title"), [
    ("loss 0.123", "loss 0.124", ""),
    ("[1.  2.5]", "[ 1.   2.5]", ""),
    ("1.00e-03", "1.01e-03", ""),
    ("accuracy 0.81", "accuracy 0.83", "± 0.02"),
    ("12.0 s", "12.5 s", "± 5 %"),
    ("of 100 right: 81", "of 100 right: 82", "± 1"),
])  # fmt: skip
def test_outputs_that_agree(recorded, printed, title):
    assert compare.texts(recorded, printed, title) == ""


@pytest.mark.parametrize(("recorded", "printed", "title"), [
    ("loss 0.123", "loss 0.125", ""),
    ("3 rows", "4 rows", ""),
    ("3 rows", "3 lines", ""),
    ("a 1.0", "a 1.0\nb", ""),
    ("accuracy 0.81", "accuracy 0.84", "± 0.02"),
    ("12.0 s", "12.7 s", "± 5 %"),
    ("loss 0.1", "loss nan", "± 5"),
    ("-0.5", "0.5", ""),
    ("conv2d", "conv3d", "± 5"),
    ("1e3", "1e5", ""),
])  # fmt: skip
def test_outputs_that_differ_are_shown_line_by_line(recorded, printed, title):
    difference = compare.texts(recorded, printed, title)
    assert (
        f"-{recorded.splitlines()[-1]}" in difference
        or f"+{printed.splitlines()[-1]}" in difference
    )


def test_a_figure_agrees_within_two_thousandths_of_its_largest_value():
    assert compare.plots([{"lines": [[1.0, 100.0]]}], [{"lines": [[1.1, 100.1]]}]) == ""
    assert "recorded 1.0, drawn now 1.3" in compare.plots(
        [{"lines": [[1.0, 100.0]]}], [{"lines": [[1.3, 100.0]]}]
    )


def test_the_tolerance_in_a_figures_caption_counts():
    assert compare.plots([0.5, 0.9], [0.52, 0.9], "accuracy, ± 0.03") == ""
    assert compare.plots([0.5, 0.9], [0.54, 0.9], "accuracy, ± 0.03") != ""


@pytest.mark.parametrize(("recorded", "drawn"), [
    ([{"lines": [[1.0]]}], [{"points": [[1.0]]}]),
    ([[1.0, 2.0]], [[1.0]]),
    (["a"], ["b"]),
    ([1.0], ["nan"]),
    (None, [1.0]),
])  # fmt: skip
def test_another_kind_of_figure_differs(recorded, drawn):
    assert compare.plots(recorded, drawn) != ""
