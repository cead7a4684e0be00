"""Helpers for pictures: encoding for pages, scale bars, distinct colours."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Lengths in Å that a scale bar may have.
_BARS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)

#: Red, green, blue of classes: Okabe & Ito's palette for colour vision of all kinds, without black.
PALETTE = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0),
    (240, 228, 66),
)  # fmt: skip


def kind_of(number: int) -> str:
    """Return the CSS class for the colour of a class of particles; colours repeat."""
    return f"c{number % len(PALETTE)}"


def png(picture: NDArray[np.uint8] | Any) -> str:
    """Encode grey values (y, x), colours (y, x, 3) or a Pillow image as PNG in base64, for a data URL."""
    return _encoded(picture, "PNG", optimize=True)


def jpeg(picture: NDArray[np.uint8] | Any, quality: int = 82) -> str:
    """Encode the same as JPEG, which needs a quarter of the space for noise."""
    return _encoded(picture, "JPEG", quality=quality)


def _encoded(picture: NDArray[np.uint8] | Any, kind: str, **options: Any) -> str:
    from PIL import Image

    raw = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(raw, kind, **options)
    return base64.b64encode(raw.getvalue()).decode()


def bar_length(longest: float) -> int:
    """Choose a round length in Å for a scale bar of at most ``longest``."""
    return max((bar for bar in _BARS if bar <= longest), default=_BARS[0])
