"""The HTML report of a run, with or without truth: slices, charts, best and worst picks, settings.

The layout is in the templates of :mod:`catalogs.pages`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from catalogs.amounts import duration
from catalogs.atomic_write import write_text
from catalogs.errors import InputError
from catalogs.pages import render as pages
from catalogs.pages.cards import Card
from catalogs.pages.pictures import kind_of
from catalogs.pages.render import share
from catalogs.volumes.once import open_once
from tlpick.batch.files import CURATE, REPORT
from tlpick.batch.run_folder import Picks
from tlpick.evaluation.matching import Score
from tlpick.output.cut_curves import curves, with_steps
from tlpick.output.mean_pictures import means
from tlpick.output.orthoview import SMOOTH, orthoview, slices_averaged
from tlpick.output.page import Page, Tomogram, page_of
from tlpick.output.previews import best_and_worst, distances, per_tomogram, scores, sizes
from tlpick.output.report_quality import quality

#: Number of tomograms shown in slices; charts and tables contain all.
SHOWN = 4
#: Largest number of rows in the table of tomograms.
ROWS = 500


def write_report(picks: Picks) -> Path:
    """Write the report of a run into its folder; return the path."""
    path = picks.folder / REPORT
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
    words, rows = _by_tomogram(page)
    every, slider = with_steps(page)
    return pages.page(
        "picking.html",
        title=title,
        lead=lead,
        scored=page.result is not None,
        cards=_cards(page),
        notes=page.result.notes if page.result else (),
        failed=page.run.get("failed", []),
        fits=_fits(page),
        thresholds=_thresholds(page.run.get("thresholds", {})),
        classes=[(name, kind_of(k)) for k, name in enumerate(page.radii)],
        slider=slider,
        wrong_curves=curves(page),
        slices=[_slices(tomogram, page, every) for tomogram in page.tomograms[:SHOWN]],
        not_shown=len(page.tomograms) - SHOWN,
        scores=scores(page),
        per_tomogram=per_tomogram(page),
        without=_without_picks(page),
        distances=distances(page),
        sizes=sizes(page),
        means=means(page),
        galleries=[(name, strips) for name in page.radii if (strips := best_and_worst(name, page))],
        tomogram_words=words,
        tomogram_rows=rows,
        rows_left=len(page.tomograms) - ROWS,
        facts=page.facts,
        curate=CURATE if page.curated else None,
        **(quality(page) if page.result else {}),
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


def _cards(page: Page) -> list[Card]:
    if page.result is None:
        cards = [
            Card(name, str(int((page.picks["class_name"] == name).sum())), kind=kind_of(k))
            for k, name in enumerate(page.radii)
        ]
        cards.append(Card("Tomograms", str(len(page.tomograms))))
        seconds = sum(sum(t["seconds"].values()) for t in page.run.get("tomograms", []))
        if seconds:
            cards.append(Card("Time for all", *_duration(seconds)))
        return cards
    score = _pooled(page.result.evaluation.scores)
    figures = (
        ("F1", "f1", score.f1),
        ("Precision", "precision", score.precision),
        ("Recall", "recall", score.recall),
    )
    far = score.mean_distance
    return [
        *(
            Card(label, share(value), kind=kind, meter=0.0 if math.isnan(value) else value)
            for label, kind, value in figures
        ),
        Card("Found", str(score.n_found), f"of {score.n_truth}"),
        Card("Mean distance", "n/a") if math.isnan(far) else Card("Mean distance", f"{far:.1f}", "Å"),
    ]


def _fits(page: Page) -> list[tuple[str, list[str], bool]]:
    """Describe how each of the first tomograms differs from the training data, and whether strongly."""
    titles = {tomogram.name: tomogram.title for tomogram in page.tomograms[:SHOWN]}
    fits = []
    for each in page.run.get("tomograms", []):
        if each["name"] in titles and "differs" in each:
            words = each["differs"]
            if words is None:
                words = [
                    "the model does not say what its training data look like: train or calibrate it again"
                ]
            fits.append((titles[each["name"]], words, bool(each.get("unlike"))))
    return fits


def _thresholds(chosen: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, each in chosen.items():
        low, high = each["interval"]
        precision = Markup("{:.2f} <small>({:.2f} to {:.2f})</small>").format(each["precision"], low, high)
        rows.append(
            (name, f"{each['threshold']:.3f}", precision, f"{each['recall']:.2f}", str(each["n_picks"]))
        )
    return rows


def _slices(tomogram: Tomogram, page: Page, every: pd.DataFrame) -> dict[str, Any]:
    shown: dict[str, Any] = {"title": tomogram.title, "problem": "", "thick": "", "picture": ""}
    try:
        if tomogram.path is None:
            raise InputError("the picks do not say where the tomogram is")
        volume = open_once(tomogram.path, voxel_size=tomogram.voxel_size)
        voxel_size = tomogram.voxel_size or volume.voxel_size
        if voxel_size is None:
            raise InputError(f"{tomogram.path} does not state its voxel size")
    except InputError as error:
        return shown | {"problem": str(error)}
    averaged = slices_averaged(voxel_size, page.radii)
    if averaged > 1:
        shown["thick"] = f", each the mean of {averaged} slices ({averaged * voxel_size:.0f} Å)"
    sigma = SMOOTH * min(page.radii.values(), default=voxel_size)
    shown["thick"] += f", smoothed by a Gaussian of {sigma:.0f} Å"
    shown["picture"] = orthoview(
        volume,
        voxel_size,
        every[every["tomogram"] == tomogram.name],
        None if page.truth is None else page.truth[page.truth["tomogram"] == tomogram.name],
        page.radii,
    )
    return shown


def _without_picks(page: Page) -> int:
    """Count the tomograms without picks."""
    some = set(page.picks["tomogram"])
    return sum(tomogram.name not in some for tomogram in page.tomograms)


def _by_tomogram(page: Page) -> tuple[Sequence[str], list[list[str]]]:
    """Make the table of tomograms: its heading and its rows."""
    if len(page.tomograms) < 2:
        return (), []
    by_name = dict(list(page.picks.groupby("tomogram")))
    there = dict(list(page.truth.groupby("tomogram"))) if page.truth is not None else {}
    seconds = {str(t["name"]): sum(t["seconds"].values()) for t in page.run.get("tomograms", [])}
    rows = []
    for tomogram in page.tomograms[:ROWS]:
        ours = by_name.get(tomogram.name, page.picks[:0])
        cells = [tomogram.title]
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
        rows.append(cells)
    if page.truth is not None:
        return ("Tomogram", "F1", "Precision", "Recall", "Found", "Particles", "Picks", "Mean distance"), rows
    return ("Tomogram", *page.radii, "Time"), rows


def _duration(seconds: float) -> tuple[str, str]:
    number, _, unit = duration(seconds).partition(" ")
    return number, unit
