"""Preprocessing: a tomogram is read slab by slab, cropped, binned, resampled and normalised for the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogs.amounts import data_size
from catalogs.beads import Beads, find_beads
from catalogs.errors import InputError
from catalogs.former_names import accepts_former
from catalogs.intensity import CLIP, NORMALISATION, measure, scale_of
from catalogs.model_file import ModelCard
from catalogs.slab import Slab, find_slab
from catalogs.threads import allowed_threads, pool
from catalogs.usual_values import doubt, refuse_unusual
from catalogs.volumes import Volume
from catalogs.volumes.once import open_once
from tlpick.network.tomograms.contrast import apparent_contrast
from tlpick.network.tomograms.inputs import Tomogram
from tlpick.network.tomograms.masks import Region, check_mask, mask_path
from tlpick.network.tomograms.scratch import Scratch

Triple = tuple[int, int, int]

#: Relative difference of voxel sizes that does not affect the network.
VOXEL_SIZE_TOLERANCE = 0.02
#: Size in bytes of a slab that is read at a time.
_LARGE_CHUNK = 1 << 30  # bytes; smaller ones are never refused
_SLAB = 2**26
#: Margin beyond the ice that is segmented, Å, for particles at the faces and errors of the faces.
_REACH = 100.0
#: Number of voxels of a masked volume that is enough to measure grey values.
_ENOUGH = 20_000_000


@accepts_former(unusual="yes")
@dataclass(frozen=True)
class Preprocessing:
    """How tomograms are preprocessed for the model.

    Attributes
    ----------
    voxel_size
        Voxel size in Å, instead of that in the headers; None: use the headers.
    rescale
        Resample tomograms whose voxel size is not the model's; otherwise they are refused.
    invert
        Invert the contrast.
    trust_contrast
        Do not check the contrast against the model's.
    bin
        First average boxes of this many voxels along each axis.
    crop
        Use only these planes (first, one after the last) along z.
    mask
        Path or URL of a mask; ``{name}`` in it stands for the tomogram's name.
    yes
        Accept unusual values, such as resampling by a factor of 10; otherwise they are refused.
    slab
        Find the ice and pick only there; a mask has priority.
    beads
        Find what is denser than protein and leave it out of measurements and picks.
    """

    voxel_size: float | None = None
    rescale: bool = False
    invert: bool = False
    trust_contrast: bool = False
    bin: int = 1
    crop: tuple[int, int] | None = None
    mask: str | None = None
    yes: bool = False
    slab: bool = True
    beads: bool = True


@dataclass(frozen=True, eq=False)
class Prepared:
    """A tomogram that is ready for the network.

    Attributes
    ----------
    values
        (z, y, x) normalised grey values.
    mask
        (z, y, x) region to segment; None: everything.
    region
        The same region for positions.
    slab
        The ice; None if no face was found.
    beads
        Bodies denser than protein.
    sample
        (z, y, x) region of the measurement: in mask and ice, without beads; None: everything.
    grid
        Voxel size of ``values``, Å.
    offset
        Position (x, y, z) of the centre of their voxel 0 relative to that of the tomogram's voxel 0, Å.
    shape, voxel_size
        Shape (voxels, z, y, x) and voxel size (Å) of the tomogram in its file.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    region: Region | None
    slab: Slab | None
    beads: Beads
    sample: NDArray[np.bool_] | None
    grid: float
    offset: tuple[float, float, float]
    shape: Triple
    voxel_size: float

    def holds(self, xyz: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which of (n, 3) positions x, y, z in Å, in the tomogram's frame, are in mask and ice."""
        inside = np.ones(len(xyz), bool) if self.slab is None else self.slab.holds(xyz)
        return inside if self.region is None else inside & self.region.holds(xyz)


def prepare(
    tomogram: Tomogram,
    card: ModelCard,
    preprocessing: Preprocessing,
    scratch: Scratch,
    memory: float,
    volume: Volume | None = None,
) -> Prepared:
    """Read a tomogram and convert it to the model's voxel size, contrast and normalisation.

    Parameters
    ----------
    tomogram
        The tomogram to read.
    card
        Card of the model.
    preprocessing
        Requested preprocessing.
    scratch
        Storage of the voxels.
    memory
        Bytes that may be used meanwhile.
    volume
        The tomogram, if it is open already.

    Returns
    -------
    Prepared

    Raises
    ------
    InputError
        If the tomogram cannot be read, or does not fit the model.
    """
    path = tomogram.path
    volume, size, (z0, z1), rescale, contrast = _checked_header(tomogram, card, preprocessing, volume)
    grid, shift = size * preprocessing.bin, size * (preprocessing.bin - 1) / 2
    chunk = math.prod(getattr(volume.data, "chunks", None) or ()) * volume.dtype.itemsize
    if chunk > max(memory, _LARGE_CHUNK):
        raise InputError(
            f"{path} has chunks that unpack to {data_size(chunk)} each, and `max_memory` leaves "
            f"{data_size(max(memory, 0))}; give more, or write it with smaller chunks"
        )
    region = None
    if preprocessing.mask is not None:
        region = Region(mask_path(preprocessing.mask, tomogram.name or volume.name), volume.shape, size)

    try:
        values = _read(volume, z0, z1, preprocessing, scratch)
        offset = (shift, shift, z0 * size + shift)
        if rescale:
            if 24 * values.size > memory:
                raise InputError(f"resampling needs {data_size(24 * values.size)}; give more `max_memory`")
            values, grid = resample(values, grid, card.voxel_size), card.voxel_size
        mask = sample = slab = None
        places = [
            offset[2 - axis] + np.arange(n, dtype=np.float64) * grid for axis, n in enumerate(values.shape)
        ]
        if region is not None:
            mask = sample = region.at(places)
            if not mask.any():
                raise InputError("the mask is empty in the planes of `crop`")
        else:
            measure(values)  # refuses volumes that cannot be normalised, before searching in them
            slab = find_slab(values, grid, offset) if preprocessing.slab else None
        if slab is not None:
            mask, sample = (scratch.array(values.shape, np.bool_) for _ in range(2))
            slab.at(places, out=sample)
            slab.at(places, margin=_REACH, out=mask)
        beads = (
            find_beads(values, grid, sample, offset) if preprocessing.beads else Beads(np.empty((0, 3)), grid)
        )
        if len(beads.places):
            kept = scratch.array(values.shape, np.bool_)
            kept[...] = True if sample is None else sample
            beads.take_out(kept, places)
            sample = kept if kept.any() else sample
        _normalise(values, sample, scratch, holes=region is not None)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if contrast is None and not preprocessing.trust_contrast:
        _check_contrast(values, card, grid, path, preprocessing)
    scratch.release()
    return Prepared(values, mask, region, slab, beads, sample, grid, offset, volume.shape, size)


def check(
    tomogram: Tomogram, card: ModelCard, preprocessing: Preprocessing, volume: Volume | None = None
) -> None:
    """Check the headers of a tomogram and its mask, before a network is loaded and hours are spent.

    Raises
    ------
    InputError
        As :func:`prepare`.
    """
    volume, size, _, _, _ = _checked_header(tomogram, card, preprocessing, volume)
    if preprocessing.mask is not None:
        check_mask(mask_path(preprocessing.mask, tomogram.name or volume.name), volume.shape, size)
    if min(n // preprocessing.bin for n in volume.shape) < 1:
        raise InputError(f"{tomogram.path}: nothing is left of it by `bin={preprocessing.bin}`")


def _checked_header(
    tomogram: Tomogram, card: ModelCard, preprocessing: Preprocessing, volume: Volume | None
) -> tuple[Volume, float, tuple[int, int], bool, str | None]:
    """Open a volume, and compare its header with the model's: volume, size, planes, rescaling, contrast."""
    path = tomogram.path
    volume = volume or open_once(path, voxel_size=preprocessing.voxel_size)
    if card.normalisation != NORMALISATION:
        raise InputError(
            f"the model {card.name!r} needs grey values normalised by {card.normalisation!r}, "
            f"this program does {NORMALISATION!r}; use the version that trained it"
        )
    size = preprocessing.voxel_size or tomogram.voxel_size or volume.voxel_size
    if size is None:
        raise InputError(f"{path} does not state its voxel size; give it with `voxel_size`, in Å")
    planes = _crop(preprocessing.crop, volume.shape, path)
    rescale = _rescaling(path, size * preprocessing.bin, card, preprocessing)
    return volume, float(size), planes, rescale, _stated_contrast(volume, card, preprocessing, path)


def resample(values: NDArray[np.float32], voxel_size: float, wanted: float) -> NDArray[np.float32]:
    """Resample a volume to another voxel size; the centre of voxel 0, and so positions in Å, stay the same.

    It uses cubic splines. Before downsampling, a Gaussian removes finer details, so that a blur of half a
    voxel before becomes half a voxel after.

    Parameters
    ----------
    values
        (z, y, x).
    voxel_size, wanted
        Å.

    Returns
    -------
    ndarray of float32
        (z, y, x), all voxels whose centres are inside.
    """
    from scipy.ndimage import affine_transform, gaussian_filter

    factor = wanted / voxel_size
    shape = tuple(math.floor((n - 1) / factor + 1e-6) + 1 for n in values.shape)
    if factor > 1:
        values = gaussian_filter(values, 0.5 * math.sqrt(factor**2 - 1))
    out: NDArray[np.float32] = affine_transform(
        values, np.full(3, factor), output_shape=shape, output=np.float32, order=3, mode="mirror"
    )
    return out


def _crop(crop: tuple[int, int] | None, shape: Triple, path: str) -> tuple[int, int]:
    if crop is None:
        return 0, shape[0]
    first, last = max(crop[0], 0), min(crop[1], shape[0])
    if first >= last:
        raise InputError(f"`crop={crop[0]}:{crop[1]}` leaves nothing of {path}, which has {shape[0]} planes")
    return first, last


def _rescaling(path: str, grid: float, card: ModelCard, preprocessing: Preprocessing) -> bool:
    """Return whether the tomogram must be resampled to the model's voxel size."""
    if abs(grid / card.voxel_size - 1) <= VOXEL_SIZE_TOLERANCE:
        return False
    if not preprocessing.rescale:
        after = f" after binning by {preprocessing.bin}" if preprocessing.bin > 1 else ""
        whole = round(card.voxel_size / grid) * preprocessing.bin
        near = abs(grid / preprocessing.bin * whole / card.voxel_size - 1) <= VOXEL_SIZE_TOLERANCE
        bins = f" or `bin={whole}`" if near and whole > 1 else ""
        raise InputError(
            f"{path} has voxels of {grid:.5g} Å{after}, the model {card.name!r} was trained at "
            f"{card.voxel_size:.5g} Å; add `rescale`{bins} to resample the tomogram"
        )
    words = doubt(
        "rescaling",
        card.voxel_size / grid,
        called=f"resampling {path} from {grid:.5g} to {card.voxel_size:.5g} Å a voxel, the factor",
    )
    refuse_unusual([words], preprocessing.yes)
    return True


def _stated_contrast(volume: Volume, card: ModelCard, preprocessing: Preprocessing, path: str) -> str | None:
    """Compare the contrast stated in a file with the model's; None if there is none."""
    stated = getattr(volume, "contrast", None)
    if stated is None or preprocessing.trust_contrast:
        return stated
    shown = {"dark": "bright", "bright": "dark"}[stated] if preprocessing.invert else stated
    if shown != card.contrast:
        fix = "leave out `invert`" if preprocessing.invert else "add `invert`"
        raise InputError(
            f"{path} states that protein is {stated}, the model {card.name!r} expects it "
            f"{card.contrast}; {fix}"
        )
    return str(stated)


def _check_contrast(
    values: NDArray[np.float32], card: ModelCard, grid: float, path: str, preprocessing: Preprocessing
) -> None:
    smallest = min(info.radius for info in card.classes)
    shown, skewness = apparent_contrast(values, max(2, round(smallest / grid / 2)))
    if shown is not None and shown != card.contrast:
        turned = " with `invert`" if preprocessing.invert else ""
        fix = "leave out `invert`" if preprocessing.invert else "add `invert`"
        raise InputError(
            f"{path}: protein seems to be {shown}{turned} (skewness {skewness:+.2f}), the model "
            f"{card.name!r} expects it {card.contrast}; {fix}, or `trust_contrast` if that is wrong"
        )


def _read(
    volume: Volume, z0: int, z1: int, preprocessing: Preprocessing, scratch: Scratch
) -> NDArray[np.float32]:
    """Read the selected planes, binned and inverted as requested."""
    b = preprocessing.bin
    z, y, x = (n // b for n in (z1 - z0, *volume.shape[1:]))
    if min(z, y, x) < 1:
        raise InputError(f"nothing is left of it by `bin={b}`")
    values: NDArray[np.float32] = scratch.array((z, y, x), np.float32)
    planes = max(1, _SLAB // (4 * b * math.prod(volume.shape[1:])))
    for k in range(0, z, planes):
        end = min(k + planes, z)
        slab = volume.read((slice(z0 + k * b, z0 + end * b), slice(0, y * b), slice(0, x * b)))
        if b > 1:
            slab = slab.reshape(end - k, b, y, b, x, b).mean(axis=(1, 3, 5), dtype=np.float32)
        values[k:end] = -slab if preprocessing.invert else slab
        scratch.release()
    return values


def _normalise(
    values: NDArray[np.float32], mask: NDArray[np.bool_] | None, scratch: Scratch, holes: bool
) -> None:
    """Normalise in place; only voxels in the mask are measured, and those outside may be invalid."""
    if mask is None:
        intensity = measure(values)
    else:
        step = max(1, int(mask.sum()) // _ENOUGH)
        inside = [plane[lit][::step] for plane, lit in zip(values, mask, strict=True)]
        intensity = measure(np.concatenate(inside))
    scratch.release()
    planes = max(1, _SLAB // (4 * math.prod(values.shape[1:]) * allowed_threads()))

    def bring(part: slice) -> None:
        for k in range(part.start, part.stop, planes):
            slab = values[k : min(k + planes, part.stop)]
            if holes:  # voxels outside may be invalid, and a network would spread them inside
                slab[~np.isfinite(slab)] = intensity.centre
            slab -= np.float32(intensity.centre)
            slab *= scale_of(intensity)
            np.clip(slab, -CLIP, CLIP, out=slab)
            scratch.release()

    with pool() as threads:
        threads.begin(len(values), bring)
        threads.finish()
