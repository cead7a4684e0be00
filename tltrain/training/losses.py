"""Losses for training, in Keras operations only.

Every loss takes the class of each voxel as an integer, and probabilities. Voxels with the class
:data:`IGNORE` are ignored, because their class is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from catalogs.console import nearest
from catalogs.errors import InputError

#: Class of voxels that the loss ignores.
IGNORE = 255


def tversky(
    truth: Any,
    probabilities: Any,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    weights: Sequence[float] | None = None,
    smooth: float = 0.0,
) -> Any:
    """Return the number of classes minus the sum of their Tversky indices (Salehi et al., MLMI 2017).

    It computes the same values as DeepFinder's loss: sums are over the whole batch, and the background is a
    class like the others. With ``alpha = beta = 0.5`` the index is Dice's.

    Parameters
    ----------
    truth
        (b, z, y, x) whole numbers, the index of each voxel's class or :data:`IGNORE`.
    probabilities
        (b, z, y, x, c) of each class; they add up to one.
    alpha
        Weight of false positives.
    beta
        Weight of false negatives.
    weights
        Weight of each class; None: equal weights. Their sum is scaled to the number of classes.
    smooth
        Voxels added to numerator and denominator of every index, so that a class that is absent from a batch,
        and correctly not predicted, has a perfect index.

    Returns
    -------
    scalar tensor
        Between 0 (perfect) and the number of classes.
    """
    from keras import ops

    hot, known, n = _known(truth, probabilities)
    over = (0, 1, 2, 3)
    hit = ops.sum(hot * probabilities, axis=over)
    false = ops.sum(known * probabilities, axis=over) - hit
    missed = ops.sum(hot, axis=over) - hit
    index = ops.divide_no_nan(hit + smooth, hit + alpha * false + beta * missed + smooth)
    if weights is not None:
        index = index * ops.cast([w * n / sum(weights) for w in weights], probabilities.dtype)
    return n - ops.sum(index)


def cross_entropy(truth: Any, probabilities: Any, *, weights: Sequence[float] | None = None) -> Any:
    """Return the mean cross-entropy of the voxels with known class, weighted by class.

    Parameters
    ----------
    truth
        (b, z, y, x) whole numbers, the index of each voxel's class or :data:`IGNORE`.
    probabilities
        (b, z, y, x, c) of each class; they add up to one.
    weights
        Of each class; None: all count the same.

    Returns
    -------
    scalar tensor
    """
    from keras import ops

    hot, _, _ = _known(truth, probabilities)
    if weights is not None:
        hot = hot * ops.cast(list(weights), probabilities.dtype)
    logs = ops.log(ops.maximum(probabilities, 1e-7))
    return ops.divide_no_nan(-ops.sum(hot * logs), ops.sum(hot))


def dice_cross_entropy(truth: Any, probabilities: Any, *, weights: Sequence[float] | None = None) -> Any:
    """Return the mean Dice loss of the classes plus the mean cross-entropy of the voxels.

    The cross-entropy gives every voxel a gradient from the first step on; the Dice loss keeps rare classes
    from being ignored (Isensee et al., Nature Methods 18, 203, 2021).

    Parameters
    ----------
    truth
        (b, z, y, x) whole numbers, the index of each voxel's class or :data:`IGNORE`.
    probabilities
        (b, z, y, x, c) of each class; they add up to one.
    weights
        Of each class; None: all count the same.

    Returns
    -------
    scalar tensor
    """
    dice = tversky(truth, probabilities, weights=weights, smooth=0.5) / probabilities.shape[-1]
    return dice + cross_entropy(truth, probabilities, weights=weights)


#: Losses by the name for ``--loss``.
LOSSES: dict[str, Callable[..., Any]] = {"dice-cross-entropy": dice_cross_entropy, "tversky": tversky}


def loss_of(name: str, n_classes: int, weights: Mapping[int, float]) -> Callable[[Any, Any], Any]:
    """Find a loss by name and give classes their weights.

    Parameters
    ----------
    name
        One of :data:`LOSSES`.
    n_classes
        Classes, the background included.
    weights
        Index of a class -> its weight; 1 for classes that are not named.

    Returns
    -------
    callable
        Of truth and probabilities, as Keras wants it.

    Raises
    ------
    InputError
        If there is no such loss.
    """
    if name not in LOSSES:
        raise InputError(f"there is no loss {name!r}; use one of {', '.join(LOSSES)}{nearest(name, LOSSES)}")
    each = [weights.get(k, 1.0) for k in range(n_classes)] if weights else None

    def loss(truth: Any, probabilities: Any) -> Any:
        return LOSSES[name](truth, probabilities, weights=each)

    return loss


def _known(truth: Any, probabilities: Any) -> tuple[Any, Any, int]:
    """Return the classes one-hot, zero where unknown; 1 where known, else 0; and the number of classes."""
    from keras import ops

    n = probabilities.shape[-1]
    truth = ops.cast(truth, "int32")
    known = ops.expand_dims(ops.cast(truth < n, probabilities.dtype), -1)
    # one-hot encoding fails for an index beyond the classes, on every backend
    hot = ops.one_hot(ops.where(truth < n, truth, 0), n, dtype=probabilities.dtype) * known
    return hot, known, n
