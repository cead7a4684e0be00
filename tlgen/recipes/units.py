"""Convert quantities with a unit, such as ``2 um`` or ``100 e/A^2``, into the unit of a key."""

from __future__ import annotations

import re
from typing import Any

# Unit of a key -> spelling, without blanks, accents and carets -> factor to the key's unit.
_LENGTHS = {"A": 1.0, "angstrom": 1.0, "pm": 0.01, "nm": 10.0, "um": 1e4, "mm": 1e7}
_KNOWN: dict[str, dict[str, float]] = {
    "Å": _LENGTHS,
    "µm": {word: factor / 1e4 for word, factor in _LENGTHS.items()},
    "mm": {word: factor / 1e7 for word, factor in _LENGTHS.items()},
    "kV": {"kV": 1.0, "keV": 1.0, "V": 1e-3},
    "°": {"deg": 1.0, "degree": 1.0, "degrees": 1.0},
    "e/Å²": {"e/A2": 1.0, "e-/A2": 1.0, "e/nm2": 0.01, "e-/nm2": 0.01},
    "g/cm³": {"g/cm3": 1.0, "g/ml": 1.0, "kg/m3": 1e-3},
    "mg/ml": {"mg/ml": 1.0, "g/l": 1.0},
    "mrad": {"mrad": 1.0, "urad": 1e-3, "rad": 1e3},
    "1/Å": {"1/A": 1.0, "A-1": 1.0, "1/nm": 0.1, "nm-1": 0.1},
    "ppm": {"ppm": 1.0},
    "1/µm²": {"1/um2": 1.0, "um-2": 1.0},
}
_PLAIN = str.maketrans(
    {
        "\N{ANGSTROM SIGN}": "A",
        "Å": "A",
        "\N{GREEK SMALL LETTER MU}": "u",
        "µ": "u",
        "²": "2",
        "³": "3",
        "^": None,
    }
)
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\s*")
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S.*?)\s*$")


def in_unit(value: Any, unit: str) -> Any:
    """Turn a quantity with a unit into a number of a key's own unit.

    Parameters
    ----------
    value
        A string such as ``"25000 Å"``; anything else than a number followed by words is returned unchanged.
    unit
        Unit of the key in :class:`catalogs.schema.Acquisition`.

    Returns
    -------
    float or Any
        ``2.5`` for ``"25000 Å"`` and ``"µm"``.

    Raises
    ------
    ValueError
        If the words after the number are not a unit of this quantity; the message lists the known units.
    """
    if not unit or not isinstance(value, str):
        return value
    if _NUMBER.fullmatch(value):  # YAML reads 1e-4 as text, because it has no decimal point
        return float(value)
    if (found := _QUANTITY.match(value)) is None:
        return value
    known = _KNOWN.get(unit, {})
    word = "".join(found[2].translate(_PLAIN).split())
    word = {"°": "deg"}.get(word, word)
    factor = known.get(word, known.get(word.lower()))
    if factor is None:
        units = ", ".join(known) or unit
        raise ValueError(f"{value!r} has an unknown unit; use {units}")
    # ten figures: 25000 Å is 2.5 µm, not 2.5000000000000004
    return float(f"{float(found[1]) * factor:.10g}")
