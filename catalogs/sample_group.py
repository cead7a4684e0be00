"""One sample as objects of a Zarr v3 group that is an OME-Zarr 0.5 image as well.

::

    zarr.json                     attributes ``ome`` and ``template_learning``, and the metadata of all below
    0                             tomogram (z, y, x) float32, rounded to 10 bits of mantissa
    labels/classes/0              (z, y, x) uint8, 0 is background
    labels/instances/0            (z, y, x) uint16, 0 is background
    particles/position            (particle, xyz) Å; quaternion (particle, xyzw); one array for each other
                                  column, text as codes with the words in the attribute ``categories``
    tilts/angle, dose[, images]   degrees, e/Å² before the tilt, (tilt, y, x)

Every array has named dimensions, so xarray opens each group as it is. One shard holds a volume: a corpus
of 100,000 samples must not be a billion files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import MemoryStore

from catalogs import ome
from catalogs.particles import COLUMNS, make
from catalogs.schema import ClassInfo

TOMOGRAM = "0"
LABELS = {"classes": "labels/classes/0", "instances": "labels/instances/0"}
#: Name that people use -> path of the array in the group.
ARRAYS = {"tomogram": TOMOGRAM, **LABELS}

_MANTISSA = 23  # bits of float32
_KEPT = 10  # as many as float16 has: the noise of a tomogram is far above 5e-4 of its values
_SEPARATE = ("tomogram", "x", "y", "z", "qx", "qy", "qz", "qw")


@dataclass(frozen=True, eq=False)
class Sample:
    """Everything that is stored of one simulated tomogram.

    Attributes
    ----------
    tomogram
        (z, y, x) float32.
    classes, instances
        (z, y, x) uint8 and uint16; 0 is background.
    particles
        The particle table, of this tomogram only.
    tilt_images
        (t, y, x) float32, or None to leave them out.
    tilt_angles, tilt_doses
        (t,) float32: degrees, and e/Å² accumulated before each tilt.
    facts
        The fields of :class:`~catalogs.schema.SampleRecord` that its maker knows: all but path, created,
        intensity, checksums, n_bytes and format_version.
    """

    tomogram: NDArray[np.float32]
    classes: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    particles: pd.DataFrame
    tilt_images: NDArray[np.float32] | None
    tilt_angles: NDArray[np.float32]
    tilt_doses: NDArray[np.float32]
    facts: dict[str, Any]


def encode(
    sample: Sample, *, voxel_size: float, attributes: dict[str, Any], classes: Sequence[ClassInfo]
) -> dict[str, bytes]:
    """Turn a sample into the objects of its group; the root's metadata comes last.

    Parameters
    ----------
    sample
        Its tomogram already rounded by :func:`round_mantissa`.
    voxel_size
        Å.
    attributes
        JSON-like; becomes the attribute ``template_learning``.
    classes
        Of the corpus, to name the labels.

    Returns
    -------
    dict
        Key in the group -> bytes.
    """
    written: dict[str, Any] = {}
    root = zarr.create_group(
        MemoryStore(written),
        attributes={"ome": ome.describe("tomogram", voxel_size), "template_learning": attributes},
    )
    lz4 = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    zstd = ZstdCodec(level=3)
    ome.write_volume(root, TOMOGRAM, sample.tomogram, lz4)
    root.create_group("labels", attributes={"ome": {"version": "0.5", "labels": list(LABELS)}})
    for name, volume in (("classes", sample.classes), ("instances", sample.instances)):
        label: dict[str, Any] = {"source": {"image": "../../"}}
        if name == "classes":
            label["properties"] = [{"label-value": info.label, "class": info.name} for info in classes]
        described = {**ome.describe(name, voxel_size), "image-label": label}
        root.create_group(f"labels/{name}", attributes={"ome": described})
        ome.write_volume(root, LABELS[name], volume, zstd)
    _write_particles(root.create_group("particles"), sample, zstd)
    _write_tilts(root.create_group("tilts"), sample, lz4)

    objects = {key: value.to_bytes() for key, value in written.items()}
    objects["zarr.json"] = _consolidate(objects)
    objects["zarr.json"] = objects.pop("zarr.json")  # to the end
    return objects


def round_mantissa(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round float32 to 10 bits of mantissa, to nearest and ties to even: half of the bytes once compressed.

    The error is that of float16 (5e-4 of the value), but every reader opens float32.
    """
    drop = _MANTISSA - _KEPT
    bits = np.array(array, np.float32, order="C").view(np.uint32)
    bits += ((bits >> drop) & 1) + np.uint32((1 << (drop - 1)) - 1)
    bits &= np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))
    return bits.view(np.float32)


def read_particles(group: zarr.Group) -> pd.DataFrame:
    """Read the particle table of a sample's group."""
    stored: Any = group["particles"]
    columns: dict[str, Any] = {"tomogram": str(stored.attrs["tomogram"])}
    columns |= dict(zip("xyz", stored["position"][:].T, strict=True))
    columns |= dict(zip(("qx", "qy", "qz", "qw"), stored["quaternion"][:].T, strict=True))
    for name in stored.attrs["columns"]:
        values = stored[name][:]
        words = stored[name].attrs.get("categories")
        columns[name] = values if words is None else np.array(words, dtype=object)[values]
    return make(**columns)


def _flat(
    group: zarr.Group,
    name: str,
    data: NDArray[Any],
    dims: tuple[str, ...],
    codec: BloscCodec | ZstdCodec,
    *,
    chunks: tuple[int, ...] | None = None,
    **attributes: Any,
) -> None:
    array = group.create_array(
        name,
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunks or tuple(max(1, n) for n in data.shape),
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
    columns = [name for name in table.columns if name not in _SEPARATE]
    if table["score"].isna().all():  # the truth has no score
        columns.remove("score")
    for name in columns:
        values = table[name].to_numpy()
        if COLUMNS.get(name) is str or values.dtype == object:
            codes, words = pd.factorize(values)
            _flat(
                group, name, codes.astype(np.int32), ("particle",), codec, categories=[str(w) for w in words]
            )
        else:
            _flat(group, name, values, ("particle",), codec)
    group.attrs.update({"tomogram": tomograms.pop(), "columns": columns})


def _write_tilts(group: zarr.Group, sample: Sample, codec: BloscCodec) -> None:
    angles, doses = (np.asarray(a, np.float32) for a in (sample.tilt_angles, sample.tilt_doses))
    _flat(group, "angle", angles, ("tilt",), codec, unit="degree")
    _flat(group, "dose", doses, ("tilt",), codec, unit="e/Å²", meaning="accumulated before the tilt")
    if sample.tilt_images is not None:
        images = round_mantissa(sample.tilt_images)
        dims = ("tilt", "y", "x")
        _flat(group, "images", images, dims, codec, chunks=(1, *images.shape[1:]), unit="electrons")


def _consolidate(objects: dict[str, bytes]) -> bytes:
    """Put the metadata of all nodes into the root's, so that one request opens the whole sample."""
    nodes = {
        key.removesuffix("/zarr.json"): json.loads(data)
        for key, data in objects.items()
        if key.endswith("/zarr.json")
    }
    root = json.loads(objects["zarr.json"])
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": nodes}
    return json.dumps(root, indent=1).encode()
