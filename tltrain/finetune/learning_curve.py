"""Learning curve: fine-tune a model with more and more annotations, and evaluate on the same tomograms."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.atomic_write import write_text
from catalogs.errors import InputError
from catalogs.model_file import read_card
from catalogs.pages import charts
from catalogs.pages import render as pages
from catalogs.pages.charts import Line
from catalogs.progress import Progress as ProgressBar
from catalogs.progress import Silent
from tlpick.network.tomograms.intake import Preprocessing
from tltrain.finetune.annotations import Annotations
from tltrain.finetune.finetune import baseline, finetune
from tltrain.finetune.settings import FineTuning
from tltrain.finetune.training_material import divide
from tltrain.training.fit import target_of

_log = logging.getLogger(__name__)

TUNED, SCRATCH = "fine-tuned", "from scratch"


@dataclass(frozen=True)
class Point:
    """The result for one number of annotations.

    Attributes
    ----------
    annotations
        Number of annotations for training.
    training
        ``fine-tuned`` or ``from scratch``.
    f1, precision, recall
        On the held-out tomograms, averaged over the classes.
    simulated_f1
        On simulated tomograms; nan where there are none.
    note
        Why the training was stopped; empty if it was not.
    """

    annotations: int
    training: str
    f1: float
    precision: float
    recall: float
    simulated_f1: float
    note: str = ""


def learn(
    model: str | os.PathLike[str],
    annotations: Annotations,
    to: str | os.PathLike[str],
    counts: Sequence[int],
    settings: FineTuning,
    *,
    preprocessing: Preprocessing | None = None,
    held_out: Sequence[str] = (),
    memory: float = 4e9,
    say: Callable[[str], None] = _log.info,
    progress: ProgressBar = Silent,
) -> list[Point]:
    """Fine-tune with several numbers of annotations and compare on held-out tomograms.

    Each set of annotations contains the smaller ones. The held-out tomograms are not used to choose a
    network: the last network of every training counts. The folder ``to`` gets the models, ``curve.csv`` and
    ``curve.html``. If the call is interrupted, repeat it to continue.

    Parameters
    ----------
    model, annotations, settings, terms, held_out, memory, say, progress
        As for :func:`tltrain.finetune.finetune`; with ``settings.from_scratch`` a network is also trained
        from scratch.
    to
        Folder for the models and the figures.
    counts
        Numbers of annotations; 0 is the model as it is.

    Returns
    -------
    list of Point
        In order.

    Raises
    ------
    InputError
        If no tomogram is held out, or there are not enough annotations.
    """
    folder = target_of(to, None)
    if folder.is_file():
        raise InputError(f"{folder} is a file; `to` names the folder of a learning curve")
    train, held = divide(annotations, held_out, enough=2)
    if held is None:
        raise InputError(
            "a learning curve needs a tomogram that is not learned from; give two tomograms or more, and not "
            "`held_out=none`"
        )
    n_train = len(train.table)
    if counts[-1] > n_train:
        raise InputError(
            f"`learning_curve` asks for {counts[-1]} annotations, and {n_train} are there besides the "
            "held-out ones; ask for fewer"
        )
    names = [place.tomogram.name for place in held.places]
    say(f"F1 on {', '.join(names)}: {len(held.table)} annotations that no model sees")
    folder.mkdir(parents=True, exist_ok=True)
    shared = folder / "tomograms.partial"
    points = []
    try:
        for n in counts:
            kinds = [TUNED, SCRATCH] if settings.from_scratch and n else [TUNED]
            for kind in kinds:
                each = replace(settings, annotations=n or None, from_scratch=kind == SCRATCH, keep_last=True)
                options: Any = {
                    "preprocessing": preprocessing,
                    "held_out": names,
                    "memory": memory,
                    "say": say,
                    "prepared": shared,
                }
                if n == 0:
                    facts, note = baseline(model, annotations, each, **options), ""
                else:
                    suffix = "-scratch" if kind == SCRATCH else ""
                    tuned = finetune(
                        model,
                        annotations,
                        folder / f"{n:04d}{suffix}.tlm",
                        each,
                        progress=progress,
                        **options,
                    )
                    facts, note = tuned.card.training["fine_tuning"]["after"], tuned.forgot
                points.append(_point(n, kind, facts, note))
                _write(folder, read_card(model).name, points)
    except InputError:
        shutil.rmtree(shared, ignore_errors=True)
        if not any(folder.iterdir()):  # nothing was made before it was refused
            folder.rmdir()
        raise
    shutil.rmtree(shared, ignore_errors=True)
    for line in table(points):
        say(line)
    say(f"wrote {folder / 'curve.csv'} and {folder / 'curve.html'}")
    return points


def table(points: Sequence[Point]) -> list[str]:
    """Write the points as lines of a table."""
    lines = ["annotations  training      F1     precision  recall  F1 simulated"]
    for point in points:
        f1, precision, recall, simulated = (_number(value) for value in _shares(point))
        figures = f"{f1}  {precision:9s}  {recall:6s}  {simulated}  {point.note}".rstrip()
        lines.append(f"{point.annotations:11d}  {point.training:12s}  {figures}")
    return lines


def _point(n: int, kind: str, facts: dict[str, Any], note: str) -> Point:
    held = facts["held_out"]
    return Point(
        annotations=n,
        training=kind,
        f1=held["f1"],
        precision=math.nan if held["precision"] is None else held["precision"],
        recall=math.nan if held["recall"] is None else held["recall"],
        simulated_f1=facts["simulated"]["f1"] if "simulated" in facts else math.nan,
        note=note,
    )


def _write(folder: Path, name: str, points: Sequence[Point]) -> None:
    out = io.StringIO()
    rows = csv.writer(out)
    columns = [field.name for field in fields(Point)]
    rows.writerow(columns)
    rows.writerows([getattr(point, column) for column in columns] for point in points)
    for file, text in (("curve.csv", out.getvalue()), ("curve.html", page(name, points))):
        write_text(folder / file, text)


# ---------------------------------------------------------------- the page

_KINDS = {TUNED: "tuned", SCRATCH: "scratch"}


def page(name: str, points: Sequence[Point]) -> str:
    """Draw the curve on a self-contained page."""
    lines = []
    for training, kind in _KINDS.items():
        known = [(point.annotations, point.f1) for point in points if point.training == training]
        if known:
            xy = np.array(known, np.float64)
            lines.append(Line(kind, training, xy[:, 0], xy[:, 1], dots=True))
    numbers = sorted({point.annotations for point in points})
    rows = [
        (point.annotations, point.training, *(_number(value) for value in _shares(point)), point.note)
        for point in points
    ]
    return pages.page(
        "learning_curve.html",
        title=f"Learning curve of {name}",
        chart=charts.lines("F1 over annotations", "annotations", lines, low=0, top=1, at=numbers),
        words=("annotations", "training", "F1", "precision", "recall", "F1 simulated", ""),
        rows=rows,
    )


def _shares(point: Point) -> tuple[float, ...]:
    return point.f1, point.precision, point.recall, point.simulated_f1


def _number(value: float) -> str:
    return " n/a " if math.isnan(value) else f"{value:.3f}"
