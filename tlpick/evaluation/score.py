"""``tlpick score``: reads picks and truth from files, compares them and writes the results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from catalogs.atomic_write import write_text
from catalogs.errors import InputError
from catalogs.pages.render import share
from tlpick.batch.files import REPORT, write_json
from tlpick.batch.run_folder import Picks, Result, read_picks
from tlpick.evaluation.matching import (
    Evaluation,
    PrecisionRecallCurve,
    Score,
    bootstrap,
    confusion,
    curve,
    evaluate,
    localisation,
    only_reviewed,
)
from tlpick.evaluation.metrics import every_metric
from tlpick.evaluation.truth import Truth, hits, picked_region, read_truth, reviewed_region
from tlpick.output.page import page_of
from tlpick.output.report import render

SCORE = "score.json"


def score_files(
    picks_path: str,
    truth_path: str,
    radius: float | None,
    reviewed: str | None = None,
    join: Mapping[str, str] | None = None,
) -> Result:
    """Compare picks with truth; write ``score.json`` and ``report.html`` beside the picks.

    Parameters
    ----------
    picks_path
        The folder of a run, or a particle list.
    truth_path
        A corpus or a sample of it, a particle list, or a label volume.
    radius
        Largest distance of a right pick, Å; None: the radius of its class.
    reviewed
        Mask of the region in which the truth is complete, or a folder with one for each tomogram; None: the
        region of the run.
    join
        Name of a picked tomogram -> its name in the truth.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        If one of them cannot be read, or they have no classes or tomograms in common.
    """
    picks = read_picks(picks_path)
    truth = read_truth(truth_path, picks.run, picks.tomograms, join)
    radii = _radii(picks, truth, radius)
    names = [name for name in picks.tomograms if name in set(truth.tomograms)]
    if not names:
        raise InputError(
            f"{truth.source} is the truth of {_listed(truth.tomograms)}, but {picks.source} holds picks of "
            f"{_listed(picks.tomograms)}; give the truth of the same tomograms, or join them: "
            f"`join={(picks.tomograms or ['PICKED'])[0]}={(truth.tomograms or ['TRUTH'])[0]}`"
        )
    notes = _notes(picks, truth, radii, names)
    ours, theirs = _of(picks.table, names), _of(truth.table, names)
    regions = {"what the run looked at": picked_region(picks.run)}
    if reviewed is not None:
        regions[f"the reviewed region {reviewed}"] = reviewed_region(reviewed, names)
    for region, inside in regions.items():
        if inside is not None:
            before = len(ours), len(theirs)
            ours, theirs = only_reviewed(ours, theirs, radii, inside)
            notes.append(
                f"only {region} counts: {len(ours)} of {before[0]} picks and "
                f"{len(theirs)} of {before[1]} particles"
            )
    evaluation = evaluate(ours, theirs, radii)
    result = Result(
        evaluation=evaluation,
        curves=_curves(evaluation),
        errors={name: localisation(evaluation, name) for name in radii},
        intervals=bootstrap(evaluation),
        confusion=confusion(ours, theirs, radii),
        field=tuple(every_metric(ours, theirs, _own_radii(picks, truth, radii), hits(truth))),
        report=picks.folder / REPORT,
        notes=tuple(notes),
    )
    write_json(picks.folder / SCORE, _summary(picks, truth, result, names))
    write_text(picks.folder / REPORT, render(page_of(picks, names, truth, result)))
    return result


def sentence(score: Score) -> str:
    """Write a score in one line."""
    false = score.n_picks - score.n_found
    distance = "" if math.isnan(score.mean_distance) else f"; mean distance {score.mean_distance:.1f} Å"
    return (
        f"F1 {share(score.f1)}  precision {share(score.precision)}  recall {share(score.recall)}  "
        f"({score.class_name}: {score.n_found} found of {score.n_truth}, {false} false{distance})"
    )


def sentences(result: Result) -> list[str]:
    """Write a result in a few lines: each class, and the metrics of other programs."""
    lines = []
    for score in result.evaluation.scores:
        low, high = result.intervals[score.class_name]["f1"]
        between = "" if math.isnan(low) else f"  F1 of other tomograms {share(low)} to {share(high)}"
        lines.append(sentence(score) + between)
    others = ", ".join(f"{each.name} {share(each.value)} ({each.headline})" for each in result.field)
    return [*lines, f"as others count: {others}"]


def _radii(picks: Picks, truth: Truth, radius: float | None) -> dict[str, float]:
    """Choose the classes to score, and the largest distance of a right pick of each."""
    known = set(truth.table["class_name"]) | set(truth.radii)
    if known and not known & set(picks.radii):
        raise InputError(
            f"the truth {truth.source} has the classes {_listed(sorted(known))}, the picks {picks.source} "
            f"have {_listed(sorted(picks.radii))}; none is in both"
        )
    chosen = {}
    for name, of_picks in picks.radii.items():
        value = radius or (truth.radii.get(name, math.nan) if math.isnan(of_picks) else of_picks)
        if math.isnan(value):
            raise InputError(
                f"the radius of {name} is unknown in {picks.source} and {truth.source}; give `radius`"
            )
        chosen[name] = value
    return chosen


def _own_radii(picks: Picks, truth: Truth, radii: Mapping[str, float]) -> dict[str, float]:
    """Return the classes' own radii, which other metrics use instead of --radius."""
    known = {name: value for name, value in (truth.radii | picks.radii).items() if not math.isnan(value)}
    return {name: known.get(name, value) for name, value in radii.items()}


