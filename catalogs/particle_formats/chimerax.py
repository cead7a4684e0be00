"""ChimeraX marker sets (``.cmm``): spheres in Å in the frame of the map, one set for each class.

ChimeraX places a map at the origin of its MRC header, so this is added (``origin``). The score is the
marker's note; orientations cannot be stored.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import names
from catalogs.particle_formats.base import POSITION, Context, Format, as_columns, one_of, positions
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import make

_COLOURS = (
    (0.9, 0.4, 0.2),
    (0.2, 0.6, 0.9),
    (0.4, 0.8, 0.3),
    (0.9, 0.8, 0.2),
    (0.7, 0.4, 0.9),
    (0.6, 0.6, 0.6),
)
_RADIUS = 100.0  # Å, of a class whose radius is not known
_SCORE = re.compile(r"score=([-+0-9.eEna]+)")


def _detect(sniffed: SniffedFile) -> str | None:
    found = re.search(r"<(marker_sets?)\b", sniffed.text[:2000])
    return f"it has a <{found.group(1)}>: ChimeraX markers, Å in the frame of the map" if found else None


def _read(path: Path, context: Context) -> pd.DataFrame:
    root = read_xml(path)
    tomogram = context.name_of(path)
    rows: list[tuple[float, ...]] = []
    classes: list[str] = []
    scores: list[float] = []
    for number, markers in enumerate(root.iter("marker_set"), start=1):
        for marker in markers.iter("marker"):
            rows.append(tuple(float(marker.attrib[axis]) for axis in "xyz"))
            classes.append(markers.get("name") or f"class{number}")
            note = _SCORE.search(marker.get("note", ""))
            scores.append(float(note.group(1)) if note else np.nan)
    xyz = np.array(rows, np.float64).reshape(-1, 3) - context.origin_of(tomogram)
    columns: dict[str, Any] = as_columns(["x", "y", "z"], xyz) | names.classes_of_names(classes, context)
    return make(tomogram=tomogram, score=scores, **columns)


def _encode(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    tomogram = one_of(table, "tomogram", "tomogram", path)
    sets = ET.Element("marker_sets")
    xyz = positions(table) + context.origin_of(tomogram)
    for number, name in enumerate(dict.fromkeys(table["class_name"])):
        markers = ET.SubElement(sets, "marker_set", name=name)
        radius = context.radius_of(name) or _RADIUS
        red, green, blue = _COLOURS[number % len(_COLOURS)]
        for k in np.flatnonzero(table["class_name"] == name):
            marker = {"id": str(k + 1)} | {
                axis: f"{value:.4f}" for axis, value in zip("xyz", xyz[k], strict=True)
            }
            marker |= {"r": str(red), "g": str(green), "b": str(blue), "radius": f"{radius:.6g}"}
            if np.isfinite(score := float(table["score"].iloc[k])):
                marker["note"] = f"score={score:.9g}"
            ET.SubElement(markers, "marker", marker)
    # all versions can read a file with one set
    return {path: write_xml(sets[0] if len(sets) == 1 else sets)}


def read_xml(path: Path) -> ET.Element:
    """Read the root of an XML file.

    Raises
    ------
    InputError
        If it is not XML.
    """
    try:
        return ET.parse(path).getroot()
    except (ET.ParseError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not an XML file that can be read ({error})") from error


def write_xml(root: ET.Element) -> bytes:
    """Write an XML element, one line an element."""
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8") + b"\n"


CMM = Format(
    name="chimerax",
    title="ChimeraX markers",
    suffixes=(".cmm",),
    holds=POSITION | {"tomogram", "class_name", "score"},
    detect=_detect,
    read=_read,
    encode=_encode,
    default_for=(".cmm",),
    one_tomogram=True,
)
