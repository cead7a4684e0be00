"""IMOD's models (``.mod``) and the point files of model2point and point2model.

The centre of the first voxel is at (0.5, 0.5, 0) in a model: half a voxel in x and y, none in z. The points
are those of the view that the model was saved on: y and z are exchanged if that was flipped, and count from
its corner if that was a part of the tomogram, of which the chunk MINX says where it began. A model is of one
tomogram; an object is a class, and its points are scattered with the radius of the class. Scores are
general values of the points, in the chunks that IMOD calls general storage.

The binary reader is our own: that of imodmodel never ends on truncated files, and refuses models with unknown
meshes, although they contain points.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.particle_formats import names
from catalogs.particle_formats.base import NOTES, POSITION, Context, Format, as_columns, one_of
from catalogs.particle_formats.sniff import SniffedFile, read_numbers
from catalogs.particle_table import make

#: Index of the centre of the first voxel.
FIRST = (0.5, 0.5, 0.0)

_ID = b"IMODV1.2"
_MODEL = struct.Struct(">128s9i6f5if2i3f")
_OBJECT = struct.Struct(">64s64siIii3fi8Bii")
_CONTOUR = struct.Struct(">iIii")
_STORED = struct.Struct(">hHif")
_FRAME = struct.Struct(">18f")  # MINX: scale, origin and angles, of the whole tomogram and of what was shown
_OPEN, _SCATTERED = 1 << 3, 1 << 9
# Of a model: the origin is stated, y and z are exchanged, the model is turned by 90 degrees about x.
_ORIGIN, _FLIPPED, _TURNED = 1 << 14, 1 << 16, 1 << 17
_ANGSTROM, _NANOMETRE, _MICROMETRE = -10, -9, -6
# General storage: the type of a point's value, and flags for one point, index int, value float.
_VALUE, _ONE_POINT_FLOAT = 10, (1 << 7) | (1 << 2)
_COLOURS = (
    (0.0, 1.0, 0.0),
    (0.0, 1.0, 1.0),
    (1.0, 0.0, 1.0),
    (1.0, 1.0, 0.0),
    (1.0, 0.0, 0.0),
    (0.3, 0.3, 1.0),
)


@dataclass
class _Object:
    name: str
    flags: int = 0
    meshes: int = 0
    points: list[NDArray[np.float64]] = field(default_factory=list)
    values: dict[int, float] = field(default_factory=dict)  # number of a point in the object -> value

    @property
    def count(self) -> int:
        return sum(len(points) for points in self.points)


def _detect_mod(sniffed: SniffedFile) -> str | None:
    return (
        "it begins with IMODV1.2: an IMOD model, first voxel at (0.5, 0.5, 0)"
        if sniffed.head[:8] == _ID
        else None
    )


@dataclass(frozen=True)
class _Model:
    """Objects of a model, and the conversion of its points to voxels of the tomogram's file."""

    objects: list[_Object]
    pixel: float | None  # Å, as the header says
    shown: float | None  # Å, of the image that it was last shown on
    flipped: bool
    shift: NDArray[np.float64]  # voxels x, y, z from the corner of the view to that of the tomogram

    def index(self) -> NDArray[np.float64]:
        """(n, 3) points x, y, z in voxels of the tomogram."""
        points = [points for item in self.objects for points in item.points]
        index = np.concatenate([np.zeros((0, 3)), *points])
        return (index[:, [0, 2, 1]] if self.flipped else index) + self.shift


def _learn_mod(path: Path, context: Context) -> Context:
    if context.in_pixels or context.list_pixel is not None or context.unit is not None:
        return context
    model, name = read_model(path), context.name_of(path)
    stated = [size for size in (model.pixel, model.shown) if size is not None and size != 1]
    apart = len(stated) == 2 and abs(stated[1] - stated[0]) > 0.01 * stated[0]
    if apart and context.voxel_size is None:
        raise InputError(
            f"{path} says that a pixel is {stated[0]:g} Å, and that it was last shown on an image with "
            f"pixels of {stated[1]:g} Å; say which its points count in (`voxel_size`)"
        )
    if apart and abs(stated[1] - context.voxel(name)) <= 0.01 * stated[1]:
        return context
    return context.stating(path, {name: stated[0]}, "its header says") if stated else context


