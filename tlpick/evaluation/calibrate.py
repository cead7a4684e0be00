"""``tlpick calibrate``: calibrates the scores of a model's picks on held-out samples.

The picks in the samples are matched with the true particles, one to one within the class's radius
(:mod:`tlpick.evaluation.matching`). A curve fitted to right and wrong picks turns a score into the
probability that a pick is right: Platt's logistic curve (Platt 1999, with his softened targets) for few
picks, isotonic regression (Zadrozny & Elkan, KDD 2002) for many. With fewer than a thousand picks, isotonic
regression overfits: on simulated scores its log loss is 0.1 higher at 30 picks and 0.01 higher at 1000 if the
truth is smooth, and 0.03 lower at 1000 if the truth has steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.intensity import measure, normalise
from catalogs.model_file import ModelCard, with_card
from catalogs.schema import SampleRecord
from catalogs.score_calibration import Calibration, Expectation
from tlpick.evaluation.matching import evaluate
from tlpick.evaluation.particle_means import particle_means, tomogram_looks
from tlpick.network.localisation.localise import Found, Options, find, score_clusters
from tlpick.network.model import MEMORY, load_model
from tlpick.network.picks import as_table, refuse_unknown_classes
from tlpick.network.segment import segment
from tlpick.network.tiles import plan

_log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

#: Default samples: held out from training, but not those of the final test.
HELD_OUT = "split == 'val'"
#: Number of picks, and of right and wrong ones, from which isotonic regression is used.
ENOUGH, ENOUGH_OF_EACH = 1000, 100
#: Largest number of points of the curve of thresholds.
CURVE_POINTS = 200


def calibrate(
    model: str,
    corpus: str,
    where: str = HELD_OUT,
    to: str | None = None,
    options: Options | None = None,
    say: Callable[[str], None] = _log.info,
) -> ModelCard:
    """Calibrate a model's scores on held-out samples of a corpus, and write the model with the calibration.

    Parameters
    ----------
    model
        Path of the model file.
    corpus
        Path or URL.
    where
        Condition for the samples.
    to
        The calibrated model to write; None: it replaces ``model``.
    options
        How particles are found; pick with the same options. None: the defaults.
    say
        Receives a sentence about each step; by default it goes to :mod:`logging`.

    Returns
    -------
    ModelCard
        Card of the calibrated model.

    Raises
    ------
    InputError
        If no sample fits, one was used in training, or the voxel sizes differ from the model's.
    """
    loaded = load_model(model)
    card = loaded.card
    catalog = Catalog.open(corpus)
    records = _chosen(catalog, card, where, model)
    options = options or Options()
    refuse_unknown_classes(options, card)
    found: list[tuple[SampleRecord, Found]] = []
    for k, record in enumerate(records, start=1):
        values = np.asarray(catalog.arrays(record.sample_id)["tomogram"][:], np.float32)
        values = normalise(values, measure(values))
        z, y, x = values.shape
        tiling = plan((z, y, x), loaded.network, MEMORY)
        made = segment(values, loaded.network, tiling, card.classes, card.thresholds)
        found.append((record, find(made.labels, made.score, card.classes, card.voxel_size, options)))
        say(f"segmented {record.name}, {k} of {len(records)}")
    truth = _truth(catalog, records)

    radii = {info.name: info.radius for info in card.classes if info.is_particle}
    # first measure the size of particles in this network's segmentations, then use it
    volumes: dict[str, float] = {}
    for _ in range(2):
        picks = _table(found, card, options, volumes)
        compared = evaluate(picks, truth, radii)
        volumes = _volumes(compared.picks, radii, card.voxel_size) or volumes
    calibration = {}
    for name, radius in radii.items():
        ours = compared.picks[compared.picks["class_name"] == name]
        n_truth = int((compared.truth["class_name"] == name).sum())
        if ours.empty:
            say(f"{name}: no picks in the held-out samples, so it is not calibrated")
            continue
        scores, right = ours["score"].to_numpy(np.float64), ours["partner"].to_numpy() >= 0
        calibration[name] = fit(scores, right, n_truth, radius, volumes.get(name))
        say(_sentence(name, calibration[name]))
    provenance = {
        **card.provenance,
        "calibration": {
            "corpus": catalog.url,
            "samples": [record.sample_id for record in records],
            "where": where,
            "method": options.method,
        },
    }
    means = card.means or particle_means(catalog, records)
    looks = card.looks or tomogram_looks(catalog, records)
    calibrated = card.model_copy(
        update={"calibration": calibration, "provenance": provenance, "means": means, "looks": looks}
    )
    with_card(model, calibrated, to or model)
    say(f"wrote {to or model}")
    return calibrated


def fit(
    scores: Floats, right: NDArray[np.bool_], n_truth: int, radius: float, volume: float | None = None
) -> Calibration:
    """Fit the calibration of one class.

    Parameters
    ----------
    scores
        (n,) scores of held-out picks, n > 0.
    right
        (n,) whether each is right.
    n_truth
        Number of true particles.
    radius
        Largest distance of a right pick, Å.
    volume
        Volume of a particle in segmentations, Å³, if known.

    Returns
    -------
    Calibration
        Isotonic from :data:`ENOUGH` picks on, with :data:`ENOUGH_OF_EACH` right and wrong ones; else Platt's.
    """
    n, n_right = len(scores), int(right.sum())
    if n >= ENOUGH and min(n_right, n - n_right) >= ENOUGH_OF_EACH:
        knots, values = isotonic(scores, right)
        made = Calibration(
            method="isotonic",
            scores=[round(float(v), 6) for v in knots],
            probabilities=[round(float(v), 6) for v in values],
            radius=radius, volume=volume, n_picks=n, n_right=n_right, n_truth=n_truth, curve=[],
        )  # fmt: skip
    else:
        slope, intercept = platt(scores, right)
        made = Calibration(
            method="platt",
            slope=round(slope, 6),
            intercept=round(intercept, 6),
            radius=radius, volume=volume, n_picks=n, n_right=n_right, n_truth=n_truth, curve=[],
        )  # fmt: skip
    return made.model_copy(update={"curve": _curve(made, scores, right, n_truth)})


def platt(scores: Floats, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Fit a logistic curve; return its slope and intercept.

    The targets are softened as by Platt, (n + 1) / (n + 2) for right and 1 / (m + 2) for wrong picks, so that
    a few correct picks do not imply certainty. If higher scores have fewer right picks, the score is not
    informative, and the slope is 0.
    """
    from scipy.optimize import minimize

    n_right = int(right.sum())
    target = np.where(right, (n_right + 1) / (n_right + 2), 1 / (len(right) - n_right + 2))
    base = float(target.mean())

    def loss(values: Floats) -> tuple[float, Floats]:
        logit = values[0] * scores + values[1]
        off = 1 / (1 + np.exp(-logit)) - target
        return float((np.logaddexp(0, logit) - target * logit).sum()), np.array(
            [(off * scores).sum(), off.sum()]
        )

    start = np.array([0.0, np.log(base / (1 - base))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, 1e4), (None, None)])
    return float(found.x[0]), float(found.x[1])


