"""PyTom's particle lists: XML with a ``PickPosition``, a ``Shift`` and a ``Rotation`` for each particle.

Positions are voxels from 0 of the tomogram that ``Origin`` names, shifts are added, and Z1, X, Z2 are the
phi, theta and psi of TOM.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import names
from catalogs.particle_formats.base import ORIENTATION, POSITION, Context, Format, as_columns, stem
from catalogs.particle_formats.chimerax import read_xml, write_xml
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import make

_ANGLES = ["Z1", "X", "Z2"]


def _detect(sniffed: SniffedFile) -> str | None:
    found = "<ParticleList" in sniffed.text[:2000]
    return "it has a <ParticleList>: PyTom particles, voxels counted from 0" if found else None


def _vector(particle: ET.Element, tag: str, axes: list[str], needed: bool = False) -> list[float]:
    element = particle.find(tag)
    if element is None:
        if needed:
            raise InputError(f"a particle has no {tag}: its position in the tomogram is missing")
        return [0.0, 0.0, 0.0]
    return [float(element.get(axis, 0)) for axis in axes]


def _read(path: Path, context: Context) -> pd.DataFrame:
    root = read_xml(path)
    lists = [root] if root.tag == "ParticleList" else list(root.iter("ParticleList"))
    if not lists:
        raise InputError(f"{path} is not a particle list of PyTom: it holds <{root.tag}>, not <ParticleList>")
    particles = [particle for each in lists for particle in each.iter("Particle")]
    for particle in particles:
        turned = particle.find("Rotation")
        if turned is not None and turned.get("Paradigm", "ZXZ") != "ZXZ":
            raise InputError(f"{path} has angles of the paradigm {turned.get('Paradigm')}; only ZXZ is read")
    picked = np.array([_vector(p, "PickPosition", list("XYZ"), needed=True) for p in particles]).reshape(
        -1, 3
    )
    shifts = np.array([_vector(p, "Shift", list("XYZ")) for p in particles]).reshape(-1, 3)
    angles = np.array([_vector(p, "Rotation", _ANGLES) for p in particles]).reshape(-1, 3)
    tomograms, classes, scores = [], [], []
    for particle in particles:
        origin, of, score = (particle.find(tag) for tag in ("PickPosition", "Class", "Score"))
        named = "" if origin is None else origin.get("Origin", "")
        tomograms.append(stem(named) if named else context.name_of(path))
        classes.append((of.get("Name") if of is not None else None) or "particle")
        scores.append(float(score.get("Value", "nan")) if score is not None else np.nan)
    columns: dict[str, Any] = as_columns(["x", "y", "z"], context.to_angstrom(picked + shifts, tomograms))
    columns |= quaternions(from_eulers(angles, "tom")) | names.classes_of_names(classes, context)
    return make(tomogram=tomograms, score=scores, **columns)


def _encode(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    root = ET.Element("ParticleList", Path="/")
    index, angles = context.to_pixels(table), eulers(table, "tom")
    for k, row in enumerate(table.to_dict("records")):
        particle = ET.SubElement(root, "Particle", Filename=f"{row['tomogram']}/particle_{k + 1}.em")
        turned = {name: f"{angle:.6f}" for name, angle in zip(_ANGLES, angles[k], strict=True)}
        ET.SubElement(particle, "Rotation", {"Paradigm": "ZXZ"} | turned)
        ET.SubElement(particle, "Shift", X="0.0", Y="0.0", Z="0.0")
        where = {axis: f"{value:.6f}" for axis, value in zip("XYZ", index[k], strict=True)}
        ET.SubElement(particle, "PickPosition", {"Origin": f"{row['tomogram']}.mrc"} | where)
        if np.isfinite(row["score"]):
            ET.SubElement(
                particle, "Score", Type="FLCFScore", RemoveAutocorrelation="False", Value=repr(row["score"])
            )
        ET.SubElement(particle, "Class", Name=str(row["class_name"]))
    return {path: write_xml(root)}


PYTOM = Format(
    name="pytom",
    title="PyTom particle list",
    suffixes=(".xml",),
    holds=POSITION | ORIENTATION | {"tomogram", "class_name", "score"},
    detect=_detect,
    read=_read,
    encode=_encode,
)
