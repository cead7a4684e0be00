"""Charts as lists of shapes: histograms, bars and lines, as SVG for a page or with Pillow for a picture.

They need no plotting library, script or network. A shape's kind is its CSS class, which determines the
colour, so that a chart suits light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from catalogs.pages.render import part

if TYPE_CHECKING:
    from PIL import Image

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]

#: Bars of a histogram.
BINS = 32
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 480.0, 236.0, 50.0, 464.0, 24.0, 190.0
_AT_ENDS = 64.0  # width of the labels at the ends of lines
_NAME = 22  # characters of a name beside a bar
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}  # Pillow's: left, middle, right; on the baseline
_EMPTY = "There is nothing to draw."


# ---------------------------------------------------------------- what is drawn


@dataclass(frozen=True, eq=False)
class Group:
    """One group of values in a histogram: CSS class for the colour, and text for the legend."""

    kind: str
    words: str
    values: Floats


@dataclass(frozen=True, eq=False)
class Line:
    """A line: CSS class for the colour, name, points; ``dots`` marks each point."""

    kind: str
    words: str
    x: Floats
    y: Floats
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A labelled line across the chart at a value of the axis."""

    value: float
    words: str


# ---------------------------------------------------------------- shapes


@dataclass(frozen=True)
class Shape:
    """A shape of a chart.

    Attributes
    ----------
    what
        ``rect`` (two corners), ``line`` (points), ``dot`` (centre) or ``text`` (position).
    kind
        CSS class.
    points
        (x, y), y downwards.
    words
        The text, or the tooltip of other shapes.
    anchor
        Alignment of a text: ``start``, ``middle`` or ``end``.
    """

    what: str
    kind: str
    points: Sequence[tuple[float, float]]
    words: str = ""
    anchor: str = "start"


@dataclass(frozen=True)
class Chart:
    """A chart: shapes, a title for screen readers, and (kind, text) of the legend."""

    title: str
    shapes: Sequence[Shape]
    keys: Sequence[tuple[str, str]] = ()
    width: float = _WIDTH
    height: float = _HEIGHT
    kind: str = ""

    def __html__(self) -> Markup:
        """Write it as SVG with its legend below, for a template."""
        return part("chart.svg", chart=self, empty=_EMPTY)

    def picture(self, width: int, colours: Mapping[str, Colour], size: int = 14) -> Image.Image:
        """Draw it with Pillow, without its legend.

        Parameters
        ----------
        width
            Pixels.
        colours
            Kind of a shape -> red, green, blue; ``text`` is the colour of words of no kind of their own.
        size
            Size of the letters in pixels.
        """
        from PIL import Image, ImageDraw, ImageFont

        scale = width / self.width
        image = Image.new("RGB", (width, round(self.height * scale)), (255, 255, 255))
        draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
        for shape in self.shapes:
            colour = colours.get(shape.kind, colours["text"])
            at: Any = [(x * scale, y * scale) for x, y in shape.points]
            if shape.what == "rect":
                draw.rectangle(at, fill=colour)
            elif shape.what == "line":
                draw.line(at, fill=colour)
            elif shape.what == "dot":
                draw.circle(at[0], 3, fill=colour)
            else:
                draw.text(at[0], shape.words, fill=colour, font=font, anchor=_ANCHORS[shape.anchor])
        return image


# ---------------------------------------------------------------- the charts


