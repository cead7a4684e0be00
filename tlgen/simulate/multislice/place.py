"""Add points to slabs on a GPU, as :mod:`tlgen.simulate.multislice.splat` does on the CPU.

Weighted points are stored on the device in portions of equal size, one structure after the other. Each copy
of a structure has one row per portion, with the portion's number, rotation, shift, and the tilt to whose
slabs it is added. A scene of many structures, small and large, at several tilts therefore needs only one
compiled program.

Sums are integers, because a GPU adds in any order and only integer sums do not depend on the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from math import floor, log2
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Molecule
from tlgen.simulate.microscope import inelastic, potentials
from tlgen.simulate.multislice import displaced_ice, solids
from tlgen.simulate.multislice.slabs import Grid, Layout, slab
from tlgen.simulate.specimen import tilt_rotation

#: Upper limits, which bound the sums: mean inner potential in V at physical contrast (gold has 30, a column
#: of its crystal a few times that), how often a pixel may be covered (a few times where cells are in a row),
#: and largest loss over 1 Å of the path.
DENSEST, COVERED, LOSSIEST = 200.0, 64.0, 0.2
#: The largest integer on the device.
MOST = 2**31 - 1
# Points per portion, and portions that are placed at a time.
_PORTION, _ROWS = 1024, 512
_BYTES_A_POINT, _BYTES_AT_A_TIME = 16, 96

Points = tuple[NDArray[np.float32], NDArray[np.float32]]


class Sums(NamedTuple):
    """Contents of slabs: (tilts, slabs, ny, nx) integers, and the value of one unit."""

    whole: Any
    unit: Any

    def slab(self, k: Any) -> Any:
        """Return one slab of one tilt."""
        return self.whole[k].astype(np.float32) * self.unit


#: The axes of :class:`Sums` that run over tilts.
AXES = Sums(0, None)


def atoms(
    device: Any, layouts: Sequence[Layout], acq: Acquisition, grid: Grid, shape: tuple[int, ...]
) -> Sums:
    """Add the atoms' potential, V Å³, at several tilts to slabs of a shape (tilts, slabs, ny, nx)."""
    factor = 1.0 if isinstance(acq.contrast, str) else max(1.0, acq.contrast)
    return _placed(device, layouts, _atoms_of, acq, grid, shape, DENSEST * factor)


def lost(
    device: Any, layouts: Sequence[Layout], acq: Acquisition, grid: Grid, shape: tuple[int, ...]
) -> Sums:
    """Add the atoms' losses beyond the grid, Å², at several tilts to slabs (tilts, slabs, ny, nx)."""
    return _placed(device, layouts, _lost_of, acq, grid, shape, LOSSIEST)


def cells(
    device: Any, layouts: Sequence[Layout], acq: Acquisition, grid: Grid, shape: tuple[int, ...]
) -> Sums:
    """Add the volume that atoms cover, Å³, at several tilts to slabs of a shape (tilts, slabs, ny, nx)."""
    return _placed(device, layouts, _cells_of, acq, grid, shape, COVERED)


def memory(layouts: Sequence[Layout], acq: Acquisition) -> int:
    """Estimate the bytes on the device that the points of some tilts need, and placing them."""
    molecules = {m.digest: m.n_atoms + _PORTION for layout in layouts for m, _, _ in layout.standing}
    points = sum(molecules.values()) * channels(acq)  # cells are fewer than atoms
    return points * _BYTES_A_POINT + _ROWS * _PORTION * _BYTES_AT_A_TIME


def tilts_that_fit(shape: tuple[int, int, int]) -> int:
    """Count the most tilts, with slabs of a shape (slabs, ny, nx), whose pixels the device can index."""
    slabs, ny, nx = shape
    return (MOST - nx - 1) // (slabs * ny * nx)  # a pixel's neighbours are indexed too


def channels(acq: Acquisition) -> int:
    """Count the sums: potential, and covered volume and losses if they are needed."""
    return 1 + bool(acq.ice_density) + (acq.contrast == "physical")


# ------------------------------------------------------------------------------------- what there is to place


@dataclass(frozen=True)
class _Body:
    """A set of points that is rotated and shifted as a whole; ``key`` identifies it."""

    key: tuple[Any, ...]
    points: Callable[[], Iterable[Points]] = field(compare=False)