def isotonic(scores: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Fit an increasing curve to right and wrong picks; return its knots and their values."""
    from sklearn.isotonic import IsotonicRegression

    least = 0.5 / len(scores)  # a finite number of picks gives no certainty
    model = IsotonicRegression(y_min=least, y_max=1 - least).fit(scores, right.astype(np.float64))
    return np.asarray(model.X_thresholds_, np.float64), np.asarray(model.y_thresholds_, np.float64)


def _chosen(catalog: Catalog, card: ModelCard, where: str, model: str) -> list[SampleRecord]:
    ids = set(catalog.query(where).index)
    records = sorted(
        (record for record in catalog.records() if record.sample_id in ids), key=lambda r: r.sample_id
    )
    if not records:
        raise InputError(
            f'no sample of the corpus {catalog.url} fits `where` "{where}"; give samples that the model was '
            "not trained on, e.g. `where` \"split == 'test'\""
        )
    trained = set(card.provenance.get("train", ()))
    seen = [record.name for record in records if record.sample_id in trained]
    if seen:
        raise InputError(
            f"{model} was trained on {len(seen)} of the {len(records)} samples ({seen[0]} among them), whose "
            f'scores would be too good; leave them out by `where`, e.g. "{HELD_OUT}"'
        )
    for record in records:
        size = record.acquisition.voxel_size
        if abs(size / card.voxel_size - 1) > 0.02:
            raise InputError(
                f"the sample {record.name} has voxels of {size:g} Å, the model was trained at "
                f'{card.voxel_size:g} Å; choose by `where` "voxel_size == {card.voxel_size:g}"'
            )
    known, wanted = {info.name for info in catalog.classes}, {info.name for info in card.classes}
    if not known & wanted:
        raise InputError(
            f"the corpus {catalog.url} has the classes {', '.join(sorted(known))}, the model "
            f"{', '.join(sorted(wanted))}; none is in both"
        )
    return records


def _truth(catalog: Catalog, records: Sequence[SampleRecord]) -> pd.DataFrame:
    tables = [catalog.particles(record.sample_id).assign(tomogram=record.sample_id) for record in records]
    whole = pd.concat(tables, ignore_index=True)
    return whole[whole["label"] != 0]


def _table(
    found: Sequence[tuple[SampleRecord, Found]],
    card: ModelCard,
    options: Options,
    volumes: Mapping[str, float],
) -> pd.DataFrame:
    tables = [
        as_table(
            record.sample_id,
            score_clusters(each, card.classes, card.voxel_size, options, volumes),
            card.classes,
        )
        for record, each in found
    ]
    return pd.concat(tables, ignore_index=True)


def _volumes(picks: pd.DataFrame, radii: Mapping[str, float], voxel_size: float) -> dict[str, float]:
    """Return the median volume in Å³ of the right picks of each class that are completely in the volume."""
    whole = picks[(picks["partner"] >= 0) & (picks["flags"] == "")]
    sizes = {name: whole.loc[whole["class_name"] == name, "size"] for name in radii}
    return {name: float(np.median(size)) * voxel_size**3 for name, size in sizes.items() if len(size)}


def _curve(made: Calibration, scores: Floats, right: NDArray[np.bool_], n_truth: int) -> list[Expectation]:
    """Return for each threshold the precision and recall expected from the calibrated probabilities."""
    order = np.argsort(scores)
    ordered, probability = scores[order], made.probability(scores[order])
    from_top = probability[::-1].cumsum()[::-1]
    right_from_top = right[order][::-1].cumsum()[::-1]
    first = np.unique(ordered, return_index=True)[1]
    if len(first) > CURVE_POINTS:
        first = first[np.linspace(0, len(first) - 1, CURVE_POINTS).round().astype(int)]
    n = len(scores)
    return [
        Expectation(
            # rounded down, so that the pick at the threshold is above it
            threshold=float(np.floor(ordered[k] * 1e6) / 1e6),
            precision=round(float(from_top[k]) / (n - k), 6),
            recall=round(min(float(from_top[k]) / n_truth, 1.0), 6) if n_truth else 0.0,
            n_picks=n - int(k),
            n_right=int(right_from_top[k]),
        )
        for k in first
    ]


def _sentence(name: str, made: Calibration) -> str:
    kind = "isotonic curve" if made.method == "isotonic" else "Platt's curve"
    size = f", a particle looks {made.volume:.3g} Å³ large" if made.volume else ""
    return f"{name}: {made.n_right} of {made.n_picks} picks are right, {made.n_truth} particles; {kind}{size}"
