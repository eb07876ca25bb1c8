"""Parts of pages: whatever they are told stays text."""

from __future__ import annotations

import re

import pytest
from markupsafe import Markup
from pages import Page

from bbtune import figures, html
from bbtune.report.confusion import confusion

HOSTILE = "</table></style><script>alert(1)</script>\" onload='x' & {0}"


@pytest.mark.parametrize(
    "part",
    [
        html.table([HOSTILE], [[HOSTILE]], HOSTILE),
        html.table(["a", HOSTILE], [["b", HOSTILE]], names=2),
        html.items([HOSTILE]),
        html.text(HOSTILE, "warning"),
        html.section("s", HOSTILE, [HOSTILE]),
        html.figure(HOSTILE, HOSTILE),
        html.folded(HOSTILE, HOSTILE),
        html.element("p", HOSTILE, class_=HOSTILE),
    ],
)
def test_a_text_never_becomes_markup(part: Markup) -> None:
    page = Page(html.page(HOSTILE, [part]))
    page.check_alone()
    assert page.text.count(HOSTILE) >= 3  # title, heading, part


def test_a_figure_has_the_colours_of_the_page_and_nothing_from_elsewhere() -> None:
    with figures.page_figure(4, 2) as figure:
        axis = figure.subplots()
        figures.draw_estimates(axis, ["<i>", "$a_b$"], [_Estimate(), _Estimate()], [figures.ACCENT, figures.MUTED])
        drawn = figures.svg(figure, HOSTILE)
    page = Page(html.page("figure", [drawn]))
    page.check_alone()
    assert "<i>" in page.text
    assert "$a_b$" in page.text
    assert "var(--accent)" in drawn
    assert not re.search(r"#0000[ef]\d|http|<style|<metadata|DOCTYPE", drawn)


class _Estimate:
    value, low, high = 0.5, 0.4, 0.7


def test_every_colour_of_a_figure_is_one_of_the_page_in_light_and_dark() -> None:
    style = (figures.__file__.replace("figures.py", "html.css"),)
    with open(*style, encoding="utf-8") as file:
        light, dark = file.read().split("@media screen and (prefers-color-scheme: dark)")
    names = set(re.findall(r"--([\w-]+):", light))
    assert set(figures.VARIABLES.values()) <= names
    assert set(re.findall(r"--([\w-]+):", dark)) == names


def test_a_confusion_matrix_counts_what_named_no_label_apart() -> None:
    import numpy as np

    counts = confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, -1]), 2)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 1]]
