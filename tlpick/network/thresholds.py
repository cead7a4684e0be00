"""Which class a voxel gets, from the probabilities that the network gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import ClassInfo


class Rule:
    """The likeliest class that is not background, where it is likely enough; the same everywhere.

    Parameters
    ----------
    classes
        Output channel k of the network is the class with the k-th smallest label.
    thresholds
        Class -> least probability of its voxels; a class without one must be likelier than the background.
    """

    def __init__(self, classes: Sequence[ClassInfo], thresholds: Mapping[str, float]) -> None:
        ordered = sorted(classes, key=lambda info: info.label)
        self._values = np.array([info.label for info in ordered], np.uint8)
        self._least = np.array([thresholds.get(info.name, np.nan) for info in ordered], np.float32)

    def decide(self, probabilities: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Decide from all probabilities.

        Parameters
        ----------
        probabilities
            (..., classes + 1), the background first.

        Returns
        -------
        labels, score
            (...) labels, 0 for background; and the probability of the likeliest class in 1/255.
        """
        likeliest = probabilities[..., 1:].argmax(axis=-1)
        highest = probabilities[..., 1:].max(axis=-1)
        labels = self.labels(likeliest, highest, probabilities[..., 0])
        return labels, in_bytes(highest)

    def labels(
        self, likeliest: NDArray[np.integer], highest: NDArray[np.float32], background: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Decide from what is left of the probabilities.

        Parameters
        ----------
        likeliest
            (...) index of the likeliest class, in the order of the labels; the first class is 0.
        highest
            (...) its probability.
        background
            Probability of the background; it counts for classes without a threshold only.

        Returns
        -------
        ndarray of uint8
            (...) labels, 0 for background.
        """
        least = self._least[likeliest]
        bar = np.where(np.isnan(least), background, least)
        return np.where(highest >= bar, self._values[likeliest], 0).astype(np.uint8)


def in_bytes(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round probabilities to 1/255."""
    return np.rint(probability * 255).astype(np.uint8)
