"""Density maps -> molecules of pseudo-atoms, for targets without an atomic model.

A pseudo-atom is a Gaussian with the width of a point at the map's resolution. Positions and weights are
fitted to the map by expectation maximisation for a mixture of Gaussians of equal width. All weights stay
positive, and every step improves the fit (after Kawabata, Biophys. J. 95, 4643, 2008). Every pseudo-atom is
sulfur with an occupancy: of all elements, its potential per dalton in the simulators is closest to that of
protein (4.97 against 4.86 V Å³/Da; RNA has 4.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from catalogs.errors import InputError
from catalogs.volumes import open_volume
from tlgen.molecules.envelope import SIGMA_OF_RESOLUTION
from tlgen.molecules.molecule import DALTON_PER_CUBIC_ANGSTROM, Molecule, centred
from tlgen.molecules.structures import checksum

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Smallest accepted correlation of the pseudo-atoms' density with the map.
MIN_CORRELATION = 0.95
#: Default resolution in voxels, which subtomogram averages usually reach at their voxel size.
RESOLUTION_VOXELS = 3.0
#: Å; finer maps are low-pass filtered to this resolution. Finer maps show atoms, which pseudo-atoms cannot.
FINEST = 8.0
#: Distance between pseudo-atoms before the fit, in standard deviations of their Gaussians.
SPACING = 2.0
#: Largest number of pseudo-atoms for one map.
MAX_PSEUDOATOMS = 100_000

_ELEMENT = 16
_MOST_VOXELS = 1 << 31
_STEPS = 30
# Gaussians are cut off at this many standard deviations.
_REACH = 4.0
# Connected regions with less than this share of the largest region's volume are removed as dust.
_DUST = 0.05
_FEWEST_VOXELS = 27
# Largest share of a map that a molecule may fill; a lower contour would also take in noise.
_LARGEST = 0.4


@dataclass(frozen=True, eq=False)
class MapModel:
    """A molecule fitted to a map, and the quality of the fit.

    Attributes
    ----------
    molecule
        The pseudo-atoms; all of them are nodes for normal modes.
    correlation
        Pearson's correlation between the map and the pseudo-atoms' density, in all voxels inside the contour
        and within one resolution outside it.
    polarity
        Whether the molecule is bright or dark in the file.
    contour
        Grey value of the molecule's surface in the file.
    resolution
        Å; resolution of the map after filtering.
    """

    molecule: Molecule
    correlation: float
    polarity: Literal["bright", "dark"]
    contour: float
    resolution: float

    @property
    def summary(self) -> str:
        """One line for the user: what was found, and how good the fit is."""
        return (
            f"{self.molecule.name}: {self.polarity} map at {self.resolution:.1f} Å, contour "
            f"{self.contour:.4g}, {self.molecule.mass / 1e3:.0f} kDa in {self.molecule.n_atoms} "
            f"pseudo-atoms, correlation {self.correlation:.3f}"
        )


def load_map(
    path: str | Path,
    *,
    contour: float | None = None,
    resolution: float | None = None,
    mass: float | None = None,
) -> MapModel:
    """Read a density map and fit a molecule of pseudo-atoms to it.

    Parameters
    ----------
    path
        An MRC file (``.mrc``, ``.map``, ...; also gzipped) or an OME-Zarr image of one molecule, bright or
        dark.
    contour
        Grey value of the molecule's surface, in the file's units. By default it is Otsu's threshold between
        molecule and surroundings (IEEE Trans. SMC 9, 62, 1979) or, if ``mass`` is given, the value that
        encloses the mass at 1.35 g/cm³.
    resolution
        Å; :data:`RESOLUTION_VOXELS` voxels by default. Details finer than :data:`FINEST` are averaged out.
    mass
        Mass of the molecule in dalton. By default, that of the contour's volume at 1.35 g/cm³.

    Raises
    ------
    InputError
        The file cannot be read, does not state its voxel size, or contains no molecule; a number makes no
        sense; or the correlation of the pseudo-atoms with the map is below :data:`MIN_CORRELATION`.
    """
    path = Path(path).expanduser()
    grid, voxel_size = _read(path)
    for name, value in (("resolution", resolution), ("mass", mass)):
        if value is not None and not 0 < value < np.inf:
            raise InputError(f"{path}: the {name} must be positive, not {value}")
    if resolution is not None and resolution < 2 * voxel_size:
        raise InputError(
            f"{path}: voxels of {voxel_size:.2f} Å hold nothing finer than {2 * voxel_size:.1f} Å; "
            f"set a resolution of at least that, not {resolution:g}"
        )
    background = float(np.median(grid))
    grid -= np.float32(background)
    sign = 1 if float(np.sum(grid.astype(np.float64) ** 3)) >= 0 else -1
    grid *= sign
    polarity: Literal["bright", "dark"] = "bright" if sign > 0 else "dark"

    wanted = resolution or RESOLUTION_VOXELS * voxel_size
    taken = max(wanted, FINEST)
    level = _level(grid, voxel_size, None if contour is None else sign * (contour - background), mass)
    shown = float(background + sign * level if contour is None else contour)
    _check_level(grid, level, path, polarity, shown)
    above = grid >= np.float32(level)
    coarse, coarse_size = _coarsened(grid, voxel_size, wanted, taken)
    if coarse is not grid:
        # a contour around single atoms becomes one around the whole molecule; a smooth one stays in place
        share, _ = _coarsened(above.astype(np.float32), voxel_size, wanted, taken)
        grid, voxel_size, above = coarse, coarse_size, share >= 0.5 * np.quantile(share[share > 0.05], 0.9)
    inside = _without_dust(above)

    fitted = _fit(grid, voxel_size, inside, taken, path)
    if fitted.correlation < MIN_CORRELATION:
        raise InputError(
            f"{path}: pseudo-atoms reach a correlation of {fitted.correlation:.3f} with the map at "
            f"{taken:.1f} Å and {MIN_CORRELATION} is needed; set a coarser resolution, or a contour that "
            f"leaves out more than {shown:.4g} does"
        )
    if mass is None:
        mass = float(np.count_nonzero(inside)) * voxel_size**3 * DALTON_PER_CUBIC_ANGSTROM
    n = len(fitted.weights)
    unit = centred(
        path.name.removesuffix(".gz").removesuffix(".bz2").rsplit(".", 1)[0],
        np.full(n, _ELEMENT),
        fitted.positions,
        np.ones(n, bool),
        source=checksum(path) if path.is_file() else "",
        occupancy=fitted.weights,
        sigma=np.full(n, taken * SIGMA_OF_RESOLUTION, np.float32),
    )
    molecule = replace(unit, occupancy=(unit.occupancy * np.float32(mass / unit.mass)).astype(np.float32))
    return MapModel(molecule, fitted.correlation, polarity, shown, taken)


# --------------------------------------------------------------------------------------------- the map


def _read(path: Path) -> tuple[Volume, float]:
    volume = open_volume(path)
    if math.prod(volume.shape) > _MOST_VOXELS:
        raise InputError(f"{path} has {math.prod(volume.shape):.3g} voxels, too many for one molecule's map")
    grid, voxel_size = volume.read(), volume.voxel_size or 0.0
    if not voxel_size:
        raise InputError(
            f"{path} does not state its voxel size; write it into the header (e.g. with IMOD's alterheader)"
        )
    if not np.isfinite(grid).all():
        raise InputError(f"{path} has voxels that are not numbers; mask them or correct them")
    if grid.min() == grid.max():
        raise InputError(f"{path} has the same value in every voxel; it holds no molecule")
    return grid.astype(np.float32), voxel_size


def _coarsened(grid: Volume, voxel_size: float, wanted: float, taken: float) -> tuple[Volume, float]:
    """Blur a map from one resolution in Å to a coarser one, and bin voxels that are then too fine."""
    if taken > wanted:
        sigma = np.sqrt(taken**2 - wanted**2) * SIGMA_OF_RESOLUTION / voxel_size
        grid = ndimage.gaussian_filter(grid, sigma)
    factor = int(taken / RESOLUTION_VOXELS / voxel_size)
    if factor < 2:
        return grid, voxel_size
    nz, ny, nx = (n // factor for n in grid.shape)
    whole = grid[: nz * factor, : ny * factor, : nx * factor]
    blocks = whole.reshape(nz, factor, ny, factor, nx, factor).mean(axis=(1, 3, 5))
    return np.ascontiguousarray(blocks, np.float32), voxel_size * factor


def _level(grid: Volume, voxel_size: float, contour: float | None, mass: float | None) -> float:
    """Height of the molecule's surface above the background."""
    if contour is not None:
        return contour
    if mass is not None:
        return _enclosing(grid, voxel_size, mass / DALTON_PER_CUBIC_ANGSTROM)
    return _otsu(grid[grid > 0])


