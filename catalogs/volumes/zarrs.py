"""Zarr arrays and groups (version 2 and 3) and OME-Zarr images (0.4 and 0.5)."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from catalogs import user_warnings
from catalogs.amounts import data_size
from catalogs.errors import InputError
from catalogs.storage.bounded import bound
from catalogs.storage.store import zarr_store
from catalogs.volumes.lazy import Reordered
from catalogs.volumes.source import explained
from catalogs.volumes.units import angstroms_in, factor_of
from catalogs.volumes.volume import Binning, Contrast, Volume, cube

#: Attribute for facts that OME-Zarr cannot express.
OURS = "template_learning"

# Errors that Zarr raises for damaged metadata.
_DAMAGED = (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, AttributeError)
_LONGEST = 1 << 20  # voxels along an axis
_LARGEST_CHUNK = 1 << 32  # bytes
_PART, _RATIO = 1 << 26, 20  # of a zip: what a part may be, and how far it may be compressed
_MEANS = ("mean", "local_mean", "localmean", "average", "downscale_local_mean")


class ZarrArray:
    """A Zarr array that says in one sentence which chunks cannot be read.

    Parameters
    ----------
    array
        The array.
    text
        Its path or URL, for errors.
    """

    def __init__(self, array: zarr.Array[Any], text: str) -> None:
        self._array, self._text = array, text
        self.shape, self.ndim = tuple(int(n) for n in array.shape), int(array.ndim)
        self.chunks, self.dtype = tuple(int(n) for n in array.chunks), np.dtype(array.dtype)

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Read a part (InputError if a chunk is cut off or damaged)."""
        with explained(self._text):
            try:
                return np.asarray(self._array[where])
            except (InputError, OSError, MemoryError, IndexError):
                raise
            except Exception as error:  # each compression has its own
                raise InputError(
                    f"{self._text} has a chunk that is cut off or damaged ({error}); copy it again"
                ) from error

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)


def open_zarr(text: str, name: str, voxel_size: float | None = None) -> Volume | None:
    """Open a Zarr array, an OME-Zarr image or one of its levels, or the one volume of a group.

    Parameters
    ----------
    text
        Path or URL, of a folder or a zip file.
    name
        Name of the volume.
    voxel_size
        Å, instead of that in the attributes.

    Returns
    -------
    Volume or None
        None if there is no Zarr array or group.

    Raises
    ------
    InputError
        If there is one that is not a single volume.
    """
    node = _open(text)
    if node is None:
        return None
    if isinstance(node, zarr.Array):
        return _open_array(node, text, name, voxel_size)
    attributes = dict(node.attrs)
    images = _multiscales(attributes)
    if images is not None:
        return _open_image(node, attributes, images, text, name, voxel_size)
    if "bioformats2raw.layout" in attributes or "bioformats2raw.layout" in _ome(attributes):
        return open_zarr(f"{text}/0", name, voxel_size)
    found = sorted(key for key, array in node.arrays() if array.ndim == 3)
    if len(found) == 1:
        array: Any = node[found[0]]
        return _plain(array, {**attributes, **dict(array.attrs)}, text, name, voxel_size)
    holds = f"it holds several ({', '.join(found[:4])}); name one of them" if found else "it holds none"
    raise InputError(f"{text} is not an OME-Zarr image or a Zarr group with one volume: {holds}")


def _open(text: str) -> zarr.Array[Any] | zarr.Group | None:
    from zarr.errors import ArrayNotFoundError, GroupNotFoundError, NodeNotFoundError

    zipped = re.match(r"(.+?\.(?:zip|ozx))(?:/(.*))?$", text, re.IGNORECASE)
    with explained(text):
        try:
            if zipped and Path(zipped[1]).is_file():
                return _open_zip(zipped[1], zipped[2] or "")
            return zarr.open(zarr_store(text), mode="r")
        except InputError:
            raise
        except zipfile.BadZipFile as error:
            raise InputError(f"{text} is not a zip file that can be read ({error}); copy it again") from error
        except (ArrayNotFoundError, GroupNotFoundError, NodeNotFoundError, FileNotFoundError):
            return None
        except _DAMAGED as error:  # damaged or too new metadata
            raise InputError(f"{text} is not Zarr that can be read ({error}); copy it again") from error


