"""Widen the ranges of a recipe until simulated power spectra enclose that of a tomogram.

A few boxes are simulated at the ends of the ranges, and their power by shell is measured in the same way as
the tomogram's. Where the tomogram lies outside, a range is widened, and further boxes show the effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from catalogs.tomogram_look import SHELLS, TomogramLook
from tlgen.recipes.from_tomogram import Corner, Ranges

#: The widest range of the shift of each image, Å.
_MOST_SHIFT = 16.0
#: A defocus above this is not tried, µm.
_MOST_DEFOCUS = 8.0
#: Doses below this are not tried, e/Å².
_LEAST_DOSE = 10.0
#: Boxes that are simulated after a change, at most.
_MOST_CORNERS = 4
#: Power in a band may be outside by this factor before a range is changed, and in a shell at the end.
CLOSE, NEAR = 1.05, 1.25
#: Bands of frequencies as lengths in voxels, coarsest and finest, with names.
_BANDS = {
    "low": (math.inf, 40.0), "large": (40.0, 13.3), "middle": (13.3, 6.7), "fine": (6.7, 3.3),
    "high": (3.3, 2.0),
}  # fmt: skip
#: Details coarser than this, in voxels, show which contrast a tomogram has.
_CONTRAST = 20.0


@dataclass(frozen=True, eq=False)
class Box:
    """A simulated box: its acquisition and properties."""

    corner: Corner
    look: TomogramLook


@dataclass(frozen=True, eq=False)
class Fitted:
    """Result: the ranges, the boxes at their ends, and what could not be reached, in words."""

    ranges: Ranges
    boxes: Sequence[Box]
    left: Sequence[str] = ()


def envelope(looks: Sequence[TomogramLook]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the greatest power of each shell."""
    powers = np.array([look.shells for look in looks])
    return powers.min(axis=0), powers.max(axis=0)


def outside(look: TomogramLook, looks: Sequence[TomogramLook]) -> NDArray[np.float64]:
    """Return by what factor each shell lies above (over 1) or below (under 1) the others; 1 within."""
    low, high = envelope(looks)
    ours = np.array(look.shells)
    tiny = 1e-9
    return np.where(ours > high, ours / np.maximum(high, tiny), np.minimum(ours / np.maximum(low, tiny), 1))


def spectrum_in_words(look: TomogramLook, looks: Sequence[TomogramLook]) -> str:
    """Say how far the power of a tomogram lies between that of others."""
    factors = outside(look, looks)
    inside = int((factors == 1).sum())
    if inside == SHELLS:
        return f"spectrum: the tomogram lies between the simulated boxes in all {SHELLS} shells"
    far = np.abs(np.log(np.maximum(factors, 1e-9)))
    k = int(far.argmax())
    length = 2 * look.voxel_size * SHELLS / (k + 0.5)
    times = math.exp(far[k])
    side = f"{times:.2f} times the most" if factors[k] > 1 else f"1/{times:.2f} of the least"
    near = int((far <= math.log(NEAR)).sum())
    return (
        f"spectrum: the tomogram lies between the simulated boxes in {inside} of {SHELLS} shells, and in "
        f"{near} to a factor of {NEAR:g}; furthest near {length:,.0f} Å, {side}"
    )


def fit_ranges(
    look: TomogramLook,
    ranges: Ranges,
    simulate: Callable[[Sequence[Corner], Ranges], Sequence[TomogramLook | None]],
    rounds: int = 3,
) -> Fitted:
    """Widen ranges until the boxes at their ends enclose the tomogram's power in four bands.

    Parameters
    ----------
    look
        Of the tomogram.
    ranges
        To begin with.
    simulate
        Makes a box for each corner, and returns its properties; None for a box that could not be made.
    rounds
        How often ranges are changed at most.

    Returns
    -------
    Fitted
    """
    boxes: list[Box] = []
    corners = _all_corners(ranges)
    left: list[str] = []
    for number in range(rounds + 1):
        made = zip(corners, simulate(corners, ranges), strict=True)
        boxes += [Box(corner, seen) for corner, seen in made if seen is not None]
        move = _move(look, boxes, ranges)
        if move is None:
            left = []
            break
        left = move.words
        if number == rounds or move.ranges is ranges:
            break
        if move.again:
            boxes, corners = [], _all_corners(move.ranges)
        else:
            corners = list(dict.fromkeys(move.corners))[:_MOST_CORNERS]
        ranges = move.ranges
    return Fitted(_with_contrast(look, boxes, ranges), boxes, left)


