"""Decoys: noise with the power spectrum of a tomogram, without any particles.

All picks in a decoy are wrong, so their number shows how many picks in the tomogram are due to chance, as in
mass spectrometry (Elias & Gygi, Nat. Methods 4 (2007) 207). A decoy has random phases under the tomogram's
own power: its spectrum, contrast transfer and missing wedge. Ice and a crowded cell have different powers, so
power is measured in a few kinds of place, from the emptiest to the richest, and the decoy goes from one to
the other as the tomogram does. The slow background stays as it is: a network sees it, and no particle is so
large.

A decoy contains only noise: no other molecules, no membranes and no beads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogs.intensity import CLIP
from catalogs.seeds import generator
from catalogs.threads import allowed_threads, pool
from tlpick.network.tomograms.scratch import Scratch

Real = NDArray[np.float32]

#: Edge of the pixels of the maps of background and local variance, Å.
PIXEL = 40.0
#: What is slower than this is background, and as far reach the places that are one kind: sigmas, Å.
BACKGROUND, REACH = 300.0, 250.0
#: Percentiles of the richness that stand for the kinds of place.
KINDS = (15.0, 50.0, 85.0)
#: Regions are distinguished if the highest variance is so many times the lowest.
_APART = 1.15
#: Edge of the blocks that power is measured in, voxels; and how far noise is correlated at most.
_BLOCK, _KERNEL = 96, 32
#: Largest number of blocks for the average power.
_BLOCKS = 160
#: Planes that are drawn before their pages are released.
_DRAWN = 32
#: Edges of the columns in which noise is filtered, voxels; the widest that fits is fastest.
_COLUMNS = (256, 192, 128, 96, 64, 48, 32)
#: More voxels do not help: the statistical error of a decoy of this size is small.
_ENOUGH, _MOST = 20_000_000, 4


def how_many(voxels: int) -> int:
    """Return how many decoys are worth the time: one for a large tomogram, several for a small one."""
    return int(min(_MOST, max(1, math.ceil(_ENOUGH / max(voxels, 1)))))


@dataclass(frozen=True, eq=False)
class Model:
    """The model from which decoys of a tomogram are made.

    Attributes
    ----------
    shape
        Voxels (z, y, x).
    pixel
        Voxels along the edge of a pixel of the maps.
    background
        (z, y, x) slow part of the grey values, by pixels.
    kind
        (z, y, x) number of the kind of place, by pixels: between two kinds a fraction.
    kernels
        (kinds, k, k, k) what white noise is convolved with, its middle at index (0, 0, 0).
    """

    shape: tuple[int, int, int]
    pixel: int
    background: Real
    kind: Real
    kernels: Real

    def make(
        self,
        number: int,
        scratch: Scratch,
        seed: str = "",
        memory: float = 1e9,
        aside: Scratch | None = None,
    ) -> Real:
        """Make a decoy.

        Parameters
        ----------
        number
            Number of the decoy; each number gives other noise.
        scratch
            Storage of the voxels.
        seed
            Identifies the tomogram.
        memory
            Bytes that may be used meanwhile.
        aside
            Storage of the noise, and of the decoy until it is complete; None: ``scratch``.

        Returns
        -------
        ndarray of float32
            (z, y, x), clipped like normalised grey values.
        """
        return _make(self, number, scratch, aside or scratch, seed, memory)


def learn(values: Real, voxel_size: float, inside: NDArray[np.bool_] | None = None) -> Model:
    """Measure the model for decoys of a tomogram.

    Parameters
    ----------
    values
        (z, y, x) normalised grey values.
    voxel_size
        Å.
    inside
        (z, y, x) region to measure: the sample without beads; None: everything.

    Returns
    -------
    Model
    """
    from scipy.ndimage import gaussian_filter

    pixel = max(1, min(round(PIXEL / voxel_size), *(n // 4 for n in values.shape)))
    means, share = _pixels(values, inside, pixel)
    edge = pixel * voxel_size

    def smooth(array: Real, sigma: float) -> Real:
        weight = gaussian_filter(share, sigma / edge, mode="nearest")
        return np.asarray(
            gaussian_filter(array * share, sigma / edge, mode="nearest") / np.maximum(weight, 1e-3),
            np.float32,
        )

    background = smooth(means, BACKGROUND)
    richness = np.log(np.maximum(smooth((means - background) ** 2, REACH), 1e-12))
    levels = np.percentile(richness[share > 0.5], KINDS) if (share > 0.5).any() else np.zeros(len(KINDS))
    if levels[-1] - levels[0] < math.log(_APART) or min(values.shape) < _BLOCK // 2:
        levels = levels[len(levels) // 2 :][:1]
    kind = np.asarray(np.interp(richness, levels, np.arange(len(levels))), np.float32)
    kernels = _kernels(values, inside, background, kind, pixel, len(levels))
    return Model(_triple(values.shape), pixel, background, kind, kernels)


def _triple(shape: tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = shape
    return z, y, x


def _pixels(values: Real, inside: NDArray[np.bool_] | None, b: int) -> tuple[Real, Real]:
    """Average over the inside part of each pixel; return the means and the inside shares."""
    nz, ny, nx = (-(-n // b) for n in values.shape)
    sums, counts = np.zeros((nz, ny, nx)), np.zeros((nz, ny, nx))
    ends = [np.arange(0, n, b) for n in values.shape[1:]]
    for z, plane in enumerate(values):
        lit = np.ones(plane.shape, np.float32) if inside is None else inside[z].astype(np.float32)
        for total, part in ((sums, np.where(lit > 0, plane, 0)), (counts, lit)):
            rows = np.add.reduceat(part, ends[0], axis=0, dtype=np.float32)
            total[z // b] += np.add.reduceat(rows, ends[1], axis=1)
    most = counts.max()
    means = np.where(counts > 0, sums / np.maximum(counts, 1), 0)
    return means.astype(np.float32), (counts / most if most else counts).astype(np.float32)


def _at(coarse: Real, b: int, box: tuple[slice, slice, slice]) -> Real:
    """Interpolate a map of pixels linearly at the voxels of a box."""
    out = coarse
    for axis, part in enumerate(box):
        at = (np.arange(part.start, part.stop) + 0.5) / b - 0.5
        at = np.clip(at, 0, coarse.shape[axis] - 1)
        low = np.minimum(at.astype(np.int64), max(coarse.shape[axis] - 2, 0))
        high = np.minimum(low + 1, coarse.shape[axis] - 1)
        shape = [1, 1, 1]
        shape[axis] = -1
        share = (at - low).astype(np.float32).reshape(shape)
        out = np.take(out, low, axis) * (1 - share) + np.take(out, high, axis) * share
    return np.asarray(out, np.float32)


def _kernels(
    values: Real, inside: NDArray[np.bool_] | None, background: Real, kind: Real, b: int, n_kinds: int
) -> Real:
    """Measure the mean power of each kind of place, and turn it into a filter without phases."""
    from scipy import fft

    size = [min(_BLOCK, n) for n in values.shape]
    window = np.ones((1, 1, 1), np.float32)
    for axis, n in enumerate(size):
        shape = [1, 1, 1]
        shape[axis] = n
        window = window * np.sin(np.pi * (np.arange(n) + 0.5) / n).astype(np.float32).reshape(shape)
    power = np.zeros((n_kinds, size[0], size[1], size[2] // 2 + 1))
    weight = np.zeros(n_kinds)
    least = 0.3 * float((window**2).sum(dtype=np.float64))

    def measured(box: tuple[slice, slice, slice]) -> tuple[float, float, Real] | None:
        taper = window if inside is None else window * inside[box]
        total = float((taper**2).sum(dtype=np.float64))
        if total < least:
            return None
        block = (values[box] - _at(background, b, box)) * taper
        place = float((_at(kind, b, box) * taper**2).sum(dtype=np.float64)) / total
        return total, place, np.abs(fft.rfftn(block)) ** 2

    with pool() as threads:
        boxes, some = list(_blocks(values.shape, size)), 2 * allowed_threads()
        for first in range(0, len(boxes), some):
            # in the blocks' order, so that sums are the same however many threads there are
            for found in threads.map(measured, boxes[first : first + some]):
                if found is None:
                    continue
                total, place, here = found
                for k in range(n_kinds):
                    if (share := max(0.0, 1 - abs(place - k))) > 0:
                        power[k] += share * here
                        weight[k] += share * total
    amplitude = np.sqrt(power / np.maximum(weight, 1e-9)[:, None, None, None])
    for k in np.flatnonzero(weight == 0).tolist():  # a kind that no block is of
        amplitude[k] = amplitude[int(np.argmin(np.where(weight > 0, np.abs(np.arange(n_kinds) - k), 99)))]
    kernels = []
    for each in amplitude:
        kernel = fft.fftshift(fft.irfftn(each, size))
        cut = [slice(max(n // 2 - _KERNEL, 0), min(n // 2 + _KERNEL, n)) for n in size]
        kernel = kernel[tuple(cut)]
        energy = float((each[..., 1:] ** 2).sum() * 2 + (each[..., 0] ** 2).sum())
        if size[2] % 2 == 0:
            energy -= float((each[..., -1] ** 2).sum())
        for axis, n in enumerate(kernel.shape):
            shape = [1, 1, 1]
            shape[axis] = n
            far = np.abs(np.arange(n) - size[axis] // 2 + cut[axis].start) / (n / 2 + 1)
            kernel = kernel * (np.cos(np.pi / 2 * np.minimum(far, 1)) ** 0.5).reshape(shape)
        kernel *= math.sqrt(energy / math.prod(size) / max(float((kernel**2).sum()), 1e-30))
        whole = np.zeros((2 * _KERNEL,) * 3, np.float32)
        at = tuple(slice(_KERNEL - size[a] // 2 + cut[a].start, None) for a in range(3))
        whole[tuple(slice(s.start, s.start + n) for s, n in zip(at, kernel.shape, strict=True))] = kernel
        kernels.append(fft.ifftshift(whole))
    return np.asarray(kernels, np.float32)


def _blocks(shape: tuple[int, ...], size: list[int]) -> Iterator[tuple[slice, slice, slice]]:
    """Blocks that overlap by half, thinned out evenly where there are very many."""
    starts = [np.unique(np.linspace(0, n - s, max(1, math.ceil(2 * n / s) - 1)).astype(int))
              for n, s in zip(shape, size, strict=True)]  # fmt: skip
    grid = np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 3)
    if len(grid) > _BLOCKS:
        order = generator("decoy", "blocks").permutation(len(grid))[:_BLOCKS]
        grid = grid[np.sort(order)]
    for z, y, x in grid:
        yield slice(z, z + size[0]), slice(y, y + size[1]), slice(x, x + size[2])


def _make(model: Model, number: int, scratch: Scratch, aside: Scratch, seed: str, memory: float) -> Real:
    from scipy import fft

    nz, ny, nx = model.shape
    noise = aside.array(model.shape, np.float32)

    def draw(z: int) -> None:
        noise[z] = generator("decoy", seed, number, z).standard_normal((ny, nx), np.float32)

    with pool() as threads:
        for first in range(0, nz, _DRAWN):
            list(threads.map(draw, range(first, min(first + _DRAWN, nz))))
            aside.release()
    out: Real = aside.array(model.shape, np.float32)
    r = _KERNEL
    # filters; the noise, its spectrum, their product, the filtered noise, the sum, what is between them, and
    # pages of the two files: at the worst moment so many arrays are there
    arrays = len(model.kernels) + 14
    fits = [n for n in _COLUMNS if 4.0 * arrays * (nz + 2 * r) * (n + 2 * r) ** 2 <= memory] or [_COLUMNS[-1]]
    step = [min(fits[0], n) for n in (ny, nx)]
    size = [fft.next_fast_len(n + 2 * r, real=True) for n in (nz, *step)]
    filters, workers = [], allowed_threads()
    for kernel in model.kernels:
        padded = np.zeros(size, np.float32)
        half = np.array([r] * 3)
        index = np.ix_(*(np.r_[0:h, n - h : n] for h, n in zip(half, size, strict=True)))
        padded[index] = kernel
        filters.append(fft.rfftn(padded, workers=workers))
    for y in range(0, ny, step[0]):
        for x in range(0, nx, step[1]):
            ends = (nz, min(y + step[0], ny), min(x + step[1], nx))
            box = (slice(0, nz), slice(y, ends[1]), slice(x, ends[2]))
            # beyond the faces the noise comes from the other side: it is white
            planes = [
                np.arange(a - r, b + r) % n for a, b, n in zip((0, y, x), ends, model.shape, strict=True)
            ]
            spectrum = fft.rfftn(noise[np.ix_(*planes)], size, workers=workers)
            kind = _at(model.kind, model.pixel, box)
            total = _at(model.background, model.pixel, box)
            for k, each in enumerate(filters):
                filtered = fft.irfftn(spectrum * each, size, overwrite_x=True, workers=workers)
                share = np.maximum(0, 1 - np.abs(kind - k)) if len(filters) > 1 else np.float32(1)
                total += share * filtered[r : r + nz, r : r + ends[1] - y, r : r + ends[2] - x]
            np.clip(total, -CLIP, CLIP, out=out[box])
            aside.release()
    return out if scratch is aside else scratch.copied(out, aside)
