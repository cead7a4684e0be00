"""The page of a training: curves, and a plane of a held-out tomogram as it is and as the network sees it.

One file without scripts; a browser loads it again every few seconds while the training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.pages.pictures import PALETTE, png
from tltrain.reporting.progress import duration
from tltrain.training.checkpoint import State
from tltrain.training.validation import Preview

#: Seconds after which a browser loads the page again.
REFRESH = 5

_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 52.0, 470.0, 12.0, 190.0, 480.0, 232.0
_ENLARGED = 512  # a plane is shown with at least so many pixels
_PAINT = 0.75  # share of a class' colour over the grey value


@dataclass(frozen=True)
class Measure:
    """A score that validations find for each class.

    Attributes
    ----------
    title
        What it is.
    where
        Of what.
    path
        Words that lead to it in an entry of the history: class -> score, or what has an ``f1``.
    """

    title: str
    where: str
    path: tuple[str, ...]

    def of(self, row: Mapping[str, Any]) -> dict[str, float | None]:
        """Return class -> score in an entry of the history; nothing if it was not looked for."""
        found: Any = row
        for word in self.path:
            found = found.get(word, {})
        return {
            name: value["f1"] if isinstance(value, Mapping) else value for name, value in dict(found).items()
        }


#: What a training on a corpus looks for.
MEASURES = (
    Measure("F1 of picks", "on held-out tomograms", ("picks",)),
    Measure("F1 of voxels", "on held-out tomograms", ("f1",)),
)


@dataclass(frozen=True)
class Facts:
    """What the page says besides curves.

    Attributes
    ----------
    title
        Name of the model.
    lead
        One sentence.
    classes
        Names, in the order of the network's outputs.
    steps
        That there will be, at most.
    batch
        Patches of a step.
    table
        Word -> value, for the end of the page.
    measures
        What validations find.
    """

    title: str
    lead: str
    classes: Sequence[str]
    steps: int
    batch: int
    table: Mapping[str, str]
    measures: Sequence[Measure] = MEASURES


@dataclass(frozen=True)
class ChartLine:
    """A line of a chart: a CSS class for its colour, words for the legend, its points."""

    kind: str
    words: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


def page(state: State, facts: Facts, previews: Sequence[Preview] = (), *, done: bool = False) -> str:
    """Make the page.

    Parameters
    ----------
    state
        Of the training.
    facts
        What does not change.
    previews
        Planes to show.
    done
        Whether the training is over.

    Returns
    -------
    str
        HTML with its style and pictures inside.
    """
    style = files("tltrain.reporting").joinpath("page.css").read_text(encoding="utf-8")
    refresh = "" if done else f'<meta http-equiv="refresh" content="{REFRESH}">\n'
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    body = [
        f"<h1>{escape(facts.title)}</h1>",
        f'<p class="lead">{escape(facts.lead)}</p>',
        _state(state, facts, done),
        _cards(state, facts),
        _curves(state, facts),
        _planes(previews, facts.classes, done),
        _facts(facts.table),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{refresh}<title>{escape(facts.title)}: training</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(part for part in body if part)}\n</main>\n</body>\n</html>\n"
    )


def _state(state: State, facts: Facts, done: bool) -> str:
    share = 100 * state.step / max(facts.steps, 1)
    rate = state.step * facts.batch / state.seconds if state.seconds else 0.0
    left = state.seconds / max(state.step, 1) * (facts.steps - state.step)
    words = [f"step {state.step:,} of {facts.steps:,}", f"{duration(state.seconds)} so far"]
    if rate:
        words.append(f"{rate:.1f} patches/s, validation included")
    if state.stopped:
        words.append(f"stopped: {state.stopped}")
    elif done:
        words.append("finished")
    elif state.step:
        words.append(f"about {duration(left)} left")
    return (
        f'<div class="state{" done" if done or state.stopped else ""}"><div class="bar">'
        f'<i style="width:{share:.1f}%"></i></div><p>{escape(" · ".join(words))}</p></div>'
    )


def _cards(state: State, facts: Facts) -> str:
    cards: list[tuple[str, str, str, int | None]] = []
    losses = [row["loss"] for row in state.history if row["loss"] is not None]
    if losses:
        cards.append(("loss", f"{losses[-1]:.3f}", "of the last steps", None))
    best = next((row for row in state.history if row["step"] == state.best_step), {})
    for k, name in enumerate(facts.classes):
        for measure in facts.measures:
            found = measure.of(best)
            if name in found:
                note = f"{measure.where}, of step {best['step']}"
                cards.append((f"{measure.title}, {name}", _share(found[name]), note, k))
    if not cards:
        return ""
    body = [
        f'<div class="card{"" if k is None else f" c{k % len(PALETTE)}"}">'
        f'<div class="label">{escape(label)}</div>'
        f'<div class="value">{escape(value)}</div><div class="label">{escape(note)}</div></div>'
        for label, value, note, k in cards
    ]
    return f'<div class="cards">{"".join(body)}</div>'


def _curves(state: State, facts: Facts) -> str:
    if not state.history:
        return ""
    rows = state.history
    charts = [
        (
            "Loss",
            chart("loss", [ChartLine("loss", "loss", _points(rows, lambda row: row["loss"]))], facts.steps),
        ),
    ]
    best = state.best_step if state.best_score is not None else None
    for measure in facts.measures:
        curves = [
            ChartLine(f"c{k % len(PALETTE)}", name, _points(rows, _value(measure, name)), dots=True)
            for k, name in enumerate(facts.classes)
            if any(name in measure.of(row) for row in rows)
        ]
        if curves:
            title = f"{measure.title}, {measure.where}"
            charts.append((title, chart(title, curves, facts.steps, share=True, mark=best)))
    if any("learning_rate" in row for row in rows):
        points = _points(rows, lambda row: row.get("learning_rate"))
        charts.append(
            (
                "Learning rate",
                chart("learning rate", [ChartLine("rate", "learning rate", points)], facts.steps),
            )
        )
    body = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{picture}</figure>" for title, picture in charts
    )
    return f'<section><h2>Curves</h2><div class="charts">{body}</div></section>'


def _value(measure: Measure, name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: measure.of(row).get(name)


def _points(
    rows: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float | None]
) -> list[tuple[float, float]]:
    pairs = ((float(row["step"]), value(row)) for row in rows)
    return [(step, y) for step, y in pairs if y is not None and math.isfinite(y)]


def chart(
    title: str, curves: Sequence[ChartLine], steps: int, *, share: bool = False, mark: int | None = None
) -> str:
    """Draw curves over the steps of a training as SVG.

    Parameters
    ----------
    title
        For people who cannot see the picture.
    curves
        What to draw.
    steps
        End of the axis.
    share
        Whether the values lie between 0 and 1; else the axis begins at 0 and ends above the largest.
    mark
        A step to mark, with the word "best".

    Returns
    -------
    str
        An ``svg`` element, with a legend if there are several curves.
    """
    values = [y for curve in curves for _, y in curve.points]
    if not values:
        return '<p class="quiet">Nothing yet.</p>'
    top = 1.0 if share else _round_up(float(np.percentile(values, 99)) if len(values) > 20 else max(values))

    def x(step: float) -> float:
        return _LEFT + step / max(steps, 1) * (_RIGHT - _LEFT)

    def y(value: float) -> float:
        return _BOTTOM - min(value / top, 1.02) * (_BOTTOM - _TOP)

    body = []
    for k in range(5):
        at = y(top * k / 4)
        body.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_RIGHT}"/>')
        body.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{top * k / 4:.3g}</text>')
    for k in range(5):
        step = steps * k / 4
        anchor = "middle" if k < 4 else "end"
        body.append(f'<text x="{x(step):.1f}" y="{_BOTTOM + 18}" text-anchor="{anchor}">{step:,.0f}</text>')
    middle = (_LEFT + _RIGHT) / 2
    body.append(f'<text x="{middle}" y="{_BOTTOM + 36}" text-anchor="middle">step</text>')
    if mark is not None:
        body.append(f'<path class="mark" d="M{x(mark):.1f} {_TOP}V{_BOTTOM}"/>')
        side, shift = ("end", -5) if x(mark) > middle else ("start", 5)
        body.append(
            f'<text class="mark" x="{x(mark) + shift:.1f}" y="{_BOTTOM - 6}" text-anchor="{side}">best</text>'
        )
    for curve in curves:
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve.points)
        body.append(f'<polyline class="{curve.kind}" points="{points}"/>')
        if curve.dots:
            body += [
                f'<circle class="{curve.kind}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.6">'
                f"<title>{escape(f'{curve.words}, step {a:.0f}: {b:.3f}')}</title></circle>"
                for a, b in curve.points
            ]
    keys = "".join(f'<li><i class="{curve.kind}"></i>{escape(curve.words)}</li>' for curve in curves)
    legend = f'<ul class="keys">{keys}</ul>' if len(curves) > 1 else ""
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg>{legend}"
    )


def _planes(previews: Sequence[Preview], classes: Sequence[str], done: bool) -> str:
    if not previews:
        return ""
    shown = "".join(_plane(preview) for preview in previews)
    network = "that is kept" if done else "of the last validation"
    keys = "".join(
        f'<li><i class="c{k % len(PALETTE)}"></i>{escape(name)}</li>' for k, name in enumerate(classes)
    )
    return (
        "<section><h2>What the network sees</h2>"
        f'<p class="quiet">By the network {network}. No tomogram shown here was trained on.</p>'
        f'{shown}<ul class="keys">{keys}</ul></section>'
    )


def _plane(preview: Preview) -> str:
    grey = grey_levels(preview.grey)
    pictures = [
        ("The tomogram", np.repeat(grey[..., None], 3, axis=-1)),
        (preview.called, painted(grey, preview.truth)),
        ("Prediction", painted(grey, preview.found)),
    ]
    shown = "".join(
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{png(_enlarged(picture))}">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
        for title, picture in pictures
    )
    return f'<p class="quiet">{escape(preview.title)}</p><div class="planes">{shown}</div>'


def grey_levels(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn normalised grey values into 8 bits: three spreads to either side."""
    return np.clip((grey + 3) / 6 * 255, 0, 255).astype(np.uint8)


def painted(grey: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Paint classes over grey values.

    Parameters
    ----------
    grey
        (y, x) grey values.
    labels
        (y, x) classes; 0 is left grey.

    Returns
    -------
    ndarray
        (y, x, 3) colours.
    """
    colours = np.array(PALETTE, np.float32)[(labels.astype(int) - 1) % len(PALETTE)]
    mixed = (1 - _PAINT) * grey[..., None] + _PAINT * colours
    return np.where(labels[..., None] > 0, mixed, grey[..., None]).astype(np.uint8)


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat pixels: a browser would smooth them, and hide what the network decided on."""
    times = max(_ENLARGED // max(picture.shape[:2]), 1)
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _facts(table: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{escape(word)}</th><td>{escape(value)}</td></tr>" for word, value in table.items()
    )
    return f'<section><h2>How</h2><table class="facts">{rows}</table></section>'


def _share(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.3f}"


def _round_up(value: float) -> float:
    """Give the next of 1, 1.5, 2, 3, 4, 6, 8 times a power of ten: a quarter of it is a round number."""
    if not value > 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(k * unit for k in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if k * unit >= value)