def histogram(
    title: str,
    axis: str,
    groups: Sequence[Group],
    marks: Sequence[Mark] = (),
    low: float | None = None,
    high: float | None = None,
    bins: int = BINS,
) -> Chart:
    """Draw a stacked histogram of several groups of values.

    Parameters
    ----------
    title
        For people who cannot see the picture.
    axis
        What the values are.
    groups
        What to draw; values that are not finite are left out.
    marks
        Lines at values.
    low, high
        Ends of the axis; None: of the values. Values beyond are counted in the outermost bars.
    bins
        Number of bars.
    """
    finite = [each.values[np.isfinite(each.values)] for each in groups]
    every = np.concatenate([np.empty(0), *finite, [mark.value for mark in marks]])
    if not any(len(values) for values in finite):
        return Chart(title, ())
    least, most = _ends(
        float(every.min()) if low is None else low, float(every.max()) if high is None else high
    )
    edges = np.linspace(least, most, bins + 1)
    heights = np.array([np.histogram(np.clip(v, least, most), edges)[0] for v in finite])
    tallest = max(int(heights.sum(axis=0).max()), 1)
    x, y = _scale(least, most, _LEFT, _RIGHT), _scale(0, tallest, _BOTTOM, _TOP)
    counts = [value for value in ticks(0, tallest, 4) if value == int(value)]
    shapes = [*_levels(counts, y, _RIGHT), *_numbers(ticks(least, most), x), _below(axis, _RIGHT)]
    base = np.zeros(bins)
    for each, height in zip(groups, heights, strict=True):
        for k in np.flatnonzero(height):
            corners = ((x(edges[k]) + 0.7, y(base[k] + height[k])), (x(edges[k + 1]) - 0.7, y(base[k])))
            said = f"{edges[k]:.3g} to {edges[k + 1]:.3g}: {height[k]} {each.words}"
            shapes.append(Shape("rect", each.kind, corners, said))
        base += height
    shapes += _marks(marks, x, _RIGHT)
    return Chart(title, shapes, [(each.kind, each.words) for each in groups] if len(groups) > 1 else [])


def lines(
    title: str,
    axis: str,
    curves: Sequence[Line],
    marks: Sequence[Mark] = (),
    low: float | None = None,
    high: float | None = None,
    top: float | None = None,
    at: Sequence[float] | None = None,
    named_at_ends: bool = False,
) -> Chart:
    """Draw lines over an axis.

    Parameters
    ----------
    title
        For people who cannot see the picture.
    axis
        What runs to the right.
    curves
        What to draw; points that are not finite are left out. A line without words is not in the legend.
    marks
        Lines at values of x.
    low, high
        Ends of the axis; None: of the values.
    top
        Highest value of the upright axis, which begins at 0; None: a round number above nearly all values.
    at
        Where numbers stand below the axis; None: at round numbers.
    named_at_ends
        Whether the names stand at the ends of the lines, which suits short ones; else in a legend.
    """
    known = [np.isfinite(curve.x) & np.isfinite(curve.y) for curve in curves]
    xs = np.concatenate([np.empty(0), *(curve.x[k] for curve, k in zip(curves, known, strict=True))])
    ys = np.concatenate([np.empty(0), *(curve.y[k] for curve, k in zip(curves, known, strict=True))])
    if not len(xs):
        return Chart(title, ())
    least, most = _ends(float(xs.min()) if low is None else low, float(xs.max()) if high is None else high)
    if top is None:
        top = _round_up(float(np.percentile(ys, 99)) if len(ys) > 20 else float(ys.max()))
    right = _RIGHT - _AT_ENDS if named_at_ends else _RIGHT
    x, y = _scale(least, most, _LEFT, right), _scale(0, top, _BOTTOM, _TOP)
    shapes = [
        *_levels([top * k / 4 for k in range(5)], y, right),
        *_numbers(ticks(least, most) if at is None else at, x),
        _below(axis, right),
        *_marks(marks, x, right),
    ]
    ends = []
    for curve, k in zip(curves, known, strict=True):
        if not k.any():
            continue
        points = [(x(a), max(y(b), _TOP - 4)) for a, b in zip(curve.x[k], curve.y[k], strict=True)]
        shapes.append(Shape("line", curve.kind, points))
        if curve.dots:
            shapes += [
                Shape("dot", curve.kind, [point], f"{curve.words}, {axis} {a:g}: {b:.3f}")
                for point, a, b in zip(points, curve.x[k], curve.y[k], strict=True)
            ]
        ends.append((points[-1][1], curve.kind, curve.words))
    if named_at_ends:
        shapes += [
            Shape("text", kind, [(right + 8, place + 4.5)], words)
            for place, kind, words in _apart(ends, 16.0, _BOTTOM)
        ]
        return Chart(title, shapes)
    named = [(kind, words) for _, kind, words in ends if words]
    return Chart(title, shapes, named if len(curves) > 1 else [])


