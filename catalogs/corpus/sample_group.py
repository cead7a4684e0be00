"""A sample as objects of a Zarr v3 group, which is an OME-Zarr 0.5 image as well.

::

    zarr.json                     attributes ``ome`` and ``template_learning``, and the metadata of all below
    0                             tomogram (z, y, x) float32, rounded to 10 bits of mantissa
    labels/classes/0              (z, y, x) uint8, 0 is background
    labels/instances/0            (z, y, x) uint16, 0 is background
    [density/0]                   (z, y, x) float32, Da/Å³, rounded to 10 bits of mantissa
    particles/position            (particle, xyz) Å; quaternion (particle, xyzw); one array for each other
                                  column, text as codes with the words in the attribute ``categories``
    tilts/angle, dose[, images]   degrees, e/Å² before the tilt, (tilt, y, x)
    tilts/*_error                 errors of each tilt that the reconstruction did not know, if any
    0/thumbnail.png               the middle of the tomogram, for people; older samples have none

The attribute ``template_learning`` describes how the sample was made: acquisition with units, recipe, seeds,
software versions, checksums of the structures. It also has the checksum of every other object. All arrays
have named dimensions, so that xarray can open each group. A volume or a tilt series is one shard, because a
corpus of 100,000 samples should not have a billion files.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import MemoryStore

from catalogs.corpus import ome
from catalogs.corpus.thumbnail import THUMBNAIL
from catalogs.errors import InputError
from catalogs.particles import make
from catalogs.schema import Acquisition, ClassInfo, units
from catalogs.storage.checksums import ROOT, checksum
from catalogs.storage.store import in_parallel, zarr_store

TOMOGRAM = "0"
LABELS = {"classes": "labels/classes/0", "instances": "labels/instances/0"}
#: Name of each volume -> path of its array in the group.
ARRAYS = {"tomogram": TOMOGRAM, **LABELS}
#: The same for optional volumes.
OPTIONAL_ARRAYS = {"density": "density/0"}

_LARGEST_SHARD = 1 << 29  # bytes of a tilt series in one object
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # column names that are valid names of arrays
_MANTISSA = 23  # bits of float32
_KEPT = 10  # as in float16; the noise of a tomogram is far above 5e-4 of its values
_MOST_VALUES = 1 << 26  # of a column of a particle table
_SEPARATE = ("tomogram", "x", "y", "z", "qx", "qy", "qz", "qw")


@dataclass(frozen=True, eq=False)
class Sample:
    """A simulated tomogram with everything that is stored with it.

    Attributes
    ----------
    tomogram
        (z, y, x) float32.
    classes, instances
        (z, y, x) uint8 and uint16; 0 is background.
    particles
        The particle table of this tomogram.
    tilt_images
        (t, y, x) float32, or None to leave them out.
    tilt_angles, tilt_doses
        (t,) float32: degrees, and e/Å² accumulated before each tilt.
    facts
        The fields of :class:`~catalogs.schema.SampleRecord` that are known beforehand: all but path, created,
        intensity, checksums, n_objects, n_bytes and format_version.
    density
        (z, y, x) float32, Da/Å³: the density of the scene; None to leave it out.
    tilt_errors
        Name -> (t,) degrees or (t, 2) x, y in Å: errors of each tilt that the reconstruction did not know;
        None if there are none.
    recipe
        Recipe of the sample, JSON-like.
    seeds
        Name of each random stream -> its seed.
    """

    tomogram: NDArray[np.float32]
    classes: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    particles: pd.DataFrame
    tilt_images: NDArray[np.float32] | None
    tilt_angles: NDArray[np.float32]
    tilt_doses: NDArray[np.float32]
    facts: dict[str, Any]
    density: NDArray[np.float32] | None = None
    tilt_errors: Mapping[str, NDArray[np.float32]] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)


def encode(
    sample: Sample,
    *,
    voxel_size: float,
    attributes: dict[str, Any],
    classes: Sequence[ClassInfo],
    thumbnail: bytes,
) -> dict[str, bytes]:
    """Turn a sample into the objects of its group; the root's metadata comes last.

    Parameters
    ----------
    sample
        The sample; its tomogram is already rounded by :func:`round_mantissa`.
    voxel_size
        Å.
    attributes
        JSON-like; becomes the attribute ``template_learning``, with the recipe, seeds, units and checksums.
    classes
        Classes of the corpus, to name the labels.
    thumbnail
        PNG; stored as an object that is not part of the Zarr group.

    Returns
    -------
    dict
        Key in the group -> bytes.
    """
    written: dict[str, Any] = {}
    root = zarr.create_group(
        MemoryStore(written),
        attributes={"ome": ome.describe("tomogram", voxel_size)},
    )
    lz4 = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    zstd = ZstdCodec(level=3)
    ome.write_volume(root, TOMOGRAM, sample.tomogram, lz4)
    root.create_group("labels", attributes={"ome": {"version": "0.5", "labels": list(LABELS)}})
    for name, volume in (("classes", sample.classes), ("instances", sample.instances)):
        label: dict[str, Any] = {"source": {"image": "../../"}}
        if name == "classes":
            label["properties"] = [{"label-value": info.label, "class": info.name} for info in classes]
            label["colors"] = [
                {"label-value": info.label, "rgba": list(ome.colour(info.label))} for info in classes
            ]
        described = {**ome.describe(name, voxel_size), "image-label": label}
        root.create_group(f"labels/{name}", attributes={"ome": described})
        ome.write_volume(root, LABELS[name], volume, zstd)
    if sample.density is not None:
        root.create_group("density", attributes={"ome": ome.describe("density", voxel_size)})
        density = round_mantissa(sample.density)
        ome.write_volume(root, OPTIONAL_ARRAYS["density"], density, lz4, unit="Da/Å³")
    _write_particles(root.create_group("particles"), sample, zstd)
    _write_tilts(root.create_group("tilts"), sample, lz4)

    objects = {key: value.to_bytes() for key, value in written.items()} | {THUMBNAIL: thumbnail}
    provenance = {
        **attributes,
        "units": units(Acquisition),
        "recipe": dict(sample.recipe),
        "seeds": dict(sample.seeds),
        "checksums": {key: checksum(data) for key, data in objects.items() if key != ROOT},
    }
    objects[ROOT] = _finish_root(objects, provenance)
    objects[ROOT] = objects.pop(ROOT)  # to the end
    return objects


def round_mantissa(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round float32 to 10 bits of mantissa (to nearest, ties to even), which halves its compressed size.

    The error is that of float16 (5e-4 of the value), but every reader opens float32.
    """
    drop = _MANTISSA - _KEPT
    bits = np.array(array, np.float32, order="C").view(np.uint32)
    bits += ((bits >> drop) & 1) + np.uint32((1 << (drop - 1)) - 1)
    bits &= np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))
    return bits.view(np.float32)


