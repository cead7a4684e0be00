"""Metrics of other programs and challenges for picks; pure functions of particle tables.

They differ in how a second pick of a particle counts (wrong, ignored, right, or as the loss of the particle),
in the distance of a right pick, and in whether classes matter. None of them matches one to one as
:mod:`tlpick.evaluation.matching`, the metric of this program. Every function takes the tables of all
tomograms and counts within each.

=============  =========================  ==================  ================================================
function       near is                    a second pick is    then
=============  =========================  ==================  ================================================
`shrec21`      inside the particle        wrong               F1 of finding (any class), macro F1 of classes
`czii`         half of the radius         wrong               F-beta 4 by class over all tomograms, weighted
`deepict`      10 voxels of 13.5 Å        ignored             F1 and area under precision-recall, by class
`octopi`       0.8 of the radius          right               F-beta 4 by class over all tomograms, weighted
`deepfinder`   one distance, all classes  the loss of both    F1 by class of the confusion matrix
`box_iou`      boxes overlap by IoU 0.6   wrong               F1 by class (TomoTwin, ProPicker)
=============  =========================  ==================  ================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Radii of the CZII challenge's classes, Å, and their weights: 2 for hard ones, 0 for β-amylase.
CZII_RADII = {
    "apo-ferritin": 60.0,
    "beta-amylase": 65.0,
    "beta-galactosidase": 90.0,
    "ribosome": 150.0,
    "thyroglobulin": 130.0,
    "virus-like-particle": 135.0,
}
CZII_WEIGHTS = {
    "apo-ferritin": 1.0,
    "beta-amylase": 0.0,
    "beta-galactosidase": 2.0,
    "ribosome": 1.0,
    "thyroglobulin": 2.0,
    "virus-like-particle": 1.0,
}
#: Largest distance in DeePiCt's evaluation: 10 voxels of its tomograms.
DEEPICT_RADIUS = 135.0


@dataclass(frozen=True)
class Counts:
    """Right and wrong picks and missed particles of one class, in all tomograms together.

    ``redundant`` picks count as neither.
    """

    right: int
    wrong: int
    missed: int
    redundant: int = 0

    @property
    def precision(self) -> float:
        """Share of the picks that are right; nan without any."""
        return _ratio(self.right, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Share of the particles that are found; nan if there are none."""
        return _ratio(self.right, self.right + self.missed)

    def f(self, beta: float = 1.0) -> float:
        """F-beta: recall counts ``beta`` times as much as precision; nan if nothing is there or picked."""
        return _ratio(
            (1 + beta**2) * self.right, (1 + beta**2) * self.right + beta**2 * self.missed + self.wrong
        )


@dataclass(frozen=True)
class Field:
    """Result of a metric.

    Attributes
    ----------
    name
        Name of the metric.
    value
        Its main value.
    headline
        Description of the main value.
    classes
        Class -> counts.
    more
        Further values by name.
    """

    name: str
    value: float
    headline: str
    classes: Mapping[str, Counts]
    more: Mapping[str, float]


def every_metric(
    picks: pd.DataFrame,
    truth: pd.DataFrame,
    radii: Mapping[str, float],
    hits: Callable[[pd.DataFrame, pd.DataFrame], Ints] | None = None,
) -> list[Field]:
    """Apply all metrics of this module with their own rules; ``hits`` is handed to :func:`shrec21`."""
    return [
        shrec21(picks, truth, radii, hits),
        czii(picks, truth, radii),
        deepict(picks, truth, radii),
        octopi(picks, truth, radii),
        deepfinder(picks, truth, radii),
        box_iou(picks, truth, radii),
    ]


def shrec21(
    picks: pd.DataFrame,
    truth: pd.DataFrame,
    radii: Mapping[str, float],
    hits: Callable[[pd.DataFrame, pd.DataFrame], Ints] | None = None,
) -> Field:
    """Count as in the SHREC 2021 challenge: a pick hits the particle whose volume contains it.

    The first pick that hits a particle determines its class. For finding, classes do not matter; precision is
    the number of found particles divided by that of all picks.

    Parameters
    ----------
    picks, truth
        Particle tables.
    radii
        Class -> radius, Å.
    hits
        Gives for picks and particles of one tomogram the row of the particle that each pick lies in, -1 for
        none: from a volume of instances, as the challenge has it. None: the nearest particle whose
        sphere holds the pick.
    """
    which = hits or _hits_by_sphere(radii)
    found = n_picks = n_truth = 0
    right, taken, there = (dict.fromkeys(radii, 0) for _ in range(3))
    for ours, theirs in _by_tomogram(picks, truth, radii):
        hit = which(ours, theirs)
        first = np.unique(hit[hit >= 0], return_index=True)
        seen = ours["class_name"].to_numpy()[hit >= 0][first[1]]
        actual = theirs["class_name"].to_numpy()
        found, n_picks, n_truth = found + len(first[0]), n_picks + len(ours), n_truth + len(theirs)
        for name in radii:
            right[name] += int(((seen == name) & (actual[first[0]] == name)).sum())
            taken[name] += int((seen == name).sum())
            there[name] += int((actual == name).sum())
    classes = {
        name: Counts(right[name], taken[name] - right[name], there[name] - right[name]) for name in radii
    }
    overall = Counts(found, n_picks - found, n_truth - found)
    macro = _mean([counts.f() for counts in classes.values()])
    more = {"localisation_precision": overall.precision, "localisation_recall": overall.recall}
    more["classification_macro_f1"] = macro
    return Field("SHREC'21", overall.f(), "localisation F1", classes, more)


