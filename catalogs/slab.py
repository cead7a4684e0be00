"""Finds the ice in a tomogram: two planes that enclose the sample, from the variance along z.

Back-projected noise is the same at every height, and the sample adds to it. So the variance of the grey
values is higher inside the ice than in the vacuum above and below. It is measured in squares of the tomogram,
plane by plane, on details of about 80 to 200 Å: finer ones are mostly noise, and coarser ones are smeared
along z by the missing wedge. Two planes are then fitted to the steps of all squares by least squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.threads import pool

Floats = NDArray[np.float64]

#: Edge of the pixels that planes are averaged to first, Å; and of the squares that a variance is taken of.
PIXEL, SQUARE = 40.0, 640.0
#: Coarser details than this are removed, pixels.
_SLOW = 5
#: A face needs a step of the variance by at least this share, and by so many standard errors.
STEP, ERRORS = 0.08, 6.0
#: A higher step needs fewer standard errors, because a small box has few details.
HIGH, HIGH_ERRORS = 0.4, 2.0
#: Measurements of neighbouring planes are not independent: a detail is about so long along z, Å.
_LENGTH = 100.0
#: Neither the ice nor the vacuum on a side may be thinner than this, Å.
_THINNEST_ICE, _THINNEST_VACUUM = 150.0, 60.0
#: In thinner volumes the faces cannot be found, Å.
THINNEST = 600.0
#: Steeper planes are not faces: tangent of the angle.
STEEPEST = 0.36
_CUT = 3.0
#: Details that are so many times the median of their square are cut: 2.5 standard deviations.
_OUTLIER = 2.5 * 1.4826


@dataclass(frozen=True)
class Face:
    """A plane ``z = z + slope_x (x - x0) + slope_y (y - y0)`` through the tomogram, in Å.

    Attributes
    ----------
    z
        Height at the middle of the tomogram, Å.
    slope_x, slope_y
        Å along z for each Å along x and y.
    """

    z: float
    slope_x: float = 0.0
    slope_y: float = 0.0


@dataclass(frozen=True)
class Slab:
    """The ice of a tomogram, in the frame of the tomogram.

    Attributes
    ----------
    lower, upper
        Its faces, that with the smaller z first; -inf and inf for faces outside of the volume.
    middle
        Position (x, y) at which the heights of the faces are given, Å.
    """

    lower: Face
    upper: Face
    middle: tuple[float, float]

    def holds(self, xyz: NDArray[np.float64], margin: float = 0.0) -> NDArray[np.bool_]:
        """Return which of (n, 3) positions x, y, z in Å lie inside, at least ``margin`` Å from each face."""
        low, high = self.bounds(xyz[:, 0], xyz[:, 1])
        return np.asarray((xyz[:, 2] >= low + margin) & (xyz[:, 2] <= high - margin))

    def bounds(self, x: Any, y: Any) -> tuple[Floats, Floats]:
        """Return the heights of the two faces at positions, Å."""
        dx, dy = np.asarray(x) - self.middle[0], np.asarray(y) - self.middle[1]
        low, high = (face.z + face.slope_x * dx + face.slope_y * dy for face in (self.lower, self.upper))
        return np.asarray(low, np.float64), np.asarray(high, np.float64)

    def at(
        self, places: list[Floats], margin: float = 0.0, out: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_]:
        """Sample the slab on a grid.

        Parameters
        ----------
        places
            Voxel centres along z, y, x, Å.
        margin
            Distance outside of the faces that still counts as inside, Å.
        out
            (z, y, x) array for the result; None: a new array.

        Returns
        -------
        ndarray of bool
            (z, y, x), True inside.
        """
        z, y, x = places
        low, high = self.bounds(x[None, :], y[:, None])
        inside = np.empty((len(z), len(y), len(x)), bool) if out is None else out
        for k, height in enumerate(z):
            np.logical_and(height >= low - margin, height <= high + margin, out=inside[k])
        return inside

    def words(self) -> str:
        """Describe the ice, e.g. ``ice from z 410 to 1,960 Å, tilted by 2.3°``."""
        if math.isinf(self.lower.z) or math.isinf(self.upper.z):
            side, z = ("up to", self.upper.z) if math.isinf(self.lower.z) else ("from", self.lower.z)
            text = f"ice {side} z {z:,.0f} Å"
        else:
            text = f"ice from z {self.lower.z:,.0f} to {self.upper.z:,.0f} Å"
        finite = [face for face in (self.lower, self.upper) if math.isfinite(face.z)]
        steep = max(math.degrees(math.atan(math.hypot(f.slope_x, f.slope_y))) for f in finite)
        return text + (f", tilted by {steep:.1f}°" if steep >= 1 else "")


def find_slab(
    values: NDArray[np.float32], voxel_size: float, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Slab | None:
    """Find the faces of the ice.

    Parameters
    ----------
    values
        (z, y, x) grey values, on any scale.
    voxel_size
        Å.
    offset
        Position (x, y, z) of the centre of voxel 0 in the frame of the slab, Å.

    Returns
    -------
    Slab or None
        None if the variance has no step: the sample fills the volume, or the faces cannot be seen.
    """
    profiles, y, x = _variances(values, voxel_size)
    if profiles is None:
        return None
    fit = _Fit(profiles, y, x, voxel_size)
    found = fit.best()
    if found is None:
        return None
    low, high = found
    ny, nx = values.shape[1:]
    middle = ((nx - 1) / 2, (ny - 1) / 2)

    def face(plane: Floats, end: float) -> Face:
        if not math.isfinite(plane[0]):
            return Face(end)
        # edge k lies before voxel k
        return Face(float((plane[0] - 0.5) * voxel_size + offset[2]), float(plane[1]), float(plane[2]))

    return Slab(
        face(low, -math.inf),
        face(high, math.inf),
        (middle[0] * voxel_size + offset[0], middle[1] * voxel_size + offset[1]),
    )


def _variances(values: NDArray[np.float32], voxel_size: float) -> tuple[Floats | None, Floats, Floats]:
    """Measure log variances of details (squares, planes), and where the squares are, voxels."""
    from scipy.ndimage import uniform_filter

    nz, ny, nx = values.shape
    pixel = max(1, min(round(PIXEL / voxel_size), ny // 12, nx // 12))
    rows, columns = ny // pixel, nx // pixel
    edge = min(max(6, round(SQUARE / (pixel * voxel_size))), rows, columns)
    if nz * voxel_size < THINNEST or edge < 6:
        return None, np.empty(0), np.empty(0)
    tiles_y, tiles_x = rows // edge, columns // edge
    measured = np.empty((nz, tiles_y, tiles_x))
    middle = values[nz // 2]
    centre = float(np.median(middle))

    def measure(z: int) -> None:
        plane = values[z, : rows * pixel, : columns * pixel].reshape(rows, pixel, columns, pixel)
        small = plane.mean(axis=(1, 3), dtype=np.float32) - centre
        small[~np.isfinite(small)] = 0
        detail = small - uniform_filter(small, _SLOW, mode="reflect")
        cut = detail[: tiles_y * edge, : tiles_x * edge].reshape(tiles_y, edge, tiles_x, edge)
        squares = cut.transpose(0, 2, 1, 3).reshape(tiles_y, tiles_x, edge * edge)
        most = _OUTLIER * np.median(np.abs(squares), axis=2, keepdims=True)  # gold
        measured[z] = (np.clip(squares, -most, most) ** 2).mean(axis=2)

    with pool() as threads:
        list(threads.map(measure, range(nz)))
    if not (measured > 0).all():
        measured = np.maximum(measured, max(float(measured.max()) * 1e-6, 1e-30))
    profiles = np.log(measured).reshape(nz, -1).T
    y, x = np.mgrid[:tiles_y, :tiles_x].reshape(2, -1) * float(edge * pixel) + (edge * pixel - 1) / 2
    return profiles, y - (ny - 1) / 2, x - (nx - 1) / 2


class _Fit:
    """Two planes through the steps of many profiles."""

    def __init__(self, profiles: Floats, y: Floats, x: Floats, voxel_size: float) -> None:
        n, self.nz = profiles.shape
        profiles = profiles - np.median(profiles, axis=1, keepdims=True)
        spread = 1.4826 * np.median(np.abs(profiles))
        profiles = np.clip(profiles, -_CUT * spread, _CUT * spread) if spread > 0 else profiles
        self.profiles, self.y, self.x, self.voxel_size = profiles, y, x, voxel_size
        zero = np.zeros((n, 1))
        self._sum = np.concatenate([zero, profiles.cumsum(axis=1)], axis=1)
        self._rows = np.arange(n)
        self._thin_ice = _THINNEST_ICE / voxel_size
        self._thin_vacuum = _THINNEST_VACUUM / voxel_size

    def best(self) -> tuple[Floats, Floats] | None:
        from scipy.optimize import minimize

        span = max(float(np.abs(self.x).max(initial=0)), float(np.abs(self.y).max(initial=0)))
        slopes = np.tan(np.radians([-12, -8, -4, 0, 4, 8, 12])) if span * 0.07 > 2 else np.zeros(1)
        step = max(1, self.nz // 60)
        best, start = -math.inf, np.zeros(6)
        edges = np.arange(0, self.nz + 1, step, dtype=np.float64)
        for sy in slopes if len(np.unique(self.y)) > 1 else [0.0]:
            for sx in slopes if len(np.unique(self.x)) > 1 else [0.0]:
                gain, low, high = self._flat(sx, sy, edges)
                if gain > best:
                    best, start = gain, np.array([low, sx, sy, high, sx, sy])
        if not math.isfinite(best):
            return None
        scale = max(span, 1.0)
        move = np.array([2.0 * step, 2 * step / scale, 2 * step / scale] * 2)
        # a single row or column of squares knows of no slope across it
        free = np.array([1.0, len(np.unique(self.x)) > 1, len(np.unique(self.y)) > 1] * 2)
        simplex = np.vstack([start, *(start + np.eye(6)[k] * move[k] for k in range(6))])
        result = minimize(
            lambda p: -self._gain(p[:3] * free[:3], p[3:] * free[:3]), start, method="Nelder-Mead",
            options={"initial_simplex": simplex, "maxiter": 1500, "xatol": 1e-3, "fatol": 1e-6},
        )  # fmt: skip
        planes = np.asarray(result.x, np.float64) * free
        return self._believed(planes[:3], planes[3:])

    def _flat(self, sx: float, sy: float, edges: Floats) -> tuple[float, float, float]:
        """Try all pairs of parallel planes of a slope."""
        shift = sx * self.x + sy * self.y
        at = np.stack([self._upto(edge + shift) for edge in edges])  # (edges, squares) sums
        lengths = np.stack([np.clip(edge + shift, 0, self.nz) for edge in edges])
        total, best = self._sum[:, -1], (-math.inf, 0.0, 0.0)
        for i, low in enumerate(edges):
            inside = at[i:] - at[i]
            n = lengths[i:] - lengths[i]
            gains = self._explained(inside, n, total)
            k = int(np.argmax(gains))
            if gains[k] > best[0]:
                best = float(gains[k]), float(low), float(edges[i + k])
        return best

    def _explained(self, inside: Floats, n: Floats, total: Floats) -> Floats:
        """Squares that one level inside and one outside explain; the levels are of all squares together."""
        n_in, s_in = n.sum(axis=-1), inside.sum(axis=-1)
        n_all = float(self.nz * len(self._rows))
        n_out, s_out = n_all - n_in, float(total.sum()) - s_in
        ok = (n_in > 0) & (n_out > 0)
        n_in, n_out = np.where(ok, n_in, 1), np.where(ok, n_out, 1)
        step = s_in / n_in - s_out / n_out
        gain = step * np.abs(step) * n_in * n_out / n_all  # negative where the outside is the richer
        return np.where(ok & (n_in / len(self._rows) >= self._thin_ice), gain, -math.inf)

    def _gain(self, low: Floats, high: Floats) -> float:
        if max(np.abs(low[1:]).max(), np.abs(high[1:]).max()) > STEEPEST:
            return -math.inf
        a, b = (np.clip(p[0] + p[1] * self.x + p[2] * self.y, 0, self.nz) for p in (low, high))
        b = np.maximum(a, b)
        return float(self._explained(self._upto(b) - self._upto(a), b - a, self._sum[:, -1]))

    def _upto(self, z: Floats) -> Floats:
        """Sum of each profile up to a height."""
        z = np.clip(z, 0, self.nz)
        k = np.minimum(z.astype(np.int64), self.nz - 1)
        return self._sum[self._rows, k] + (z - k) * self.profiles[self._rows, k]

    def _believed(self, low: Floats, high: Floats) -> tuple[Floats, Floats] | None:
        """Leave out faces that are not significant."""
        z = np.arange(self.nz) + 0.5
        a, b = (p[0] + p[1] * self.x + p[2] * self.y for p in (low, high))
        inside = (z >= a[:, None]) & (z <= b[:, None])
        below, above = z < a[:, None], z > b[:, None]
        level = self.profiles[inside]
        if not len(level):
            return None
        spread = float(np.std(self.profiles[inside])) or 1e-9
        independent = self.voxel_size / _LENGTH
        faces = []
        for plane, outside in ((low, below), (high, above)):
            n = int(outside.sum())
            enough = n / len(self._rows) >= self._thin_vacuum
            step = float(level.mean() - self.profiles[outside].mean()) if n else 0.0
            error = spread * math.sqrt(1 / max(n * independent, 1e-9) + 1 / (len(level) * independent))
            clear = step >= ERRORS * error or (step >= HIGH and step >= HIGH_ERRORS * error)
            real = enough and step >= STEP and clear
            faces.append(plane if real else np.array([math.inf, 0.0, 0.0]))
        if not any(math.isfinite(face[0]) for face in faces):
            return None
        return faces[0], faces[1]
