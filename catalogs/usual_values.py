"""Usual and possible values of quantities, so that a wrong unit is noticed before it costs hours.

All programs use this table. Impossible values are refused. A possible but unusual value most often has a
wrong unit: the programs ask about it, and go on if the user means it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from catalogs.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Usual and possible values of a quantity.

    Attributes
    ----------
    low, high
        Range of usual values, both ends included.
    least, most
        Range of possible values.
    unit
        Unit of all numbers.
    why
        What is usual and why; a clause.
    below, above
        What a smaller or larger value often means; a question or a clause, empty if unknown.
    """

    low: float
    high: float
    least: float
    most: float
    unit: str
    why: str
    below: str = ""
    above: str = ""


#: Quantities by name. Parameters of the acquisition keep their names; docs/recipe.md shows the table.
USUAL: dict[str, Limits] = {
    "voxel_size": Limits(
        3, 40, 0.5, 200, "Å", "tomograms to pick in have voxels of 4 to 25 Å",
        "is it in nm? 1 nm is 10 Å", "is it in pm?",
    ),
    "pixel_size": Limits(
        0.4, 8, 0.05, 100, "Å", "tilt images have pixels of 0.5 to 6 Å",
        "is it in nm?", "is it that of a voxel?",
    ),
    "voltage": Limits(
        80, 300, 10, 3000, "kV", "microscopes for tomography have 100 to 300 kV", "", "is it in V?"
    ),
    "spherical_aberration": Limits(
        0, 6, 0, 100, "mm", "lenses have 0 (corrected) to 5 mm", "", "is it in µm?"
    ),
    "chromatic_aberration": Limits(0, 6, 0, 100, "mm", "lenses have 1 to 5 mm", "", "is it in µm?"),
    "defocus": Limits(
        0.2, 12, -50, 50, "µm", "tilt series are taken 1 to 8 µm under focus",
        "under focus is positive here, and over focus turns the contrast round", "is it in Å or nm?",
    ),
    "astigmatism": Limits(0, 1, 0, 50, "µm", "it is mostly below 0.2 µm", "", "is it in nm or Å?"),
    "dose": Limits(
        15, 400, 1e-3, 1e6, "e/Å²", "a whole tilt series has 60 to 160 e/Å²",
        "is it that of one image? dose is that of all images together", "is it in e/nm²?",
    ),
    "tilt_step": Limits(
        0.5, 89, 0.05, 178, "°", "series are taken in steps of 1 to 5°", "is it in rad?"
    ),
    "amplitude_contrast": Limits(
        0, 0.3, 0, 1, "", "it is 0.07 to 0.1 for biological specimens", "", "is it in percent?"
    ),
    "phase_shift": Limits(
        10, 180, 0, 360, "°", "phase plates shift by 30 to 120°", "is it in rad, or in π?"
    ),
    "mean_free_path": Limits(
        1000, 10_000, 1, 1e6, "Å", "it is about 3000 Å in ice at 300 kV", "is it in nm?"
    ),
    "contamination_size": Limits(
        30, 3000, 1, 1e5, "Å", "lumps of ice are 50 to 1000 Å large", "is it in nm?"
    ),
    "shift_error": Limits(0, 100, 0, 1e4, "Å", "alignments are good to 3 to 30 Å"),
    "slice_thickness": Limits(1, 50, 0.1, 1e4, "Å", "slices are 3 to 20 Å thick", "is it in nm?"),
    "aperture": Limits(0, 50, 0, 1000, "mrad", "apertures are 2 to 20 mrad", "", "is it in µm?"),
    "illumination_semiangle": Limits(
        0, 1, 0, 100, "mrad", "beams have 0.01 to 0.1 mrad", "", "is it in µrad?"
    ),
    "damage": Limits(0, 2, 0, 1000, "Å² per e/Å²", "it is 0.02 to 0.3"),
    "ice_density": Limits(0, 1.2, 0, 5, "g/cm³", "vitreous ice has 0.92 to 0.94", "", "is it in kg/m³?"),
    # of the box and what stands in it
    "thickness": Limits(
        100, 10_000, 10, 1e6, "Å", "a 70S ribosome is 250 Å large and lamellae are 1000 to 2500 Å thick",
        "is it in nm or in voxels?",
    ),
    "edge": Limits(
        150, 50_000, 10, 1e6, "Å", "a field of view is 2000 to 20000 Å wide", "is the voxel size in nm?"
    ),
    "gap": Limits(0, 100, 0, 1e4, "Å", "molecules are 0 to 20 Å apart"),
    "rmsd": Limits(0.1, 30, 0, 1000, "Å", "flexible molecules move by 1 to 10 Å", "is it in nm?"),
    "mass": Limits(
        5, 100_000, 0.1, 1e7, "kDa", "complexes have 50 to 50000 kDa", "is it in MDa?", "is it in Da?"
    ),
    "resolution": Limits(1, 80, 0.1, 1000, "Å", "maps have 3 to 40 Å", "is it in nm?"),
    "concentration": Limits(
        1, 500, 1e-6, 1350, "mg/ml", "a cytoplasm has 200 to 400 mg/ml, and protein itself 1350"
    ),
    "bead_radius": Limits(15, 300, 3, 1e4, "Å", "10 nm gold has 50 Å", "is it in nm?"),
    "vesicle_radius": Limits(80, 1e4, 20, 1e6, "Å", "vesicles have 150 to 1000 Å", "is it in nm?"),
    "membrane_thickness": Limits(25, 80, 11, 1000, "Å", "a bilayer has 35 to 45 Å", "is it in nm?"),
    "film_thickness": Limits(30, 1000, 1, 1e5, "Å", "carbon films have 100 to 300 Å", "is it in nm?"),
    "tilts": Limits(1, 250, 1, 4000, "", "a tilt series has 30 to 120 images"),
    "variants": Limits(0, 200, 0, 10_000, "", "4 to 20 flexible variants of a structure are enough"),
    "samples": Limits(
        1, 10_000, 1, 1_000_000, "", "the paper trained on 48 tomograms, and a few hundred are many"
    ),
    # of a model and of picks
    "radius": Limits(10, 2000, 1, 1e5, "Å", "complexes have radii of 20 to 500 Å", "is it in nm?"),
    "rescaling": Limits(
        0.4, 2.5, 0.05, 20, "", "resampling by more than 2.5 invents detail or throws it away",
        "is one of the two voxel sizes in nm?", "is one of the two voxel sizes in nm?",
    ),
    "learning_rate": Limits(1e-6, 0.05, 0, 10, "", "networks learn with 1e-4 to 1e-2"),
}  # fmt: skip


