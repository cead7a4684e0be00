"""Thumbnail of a sample: the middle of its tomogram as PNG."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from catalogs.errors import InputError

#: Key of the object in a sample's group: beside the chunks of the tomogram, where Zarr readers do not look.
#: Directly in a group, readers that list its members would warn about an unknown file.
THUMBNAIL = "0/thumbnail.png"
#: Largest length of its longer edge in pixels.
EDGE = 128
#: Most bytes of it; with all of its pixels different it has 17,000.
MOST_BYTES = 32 << 10
#: Pixels of the largest plane that is drawn.
LARGEST_PLANE = 1 << 26
_PLANES = 5  # planes that are averaged; one alone is mostly noise
_HEAD = struct.Struct(">8sI4sIIBBBBB")  # signature of PNG, and its first chunk
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class _Volume(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, where: Any, /) -> Any: ...


def is_one(data: bytes) -> bool:
    """Return whether bytes are a grey PNG as small as a thumbnail, whoever made them."""
    if not _HEAD.size <= len(data) <= MOST_BYTES:
        return False
    signature, length, kind, width, height, depth, colour, *_ = _HEAD.unpack_from(data)
    return (
        (signature, length, kind) == (_SIGNATURE, 13, b"IHDR")
        and 0 < width <= EDGE
        and 0 < height <= EDGE
        and (depth, colour) == (8, 0)
    )


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

    Raises
    ------
    InputError
        If its planes are too large.
    """
    from PIL import Image

    refuse_large_plane(tomogram.shape[1:])
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


def refuse_large_plane(shape: Sequence[int]) -> None:
    """Refuse a picture of more pixels than anything here has (InputError)."""
    if math.prod(shape) > LARGEST_PLANE:
        size = " x ".join(map(str, shape))
        raise InputError(f"a plane of {size} pixels is too large to draw; is the sample damaged?")
