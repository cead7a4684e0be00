"""Evaluate a network on tomograms that it was not trained on: by voxels, and by picks.

Picks are what users want, so they choose the best network: the same clustering as the picker's, and the same
one-to-one comparison (`tlpick.network.localisation`, `tlpick.evaluation.matching`). Their average precision
over scores decides, since it does not reach its end as soon as F1 does, with its standard error over
tomograms. Voxels break ties, and say more early on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs import particles
from catalogs.intensity import normalise
from catalogs.schema import ClassInfo, SampleRecord
from catalogs.seeds import generator
from tlpick.evaluation.matching import Evaluation, evaluate, only_reviewed
from tlpick.network.localisation.localise import Options, localise
from tlpick.network.model import Predictor
from tlpick.network.voxel_classes import Rule
from tltrain.data.damage import needed
from tltrain.data.patch_sources import Labels, outputs_of
from tltrain.training.loop import ValidationResult
from tltrain.training.losses import IGNORE

if TYPE_CHECKING:
    from catalogs.corpus.catalog import Catalog

#: Number of voxels that are used: a limit for memory and time, whatever the corpus.
MOST_VOXELS = 14_000_000
#: If more than this share of the voxels is predicted as a class, it is not learned yet, and is not picked.
HOPELESS = 0.5

_BINS = 100


@dataclass(frozen=True)
class Preview:
    """A plane of a tomogram: (y, x) grey values, classes as they are, classes as predicted (0: none).

    ``called`` is the origin of the true classes.
    """

    title: str
    grey: NDArray[np.float32]
    truth: NDArray[np.uint8]
    found: NDArray[np.uint8]
    called: str = "Truth"


@dataclass(frozen=True)
class PickScore:
    """Scores of one class: F1, precision and recall of picks matched one to one with particles.

    Attributes
    ----------
    f1, precision, recall
        Of all picks.
    average_precision
        Of each tomogram that has particles: area under precision over recall, picks in order of score. It
        goes on telling networks apart where F1 has reached 1.
    """

    f1: float
    precision: float
    recall: float
    average_precision: tuple[float, ...] = ()


@dataclass(frozen=True)
class Scores:
    """Scores of each class, by name.

    Attributes
    ----------
    f1
        Harmonic mean of precision and recall over voxels, each voxel given to its most probable class; nan
        for a class that does not occur.
    thresholds
        The threshold of the class' probability with the best F1 of voxels.
    picks
        Of the classes that are particles, picked with these thresholds.
    preview
        A plane to show.
    """

    f1: dict[str, float]
    thresholds: dict[str, float]
    picks: dict[str, PickScore]
    preview: Preview | None = None

    @property
    def previews(self) -> tuple[Preview, ...]:
        """The plane to show, if there is one."""
        return () if self.preview is None else (self.preview,)

    @property
    def mean(self) -> float:
        """Mean voxel F1 over the classes that occur, of the particles if there are any; 0 if none does."""
        return _mean([value for name, value in self.f1.items() if not self.picks or name in self.picks])

    @property
    def mean_picks(self) -> float:
        """Mean F1 of picks over the classes that occur; 0 if none does."""
        return _mean([score.f1 for score in self.picks.values()])

    @property
    def average_precision(self) -> tuple[float, float]:
        """Mean average precision of picks over tomograms and classes, and its standard error."""
        each = [score.average_precision for score in self.picks.values() if score.average_precision]
        if not each:
            return 0.0, 0.0
        errors = [
            float(np.std(values, ddof=1)) / math.sqrt(len(values)) for values in each if len(values) > 1
        ]
        error = math.sqrt(sum(e * e for e in errors)) / len(each)
        return float(np.mean([np.mean(values) for values in each])), error

    def outcome(self) -> ValidationResult:
        """Return it for the loop: picks decide, then voxels."""
        words = "val F1 " + _words(self.f1)
        if self.picks:
            words += ", picks " + _words({name: score.f1 for name, score in self.picks.items()})
            words += ", average precision {:.3f} ± {:.3f}".format(*self.average_precision)
        facts: dict[str, Any] = {"f1": self.f1}
        if self.picks:
            facts["picks"] = {
                name: {
                    "f1": score.f1,
                    "precision": score.precision,
                    "recall": score.recall,
                    "average_precision": _mean(score.average_precision),
                }
                for name, score in self.picks.items()
            }
        if not self.picks:
            return ValidationResult((self.mean,), words, facts)
        mean, error = self.average_precision
        return ValidationResult((mean, self.mean), words, facts, error=error)


@dataclass(frozen=True, eq=False)
class Held:
    """A tomogram for validation, or the middle part of one.

    Attributes
    ----------
    name
        Of the tomogram.
    grey
        (z, y, x) normalised grey values.
    truth
        (z, y, x) indices of the network's outputs; :data:`tltrain.training.losses.IGNORE` where not known.
    particles
        Particle table, in Å from the first voxel.
    cut
        (3,) margins in voxels along z, y, x at both ends, in which particles may be cut and do not count.
    annotated
        (z, y, x) labels made from annotations, for display only; None: ``truth`` is shown.
    """

    name: str
    grey: NDArray[np.float16]
    truth: NDArray[np.uint8]
    particles: pd.DataFrame
    cut: tuple[int, int, int] = (0, 0, 0)
    annotated: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Validation:
    """Tomograms, the same at every call; see :func:`open_validation`.

    Attributes
    ----------
    classes
        In the order of the network's outputs after the background.
    voxel_size
        Å.
    held
        The tomograms.
    """

    classes: tuple[ClassInfo, ...]
    voxel_size: float
    held: Sequence[Held]

    def score(self, predict: Predictor, thresholds: Mapping[str, float] | None = None) -> Scores:
        """Evaluate a network on the tomograms; picks use these thresholds, or the best ones."""
        count = _Count(len(self.classes))
        seen = [self._seen(predict, each, count) for each in self.held]
        names = [info.name for info in self.classes]
        best = dict(zip(names, count.thresholds(), strict=True))
        thresholds = best if thresholds is None else {name: thresholds.get(name, 0.5) for name in names}
        # the picker's own rule, which knows classes by the values in the volume
        rule = Rule([info.model_copy(update={"label": k}) for k, info in self._outputs.items()], thresholds)
        labels = [rule.labels(likeliest, highest) for likeliest, highest in seen]
        return Scores(
            f1=dict(zip(names, count.f1(), strict=True)),
            thresholds=thresholds,
            picks=self._picks(labels, [highest for _, highest in seen]),
            preview=self._preview(labels),
        )

    @property
    def _outputs(self) -> dict[int, ClassInfo]:
        """Classes by the index of the network's output."""
        return dict(enumerate(self.classes, start=1))

    def _seen(
        self, predict: Predictor, held: Held, count: _Count
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Predict a tomogram: which class is likeliest (the first is 0), and how likely; count voxels."""
        likeliest = np.zeros(held.grey.shape, np.uint8)
        highest = np.zeros(held.grey.shape, np.float32)
        for box, probability in predict(held.grey):
            likeliest[box] = probability[..., 1:].argmax(axis=-1)
            highest[box] = probability[..., 1:].max(axis=-1)
            count.add(probability, held.truth[box])
        return likeliest, highest

    def _picks(
        self, labels: Sequence[NDArray[np.uint8]], highest: Sequence[NDArray[np.float32]]
    ) -> dict[str, PickScore]:
        """Pick the tomograms and compare with their particles."""
        sought = {k: info for k, info in self._outputs.items() if info.is_particle}
        radii = {info.name: info.radius for info in sought.values()}
        if not sought:
            return {}
        tables, wanted = [], []
        for held, volume, probability in zip(self.held, labels, highest, strict=True):
            shares = np.bincount(volume.ravel(), minlength=len(self.classes) + 1) / volume.size
            # the picker's own clustering, which knows classes by the values in the volume
            those = [
                info.model_copy(update={"label": k}) for k, info in sought.items() if shares[k] < HOPELESS
            ]
            score = np.rint(probability * 255).astype(np.uint8)
            found = localise(volume, score, those, self.voxel_size, Options())
            picks = _joined(
                [
                    particles.make(
                        tomogram=held.name,
                        class_name=info.name,
                        label=info.label,
                        score=each.scores,
                        **_xyz(each.centres),
                    )
                    for info, each in zip(those, found, strict=True)
                ]
            )
            truth = held.particles[held.particles["class_name"].isin(radii)]
            if any(held.cut):
                picks, truth = only_reviewed(picks, truth, radii, partial(self._inside, held))
            tables.append(picks)
            wanted.append(truth)
        evaluation = evaluate(_joined(tables), _joined(wanted), radii)
        return {
            s.class_name: PickScore(
                s.f1,
                s.precision,
                s.recall,
                tuple(
                    _average_precision(evaluation, held.name, s.class_name)
                    for held in self.held
                    if _there(evaluation.truth, held.name, s.class_name)
                ),
            )
            for s in evaluation.scores
        }

    def _inside(self, held: Held, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which rows are far enough from the cut faces."""
        zyx = table[["z", "y", "x"]].to_numpy(np.float64) / self.voxel_size
        cut, shape = np.array(held.cut), np.array(held.grey.shape)
        return np.asarray(((cut == 0) | ((zyx >= cut) & (zyx <= shape - 1 - cut))).all(axis=1))

    def _preview(self, labels: Sequence[NDArray[np.uint8]]) -> Preview | None:
        """Choose the plane with most of the classes in it, of the tomogram with most of them."""
        if not self.held:
            return None
        n = len(self.classes)  # beyond are words for what is not known
        shown = [held.truth if held.annotated is None else held.annotated for held in self.held]
        there = [((volume > 0) & (volume <= n)).sum(axis=(1, 2)) for volume in shown]
        crowd = [planes.sum() / volume.size for planes, volume in zip(there, shown, strict=True)]
        which = int(np.argmax(crowd))
        held, z = self.held[which], int(there[which].argmax())
        plane = np.asarray(shown[which][z])
        return Preview(
            title=f"{held.name}, plane {z + 1} of {len(held.grey)}",
            grey=held.grey[z].astype(np.float32),
            truth=np.where(plane > n, 0, plane).astype(np.uint8),
            found=labels[which][z],
            called="Truth" if held.annotated is None else "Annotations",
        )


class _Count:
    """Counts of right and wrong voxels by their probability."""

    def __init__(self, n: int) -> None:
        self._hit, self._false, self._missed = np.zeros((3, n), np.int64)
        self._right, self._wrong = np.zeros((2, n, _BINS), np.int64)  # histograms of the probability

    def add(self, probability: NDArray[np.float32], truth: NDArray[np.uint8]) -> None:
        known = truth < IGNORE
        probability, truth = probability[known], truth[known]
        found = probability.argmax(axis=-1)
        for k in range(len(self._hit)):
            is_class, is_found = truth == k + 1, found == k + 1
            self._hit[k] += (is_class & is_found).sum()
            self._false[k] += (~is_class & is_found).sum()
            self._missed[k] += (is_class & ~is_found).sum()
            bins = np.minimum((probability[:, k + 1] * _BINS).astype(np.int64), _BINS - 1)
            self._right[k] += np.bincount(bins[is_class], minlength=_BINS)
            self._wrong[k] += np.bincount(bins[~is_class], minlength=_BINS)

    def f1(self) -> list[float]:
        there = self._hit + self._missed > 0
        with np.errstate(invalid="ignore"):
            f1 = np.where(there, 2 * self._hit / (2 * self._hit + self._false + self._missed), np.nan)
        return [float(value) for value in f1]

    def thresholds(self) -> list[float]:
        return [_best_threshold(right, wrong) for right, wrong in zip(self._right, self._wrong, strict=True)]


def open_validation(
    catalog: Catalog, records: Sequence[SampleRecord], *, most: int = MOST_VOXELS
) -> Validation:
    """Choose and read the tomograms to validate on.

    Parameters
    ----------
    catalog
        The corpus.
    records
        Of the samples, of one voxel size.
    most
        Largest number of voxels.

    Returns
    -------
    Validation
        All samples or, of too many, as many as hold ``most`` voxels, drawn once and for all; of a sample that
        is larger than that the middle.

    Raises
    ------
    InputError
        If one of them is damaged (it is not replaced, because scores would not be comparable), or if the
        storage does not answer for too long.
    """
    ordered = sorted(catalog.classes, key=lambda info: info.label)
    labels = Labels(outputs_of(catalog.classes))
    voxel_size = records[0].acquisition.voxel_size
    radius = math.ceil(max(info.radius for info in ordered) / voxel_size)
    held: list[Held] = []
    left = most
    for k in generator("validation", len(records)).permutation(len(records)):
        record = records[k]
        if held and math.prod(record.shape) > left:
            continue
        low, high = _middle(record.shape, left)
        where = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        read = partial(_read, catalog, record, where, labels)
        grey, truth, table = needed(read, f"{record.name} ({record.sample_id})", "to validate")
        table = table[table["label"] > 0].assign(tomogram=record.name)
        for axis, name in enumerate("zyx"):
            table = table.assign(**{name: table[name] - low[axis] * voxel_size})
            table = table[(table[name] >= 0) & (table[name] <= (high[axis] - low[axis] - 1) * voxel_size)]
        held.append(
            Held(
                name=record.name,
                grey=grey,
                truth=truth,
                particles=table,
                cut=tuple(
                    radius if b - a < n else 0 for a, b, n in zip(low, high, record.shape, strict=True)
                ),  # type: ignore[arg-type]
            )
        )
        left -= held[-1].grey.size
    return Validation(tuple(ordered), voxel_size, held)


def _read(
    catalog: Catalog, record: SampleRecord, where: tuple[slice, ...], labels: Labels
) -> tuple[NDArray[np.float16], NDArray[np.uint8], pd.DataFrame]:
    """Read a part of a tomogram: normalised grey values, outputs of the network, particles."""
    arrays = catalog.arrays(record.sample_id)
    grey = arrays["tomogram"][where]
    if not np.isfinite(grey).all():
        raise ValueError("it holds values that are not finite numbers")
    normal = normalise(grey, record.intensity).astype(np.float16)
    return normal, labels(arrays["classes"][where]), catalog.particles(record.sample_id)


def _middle(shape: tuple[int, int, int], most: int) -> tuple[list[int], list[int]]:
    """Crop the longest axes of a volume around its middle until it has few enough voxels."""
    edges = list(shape)
    while math.prod(edges) > most:
        axis = int(np.argmax(edges))
        edges[axis] = max(int(edges[axis] * 0.9), 1)
    low = [(n - edge) // 2 for n, edge in zip(shape, edges, strict=True)]
    return low, [a + edge for a, edge in zip(low, edges, strict=True)]


def _best_threshold(right: NDArray[np.int64], wrong: NDArray[np.int64]) -> float:
    """Find the threshold of the best F1: the middle of those within a tenth of a percent of it."""
    if not right.any():
        return 0.5
    hit, false = right[::-1].cumsum()[::-1], wrong[::-1].cumsum()[::-1]
    f1 = 2 * hit / (hit + false + right.sum())
    return float(np.flatnonzero(f1 >= f1.max() - 1e-3).mean() / len(f1))


def _there(table: pd.DataFrame, tomogram: str, class_name: str) -> int:
    """Count the rows of a tomogram and class."""
    return int(((table["tomogram"] == tomogram) & (table["class_name"] == class_name)).sum())


def _average_precision(evaluation: Evaluation, tomogram: str, class_name: str) -> float:
    """Area under precision over recall of one class in one tomogram, picks in order of score."""
    picks = evaluation.picks
    ours = picks[(picks["tomogram"] == tomogram) & (picks["class_name"] == class_name)]
    right = ours.sort_values("score", ascending=False, kind="stable")["partner"].to_numpy() >= 0
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    return float((precision * right).sum() / _there(evaluation.truth, tomogram, class_name))


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    full = [table for table in tables if len(table)]
    return pd.concat(full, ignore_index=True) if full else particles.empty()


def _xyz(centres: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return dict(zip("xyz", centres.T, strict=True))


def _words(values: Mapping[str, float]) -> str:
    """Write the scores of the classes in a few words."""
    return ", ".join(
        f"{value:.3f}" if len(values) == 1 else f"{name} {value:.3f}" for name, value in values.items()
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0
