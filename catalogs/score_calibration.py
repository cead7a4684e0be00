"""Calibration of scores: the probability that a pick is right, and what a threshold is expected to give.

It is made from held-out samples with known truth and stored in the model file for each class.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from catalogs.errors import InputError

Floats = NDArray[np.float64]

#: Half-width of the intervals in standard deviations: 90 % of a normal distribution.
_Z90 = 1.6448536269514722


class Expectation(BaseModel):
    """What a score threshold is expected to give, according to the held-out picks.

    The interval is Wilson's 90 % interval of the share of right picks among the held-out picks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float
    precision: float
    recall: float
    n_picks: int = Field(description="Held-out picks with at least this score.")
    n_right: int = Field(description="Right ones among these.")

    @property
    def interval(self) -> tuple[float, float]:
        """Interval that contains the precision with a probability of 90 %."""
        n, p = self.n_picks, self.n_right / self.n_picks if self.n_picks else 0.5
        if not n:
            return 0.0, 1.0
        middle = (p + _Z90**2 / (2 * n)) / (1 + _Z90**2 / n)
        half = _Z90 / (1 + _Z90**2 / n) * math.sqrt(p * (1 - p) / n + _Z90**2 / (4 * n**2))
        return max(middle - half, 0.0), min(middle + half, 1.0)


class Calibration(BaseModel):
    """The map from scores of one class to probabilities."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["platt", "isotonic"]
    slope: float = Field(
        0.0, ge=0, description="Platt: probability = 1 / (1 + exp(-slope score - intercept))."
    )
    intercept: float = 0.0
    scores: list[float] = Field(default_factory=list, description="Isotonic: knots, ascending.")
    probabilities: list[float] = Field(default_factory=list, description="Isotonic: their values.")
    radius: float = Field(
        gt=0,
        json_schema_extra={"unit": "Å"},
        description="Largest distance of a right pick from its particle.",
    )
    volume: float | None = Field(
        None,
        json_schema_extra={"unit": "Å³"},
        description="Median of right picks, as segmented.",
    )
    n_picks: int
    n_right: int
    n_truth: int = Field(description="Number of true particles.")
    curve: list[Expectation] = Field(description="By ascending threshold.")

    @model_validator(mode="after")
    def _is_monotone(self) -> Calibration:
        if len(self.scores) != len(self.probabilities) or (self.method == "isotonic" and not self.scores):
            raise ValueError("an isotonic calibration needs as many probabilities as scores")
        if np.any(np.diff(self.scores) < 0) or np.any(np.diff(self.probabilities) < 0):
            raise ValueError("a higher score must not mean a lower probability")
        return self

    def probability(self, score: ArrayLike) -> Floats:
        """Return the probability that picks with these scores are right; nan where there is no score."""
        values = np.asarray(score, np.float64)
        if self.method == "isotonic":
            return np.asarray(np.interp(values, self.scores, self.probabilities), np.float64)
        return np.asarray(1 / (1 + np.exp(-(self.slope * values + self.intercept))), np.float64)

    def for_precision(self, precision: float, name: str = "the class") -> Expectation:
        """Find the lowest threshold that is expected to give a precision.

        Raises
        ------
        InputError
            If no threshold gives it according to the held-out picks.
        """
        for point in self.curve:
            if point.precision >= precision:
                return point
        best = max((point.precision for point in self.curve), default=math.nan)
        reason = (
            f"the highest that the held-out picks reach is {best:.3f}"
            if self.curve
            else "there was no held-out pick to learn from"
        )
        raise InputError(
            f"no score of {name} reaches a precision of {precision:g}: {reason}; request a lower one"
        )

    def expected(self, threshold: float) -> Expectation:
        """Return what a threshold is expected to give: the point of the curve at or above it."""
        if not self.curve:
            return Expectation(threshold=threshold, precision=0.0, recall=0.0, n_picks=0, n_right=0)
        at = [point.threshold for point in self.curve]
        k = min(int(np.searchsorted(at, threshold)), len(at) - 1)
        return self.curve[k].model_copy(update={"threshold": threshold})
