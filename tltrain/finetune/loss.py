"""A loss for tomograms of which only some particles are annotated, in Keras operations only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tltrain.finetune.targets import UNLABELLED
from tltrain.training.losses import IGNORE


def positive_unlabelled(known: Callable[[Any, Any], Any], prior: float) -> Callable[[Any, Any], Any]:
    """Make a loss that also uses unlabelled voxels, some of which are targets.

    Labelled voxels have their usual loss. A share ``prior`` of the unlabelled voxels is expected to be
    targets: predicting this share of targets costs nothing, predicting more does. This is the non-negative
    risk of Kiryo et al. (NeurIPS 2017) with their sigmoid loss, which is linear in probabilities: the cost of
    taking background for a target, over all unlabelled voxels, minus ``prior`` times the same cost over
    targets. It is never below zero; otherwise a flexible network would overfit to make it negative. It is
    divided by ``prior``, as the Dice loss divides false voxels by true ones; otherwise, for a rare class, it
    would be negligible beside the loss of the labelled voxels.

    Parameters
    ----------
    known
        Loss of the labelled voxels, of truth and probabilities.
    prior
        Share of the unlabelled voxels that are targets.

    Returns
    -------
    callable
        Of truth (b, z, y, x), in which :data:`tltrain.finetune.targets.UNLABELLED` may occur, and
        probabilities (b, z, y, x, c).
    """

    def loss(truth: Any, probabilities: Any) -> Any:
        from keras import ops

        truth = ops.cast(truth, "int32")
        unlabelled = truth == UNLABELLED
        target = ops.logical_and(truth > 0, truth < probabilities.shape[-1])
        called = 1 - probabilities[..., 0]
        excess = _mean(called, unlabelled) / prior - _mean(called, target)
        return known(ops.where(unlabelled, IGNORE, truth), probabilities) + ops.maximum(excess, 0)

    return loss


def _mean(values: Any, where: Any) -> Any:
    from keras import ops

    weights = ops.cast(where, values.dtype)
    return ops.divide_no_nan(ops.sum(values * weights), ops.sum(weights))


def apart(
    loss: Callable[[Any, Any], Any], other: Callable[[Any, Any], Any], first: int, batch: int
) -> Callable[[Any, Any], Any]:
    """Compute the loss of two parts of a batch separately, and weight them by their numbers of patches.

    In annotated patches few voxels are labelled. In one loss with simulated patches, whose voxels are all
    labelled, they would hardly count.

    Parameters
    ----------
    loss, other
        Of the first patches, and of the rest.
    first
        How many these are.
    batch
        Patches of a batch.

    Returns
    -------
    callable
        Of truth and probabilities.
    """
    if first == 0:
        return other
    share = first / batch

    def both(truth: Any, probabilities: Any) -> Any:
        return share * loss(truth[:first], probabilities[:first]) + (1 - share) * other(
            truth[first:], probabilities[first:]
        )

    return both