def _all_corners(ranges: Ranges) -> list[Corner]:
    return [
        ranges.corner("physical", "++-"),
        ranges.corner("physical", "--+"),
        ranges.corner("parakeet", "---"),
        ranges.corner("parakeet", "+++"),
    ]


@dataclass
class _Move:
    """A change of the ranges, the boxes that show it, and what is outside, in words."""

    ranges: Ranges
    corners: list[Corner] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    again: bool = False


def _move(look: TomogramLook, boxes: Sequence[Box], ranges: Ranges) -> _Move | None:
    """Widen ranges towards the tomogram; None if all bands are enclosed."""
    move = _Move(ranges)
    size = look.voxel_size
    found = []
    for band, (coarsest, finest) in _BANDS.items():
        ours = look.share(coarsest * size, finest * size)
        theirs = [box.look.share(coarsest * size, finest * size) for box in boxes]
        above, below = ours / max(max(theirs), 1e-9), min(theirs) / max(ours, 1e-9)
        if max(above, below) > CLOSE:
            found.append((band, above > below, max(above, below)))
    noisier = ("high", True) in [each[:2] for each in found]
    for band, more, times in found:
        coarsest, finest = (length * size for length in _BANDS[band])
        where = (
            f"coarser than {finest:.0f} Å"
            if math.isinf(coarsest)
            else f"from {coarsest:.0f} to {finest:.0f} Å"
        )
        side = f"{times:.2f} times the most" if more else f"1/{times:.2f} of the least"
        told = f"details {where} had {side} of the simulated boxes"
        move.words.append(told)
        if not (noisier and (band, more) == ("fine", True)):  # noise has fine details, too
            _MOVES[band, more](move, told, times, look, boxes)
    return move if move.words else None


def _more_low(move: _Move, told: str, _times: float, _look: TomogramLook, _boxes: Sequence[Box]) -> None:
    now = move.ranges
    if not now.saturated:
        move.ranges = replace(now, saturated=True, why=now.because(packing=told))
        move.again = True
    elif not now.membranes:
        move.ranges = replace(now, membranes=True, why=now.because(membranes=told))
    move.corners += [move.ranges.corner("physical", "++-"), move.ranges.corner("physical", "+++")]


def _less_low(move: _Move, told: str, times: float, look: TomogramLook, boxes: Sequence[Box]) -> None:
    _more_high(move, told, times, look, boxes)


def _more_large(move: _Move, told: str, _times: float, _look: TomogramLook, _boxes: Sequence[Box]) -> None:
    """Add dilute boxes, since densely packed molecules leave few large gaps; then membranes."""
    now = move.ranges
    if not now.dilute:
        move.ranges = now = replace(now, dilute=True, why=now.because(samples=told))
    elif not now.membranes:
        move.ranges = now = replace(now, membranes=True, why=now.because(membranes=told))
    else:
        return
    move.corners += [now.corner(kind, "++-", True) for kind in ("physical", "parakeet")]


def _more_middle(move: _Move, told: str, times: float, _look: TomogramLook, _boxes: Sequence[Box]) -> None:
    now = move.ranges
    if now.defocus[1] < _MOST_DEFOCUS:
        most = min(_MOST_DEFOCUS, now.defocus[1] * min(max(times, 1.2), 1.5))
        move.ranges = now = replace(
            now, defocus=(now.defocus[0], most), why=now.because(defocus=f"{now.why['defocus']}; {told}")
        )
    move.corners += [now.corner("physical", "++-"), now.corner("parakeet", "++-")]


def _less_middle(move: _Move, told: str, _times: float, _look: TomogramLook, _boxes: Sequence[Box]) -> None:
    now = move.ranges
    least = max(0.3, 0.7 * now.defocus[0])
    if least < now.defocus[0]:
        move.ranges = now = replace(
            now, defocus=(least, now.defocus[1]), why=now.because(defocus=f"{now.why['defocus']}; {told}")
        )
    move.corners.append(now.corner("parakeet", "---"))


def _more_fine(move: _Move, told: str, times: float, _look: TomogramLook, _boxes: Sequence[Box]) -> None:
    now = move.ranges
    most = now.dose[1] * min(max(times, 1.2), 1.6)
    move.ranges = replace(now, dose=(now.dose[0], most), why=now.because(dose=f"{now.why['dose']}; {told}"))
    move.corners.append(move.ranges.corner("parakeet", "+--"))


