"""Small charts as SVG: they need no library, no script and no network, and take their colours from CSS."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 46.0, 452.0, 24.0, 188.0, 470.0, 234.0
#: Bars of a histogram.
BINS = 32
#: Characters of a name beside a bar.
_NAME = 22


@dataclass(frozen=True, eq=False)
class DataSeries:
    """Values of one kind in a histogram: a CSS class for its colour, and words for the legend."""

    kind: str
    words: str
    values: Floats


@dataclass(frozen=True)
class Mark:
    """A line at a value, with words beside it."""

    value: float
    words: str


def histogram(
    title: str,
    axis: str,
    series: Sequence[DataSeries],
    marks: Sequence[Mark] = (),
    low: float | None = None,
    high: float | None = None,
) -> str:
    """Draw a histogram of several series, one standing on the other.

    Parameters
    ----------
    title
        For people who cannot see the picture.
    axis
        What the values are.
    series
        What to draw; values that are not finite are left out.
    marks
        Lines at values.
    low, high
        Ends of the axis; None: of the values. Values beyond are counted in the outermost bars.

    Returns
    -------
    str
        An ``svg`` element.
    """
    finite = [each.values[np.isfinite(each.values)] for each in series]
    every = np.concatenate([np.empty(0), *finite, [mark.value for mark in marks]])
    if not any(len(values) for values in finite):
        return '<p class="quiet">There is nothing to draw.</p>'
    least = float(every.min()) if low is None else low
    most = float(every.max()) if high is None else high
    if not most > least:
        least, most = least - 0.5, most + 0.5
    edges = np.linspace(least, most, BINS + 1)
    heights = np.array([np.histogram(np.clip(v, least, most), edges)[0] for v in finite])
    tallest = max(int(heights.sum(axis=0).max()), 1)

    def x(value: float) -> float:
        return _LEFT + (value - least) / (most - least) * (_RIGHT - _LEFT)

    def y(count: float) -> float:
        return _BOTTOM - count / tallest * (_BOTTOM - _TOP)

    body = [*_counts(tallest, y, _LEFT, _RIGHT), *_numbers(least, most, x)]
    base = np.zeros(BINS)
    for each, height in zip(series, heights, strict=True):
        for k in np.flatnonzero(height):
            a, b = x(edges[k]) + 0.7, x(edges[k + 1]) - 0.7
            top, bottom = y(base[k] + height[k]), y(base[k])
            said = f"{edges[k]:.3g} to {edges[k + 1]:.3g}: {height[k]} {each.words}"
            body.append(
                f'<rect class="{each.kind}" x="{a:.1f}" y="{top:.1f}" width="{b - a:.1f}" '
                f'height="{bottom - top:.1f}"><title>{escape(said)}</title></rect>'
            )
        base += height
    for mark in marks:
        at = min(max(x(mark.value), _LEFT), _RIGHT)
        side = "end" if at > (_LEFT + _RIGHT) / 2 else "start"
        shift = -6 if side == "end" else 6
        body.append(f'<path class="mark" d="M{at:.1f} {_TOP - 18}V{_BOTTOM}"/>')
        body.append(
            f'<text class="mark" x="{at + shift:.1f}" y="{_TOP - 9:.1f}" text-anchor="{side}">'
            f"{escape(mark.words)}</text>"
        )
    body.append(_axis(axis))
    legend = _legend(series) if len(series) > 1 else ""
    return _svg(title, body) + legend


def bars(title: str, rows: Sequence[tuple[str, Sequence[int]]], kinds: Sequence[tuple[str, str]]) -> str:
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
    body = []
    for k, (name, counts) in enumerate(rows):
        top = k * step
        shown = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
        body.append(
            f'<text x="{left - 10}" y="{top + 16}" text-anchor="end">{escape(shown)}'
            f"<title>{escape(name)}</title></text>"
        )
        at = left
        for (kind, words), n in zip(kinds, counts, strict=True):
            width = n / most * (right - left)
            if n:
                body.append(
                    f'<rect class="{kind}" x="{at:.1f}" y="{top + 4}" width="{width:.1f}" height="16">'
                    f"<title>{escape(f'{name}: {n} {words}')}</title></rect>"
                )
            at += width
        body.append(f'<text class="number" x="{at + 8:.1f}" y="{top + 16}">{sum(counts)}</text>')
    height = step * len(rows) + 4
    return (
        f'<svg class="plot bars" viewBox="0 0 960 {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg>"
    )


def line(
    title: str, x_axis: str, curves: Sequence[tuple[str, str, Floats, Floats]], marks: Sequence[Mark] = ()
) -> str:
    """Draw curves of shares between 0 and 1 over an axis.

    Parameters
    ----------
    title
        For people who cannot see the picture.
    x_axis
        What runs to the right.
    curves
        (CSS class, words, x, y) of each; points that are not finite are left out.
    marks
        Lines at values of x.
    """
    every = np.concatenate([xs[np.isfinite(xs)] for _, _, xs, _ in curves] or [np.empty(0)])
    if not len(every):
        return '<p class="quiet">There is nothing to draw.</p>'
    least, most = float(every.min()), float(every.max())
    if x_axis == "recall":
        least, most = 0.0, 1.0
    if not most > least:
        least, most = least - 0.5, most + 0.5

    def x(value: float) -> float:
        return _LEFT + (value - least) / (most - least) * (_RIGHT - _LEFT - 60)

    def y(value: float) -> float:
        return _BOTTOM - value * (_BOTTOM - _TOP)

    right = _RIGHT - 60
    body = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        body.append(f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{right}"/>')
        body.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4.5:.1f}" text-anchor="end">{tick:g}</text>')
    body += _numbers(least, most, x)
    for mark in marks:
        body.append(f'<path class="mark" d="M{x(mark.value):.1f} {_TOP}V{_BOTTOM}"/>')
    ends = []
    for kind, words, xs, ys in curves:
        known = np.isfinite(xs) & np.isfinite(ys)
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs[known], ys[known], strict=True))
        if points:
            body.append(f'<polyline class="curve {kind}" points="{points}"/>')
            ends.append((y(float(ys[known][-1])), kind, words))
    for place, kind, words in _apart(ends, 16.0, _BOTTOM):
        body.append(f'<text class="{kind}" x="{right + 8}" y="{place + 4.5:.1f}">{escape(words)}</text>')
    body.append(_axis(x_axis))
    return _svg(title, body)


def figure(name: str, picture: str) -> str:
    """Put a name over a picture."""
    return f"<figure><figcaption>{escape(name)}</figcaption>{picture}</figure>"


def share(value: float) -> str:
    """Write a share with two digits, or n/a where there is none."""
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def ticks(low: float, high: float, about: int = 6) -> Floats:
    """Give round numbers between two values, about six of them."""
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    return np.round(np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step, 10)


def _counts(tallest: int, y: object, left: float, right: float) -> list[str]:
    body = []
    for value in ticks(0, tallest, 4):
        if value == int(value):
            at = y(float(value))  # type: ignore[operator]
            body.append(f'<path class="grid" d="M{left} {at:.1f}H{right}"/>')
            body.append(f'<text x="{left - 8}" y="{at + 4.5:.1f}" text-anchor="end">{int(value)}</text>')
    return body


def _numbers(least: float, most: float, x: object) -> list[str]:
    return [
        f'<text x="{x(float(v)):.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{v:g}</text>'  # type: ignore[operator]
        for v in ticks(least, most)
    ]


def _svg(title: str, body: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg>"
    )


def _axis(words: str) -> str:
    middle = (_LEFT + _RIGHT) / 2
    return f'<text class="axis" x="{middle}" y="{_BOTTOM + 38}" text-anchor="middle">{escape(words)}</text>'


def _legend(series: Sequence[DataSeries]) -> str:
    keys = "".join(
        f'<li><svg viewBox="0 0 14 14" aria-hidden="true"><rect class="{each.kind}" width="14" height="14" '
        f'rx="3"/></svg>{escape(each.words)}</li>'
        for each in series
    )
    return f'<ul class="keys">{keys}</ul>'


def _apart(
    labels: Iterable[tuple[float, str, str]], least: float, bottom: float
) -> list[tuple[float, str, str]]:
    """Move labels up or down a little so that none covers another."""
    placed: list[tuple[float, str, str]] = []
    for place, kind, word in sorted(labels):
        placed.append((max(place, placed[-1][0] + least) if placed else place, kind, word))
    over = max(0.0, placed[-1][0] - bottom) if placed else 0.0
    return [(place - over, kind, word) for place, kind, word in placed]