def read_model(path: Path) -> _Model:
    """Read an IMOD model.

    Raises
    ------
    InputError
        If it is not a model, is damaged, or does not state the part of the tomogram on which it was made.
    """
    content = path.read_bytes()
    if content[:8] != _ID:
        raise InputError(f"{path} is not an IMOD model: it does not begin with IMODV1.2")
    try:
        return _parse(content)
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except (struct.error, IndexError, ValueError) as error:
        raise InputError(f"{path} is cut off or damaged ({error}); save the model again") from error


def _read_mod(path: Path, context: Context) -> pd.DataFrame:
    model = read_model(path)
    objects, index = model.objects, model.index()
    tomogram = context.name_of(path)
    scores = [item.values.get(k, np.nan) for item in objects for k in range(item.count)]
    classes = [
        item.name or f"class{number}"
        for number, item in enumerate(objects, start=1)
        for _ in range(item.count)
    ]
    table = make(
        tomogram=tomogram,
        score=scores,
        **as_columns(["x", "y", "z"], context.to_angstrom(index, [tomogram] * len(index), FIRST)),
        **names.classes_of_names(classes, context),
    )
    table.attrs[NOTES] = _notes(model)
    return table


def _notes(model: _Model) -> list[str]:
    """Report changes of the points, and objects that may not be particles."""
    notes = []
    if model.flipped:
        notes.append("the model was saved on a view with y and z exchanged: they are changed back")
    if model.shift.any():
        x, y, z = model.shift
        notes.append(
            f"the model was saved on a part of the tomogram that begins at voxel {x:g}, {y:g}, {z:g}: added"
        )
    for number, item in enumerate(model.objects, start=1):
        named = f"object {number} {item.name!r}" if item.name else f"object {number}"
        lines = sum(len(points) > 1 for points in item.points)
        if item.meshes and not item.count:
            notes.append(f"{named} is a surface without points: left out")
        elif lines and not item.flags & _SCATTERED:
            kind = "open" if item.flags & _OPEN else "closed"
            notes.append(
                f"{named} is of {kind} contours, as of a membrane or filament: each of its "
                f"{item.count} points is taken for a particle"
            )
    return notes


def _parse(content: bytes) -> _Model:
    header = _MODEL.unpack_from(content, len(_ID))
    flags, size, units = header[5], header[21], header[22]
    scale = {_ANGSTROM: 1.0, _NANOMETRE: 10.0, _MICROMETRE: 1e4}.get(units)
    objects: list[_Object] = []
    shift, shown = np.zeros(3), None
    before = 0  # points of the object in the contours before this one
    for kind, body in _chunks(content, len(_ID) + _MODEL.size):
        if kind == b"OBJT":
            item = _OBJECT.unpack_from(body)
            objects.append(_Object(item[0].split(b"\x00")[0].decode(errors="replace"), item[3]))
        elif kind == b"CONT":
            before = objects[-1].count
            objects[-1].points.append(
                np.frombuffer(body, ">f4", offset=_CONTOUR.size).reshape(-1, 3).astype(np.float64)
            )
        elif kind == b"COST":
            for at in range(0, len(body), _STORED.size):
                of, stored, point, value = _STORED.unpack_from(body, at)
                if of == _VALUE and stored & 0b1111 == 0b0100:
                    objects[-1].values[before + point] = value
        elif kind == b"MESH":
            objects[-1].meshes += 1
        elif kind == b"MINX":
            frame = np.array(_FRAME.unpack_from(body)).reshape(6, 3)
            shift, shown = _shift(frame, bool(flags & _ORIGIN)), _shown(frame)
    if flags & _TURNED:
        raise InputError("was saved on a turned view; show the tomogram unturned in 3dmod and save it again")
    pixel = None if scale is None else size * scale
    return _Model(objects, pixel, shown, bool(flags & _FLIPPED), shift)


