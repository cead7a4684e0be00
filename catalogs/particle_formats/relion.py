"""RELION's particle tables: version 5, version 4, and 3 as Warp and M write and read it too.

=========  =====================================================  ====================================
RELION 5   ``rlnCenteredCoordinateXAngst``                        Å from the centre of the tomogram
RELION 4   ``rlnCoordinateX``, ``rlnTomoName``                    pixels of the unbinned tilt series
RELION 3   ``rlnCoordinateX``, ``rlnMicrographName``              pixels of the stated volume
=========  =====================================================  ====================================

Positions count from the centre of the first voxel. For the centre, RELION 5 uses half of the size in
extraction (tomogram_set.cpp), and one pixel less in its Python tools for picks; a comment in the STAR file
says which. Shifts and the two rotations of refined particles are applied as RELION does: position - A_sub
shift, A_sub A.

Columns and blocks that begin with ``tl`` are this program's own; RELION keeps such columns and ignores such
blocks. A block ``optics`` is written only if its values are known, from a file or from the user. Without it,
RELION 5 takes voltage, pixel size and so on from the tomograms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.particle_formats import names, star
from catalogs.particle_formats.base import (
    EVERYTHING,
    NOTES,
    CentreRule,
    Context,
    Format,
    as_columns,
    positions,
    stem,
)
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.relion_columns import (
    ANGLE_PRIORS,
    BLOCKS,
    CENTRED,
    CLASSES,
    EULERS,
    MICROGRAPH,
    ORIGIN,
    ORIGIN_PIXELS,
    PARTICLE_NAME,
    PIXELS,
    RIDING,
    SAME,
    SCORE,
    SCORES,
    SHIFT_PRIORS,
    SUBTOMOGRAM,
    TEXT,
    TILT_SERIES_PIXEL,
    TOMOGRAM,
    TOMOGRAMS,
)
from catalogs.particle_formats.relion_sizes import describe, prepare, split_optics
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import COLUMNS, OPTIONAL, make
from catalogs.schema import ClassInfo

_CENTRE_WORDS: dict[CentreRule, str] = {
    "extract": "size/2, as RELION 5 extracts",
    "picker": "size/2 - 1, as RELION 5's Python picker writes",
}


def read_classes(path: Path) -> list[ClassInfo]:
    """Read the classes that this program wrote beside the particles, if any."""
    block = star.read_blocks(path, TEXT).get(CLASSES)
    if block is None:
        return []
    return [
        ClassInfo(name=str(row["tlClassName"]), label=int(row["tlLabel"]), radius=float(row["tlRadius"]))
        for row in block.to_dict("records")
    ]


def _detect5(sniffed: SniffedFile) -> str | None:
    block = sniffed.star_with(*CENTRED)
    if block is None:
        return None
    rule = _stated_rule(sniffed.text)
    said = f"its comment says {_CENTRE_WORDS[rule]}" if rule else f"taken as {_CENTRE_WORDS['extract']}"
    return f"data_{block} has {CENTRED[0]}: Å from the centre of the tomogram ({said})"


def _detect4(sniffed: SniffedFile) -> str | None:
    block = sniffed.star_with(*PIXELS, TOMOGRAM)
    if block is None or sniffed.star_with(*CENTRED) is not None:
        return None
    return f"data_{block} has {PIXELS[0]} and {TOMOGRAM}: pixels of the unbinned tilt series"


def _detect3(sniffed: SniffedFile) -> str | None:
    block = sniffed.star_with(*PIXELS)
    others = (sniffed.star_with(*PIXELS, TOMOGRAM), sniffed.star_with(*CENTRED))
    if block is None or any(other is not None for other in others):  # a block may have no name
        return None
    named = f" and {MICROGRAPH}" if MICROGRAPH in sniffed.star[block] else ""
    return f"data_{block} has {PIXELS[0]}{named} but no {TOMOGRAM}: pixels of a volume that it does not name"


def _open(path: Path, context: Context, version: int) -> tuple[pd.DataFrame, Context]:
    columns = CENTRED if version == 5 else PIXELS if version == 3 else [*PIXELS, TOMOGRAM]
    stars, blocks = star.read_loop(path, columns, TEXT)
    if version == 3 and MICROGRAPH in stars:
        named = [stem(str(name)) for name in stars[MICROGRAPH]]
        if all(f"{name}.tomostar" == given for name, given in zip(named, stars[MICROGRAPH], strict=True)):
            stars = stars.drop(columns=MICROGRAPH)
        stars = stars.assign(**{TOMOGRAM: named})
    stars.attrs[BLOCKS] = {
        name: (block.attrs[star.VALUES], block.to_dict("list"))
        for name, block in blocks.items()
        if name not in ("optics", TOMOGRAMS, CLASSES) and not set(columns) <= set(block.columns)
    }
    return prepare(path, stars, blocks, context, version)


def _read5(path: Path, context: Context) -> pd.DataFrame:
    stars, context = _open(path, context, 5)
    tomograms = list(stars[TOMOGRAM])
    rule = context.centre or _stated_rule(star.read_text(path)) or "extract"
    centres = {name: context.centre_of(name, rule) for name in dict.fromkeys(tomograms)}
    xyz = star.numbers(path, stars, CENTRED) + np.array([centres[name] for name in tomograms]).reshape(-1, 3)
    return _decode(path, stars, xyz, context)


def _read4(path: Path, context: Context) -> pd.DataFrame:
    stars, context = _open(path, context, 4)
    if context.unit is None and context.list_pixel is None:
        for name in dict.fromkeys(stars[TOMOGRAM]):
            context.unbinned(name)  # the voxel size must not replace it
        context = replace(context, in_pixels=True)
    xyz = context.to_angstrom(star.numbers(path, stars, PIXELS), list(stars[TOMOGRAM]))
    return _decode(path, stars, xyz, context)


def _read3(path: Path, context: Context) -> pd.DataFrame:
    stars, context = _open(path, context, 3)
    xyz = context.to_angstrom(star.numbers(path, stars, PIXELS), list(stars[TOMOGRAM]))
    return _decode(path, stars, xyz, context)


def _learn5(path: Path, context: Context) -> Context:
    return _open(path, context, 5)[1]


def _learn4(path: Path, context: Context) -> Context:
    return _open(path, context, 4)[1]


def _learn3(path: Path, context: Context) -> Context:
    return _open(path, context, 3)[1]


def _encode5(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    rule = context.centre or "extract"
    tomograms = list(table["tomogram"])
    centres = {name: context.centre_of(name, rule) for name in dict.fromkeys(tomograms)}
    xyz = positions(table) - np.array([centres[name] for name in tomograms]).reshape(-1, 3)
    comment = (
        "# RELION 5 particles, written by template-learning\n"
        f"# centre of the tomogram: {_CENTRE_WORDS[rule]}; "
        f"coordinates = centred + {'size/2' if rule == 'extract' else '(size/2 - 1)'} * pixel size\n"
    )
    return {path: _encode(table, as_columns(CENTRED, xyz), comment, TOMOGRAM, context)}


def _encode4(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    pixels = [context.unbinned(name) for name in table["tomogram"]]
    context = replace(context, in_pixels=True)
    if TILT_SERIES_PIXEL in table:  # RELION multiplies by the neighbouring column
        table = table.assign(**{TILT_SERIES_PIXEL: pixels})
    comment = "# RELION 4 particles, written by template-learning\n# coordinates: unbinned pixels\n"
    xyz = as_columns(PIXELS, context.to_pixels(table))
    return {path: _encode(table, xyz, comment, TOMOGRAM, context)}


def _encode3(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    pixels = {name: context.pixel(name) for name in dict.fromkeys(table["tomogram"])}
    context = replace(context, pixel_size=pixels, in_pixels=True)
    sizes = ", ".join(f"{size:.6g}" for size in sorted(set(pixels.values()))) or "no"
    comment = (
        "# RELION 3 particles for Warp and M, written by template-learning\n"
        f"# coordinates: pixels of {sizes} Å (Warp: --coords_angpix)\n"
    )
    xyz = as_columns(PIXELS, context.to_pixels(table))
    return {path: _encode(table, xyz, comment, MICROGRAPH, context)}


def _encode(
    table: pd.DataFrame, xyz: Mapping[str, Any], comment: str, tomogram: str, context: Context
) -> bytes:
    tomograms = table["tomogram"]
    # numbers come first, because a line that begins with data_ or _ would end the block
    columns: dict[str, Any] = dict(xyz) | as_columns(EULERS, eulers(table, "relion"))
    columns |= dict.fromkeys(ORIGIN, 0.0)
    if table["score"].notna().any():
        columns[SCORE] = table["score"].fillna(star.NO_SCORE)
    columns |= {theirs: table[ours] for ours, theirs in SAME.items() if ours in table}
    if tomogram == MICROGRAPH:
        named = list(table[MICROGRAPH]) if MICROGRAPH in table else []
        kept = [stem(str(name)) for name in named] == list(tomograms)
        columns[MICROGRAPH] = (
            named if kept else [f"{name.removesuffix('.tomostar')}.tomostar" for name in tomograms]
        )
    else:
        columns[TOMOGRAM] = tomograms
        columns[PARTICLE_NAME] = _particle_names(tomograms)
    for name in table.columns:
        # names of RELION are kept; our own are made again
        if name not in COLUMNS and name not in OPTIONAL and (name not in columns or name == PARTICLE_NAME):
            columns[name] = table[name]
    for name in unwritable(table):
        del columns[name]
    frame = pd.DataFrame(columns, index=table.index)
    particles, optics = split_optics(frame, tomograms, context, table.attrs.get(RIDING, ()))
    blocks = _other_blocks(table)
    if optics is not None:
        blocks["optics"] = optics
    blocks |= {"particles": particles, TOMOGRAMS: describe(list(dict.fromkeys(tomograms)), context)}
    if context.classes:
        blocks[CLASSES] = pd.DataFrame(
            {
                "tlLabel": [info.label for info in context.classes],
                "tlRadius": [info.radius for info in context.classes],
                "tlClassName": [info.name for info in context.classes],
            }
        )
    return star.to_text(blocks, comment).encode()


def _other_blocks(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the blocks of the source file that are still valid with the particles."""
    blocks = {}
    for name, (values, columns) in table.attrs.get(BLOCKS, {}).items():
        if name != "particles":
            blocks[name] = pd.DataFrame(columns)
            blocks[name].attrs[star.VALUES] = values
    return blocks


