"""One HTML page that shows a score: slices with picks and truth, curves, tables; it needs no network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.matching import Curve, Evaluation, Score
from catalogs.volumes import open_volume
from tlpick.orthoview import orthoview, slices_averaged

#: Tomograms that are shown; the tables hold all.
SHOWN = 6


@dataclass(frozen=True)
class Tomogram:
    """A tomogram of the page: its name in the tables, one for people, and where to read it."""

    name: str
    title: str
    path: str | None
    voxel_size: float | None


@dataclass(frozen=True, eq=False)
class Page:
    """All that the page says.

    Attributes
    ----------
    evaluation
        Picks against truth.
    curves
        Class -> precision, recall and F1 over the score; classes whose picks have no score are absent.
    tomograms
        That were scored.
    notes
        Sentences that a reader must not miss.
    facts
        How it came about, word -> value.
    """

    evaluation: Evaluation
    curves: Mapping[str, Curve]
    tomograms: Sequence[Tomogram]
    notes: Sequence[str]
    facts: Mapping[str, str]


def render(page: Page) -> str:
    """Write the page.

    Returns
    -------
    str
        HTML with its style and pictures inside.
    """
    scores = page.evaluation.scores
    overall = _pooled(scores)
    titles = [tomogram.title for tomogram in page.tomograms]
    where = titles[0] if len(titles) == 1 else f"{len(titles)} tomograms"
    names = ", ".join(score.class_name for score in scores)
    parts = [
        f"<h1>{escape(names)} in {escape(where)}</h1>",
        f'<p class="lead">{overall.n_found} of {overall.n_truth} particles found, '
        f"{overall.n_picks - overall.n_found} of {overall.n_picks} picks false</p>",
        _cards(overall),
        _notes(page.notes),
        *(_slices(tomogram, page.evaluation) for tomogram in page.tomograms[:SHOWN]),
        _more(len(page.tomograms) - SHOWN),
        *(_curve(name, curve, len(scores)) for name, curve in page.curves.items()),
        _class_table(scores) if len(scores) > 1 else "",
        _tomogram_table(page) if len(page.tomograms) > 1 else "",
        _facts(page.facts),
        "<footer>A pick finds a particle if it is of its class and within the stated distance; picks and "
        "particles are joined one to one by the Hungarian method, so a second pick of a particle is false."
        "</footer>",
    ]
    style = files("tlpick").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>F1 {_share(overall.f1)}: {escape(names)} in {escape(where)}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _pooled(scores: Sequence[Score]) -> Score:
    """Add up the classes."""
    found = sum(score.n_found for score in scores)
    far = sum(score.mean_distance * score.n_found for score in scores if score.n_found)
    return Score(
        class_name=", ".join(score.class_name for score in scores),
        radius=max(score.radius for score in scores),
        n_picks=sum(score.n_picks for score in scores),
        n_truth=sum(score.n_truth for score in scores),
        n_found=found,
        mean_distance=far / found if found else math.nan,
    )


def _cards(score: Score) -> str:
    cards = []
    for kind, label, value in (
        ("f1", "F1", score.f1),
        ("precision", "Precision", score.precision),
        ("recall", "Recall", score.recall),
    ):
        width = 0 if math.isnan(value) else 100 * value
        cards.append(
            f'<div class="card {kind}"><div class="label">{label}</div>'
            f'<div class="value">{_share(value)}</div>'
            f'<div class="meter"><i style="width:{width:.0f}%"></i></div></div>'
        )
    distance = "n/a" if math.isnan(score.mean_distance) else f"{score.mean_distance:.1f} <small>Å</small>"
    cards += [
        f'<div class="card"><div class="label">Found</div><div class="value">{score.n_found} '
        f"<small>of {score.n_truth}</small></div></div>",
        f'<div class="card"><div class="label">Mean distance</div><div class="value">{distance}</div></div>',
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    sentences = (f"<p>{escape(note[:1].upper() + note[1:])}.</p>" for note in notes)
    return f'<section class="note">{"".join(sentences)}</section>'


def _slices(tomogram: Tomogram, evaluation: Evaluation) -> str:
    radii = {score.class_name: score.radius for score in evaluation.scores}
    heading = f"<h2>{escape(tomogram.title)}</h2>"
    try:
        if tomogram.path is None:
            raise InputError("the picks do not say where the tomogram is")
        volume = open_volume(tomogram.path)
        voxel_size = tomogram.voxel_size or volume.voxel_size
        if voxel_size is None:
            raise InputError(f"{tomogram.path} does not say its voxel size")
    except InputError as error:
        return f'<section>{heading}<p class="quiet">No slices: {escape(str(error))}.</p></section>'
    picks, truth = evaluation.picks, evaluation.truth
    picture = orthoview(
        volume,
        voxel_size,
        picks[picks["tomogram"] == tomogram.name],
        truth[truth["tomogram"] == tomogram.name],
        radii,
    )
    averaged = slices_averaged(voxel_size, radii)
    thick = f", each the mean of {averaged} slices ({averaged * voxel_size:.0f} Å)" if averaged > 1 else ""
    return (
        f'<section>{heading}<p class="quiet">Three planes through the middle{thick}. '
        "A circle is where the plane cuts a particle's sphere; point at one for its place and score.</p>"
        f"{picture}{_LEGEND}</section>"
    )


def _key(kind: str, words: str, more: str = "") -> str:
    mark = f'<g class="{kind}"><circle cx="15" cy="15" r="9"/>{more}</g>'
    return f'<li><svg viewBox="0 0 30 30" aria-hidden="true">{mark}</svg>{words}</li>'


_LEGEND = (
    '<ul class="legend">'
    + _key("pick paired", "pick of a particle")
    + _key("pick alone", "false pick", '<path d="M11 11l8 8m0 -8l-8 8"/>')
    + _key("truth paired", "particle, found")
    + _key("truth alone", "particle, missed")
    + "</ul>"
)


def _more(n: int) -> str:
    return f'<p class="quiet">{n} more tomograms are in the tables only.</p>' if n > 0 else ""


def _curve(name: str, curve: Curve, n_classes: int) -> str:
    """Draw precision, recall and F1 over the least score."""
    if len(curve.thresholds) < 2:
        return ""
    left, right, top, bottom = 46.0, 890.0, 14.0, 270.0
    low, high = float(curve.thresholds[0]), float(curve.thresholds[-1])

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    def y(value: float) -> float:
        return bottom - value * (bottom - top)

    body = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        body.append(f'<path class="grid" d="M{left} {y(tick):.1f}H{right}"/>')
        body.append(f'<text x="{left - 10}" y="{y(tick) + 4.5:.1f}" text-anchor="end">{tick:g}</text>')
    for value in _ticks(low, high):
        body.append(f'<text x="{x(value):.1f}" y="{bottom + 20}" text-anchor="middle">{value:g}</text>')
    body.append(
        f'<text x="{(left + right) / 2}" y="{bottom + 42}" text-anchor="middle">least score of a pick</text>'
    )
    if np.isfinite(curve.f1).any():
        best = int(np.nanargmax(curve.f1))
        at, f1 = float(curve.thresholds[best]), float(curve.f1[best])
        body.append(f'<path class="best" d="M{x(at):.1f} {top}V{bottom}"/>')
    ends = []
    for kind, word, values in (
        ("precision", "precision", curve.precision),
        ("recall", "recall", curve.recall),
        ("f1", "F1", curve.f1),
    ):
        if np.isfinite(values).all():
            line = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in zip(curve.thresholds, values, strict=True))
            body.append(f'<polyline class="curve {kind}" points="{line}"/>')
            ends.append((y(float(values[-1])), kind, word))
    for place, kind, word in _apart(ends, 17.0, bottom):
        body.append(f'<text class="{kind}" x="{right + 12}" y="{place + 4.5:.1f}">{word}</text>')
    said = ""
    if np.isfinite(curve.f1).any():
        body.append(f'<circle cx="{x(at):.1f}" cy="{y(f1):.1f}" r="5"/>')
        said = (
            f"F1 is highest, {f1:.2f}, with all picks."
            if best == 0
            else f"F1 would be highest, {f1:.2f}, with picks that score at least {at:.2f}; chosen by this "
            "very truth, so expect less elsewhere."
        )
    said += " The score of a pick is the mean target probability over its voxels."
    title = "Choosing a threshold" + (f": {escape(name)}" if n_classes > 1 else "")
    return (
        f'<section><h2>{title}</h2><p class="quiet">{said}</p>'
        f'<svg class="plot" viewBox="0 0 970 320" role="img" aria-label="{title}">{"".join(body)}</svg>'
        "</section>"
    )


def _ticks(low: float, high: float) -> NDArray[np.float64]:
    """Round numbers between two values, about six of them."""
    rough = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    return np.round(np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step, 10)


def _apart(
    labels: Iterable[tuple[float, str, str]], least: float, bottom: float
) -> list[tuple[float, str, str]]:
    """Move labels up or down a little so that none covers another."""
    placed: list[tuple[float, str, str]] = []
    for place, kind, word in sorted(labels):
        placed.append((max(place, placed[-1][0] + least) if placed else place, kind, word))
    over = max(0.0, placed[-1][0] - bottom) if placed else 0.0
    return [(place - over, kind, word) for place, kind, word in placed]


def _class_table(scores: Sequence[Score]) -> str:
    rows = [_row(score.class_name, score, f"{score.radius:.0f} Å") for score in scores]
    return f"<section><h2>By class</h2>{_table('Class', rows, 'Within')}</section>"


def _tomogram_table(page: Page) -> str:
    rows = []
    for tomogram in page.tomograms:
        picks, truth = (
            table[table["tomogram"] == tomogram.name]
            for table in (page.evaluation.picks, page.evaluation.truth)
        )
        found = picks[picks["partner"] >= 0]
        distance = float(found["distance"].mean()) if len(found) else math.nan
        rows.append(
            _row(tomogram.title, Score(tomogram.name, 0.0, len(picks), len(truth), len(found), distance))
        )
    return f"<section><h2>By tomogram</h2>{_table('Tomogram', rows)}</section>"


def _row(title: str, score: Score, *more: str) -> str:
    distance = "n/a" if math.isnan(score.mean_distance) else f"{score.mean_distance:.1f} Å"
    cells = [
        escape(title),
        *(_share(value) for value in (score.f1, score.precision, score.recall)),
        str(score.n_found),
        str(score.n_truth),
        str(score.n_picks),
        distance,
        *more,
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _table(first: str, rows: Sequence[str], *more: str) -> str:
    names = (first, "F1", "Precision", "Recall", "Found", "Particles", "Picks", "Mean distance", *more)
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{escape(word)}</th><td>{escape(value)}</td></tr>" for word, value in facts.items()
    )
    return f'<section><h2>How it was made</h2><table class="facts">{rows}</table></section>'


def _share(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"