def _enclosing(grid: Volume, voxel_size: float, volume: float) -> float:
    """Level above which a volume of ``volume`` Å³ lies."""
    count = min(grid.size, max(1, round(volume / voxel_size**3)))
    return float(np.partition(grid.ravel(), grid.size - count)[grid.size - count])


def _otsu(values: Volume) -> float:
    """Threshold that minimises the variance within the two classes."""
    count, edges = np.histogram(values, 256)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count)[:-1].astype(np.float64)
    above = count.sum() - below
    total = np.cumsum(count * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (total[:-1] / below - (total[-1] - total[:-1]) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def _check_level(grid: Volume, level: float, path: Path, polarity: str, shown: float) -> None:
    """Refuse a contour that cannot be a molecule's surface (InputError)."""
    height = float(grid.max()) - level
    extreme = f"{shown + (height if polarity == 'bright' else -height):.4g}"
    if level <= 0:
        side = "below" if polarity == "bright" else "above"
        raise InputError(
            f"{path}: the contour {shown:g} is {side} the background's grey value; the molecule is "
            f"{polarity} in this map, so set one between the background and {extreme}"
        )
    count = np.count_nonzero(grid >= np.float32(level))
    if count < _FEWEST_VOXELS:
        raise InputError(
            f"{path}: the contour {shown:g} leaves {count} voxels and the molecule's extreme is {extreme}; "
            "set a contour nearer to the background"
        )
    if count > _LARGEST * grid.size:
        raise InputError(
            f"{path}: the contour {shown:g} takes in {100 * count / grid.size:.0f} % of the map; set one "
            f"between that and {extreme}"
        )


def _without_dust(above: Mask) -> Mask:
    """Remove connected regions that are tiny compared with the largest."""
    bodies, n = ndimage.label(above, np.ones((3, 3, 3)))
    sizes = np.bincount(bodies.ravel(), minlength=n + 1)
    sizes[0] = 0
    return np.asarray((sizes >= _DUST * sizes.max())[bodies])


# --------------------------------------------------------------------------------------------- the fit


@dataclass(frozen=True, eq=False)
class _Fitted:
    positions: NDArray[np.float64]  # (n, 3) x, y, z in Å from the centre of voxel 0
    weights: NDArray[np.float64]
    correlation: float


def _fit(grid: Volume, voxel_size: float, inside: Mask, resolution: float, path: Path) -> _Fitted:
    """Fit pseudo-atoms to the voxels within one resolution of the molecule."""
    sigma = resolution * SIGMA_OF_RESOLUTION / voxel_size
    region = ndimage.distance_transform_edt(~inside) <= resolution / voxel_size
    pad = int(np.ceil(_REACH * sigma)) + 2
    region, inside, target = (np.pad(a, pad) for a in (region, inside, grid))
    seen = np.where(region, np.maximum(target, 0), 0).astype(np.float64)
    start = _lattice(inside, SPACING * sigma)
    if not 0 < len(start) <= MAX_PSEUDOATOMS:
        raise InputError(
            f"{path}: {len(start):,} pseudo-atoms would be needed at {resolution:.1f} Å and a model has 1 to "
            f"{MAX_PSEUDOATOMS:,}; set another resolution or contour"
        )
    places = start.copy()
    weights = np.full(len(start), seen.sum() / len(start))
    for _ in range(_STEPS):
        _step(places, weights, start, seen, region, sigma, SPACING * sigma / 2)
    model = np.zeros_like(seen)
    _render(places, weights, sigma, model)
    correlation = float(np.corrcoef(model[region], target[region])[0, 1])
    kept = weights > 1e-3 * weights.mean()
    return _Fitted(
        np.ascontiguousarray((places[kept] - pad)[:, ::-1] * voxel_size), weights[kept], correlation
    )


def _lattice(inside: Mask, spacing: float) -> NDArray[np.float64]:
    """Fill a mask with a body-centred lattice: (n, 3) z, y, x in voxels, neighbours ``spacing`` apart."""
    edge = spacing * 2 / np.sqrt(3)
    axes = [np.arange(0, n - 1, edge) for n in inside.shape]
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = np.concatenate([corners, corners + edge / 2])
    nearest = np.minimum(np.rint(points).astype(np.int64), np.array(inside.shape) - 1)
    return np.ascontiguousarray(points[inside[tuple(nearest.T)]])


def _step(
    places: NDArray[np.float64],
    weights: NDArray[np.float64],
    start: NDArray[np.float64],
    seen: NDArray[np.float64],
    region: Mask,
    sigma: float,
    leash: float,
) -> None:
    """One step of expectation maximisation, in place; ``leash`` limits the distance from ``start``."""
    model = np.zeros_like(seen)
    _render(places, weights, sigma, model)
    ratio = np.where(region, seen / np.maximum(model, 1e-12 * seen.max()), 0.0)
    _move(places, weights, start, ratio, region, sigma, leash)


@njit(cache=True)
def _gauss(centre: float, sigma: float, reach: int, out: NDArray[np.float64]) -> int:
    """Compute a Gaussian along one axis, with a sum of 1 over all voxels; returns the first voxel."""
    first = int(np.rint(centre)) - reach
    for i in range(2 * reach + 1):
        d = (first + i - centre) / sigma
        out[i] = np.exp(-0.5 * d * d) / (sigma * np.sqrt(2 * np.pi))
    return first


@njit(cache=True)
def _render(
    places: NDArray[np.float64], weights: NDArray[np.float64], sigma: float, out: NDArray[np.float64]
) -> None:
    """Add the pseudo-atoms' density to a volume; ``places`` are z, y, x in voxels."""
    reach = int(np.ceil(_REACH * sigma))
    gz, gy, gx = np.empty(2 * reach + 1), np.empty(2 * reach + 1), np.empty(2 * reach + 1)
    for a in range(len(places)):
        z0 = _gauss(places[a, 0], sigma, reach, gz)
        y0 = _gauss(places[a, 1], sigma, reach, gy)
        x0 = _gauss(places[a, 2], sigma, reach, gx)
        for k in range(2 * reach + 1):
            for j in range(2 * reach + 1):
                w = weights[a] * gz[k] * gy[j]
                for i in range(2 * reach + 1):
                    out[z0 + k, y0 + j, x0 + i] += w * gx[i]


@njit(cache=True)
def _move(
    places: NDArray[np.float64],
    weights: NDArray[np.float64],
    start: NDArray[np.float64],
    ratio: NDArray[np.float64],
    region: Mask,
    sigma: float,
    leash: float,
) -> None:
    """Move each pseudo-atom to the centre of its share of the map, and set its weight to that share."""
    reach = int(np.ceil(_REACH * sigma))
    gz, gy, gx = np.empty(2 * reach + 1), np.empty(2 * reach + 1), np.empty(2 * reach + 1)
    for a in range(len(places)):
        z0 = _gauss(places[a, 0], sigma, reach, gz)
        y0 = _gauss(places[a, 1], sigma, reach, gy)
        x0 = _gauss(places[a, 2], sigma, reach, gx)
        share, own, mz, my, mx = 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(2 * reach + 1):
            for j in range(2 * reach + 1):
                w = gz[k] * gy[j]
                for i in range(2 * reach + 1):
                    if region[z0 + k, y0 + j, x0 + i]:
                        g = w * gx[i]
                        own += g
                        g *= ratio[z0 + k, y0 + j, x0 + i]
                        share += g
                        mz += g * (z0 + k)
                        my += g * (y0 + j)
                        mx += g * (x0 + i)
        if share > 0 and own > 0:
            weights[a] *= share / own
            dz, dy, dx = mz / share - start[a, 0], my / share - start[a, 1], mx / share - start[a, 2]
            far = np.sqrt(dz * dz + dy * dy + dx * dx)
            pull = min(1.0, leash / far) if far > 0 else 1.0
            places[a, 0] = start[a, 0] + pull * dz
            places[a, 1] = start[a, 1] + pull * dy
            places[a, 2] = start[a, 2] + pull * dx
        else:
            weights[a] = 0.0