def czii(picks: pd.DataFrame, truth: pd.DataFrame, radii: Mapping[str, float], beta: float = 4.0) -> Field:
    """Count as in the CZII challenge (Kaggle 2024): F-beta 4, within half of the radius.

    A particle is found by any pick near it; all picks beyond one per found particle are wrong. Classes with
    names of the challenge have its radii and weights instead of ``radii``.
    """
    radii = {name: CZII_RADII.get(name, radius) for name, radius in radii.items()}

    def count(ours: Floats, theirs: Floats, radius: float) -> Counts:
        found = int(np.isfinite(_nearest(theirs, ours, 0.5 * radius)).sum())
        return Counts(found, len(ours) - found, len(theirs) - found)

    classes = _by_class(picks, truth, radii, count)
    return Field("CZII", _weighted(classes, beta), "F-beta 4", classes, {})


def octopi(picks: pd.DataFrame, truth: pd.DataFrame, radii: Mapping[str, float], beta: float = 4.0) -> Field:
    """Count as in octopi: within 0.8 of the radius, and every pick near a particle is right."""
    missed = dict.fromkeys(radii, 0)
    hit = dict.fromkeys(radii, 0)
    wrong = dict.fromkeys(radii, 0)
    for ours, theirs in _by_tomogram(picks, truth, radii):
        for name, radius in radii.items():
            a, b = _of_class(ours, name), _of_class(theirs, name)
            near = np.isfinite(_nearest(a, b, np.nextafter(0.8 * radius, 0)))
            hit[name] += int(near.sum())
            wrong[name] += int((~near).sum())
            missed[name] += int((~np.isfinite(_nearest(b, a, np.nextafter(0.8 * radius, 0)))).sum())
    classes = {name: Counts(hit[name], wrong[name], missed[name]) for name in radii}
    return Field("octopi", _weighted(classes, beta), "F-beta 4", classes, {})


def deepict(
    picks: pd.DataFrame, truth: pd.DataFrame, radii: Mapping[str, float], tolerance: float = DEEPICT_RADIUS
) -> Field:
    """Count as in DeePiCt: in order of falling score, each pick takes the nearest free particle.

    A pick whose near particles are all taken is redundant and counts as neither. The area under
    precision over recall is by the trapezoidal rule from the first pick on.
    """
    classes, areas = {}, {}
    for name in radii:
        state: list[int] = []  # 1 right, 0 wrong, -1 redundant
        score: list[float] = []
        n_truth = 0
        for ours, theirs in _by_tomogram(picks, truth, [name]):
            ranked = ours.iloc[np.argsort(-ours["score"].to_numpy(), kind="stable")]
            there = _xyz(theirs)
            n_truth += len(there)
            far = cdist(_xyz(ranked), there)
            free = np.ones(len(there), bool)
            for row in far:
                near = np.flatnonzero(row <= tolerance)
                open_ = near[free[near]]
                if len(open_):
                    free[open_[np.argmin(row[open_])]] = False
                state.append(1 if len(open_) else (-1 if len(near) else 0))
            score.extend(ranked["score"])
        states = np.array(state, np.int64)[np.argsort(-np.array(score, np.float64), kind="stable")]
        right = int((states == 1).sum())
        wrong = int((states == 0).sum())
        classes[name] = Counts(right, wrong, n_truth - right, int((states == -1).sum()))
        areas[name] = _trapezoid(states, n_truth)
    return Field(
        "DeePiCt",
        _mean([counts.f() for counts in classes.values()]),
        "mean F1",
        classes,
        {f"auprc_{name}": area for name, area in areas.items()},
    )


def deepfinder(
    picks: pd.DataFrame, truth: pd.DataFrame, radii: Mapping[str, float], distance: float | None = None
) -> Field:
    """Count as in DeepFinder: a particle is found only if exactly one pick of any class is near it.

    With two picks near, the particle is missed. Picks near no found particle are wrong. The classes come in
    with the confusion matrix of what is then joined.

    Parameters
    ----------
    picks, truth
        Particle tables.
    radii
        Class -> radius, Å.
    distance
        What is near, Å, for all classes alike; None: half of the smallest radius.
    """
    within = 0.5 * min(radii.values()) if distance is None else distance
    pairs: list[tuple[str, str]] = []
    for ours, theirs in _by_tomogram(picks, truth, radii):
        near = cdist(_xyz(theirs), _xyz(ours)) <= within
        seen, there = ours["class_name"].to_numpy(), theirs["class_name"].to_numpy()
        used = np.zeros(len(ours), bool)
        for row, actual in zip(near, there, strict=True):
            only = np.flatnonzero(row)
            pairs.append((actual, seen[only[0]] if len(only) == 1 else ""))
            used[only if len(only) == 1 else []] = True
        pairs.extend(("", name) for name in seen[~used])
    actual, predicted = (
        (np.array(column, object) for column in zip(*pairs, strict=True)) if pairs else ([], [])
    )
    actual, predicted = np.asarray(actual, object), np.asarray(predicted, object)
    classes = {}
    for name in radii:
        right = int(((actual == name) & (predicted == name)).sum())
        classes[name] = Counts(
            right, int((predicted == name).sum()) - right, int((actual == name).sum()) - right
        )
    mean = _mean([counts.f() for counts in classes.values()])
    return Field("DeepFinder", mean, "mean F1", classes, {"distance_A": within})


