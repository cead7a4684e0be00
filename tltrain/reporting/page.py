"""The page of a training: curves, and a plane of a held-out tomogram with truth and prediction.

It is one file without scripts; a browser reloads it every few seconds during the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.amounts import duration
from catalogs.pages import charts
from catalogs.pages import render as pages
from catalogs.pages.cards import Card
from catalogs.pages.charts import Chart, Line, Mark
from catalogs.pages.pictures import PALETTE, kind_of, png
from catalogs.pages.render import share
from tltrain.training.checkpoint import State
from tltrain.training.validation import Preview

#: Seconds after which a browser reloads the page.
REFRESH = 5

_ENLARGED = 512  # a plane is shown with at least this many pixels
_PAINT = 0.75  # opacity of a class' colour over the grey value


@dataclass(frozen=True)
class Measure:
    """A score of validations, for each class.

    Attributes
    ----------
    title
        What it is.
    where
        Of what.
    path
        Path in an entry of the history to a mapping class -> score, or class -> mapping with ``f1``.
    """

    title: str
    where: str
    path: tuple[str, ...]

    def of(self, row: Mapping[str, Any]) -> dict[str, float | None]:
        """Return class -> score in an entry of the history; empty if it was not measured."""
        found: Any = row
        for word in self.path:
            found = found.get(word, {})
        return {
            name: value["f1"] if isinstance(value, Mapping) else value for name, value in dict(found).items()
        }


#: Scores of a training on a corpus.
MEASURES = (
    Measure("F1 of picks", "on held-out tomograms", ("picks",)),
    Measure("F1 of voxels", "on held-out tomograms", ("f1",)),
)


@dataclass(frozen=True)
class Facts:
    """What the page shows besides the curves.

    Attributes
    ----------
    title
        Name of the model.
    lead
        One sentence.
    classes
        Names, in the order of the network's outputs.
    steps
        Largest number of steps.
    batch
        Patches of a step.
    table
        Word -> value, for the end of the page.
    measures
        Scores of validations.
    """

    title: str
    lead: str
    classes: Sequence[str]
    steps: int
    batch: int
    table: Mapping[str, str]
    measures: Sequence[Measure] = MEASURES


def page(state: State, facts: Facts, previews: Sequence[Preview] = (), *, done: bool = False) -> str:
    """Make the page.

    Parameters
    ----------
    state
        Of the training.
    facts
        Constant content of the page.
    previews
        Planes to show.
    done
        Whether the training is over.

    Returns
    -------
    str
        HTML with its style and pictures inside.
    """
    shown = []
    for preview in previews:
        pictures = [(name, png(_enlarged(picture))) for name, picture in _pictures(preview)]
        shown.append({"title": preview.title, "pictures": pictures})
    return pages.page(
        "training.html",
        title=facts.title,
        lead=facts.lead,
        refresh=None if done else REFRESH,
        over=done or bool(state.stopped),
        done_share=state.step / max(facts.steps, 1),
        state=_state(state, facts, done),
        cards=_cards(state, facts),
        curves=_curves(state, facts),
        planes=shown,
        network="that is kept" if done else "of the last validation",
        classes=[(name, kind_of(k)) for k, name in enumerate(facts.classes)],
        facts=facts.table,
    )


def _state(state: State, facts: Facts, done: bool) -> list[str]:
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
    return words


def _cards(state: State, facts: Facts) -> list[Card]:
    cards = []
    losses = [row["loss"] for row in state.history if row["loss"] is not None]
    if losses:
        cards.append(Card("loss", f"{losses[-1]:.3f}", note="of the last steps"))
    best = next((row for row in state.history if row["step"] == state.best_step), {})
    for k, name in enumerate(facts.classes):
        for measure in facts.measures:
            found = measure.of(best)
            if name in found:
                note = f"{measure.where}, of step {best['step']}"
                label = f"{measure.title}, {name}"
                cards.append(Card(label, share(found[name], 3), kind=kind_of(k), note=note))
    return cards


def _curves(state: State, facts: Facts) -> list[tuple[str, Chart]]:
    if not state.history:
        return []
    rows = state.history
    loss = [_line("loss", "loss", rows, lambda row: row["loss"])]
    shown = [("Loss", charts.lines("loss", "step", loss, low=0, high=facts.steps))]
    best = [Mark(state.best_step, "best")] if state.best_score is not None else []
    for measure in facts.measures:
        lines = [
            _line(kind_of(k), name, rows, _value(measure, name), dots=True)
            for k, name in enumerate(facts.classes)
            if any(name in measure.of(row) for row in rows)
        ]
        if lines:
            title = f"{measure.title}, {measure.where}"
            shown.append((title, charts.lines(title, "step", lines, best, low=0, high=facts.steps, top=1)))
    if any("learning_rate" in row for row in rows):
        rate = [_line("rate", "learning rate", rows, lambda row: row.get("learning_rate"))]
        shown.append(("Learning rate", charts.lines("learning rate", "step", rate, low=0, high=facts.steps)))
    return shown


def _value(measure: Measure, name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: measure.of(row).get(name)


def _line(
    kind: str,
    words: str,
    rows: Sequence[Mapping[str, Any]],
    value: Callable[[Mapping[str, Any]], float | None],
    dots: bool = False,
) -> Line:
    known = [(row["step"], y) for row in rows if (y := value(row)) is not None]
    points = np.array(known, np.float64).reshape(-1, 2)
    return Line(kind, words, points[:, 0], points[:, 1], dots)


def _pictures(preview: Preview) -> list[tuple[str, NDArray[np.uint8]]]:
    grey = grey_levels(preview.grey)
    return [
        ("The tomogram", np.repeat(grey[..., None], 3, axis=-1)),
        (preview.called, painted(grey, preview.truth)),
        ("Prediction", painted(grey, preview.found)),
    ]


def grey_levels(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert normalised grey values into 8 bits, from -3 to 3 spreads."""
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
    """Enlarge by repeating pixels, because a browser would smooth them."""
    times = max(_ENLARGED // max(picture.shape[:2]), 1)
    return picture.repeat(times, axis=0).repeat(times, axis=1)
