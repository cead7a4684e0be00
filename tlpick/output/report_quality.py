"""The parts of the report that say how good the picks are; the truth must be known."""

from __future__ import annotations

import math
from html import escape

import numpy as np
from numpy.typing import NDArray

from tlpick.batch.run_folder import Result
from tlpick.evaluation.matching import NONE
from tlpick.output import charts
from tlpick.output.charts import Mark, figure, share
from tlpick.output.page import Page


def quality(page: Page) -> list[str]:
    """Say how good the picks are: by class, by threshold, which for which, by the rules of others."""
    assert page.result is not None
    result = page.result
    return [_class_table(page), _curves(page), _confusion(result), _field(result)]


def _class_table(page: Page) -> str:
    assert page.result is not None
    result = page.result
    several = len(page.tomograms) > 1
    rows = []
    for score in result.evaluation.scores:
        error, curve = result.errors[score.class_name], result.curves.get(score.class_name)
        offset = (
            "n/a"
            if math.isnan(error.mean)
            else ", ".join(f"{round(value, 1) + 0.0:+.1f}" for value in error.offset)
        )
        within = {
            what: f" <small>({share(low)} to {share(high)})</small>" if several else ""
            for what, (low, high) in result.intervals[score.class_name].items()
        }
        cells = [
            escape(score.class_name),
            share(score.f1) + within["f1"],
            share(score.precision) + within["precision"],
            share(score.recall) + within["recall"],
            "n/a" if curve is None else share(curve.auc),
            f"{score.n_found} of {score.n_truth}",
            str(score.n_picks),
            f"{score.radius:.0f} Å",
            "n/a" if math.isnan(error.mean) else f"{error.mean:.1f} / {error.median:.1f} / {error.p90:.1f}",
            offset,
        ]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    words = (
        "Class", "F1", "Precision", "Recall", "AUC", "Found", "Picks", "Within",
        "Mean / median / 90 % off, Å", "Mean offset x, y, z, Å",
    )  # fmt: skip
    head = "".join(f"<th>{word}</th>" for word in words)
    drawn = (
        " In parentheses the 95 % interval over tomograms (bootstrap)."
        if several
        else " One tomogram says nothing about how others would score, so there is no interval."
    )
    return (
        f'<section><h2>By class</h2><p class="quiet">Joined one to one.{drawn}</p>'
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div></section>'
    )


def _curves(page: Page) -> str:
    assert page.result is not None
    shown = []
    for name, curve in page.result.curves.items():
        if len(curve.thresholds) < 2:
            continue
        over_score = charts.line(
            f"Precision, recall and F1 of {name} over the least score",
            "least score of a pick",
            [
                ("precision", "precision", curve.thresholds, curve.precision),
                ("recall", "recall", curve.thresholds, curve.recall),
                ("f1", "F1", curve.thresholds, curve.f1),
            ],
            _best(curve.thresholds, curve.f1),
        )
        over_recall = charts.line(
            f"Precision of {name} over recall",
            "recall",
            [("precision", "precision", curve.recall, curve.precision)],
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
        shown.append(
            f'<h3>{escape(name)}</h3><p class="quiet">{said}</p>'
            f'<div class="charts">{figure("Choosing a threshold", over_score)}'
            f"{figure(f'Precision over recall, area {share(curve.auc)}', over_recall)}</div>"
        )
    return f"<section><h2>Precision and recall</h2>{''.join(shown)}</section>" if shown else ""


def _best(thresholds: NDArray[np.float64], f1: NDArray[np.float64]) -> list[Mark]:
    return [Mark(float(thresholds[int(np.nanargmax(f1))]), "")] if np.isfinite(f1).any() else []


def _confusion(result: Result) -> str:
    table = result.confusion
    if len(table) < 3:  # one class and none
        return ""
    total = table.to_numpy().sum(axis=1)
    rows = []
    for (there, row), n in zip(table.iterrows(), total, strict=True):
        cells = []
        for seen, count in row.items():
            share = count / n if n else 0.0
            right = " class='same'" if seen == there else ""
            blank = there == NONE and seen == NONE
            shade = f"--share:{share:.2f}"
            cells.append(f"<td{right} style='{shade}'>{'' if blank else count}</td>")
        word = "nothing" if there == NONE else str(there)
        rows.append(f"<tr><th>{escape(word)}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape('not picked' if name == NONE else str(name))}</th>" for name in table)
    return (
        '<section><h2>Which was taken for which</h2><p class="quiet">Rows are what is there, columns what '
        "was picked; joined one to one whatever the class, within the radius of the particle's.</p>"
        f'<div class="scroll"><table class="confusion"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
        "</section>"
    )


def _field(result: Result) -> str:
    rows = []
    for each in result.field:
        for k, (name, counts) in enumerate(each.classes.items()):
            n = len(each.classes)
            first = (
                f'<td rowspan="{n}">{escape(each.name)}</td>'
                f'<td rowspan="{n}">{share(each.value)} <small>{escape(each.headline)}</small></td>'
                if k == 0
                else ""
            )
            beta = 4 if "beta" in each.headline else 1
            cells = (
                share(counts.f(beta)), share(counts.precision), share(counts.recall),
                str(counts.right), str(counts.wrong), str(counts.missed), str(counts.redundant),
            )  # fmt: skip
            rows.append(f"<tr>{first}<td>{escape(name)}</td>{''.join(f'<td>{c}</td>' for c in cells)}</tr>")
    words = ("Metric", "Value", "Class", "F", "Precision", "Recall", "Right", "Wrong", "Missed", "Ignored")
    head = "".join(f"<th>{word}</th>" for word in words)
    return (
        '<section><h2>As others count</h2><p class="quiet">The same picks by the rules of others, so that '
        "figures can be compared with figures. They differ in how near is near and in what a second pick "
        "of a particle is; the documentation says how.</p>"
        f'<div class="scroll"><table class="field"><tr>{head}</tr>{"".join(rows)}</table></div></section>'
    )
