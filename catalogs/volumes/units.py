"""Units of length in the spellings of other programs."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

_ANGSTROMS = {
    1.0: ("angstrom", "angstroms", "ångström", "ångstrom", "ångströms", "angström", "å", "a", "ang"),
    0.01: ("pm", "picometer", "picometers", "picometre", "picometres"),
    10.0: ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    1e4: (
        "um", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres",
    ),
    1e7: ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    1e8: ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    1e10: ("m", "meter", "meters", "metre", "metres"),
}  # fmt: skip
_IN = {word: factor for factor, words in _ANGSTROMS.items() for word in words}


def angstroms_in(unit: str) -> float | None:
    """Convert a unit, under any of its names, to Å; None for pixels and unknown words.

    Case is ignored, and the two characters for Å and for µ are equivalent.
    """
    return _IN.get(unicodedata.normalize("NFKC", unit).strip().lower())


def factor_of(facts: Mapping[str, Any]) -> float:
    """Return the Å of the unit in which attributes state a voxel size: as they say it, else 1.

    It is 0, for a size that is not known, where they name pixels. An attribute ``unit`` may also be that of
    the voxels' values.
    """
    for name in ("voxel_size_unit", "voxel_size_units", "voxel_unit", "unit", "units"):
        stated = facts.get(name)
        text = stated.decode(errors="replace") if isinstance(stated, bytes) else str(stated)
        if text.strip().lower() in ("px", "pixel", "pixels", "voxel", "voxels"):
            return 0.0
        if (factor := angstroms_in(text)) is not None:
            return factor
    return 1.0
