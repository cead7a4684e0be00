"""Charts: every value is drawn, where it belongs, and what is drawn is the same in SVG and in a picture."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogs.pages import charts
from catalogs.pages.charts import Group, Line, Mark
from catalogs.seeds import generator


def svg(chart: charts.Chart) -> str:
    return str(chart.__html__())


def test_every_value_is_in_the_histogram_even_beyond_its_ends() -> None:
    values = generator("histogram").normal(size=500)
    half = Group("right", "right", values[:200]), Group("wrong", "wrong", values[200:])
    text = svg(charts.histogram("title", "axis", half, [Mark(0.0, "here")], -1.0, 1.0))
    counts = [int(n) for n in re.findall(r": (\d+) (?:right|wrong)</title>", text)]
    assert sum(counts) == 500
    assert "here</text>" in text
    nothing = charts.histogram("t", "a", [Group("c0", "x", np.array([np.nan]))])
    assert "There is nothing to draw" in svg(nothing)


def test_lines_leave_out_what_is_no_number() -> None:
    xs, ys = np.array([0.1, 0.2, 0.3]), np.array([0.5, np.nan, 0.7])
    text = svg(charts.lines("title", "score", [Line("f1", "F1", xs, ys)]))
    [points] = re.findall(r'class="f1" points="([^"]*)"', text)
    assert len(points.split()) == 2
    assert "There is nothing to draw" in svg(charts.lines("title", "score", []))


def test_a_line_stands_where_its_numbers_say() -> None:
    chart = charts.lines("t", "step", [Line("loss", "loss", np.arange(5.0), np.arange(5.0))], dots_at_ends())
    levels = {s.words: s.points[0][1] - 4.5 for s in chart.shapes if s.what == "text" and s.anchor == "end"}
    numbers = {s.words: s.points[0][0] for s in chart.shapes if s.what == "text" and s.anchor == "middle"}
    [line] = [s for s in chart.shapes if s.kind == "loss"]
    assert line.points[4] == pytest.approx((numbers["4"], levels["4"]))
    assert line.points[2] == pytest.approx((numbers["2"], levels["2"]))


def dots_at_ends() -> list[Mark]:
    return [Mark(0.0, "first"), Mark(4.0, "last")]


class Names(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)


@given(st.text(min_size=1))
def test_no_name_breaks_a_chart(name: str) -> None:
    chart = charts.bars(name, [(name, [1, 2])], [("c0", name), ("c1", name)])
    assert Names(svg(chart)).tags == {"svg", "text", "rect", "title", "ul", "li", "i"}


def test_a_picture_shows_the_bars_of_the_svg() -> None:
    values = np.repeat([1.0, 3.0, 7.0], [3, 1, 2])
    chart = charts.histogram("t", "a", [Group("blue", "x", values)], low=0, high=8, bins=8)
    picture = np.asarray(chart.picture(960, {"blue": (0, 0, 255), "text": (90, 90, 90)}))
    blue = (picture == (0, 0, 255)).all(axis=2)
    heights = blue.sum(axis=0)
    columns = np.split(np.flatnonzero(heights), np.flatnonzero(np.diff(np.flatnonzero(heights)) > 1) + 1)
    tall = [int(heights[each].max()) for each in columns]
    assert len(tall) == 3
    assert np.array(tall) / tall[1] == pytest.approx([3, 1, 2], rel=0.02)
    assert {shape.words[-2:] for shape in chart.shapes if shape.what == "rect"} == {" x"}