class _Copy(NamedTuple):
    """A copy of a body, with its transform to the pixels and slabs of a tilt."""

    body: _Body
    matrix: NDArray[np.float32]
    shift: NDArray[np.float32]


def _atoms_of(layout: Layout, acq: Acquisition, grid: Grid) -> Iterator[_Copy]:
    yield from _weighed(layout, grid, potentials.scattering(acq.contrast).integral, ("atoms", acq.contrast))


def _lost_of(layout: Layout, acq: Acquisition, grid: Grid) -> Iterator[_Copy]:
    weights = inelastic.of_atoms(acq, grid.step)
    if weights is not None:
        yield from _weighed(layout, grid, weights, ("lost", acq.contrast, acq.voltage, grid.step))


def _weighed(
    layout: Layout, grid: Grid, weights: NDArray[np.float32], key: tuple[Any, ...]
) -> Iterator[_Copy]:
    """All molecules and decorations, with atoms weighted by atomic number."""

    def of(molecule: Molecule) -> Iterator[Points]:
        yield molecule.positions, weights[molecule.elements] * molecule.occupancy

    for molecule, matrix, shift in layout.standing:
        yield _Copy(_Body((*key, molecule.digest), partial(of, molecule)), matrix, shift)
    yield from _decorations_of(layout, grid, weights, key)


def _cells_of(layout: Layout, acq: Acquisition, grid: Grid) -> Iterator[_Copy]:
    def of(molecule: Molecule) -> Iterator[Points]:
        cells = displaced_ice.volume_of(molecule, acq.slice_thickness)
        yield cells.positions, cells.volumes

    for molecule, matrix, shift in layout.standing:
        key = ("cells", molecule.digest, acq.slice_thickness)
        yield _Copy(_Body(key, partial(of, molecule)), matrix, shift)
    yield from _decorations_of(layout, grid, None, ("cells",))


def _decorations_of(
    layout: Layout, grid: Grid, weights: NDArray[np.float32] | None, key: tuple[Any, ...]
) -> Iterator[_Copy]:
    """Each decoration, once for each pixel of the integration's cells."""
    scene = layout.scene
    matrix, shift = layout.frame.transform(tilt_rotation(layout.tilt.angle).as_matrix(), np.zeros(3))
    parts = solids.parts(scene, grid.step)
    for decoration in scene.decorations:

        def points(decoration: Any = decoration) -> Iterator[Points]:
            for places, amounts in solids.integrate(decoration, scene, grid.step, [weights]):
                yield places, amounts[:, 0] / np.float32(parts * parts)

        body = _Body((*key, decoration, scene.box, parts, grid.step), points)
        for offset in solids.offsets(parts):
            yield _Copy(body, matrix, shift + offset)


# ------------------------------------------------------------------------------------------- on the device


class _Uploaded(NamedTuple):
    """Portions on the device, and for each body the number of its first portion and their count."""

    places: Any
    weights: Any
    spans: dict[tuple[Any, ...], tuple[int, int]]


