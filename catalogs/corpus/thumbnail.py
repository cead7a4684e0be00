"""Thumbnail of a sample: the middle of its tomogram as PNG."""

from __future__ import annotations

import io
from typing import Any, Protocol

import numpy as np

#: Key of the object in a sample's group: beside the chunks of the tomogram, where Zarr readers do not look.
#: Directly in a group, readers that list its members would warn about an unknown file.
THUMBNAIL = "0/thumbnail.png"
#: Largest length of its longer edge in pixels.
EDGE = 128
_PLANES = 5  # planes that are averaged; one alone is mostly noise


class _Volume(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, where: Any, /) -> Any: ...


def draw(tomogram: _Volume) -> bytes:
    """Draw the mean of the planes in the middle of a tomogram, seen along the beam.

    Parameters
    ----------
    tomogram
        (z, y, x) float32, in memory or stored; only the planes in the middle are read.

    Returns
    -------
    bytes
        A PNG of grey values, y downwards and x to the right. The same tomogram gives the same bytes with
        the same version of Pillow.
    """
    from PIL import Image

    middle = tomogram.shape[0] // 2
    planes = np.asarray(tomogram[max(0, middle - _PLANES // 2) : middle + _PLANES // 2 + 1])
    mean = planes.mean(axis=0, dtype=np.float64)
    low, high = np.percentile(mean, (0.5, 99.5))
    shades = np.clip((mean - low) / ((high - low) or 1.0), 0, 1) * 255
    image = Image.fromarray(np.rint(shades).astype(np.uint8))
    image.thumbnail((EDGE, EDGE), Image.Resampling.BOX)
    raw = io.BytesIO()
    image.save(raw, "PNG")
    return raw.getvalue()
