"""Reads the content of a model file without trusting it.

A model is a zip archive. Sizes are checked before anything is unpacked, and the description and the weights
of the network before Keras loads them. In addition, Keras' safe mode is used.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from catalogs.amounts import data_size
from catalogs.errors import InputError
from catalogs.storage.hdf5_data import n_filters

#: Largest size in bytes of a card or of a network's description.
MOST_TEXT = 64 << 20
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = 100  # members of an archive; Keras writes three
_RATIO = 8  # weights have no pattern, so they hardly compress
_NODES = 5000  # groups and arrays of weights
_LEAST = 16 << 20  # bytes that may be unpacked even from a very small file
#: Modules that layers may come from; ``builtins`` are tuples and slices.
_MODULES = ("keras", "builtins")
_CODE = frozenset(
    {
        *("Lambda", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer", "StaticTFModel"),
        *("__lambda__", "function", "Wrapper", "CustomObjectScope"),
    }
)
_EDGES = ("kernel_size", "strides", "dilation_rate", "pool_size", "size", "padding", "cropping")
_LONGEST_EDGE = 1024  # voxels of a kernel, a pooling or a stride


class ModelRefused(InputError):
    """A model that is damaged or unsafe, whatever it is used for."""


def members(file: Path | bytes, where: object) -> dict[str, bytes]:
    """Unpack an archive.

    Parameters
    ----------
    file
        The archive, or its path.
    where
        Name for messages.

    Returns
    -------
    dict
        Name of each member -> its bytes.

    Raises
    ------
    ModelRefused
        If it would unpack to more than a network can hold, or is compressed in an unknown way.
    zipfile.BadZipFile
        If it is no zip.
    """
    with _opened(file, where) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def member(file: Path, name: str, where: object) -> bytes | None:
    """Read one member of an archive as :func:`members` does; None if it is missing."""
    with _opened(file, where) as archive:
        return archive.read(name) if name in archive.namelist() else None


def names(file: Path, where: object) -> list[str]:
    """List the members of an archive."""
    with _opened(file, where) as archive:
        return archive.namelist()


def _opened(file: Path | bytes, where: object) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file)
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    try:
        _check(archive, size, where)
    except BaseException:
        archive.close()
        raise
    return archive


def _check(archive: zipfile.ZipFile, size: int, where: object) -> None:
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if total > max(_LEAST, _RATIO * size) or len(entries) > _MEMBERS:
        raise ModelRefused(
            f"{where} is not a model: {data_size(size)} that unpack to {data_size(total)} in "
            f"{len(entries)} parts cannot be a network"
        )
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            how = "encrypted" if entry.flag_bits & 1 else "compressed in a way that Keras does not use"
            raise ModelRefused(f"{where} is not a model: {entry.filename!r} in it is {how}")
        text = entry.filename.endswith(".json")
        if text and entry.file_size > MOST_TEXT:
            raise ModelRefused(
                f"{where} is not a model: {entry.filename!r} in it has {data_size(entry.file_size)}"
            )


def check_network(parts: Mapping[str, bytes], where: object) -> int:
    """Refuse a network that asks for code or other files, or that does not fit its weights.

    Parameters
    ----------
    parts
        Members of a Keras archive.
    where
        Name for messages.

    Returns
    -------
    int
        Number of weights.

    Raises
    ------
    ModelRefused
        If it is unsafe or damaged; the message says why.
    """
    if _CONFIG not in parts or _WEIGHTS not in parts:
        raise ModelRefused(f"Keras cannot load the network in {where}: it lacks {_CONFIG} or {_WEIGHTS}")
    n = _n_weights(parts[_WEIGHTS], where)
    try:
        described = json.loads(parts[_CONFIG])
        for each in _described(described):
            _check_object(each, n, where)
    except ModelRefused:  # a ValueError, too
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelRefused(f"Keras cannot load the network in {where}: its description is damaged") from error
    return n


def _described(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every dictionary inside a description."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _check_object(each: dict[str, Any], n: int, where: object) -> None:
    module, name = each.get("module"), each.get("class_name")
    if isinstance(name, str):
        top = str(module or "keras").partition(".")[0]
        if top not in _MODULES or name in _CODE or (top == "builtins" and name not in ("slice", "tuple")):
            raise ModelRefused(
                f"the network in {where} asks for code that no network needs ({module or 'keras'}.{name}); "
                "nothing of it was run; use models from people you trust"
            )
    what = f"the layer {each.get('name')!r} of the network in {where}"
    for key in _EDGES:
        if any(abs(edge) > _LONGEST_EDGE for edge in _numbers(each.get(key))):
            raise ModelRefused(f"{what} has a {key} of {each[key]}; no network has such layers")
    channels = max([*_numbers(each.get("filters")), *_numbers(each.get("units"))], default=0)
    volume = math.prod(int(edge) for edge in _numbers(each.get("kernel_size")))
    if channels * max(volume, 1) > n or channels < 0 or volume < 0:
        raise ModelRefused(
            f"{what} has {channels:g} channels, a kernel of {each.get('kernel_size')}, and all its weights "
            f"are {n}: these do not fit together"
        )


def _numbers(value: Any) -> list[float]:
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _n_weights(data: bytes, where: object) -> int:
    """Count the weights in a network's HDF5 file without reading them."""
    import h5py

    n = seen = 0
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            waiting: list[Any] = [file]
            while waiting:
                group = waiting.pop()
                for name in group:
                    seen += 1  # a group may contain itself
                    if seen > _NODES:
                        raise ModelRefused(f"the weights in {where} are in more than {_NODES} parts")
                    link = group.get(name, getlink=True)
                    if not isinstance(link, h5py.HardLink):
                        raise ModelRefused(f"the weights in {where} are links to other files")
                    node = group[name]
                    if isinstance(node, h5py.Group):
                        waiting.append(node)
                    elif not isinstance(node, h5py.Dataset) or node.external or node.is_virtual:
                        raise ModelRefused(f"the weights in {where} lie in other files: {node.name}")
                    elif n_filters(node):  # Keras writes weights uncompressed
                        raise ModelRefused(f"the weights in {where} are compressed: {node.name}")
                    else:
                        n += math.prod(node.shape or ())
                        if n * 2 > len(data) * _RATIO + _LEAST:  # half precision at least
                            raise ModelRefused(
                                f"the weights in {where} should be {n} numbers, but have {len(data)} bytes"
                            )
    except ModelRefused:
        raise
    except Exception as error:  # h5py raises whatever HDF5 reports
        raise ModelRefused(f"the weights in {where} are damaged ({error})") from error
    return n
