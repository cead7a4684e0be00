"""Set the ranges of a recipe so that simulated power spectra enclose that of a tomogram.

What can be read off the tomogram (thickness of the ice, first zero of the transfer function) sets the first
ranges. A few boxes are simulated at the ends of the ranges, and their power by shell is measured in the same
way as the tomogram's. Where the tomogram lies outside, a range is widened, and further boxes show the effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from catalogs.beads import count, find_beads
from catalogs.console import counted
from catalogs.errors import InputError
from catalogs.intensity import measure, normalise
from catalogs.slab import Slab, find_slab
from catalogs.tomogram_look import SHELLS, TomogramLook, look_at
from catalogs.volumes import open_volume
from tlgen.recipes.drawn import Range
from tlgen.recipes.recipe import Recipe

Span = tuple[float, float]

#: A wider tomogram is measured in its middle only, voxels along x and y.
_WIDEST = 1024
#: Boxes are not made thicker than this, Å, because they cost accordingly.
_THICKEST = 1000.0
#: Vacuum beyond the faces of the ice in some boxes, Å.
_VACUUM = 200.0
#: Mean free path of energy loss in ice, Å; as in :class:`catalogs.schema.Acquisition`.
_FREE_PATH = 3150.0
#: Wavelength of electrons of 300 kV, Å.
_WAVELENGTH = 0.0197
#: First range of the shift of each image, Å, and the widest one.
_SHIFT, _MOST_SHIFT = 8.0, 16.0
#: Doses below this are not tried, e/Å².
_LEAST_DOSE = 10.0
#: Radii of vesicles, where membranes are added, Å.
VESICLES = (150.0, 250.0)
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
class Measured:
    """Properties of a tomogram.

    Attributes
    ----------
    look
        Power by shell, missing wedge, first zero and thickness.
    slab
        The ice; None if no face was found.
    beads
        Number of bodies denser than protein.
    height
        Thickness of the volume, Å.
    """

    look: TomogramLook
    slab: Slab | None
    beads: int
    height: float


def measure_tomogram(path: str) -> Measured:
    """Measure a tomogram inside of the ice and outside of gold.

    Parameters
    ----------
    path
        The tomogram, in any format that :func:`catalogs.volumes.open_volume` reads.

    Raises
    ------
    InputError
        If it cannot be read, does not state its voxel size, or is too small or constant.
    """
    volume = open_volume(path)
    if volume.voxel_size is None:
        raise InputError(f"{path} does not state its voxel size; write it into the header")
    size = float(volume.voxel_size)
    middle = [slice(max(0, (n - _WIDEST) // 2), (n + _WIDEST) // 2) for n in volume.shape[1:]]
    values = volume.read((slice(0, volume.shape[0]), *middle))
    try:
        measure(values)
        slab = find_slab(values, size)
        places = [np.arange(n, dtype=np.float64) * size for n in values.shape]
        sample = np.ones(values.shape, bool) if slab is None else slab.at(places)
        beads = find_beads(values, size, sample)
        beads.take_out(sample, places)
        look = look_at(normalise(values, measure(values[sample])), size, sample, _thickness(slab))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if look is None:
        raise InputError(f"{path} is too small to measure its power spectrum; give a whole tomogram")
    return Measured(look, slab, count(beads), volume.shape[0] * size)


def _thickness(slab: Slab | None) -> float | None:
    if slab is None or not math.isfinite(slab.upper.z - slab.lower.z):
        return None
    return float(slab.upper.z - slab.lower.z)


@dataclass(frozen=True)
class Corner:
    """Acquisition of one simulated box, at the ends of the ranges."""

    contrast: Literal["physical", "parakeet"]
    dose: float
    defocus: float
    shift: float

    def words(self) -> str:
        """Describe it in a few words."""
        shift = f", shifts of {self.shift:g} Å" if self.shift else ""
        return f"{self.contrast}, {self.dose:.0f} e/Å², {self.defocus:.1f} µm{shift}"


@dataclass(frozen=True)
class Ranges:
    """Ranges of a recipe, and why they were chosen.

    Attributes
    ----------
    dose, defocus, shift
        Least and most: e/Å², µm under focus, and Å of ``shift_error``.
    contrast
        What is drawn from.
    depth, vacuum
        Of the boxes, Å; vacuum beyond the ice in half of them.
    membranes, saturated
        Whether there are membranes, and boxes are packed to saturation.
    cutoff
        Beginning of a Gaussian fall-off of the reconstruction's filter, 1/voxel; None: the template's.
    why
        Key of the recipe -> reason in words.
    """

    dose: Span
    defocus: Span
    depth: float
    shift: Span = (0.0, _SHIFT)
    contrast: tuple[str, ...] = ("physical", "parakeet")
    vacuum: float = 0.0
    membranes: bool = False
    saturated: bool = False
    cutoff: float | None = None
    why: Mapping[str, str] = field(default_factory=dict)

    def corner(self, contrast: Literal["physical", "parakeet"], ends: str) -> Corner:
        """Take the ends of the ranges of dose, defocus and shift: ``-`` the least, ``+`` the most of each."""
        at = ["-+".index(end) for end in ends]
        return Corner(contrast, self.dose[at[0]], self.defocus[at[1]], self.shift[at[2]])

    def because(self, **why: str) -> Mapping[str, str]:
        """Return the reasons with some replaced."""
        return {**self.why, **why}

    def content(self) -> dict[str, Any]:
        """Write them as keys of a recipe, without the shape of the boxes."""
        acquisition: dict[str, Any] = {
            "contrast": list(self.contrast),
            "dose": _range(self.dose),
            "defocus": _range(self.defocus),
            "shift_error": _range(self.shift),
        }
        if self.vacuum:
            acquisition["vacuum"] = [0, round(self.vacuum)]
        found: dict[str, Any] = {"acquisition": acquisition}
        if "packing" in self.why:
            found["packing"] = {"gap": 4, "fill": "saturation", "concentration": None, "molecules": None}
        if "membranes" in self.why:
            some = {"number": [0, 1]}
            found["decorations"] = {"sheets": some}
            if self.depth >= 2.5 * VESICLES[0]:
                most = min(VESICLES[1], 0.35 * self.depth)
                found["decorations"]["vesicles"] = {**some, "radius": [VESICLES[0], round(most)]}
        if "beads" in self.why:
            found["decorations"] = {**found.get("decorations", {}), "beads": {"number": [0, 2]}}
        if self.cutoff is not None:
            found["reconstruction"] = {"rolloff": "gaussian", "cutoff": self.cutoff, "falloff": 0.05}
        return found

    def rows(self) -> list[tuple[str, str, str]]:
        """Say in words what is set and why: key of the recipe, value and reason of each."""
        shown = {
            "shape": f"{self.depth:,.0f} Å thick",
            "vacuum": f"0 or {self.vacuum:.0f} Å",
            "dose": "{:.0f} to {:.0f} e/Å²".format(*self.dose),
            "defocus": "{:.1f} to {:.1f} µm".format(*self.defocus),
            "contrast": " or ".join(dict.fromkeys(self.contrast)),
            "shift_error": "{:g} to {:g} Å".format(*self.shift),
            "packing": "to saturation",
            "membranes": "sheets and vesicles",
            "beads": "0 to 2",
            "reconstruction": "" if self.cutoff is None else f"cut at {self.cutoff:.2f}/voxel",
        }
        return [(key, words, self.why[key]) for key, words in shown.items() if key in self.why]


def _range(span: Span) -> dict[str, float]:
    return {"min": round(span[0], 2), "max": round(span[1], 2)}


def span_of(value: Any, otherwise: float) -> Span:
    """Return the least and the most of what a recipe gives for a parameter."""
    if value is None:
        return otherwise, otherwise
    if isinstance(value, Range):
        return value.min, value.max
    if isinstance(value, Mapping):
        return float(value["min"]), float(value["max"])
    listed = [float(each) for each in (value if isinstance(value, list) else [value])]
    return min(listed), max(listed)


def first_ranges(measured: Measured, below: Recipe, acquisition: Mapping[str, Any], depth: float) -> Ranges:
    """Set ranges from what can be read off the tomogram.

    Parameters
    ----------
    measured
        The tomogram.
    below
        The recipe to change.
    acquisition
        Parameters that the files of the tilt series give.
    depth
        Thickness of the template's boxes, Å.

    Notes
    -----
    The transfer function of a thin object without a phase plate has its first zero near a length of
    sqrt(wavelength x underfocus), if spherical aberration is neglected (Reimer & Kohl, Transmission Electron
    Microscopy, 2008).
    """
    thickness, why = measured.look.thickness, {}
    where = "no face of the ice is seen" if measured.slab is None else measured.slab.words()
    new_depth = max(depth, min(thickness, _THICKEST))
    why["shape"] = f"{where}; the sample is {thickness:,.0f} Å thick"
    if thickness > new_depth:
        why["shape"] += f", and boxes are not made thicker than {_THICKEST:,.0f} Å"
    vacuum = 0.0
    if measured.slab is not None and measured.height - thickness > _VACUUM:
        vacuum = _VACUUM
        why["vacuum"] = "the tomogram reaches beyond the ice"
    if measured.beads and below.decorations.beads is None:
        why["beads"] = f"{counted(measured.beads, 'bead')} of gold in the tomogram"
    stated = acquisition.get("dose")
    low, high = span_of(stated if stated is not None else below.acquisition.get("dose"), 100.0)
    passed = math.exp(-max(thickness - new_depth, 0.0) / _FREE_PATH)
    from_where = "around that of the series" if stated is not None else "as in the template: no file has it"
    why["dose"] = from_where
    if passed < 0.95:
        why["dose"] += f"; down to {100 * passed:.0f} % of it, since thicker ice loses more electrons"
    standing = below.decorations
    return Ranges(
        dose=(low * passed, high),
        depth=new_depth,
        vacuum=vacuum,
        membranes=standing.sheets is not None or standing.vesicles is not None,
        saturated=below.packing.fill == "saturation",
        why=why,
        **_defocus(measured.look, below, acquisition, why),
    )


def _defocus(
    look: TomogramLook, below: Recipe, acquisition: Mapping[str, Any], why: dict[str, str]
) -> dict[str, Any]:
    if (stated := acquisition.get("defocus")) is not None:
        why["defocus"] = "around that of the series"
        return {"defocus": span_of(stated, 2.5)}
    if look.first_zero is not None:
        near = look.first_zero**2 / _WAVELENGTH / 1e4
        why["defocus"] = f"the transfer function has its first zero near {look.first_zero:.0f} Å"
        return {"defocus": (max(0.3, near - 1), near + 1)}
    most = (2 * look.voxel_size) ** 2 / _WAVELENGTH / 1e4
    low, high = span_of(below.acquisition.get("defocus"), 2.5)
    if high > 1.5 * most:
        why["defocus"] = f"no zero is seen, so all are finer than {2 * look.voxel_size:.0f} Å"
        return {"defocus": (min(low, 0.6 * most), 1.5 * most)}
    why["defocus"] = "as in the template: no file has it, and no zero is seen"
    return {"defocus": (low, high)}


# ---------------------------------------------------------------- comparison


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


def _more_middle(move: _Move, told: str, times: float, look: TomogramLook, boxes: Sequence[Box]) -> None:
    now = move.ranges
    if not now.membranes:
        move.ranges = now = replace(now, membranes=True, why=now.because(membranes=told))
    elif now.defocus[1] < 8:
        most = min(8.0, now.defocus[1] * min(max(times, 1.2), 1.5))
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
    ("large", True): _more_middle, ("large", False): _less_middle,
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
