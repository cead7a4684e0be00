"""RELION 5's files beside the particles: tomograms.star and optimisation_set.star."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import relion, relion_columns, star
from catalogs.particle_formats.base import Context, Format
from catalogs.particle_formats.sniff import SniffedFile

_BINNING = "rlnTomoTomogramBinning"


def read_tomograms(path: Path) -> dict[str, Any]:
    """Read RELION 5's tomograms.star as fields of a context of reading.

    The fields are those of :class:`~catalogs.particle_formats.base.Context`.

    Raises
    ------
    InputError
        If it is not one.
    """
    sizes = [f"rlnTomoSize{axis}" for axis in "XYZ"]
    frame, _ = star.read_loop(
        path, [relion_columns.TOMOGRAM, *sizes, relion_columns.TILT_SERIES_PIXEL], relion_columns.TEXT
    )
    pixel = star.sizes(path, frame, relion_columns.TILT_SERIES_PIXEL)
    shape = star.numbers(path, frame, sizes).astype(int)[:, ::-1]
    tomograms = list(frame[relion_columns.TOMOGRAM])
    optics = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    known: dict[str, Any] = {
        "pixel_size": dict(zip(tomograms, map(float, pixel), strict=True)),
        "unbinned_shape": dict(zip(tomograms, map(tuple, shape.tolist()), strict=True)),
        "optics": {
            name: float(frame[name].iloc[0]) for name in optics if name in frame and _one(frame[name])
        },
        "tomograms_file": str(path),
    }
    if _BINNING in frame:
        voxel = pixel * star.sizes(path, frame, _BINNING)
        known["voxel_size"] = dict(zip(tomograms, map(float, voxel), strict=True))
    return known


def _one(column: pd.Series[Any]) -> bool:
    return column.nunique() == 1


def _detect_set(sniffed: SniffedFile) -> str | None:
    block = sniffed.star_with("rlnTomoParticlesFile")
    return None if block is None else f"data_{block} names a file of particles: an optimisation set of RELION"


def _learn_set(path: Path, context: Context) -> Context:
    frame, _ = star.read_loop(path, ["rlnTomoParticlesFile"])
    if "rlnTomoTomogramsFile" in frame:
        tomograms = _beside(path, Path(str(frame["rlnTomoTomogramsFile"].iloc[0])))
        if tomograms.is_file():
            context = replace(context, **_unless_given(read_tomograms(tomograms), context))
    particles = _particles_of(path, frame)
    return _format_of(particles).learn(particles, context)


def _read_set(path: Path, context: Context) -> pd.DataFrame:
    frame, _ = star.read_loop(path, ["rlnTomoParticlesFile"])
    particles = _particles_of(path, frame)
    return _format_of(particles).read(particles, context)


def _particles_of(path: Path, frame: pd.DataFrame) -> Path:
    listed = Path(str(frame["rlnTomoParticlesFile"].iloc[0]))
    particles = _beside(path, listed)
    if not particles.is_file():
        raise InputError(f"{path} names the particles {listed}, which are not there; run where RELION ran")
    return particles


def _format_of(particles: Path) -> Format:
    centred = SniffedFile(particles).star_with(*relion_columns.CENTRED) is not None
    return relion.RELION5 if centred else relion.RELION4


def _encode_set(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    if context.tomograms_file is None:
        raise InputError("an optimisation set names the tomograms' STAR file; give it (`tomograms_star`)")
    particles = path.with_name("particles.star")
    listed = pd.DataFrame(
        {"rlnTomoParticlesFile": [str(particles)], "rlnTomoTomogramsFile": [context.tomograms_file]}
    )
    text = star.to_text(
        {"optimisation_set": listed}, "# RELION 5 optimisation set, written by template-learning\n"
    )
    return relion.RELION5.encode(table, particles, context) | {path: text.encode()}


def _beside(path: Path, listed: Path) -> Path:
    """Find a file that RELION names relative to the folder that it ran in: that, or one above the list."""
    for folder in (Path(), *path.parents):
        if (folder / listed).is_file():
            return folder / listed
    return path.parent / listed.name


def _unless_given(known: Mapping[str, Any], context: Context) -> dict[str, Any]:
    return {key: value for key, value in known.items() if not getattr(context, key)}


RELION5_SET = replace(
    relion.RELION5,
    name="relion5-set",
    title="RELION 5 optimisation set (optimisation_set.star with particles.star beside it)",
    detect=_detect_set,
    read=_read_set,
    learn=_learn_set,
    encode=_encode_set,
    default_for=(),
)