def read_particles(group: zarr.Group) -> pd.DataFrame:
    """Read the particle table of a sample's group; all columns are read at once, as each is an object."""
    stored: Any = group["particles"]
    names: list[str] = stored.attrs["columns"]
    arrays = stored.attrs.get("arrays", {})

    def read(name: str) -> Any:
        array = stored[arrays.get(name, name)]
        if math.prod(array.shape) > _MOST_VALUES:
            raise InputError(
                f"the particles of a sample state {math.prod(array.shape)} values of {name}; they are damaged"
            )
        return array[:], array.attrs.get("categories")

    wanted = ["position", "quaternion", *names]
    (position, _), (quaternion, _), *rest = in_parallel(read, wanted)
    columns: dict[str, Any] = {"tomogram": str(stored.attrs["tomogram"])}
    columns |= dict(zip("xyz", position.T, strict=True))
    columns |= dict(zip(("qx", "qy", "qz", "qw"), quaternion.T, strict=True))
    for name, (values, words) in zip(names, rest, strict=True):
        # the code -1 stands for a missing word and selects the last entry
        columns[name] = values if words is None else np.array([*words, None], dtype=object)[values]
    return make(**columns)


def _flat(
    group: zarr.Group,
    name: str,
    data: NDArray[Any],
    dims: tuple[str, ...],
    codec: BloscCodec | ZstdCodec,
    **attributes: Any,
) -> None:
    """Write an array as one object."""
    _create(group, name, data, dims, codec, tuple(max(1, n) for n in data.shape), None, attributes)


def _create(
    group: zarr.Group,
    name: str,
    data: NDArray[Any],
    dims: tuple[str, ...],
    codec: BloscCodec | ZstdCodec,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    attributes: dict[str, Any],
) -> None:
    array = group.create_array(
        name,
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunks,
        shards=shards,
        compressors=codec,
        fill_value=0,
        dimension_names=dims,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )
    array[...] = data