def _open_zip(file: str, inside: str) -> zarr.Array[Any] | zarr.Group:
    """Open Zarr in a zip file, at its root or in the one folder at its root."""
    from zarr.storage import ZipStore

    bound()
    with zipfile.ZipFile(file) as names:
        for entry in names.infolist():
            packed = entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if packed or entry.flag_bits & 1 or entry.file_size > max(_PART, _RATIO * entry.compress_size):
                raise InputError(
                    f"{file} is not Zarr that can be read: {entry.filename!r} in it is encrypted, packed in "
                    "an unknown way, or would unpack to more than it can be"
                )
        tops = {name.split("/")[0] for name in names.namelist()}
    if len(tops) == 1 and not tops & {"zarr.json", ".zarray", ".zgroup"}:
        inside = "/".join([*tops, *([inside] if inside else [])])
    return zarr.open(ZipStore(file, mode="r", read_only=True), mode="r", path=inside)


def _ome(attributes: dict[str, Any]) -> dict[str, Any]:
    """Find the OME-Zarr metadata: in its own attribute in 0.5, among the others in 0.4."""
    inside = attributes.get("ome", attributes)
    return inside if isinstance(inside, dict) else {}


def _multiscales(attributes: dict[str, Any]) -> list[dict[str, Any]] | None:
    images = _ome(attributes).get("multiscales")
    return images if isinstance(images, list) else None


def _open_array(array: zarr.Array[Any], text: str, name: str, voxel_size: float | None) -> Volume:
    """Open an array; for a level of an image, the voxel size comes from the image."""
    above, _, path = text.rstrip("/").rpartition("/")
    parent = _open(above) if above and not above.endswith((":", "/")) else None
    if isinstance(parent, zarr.Group):
        attributes = dict(parent.attrs)
        images = _multiscales(attributes) or []
        levels = [level.get("path") for image in images[:1] for level in image.get("datasets", [])]
        if path in levels:
            return _open_image(parent, attributes, images, above, name, voxel_size, levels.index(path))
    return _plain(array, dict(array.attrs), text, name, voxel_size)


def _plain(
    array: zarr.Array[Any], attributes: dict[str, Any], text: str, name: str, voxel_size: float | None
) -> Volume:
    _check(array, text)
    voxel: list[float] = []
    for word in ("voxel_size", "voxel_spacing"):
        if word in attributes and not voxel and voxel_size is None:
            try:
                voxel = [factor_of(attributes) * float(value) for value in np.ravel(attributes[word])]
            except (TypeError, ValueError) as error:
                raise InputError(f"the attribute {word} of {text} must be in Å, e.g. 10.0") from error
    voxel = voxel * 3 if len(voxel) == 1 else voxel
    size = cube(text, voxel) if len(voxel) == 3 else voxel_size
    binning, contrast = _ours(attributes, label=False)
    return Volume(_in_order(array, attributes, text), size, (0.0, 0.0, 0.0), name, binning, contrast)


def _in_order(array: zarr.Array[Any], attributes: dict[str, Any], text: str) -> Any:
    """Turn an array whose axes have names (Zarr 3, or xarray's attribute) to z, y, x."""
    read = ZarrArray(array, text)
    named = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    names = [str(name).lower() for name in named] if isinstance(named, list | tuple) else []
    if sorted(names) != ["x", "y", "z"] or names == [*"zyx"]:
        return read
    user_warnings.warn(f"the axes of {text} are called {', '.join(names)}; they are turned to z, y, x")
    return Reordered(read, (names.index("z"), names.index("y"), names.index("x")))


def _check(array: Any, text: str) -> None:
    if not isinstance(array, zarr.Array) or array.ndim != 3:
        n = getattr(array, "ndim", 0)
        raise InputError(f"{text} is not one volume: its array has {n} axes, give one with z, y and x")
    if array.dtype.kind not in "iufb":
        raise InputError(f"{text} holds {array.dtype}; a volume has real numbers")
    _check_size(array, text)


def _check_size(array: zarr.Array[Any], text: str) -> None:
    """Refuse impossible sizes before memory is allocated."""
    if min(array.shape, default=1) < 1 or max(array.shape, default=1) > _LONGEST:
        raise InputError(f"{text} is not a volume: its array has the shape {array.shape}")
    chunk = math.prod(array.chunks) * array.dtype.itemsize
    if min(array.chunks, default=1) < 1 or chunk > _LARGEST_CHUNK:
        raise InputError(
            f"{text} has chunks of {array.chunks} voxels, {data_size(chunk)} each; a chunk has at most "
            f"{data_size(_LARGEST_CHUNK)}"
        )


