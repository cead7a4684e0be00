"""Compares picks with truth: a pick finds a particle of its class if it is near enough, one to one.

Picks and particles are matched one to one by the Hungarian method, so a second pick of the same particle is
false, and the order of the lists does not matter. These are pure functions of particle tables, used to score
picks and to validate networks in training. Metrics of other programs are in :mod:`tlpick.evaluation.metrics`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from catalogs.seeds import generator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Name for missed particles and false picks in a confusion matrix.
NONE = "none"
#: Largest number of points of a threshold curve.
CURVE_POINTS = 200


@dataclass(frozen=True)
class Score:
    """How well the particles of one class were found.

    Attributes
    ----------
    class_name
        The class.
    radius
        Largest distance of a right pick from its particle, Å.
    n_picks, n_truth, n_found
        Numbers of picks, true particles, and pairs.
    mean_distance
        Mean distance of the pairs, Å; nan if there are none.
    """

    class_name: str
    radius: float
    n_picks: int
    n_truth: int
    n_found: int
    mean_distance: float

    @property
    def precision(self) -> float:
        """Share of the picks that are right; nan without picks."""
        return _ratio(self.n_found, self.n_picks)

    @property
    def recall(self) -> float:
        """Share of the particles that were picked; nan if there are none."""
        return _ratio(self.n_found, self.n_truth)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; nan if there is nothing to find and nothing picked."""
        return _ratio(2 * self.n_found, self.n_picks + self.n_truth)


@dataclass(frozen=True)
class Localisation:
    """Distances of picks from their particles, Å; all nan without pairs.

    ``mean``, ``median``, ``p90`` (90th percentile) and ``rms`` describe the distance; ``offset`` is the mean
    of pick minus particle along x, y, z. Random errors cancel in the offset; an origin that is wrong by half
    a voxel does not.
    """

    mean: float
    median: float
    p90: float
    rms: float
    offset: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores, and the tables from which they were computed.

    Attributes
    ----------
    scores
        One for each class.
    picks, truth
        The tables of the scored classes, with the columns ``partner`` (row of the other table,
        -1 if none) and ``distance`` (Å, nan if none).
    """

    scores: tuple[Score, ...]
    picks: pd.DataFrame
    truth: pd.DataFrame


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """Precision, recall and F1 as functions of the score threshold.

    All arrays have the same length; thresholds are ascending.
    """

    thresholds: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    @property
    def auc(self) -> float:
        """Area under precision over recall: sum of steps of recall times the precision there.

        Recall that no threshold reaches adds nothing; nan if there are no particles.
        """
        if not len(self.recall) or np.isnan(self.recall).any():
            return math.nan if np.isnan(self.recall).any() else 0.0
        steps = -np.diff(self.recall, append=0.0)  # thresholds ascend, so recall falls
        return float((steps * self.precision).sum())


def evaluate(picks: pd.DataFrame, truth: pd.DataFrame, radii: Mapping[str, float]) -> Evaluation:
    """Compare two particle tables class by class and tomogram by tomogram.

    Parameters
    ----------
    picks, truth
        Particle tables; rows of other classes than those of ``radii`` are left out.
    radii
        Class name -> largest distance of a right pick, Å.

    Returns
    -------
    Evaluation
    """
    picks, truth = (
        table[table["class_name"].isin(radii)].reset_index(drop=True).assign(partner=-1, distance=np.nan)
        for table in (picks, truth)
    )
    of_pick, of_truth = picks["partner"].to_numpy(copy=True), truth["partner"].to_numpy(copy=True)
    far_pick, far_truth = picks["distance"].to_numpy(copy=True), truth["distance"].to_numpy(copy=True)
    truth_rows = _rows(truth, "class_name", "tomogram")
    for key, pick_rows in _rows(picks, "class_name", "tomogram").items():
        rows = truth_rows.get(key, np.empty(0, np.int64))
        i, j, distance = match(_xyz(picks)[pick_rows], _xyz(truth)[rows], radii[key[0]])
        of_pick[pick_rows[i]], of_truth[rows[j]] = rows[j], pick_rows[i]
        far_pick[pick_rows[i]] = far_truth[rows[j]] = distance
    picks, truth = (
        picks.assign(partner=of_pick, distance=far_pick),
        truth.assign(partner=of_truth, distance=far_truth),
    )
    return Evaluation(
        tuple(_score(name, radius, picks, truth) for name, radius in radii.items()), picks, truth
    )


def match(picks: Floats, truth: Floats, radius: float) -> tuple[Ints, Ints, Floats]:
    """Match picks and particles one to one: as many pairs as possible, with the smallest sum of distances.

    Parameters
    ----------
    picks, truth
        (n, 3) and (m, 3) positions, Å.
    radius
        Longest distance of a pair, Å.

    Returns
    -------
    tuple
        (k,) rows of ``picks``, (k,) rows of ``truth``, (k,) distances.
    """
    distance = cdist(picks, truth)
    near = distance <= radius
    # one more pair outweighs any change in the sum of distances
    far = radius * (min(distance.shape, default=0) + 1)
    i, j = linear_sum_assignment(np.where(near, distance, far))
    paired = near[i, j]
    return i[paired], j[paired], distance[i, j][paired]


def localisation(evaluation: Evaluation, class_name: str) -> Localisation:
    """Measure the distances and the mean offset of one class's pairs."""
    picks = evaluation.picks
    paired = picks[(picks["partner"] >= 0) & (picks["class_name"] == class_name)]
    if paired.empty:
        return Localisation(math.nan, math.nan, math.nan, math.nan, (math.nan,) * 3)
    off = _xyz(paired) - _xyz(evaluation.truth)[paired["partner"].to_numpy()]
    far = np.linalg.norm(off, axis=1)
    x, y, z = (float(value) for value in off.mean(axis=0))
    return Localisation(
        mean=float(far.mean()),
        median=float(np.median(far)),
        p90=float(np.percentile(far, 90)),
        rms=float(np.sqrt((far**2).mean())),
        offset=(x, y, z),
    )