def _write_particles(group: zarr.Group, sample: Sample, codec: ZstdCodec) -> None:
    table = sample.particles
    tomograms = set(table["tomogram"]) or {str(sample.facts["name"])}
    if len(tomograms) > 1:
        raise ValueError(f"the particles of one sample lie in {len(tomograms)} tomograms")
    position = table[["x", "y", "z"]].to_numpy(np.float64)
    quaternion = table[["qx", "qy", "qz", "qw"]].to_numpy(np.float64)
    _flat(group, "position", position, ("particle", "xyz"), codec, unit="angstrom")
    _flat(group, "quaternion", quaternion, ("particle", "xyzw"), codec, rotates="particle to tomogram")
    columns = [str(name) for name in table.columns if name not in _SEPARATE]
    if table["score"].isna().all():  # true particles have no score
        columns.remove("score")
    arrays: dict[str, str] = {}
    for k, name in enumerate(columns):
        plain = _PLAIN.fullmatch(name) and name not in ("position", "quaternion") and name != ROOT
        arrays[name] = name if plain else f"column-{k}"
        values = _storable(name, table[name])
        if values.dtype == object:
            codes, words = pd.factorize(values)
            codes = codes.astype(np.int32)
            _flat(group, arrays[name], codes, ("particle",), codec, categories=list(words))
        else:
            _flat(group, arrays[name], values, ("particle",), codec)
    renamed = {name: array for name, array in arrays.items() if name != array}
    group.attrs.update({"tomogram": tomograms.pop(), "columns": columns, "arrays": renamed})


def _storable(name: str, column: pd.Series[Any]) -> NDArray[Any]:
    """Turn a column into an array of numbers, or of text and None (ValueError if it has anything else)."""
    values = column.infer_objects().to_numpy()
    if values.dtype == object and not column.isna().any():
        values = np.array(column.tolist()) if pd.api.types.is_numeric_dtype(column) else values
    if values.dtype.kind in "biuf":
        return values
    if values.dtype.kind == "U":
        values = values.astype(object)
    words = np.array([None if pd.isna(value) else value for value in values], dtype=object)
    if values.dtype != object or not all(word is None or isinstance(word, str) for word in words):
        raise ValueError(f"the column {name!r} of a particle table holds neither numbers nor text only")
    return words


def _write_tilts(group: zarr.Group, sample: Sample, codec: BloscCodec) -> None:
    angles, doses = (np.asarray(a, np.float32) for a in (sample.tilt_angles, sample.tilt_doses))
    _flat(group, "angle", angles, ("tilt",), codec, unit="degree")
    _flat(group, "dose", doses, ("tilt",), codec, unit="e/Å²", meaning="accumulated before the tilt")
    for name, values in (sample.tilt_errors or {}).items():
        errors = np.asarray(values, np.float32)
        names, unit = (("tilt",), "degree") if errors.ndim == 1 else (("tilt", "axis"), "Å")
        _flat(group, name, errors, names, codec, unit=unit)
    if sample.tilt_images is not None:
        images = round_mantissa(sample.tilt_images)
        t, y, x = images.shape
        wide = 8 * -(-x // 8)  # Blosc does not shuffle bits unless the number of values is a multiple of 8
        shard = (
            min(t, max(1, _LARGEST_SHARD // (4 * y * wide))),
            y,
            wide,
        )  # few objects, but each tilt can be read alone
        chunk = (1, y, wide)
        _create(group, "images", images, ("tilt", "y", "x"), codec, chunk, shard, {"unit": "electrons"})


def _finish_root(objects: dict[str, bytes], provenance: dict[str, Any]) -> bytes:
    """Add the metadata of all nodes to the root, so that one request opens the whole sample."""
    nodes = {
        key.removesuffix("/zarr.json"): json.loads(data)
        for key, data in objects.items()
        if key.endswith("/zarr.json")
    }
    root = json.loads(objects[ROOT])
    root["attributes"]["template_learning"] = provenance
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": nodes}
    return json.dumps(root, ensure_ascii=False, allow_nan=False).encode()


def volumes_in(group: zarr.Group) -> dict[str, str]:
    """Return name -> path of the array for each volume of a sample."""
    optional = {name: path for name, path in OPTIONAL_ARRAYS.items() if path in group}
    return {**ARRAYS, **optional}


def open_group(url: str) -> zarr.Group:
    """Open the Zarr group of a sample for reading (InputError if it is not one)."""
    from zarr.errors import GroupNotFoundError

    try:
        return zarr.open_group(zarr_store(url), mode="r", zarr_format=3)
    except InputError:
        raise
    except (GroupNotFoundError, FileNotFoundError, ValueError) as error:
        raise InputError(f"{url} is not a sample of a corpus") from error
