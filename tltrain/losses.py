"""What training minimises, in Keras operations only."""

from __future__ import annotations

from typing import Any


def tversky(truth: Any, probabilities: Any, *, alpha: float = 0.5, beta: float = 0.5) -> Any:
    """Return one minus the Tversky index, averaged over the classes (Salehi et al., MLMI 2017).

    DeepFinder's loss, up to the constant factor of the number of classes: the sums run over the whole batch
    and the background is a class like the others. With ``alpha = beta = 0.5`` it is the Dice loss.

    Parameters
    ----------
    truth
        (b, z, y, x) whole numbers, the index of each voxel's class.
    probabilities
        (b, z, y, x, c) of each class; they add up to one.
    alpha
        Weight of false positives.
    beta
        Weight of false negatives.

    Returns
    -------
    scalar tensor
        Between 0 (perfect) and 1.
    """
    from keras import ops

    hot = ops.one_hot(ops.cast(truth, "int32"), probabilities.shape[-1], dtype=probabilities.dtype)
    over = (0, 1, 2, 3)
    hit = ops.sum(hot * probabilities, axis=over)
    false = ops.sum(probabilities, axis=over) - hit
    missed = ops.sum(hot, axis=over) - hit
    # the half voxel keeps a class that is absent from a batch, and rightly not predicted, at a perfect score
    return 1 - ops.mean((hit + 0.5) / (hit + alpha * false + beta * missed + 0.5))


def dice_cross_entropy(truth: Any, probabilities: Any) -> Any:
    """Return the sum of the Dice loss and the mean cross-entropy.

    The cross-entropy gives every voxel a gradient from the first step on; Dice keeps a rare class from being
    given up (Isensee et al., Nature Methods 18, 203, 2021).

    Parameters
    ----------
    truth
        (b, z, y, x) whole numbers, the index of each voxel's class.
    probabilities
        (b, z, y, x, c) of each class; they add up to one.

    Returns
    -------
    scalar tensor
    """
    from keras import ops

    entropy = ops.sparse_categorical_crossentropy(ops.cast(truth, "int32"), probabilities)
    return tversky(truth, probabilities) + ops.mean(entropy)
