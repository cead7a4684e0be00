"""Evaluate a network while it is fine-tuned: on simulated tomograms, and on held-out annotated ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from catalogs.model_file import ModelCard
from tlpick.network.model import predictor
from tltrain.finetune.settings import FineTuning
from tltrain.training.loop import ValidationResult
from tltrain.training.validation import Preview, Scores, Validation


@dataclass(frozen=True)
class Assessment:
    """F1 of picks by class, on simulated and on held-out tomograms; None where there are none."""

    simulated: Scores | None
    held_out: Scores | None
    thresholds: Mapping[str, float]

    @property
    def words(self) -> str:
        """Say it in a few words."""
        said = (("simulated", self.simulated), ("held-out", self.held_out))
        return ", ".join(f"F1 {name} {each.mean_picks:.3f}" for name, each in said if each is not None)

    @property
    def previews(self) -> tuple[Preview, ...]:
        """Planes to show: of an annotated tomogram, then of a simulated one."""
        return tuple(
            preview
            for each in (self.held_out, self.simulated)
            if each is not None
            for preview in each.previews
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Say it in the words of JSON."""
        said = (("simulated", self.simulated), ("held_out", self.held_out))
        return {
            name: {
                "f1": round(each.mean_picks, 4),
                "precision": _mean(score.precision for score in each.picks.values()),
                "recall": _mean(score.recall for score in each.picks.values()),
                "classes": {
                    of: None if math.isnan(score.f1) else round(score.f1, 4)
                    for of, score in each.picks.items()
                },
            }
            for name, each in said
            if each is not None
        }


def assess_start(
    before: Any, known: Validation | None, held: Validation | None, card: ModelCard
) -> Assessment:
    """Evaluate the model as it is, on held-out tomograms with the thresholds that the picker uses."""
    predict = predictor(before)
    simulated = known.score(predict) if known else None
    held_out = held.score(predict, card.thresholds) if held else None
    return Assessment(simulated, held_out, card.thresholds)


def assess(
    network: Any, known: Validation | None, held: Validation | None, thresholds: Mapping[str, float]
) -> Assessment:
    """Evaluate a network; on annotated tomograms with the best thresholds for simulated ones."""
    predict = predictor(network)
    simulated = known.score(predict) if known else None
    thresholds = simulated.thresholds if simulated else thresholds
    return Assessment(simulated, held.score(predict, thresholds) if held else None, thresholds)


def outcome_of(assessment: Assessment, begin: Mapping[str, Any], settings: FineTuning) -> ValidationResult:
    """Decide whether to continue; if too much is forgotten, the first number of the score is very low."""
    facts = assessment.facts
    forgotten = 0.0
    if assessment.simulated is not None and "simulated" in begin and not settings.from_scratch:
        forgotten = round(
            begin["simulated"]["f1"] - facts["simulated"]["f1"], 4
        )  # to the same number of digits
    if forgotten > settings.max_forgetting:
        why = (
            f"F1 on simulated tomograms fell from {begin['simulated']['f1']:.3f} to "
            f"{facts['simulated']['f1']:.3f}, more than `max_forgetting={settings.max_forgetting:g}` allows"
        )
        return ValidationResult((-1.0,), assessment.words, facts, why)
    return ValidationResult(score_of(facts, settings), assessment.words, facts)


def score_of(facts: Mapping[str, Any], settings: FineTuning) -> tuple[float, ...]:
    """Decide which network is kept; if all are equally good, it is the last one."""
    return (0.0,) if settings.keep_last or "held_out" not in facts else (facts["held_out"]["f1"],)


def _mean(values: Iterable[float]) -> float | None:
    """Average over the classes for which there is a value."""
    known = [value for value in values if not math.isnan(value)]
    return round(sum(known) / len(known), 4) if known else None
