"""Lazy arrays, which read only the requested box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Box = tuple[slice, slice, slice]


class LazyArray(ABC):
    """An array (z, y, x) with NumPy's basic indexing that does not hold voxels in memory.

    It can be sent to another process, where files and caches are opened again.

    Attributes
    ----------
    shape
        Voxels along z, y, x.
    dtype
        Type of the voxels.
    chunks
        A box that is efficient to read, (z, y, x).
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    ndim = 3

    @property
    def chunks(self) -> tuple[int, int, int]:
        """A box that is efficient to read: here, whole planes."""
        return (1, self.shape[1], self.shape[2])

    @property
    def size(self) -> int:
        """Number of voxels."""
        z, y, x = self.shape
        return z * y * x

    @abstractmethod
    def read(self, box: Box) -> NDArray[Any]:
        """Read a box; its slices have a start, a stop and no step."""

    def __getitem__(self, key: Any) -> NDArray[Any]:
        box, rest = split_index(key, self.shape)
        return self.read(box)[rest]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)


class Reordered(LazyArray):
    """A lazy array whose axes have another order in the file.

    Parameters
    ----------
    inner
        Any array that takes slices.
    axes
        Axis of ``inner`` for each of z, y and x. Other axes of ``inner`` have length 1 and are dropped.
    """

    def __init__(self, inner: Any, axes: tuple[int, int, int]) -> None:
        self._inner, self._axes = inner, axes
        self.shape = (int(inner.shape[axes[0]]), int(inner.shape[axes[1]]), int(inner.shape[axes[2]]))
        self.dtype = np.dtype(inner.dtype)

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Chunks of the inner array, in the order of these axes."""
        z, y, x = (int(self._inner.chunks[axis]) for axis in self._axes)
        return (z, y, x)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box of the inner array and reorder its axes."""
        where: list[Any] = [0] * len(self._inner.shape)
        for axis, part in zip(self._axes, box, strict=True):
            where[axis] = part
        order = np.argsort(np.argsort(self._axes))
        return np.transpose(np.asarray(self._inner[tuple(where)]), order)


def split_index(key: Any, shape: tuple[int, int, int]) -> tuple[Box, tuple[Any, ...]]:
    """Split an index into the box to read and an index into that box.

    Parameters
    ----------
    key
        Integers, slices and an ellipsis, as in NumPy.
    shape
        Shape of the array, (z, y, x).

    Returns
    -------
    tuple of slice
        The box: start and stop within the array, no step.
    tuple
        The index into that box.

    Raises
    ------
    IndexError
        If there are too many indices, one is outside, or of another kind.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    if sum(k is Ellipsis for k in keys) > 1 or len([k for k in keys if k is not Ellipsis]) > 3:
        raise IndexError("a volume has three axes: z, y and x")
    here = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    missing = 3 - len([k for k in keys if k is not Ellipsis])
    keys[here : here + 1] = [slice(None)] * missing
    box: list[slice] = []
    rest: list[Any] = []
    for k, n in zip(keys, shape, strict=True):
        if isinstance(k, slice):
            steps = range(*k.indices(n))
            low, high = (min(steps[0], steps[-1]), max(steps[0], steps[-1]) + 1) if steps else (0, 0)
            box.append(slice(low, high))
            rest.append(slice(None, None, steps.step))
        else:
            try:
                i = int(k.__index__())
            except AttributeError as error:
                raise IndexError(f"a volume is indexed by integers and slices, not by {k!r}") from error
            if not -n <= i < n:
                raise IndexError(f"{i} is outside of an axis of {n} voxels")
            box.append(slice(i % n, i % n + 1))
            rest.append(0)
    return (box[0], box[1], box[2]), tuple(rest)
