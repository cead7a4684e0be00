"""Warp's and M's XML file of a tilt series."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from statistics import median

from catalogs.errors import InputError
from tlgen.tilts.acquired import AcquiredSeries, doses_from_before, number, order_of, positive


def read_warp(file: Path, content: str) -> AcquiredSeries:
    """Read the angles, doses, axis and CTF of a tilt series; images that were taken out are left out.

    Raises
    ------
    InputError
        If it is not XML, tells no tilts, or its lists differ in length.
    """
    # Warp's files have no document type; one could name other files, or unpack to any size
    if re.search(r"<!(DOCTYPE|ENTITY)", content):
        raise InputError(f"{file} has a document type, which Warp's files have not; give Warp's own file")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not XML that can be read ({error})") from error

    def words(tag: str) -> list[str]:
        return (root.findtext(tag) or "").split()

    if root.tag != "TiltSeries" or not words("Angles"):
        raise InputError(f"{file} is not Warp's file of a tilt series: it has no TiltSeries with Angles")
    lists = {tag: words(tag) for tag in ("Angles", "Dose", "AxisAngle", "UseTilt")}
    n = len(lists["Angles"])
    for tag, found in lists.items():
        if found and len(found) != n:
            raise InputError(f"{file} has {n} Angles and {len(found)} of {tag}; let Warp write it again")
    used = [k for k in range(n) if not lists["UseTilt"] or lists["UseTilt"][k].lower() != "false"]

    def values(tag: str) -> list[float]:
        return [number(file, f"{tag} of image {k}", lists[tag][k]) for k in used] if lists[tag] else []

    def of_ctf(key: str) -> float | None:
        param = root.find(f"./CTF/Param[@Name='{key}']")
        return None if param is None else number(file, key, param.get("Value") or "")

    before, axis = values("Dose"), values("AxisAngle")
    taken = order_of(before) if before else None
    doses = doses_from_before([before[k] for k in taken], taken) if taken else None
    return AcquiredSeries(
        name=file.stem,
        angles=tuple(values("Angles")),
        doses=tuple(doses) if doses else (),
        taken=tuple(taken) if taken else (),
        ordered=taken is not None,
        doubt="gives several images the same Dose" if before else "has no Dose",
        pixel_size=positive(of_ctf("PixelSize")),
        voltage=positive(of_ctf("Voltage")),
        defocus=of_ctf("Defocus"),
        spherical_aberration=of_ctf("Cs"),
        tilt_axis=median(axis) if axis else None,
    )
