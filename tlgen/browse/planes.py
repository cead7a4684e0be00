"""Draw planes of volumes and tilt images as PNG, fast enough for a slider and with bounded memory."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from colorsys import hls_to_rgb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.corpus.catalog import Catalog
from catalogs.corpus.ome import CHUNK
from catalogs.corpus.thumbnail import refuse_large_plane
from catalogs.errors import InputError
from catalogs.schema import Intensity
from tlgen.scene.view import class_colours

AXES = "zyx"
#: Bytes of voxels to keep in memory for further planes.
_KEPT = 512 << 20
#: Volumes of up to this many voxels are read at once; larger ones in slabs as thick as their chunks.
_WHOLE = 48 << 20
_SPREADS = 3.0  # range of the displayed grey values, in spreads on each side of their centre
_OPENED = 16  # number of samples whose arrays stay open


class Planes:
    """Planes of the samples of a corpus; the voxels that were read last stay in memory.

    Parameters
    ----------
    catalog
        The corpus.
    kept
        Bytes of voxels to keep in memory.
    """

    def __init__(self, catalog: Catalog, kept: int = _KEPT) -> None:
        self._catalog, self._limit = catalog, kept
        self._slabs: OrderedDict[tuple[str, str, str, int], NDArray[Any]] = OrderedDict()
        self._opened: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._palette = _palette(catalog)

    def png(self, sample_id: str, volume: str, axis: str, index: int) -> bytes:
        """Draw a plane.

        Parameters
        ----------
        sample_id
            Id of the sample.
        volume
            ``tomogram``, ``classes``, ``instances`` or ``density``.
        axis
            ``z``, ``y`` or ``x``: the axis perpendicular to the plane.
        index
            Index of the plane along the axis.

        Returns
        -------
        bytes
            PNG with the axes (y, x) for z, (z, x) for y and (y, z) for x. Tomograms and densities are grey.
            Class labels have the colours of their classes, and neighbouring instance numbers have different
            colours. Voxels without a label are transparent.

        Raises
        ------
        InputError
            If there is no such sample, volume or plane.
        """
        plane = self._plane(sample_id, volume, axis, index)
        if volume == "classes":
            return _coloured(plane, self._palette)
        if volume == "instances":
            return _coloured(np.where(plane > 0, (plane - 1) % 255 + 1, 0).astype(np.uint8), _INSTANCES)
        return _grey(plane)

    def tilt(self, sample_id: str, number: int) -> bytes:
        """Draw a tilt image, scaled from its 1st to its 99th percentile; InputError if there is none."""
        series = self._catalog.tilts(sample_id)
        if "images" not in series:
            raise InputError(f"the tilt images of sample {sample_id} were not kept")
        if not 0 <= number < series.sizes["tilt"]:
            raise InputError(f"sample {sample_id} has no tilt image {number}")
        refuse_large_plane([series.sizes[axis] for axis in ("y", "x")])
        image = series["images"].isel(tilt=number).values.astype(np.float64)
        low, high = np.percentile(image, (1, 99))
        return _grey(
            np.asarray(255 * np.clip((image - low) / ((high - low) or 1), 0, 1), np.float64).astype(np.uint8)
        )

    def _plane(self, sample_id: str, volume: str, axis: str, index: int) -> NDArray[Any]:
        arrays = self._arrays(sample_id)
        if volume not in arrays:
            raise InputError(f"sample {sample_id} has no volume {volume}")
        array, k = arrays[volume], AXES.index(axis)
        if not 0 <= index < array.shape[k]:
            raise InputError(f"sample {sample_id} has no plane {index} along {axis}")
        refuse_large_plane([n for each, n in zip(AXES, array.shape, strict=True) if each != axis])
        whole = int(np.prod(array.shape)) <= _WHOLE
        first = 0 if whole else index // CHUNK * CHUNK
        key = (sample_id, volume, "" if whole else axis, first)
        with self._lock:
            slab = self._slabs.get(key)
            if slab is not None:
                self._slabs.move_to_end(key)
        if slab is None:
            where = tuple(
                slice(first, first + CHUNK) if axis == each and not whole else slice(None) for each in AXES
            )
            slab = self._shown(sample_id, volume, array[where])
            self._keep(key, slab)
        plane = np.take(slab, index - first, axis=k)
        return plane.T if axis == "x" else plane

    def _shown(self, sample_id: str, volume: str, voxels: NDArray[Any]) -> NDArray[Any]:
        """Convert voxels to the values that are displayed, which need less memory."""
        if volume == "tomogram":
            record = self._catalog.record(sample_id)
            assert record is not None
            return _grey_values(voxels, record.intensity)
        if volume == "density":  # protein has 0.8 Da/Å³; shown dark, as in the tomogram
            return 255 - _grey_values(voxels, Intensity(centre=0.5, spread=0.5 / 3))
        return voxels

    def _arrays(self, sample_id: str) -> Any:
        with self._lock:
            if sample_id in self._opened:
                self._opened.move_to_end(sample_id)
                return self._opened[sample_id]
        arrays = self._catalog.arrays(sample_id)
        with self._lock:
            self._opened[sample_id] = arrays
            while len(self._opened) > _OPENED:
                self._opened.popitem(last=False)
        return arrays

    def _keep(self, key: tuple[str, str, str, int], slab: NDArray[Any]) -> None:
        with self._lock:
            self._slabs[key] = slab
            while len(self._slabs) > 1 and sum(each.nbytes for each in self._slabs.values()) > self._limit:
                self._slabs.popitem(last=False)


def _grey_values(
    values: NDArray[np.floating], intensity: Intensity, spreads: float = _SPREADS
) -> NDArray[np.uint8]:
    """Convert a tomogram's values to grey values from 0 to 255, with its centre in the middle."""
    reach = spreads * intensity.spread
    shades = (values - (intensity.centre - reach)) * (255 / (2 * reach))
    return np.asarray(np.rint(np.clip(shades, 0, 255)), np.uint8)


def _palette(catalog: Catalog) -> list[tuple[int, int, int]]:
    """List the colour of each value of a class volume."""
    colours = class_colours([info.name for info in sorted(catalog.classes, key=lambda info: info.label)])
    palette = [(0, 0, 0)] * 256
    for info in catalog.classes:
        palette[info.label] = colours[info.name]
    return palette


def _hues() -> list[tuple[int, int, int]]:
    """List 256 colours of which neighbours differ clearly."""
    hues = [hls_to_rgb(0.618034 * k % 1, 0.58, 0.75) for k in range(256)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in hues]


_INSTANCES = _hues()


def _grey(values: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    return _png(Image.fromarray(np.ascontiguousarray(values)))


def _coloured(values: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(values)).convert("L")
    image.putpalette([part for colour in palette for part in colour])
    return _png(image, transparency=0)


def _png(image: Any, **more: Any) -> bytes:
    raw = io.BytesIO()
    image.save(raw, "PNG", compress_level=1, **more)
    return raw.getvalue()
