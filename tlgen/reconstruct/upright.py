"""Rotate and shift images of a tilt series so that the tilt axis is y and goes through their middle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tlgen.tilts.alignment import Alignment


def turned(tilt_axis: float, count: int) -> Alignment:
    """Make the alignment that rotates all images by the angle of their tilt axis, anticlockwise from y."""
    angle = np.radians(tilt_axis)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return Alignment(np.tile(matrix, (count, 1, 1)), np.zeros((count, 2)))


def lies(moves: Alignment | None) -> bool:
    """Tell whether the tilt axis is nearer to the images' x, so that width and height are exchanged."""
    return moves is not None and bool(abs(np.sin(np.radians(moves.tilt_axis))) > np.sqrt(0.5))


def upright(
    image: NDArray[np.float32],
    moves: Alignment,
    k: int,
    times: int,
    shape: tuple[int, int],
    offset: tuple[float, float],
) -> NDArray[np.float32]:
    """Rotate and shift an image; pixels from outside get its mean.

    Parameters
    ----------
    image
        (y, x), binned.
    moves, k
        The alignment, and the number of the image in it.
    times
        By which the image is binned.
    shape
        (y, x) of the result.
    offset
        x, y in binned pixels from the middle of the binned image to that of the whole one.
    """
    # a pixel of the upright image, from its middle, is seen in the given one through the inverse; rows first
    inverse = np.linalg.inv(moves.matrices[k])[::-1, ::-1]
    shift = moves.shifts[k][::-1] / times
    middle = (np.array(image.shape) - 1) / 2 + offset[::-1]
    start = middle - inverse @ ((np.array(shape) - 1) / 2 + shift)
    return np.asarray(
        ndimage.affine_transform(
            image, inverse, start, shape, order=3, mode="constant", cval=float(image.mean())
        ),
        np.float32,
    )