def _notes(picks: Picks, truth: Truth, radii: Mapping[str, float], names: list[str]) -> list[str]:
    notes = list(truth.notes)
    strange = sorted(set(truth.table["class_name"]) - set(radii))
    if strange:
        notes.append(f"the truth also has {_listed(strange)}, which was not looked for; left out")
    unpicked = [name for name in truth.tomograms if name not in names]
    if unpicked:
        notes.append(f"the truth also has {_listed(unpicked)}, where nothing was picked; left out")
    unknown = [name for name in picks.tomograms if name not in names]
    if unknown:
        notes.append(f"the picks in {_listed(unknown)} have no truth to compare with; left out")
    return notes


def _curves(evaluation: Evaluation) -> dict[str, PrecisionRecallCurve]:
    curves = {}
    for score in evaluation.scores:
        ours = evaluation.picks[evaluation.picks["class_name"] == score.class_name]
        if len(ours) and ours["score"].notna().all():
            theirs = evaluation.truth[evaluation.truth["class_name"] == score.class_name]
            curves[score.class_name] = curve(ours, theirs, score.radius)
    return curves


def _summary(picks: Picks, truth: Truth, result: Result, names: list[str]) -> dict[str, Any]:
    classes = {}
    for score in result.evaluation.scores:
        name = score.class_name
        error, line = result.errors[name], result.curves.get(name)
        classes[name] = {
            "f1": _plain(score.f1),
            "precision": _plain(score.precision),
            "recall": _plain(score.recall),
            "found": score.n_found,
            "picks": score.n_picks,
            "truth": score.n_truth,
            "radius_A": score.radius,
            "auc": _plain(line.auc) if line else None,
            "mean_distance_A": _plain(error.mean),
            "median_distance_A": _plain(error.median),
            "p90_distance_A": _plain(error.p90),
            "rms_distance_A": _plain(error.rms),
            "mean_offset_A": [_plain(value) for value in error.offset],
            "interval_95": {
                what: [_plain(low), _plain(high)] for what, (low, high) in result.intervals[name].items()
            },
        }
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "picks": picks.source,
        "truth": truth.source,
        "tomograms": names,
        "matching": "one to one (Hungarian) within the radius, by class and tomogram",
        "classes": classes,
        "confusion": {
            str(there): {str(seen): int(n) for seen, n in row.items()}
            for there, row in result.confusion.to_dict("index").items()
        },
        "field": {
            each.name: {
                "value": _plain(each.value),
                "is": each.headline,
                **{key: _plain(value) for key, value in each.more.items()},
                "classes": {name: asdict(counts) for name, counts in each.classes.items()},
            }
            for each in result.field
        },
        "notes": list(result.notes),
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _of(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return table[table["tomogram"].isin(names)]


def _listed(names: list[str]) -> str:
    shown = ", ".join(name if name else repr(name) for name in names[:3]) or "nothing"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