def confusion(picks: pd.DataFrame, truth: pd.DataFrame, radii: Mapping[str, float]) -> pd.DataFrame:
    """Compute the confusion matrix of the classes.

    Picks and particles of all classes are matched one to one, within the radius of the particle's class: as
    many pairs as possible, then as many of equal classes as possible, then the nearest.

    Parameters
    ----------
    picks, truth
        Particle tables.
    radii
        Class -> radius in Å.

    Returns
    -------
    pandas.DataFrame
        Rows are true classes, columns picked classes; the last of both is ``none``.
    """
    names = [*radii, NONE]
    number = {name: k for k, name in enumerate(names)}
    none = number[NONE]
    counts = np.zeros((len(names), len(names)), np.int64)
    picks, truth = (each[each["class_name"].isin(radii)].reset_index(drop=True) for each in (picks, truth))
    seen, there = (each["class_name"].map(number).to_numpy(np.int64) for each in (picks, truth))
    at, where = _xyz(picks), _xyz(truth)
    radius = truth["class_name"].map(dict(radii)).to_numpy(np.float64)
    pick_rows, truth_rows = _rows(picks, "tomogram"), _rows(truth, "tomogram")
    nothing = np.empty(0, np.int64)
    for key in dict.fromkeys([*pick_rows, *truth_rows]):
        ours, theirs = pick_rows.get(key, nothing), truth_rows.get(key, nothing)
        far = cdist(at[ours], where[theirs]) / radius[theirs]
        other = seen[ours][:, None] != there[theirs]
        near = far <= 1
        n = min(far.shape, default=0) + 1
        i, j = linear_sum_assignment(np.where(near, far + n * other, n * (n + 1)))
        i, j = i[near[i, j]], j[near[i, j]]
        np.add.at(counts, (there[theirs[j]], seen[ours[i]]), 1)
        np.add.at(counts[none], np.delete(seen[ours], i), 1)
        np.add.at(counts[:, none], np.delete(there[theirs], j), 1)
    return pd.DataFrame(counts, names, names)


def bootstrap(
    evaluation: Evaluation, level: float = 0.95, rounds: int = 2000
) -> dict[str, dict[str, tuple[float, float]]]:
    """Estimate confidence intervals of the scores by bootstrapping over tomograms.

    Whole tomograms are drawn with replacement, because the particles of a tomogram share its defocus,
    thickness and crowding. For a single tomogram all bounds are nan.

    Parameters
    ----------
    evaluation
        Evaluation of several tomograms.
    level
        Confidence level of the bounds.
    rounds
        Number of draws.

    Returns
    -------
    dict
        Class -> ``f1``, ``precision`` and ``recall`` -> lower and upper bound.
    """
    tomograms = list(dict.fromkeys([*evaluation.picks["tomogram"], *evaluation.truth["tomogram"]]))
    n = len(tomograms)
    drawn = generator("bootstrap", n, rounds).integers(0, max(n, 1), (rounds, n))
    bounds = {}
    for score in evaluation.scores:
        ours, theirs = (
            table[table["class_name"] == score.class_name] for table in (evaluation.picks, evaluation.truth)
        )
        columns = (ours.loc[ours["partner"] >= 0, "tomogram"], ours["tomogram"], theirs["tomogram"])
        counts = np.column_stack([names.value_counts().reindex(tomograms, fill_value=0) for names in columns])
        found, n_picks, n_truth = counts[drawn].sum(axis=1).T
        with np.errstate(invalid="ignore", divide="ignore"):
            values = {
                "f1": 2 * found / (n_picks + n_truth),
                "precision": found / n_picks,
                "recall": found / n_truth,
            }
        bounds[score.class_name] = {
            what: _between(value, level) if n > 1 else (math.nan, math.nan) for what, value in values.items()
        }
    return bounds


