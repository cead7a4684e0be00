"""Set first ranges of a recipe from what can be read off a tomogram: thickness, first zero, gold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from catalogs.beads import count, find_beads
from catalogs.console import counted
from catalogs.errors import InputError
from catalogs.intensity import measure, normalise
from catalogs.slab import Slab, find_slab
from catalogs.tomogram_look import TomogramLook, look_at
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
#: Most of the first range of the shift of each image, Å.
_SHIFT = 8.0
#: Packing of dilute boxes, as in the recipe ``demo``: mg/ml, and Å between molecules.
DILUTE = {"gap": 20, "concentration": 60}
#: Radii of vesicles, where membranes are added, Å.
VESICLES = (150.0, 250.0)


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
    dilute: bool = False

    def words(self) -> str:
        """Describe it in a few words."""
        shift = f", shifts of {self.shift:g} Å" if self.shift else ""
        dilute = ", dilute" if self.dilute else ""
        return f"{self.contrast}, {self.dose:.0f} e/Å², {self.defocus:.1f} µm{shift}{dilute}"


@dataclass(frozen=True)
class Ranges:
    """Ranges of a recipe, and why they were chosen.

    Attributes
    ----------
    dose, defocus, shift
        Least and most: e/Å², µm under focus, and Å of ``shift_error``.
    contrast
        What is drawn from.
    dilute
        Whether some boxes hold few molecules.
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
    dilute: bool = False
    vacuum: float = 0.0
    membranes: bool = False
    saturated: bool = False
    cutoff: float | None = None
    why: Mapping[str, str] = field(default_factory=dict)

    def corner(self, contrast: Literal["physical", "parakeet"], ends: str, dilute: bool = False) -> Corner:
        """Take the ends of the ranges of dose, defocus and shift: ``-`` the least, ``+`` the most of each."""
        at = ["-+".index(end) for end in ends]
        return Corner(contrast, self.dose[at[0]], self.defocus[at[1]], self.shift[at[2]], dilute)

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
        if self.dilute:
            found["samples"] = {"train-dilute": {"number": 2, "packing": DILUTE}}
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
            "samples": "2 dilute boxes",
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
