"""Reader of BinaryCIF, the PDB's compact mmCIF: MessagePack with encoded columns of numbers and strings.

Follows version 0.3 of the specification (Sehnal et al., PLoS Comput. Biol. 16, e1008247, 2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.storage.unpacking import read_gunzipped

_TYPES = {1: "<i1", 2: "<i2", 3: "<i4", 4: "<u1", 5: "<u2", 6: "<u4", 32: "<f4", 33: "<f8"}
#: Categories that describe atoms and assemblies.
_WANTED = ("_atom_site", "_pdbx_struct_assembly", "_pdbx_struct_assembly_gen", "_pdbx_struct_oper_list")
#: Largest number of rows in a column; no molecule has so many atoms.
_MOST_ROWS = 50_000_000


def read(path: Path) -> Any:
    """Read the categories that describe atoms and assemblies into a gemmi block.

    Raises
    ------
    InputError
        If the file is not BinaryCIF, or if an encoding is unknown or does not fit its data.
    """
    import gemmi
    import msgpack

    content = read_gunzipped(path)
    try:
        blocks = msgpack.unpackb(content, raw=False, strict_map_key=False)["dataBlocks"]
        tables = [{each["name"].lower(): each for each in block["categories"]} for block in blocks]
        wanted = next((table for table in tables if "_atom_site" in table), {})
        block = gemmi.cif.Block("x")
        for name in _WANTED:
            if name in wanted:
                columns = {each["name"]: _column(each) for each in wanted[name]["columns"]}
                block.set_mmcif_category(f"{name}.", columns)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, msgpack.UnpackException) as error:
        raise InputError(
            f"{path} is not a BinaryCIF file that can be read ({error}); fetch it again"
        ) from error
    return block


def _column(column: Mapping[str, Any]) -> list[Any]:
    """Decode a column; None stands for ``?`` and False for ``.``, as in gemmi."""
    values = decoded(column["data"]).tolist()
    words = [f"{value:.10g}" if isinstance(value, float) else str(value) for value in values]
    if not column.get("mask"):
        return words
    marks = decoded(column["mask"]).tolist()
    if len(marks) != len(words):
        raise ValueError("a mask has another length than its column")
    return [
        word if mark == 0 else False if mark == 1 else None for word, mark in zip(words, marks, strict=True)
    ]


def decoded(data: Mapping[str, Any]) -> NDArray[Any]:
    """Decode data by undoing its encodings, the last one first.

    Parameters
    ----------
    data
        ``data``: the encoded bytes. ``encoding``: the list of encodings, in the order they were applied.

    Raises
    ------
    ValueError
        An encoding is unknown, or does not fit the data.
    """
    found: Any = data["data"]
    for step in reversed(data["encoding"]):
        found = _undone(found, step)
    return np.asarray(found)


def _undone(data: Any, step: Mapping[str, Any]) -> Any:
    kind = step["kind"]
    if kind == "ByteArray":
        return np.frombuffer(data, _TYPES[step["type"]])
    if kind == "FixedPoint":
        return np.asarray(data, _TYPES[step["srcType"]]) / step["factor"]
    if kind == "IntervalQuantization":
        width = (step["max"] - step["min"]) / (step["numSteps"] - 1)
        return (step["min"] + np.asarray(data) * width).astype(_TYPES[step["srcType"]])
    if kind == "RunLength":
        values, times = np.asarray(data)[::2], np.asarray(data)[1::2]
        if (
            times.min(initial=0) < 0
            or times.sum(dtype=np.int64) != step["srcSize"]
            or step["srcSize"] > _MOST_ROWS
        ):
            raise ValueError("run lengths do not add up")
        return np.repeat(values, times).astype(_TYPES[step["srcType"]])
    if kind == "Delta":
        return np.cumsum(np.asarray(data, np.int64)).astype(_TYPES[step["srcType"]]) + step["origin"]
    if kind == "IntegerPacking":
        return _unpacked(np.asarray(data), step)
    if kind == "StringArray":
        return _strings(data, step)
    raise ValueError(f"the encoding {kind} is unknown")


def _unpacked(data: NDArray[Any], step: Mapping[str, Any]) -> NDArray[np.int32]:
    """Decode packed integers: a piece with the largest or smallest value continues in the next piece."""
    bits = 8 * step["byteCount"] - (0 if step["isUnsigned"] else 1)
    most, least = 2**bits - 1, 0 if step["isUnsigned"] else -(2**bits)
    ends = (data != most) & ((data != least) | bool(step["isUnsigned"]))
    if ends.sum() != step["srcSize"] or (len(data) and not ends[-1]):
        raise ValueError("packed integers do not add up")
    if not len(data):
        return np.zeros(0, np.int32)
    last = np.flatnonzero(ends)
    first = np.concatenate([[0], last[:-1] + 1])
    return np.add.reduceat(data.astype(np.int64), first).astype(np.int32)


def _strings(data: Any, step: Mapping[str, Any]) -> NDArray[Any]:
    offsets: Sequence[int] = decoded({"data": step["offsets"], "encoding": step["offsetEncoding"]}).tolist()
    which = decoded({"data": data, "encoding": step["dataEncoding"]})
    text = step["stringData"]
    known = np.array([text[a:b] for a, b in itertools.pairwise(offsets)] + [""], object)
    if len(which) and not -1 <= which.min() <= which.max() < len(known) - 1:
        raise ValueError("a string is missing")
    return np.asarray(known[which])  # masked entries have the index -1, which is the empty string