@lru_cache(maxsize=3)  # the atoms, their losses and the cells of a scene
def _uploaded(device: Any, bodies: tuple[_Body, ...]) -> _Uploaded:
    import jax

    portions: list[NDArray[np.float32]] = [np.zeros((1, _PORTION, 4), np.float32)]  # an empty portion
    spans, first = {}, 1
    for body in bodies:
        points = [np.column_stack([places, weights]) for places, weights in body.points()]
        together = np.concatenate(points) if points else np.zeros((0, 4), np.float32)
        number = -(-len(together) // _PORTION)
        whole = np.zeros((number * _PORTION, 4), np.float32)
        whole[: len(together)] = together
        portions.append(whole.reshape(number, _PORTION, 4))
        spans[body.key] = (first, number)
        first += number
    portions.append(np.zeros((_room(first) - first, _PORTION, 4), np.float32))
    everything = np.concatenate(portions)
    return _Uploaded(
        jax.device_put(everything[..., :3], device), jax.device_put(everything[..., 3], device), spans
    )


class _Rows(NamedTuple):
    """Portions to place: number, transform, tilt, and number of slabs of this tilt."""

    portion: Any
    matrix: Any
    shift: Any
    tilt: Any
    slabs: Any


def _placed(
    device: Any,
    layouts: Sequence[Layout],
    of: Callable[[Layout, Acquisition, Grid], Iterator[_Copy]],
    acq: Acquisition,
    grid: Grid,
    shape: tuple[int, ...],
    most: float,
) -> Sums:
    import jax

    copies = [(t, copy) for t, layout in enumerate(layouts) for copy in of(layout, acq, grid)]
    uploaded = _uploaded(device, tuple(dict.fromkeys(copy.body for _, copy in copies)))
    spans = [uploaded.spans[copy.body.key] for _, copy in copies]
    numbers = np.array([number for _, number in spans], np.int64)
    total = int(numbers.sum())
    blocks = -(-total // _ROWS)
    room = _room(blocks) * _ROWS
    owner = np.repeat(np.arange(len(copies)), numbers)
    rank = np.arange(total) - np.repeat(np.cumsum(numbers) - numbers, numbers)

    def row(values: list[Any], dtype: Any, *each: int) -> NDArray[Any]:
        made = np.zeros((room, *each), dtype)
        made[:total] = np.array(values, dtype).reshape(-1, *each)[owner]
        return made

    rows = _Rows(
        portion=row([first for first, _ in spans], np.int32),
        matrix=row([copy.matrix for _, copy in copies], np.float32, 3, 3),
        shift=row([copy.shift for _, copy in copies], np.float32, 3),
        tilt=row([t for t, _ in copies], np.int32),
        slabs=row([layouts[t].slabs for t, _ in copies], np.int32),
    )
    rows.portion[:total] += rank.astype(np.int32)
    # a power of two, so that scaling is exact and only rounding to an integer loses precision
    bound = most * grid.step**2 * slab(layouts[0].scene.voxel_size)
    unit = 2.0 ** -floor(log2(MOST / bound))
    whole = _program()(
        shape, uploaded.places, uploaded.weights, jax.device_put(rows, device), blocks, np.float32(1 / unit)
    )
    return Sums(whole, np.float32(unit))


def _room(number: int) -> int:
    """Round a size up to 1, 2, 3, 4, 6, 8, 12, 16 ..., so that few programs are compiled."""
    power = 1 << max(0, number - 1).bit_length()
    return power * 3 // 4 if power >= 4 and number <= power * 3 // 4 else power


@cache
def _program() -> Any:
    """Compile the equivalent of :func:`tlgen.simulate.multislice.splat.share` with JAX, for portions."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    def placed(
        shape: tuple[int, ...], places: Any, weights: Any, rows: _Rows, blocks: Any, scale: Any
    ) -> Any:
        tilts, slabs, ny, nx = shape
        size = tilts * slabs * ny * nx

        def block(k: Any, whole: Any) -> Any:
            each = _Rows(*(lax.dynamic_slice_in_dim(values, k * _ROWS, _ROWS) for values in rows))
            a, b, c = (places[each.portion, :, axis] for axis in range(3))
            # written out, because some GPUs round matrix products to ten bits
            x, y, z = (
                each.matrix[:, i, 0, None] * a
                + each.matrix[:, i, 1, None] * b
                + each.matrix[:, i, 2, None] * c
                + each.shift[:, i, None]
                for i in range(3)
            )
            weight = weights[each.portion] * scale
            inside = (x >= 0) & (y >= 0) & (x < nx - 1) & (y < ny - 1) & (weight > 0)
            ix, iy = x.astype(jnp.int32), y.astype(jnp.int32)
            within = jnp.clip(z.astype(jnp.int32), 0, each.slabs[:, None] - 1)
            at = (((each.tilt[:, None] * slabs + within) * ny) + iy) * nx + ix
            at = jnp.where(inside, at, size)  # an index beyond the end is ignored
            fx, fy = x - ix, y - iy
            lower, upper = weight * (1 - fy), weight * fy
            for further, part in (
                (0, lower * (1 - fx)),
                (1, lower * fx),
                (nx, upper * (1 - fx)),
                (nx + 1, upper * fx),
            ):
                whole = whole.at[at + further].add(jnp.rint(part).astype(jnp.int32), mode="drop")
            return whole

        whole = lax.fori_loop(0, blocks, block, jnp.zeros(size, jnp.int32))
        return whole.reshape(shape)

    return jax.jit(placed, static_argnums=0)
