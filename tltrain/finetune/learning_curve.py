"""How much annotating pays: a model fine-tuned with more and more annotations, judged on the same ones."""

from __future__ import annotations

import csv
import html
import io
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from catalogs.errors import InputError
from catalogs.model_file import read_card
from catalogs.progress import Progress as ProgressBar
from catalogs.progress import Silent
from tlpick.network.tomograms.intake import Preprocessing
from tltrain.finetune.annotations import Annotations
from tltrain.finetune.data import divide
from tltrain.finetune.finetune import baseline, finetune
from tltrain.finetune.settings import FineTuning
from tltrain.training.fit import target_of

_log = logging.getLogger(__name__)

TUNED, SCRATCH = "fine-tuned", "from scratch"


@dataclass(frozen=True)
class Point:
    """What a number of annotations gives.

    Attributes
    ----------
    annotations
        That were learned from.
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
    """Fine-tune with several numbers of annotations and compare on tomograms that none of them saw.

    Each number's annotations are among those of the next. The held-out tomograms choose nothing: of every
    training the last network counts. Models, ``curve.csv`` and ``curve.html`` are left in the folder ``to``;
    the same call goes on where another was interrupted.

    Parameters
    ----------
    model, annotations, settings, terms, held_out, memory, say, progress
        As for :func:`tltrain.finetune.finetune`; with ``settings.from_scratch`` both are done, fine-tuning
        and training from scratch.
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
        If no tomogram is held out, or there are not so many annotations.
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
    """Say the points in lines."""
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
        unfinished = folder / f".{file}"
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, folder / file)


# ---------------------------------------------------------------- the page

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 560, 340, 56, 48
_COLOURS = {TUNED: "#1f6f8b", SCRATCH: "#b5651d"}


def page(name: str, points: Sequence[Point]) -> str:
    """Draw the curve; a page that needs nothing else."""
    most = max([point.annotations for point in points] or [1]) or 1
    right, top = _WIDTH - 16, 16
    bottom = _HEIGHT - _BOTTOM

    def x(n: float) -> float:
        return _LEFT + (right - _LEFT) * n / most

    def y(f1: float) -> float:
        return bottom - (bottom - top) * f1

    parts = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for n in sorted({point.annotations for point in points}):
        parts.append(f'<text x="{x(n):.1f}" y="{bottom + 18}" text-anchor="middle">{n}</text>')
    parts.append(
        f'<text x="{(_LEFT + right) / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">annotations</text>'
    )
    parts.append(
        f'<text transform="translate(14 {(top + bottom) / 2:.1f}) rotate(-90)" text-anchor="middle">F1</text>'
    )
    for kind, colour in _COLOURS.items():
        line = [point for point in points if point.training == kind and not math.isnan(point.f1)]
        if not line:
            continue
        path = " ".join(f"{x(p.annotations):.1f},{y(p.f1):.1f}" for p in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for p in line:
            at = f'cx="{x(p.annotations):.1f}" cy="{y(p.f1):.1f}"'
            parts.append(
                f'<circle {at} r="4" fill="{colour}"><title>{p.annotations}: {p.f1:.3f}</title></circle>'
            )
    legend = " ".join(
        f'<span style="color:{colour}">● {kind}</span>'
        for kind, colour in _COLOURS.items()
        if any(point.training == kind for point in points)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(str(value))}</td>"
            for value in (
                point.annotations,
                point.training,
                *(_number(value) for value in _shares(point)),
                point.note,
            )
        )
        + "</tr>"
        for point in points
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Learning curve of {html.escape(name)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222 }}
body {{ margin: 2rem auto; max-width: 44rem; padding: 0 1rem }}
svg {{ width: 100%; height: auto }} svg text {{ font: 13px system-ui, sans-serif; fill: #444 }}
.grid {{ stroke: #ddd }} table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #ddd }}
</style>
<h1>Learning curve of {html.escape(name)}</h1>
<p>F1 of picks on annotated tomograms that no model has seen. {legend}</p>
<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="F1 over annotations">{"".join(parts)}</svg>
<table><tr><th>annotations<th>training<th>F1<th>precision<th>recall<th>F1 simulated<th></tr>{rows}</table>
</html>
"""


def _shares(point: Point) -> tuple[float, ...]:
    return point.f1, point.precision, point.recall, point.simulated_f1


def _number(value: float) -> str:
    return " n/a " if math.isnan(value) else f"{value:.3f}"
