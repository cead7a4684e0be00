"""Compare a tomogram with a model's training data, and suggest what to change.

The properties of the training data are in the model's card (:mod:`catalogs.tomogram_look`). A property of the
tomogram is reported if it is outside the range of the training data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from catalogs.model_file import ModelCard
from catalogs.slab import Slab
from catalogs.tomogram_look import TomogramLook
from tlpick.network.tomograms.intake import Prepared

#: Factor by which the power in a band may be outside the range of the training data, and factor above which
#: the model cannot handle the tomogram.
TOLERATED, UNLIKE = 1.25, 3.0
#: Tolerance of the missing wedge in degrees, and of the first zero as a share.
_WEDGE, _ZERO = 7.5, 0.15
_THICKER = 1.5


@dataclass(frozen=True)
class Difference:
    """A difference in words, with advice; ``strong`` if the model cannot handle such tomograms."""

    words: str
    strong: bool = False


def compare_looks(look: TomogramLook, known: Sequence[TomogramLook]) -> list[Difference]:
    """List the properties of a tomogram that are outside the range of the training data.

    Parameters
    ----------
    look
        Properties of the tomogram.
    known
        Properties of the training data, one or more.

    Returns
    -------
    list of Difference
        Empty if there are none.
    """
    found = []
    size = look.voxel_size
    bands = (
        (math.inf, 20 * size, _LOW),
        (20 * size, 6.7 * size, _MIDDLE),
        (6.7 * size, 3.3 * size, _MIDDLE),
        (3.3 * size, 2 * size, _HIGH),
    )
    for coarsest, finest, advice in bands:
        ours = look.share(coarsest, finest)
        theirs = [each.share(coarsest, finest) for each in known]
        times = ours / max(*theirs, 1e-9), min(theirs) / max(ours, 1e-9)
        side = int(times[1] > times[0])
        if times[side] <= TOLERATED:
            continue
        where = (
            f"coarser than {finest:.0f} Å"
            if math.isinf(coarsest)
            else f"from {coarsest:.0f} to {finest:.0f} Å"
        )
        most, edge = ("most", max(theirs)) if side == 0 else ("least", min(theirs))
        found.append(
            Difference(
                f"details {where} have {100 * ours:.0f} % of the power, at {most} "
                f"{100 * edge:.0f} % in the training data: {advice[side]}",
                times[side] > UNLIKE,
            )
        )
    ranges = [each.tilt_range for each in known]
    if not min(ranges) - _WEDGE <= look.tilt_range <= max(ranges) + _WEDGE:
        found.append(
            Difference(
                f"{_wedge(look.tilt_range)}, in the training data {_span(ranges)} degrees: set "
                "`tilt_range` of the recipe"
            )
        )
    zeros = [each.first_zero for each in known if each.first_zero is not None]
    if look.first_zero is not None and zeros:
        low, high = min(zeros) * (1 - _ZERO), max(zeros) * (1 + _ZERO)
        if not low <= look.first_zero <= high:
            found.append(
                Difference(
                    f"the transfer function seems to have its first zero at {look.first_zero:.0f} Å, in the "
                    f"training data at {_span(zeros)} Å: set `defocus` of the recipe"
                )
            )
    thick = [each.thickness for each in known]
    if look.thickness > _THICKER * max(thick):
        found.append(
            Difference(
                f"the sample is {look.thickness:,.0f} Å thick, in the training data up to "
                f"{max(thick):,.0f} Å: make thicker boxes"
            )
        )
    return found


_LOW = (
    "fill the boxes (`packing: {fill: saturation}`), and add membranes",
    "draw `contrast` from parakeet, too, or the tomogram was high-pass filtered",
)
_MIDDLE = (
    "widen `dose` and `defocus` of the recipe",
    "widen `dose` and `defocus` of the recipe",
)
_HIGH = (
    "it has more noise: lower `dose` of the recipe",
    "it was filtered or denoised: add `shift_error` to the recipe, or give the tomogram before the filter",
)


def _wedge(tilt_range: float) -> str:
    if tilt_range >= 90:
        return "no missing wedge is seen"
    return f"the missing wedge is that of tilts to about {tilt_range:.0f} degrees"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"


def check_fit(prepared: Prepared, card: ModelCard) -> list[Difference] | None:
    """Compare a prepared tomogram with its model's training data; None if the card does not describe them."""
    from catalogs.tomogram_look import look_at

    if not card.looks:
        return None
    look = look_at(prepared.values, prepared.grid, prepared.sample, _thickness(prepared.slab))
    return [] if look is None else compare_looks(look, card.looks)


def _thickness(slab: Slab | None) -> float | None:
    if slab is None or not math.isfinite(slab.upper.z - slab.lower.z):
        return None
    return float(slab.upper.z - slab.lower.z)