def box_iou(
    picks: pd.DataFrame, truth: pd.DataFrame, radii: Mapping[str, float], least: float = 0.6
) -> Field:
    """Count as in TomoTwin and ProPicker: boxes of a class's diameter that overlap by more than IoU 0.6.

    A particle is found if any box overlaps enough, and takes the one that overlaps most; boxes that no
    particle takes are wrong.
    """

    def count(ours: Floats, theirs: Floats, radius: float) -> Counts:
        if not len(ours) or not len(theirs):
            return Counts(0, len(ours), len(theirs))
        edge = 2 * radius
        overlap = np.clip(edge - np.abs(theirs[:, None] - ours[None]), 0, None).prod(axis=2)
        iou = overlap / (2 * edge**3 - overlap)
        found = (iou > least).any(axis=1)
        taken = np.unique(iou.argmax(axis=1)[found])
        return Counts(int(found.sum()), len(ours) - len(taken), int((~found).sum()))

    classes = _by_class(picks, truth, radii, count)
    return Field("box IoU 0.6", _mean([counts.f() for counts in classes.values()]), "mean F1", classes, {})


def _by_tomogram(
    picks: pd.DataFrame, truth: pd.DataFrame, names: Mapping[str, float] | list[str]
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Pair the tables' parts of each tomogram, with only these classes."""
    picks, truth = (table[table["class_name"].isin(list(names))] for table in (picks, truth))
    ours, theirs = dict(list(picks.groupby("tomogram"))), dict(list(truth.groupby("tomogram")))
    return [(ours.get(k, picks[:0]), theirs.get(k, truth[:0])) for k in dict.fromkeys([*ours, *theirs])]


def _by_class(
    picks: pd.DataFrame,
    truth: pd.DataFrame,
    radii: Mapping[str, float],
    count: Callable[[Floats, Floats, float], Counts],
) -> dict[str, Counts]:
    """Add up the counts of each class over the tomograms."""
    tomograms = _by_tomogram(picks, truth, radii)
    classes = {}
    for name, radius in radii.items():
        each = [count(_of_class(a, name), _of_class(b, name), radius) for a, b in tomograms]
        classes[name] = Counts(
            *(sum(getattr(c, what) for c in each) for what in ("right", "wrong", "missed"))
        )
    return classes


def _hits_by_sphere(radii: Mapping[str, float]) -> Callable[[pd.DataFrame, pd.DataFrame], Ints]:
    def hits(ours: pd.DataFrame, theirs: pd.DataFrame) -> Ints:
        if not len(ours) or not len(theirs):
            return np.full(len(ours), -1, np.int64)
        far = cdist(_xyz(ours), _xyz(theirs))
        far[far > theirs["class_name"].map(dict(radii)).to_numpy(np.float64)] = np.inf
        nearest = far.argmin(axis=1)
        return np.where(np.isfinite(far.min(axis=1)), nearest, -1)

    return hits


def _nearest(points: Floats, others: Floats, within: float) -> Floats:
    """Distance of each point to the nearest of the others; inf if none is within reach."""
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    return np.asarray(cKDTree(others).query(points, distance_upper_bound=np.nextafter(within, np.inf))[0])


def _weighted(classes: Mapping[str, Counts], beta: float) -> float:
    """Mean F-beta with the CZII weights, 1 for other classes; a class that is nowhere counts 0 as there."""
    weights = [CZII_WEIGHTS.get(name, 1.0) for name in classes]
    scores = [0.0 if math.isnan(counts.f(beta)) else counts.f(beta) for counts in classes.values()]
    total = sum(weights)
    return sum(w * s for w, s in zip(weights, scores, strict=True)) / total if total else math.nan


def _trapezoid(states: Ints, n_truth: int) -> float:
    if not n_truth:
        return math.nan
    right, wrong = (states == 1).cumsum(), (states == 0).cumsum()
    some = right + wrong > 0
    precision, recall = right[some] / (right + wrong)[some], right[some] / n_truth
    return float(np.trapezoid(precision, recall)) if some.any() else 0.0


def _of_class(table: pd.DataFrame, name: str) -> Floats:
    return _xyz(table[table["class_name"] == name])


def _xyz(table: pd.DataFrame) -> Floats:
    return table[["x", "y", "z"]].to_numpy(np.float64)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