def _shown(frame: NDArray[np.float64]) -> float | None:
    """Return the pixel size in Å of the image on which a model was last shown; None if unknown."""
    scale = frame[3]
    valid = np.isfinite(scale).all() and (scale > 0).all() and np.ptp(scale) < 0.01 * scale[0]
    said = valid and (scale != 1).any()  # 1 stands for a header without a size
    return float(scale[0]) if said else None


def _shift(frame: NDArray[np.float64], origin_known: bool) -> NDArray[np.float64]:
    """Return the offset in voxels from the corner of the shown part of a tomogram to that of the whole.

    As IMOD's own description of its model files has it: (origin of the file - origin of what was shown) /
    size of a voxel, and angles do not matter, since the points are of the image as it lies in its file.
    """
    _, whole, _, scale, shown, _ = frame
    if not np.isfinite(frame).all() or not (scale > 0).all() or not (shown != whole).any():
        return np.zeros(3)
    if not origin_known:
        raise InputError(
            "was saved on a part of a tomogram, or on one whose origin is not 0, by a version of IMOD that "
            "does not say which; show the whole tomogram in 3dmod and save it again"
        )
    return np.asarray((whole - shown) / scale, np.float64)


def _chunks(content: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    while True:
        kind = content[at : at + 4]
        at += 4
        if kind == b"IEOF":
            return
        if kind == b"OBJT":
            size = _OBJECT.size
        elif kind == b"CONT":
            size = _CONTOUR.size + 12 * _CONTOUR.unpack_from(content, at)[0]
        elif kind == b"MESH":
            vertices, indices = struct.unpack_from(">2i", content, at)
            size = 16 + 12 * vertices + 4 * indices
        else:
            size = 4 + struct.unpack_from(">i", content, at)[0]
        if len(kind) < 4 or not 0 <= size <= len(content) - at:
            raise ValueError("its end is missing")
        # some chunks begin with their size
        yield kind, content[at if kind in (b"OBJT", b"CONT", b"MESH") else at + 4 : at + size]
        at += size


def _encode_mod(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    tomogram = one_of(table, "tomogram", "tomogram", path)
    pixel = context.pixel(tomogram)
    index = context.to_pixels(table, FIRST)
    size = (
        context.size(tomogram).astype(int)
        if context.shape is not None
        else np.ceil(index.max(axis=0, initial=1))
    )
    out = [_ID, b""]
    labels = sorted(set(zip(table["label"], table["class_name"], strict=True)))
    for number, (label, name) in enumerate(labels):
        rows = np.flatnonzero((table["label"] == label) & (table["class_name"] == name))
        encoded = name.encode()
        if len(encoded) > 63 or b"\x00" in encoded:
            raise InputError(f"an IMOD model cannot hold the class name {name!r}; shorten it to 63 letters")
        scores = table["score"].to_numpy(np.float64)[rows]
        stored = [(k, score) for k, score in enumerate(scores) if np.isfinite(score)]
        radius = context.radius_of(name)
        points = max(1, round((radius or 100.0) / pixel))
        red, green, blue = _COLOURS[number % len(_COLOURS)]
        out.append(b"OBJT")
        out.append(
            _OBJECT.pack(
                encoded, b"", 1, _SCATTERED, 0, 1, red, green, blue, points, 1, 3, 1, 1, 0, 0, 0, 0, 0, 0
            )
        )
        out.append(b"CONT" + _CONTOUR.pack(len(rows), 0, 0, 0) + index[rows].astype(">f4").tobytes())
        if stored:
            out.append(b"COST" + struct.pack(">i", _STORED.size * len(stored)))
            out += [_STORED.pack(_VALUE, _ONE_POINT_FLOAT, k, score) for k, score in stored]
    out.append(b"IEOF")
    # What IMOD itself sets: several clip planes, materials as bytes, angles that mean something.
    flags = (1 << 12) | (1 << 13) | (1 << 15)
    out[1] = _MODEL.pack(
        b"template-learning",
        *(int(value) for value in size),
        *(len(labels), flags, 1, 1, 0, 255),
        *(0.0, 0.0, 0.0, 1.0, 1.0, 1.0),
        *(0, 0, -1, 3, 128),
        *(pixel, _ANGSTROM, 0, 0.0, 0.0, 0.0),
    )
    return {path: b"".join(out)}


def _detect_text(sniffed: SniffedFile) -> str | None:
    rows = sniffed.numbers
    if rows is None or sniffed.suffix not in (".txt", ".pts", ".point", ".xyz", ""):
        return None
    values = np.array(rows)
    if values.shape[1] == 3:
        half = ((values[:, :2] % 1) == 0.5).all()
        return f"three columns x y z{', x and y at half voxels' if half else ''}: points of an IMOD model"
    if counts_contours(values):
        return (
            "five columns, the first two count objects and contours from 1: points of an IMOD model"
            if values.shape[1] == 5
            else "four columns contour x y z or object x y z: points of an IMOD model"
        )
    return None


def counts_contours(values: NDArray[np.float64]) -> bool:
    """Return whether lines begin with IMOD's contour and object numbers, ascending from 1."""
    if values.shape[1] not in (4, 5) or not len(values):
        return False
    if values.shape[1] == 4:
        first = values[:, 0]
        return bool((first % 1 == 0).all() and first[0] >= 1 and (np.diff(first) >= 0).all())
    item, contour = values[:, 0], values[:, 1]
    new = np.diff(item, prepend=0) != 0
    steps = np.diff(contour, prepend=0)
    up = bool((np.diff(item, prepend=0) >= 0).all())
    return up and bool((contour[new] == 1).all()) and bool(np.isin(steps[~new], (0, 1)).all())


def _read_text(path: Path, context: Context) -> pd.DataFrame:
    values = read_numbers(
        path, [3, 4, 5], "point text of IMOD (x y z, contour x y z or object contour x y z)"
    )
    tomogram = context.name_of(path)
    xyz = context.to_angstrom(values[:, -3:], [tomogram] * len(values), FIRST)
    labels = values[:, 0] if values.shape[1] == 5 else np.zeros(len(values))
    columns: dict[str, Any] = as_columns(["x", "y", "z"], xyz)
    columns |= names.classes_of_labels(names.whole(labels, "the object"), context)
    if values.shape[1] == 4:  # or the object: both look the same
        columns["imod_contour"] = names.whole(values[:, -4], "the contour")
    return make(tomogram=tomogram, **columns)


def _encode_text(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    one_of(table, "tomogram", "tomogram", path)
    # objects ascend from 1; distractors have no object
    if (table["label"] < 1).any():
        raise InputError("point text of IMOD counts classes as objects from 1; leave out the distractors")
    order = np.argsort(table["label"].to_numpy(), kind="stable")
    index = context.to_pixels(table, FIRST)[order]
    lines = [
        f"{label} 1 {x:.6f} {y:.6f} {z:.6f}\n"
        for label, (x, y, z) in zip(table["label"].to_numpy()[order], index, strict=True)
    ]
    return {path: "".join(lines).encode()}


MOD = Format(
    name="imod",
    title="IMOD model",
    suffixes=(".mod",),
    holds=POSITION | {"tomogram", "class_name", "score"},
    detect=_detect_mod,
    read=_read_mod,
    learn=_learn_mod,
    encode=_encode_mod,
    default_for=(".mod",),
    one_tomogram=True,
)
TEXT = Format(
    name="imod-text",
    title="IMOD point text (model2point, point2model)",
    suffixes=(".txt",),
    holds=POSITION | {"tomogram", "label"},
    detect=_detect_text,
    read=_read_text,
    encode=_encode_text,
    one_tomogram=True,
)
