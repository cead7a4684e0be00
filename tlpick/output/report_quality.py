"""The part of the report on the quality of the picks, if the truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from catalogs.pages import charts
from catalogs.pages.charts import Line, Mark
from catalogs.pages.render import share
from tlpick.batch.run_folder import Result
from tlpick.evaluation.matching import NONE
from tlpick.output.page import Page


def quality(page: Page) -> dict[str, Any]:
    """Describe the quality of the picks: by class, by threshold, confusion, metrics of other programs."""
    assert page.result is not None
    result = page.result
    several = len(page.tomograms) > 1
    return {
        "several": several,
        "by_class": _by_class(result, several),
        "curves": _curves(result),
        "confusion": _confusion(result),
        "field": _field(result),
    }


def _by_class(result: Result, several: bool) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for score in result.evaluation.scores:
        error, curve = result.errors[score.class_name], result.curves.get(score.class_name)
        within = {
            what: Markup(" <small>({} to {})</small>").format(share(low), share(high)) if several else ""
            for what, (low, high) in result.intervals[score.class_name].items()
        }
        off, offset = "n/a", "n/a"
        if not math.isnan(error.mean):
            off = f"{error.mean:.1f} / {error.median:.1f} / {error.p90:.1f}"
            offset = ", ".join(f"{round(value, 1) + 0.0:+.1f}" for value in error.offset)
        rows.append(
            (
                score.class_name,
                Markup(share(score.f1)) + within["f1"],
                Markup(share(score.precision)) + within["precision"],
                Markup(share(score.recall)) + within["recall"],
                "n/a" if curve is None else share(curve.auc),
                f"{score.n_found} of {score.n_truth}",
                str(score.n_picks),
                f"{score.radius:.0f} Å",
                off,
                offset,
            )
        )
    return rows


def _curves(result: Result) -> list[dict[str, Any]]:
    shown = []
    for name, curve in result.curves.items():
        if len(curve.thresholds) < 2:
            continue
        over_score = charts.lines(
            f"Precision, recall and F1 of {name} over the least score",
            "least score of a pick",
            [
                Line("precision", "precision", curve.thresholds, curve.precision),
                Line("recall", "recall", curve.thresholds, curve.recall),
                Line("f1", "F1", curve.thresholds, curve.f1),
            ],
            _best(curve.thresholds, curve.f1),
            top=1,
            named_at_ends=True,
        )
        over_recall = charts.lines(
            f"Precision of {name} over recall",
            "recall",
            [Line("precision", "precision", curve.recall, curve.precision)],
            low=0,
            high=1,
            top=1,
            named_at_ends=True,
        )
        said = ""
        if np.isfinite(curve.f1).any():
            best = int(np.nanargmax(curve.f1))
            said = (
                f"F1 is highest, {curve.f1[best]:.2f}, with all picks."
                if best == 0
                else f"F1 would be highest, {curve.f1[best]:.2f}, with picks that score at least "
                f"{curve.thresholds[best]:.2f}; chosen by this very truth, so expect less elsewhere."
            )
        pictures = [
            ("Choosing a threshold", over_score),
            (f"Precision over recall, area {share(curve.auc)}", over_recall),
        ]
        shown.append({"name": name, "said": said, "figures": pictures})
    return shown


def _best(thresholds: NDArray[np.float64], f1: NDArray[np.float64]) -> list[Mark]:
    return [Mark(float(thresholds[int(np.nanargmax(f1))]), "")] if np.isfinite(f1).any() else []


def _confusion(result: Result) -> dict[str, Any] | None:
    table = result.confusion
    if len(table) < 3:  # one class and none
        return None
    total = table.to_numpy().sum(axis=1)
    rows = []
    for (there, row), n in zip(table.iterrows(), total, strict=True):
        cells = [
            {
                "count": "" if there == NONE and seen == NONE else str(count),
                "share": count / n if n else 0.0,
                "right": seen == there,
            }
            for seen, count in row.items()
        ]
        rows.append(("nothing" if there == NONE else str(there), cells))
    return {"columns": ["not picked" if name == NONE else str(name) for name in table], "rows": rows}


def _field(result: Result) -> list[dict[str, Any]]:
    shown = []
    for each in result.field:
        beta = 4 if "beta" in each.headline else 1
        rows = [
            (
                name, share(counts.f(beta)), share(counts.precision), share(counts.recall),
                counts.right, counts.wrong, counts.missed, counts.redundant,
            )
            for name, counts in each.classes.items()
        ]  # fmt: skip
        shown.append({"name": each.name, "value": each.value, "headline": each.headline, "rows": rows})
    return shown
