"""A loss for tomograms of which only some particles are annotated, in Keras operations only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tltrain.finetune.targets import UNLABELLED
from tltrain.training.losses import IGNORE


def positive_unlabelled(known: Callable[[Any, Any], Any], prior: float) -> Callable[[Any, Any], Any]:
    """Make a loss that learns from unlabelled voxels too, some of which are targets.

    What is labelled is learned as always. Of the unlabelled voxels a share ``prior`` is expected to be
    targets: calling so many targets costs nothing, calling more does. This is the non-negative risk of Kiryo
    et al. (NeurIPS 2017) with their sigmoid loss, which for probabilities is linear: what taking background
    for a target costs, as it is over all unlabelled voxels less ``prior`` times what it is over targets, and
    never below zero, or a flexible network would drive it there by heart. It is counted in units of
    ``prior``, as the Dice loss counts false voxels in units of the true ones; for a rare class it would
    otherwise not be noticed beside the loss of what is labelled.

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
    """Judge the parts of a batch apart, each counting as much as it has patches.

    In real patches few voxels are labelled. Judged together with simulated ones, all of whose voxels are,
    they would hardly count.

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