def _less_fine(move: _Move, told: str, times: float, look: TomogramLook, boxes: Sequence[Box]) -> None:
    now = move.ranges
    if now.shift[1] < _MOST_SHIFT:
        _blur(move, told)
    move.corners += [move.ranges.corner("physical", "+++"), move.ranges.corner("physical", "-++")]


def _more_high(move: _Move, told: str, times: float, _look: TomogramLook, _boxes: Sequence[Box]) -> None:
    now = move.ranges
    least = max(_LEAST_DOSE, now.dose[0] / min(max(times, 1.25), 2.5))
    if least < now.dose[0]:
        move.ranges = now = replace(
            now, dose=(least, now.dose[1]), why=now.because(dose=f"{now.why['dose']}; {told}")
        )
    move.corners.append(now.corner("parakeet", "---"))


def _less_high(move: _Move, told: str, times: float, look: TomogramLook, boxes: Sequence[Box]) -> None:
    now = move.ranges
    if now.shift[1] < _MOST_SHIFT and times < 2:
        _blur(move, told)
        move.corners += [move.ranges.corner(contrast, "+++") for contrast in ("physical", "parakeet")]
    elif now.cutoff is None:
        cutoff = _cutoff(look, boxes)
        move.ranges = replace(
            now, cutoff=cutoff, why=now.because(reconstruction=f"{told}: the tomogram was filtered")
        )
        move.again = True


def _blur(move: _Move, told: str) -> None:
    now = move.ranges
    if now.shift[1] < _MOST_SHIFT:
        move.ranges = replace(
            now, shift=(0.0, min(_MOST_SHIFT, now.shift[1] + 4)), why=now.because(shift_error=told)
        )


def _cutoff(look: TomogramLook, boxes: Sequence[Box]) -> float:
    """Find the frequency, 1/voxel, from which on the tomogram has less than half of the least power."""
    low, _ = envelope([box.look for box in boxes])
    short = np.array(look.shells) < low / 2
    k = SHELLS
    while k > 1 and short[k - 1]:
        k -= 1
    return round(min(max(k / SHELLS / 2, 0.1), 0.45), 3)


_Change = Callable[[_Move, str, float, TomogramLook, Sequence[Box]], None]
#: Band, and whether the tomogram has more power there than the boxes -> what to change.
_MOVES: dict[tuple[str, bool], _Change] = {
    ("low", True): _more_low, ("low", False): _less_low,
    ("large", True): _more_large, ("large", False): _less_middle,
    ("middle", True): _more_middle, ("middle", False): _less_middle,
    ("fine", True): _more_fine, ("fine", False): _less_fine,
    ("high", True): _more_high, ("high", False): _less_high,
}  # fmt: skip


def _with_contrast(look: TomogramLook, boxes: Sequence[Box], ranges: Ranges) -> Ranges:
    """Draw that contrast more often whose boxes have the tomogram's power at low frequencies."""
    coarsest, finest = math.inf, _CONTRAST * look.voxel_size
    ours = look.share(coarsest, finest)
    shares = {
        kind: [b.look.share(coarsest, finest) for b in boxes if b.corner.contrast == kind]
        for kind in ("physical", "parakeet")
    }
    if not all(shares.values()):  # the boxes of one contrast could not be made
        return ranges
    means = {kind: float(np.mean(values)) for kind, values in shares.items()}
    nearer = min(means, key=lambda kind: abs(math.log(max(means[kind], 1e-4) / max(ours, 1e-4))))
    other = "parakeet" if nearer == "physical" else "physical"
    only = ours >= means["physical"] if nearer == "physical" else ours <= means["parakeet"]
    words = (
        f"details coarser than {finest:.0f} Å have {100 * ours:.0f} % of the power, "
        f"{100 * means['physical']:.0f} % in boxes with contrast physical and "
        f"{100 * means['parakeet']:.0f} % with parakeet"
    )
    chosen = (nearer,) if only else (nearer, nearer, other)
    why = ranges.because(contrast=words)
    if "shift_error" not in why:
        why = {**why, "shift_error": "no file has it; this is what alignments leave"}
    return replace(ranges, contrast=chosen, why=why)