def unwritable(table: pd.DataFrame) -> list[str]:
    """List columns that RELION could not read, because some of their numbers are unknown."""
    return [
        str(name)
        for name in table
        if str(name).startswith("rln") and table[name].dtype.kind == "f" and table[name].isna().any()
    ]


def _decode(path: Path, stars: pd.DataFrame, xyz: NDArray[np.float64], context: Context) -> pd.DataFrame:
    """Make the table of particles from positions in Å without shifts."""
    subtomogram, particle = _rotation(path, stars, SUBTOMOGRAM), _rotation(path, stars, EULERS)
    shifts = _numbers_or_0(path, stars, ORIGIN)
    if not set(ORIGIN) & set(stars) and set(ORIGIN_PIXELS) & set(stars):  # RELION 3.0 counts them in pixels
        steps = np.array([context.pixel(name) for name in stars[TOMOGRAM]]).reshape(-1, 1)
        shifts = _numbers_or_0(path, stars, ORIGIN_PIXELS) * steps
    if len(stars):
        xyz = xyz - subtomogram.apply(shifts)
    columns: dict[str, Any] = as_columns(["x", "y", "z"], xyz) | quaternions(subtomogram * particle)
    columns["tomogram"] = stars[TOMOGRAM]
    try:
        scored = next((name for name in SCORES if name in stars), None)
        if scored is not None:
            score = star.floats(stars[scored])
            columns["score"] = np.where(score == star.NO_SCORE, np.nan, score)
        columns |= {ours: _ours(stars[theirs], ours) for ours, theirs in SAME.items() if theirs in stars}
        if "class_name" not in columns and "label" in columns:
            columns |= names.classes_of_labels(names.whole(columns["label"], "rlnClassNumber"), context)
        used = {*CENTRED, *PIXELS, *EULERS, *SUBTOMOGRAM, *ORIGIN, *ORIGIN_PIXELS, SCORE, TOMOGRAM}
        used |= set(SAME.values())
        if PARTICLE_NAME in stars and list(stars[PARTICLE_NAME]) == _particle_names(stars[TOMOGRAM]):
            used.add(PARTICLE_NAME)
        notes = _drop_what_is_composed(stars, subtomogram, shifts, used)
        columns |= {
            str(name) if name not in columns and name not in COLUMNS else f"star_{name}": stars[name]
            for name in stars
            if name not in used
        }
        table = make(**columns)
    except (InputError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    table.attrs |= {key: stars.attrs[key] for key in (BLOCKS, RIDING) if stars.attrs.get(key)}
    table.attrs |= {NOTES: notes} if notes else {}
    return table


def _ours(column: pd.Series[Any], name: str) -> Any:
    """Return the values of a column written by this program, with a word for unknown ones."""
    if name in ("calibrated", "size"):
        return star.floats(column)
    return column


def _drop_what_is_composed(
    stars: pd.DataFrame, subtomogram: Any, shifts: NDArray[np.float64], used: set[str]
) -> list[str]:
    """Remove and report columns that depend on angles and shifts that have been combined.

    Priors of angles refer to the particle in its subtomogram, priors of shifts to the old position; neither
    is valid for the combined rotation and position.
    """
    notes = []
    turned = bool(len(stars)) and bool((subtomogram.magnitude() > 1e-6).any())
    moved = bool((shifts != 0).any())
    gone = [name for name in ANGLE_PRIORS if name in stars and turned]
    gone += [name for name in SHIFT_PRIORS if name in stars and (moved or turned)]
    if gone:
        why = "the two rotations are made one" if turned else "the shifts are applied"
        notes.append(f"{', '.join(gone)} left out: {why}, and priors of the old values do not hold")
    if turned and "rlnImageName" in stars:
        notes.append(
            "the images in rlnImageName were cut with the two rotations: extract the particles again"
        )
    used |= set(gone)
    return notes


def _numbers_or_0(path: Path, stars: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    """Return (n, 3) values of three columns; missing ones are 0, as in RELION."""
    there = [
        star.numbers(path, stars, [name])[:, 0] if name in stars else np.zeros(len(stars)) for name in columns
    ]
    return np.stack(there, axis=1)


def _particle_names(tomograms: Sequence[str] | pd.Series[Any]) -> list[str]:
    named = pd.Series(list(tomograms), dtype=object)
    return [f"{name}/{k}" for name, k in zip(named, named.groupby(named).cumcount() + 1, strict=True)]


def _stated_rule(text: str) -> CentreRule | None:
    for line in text.splitlines()[:20]:
        if line.startswith("#") and "centre of the tomogram:" in line:
            return "picker" if _CENTRE_WORDS["picker"] in line else "extract"
    return None


def _rotation(path: Path, stars: pd.DataFrame, columns: Sequence[str]) -> Any:
    """Return the rotation particle -> tomogram of every row; none if the file has no angles."""
    return from_eulers(_numbers_or_0(path, stars, columns), "relion")


RELION5 = Format(
    name="relion5",
    title="RELION 5 particles",
    suffixes=(".star",),
    holds=frozenset([EVERYTHING]),
    detect=_detect5,
    read=_read5,
    learn=_learn5,
    encode=_encode5,
    default_for=(".star",),
)
RELION4 = replace(
    RELION5,
    name="relion4",
    title="RELION 4 particles",
    detect=_detect4,
    read=_read4,
    learn=_learn4,
    encode=_encode4,
    default_for=(),
)
RELION3 = replace(
    RELION5,
    name="relion3",
    title="RELION 3, Warp and M particles",
    detect=_detect3,
    read=_read3,
    learn=_learn3,
    encode=_encode3,
    default_for=(),
)