def doubt(quantity: str, value: float, *, called: str | None = None) -> str | None:
    """Describe what is unusual about a value; None if nothing is.

    Parameters
    ----------
    quantity
        One of :data:`USUAL`.
    value
        In its unit.
    called
        Name for the user, such as ``samples.train.shape``; the quantity's own name unless given.

    Returns
    -------
    str or None
        ``voxel_size is 1 Å: tomograms to pick in have voxels of 4 to 25 Å; is it in nm? 1 nm is 10 Å``
    """
    limits = USUAL[quantity]
    if limits.low <= value <= limits.high or not math.isfinite(value):  # nan is refused elsewhere
        return None
    hint = limits.below if value < limits.low else limits.above
    said = f"{called or quantity} is {_number(value, limits.unit)}: {limits.why}"
    return f"{said}; {hint}" if hint else said


def impossible(quantity: str, value: float) -> str | None:
    """Describe the possible values if this one is not: ``must be 0.5 to 200 Å, not 1e+09 (...)``."""
    limits = USUAL[quantity]
    if math.isnan(value) or not limits.least <= value <= limits.most:
        unit = f" {limits.unit}" if limits.unit and limits.unit != "°" else limits.unit
        return (
            f"must be from {_plain(limits.least)} to {_plain(limits.most)}{unit}, not {_plain(value)}: "
            f"{limits.why}"
        )
    return None


def refuse_impossible(quantity: str, value: float, called: str) -> None:
    """Refuse an impossible value.

    Raises
    ------
    InputError
        If it is impossible; the message says what is possible.
    """
    words = impossible(quantity, value)
    if words is not None:
        raise InputError(f"{called} {words}")


def refuse_unusual(doubts: Iterable[str | None], yes: bool) -> None:
    """Refuse unusual values, which most often have a wrong unit, unless the user means them.

    Parameters
    ----------
    doubts
        Results of :func:`doubt` for each value.
    yes
        Whether the user means them.

    Raises
    ------
    InputError
        If any is unusual; the message says what is unusual and how to go on.
    """
    said = [words for words in doubts if words is not None]
    if said and not yes:
        raise InputError(f"{' -- '.join(said)}; if this is meant, add `yes`")


def doubts_of_model(voxel_size: float, radii: Mapping[str, float], called: str) -> list[str | None]:
    """Check the voxel size (Å) and the radii of the classes (Å) of a model or a corpus with :func:`doubt`.

    Parameters
    ----------
    voxel_size, radii
        Voxel size of the tomograms, and radius of the particles of each class.
    called
        Name of the model or corpus for the message, such as ``the model 'ribosome'``.
    """
    return [
        doubt("voxel_size", voxel_size, called=f"the voxel size of {called}"),
        *(doubt("radius", r, called=f"the radius of {name} in {called}") for name, r in radii.items()),
    ]


def _number(value: float, unit: str) -> str:
    return f"{_plain(value)}{unit if unit == '°' else f' {unit}' if unit else ''}"


def _plain(value: float) -> str:
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e7 else f"{value:.4g}"
