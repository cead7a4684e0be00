"""Decorations in the simulators: both engines show the same body, and as dark as its inner potential says."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.scene import decoration_shapes
from tlgen.scene.decoration_shapes import Bead, CarbonEdge, Decoration, Sheet, Vesicle
from tlgen.scene.materials import CARBON, GOLD, HEADS, TAILS
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope import optics, potentials
from tlgen.simulate.multislice.multislice import Multislice
from tlgen.simulate.multislice.solids import inner_potential
from tlgen.simulate.parakeet import Parakeet
from tlgen.simulate.protocol import Engine
from tlgen.simulate.specimen import check_count
from tlgen.tilts.scheme import Tilt

SHAPE = (12, 22, 20)


def scene_of(*bodies: Decoration, shape: tuple[int, int, int] = SHAPE, voxel_size: float = 8.0) -> Scene:
    return Scene(
        shape, voxel_size, (), (), (), (), decoration_shapes.CLASS_NAMES,
        np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 4)), decorations=bodies,
    )  # fmt: skip


@cache
def ice_alone(engine: Engine, ice: float, angle: float) -> np.ndarray:
    return image(engine, ice, angle)


def image(engine: Engine, ice: float, angle: float, *bodies: Decoration) -> np.ndarray:
    """Mean over three fields of ice (or none), with a phase plate, so that potential is contrast."""
    acq = Acquisition(ice_density=ice, padding=32, phase_plate=True, defocus=0.5)
    seeds = range(3 if ice else 1)
    tilt = Tilt(0, angle, 2.0, 0.0)
    images = [engine.simulate(scene_of(*bodies), {}, acq, tilt, k, noise=False) for k in seeds]
    return np.mean(images, axis=0)


@pytest.mark.parametrize(
    ("body", "angle", "ice"),
    [
        (Bead((4, -3, 9), 28, 1), 0.0, 0.0),
        (Bead((4, -3, 9), 28, 1), 0.0, 0.94),
        (Sheet((0, 5, 0), (1, 0, 0), 1 / 400, seed=2), 0.0, 0.0),
        (Sheet((0, 5, 0), (1, 0, 0), 1 / 400, seed=2), 0.0, 0.94),
        (Vesicle((0, 0, 0), 32, 36, 3), 40.0, 0.0),
        (Vesicle((0, 0, 0), 32, 36, 3), 20.0, 0.94),
        (CarbonEdge((-1000, 0), 1010, 8, 50, 4), -25.0, 0.0),
    ],
    ids=lambda v: v.kind if hasattr(v, "kind") else f"{v:g}",
)
def test_both_engines_show_the_same_body(body: Decoration, angle: float, ice: float) -> None:
    ours, theirs = (
        image(engine, ice, angle, body) - ice_alone(engine, ice, angle)
        for engine in (Multislice(), Parakeet())
    )
    assert theirs.min() < -0.05
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > (0.98 if ice else 0.998)
    slope = (ours * theirs).sum() / (theirs**2).sum()  # contrast of ours in theirs
    assert slope == pytest.approx(1, abs=0.04 if ice else 0.015)
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.06)


def test_phase_of_a_film_is_its_inner_potential_times_its_thickness() -> None:
    """Through the middle of a film that fills the image, the wave is turned by sigma V t."""
    from tlgen.simulate.multislice import on_cpu, slabs

    film = CarbonEdge((-5000, 0), 4000, 0, 50)
    scene, acq = scene_of(film), Acquisition(ice_density=0.94)
    grid = slabs.grid_of(scene, acq)
    layout = slabs.lay_out(scene, {}, acq, Tilt(0, 0.0, 2.0, 0.0), grid)
    potential, taken, _ = on_cpu.fill(layout, acq, grid)
    middle = (
        slice(None),
        slice(grid.ny // 2 - 8, grid.ny // 2 + 8),
        slice(grid.nx // 2 - 8, grid.nx // 2 + 8),
    )
    projected = potential[middle].sum(axis=0) / grid.step**2
    assert projected == pytest.approx(inner_potential(CARBON) * 50, rel=0.01)
    covered = taken[middle].sum(axis=0) / grid.step**2
    assert covered == pytest.approx(50, abs=3)
    assert optics.interaction(300) * projected.mean() == pytest.approx(0.24, abs=0.02)  # radians


def test_inner_potentials_are_ordered_as_materials_are() -> None:
    ice = potentials.scattering().ice_mean * potentials.WATER * 0.94
    values = [ice, *map(inner_potential, (TAILS, HEADS, CARBON, GOLD))]
    assert values == sorted(values)
    assert inner_potential(GOLD) == pytest.approx(0.05901 * 236.1, rel=1e-3)


def test_too_many_atoms_are_refused_in_one_sentence() -> None:
    film = CarbonEdge((-5000, 0), 4000, 0, 400)
    scene = scene_of(film, shape=(75, 125, 125))
    with pytest.raises(
        InputError, match=r"carbon would be 40 million atoms .* takes 20 million; use multislice"
    ):
        Parakeet().simulate(scene, {}, Acquisition(), Tilt(0, 0.0, 2.0, 0.0), 1)
    check_count(scene_of(Bead((0, 0, 0), 40)))


def test_memory_counts_the_decorations_atoms() -> None:
    film = CarbonEdge((-5000, 0), 4000, 0, 40)
    bare, with_film = (Parakeet().memory(s, {}, Acquisition()) for s in (scene_of(), scene_of(film)))
    assert with_film - bare > 400 * 0.09 * 40 * 160 * 176


@pytest.mark.parametrize("voxel_size", [4.0, 8.0, 16.0])
def test_all_that_is_summed_up_in_one_pass_is_what_its_cells_give_pixel_by_pixel(voxel_size: float) -> None:
    """At the grid's edge too, where a cell's pixels lie partly outside."""
    from tlgen.simulate.multislice import slabs, solids, splat
    from tlgen.simulate.specimen import tilt_rotation

    bodies = (
        Sheet((0, 5, 0), (0.6, 0.0, 0.8), 1 / 400),
        Bead((70, -80, 9), 28),
        CarbonEdge((90, 0), 60, 8, 50),
    )
    scene, tilt = scene_of(*bodies, voxel_size=voxel_size), Tilt(0, 35.0, 2.0, 0.0)
    acq = Acquisition(voxel_size=voxel_size, padding=4)
    grid = slabs.grid_of(scene, acq)
    layout = slabs.lay_out(scene, {}, acq, tilt, grid)
    weights = [potentials.scattering("physical").integral, None]
    together = [np.zeros((layout.slabs, *grid.shape), np.float32) for _ in weights]
    solids.decorate(scene, tilt, layout.frame, together, weights)
    matrix, shift = layout.frame.transform(tilt_rotation(35.0).as_matrix(), np.zeros(3))
    parts = solids.parts(scene, grid.step)
    for found, weight in zip(together, weights, strict=True):
        expected = np.zeros_like(found)
        for body in bodies:
            for points, amounts in solids.integrate(body, scene, grid.step, [weight]):
                for offset in solids.offsets(parts):
                    each = np.ascontiguousarray(amounts[:, 0]) / np.float32(parts**2)
                    splat.place(expected, points, each, matrix, shift + offset)
        assert expected.sum() > 0
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4 * expected.max())
