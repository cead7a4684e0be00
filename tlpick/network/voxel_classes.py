"""Turns a network's output into probabilities and classes of voxels.

This takes one pass through memory. Every voxel is computed in the same way, wherever it lies in an array.
Libraries use other code for the last few voxels of a row, which rounds differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from catalogs.schema import ClassInfo

# exp(x) = 2^n exp(r), |r| <= ln(2) / 2; coefficients as in Cephes' expf (Moshier, 1992)
_LOG2E = np.float32(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_TERMS = tuple(
    np.float32(c)
    for c in (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    )
)
_LEAST = np.float32(-87.0)  # its exponential is the smallest that is not denormal


class Rule:
    """The rule that assigns classes to voxels from their probabilities.

    Parameters
    ----------
    classes
        Channel k of the network's output is the class with the k-th smallest label; channel 0 is background.
    thresholds
        Smallest probability of a class's voxels, by class name; without one, the most likely class
        (including background) is chosen.
    """

    def __init__(self, classes: Sequence[ClassInfo], thresholds: Mapping[str, float]) -> None:
        ordered = sorted(classes, key=lambda info: info.label)
        self._values = np.array([info.label for info in ordered], np.uint8)
        self._least = np.array([thresholds.get(info.name, np.nan) for info in ordered], np.float32)

    def decide(
        self,
        answer: NDArray[np.float32],
        logits: bool,
        labels: NDArray[np.uint8],
        score: NDArray[np.uint8],
    ) -> None:
        """Assign classes to voxels.

        Parameters
        ----------
        answer
            (z, y, x, classes + 1) output of the network.
        logits
            Whether a softmax must turn it into probabilities.
        labels, score
            (z, y, x) filled with each voxel's class, and the probability of its most likely class in 1/255.
        """
        _decide(answer, logits, self._values, self._least, labels, score)

    def labels(self, likeliest: NDArray[np.uint8], highest: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Assign classes from stored maxima of the probabilities, if every class has a threshold.

        Parameters
        ----------
        likeliest
            (z, y, x) index of the most likely class in the order of the labels; the first class is 0.
        highest
            (z, y, x) its probability.

        Returns
        -------
        ndarray of uint8
            (z, y, x) labels, 0 for background.
        """
        return np.where(highest >= self._least[likeliest], self._values[likeliest], 0).astype(np.uint8)


def add_probabilities(answer: NDArray[np.float32], logits: bool, to: NDArray[np.float32]) -> None:
    """Add the probabilities of voxels to an array.

    Parameters
    ----------
    answer, logits
        As :meth:`Rule.decide` takes them.
    to
        (z, y, x, classes + 1).
    """
    _add(answer, logits, to)


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _exp(x: np.float32) -> np.float32:
    """Return the exponential of a non-positive number to float32's precision."""
    x = max(x, _LEAST)
    n = np.float32(np.floor(x * _LOG2E + np.float32(0.5)))
    r = x - n * _LN2_HIGH
    r -= n * _LN2_LOW
    p = _TERMS[0]
    for c in _TERMS[1:]:
        p = p * r + c
    p = p * r * r + r + np.float32(1)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _row(
    row: NDArray[np.float32], logits: bool, shares: NDArray[np.float32], total: NDArray[np.float32]
) -> None:
    """Turn a row (x, classes) into probabilities (classes, x), by loops that the compiler vectorizes."""
    n_classes, n = shares.shape
    for k in range(n_classes):
        for x in range(n):
            shares[k, x] = row[x, k]
    if not logits:
        return
    for x in range(n):
        total[x] = shares[0, x]
    for k in range(1, n_classes):
        for x in range(n):
            total[x] = max(total[x], shares[k, x])
    for k in range(n_classes):
        for x in range(n):
            shares[k, x] = _exp(shares[k, x] - total[x])
    for x in range(n):
        total[x] = shares[0, x]
    for k in range(1, n_classes):
        for x in range(n):
            total[x] += shares[k, x]
    for k in range(n_classes):
        for x in range(n):
            shares[k, x] /= total[x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add(answer: NDArray[np.float32], logits: bool, to: NDArray[np.float32]) -> None:
    nz, ny, nx, n_classes = answer.shape
    shares, total = np.empty((n_classes, nx), np.float32), np.empty(nx, np.float32)
    for z in range(nz):
        for y in range(ny):
            _row(answer[z, y], logits, shares, total)
            for k in range(n_classes):
                for x in range(nx):
                    to[z, y, x, k] += shares[k, x]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _decide(
    answer: NDArray[np.float32],
    logits: bool,
    values: NDArray[np.uint8],
    least: NDArray[np.float32],
    labels: NDArray[np.uint8],
    score: NDArray[np.uint8],
) -> None:
    nz, ny, nx, n_classes = answer.shape
    shares, total = np.empty((n_classes, nx), np.float32), np.empty(nx, np.float32)
    highest, bar, value = np.empty(nx, np.float32), np.empty(nx, np.float32), np.empty(nx, np.uint8)
    for z in range(nz):
        for y in range(ny):
            _row(answer[z, y], logits, shares, total)
            highest[:], bar[:], value[:] = -1, 2, 0  # nan counts as background
            for k in range(1, n_classes):
                stated = not np.isnan(least[k - 1])
                for x in range(nx):
                    more = shares[k, x] > highest[x]
                    bar[x] = (least[k - 1] if stated else shares[0, x]) if more else bar[x]
                    value[x] = values[k - 1] if more else value[x]
                    highest[x] = shares[k, x] if more else highest[x]
            for x in range(nx):
                labels[z, y, x] = value[x] if highest[x] >= bar[x] else np.uint8(0)
                score[z, y, x] = np.uint8(
                    np.int32(max(highest[x], np.float32(0)) * np.float32(255) + np.float32(0.5))
                )