def _open_image(
    group: zarr.Group,
    attributes: dict[str, Any],
    images: list[dict[str, Any]],
    text: str,
    name: str,
    voxel_size: float | None,
    level: int = 0,
) -> Volume:
    try:
        image = images[0]
        levels = image["datasets"]
        array: Any = group[levels[level]["path"]]
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image["axes"]]
        scale, shift = _affine(_steps(image, level), len(axes))
        finest, _ = _affine(_steps(image, 0), len(axes))
        names = [str(axis["name"]).lower() for axis in axes]
    except InputError:
        raise
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"{text} is not an OME-Zarr image: it has no proper multiscales") from error
    space = [names.index(axis) for axis in "zyx" if names.count(axis) == 1]
    if not isinstance(array, zarr.Array) or array.ndim != len(names) or len(space) != 3:
        raise InputError(f"{text} is not one volume: its axes are {', '.join(names)}, they must be z, y, x")
    if space != sorted(space):
        called = ", ".join(names[k] for k in sorted(space))
        user_warnings.warn(f"the axes of {text} are called {called}; they are turned to z, y, x")
    long = [names[k] for k in range(len(names)) if k not in space and array.shape[k] != 1]
    if long:
        raise InputError(f"{text} is not one volume: it has several along {', '.join(long)}; give one")
    if array.dtype.kind not in "iufb":
        raise InputError(f"{text} holds {array.dtype}; a volume has real numbers")
    _check_size(array, text)
    read = ZarrArray(array, text)
    units = [angstroms_in(str(axes[k].get("unit") or "angstrom")) for k in space]
    if voxel_size is None and not any(axes[k].get("unit") for k in space):
        user_warnings.warn(f"the axes of {text} state no unit; they are taken as Å")
    if None in units and voxel_size is None:
        user_warnings.warn(f"{text} has axes in {axes[space[0]].get('unit')}, so its voxel size is not known")
    unit = np.array([each or 0.0 for each in units])  # 0: pixels and unknown units have no known length
    z, y, x = (float(value) for value in shift[space] * unit)
    binning, contrast = _ours(attributes, label="image-label" in _ome(attributes))
    factor = scale[space] / finest[space]
    if level and np.ptp(factor) < 1e-3 * factor[0]:
        kind = "box" if str(image.get("type", "")).lower() in _MEANS else None
        binning = Binning(round(float(factor[0]), 6), kind)  # type: ignore[arg-type]
    return Volume(
        data=read
        if space == [0, 1, 2] == [*range(len(names))]
        else Reordered(read, (space[0], space[1], space[2])),
        voxel_size=cube(text, scale[space] * unit) if voxel_size is None else voxel_size,
        origin=(x, y, z),
        name=str(_our_words(attributes).get("sample_id", name)),
        binning=binning,
        contrast=contrast,
    )


def _steps(image: dict[str, Any], level: int) -> list[dict[str, Any]]:
    own = image["datasets"][level].get("coordinateTransformations", [])
    return [*own, *image.get("coordinateTransformations", [])]


def _affine(steps: Sequence[dict[str, Any]], n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compose OME-Zarr's scales and translations, in their order."""
    scale, shift = np.ones(n), np.zeros(n)
    for step in steps:
        if step["type"] == "scale":
            scale, shift = scale * step["scale"], shift * step["scale"]
        elif step["type"] == "translation":
            shift = shift + step["translation"]
    return scale, shift


def _our_words(attributes: dict[str, Any]) -> dict[str, Any]:
    words = attributes.get(OURS, {})
    return words if isinstance(words, dict) else {}


def _ours(attributes: dict[str, Any], *, label: bool) -> tuple[Binning | None, Contrast | None]:
    """Read binning and contrast written by this program; protein is dark in all samples of a corpus."""
    words = _our_words(attributes)
    contrast = words.get("contrast", "dark" if "sample_id" in words and not label else None)
    binning = words.get("binning")
    try:
        made = Binning(float(binning["factor"]), binning["kind"]) if binning else None
    except (KeyError, TypeError, ValueError):
        made = None
    return made, contrast if contrast in ("dark", "bright") else None
