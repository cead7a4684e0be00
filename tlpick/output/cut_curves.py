"""The number of picks and their expected share of wrong ones at every cut: the curve and the slider."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from catalogs.pages import charts
from catalogs.pages.charts import Chart, Line, Mark
from catalogs.pages.pictures import kind_of
from tlpick.output.gallery import in_order
from tlpick.output.page import Page

#: Largest number of slider positions.
STEPS = 100


@dataclass(frozen=True)
class Slider:
    """The positions of the slider.

    Attributes
    ----------
    words
        Text of each cut.
    shown
        Number of the cut that the run made.
    """

    words: list[str]
    shown: int


def with_steps(page: Page) -> tuple[pd.DataFrame, Slider | None]:
    """Add the slider position at which each pick appears as the column ``step``, the best first."""
    every = page.every
    if page.result is not None or every["score"].isna().any() or len(every) < 2:
        return every, None
    ranked = in_order(every)
    if not ranked["kept"].is_monotonic_decreasing:  # each tomogram and class has a cut of its own
        ranked = ranked.sort_values("kept", ascending=False, kind="stable")
    n, kept = len(ranked), int(ranked["kept"].sum())
    ends = np.unique(np.append(np.linspace(1, n, min(STEPS, n)).round().astype(int), max(kept, 1)))
    steps = pd.Series(np.searchsorted(ends, np.arange(1, n + 1)), index=ranked.index)
    words = [_said(ranked[:end]) for end in ends]
    return every.assign(step=steps), Slider(words, int(np.searchsorted(ends, max(kept, 1))))


def _said(picks: pd.DataFrame) -> str:
    said = f"{len(picks):,} picks, score {picks['score'].min():.2f} and more"
    if "wrong" in picks and picks["wrong"].notna().all():
        said = f"{len(picks):,} picks, about {100 * picks['wrong'].max():.0f} % of them wrong"
    return said


def curves(page: Page) -> list[tuple[str, Chart]]:
    """Draw the expected share of wrong picks over their number for each class."""
    shown = []
    every = page.every
    if page.result is not None or "wrong" not in every:
        return []
    for k, name in enumerate(page.radii):
        ours = in_order(every[every["class_name"] == name])
        if len(ours) < 2 or ours["wrong"].isna().any():
            continue
        numbers = np.arange(1, len(ours) + 1, dtype=np.float64)
        drawn = [Line(kind_of(k), "expected", numbers, ours["wrong"].to_numpy(np.float64))]
        if "wrong_at_most" in ours and ours["wrong_at_most"].notna().all():
            drawn[0] = Line(kind_of(k), "at least", numbers, ours["wrong"].to_numpy(np.float64))
            most = np.maximum.accumulate(ours["wrong_at_most"].to_numpy(np.float64))
            drawn.append(Line("wrong", "at most", numbers, most))
        kept = int(ours["kept"].sum())
        marks = [Mark(float(kept), "kept")] if kept else []
        title = f"Expected share of wrong picks of {name} over their number"
        shown.append((name, charts.lines(title, "picks, the best first", drawn, marks, low=0, top=1)))
    return shown
