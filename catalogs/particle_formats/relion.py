"""RELION's particle tables: version 5, version 4, and 3 as Warp and M write and read it too.

=========  =====================================================  ====================================
RELION 5   ``rlnCenteredCoordinateXAngst``                        Å from the centre of the tomogram
RELION 4   ``rlnCoordinateX``, ``rlnTomoName``                    pixels of the unbinned tilt series
RELION 3   ``rlnCoordinateX``, ``rlnMicrographName``              pixels of the stated volume
=========  =====================================================  ====================================

Positions count from the centre of the first voxel. RELION 5 takes half of the size for the centre where it
extracts (tomogram_set.cpp), and one pixel less where its Python tools write picks; the STAR's comment says
which it is. Shifts and the two rotations of refined particles are applied as RELION does: position - A_sub
shift, A_sub A.

Columns and blocks that begin with ``tl`` are this program's own; RELION keeps such columns and does not look
at such blocks. There is a block ``optics`` only if its values are known, from a file that was read or from
the user: without it RELION 5 takes voltage, pixel size and so on from the tomograms that the particles are
joined with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.particle_formats import names, star
from catalogs.particle_formats.base import EVERYTHING, CentreRule, Context, Format, as_columns, positions
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.sniff import Peek
from catalogs.particle_table import COLUMNS, OPTIONAL, make
from catalogs.schema import ClassInfo

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
PIXELS = [f"rlnCoordinate{axis}" for axis in "XYZ"]
_EULERS = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
_SUBTOMOGRAM = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
_ORIGIN = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
_ORIGIN_PIXELS = [f"rlnOrigin{axis}" for axis in "XYZ"]
_SCORE = "rlnAutopickFigureOfMerit"
_PARTICLE_NAME = "rlnTomoParticleName"
TOMOGRAM = "rlnTomoName"
_MICROGRAPH = "rlnMicrographName"
_GROUP = "rlnOpticsGroup"
TILT_SERIES_PIXEL = "rlnTomoTiltSeriesPixelSize"

# Column of the particle table -> of the STAR file, where the value is the same.
_SAME = {
    "label": "rlnClassNumber",
    "class_name": "tlClassName",
    "instance": "tlInstance",
    "structure": "tlStructure",
    "variant": "tlVariant",
    "calibrated": "tlCalibrated",
    "size": "tlSize",
    "flags": "tlFlags",
}
TEXT = [TOMOGRAM, _MICROGRAPH, _PARTICLE_NAME, "tlClassName", "tlStructure", "tlFlags"]
# Columns of RELION's optics table; in a particle table they ride with every particle.
_OPTICS = [
    "rlnOpticsGroupName",
    "rlnSphericalAberration",
    "rlnVoltage",
    "rlnAmplitudeContrast",
    TILT_SERIES_PIXEL,
    "rlnCtfDataAreCtfPremultiplied",
    "rlnImageDimensionality",
    "rlnTomoSubtomogramBinning",
    "rlnImagePixelSize",
    "rlnImageSize",
    "rlnMicrographOriginalPixelSize",
    "rlnMicrographPixelSize",
    "rlnMicrographBinning",
]
_TOMOGRAMS = "tl_tomograms"
_CLASSES = "tl_classes"
_SIZES = ["tlSizeX", "tlSizeY", "tlSizeZ"]
_CENTRE_WORDS: dict[CentreRule, str] = {
    "extract": "size/2, as RELION 5 extracts",
    "picker": "size/2 - 1, as RELION 5's Python picker writes",
}


def read_classes(path: Path) -> list[ClassInfo]:
    """Read the classes that this program wrote beside the particles; none if there are none."""
    block = star.read_blocks(path, TEXT).get(_CLASSES)
    if not isinstance(block, pd.DataFrame):
        return []
    return [
        ClassInfo(name=str(row["tlClassName"]), label=int(row["tlLabel"]), radius=float(row["tlRadius"]))
        for row in block.to_dict("records")
    ]


def _detect5(peek: Peek) -> str | None:
    block = peek.star_with(*CENTRED)
    if block is None:
        return None
    rule = _stated_rule(peek.text)
    said = f"its comment says {_CENTRE_WORDS[rule]}" if rule else f"taken as {_CENTRE_WORDS['extract']}"
    return f"data_{block} has {CENTRED[0]}: Å from the centre of the tomogram ({said})"


def _detect4(peek: Peek) -> str | None:
    block = peek.star_with(*PIXELS, TOMOGRAM)
    if block is None or peek.star_with(*CENTRED):
        return None
    return f"data_{block} has {PIXELS[0]} and {TOMOGRAM}: pixels of the unbinned tilt series"


def _detect3(peek: Peek) -> str | None:
    block = peek.star_with(*PIXELS)
    if block is None or peek.star_with(*PIXELS, TOMOGRAM) or peek.star_with(*CENTRED):
        return None
    named = f" and {_MICROGRAPH}" if _MICROGRAPH in peek.star[block] else ""
    return f"data_{block} has {PIXELS[0]}{named} but no {TOMOGRAM}: pixels of a volume that it does not name"


def _read5(path: Path, context: Context) -> pd.DataFrame:
    stars, blocks = star.read_loop(path, CENTRED, TEXT)
    stars, context = _prepare(path, stars, blocks, context)
    tomograms = list(stars[TOMOGRAM])
    rule = context.centre or _stated_rule(path.read_text(encoding="utf-8-sig")) or "extract"
    centres = {name: context.centre_of(name, rule) for name in dict.fromkeys(tomograms)}
    xyz = star.numbers(path, stars, CENTRED) + np.array([centres[name] for name in tomograms]).reshape(-1, 3)
    return _decode(path, stars, xyz, context)


def _read4(path: Path, context: Context) -> pd.DataFrame:
    stars, blocks = star.read_loop(path, [*PIXELS, TOMOGRAM], TEXT)
    stars, context = _prepare(path, stars, blocks, context)
    for name in dict.fromkeys(stars[TOMOGRAM]):
        context.unbinned(name)  # never the voxel size in its place
    context = replace(context, in_pixels=True)
    xyz = context.to_angstrom(star.numbers(path, stars, PIXELS), list(stars[TOMOGRAM]))
    return _decode(path, stars, xyz, context)


def _open3(path: Path, context: Context) -> tuple[pd.DataFrame, Context]:
    stars, blocks = star.read_loop(path, PIXELS, TEXT)
    if _MICROGRAPH in stars:
        named = [names.stem(name) for name in stars[_MICROGRAPH]]
        if all(f"{name}.tomostar" == given for name, given in zip(named, stars[_MICROGRAPH], strict=True)):
            stars = stars.drop(columns=_MICROGRAPH)
        stars = stars.assign(**{TOMOGRAM: named})
    return _prepare(path, stars, blocks, context, _pixel_of_relion3)


def _learn3(path: Path, context: Context) -> Context:
    return _open3(path, context)[1]


def _read3(path: Path, context: Context) -> pd.DataFrame:
    stars, context = _open3(path, context)
    xyz = context.to_angstrom(star.numbers(path, stars, PIXELS), list(stars[TOMOGRAM]))
    return _decode(path, stars, xyz, context)


def _learn5(path: Path, context: Context) -> Context:
    stars, blocks = star.read_loop(path, CENTRED, TEXT)
    return _prepare(path, stars, blocks, context)[1]


def _learn4(path: Path, context: Context) -> Context:
    stars, blocks = star.read_loop(path, [*PIXELS, TOMOGRAM], TEXT)
    return _prepare(path, stars, blocks, context)[1]


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
    for name in dict.fromkeys(table["tomogram"]):
        context.unbinned(name)
    context = replace(context, in_pixels=True)
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
    return {path: _encode(table, xyz, comment, _MICROGRAPH, context)}


def _encode(
    table: pd.DataFrame, xyz: Mapping[str, Any], comment: str, tomogram: str, context: Context
) -> bytes:
    tomograms = table["tomogram"]
    # Numbers come first in each line: a line that begins with data_ or _ would end the block.
    columns: dict[str, Any] = dict(xyz) | as_columns(_EULERS, eulers(table, "relion"))
    columns |= dict.fromkeys(_ORIGIN, 0.0)
    if table["score"].notna().any():
        columns[_SCORE] = table["score"]
    columns |= {theirs: table[ours] for ours, theirs in _SAME.items() if ours in table}
    if tomogram == _MICROGRAPH:
        named = list(table[_MICROGRAPH]) if _MICROGRAPH in table else []
        kept = [names.stem(str(name)) for name in named] == list(tomograms)
        columns[_MICROGRAPH] = named if kept else [f"{name}.tomostar" for name in tomograms]
    else:
        columns[TOMOGRAM] = tomograms
        columns[_PARTICLE_NAME] = _particle_names(tomograms)
    for name in table.columns:
        # A name that RELION gave is kept; one that was ours is made anew.
        if name not in COLUMNS and name not in OPTIONAL and (name not in columns or name == _PARTICLE_NAME):
            columns[name] = table[name]
    particles, optics = _split_optics(pd.DataFrame(columns, index=table.index), tomograms, context)
    blocks = {} if optics is None else {"optics": optics}
    blocks |= {"particles": particles, _TOMOGRAMS: _describe(list(dict.fromkeys(tomograms)), context)}
    if context.classes:
        blocks[_CLASSES] = pd.DataFrame(
            {
                "tlLabel": [info.label for info in context.classes],
                "tlRadius": [info.radius for info in context.classes],
                "tlClassName": [info.name for info in context.classes],
            }
        )
    return star.to_text(blocks, comment).encode()


def _decode(path: Path, stars: pd.DataFrame, xyz: NDArray[np.float64], context: Context) -> pd.DataFrame:
    """Make the table of particles whose positions, without their shifts, are known in Å."""
    subtomogram, particle = _rotation(path, stars, _SUBTOMOGRAM), _rotation(path, stars, _EULERS)
    shifts = np.zeros((len(stars), 3))
    if set(_ORIGIN) <= set(stars):
        shifts = star.numbers(path, stars, _ORIGIN)
    elif set(_ORIGIN_PIXELS) <= set(stars):  # RELION 3.0 counts them in pixels
        steps = np.array([context.pixel(name) for name in stars[TOMOGRAM]]).reshape(-1, 1)
        shifts = star.numbers(path, stars, _ORIGIN_PIXELS) * steps
    if len(stars):
        xyz = xyz - subtomogram.apply(shifts)
    columns: dict[str, Any] = as_columns(["x", "y", "z"], xyz) | quaternions(subtomogram * particle)
    columns["tomogram"] = stars[TOMOGRAM]
    if _SCORE in stars:
        columns["score"] = stars[_SCORE]
    columns |= {ours: stars[theirs] for ours, theirs in _SAME.items() if theirs in stars}
    try:
        if "class_name" not in columns and "label" in columns:
            columns |= names.classes_of_labels([int(label) for label in columns["label"]], context)
        used = {*CENTRED, *PIXELS, *_EULERS, *_SUBTOMOGRAM, *_ORIGIN, *_ORIGIN_PIXELS, _SCORE, TOMOGRAM}
        used |= set(_SAME.values())
        if _PARTICLE_NAME in stars and list(stars[_PARTICLE_NAME]) == _particle_names(stars[TOMOGRAM]):
            used.add(_PARTICLE_NAME)
        columns |= {str(name): stars[name] for name in stars if name not in used}
        return make(**columns)
    except (InputError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def _prepare(
    path: Path,
    stars: pd.DataFrame,
    blocks: Mapping[str, Any],
    context: Context,
    pixel_of: Callable[[Path, pd.DataFrame], NDArray[np.float64] | None] | None = None,
) -> tuple[pd.DataFrame, Context]:
    """Name the tomogram of every particle, join the optics, and learn what the file says about sizes."""
    if TOMOGRAM not in stars:
        stars = stars.assign(**{TOMOGRAM: [context.tomogram or ""] * len(stars)})
    optics = blocks.get("optics")
    if isinstance(optics, pd.DataFrame) and _GROUP in optics and _GROUP in stars:
        joined = [name for name in optics if name == _GROUP or name not in stars]
        stars = stars.merge(optics[joined], on=_GROUP, how="left")
    given, context = context, _with_stated_sizes(blocks.get(_TOMOGRAMS), context)
    if pixel_of is not None:
        # RELION 3's coordinates are in pixels of which its file may say the size.
        stated = given.pixel_size is None and context.pixel_size is not None
        values = None if stated or given.in_pixels or given.voxel_size is not None else pixel_of(path, stars)
        context = replace(context, in_pixels=stated or given.in_pixels or values is not None)
    else:
        values = _pixel_of_tilt_series(path, stars) if context.pixel_size is None else None
    if values is not None:
        sizes = {name: float(value) for name, value in zip(stars[TOMOGRAM], values, strict=True)}
        context = replace(context, pixel_size=sizes)
    return stars, context


def _pixel_of_tilt_series(path: Path, stars: pd.DataFrame) -> NDArray[np.float64] | None:
    return star.sizes(path, stars, TILT_SERIES_PIXEL) if TILT_SERIES_PIXEL in stars else None


def _pixel_of_relion3(path: Path, stars: pd.DataFrame) -> NDArray[np.float64] | None:
    """Pixel size of the volume that the coordinates count in, in the two ways that RELION 3 says it."""
    old = ["rlnDetectorPixelSize", "rlnMagnification"]
    if set(old) <= set(stars):
        sizes = star.numbers(path, stars, old)
        return np.asarray(sizes[:, 0] * 1e4 / sizes[:, 1], np.float64)
    return star.sizes(path, stars, "rlnPixelSize") if "rlnPixelSize" in stars else None


def _with_stated_sizes(block: Any, context: Context) -> Context:
    """Take the sizes that this program wrote into the file, where the user gave no others."""
    if not isinstance(block, pd.DataFrame) or TOMOGRAM not in block:
        return context
    rows = block.to_dict("records")

    def stated(name: str, value: Any) -> dict[str, Any] | None:
        return {str(row[TOMOGRAM]): value(row) for row in rows if name in row and pd.notna(row[name])} or None

    if context.voxel_size is None:
        context = replace(context, voxel_size=stated("tlVoxelSize", lambda row: float(row["tlVoxelSize"])))
    if context.pixel_size is None and "tlPixelSize" in block:
        context = replace(context, pixel_size=stated("tlPixelSize", lambda row: float(row["tlPixelSize"])))
    if context.shape is None:
        context = replace(
            context, shape=stated("tlSizeX", lambda row: tuple(int(row[size]) for size in reversed(_SIZES)))
        )
    if context.unbinned_shape is None and "tlUnbinnedX" in block:
        unbinned = [size.replace("Size", "Unbinned") for size in reversed(_SIZES)]
        context = replace(
            context,
            unbinned_shape=stated("tlUnbinnedX", lambda row: tuple(int(row[size]) for size in unbinned)),
        )
    if "tlBinningKind" in block and len(rows):
        context = replace(context, binning_kind=rows[0]["tlBinningKind"])
    return context


def _describe(tomograms: Sequence[str], context: Context) -> pd.DataFrame:
    """Describe every tomogram, so that the file can be read without being told again."""
    described: dict[str, Any] = {}

    def add(columns: Sequence[str], known: Any, value: Any) -> None:
        if known is not None and all(not isinstance(known, Mapping) or name in known for name in tomograms):
            rows = np.array([value(name) for name in tomograms]).reshape(-1, len(columns))
            described.update(as_columns(columns, rows))

    add(["tlVoxelSize"], context.voxel_size, context.voxel)
    add(["tlPixelSize"], context.pixel_size, context.unbinned)
    add(_SIZES, context.shape, lambda name: context.size(name).astype(np.int64))
    unbinned = context.unbinned_shape
    add(
        [size.replace("Size", "Unbinned") for size in _SIZES],
        unbinned,
        lambda name: np.array(unbinned[name] if isinstance(unbinned, Mapping) else unbinned)[::-1],
    )
    if context.binning_kind != "fourier":
        described["tlBinningKind"] = [context.binning_kind] * len(tomograms)
    described[TOMOGRAM] = list(tomograms)
    return pd.DataFrame(described)


def _split_optics(
    particles: pd.DataFrame, tomograms: pd.Series[Any], context: Context
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Make RELION's optics table, one group for each pixel size unless the particles have groups already."""
    riding = [name for name in _OPTICS if name in particles]
    if not riding and not context.optics:
        return particles, None
    known = particles[riding].copy()
    for name, value in context.optics.items():
        if name not in known:
            known[name] = value
    if TILT_SERIES_PIXEL not in known and context.pixel_size is not None:
        known[TILT_SERIES_PIXEL] = [context.unbinned(name) for name in tomograms]
    if _GROUP in particles:
        known.insert(0, _GROUP, particles[_GROUP])
    groups = known.drop_duplicates().reset_index(drop=True)
    if _GROUP not in groups:
        groups.insert(0, _GROUP, range(1, len(groups) + 1))
        particles = particles.assign(
            **{_GROUP: known.merge(groups, on=list(known.columns), how="left")[_GROUP].to_numpy()}
        )
    if "rlnOpticsGroupName" not in groups:
        groups["rlnOpticsGroupName"] = [f"opticsGroup{k}" for k in groups[_GROUP]]
    if groups[_GROUP].duplicated().any():
        return particles, None  # values differ within a group: they stay with the particles
    return particles.drop(columns=riding), groups


def _particle_names(tomograms: Sequence[str] | pd.Series[Any]) -> list[str]:
    named = pd.Series(list(tomograms), dtype=object)
    return [f"{name}/{k}" for name, k in zip(named, named.groupby(named).cumcount() + 1, strict=True)]


def _stated_rule(text: str) -> CentreRule | None:
    for line in text.splitlines()[:20]:
        if line.startswith("#") and "centre of the tomogram:" in line:
            return "picker" if _CENTRE_WORDS["picker"] in line else "extract"
    return None


def _rotation(path: Path, stars: pd.DataFrame, columns: Sequence[str]) -> Any:
    """Rotation particle -> tomogram of every row; none where the file has no such angles."""
    present = set(columns) <= set(stars.columns)
    angles = star.numbers(path, stars, columns) if present else np.zeros((len(stars), 3))
    return from_eulers(angles, "relion")


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
