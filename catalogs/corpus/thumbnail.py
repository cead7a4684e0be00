"""Thumbnail of a sample: the middle of its tomogram as PNG."""

from __future__ import annotations

import io
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import Intensity

#: Key of the object in a sample's group: beside the chunks of the tomogram, where Zarr readers do not look.
#: Directly in a group, readers that list its members would warn about an unknown file.
THUMBNAIL = "0/thumbnail.png"
#: Largest length of its longer edge in pixels.
EDGE = 128
_PLANES = 5  # planes that are averaged; one alone is mostly noise
_SPREADS = 3.0  # grey values are shown up to so many spreads from their centre


class _Volume(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, where: Any, /) -> Any: ...


def draw(tomogram: _Volume, intensity: Intensity) -> bytes:
    """Draw the mean of the planes in the middle of a tomogram, seen along the beam.

    Parameters
    ----------
    tomogram
        (z, y, x) float32, in memory or stored; only the planes in the middle are read.
    intensity
        Grey values of the tomogram: the centre is shown as mid-grey.

    Returns
    -------
    bytes
        A PNG of grey values, y downwards and x to the right. The same tomogram gives the same bytes with
        the same version of Pillow.
    """
    from PIL import Image

    middle = tomogram.shape[0] // 2
    planes = np.asarray(tomogram[max(0, middle - _PLANES // 2) : middle + _PLANES // 2 + 1])
    grey = grey_values(planes.mean(axis=0, dtype=np.float64), intensity, _SPREADS / np.sqrt(len(planes)))
    image = Image.fromarray(grey)
    image.thumbnail((EDGE, EDGE), Image.Resampling.BOX)
    raw = io.BytesIO()
    image.save(raw, "PNG")
    return raw.getvalue()


def grey_values(
    values: NDArray[np.floating], intensity: Intensity, spreads: float = _SPREADS
) -> NDArray[np.uint8]:
    """Map values of a tomogram to grey levels, 0 to 255, with its centre in the middle."""
    reach = spreads * intensity.spread
    shades = (values - (intensity.centre - reach)) * (255 / (2 * reach))
    return np.asarray(np.rint(np.clip(shades, 0, 255)), np.uint8)