def bars(title: str, rows: Sequence[tuple[str, Sequence[int]]], kinds: Sequence[tuple[str, str]]) -> Chart:
    """Draw horizontal bars, one row for each name, its parts side by side.

    Parameters
    ----------
    title
        For people who cannot see the picture.
    rows
        Names with the counts of each part.
    kinds
        CSS class and words of each part.
    """
    most = max((sum(counts) for _, counts in rows), default=0) or 1
    step, left, right = 24.0, 190.0, 900.0
    shapes = []
    for k, (name, counts) in enumerate(rows):
        top = k * step
        shown = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
        shapes.append(Shape("text", "name", [(left - 10, top + 16)], shown, "end"))
        at = left
        for (kind, words), n in zip(kinds, counts, strict=True):
            width = n / most * (right - left)
            if n:
                corners = ((at, top + 4), (at + width, top + 20))
                shapes.append(Shape("rect", kind, corners, f"{name}: {n} {words}"))
            at += width
        shapes.append(Shape("text", "number", [(at + 8, top + 16)], str(sum(counts))))
    return Chart(title, shapes, kinds if len(kinds) > 1 else [], 960, step * len(rows) + 4, "bars")


# ---------------------------------------------------------------- axes


def ticks(low: float, high: float, about: int = 6) -> Floats:
    """Return about six round numbers between two values."""
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    return np.round(np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step, 10)


def _ends(least: float, most: float) -> tuple[float, float]:
    return (least, most) if most > least else (least - 0.5, most + 0.5)


def _scale(least: float, most: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (float(value) - least) / (most - least) * (end - start)


def _round_up(value: float) -> float:
    """Return the next of 1, 1.2, 1.6, 2 ... times a power of ten, a quarter of which is a round number."""
    if not value > 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(k * unit for k in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if k * unit >= value)


def _levels(values: Iterable[float], y: Callable[[float], float], right: float) -> list[Shape]:
    shapes = []
    for value in values:
        at = y(value)
        shapes.append(Shape("line", "grid", [(_LEFT, at), (right, at)]))
        shapes.append(Shape("text", "", [(_LEFT - 8, at + 4.5)], f"{value:.3g}", "end"))
    return shapes


def _numbers(values: Iterable[float], x: Callable[[float], float]) -> list[Shape]:
    return [Shape("text", "", [(x(v), _BOTTOM + 18)], f"{v:,.6g}", "middle") for v in values]


def _below(words: str, right: float) -> Shape:
    return Shape("text", "axis", [((_LEFT + right) / 2, _BOTTOM + 38)], words, "middle")


def _marks(marks: Sequence[Mark], x: Callable[[float], float], right: float) -> list[Shape]:
    shapes = []
    for mark in marks:
        at = min(max(x(mark.value), _LEFT), right)
        side, shift = ("end", -6) if at > (_LEFT + right) / 2 else ("start", 6)
        shapes.append(Shape("line", "mark", [(at, _TOP - 18), (at, _BOTTOM)]))
        if mark.words:
            shapes.append(Shape("text", "mark", [(at + shift, _TOP - 9)], mark.words, side))
    return shapes


def _apart(
    labels: Iterable[tuple[float, str, str]], least: float, bottom: float
) -> list[tuple[float, str, str]]:
    """Move labels up or down so that they do not overlap."""
    placed: list[tuple[float, str, str]] = []
    for place, kind, word in sorted(labels):
        placed.append((max(place, placed[-1][0] + least) if placed else place, kind, word))
    over = max(0.0, placed[-1][0] - bottom) if placed else 0.0
    return [(place - over, kind, word) for place, kind, word in placed]
