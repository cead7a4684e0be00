"""One HTML page for a run, with or without truth: slices, charts, the best and the worst picks, settings.

It needs no network and no program: style, script and pictures are inside. Without its script everything is
there but the slider through the depth and the boxes that hide a class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from catalogs.errors import InputError
from catalogs.volumes import open_volume
from tlpick.batch.files import REPORT, write_text
from tlpick.batch.run_folder import read_picks
from tlpick.evaluation.matching import Score
from tlpick.output.charts import share
from tlpick.output.orthoview import COLOURS, orthoview, slices_averaged
from tlpick.output.page import Page, Tomogram, page_of
from tlpick.output.previews import best_and_worst, distances, per_tomogram, scores, sizes
from tlpick.output.report_quality import quality

#: Tomograms that are shown in slices; charts and tables hold all.
SHOWN = 4
# The browser itself refuses whatever this page might ask of the network.
_NOTHING_FROM_OUTSIDE = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
#: Rows of the table of tomograms.
ROWS = 500


def write_report(folder: str | Path) -> Path:
    """Write the report of a run's folder from what lies in it; returns where.

    Raises
    ------
    InputError
        If it is not the folder of a run.
    """
    picks = read_picks(str(folder))
    path = Path(folder) / REPORT
    write_text(path, render(page_of(picks, picks.tomograms)))
    return path


def render(page: Page) -> str:
    """Write the page.

    Returns
    -------
    str
        HTML with its style, script and pictures inside.
    """
    title, lead = _title(page)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(lead)}</p>',
        _cards(page),
        _notes(page.result.notes if page.result else ()),
        _failures(page.run.get("failed", [])),
        _thresholds(page.run.get("thresholds", {})),
        _legend(page),
        *(_slices(tomogram, page) for tomogram in page.tomograms[:SHOWN]),
        _more(len(page.tomograms) - SHOWN),
        scores(page),
        *(quality(page) if page.result else ()),
        per_tomogram(page),
        distances(page),
        sizes(page),
        *(best_and_worst(name, page) for name in page.radii),
        _tomogram_table(page),
        _facts_table(page.facts),
        _footer(page),
    ]
    style, script = (
        files("tlpick.output").joinpath(name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js")
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_OUTSIDE}">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + f"\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _title(page: Page) -> tuple[str, str]:
    where = page.tomograms[0].title if len(page.tomograms) == 1 else f"{len(page.tomograms)} tomograms"
    names = ", ".join(page.radii) or "particles"
    if page.result is not None:
        overall = _pooled(page.result.evaluation.scores)
        return f"{names} in {where}", (
            f"{overall.n_found} of {overall.n_truth} particles found, "
            f"{overall.n_picks - overall.n_found} of {overall.n_picks} picks false"
        )
    flagged = int((page.picks["flags"] == "border").sum()) if "flags" in page.picks else 0
    border = f", {flagged} of them within a radius of a face of the volume" if flagged else ""
    return f"{names} in {where}", f"{len(page.picks)} picks{border}"


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


def _cards(page: Page) -> str:
    cards = []
    if page.result is not None:
        score = _pooled(page.result.evaluation.scores)
        for kind, label, value in (
            ("f1", "F1", score.f1),
            ("precision", "Precision", score.precision),
            ("recall", "Recall", score.recall),
        ):
            width = 0 if math.isnan(value) else 100 * value
            cards.append(
                f'<div class="card {kind}"><div class="label">{label}</div>'
                f'<div class="value">{share(value)}</div>'
                f'<div class="meter"><i style="width:{width:.0f}%"></i></div></div>'
            )
        cards += [
            _card("Found", f"{score.n_found} <small>of {score.n_truth}</small>"),
            _card("Mean distance", _angstrom(score.mean_distance)),
        ]
    else:
        for k, name in enumerate(page.radii):
            n = int((page.picks["class_name"] == name).sum())
            cards.append(_card(escape(name), str(n), f" c{k % COLOURS}"))
        cards.append(_card("Tomograms", str(len(page.tomograms))))
        seconds = sum(sum(t["seconds"].values()) for t in page.run.get("tomograms", []))
        if seconds:
            cards.append(_card("Time for all", _duration(seconds)))
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(label: str, value: str, kind: str = "") -> str:
    return f'<div class="card{kind}"><div class="label">{label}</div><div class="value">{value}</div></div>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    sentences = (f"<p>{escape(note[:1].upper() + note[1:])}.</p>" for note in notes)
    return f'<section class="note">{"".join(sentences)}</section>'


def _failures(failed: Sequence[Mapping[str, str]]) -> str:
    if not failed:
        return ""
    rows = "".join(f"<li>{escape(each['error'])}</li>" for each in failed)
    n = len(failed)
    return (
        f'<section class="note"><p>{n} tomogram{"s" * (n != 1)} failed and {"are" if n != 1 else "is"} not '
        f"in what follows.</p><ul>{rows}</ul></section>"
    )


def _thresholds(chosen: Mapping[str, Mapping[str, Any]]) -> str:
    if not chosen:
        return ""
    rows = []
    for name, each in chosen.items():
        low, high = each["interval"]
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{each['threshold']:.3f}</td>"
            f"<td>{each['precision']:.2f} <small>({low:.2f} to {high:.2f})</small></td>"
            f"<td>{each['recall']:.2f}</td><td>{each['n_picks']}</td></tr>"
        )
    head = "".join(
        f"<th>{word}</th>"
        for word in ("Class", "Least score", "Expected precision", "Expected recall", "Held-out picks")
    )
    return (
        '<section><h2>Thresholds</h2><p class="quiet">Learnt from held-out tomograms of the corpus; in '
        "parentheses the 90 % interval of the precision by the held-out picks above the threshold. "
        "What real tomograms hold beyond the corpus, they do not know.</p>"
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div></section>'
    )


def _legend(page: Page) -> str:
    keys = []
    if page.result is not None:
        keys = [
            _key("pick paired", "pick of a particle"),
            _key("pick alone", "false pick", '<path d="M11 11l8 8m0 -8l-8 8"/>'),
            _key("truth paired", "particle, found"),
            _key("truth alone", "particle, missed"),
        ]
    if page.result is None or len(page.radii) > 1:
        for k, name in enumerate(page.radii):
            mark = "" if page.result is not None else _swatch(f"pick plain c{k % COLOURS}")
            keys.append(
                f'<li><label hidden><input type="checkbox" checked data-toggle="c{k % COLOURS}"> </label>'
                f"{mark}{escape(name)}</li>"
            )
    return f'<ul class="legend">{"".join(keys)}</ul>'


def _swatch(kind: str, more: str = "") -> str:
    mark = f'<g class="{kind}"><circle cx="15" cy="15" r="9"/>{more}</g>'
    return f'<svg viewBox="0 0 30 30" aria-hidden="true">{mark}</svg>'


def _key(kind: str, words: str, more: str = "") -> str:
    return f"<li>{_swatch(kind, more)}{words}</li>"


def _slices(tomogram: Tomogram, page: Page) -> str:
    heading = f"<h2>{escape(tomogram.title)}</h2>"
    try:
        if tomogram.path is None:
            raise InputError("the picks do not say where the tomogram is")
        volume = open_volume(tomogram.path, voxel_size=tomogram.voxel_size)
        voxel_size = tomogram.voxel_size or volume.voxel_size
        if voxel_size is None:
            raise InputError(f"{tomogram.path} does not say its voxel size")
    except InputError as error:
        return f'<section>{heading}<p class="quiet">No slices: {escape(str(error))}.</p></section>'
    picture = orthoview(
        volume,
        voxel_size,
        page.picks[page.picks["tomogram"] == tomogram.name],
        None if page.truth is None else page.truth[page.truth["tomogram"] == tomogram.name],
        page.radii,
    )
    averaged = slices_averaged(voxel_size, page.radii)
    thick = f", each the mean of {averaged} slices ({averaged * voxel_size:.0f} Å)" if averaged > 1 else ""
    return (
        f'<section>{heading}<p class="quiet">Three planes{thick}; the others pass through the middle. '
        "A circle is where the plane cuts a particle's sphere; point at one for its place and score.</p>"
        f"{picture}</section>"
    )


def _more(n: int) -> str:
    return f'<p class="quiet">{n} more tomograms are in the charts and tables only.</p>' if n > 0 else ""


def _tomogram_table(page: Page) -> str:
    if len(page.tomograms) < 2:
        return ""
    by_name = dict(list(page.picks.groupby("tomogram")))
    there = dict(list(page.truth.groupby("tomogram"))) if page.truth is not None else {}
    seconds = {str(t["name"]): sum(t["seconds"].values()) for t in page.run.get("tomograms", [])}
    rows = []
    for tomogram in page.tomograms[:ROWS]:
        ours = by_name.get(tomogram.name, page.picks[:0])
        cells = [escape(tomogram.title)]
        if page.truth is not None:
            theirs = there.get(tomogram.name, page.truth[:0])
            found = ours[ours["partner"] >= 0]
            score = Score("", 0.0, len(ours), len(theirs), len(found), math.nan)
            far = float(found["distance"].mean()) if len(found) else math.nan
            cells += [share(value) for value in (score.f1, score.precision, score.recall)]
            cells += [str(len(found)), str(len(theirs)), str(len(ours))]
            cells.append("n/a" if math.isnan(far) else f"{far:.1f} Å")
        else:
            cells += [str(int((ours["class_name"] == name).sum())) for name in page.radii]
            cells.append(f"{seconds[tomogram.name]:.1f} s" if tomogram.name in seconds else "n/a")
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    words = (
        ("Tomogram", "F1", "Precision", "Recall", "Found", "Particles", "Picks", "Mean distance")
        if page.truth is not None
        else ("Tomogram", *page.radii, "Time")
    )
    head = "".join(f"<th>{escape(word)}</th>" for word in words)
    more = len(page.tomograms) - ROWS
    left = f'<p class="quiet">And {more} more.</p>' if more > 0 else ""
    return (
        f'<section><h2>By tomogram</h2><div class="scroll tall"><table><tr>{head}</tr>{"".join(rows)}</table>'
        f"</div>{left}</section>"
    )


def _facts_table(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{escape(word)}</th><td>{escape(value)}</td></tr>" for word, value in facts.items()
    )
    return f'<section><h2>How it was made</h2><table class="facts">{rows}</table></section>'


def _footer(page: Page) -> str:
    if page.result is None:
        return ""
    return (
        "<footer>A pick finds a particle if it is of its class and within the stated distance; picks and "
        "particles are joined one to one by the Hungarian method, so a second pick of a particle is false."
        "</footer>"
    )


def _angstrom(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.1f} <small>Å</small>"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} <small>s</small>"
    return (
        f"{seconds / 60:.0f} <small>min</small>"
        if seconds < 7200
        else f"{seconds / 3600:.1f} <small>h</small>"
    )