def only_reviewed(
    picks: pd.DataFrame,
    truth: pd.DataFrame,
    radii: Mapping[str, float],
    inside: Callable[[pd.DataFrame], NDArray[np.bool_]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leave out picks and particles outside of the reviewed region.

    For a pick that finds a particle, the position of the particle counts; for others, their own.

    Parameters
    ----------
    picks, truth
        Particle tables.
    radii
        Class -> radius in Å.
    inside
        Function that returns for each row of a table whether it is in the reviewed region.

    Returns
    -------
    picks, truth
        The rows that count.
    """
    whole = evaluate(picks, truth, radii)
    there = inside(whole.truth)
    partner = whole.picks["partner"].to_numpy()
    here = inside(whole.picks)
    if len(there):
        here = np.where(partner >= 0, there[partner], here)
    drop = ["partner", "distance"]
    return whole.picks[here].drop(columns=drop), whole.truth[there].drop(columns=drop)


def curve(picks: pd.DataFrame, truth: pd.DataFrame, radius: float) -> PrecisionRecallCurve:
    """Compute precision, recall and F1 as functions of the score threshold.

    Parameters
    ----------
    picks, truth
        Particle tables of one class; every pick has a score.
    radius
        Longest distance of a pick to its particle, Å.

    Returns
    -------
    PrecisionRecallCurve
        One point for each distinct score, or :data:`CURVE_POINTS` evenly spaced ones.
    """
    scores = picks["score"].to_numpy(np.float64)
    thresholds = np.unique(scores)
    if len(thresholds) > CURVE_POINTS:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, CURVE_POINTS).round().astype(int)]
    pick_rows, truth_rows = _pairs_in_reach(picks, truth, radius)
    found, left = np.zeros((2, len(thresholds)))
    for k, threshold in enumerate(thresholds):
        counts = scores >= threshold
        left[k] = counts.sum()
        use = counts[pick_rows]
        graph = csr_array(
            (np.ones(int(use.sum()), bool), (pick_rows[use], truth_rows[use])), (len(picks), len(truth))
        )
        found[k] = (maximum_bipartite_matching(graph, perm_type="column") >= 0).sum() if use.any() else 0
    n = len(truth)
    recall = found / n if n else np.full(len(found), np.nan)
    return PrecisionRecallCurve(thresholds, found / left, recall, 2 * found / (left + n))


def _pairs_in_reach(picks: pd.DataFrame, truth: pd.DataFrame, radius: float) -> tuple[Ints, Ints]:
    i: list[Ints] = [np.empty(0, np.int64)]
    j: list[Ints] = [np.empty(0, np.int64)]
    truth_rows = _rows(truth, "tomogram")
    for key, rows in _rows(picks, "tomogram").items():
        if key in truth_rows:
            near = cKDTree(_xyz(truth)[truth_rows[key]]).query_ball_point(_xyz(picks)[rows], radius)
            i.append(np.repeat(rows, [len(others) for others in near]))
            j.append(truth_rows[key][np.concatenate(near).astype(np.int64)])
    return np.concatenate(i), np.concatenate(j)


def _score(name: str, radius: float, picks: pd.DataFrame, truth: pd.DataFrame) -> Score:
    ours = picks[picks["class_name"] == name]
    found = ours[ours["partner"] >= 0]
    return Score(
        class_name=name,
        radius=radius,
        n_picks=len(ours),
        n_truth=int((truth["class_name"] == name).sum()),
        n_found=len(found),
        mean_distance=float(found["distance"].mean()) if len(found) else math.nan,
    )


def _rows(table: pd.DataFrame, *columns: str) -> dict[tuple[str, ...], Ints]:
    """Row numbers of the table by the values in some columns."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, key in enumerate(table[list(columns)].itertuples(index=False, name=None)):
        found[key].append(row)
    return {key: np.array(rows, np.int64) for key, rows in found.items()}


def _xyz(table: pd.DataFrame) -> Floats:
    return table[["x", "y", "z"]].to_numpy(np.float64)


def _between(values: Floats, level: float) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
