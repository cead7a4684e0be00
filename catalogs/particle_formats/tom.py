"""Motive lists of TOM, AV3 and Artiatomi (``.em``) and of STOPGAP (``.star``): one convention, two files.

Positions are pixels counted from 1, as MATLAB does (``first_voxel``), shifts are added; orientations are phi,
psi, theta. Writers put whole pixels into the position and the rest into the shift: that is where these
programs cut, and float32, in which an ``.em`` is stored, keeps both exactly. The score is row 1 and the class
row 20 of an ``.em`` (copick takes rows 4 and 6).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.particle_formats import names, star
from catalogs.particle_formats.base import ORIENTATION, POSITION, Context, Format, as_columns
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import make

_HEADER = 512
_ROWS = 20
_PC, _FLOAT = 6, 5
# the machine that wrote a file determines its byte order: big-endian for OS-9, SGI and Mac
_ORDERS = {0: ">", 1: "<", 3: ">", 5: ">", _PC: "<"}
_TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}
# Rows of an .em, from 1.
_SCORE, _NUMBER, _TOMOGRAM, _XYZ, _SHIFT, _ANGLES, _CLASS = (
    1,
    4,
    5,
    (8, 9, 10),
    (11, 12, 13),
    (17, 19, 18),
    20,
)
_OURS = {_SCORE, _NUMBER, _TOMOGRAM, *_XYZ, *_SHIFT, *_ANGLES, _CLASS}

_FIELDS = [
    *("motl_idx", "tomo_num", "object", "subtomo_num", "halfset", "orig_x", "orig_y", "orig_z", "score"),
    *("x_shift", "y_shift", "z_shift", "phi", "psi", "the", "class"),
]
_HOLDS = POSITION | ORIENTATION | {"tomogram", "label", "score"}


def _detect_em(sniffed: SniffedFile) -> str | None:
    found = _em_header(sniffed.head)
    if found is None or found[0][:1] + found[0][2:] != (_ROWS, 1):
        return None
    return (
        f"an EM file of {_ROWS} x {found[0][1]} numbers: a motive list of TOM or AV3, pixels counted from 1"
    )


def _em_header(head: bytes) -> tuple[tuple[int, int, int], np.dtype[Any]] | None:
    """Return the size along x, y, z and the type of the numbers of an EM file; None if it is not one."""
    if len(head) < _HEADER or head[0] not in _ORDERS or head[3] not in _TYPES:
        return None
    order = _ORDERS[head[0]]
    x, y, z = struct.unpack(f"{order}3i", head[4:16])
    return (x, y, z), np.dtype(order + _TYPES[head[3]])


def _read_em(path: Path, context: Context) -> pd.DataFrame:
    content = path.read_bytes()
    found = _em_header(content)
    if found is None or found[0][0] != _ROWS or found[0][2] != 1:
        raise InputError(
            f"{path} is not a motive list: an EM file of {_ROWS} numbers for each particle is needed"
        )
    shape, kind = found
    if len(content) - _HEADER < _ROWS * shape[1] * kind.itemsize:
        raise InputError(f"{path} is cut off: its header says {shape[1]} particles; copy it again")
    rows = np.frombuffer(content, kind, _ROWS * shape[1], _HEADER).reshape(-1, _ROWS).astype(np.float64)

    def row(*numbers: int) -> NDArray[np.float64]:
        return rows[:, [number - 1 for number in numbers]]

    numbered = names.whole(row(_TOMOGRAM)[:, 0], f"the tomogram (row {_TOMOGRAM})")
    tomograms = names.name_tomograms(numbered, context)
    labels = names.whole(row(_CLASS)[:, 0], f"the class (row {_CLASS})")
    columns = _columns(row(*_XYZ) + row(*_SHIFT), row(*_ANGLES), tomograms, labels, context)
    columns["score"] = row(_SCORE)[:, 0]
    for number in range(1, _ROWS + 1):
        if number not in _OURS and row(number).any():
            columns[f"em{number}"] = row(number)[:, 0]
    return make(**columns)


def _encode_em(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    numbered = names.number_tomograms(table["tomogram"], context)
    rows = np.zeros((len(table), _ROWS), "<f4")
    whole, rest = _whole_and_rest(table, context)
    for numbers, values in (
        ((_SCORE,), table["score"]),
        ((_NUMBER,), np.arange(1, len(table) + 1)),
        ((_TOMOGRAM,), [numbered[name] for name in table["tomogram"]]),
        (_XYZ, whole),
        (_SHIFT, rest),
        (_ANGLES, eulers(table, "tom")),
        ((_CLASS,), table["label"]),
        *(((number,), table[f"em{number}"]) for number in range(1, _ROWS + 1) if f"em{number}" in table),
    ):
        rows[:, [number - 1 for number in numbers]] = np.asarray(values, np.float64).reshape(
            len(table), len(numbers)
        )
    header = bytes([_PC, 0, 0, _FLOAT]) + struct.pack("<3i", _ROWS, len(table), 1)
    return {path: header.ljust(_HEADER, b"\x00") + rows.tobytes()}


def _detect_stopgap(sniffed: SniffedFile) -> str | None:
    block = sniffed.star_with("orig_x", "orig_y", "orig_z", "tomo_num")
    return None if block is None else f"data_{block} has orig_x and tomo_num: STOPGAP, pixels counted from 1"


def _read_stopgap(path: Path, context: Context) -> pd.DataFrame:
    needed = ["tomo_num", "orig_x", "orig_y", "orig_z", "x_shift", "y_shift", "z_shift", "phi", "the", "psi"]
    frame, _ = star.read_loop(path, needed)
    numbered = names.whole(star.numbers(path, frame, needed[:1])[:, 0], "tomo_num")
    tomograms = names.name_tomograms(numbered, context)
    labels = (
        names.whole(star.numbers(path, frame, ["class"])[:, 0], "class")
        if "class" in frame
        else [0] * len(frame)
    )
    index = star.numbers(path, frame, needed[1:4]) + star.numbers(path, frame, needed[4:7])
    columns = _columns(index, star.numbers(path, frame, needed[7:]), tomograms, labels, context)
    if "score" in frame:
        score = star.floats(frame["score"])
        columns["score"] = np.where(score == star.NO_SCORE, np.nan, score)
    # columns that only count the lines are made again
    plain = {"object": 1, "halfset": "A", "subtomo_num": np.arange(1, len(frame) + 1)}
    for name in frame:
        if name not in _FIELDS or (name in plain and not (frame[name] == plain[name]).all()):
            columns[f"stopgap_{name}"] = frame[name]
    return make(**columns)


def _encode_stopgap(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    numbered = names.number_tomograms(table["tomogram"], context)
    whole, rest = _whole_and_rest(table, context)
    angles = eulers(table, "tom")
    order = np.arange(1, len(table) + 1)
    columns: dict[str, Any] = {
        "motl_idx": order,
        "tomo_num": [numbered[name] for name in table["tomogram"]],
        "object": table.get("stopgap_object", np.ones(len(table), np.int64)),
        "subtomo_num": table.get("stopgap_subtomo_num", order),
        "halfset": table.get("stopgap_halfset", pd.Series(["A"] * len(table), dtype=object)),
        **as_columns(["orig_x", "orig_y", "orig_z"], whole.astype(np.int64)),
        "score": table["score"],
        **as_columns(["x_shift", "y_shift", "z_shift"], rest),
        **as_columns(["phi", "the", "psi"], angles),
        "class": table["label"],
    }
    frame = pd.DataFrame({name: np.asarray(columns[name]) for name in _FIELDS})
    numbers = [str(name) for name in frame if frame[name].dtype.kind == "f"]
    frame[numbers] = frame[numbers] + 0.0  # no negative zero
    frame["score"] = frame["score"].fillna(star.NO_SCORE)
    # STOPGAP's reader needs exactly these names, and an empty line before the first particle
    head = "\ndata_stopgap_motivelist\n\nloop_\n" + "".join(f"_{name}\n" for name in _FIELDS) + "\n"
    body = frame.to_csv(sep="\t", header=False, index=False, float_format="%.9g", lineterminator="\n")
    return {path: (head + body).encode()}


def _whole_and_rest(table: pd.DataFrame, context: Context) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    index = context.to_pixels(table, context.first_voxel)
    whole = np.round(index)
    return whole, index - whole


def _columns(
    index: NDArray[np.float64],
    angles: NDArray[np.float64],
    tomograms: list[str],
    labels: list[int],
    context: Context,
) -> dict[str, Any]:
    return {
        "tomogram": tomograms,
        **as_columns(["x", "y", "z"], context.to_angstrom(index, tomograms, context.first_voxel)),
        **quaternions(from_eulers(angles, "tom")),
        **names.classes_of_labels(labels, context),
    }


EM = Format(
    name="em",
    title="TOM, AV3 and Artiatomi motive list",
    suffixes=(".em",),
    holds=_HOLDS,
    detect=_detect_em,
    read=_read_em,
    encode=_encode_em,
    default_for=(".em",),
    numbers_tomograms=True,
)
STOPGAP = Format(
    name="stopgap",
    title="STOPGAP motive list",
    suffixes=(".star",),
    holds=_HOLDS,
    detect=_detect_stopgap,
    read=_read_stopgap,
    encode=_encode_stopgap,
    numbers_tomograms=True,
)
