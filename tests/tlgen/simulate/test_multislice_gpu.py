"""Our engine by JAX, on JAX's CPU device: the same images as NumPy's, several tilts at a time.

No setting of a recipe reaches that device; here it is put in the place of the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from catalogs.errors import InputError
from catalogs.schema import Acquisition, SampleRecord
from tlgen.molecules.molecule import Library, centred
from tlgen.scene.decoration_shapes import Bead, Sheet
from tlgen.scene.scene import Scene
from tlgen.simulate import devices as gpu
from tlgen.simulate.engine import engine
from tlgen.simulate.multislice import on_gpu, place, slabs
from tlgen.simulate.multislice.multislice import Multislice
from tlgen.tilts import misalignment
from tlgen.tilts.scheme import Tilt, TiltError
from tlrun.fan_out import Job

jax = pytest.importorskip("jax", reason="JAX is not installed")

GPU = {"device": "gpu"}
TILTS = [Tilt(0, 0.0, 2.0, 0.0), Tilt(1, 60.0, 2.0, 2.0), Tilt(2, -33.0, 2.0, 4.0)]


def scene_of(
    kinds: int = 2,
    copies: int = 3,
    decorations: tuple[Any, ...] = (),
    shape: tuple[int, int, int] = (14, 16, 18),
) -> tuple[Scene, Library]:
    """Balls of atoms of some sizes, the larger of more than one portion."""
    rng = np.random.default_rng(3)
    library = {}
    for kind in range(kinds):
        radius = 12.0 + 8 * kind
        inside = rng.uniform(-radius, radius, (40000, 3))
        inside = inside[(inside**2).sum(axis=1) < radius**2][: round(0.09 * 4.2 * radius**3)]
        body = centred(
            f"ball{kind}", rng.choice([6, 7, 8, 16], len(inside)), inside, np.zeros(len(inside), bool)
        )
        library[body.digest] = body
    n = kinds * copies
    quaternions = rng.standard_normal((n, 4))
    room = np.array(shape[::-1]) * 8.0 - 50
    names = tuple(m.name for m in library.values())
    return Scene(
        shape, 8.0, tuple(library), names, (-1,) * kinds, (1,) * kinds, ("m", "gold", "membrane"),
        np.arange(n) % kinds, rng.uniform(-0.5, 0.5, (n, 3)) * room,
        quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True), decorations=decorations,
    ), library  # fmt: skip


def images(
    scene: Scene,
    library: Library,
    acq: Acquisition,
    tilts: list[Tilt] = TILTS,
    seed: int = 5,
    noise: bool = False,
) -> list[np.ndarray]:
    return Multislice().simulate_together([(scene, t) for t in tilts], library, acq, seed, noise=noise).images


def agree(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == np.float32
        assert np.abs(a - b).max() < 1e-5  # of vacuum's 1
        assert np.abs(a - b).max() < 5e-4 * b.std()
        assert np.sqrt(((a - b) ** 2).mean()) < 1e-4 * b.std()


DECORATIONS = (Bead((30, 20, 10), 25, 7), Sheet((0, 0, -30), (0.2, 0.1, 1.0), 1))
WITH_ALL = {"contrast": "physical", "contamination": 3000.0, "binning": "fourier", "energy_filter": True}


@pytest.mark.parametrize(
    ("settings", "decorations"),
    [
        ({}, ()),
        ({"ice_density": 0.0, "contrast": 2.5, "astigmatism": 0.4}, DECORATIONS),
        ({"phase_plate": True, "defocus": 0.5}, DECORATIONS),
        (WITH_ALL | {"ice_wedge": 5.0}, DECORATIONS),
        ({"contrast": "physical", "ice_density": 0.0, "voltage": 200.0}, ()),
    ],
)
def test_same_images_as_numpy(device: Any, settings: dict[str, Any], decorations: tuple[Any, ...]) -> None:
    scene, library = scene_of(decorations=decorations)
    acq = Acquisition.model_validate({"padding": 40} | settings)
    agree(images(scene, library, acq.model_copy(update=GPU)), images(scene, library, acq))


def test_same_mean_before_the_counts_whatever_the_detector(device: Any) -> None:
    from tlgen.simulate.multislice import on_cpu

    scene, library = scene_of()
    for detector in ("parakeet", "counting"):
        acq = Acquisition(padding=40, detector=detector)
        grid = slabs.grid_of(scene, acq)
        layouts = [slabs.lay_out(scene, library, acq, tilt, grid) for tilt in TILTS]
        theirs = [on_cpu.simulate(layout, acq, grid, 5, detected=True) for layout in layouts]
        ours = on_gpu.simulate(device, layouts, acq.model_copy(update=GPU), grid, 5, detected=True)
        assert ours is not None
        agree(ours, theirs)
        plain = on_cpu.simulate(layouts[0], acq, grid, 5, detected=False)
        assert np.abs(theirs[0] - plain).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("voxel_size", "shape"), [(4.0, (24, 32, 31)), (13.0, (10, 13, 12))])
def test_same_images_at_other_voxel_sizes(
    device: Any, voxel_size: float, shape: tuple[int, int, int]
) -> None:
    scene, library = scene_of()
    scene = replace(scene, shape=shape, voxel_size=voxel_size)
    acq = Acquisition(voxel_size=voxel_size, padding=40)
    agree(images(scene, library, acq.model_copy(update=GPU)), images(scene, library, acq))


def test_empty_scene_is_vacuum(device: Any) -> None:
    scene, library = scene_of(copies=0)
    for image in images(scene, library, Acquisition(ice_density=0, **GPU)):
        assert np.allclose(image, 1, atol=1e-5)


def test_pseudo_atoms_count_by_their_occupancy(device: Any) -> None:
    scene, library = scene_of(kinds=1, copies=1)
    (body,) = library.values()
    model = replace(body, occupancy=np.linspace(0.5, 3, body.n_atoms), sigma=np.full(body.n_atoms, 2.0))
    scene = replace(scene, digests=(model.digest,))
    acq = Acquisition(padding=40)
    agree(
        images(scene, {model.digest: model}, acq.model_copy(update=GPU)),
        images(scene, {model.digest: model}, acq),
    )


def test_scene_may_be_another_at_each_tilt(device: Any) -> None:
    """As a misaligned series has it."""
    scene, library = scene_of(decorations=(Bead((30, 20, 10), 25, 7),))
    tilts = [replace(t, error=TiltError(0.5 * t.index, 0.3, 1.0, (9.0 * t.index, -5.0))) for t in TILTS]
    views = [misalignment.seen(scene, tilt) for tilt in tilts]
    acq = Acquisition(padding=40)
    ours, theirs = (
        Multislice().simulate_together(views, library, a, 5, noise=False).images
        for a in (acq.model_copy(update=GPU), acq)
    )
    agree(ours, theirs)


class TestTogether:
    def test_a_batch_is_one_by_one(self, device: Any) -> None:
        scene, library = scene_of(decorations=(Bead((30, 20, 10), 25, 7),))
        acq = Acquisition(padding=40, **GPU)
        together = images(scene, library, acq)
        agree(together, [images(scene, library, acq, [tilt])[0] for tilt in TILTS])

    def test_same_seed_same_bits_with_counts_too(self, device: Any) -> None:
        scene, library = scene_of()
        acq = Acquisition(padding=40, **GPU)
        first, again = (images(scene, library, acq, noise=True) for _ in range(2))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        other = images(scene, library, acq, seed=6, noise=True)
        assert not np.array_equal(first[0], other[0])
        assert all((image == np.rint(image)).all() for image in first)

    def test_sums_are_the_same_in_any_order(self, device: Any) -> None:
        scene, library = scene_of()
        acq = Acquisition()
        grid = slabs.grid_of(scene, acq)
        layout = slabs.lay_out(scene, library, acq, TILTS[1], grid)
        turned = replace(layout, standing=layout.standing[::-1])
        shape = (1, layout.slabs, *grid.shape)
        for put in (place.atoms, place.cells):
            a, b = (put(device, [each], acq, grid, shape) for each in (layout, turned))
            assert np.array_equal(a.whole, b.whole)
            assert int(np.asarray(a.whole).min()) == 0
            assert int(np.asarray(a.whole).max()) > 1e5

    def test_too_little_memory_makes_the_batch_smaller(
        self, device: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scene, library = scene_of()
        acq = Acquisition(padding=40, **GPU)
        usual = images(scene, library, acq)
        sizes: list[int] = []
        batch = on_gpu._batch

        def counted(*arguments: Any) -> Any:
            sizes.append(len(arguments[1]))
            return batch(*arguments)

        monkeypatch.setattr(on_gpu, "_batch", counted)
        needed = _needed(scene, library, acq, monkeypatch)
        for free, expected in ((10 * needed, [3]), (round(1.01 * needed), [1, 1, 1])):
            monkeypatch.setattr(gpu, "free_memory_of", lambda _, free=free: free)
            sizes.clear()
            agree(images(scene, library, acq), usual)
            assert sizes == expected

    def test_memory_that_runs_out_makes_the_batch_smaller(
        self, device: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scene, library = scene_of()
        acq = Acquisition(padding=40, **GPU)
        usual = images(scene, library, acq)
        batch, most = on_gpu._batch, 1

        def limited(device: Any, layouts: Any, together: int, *rest: Any) -> Any:
            if together > most:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
            return batch(device, layouts, together, *rest)

        monkeypatch.setattr(on_gpu, "_batch", limited)
        agree(images(scene, library, acq), usual)
        most = 0
        with pytest.raises(InputError, match=r"too small for a single tilt.*device: cpu"):
            images(scene, library, acq)
        # what is open to a choice is computed here instead, and says so
        views = [(scene, tilt) for tilt in TILTS]
        found = Multislice().simulate_together(
            views, library, acq.model_copy(update={"device": "auto"}), 5, noise=False
        )
        assert found.device == "CPU"
        agree(found.images, usual)

    def test_other_errors_are_told(self, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        scene, library = scene_of(kinds=1, copies=1)

        def broken(*_: Any) -> Any:
            raise jax.errors.JaxRuntimeError("INTERNAL: the driver is gone")

        monkeypatch.setattr(on_gpu, "_batch", broken)
        with pytest.raises(jax.errors.JaxRuntimeError, match="the driver is gone"):
            images(scene, library, Acquisition(**GPU))

    def test_more_matter_than_there_is_is_refused(self, device: Any) -> None:
        scene, library = scene_of(kinds=1, copies=1)
        n = 3000
        heap = replace(
            scene,
            which=np.zeros(n, int),
            positions=np.zeros((n, 3)),
            quaternions=np.tile([0.0, 0, 0, 1], (n, 1)),
        )
        with pytest.raises(InputError, match="one place has more than 200 V"):
            images(heap, library, Acquisition(padding=0, ice_density=0, **GPU), TILTS[:1])


def _needed(scene: Scene, library: Library, acq: Acquisition, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that a tilt takes, as a refusal says them."""
    found: list[int] = []
    choose = gpu.choose

    def noted(device: str, number: int, needed: int, free: int | None = None) -> bool:
        found.append(needed)
        return choose(device, number, needed, free)

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "choose", noted)
        images(scene, library, acq)
    return found[-1]


class TestChoice:
    def test_no_gpu_is_a_refusal_in_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scene, library = scene_of()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(gpu, "count", lambda: 0)
        with pytest.raises(
            InputError, match=r"device: gpu was requested, but CUDA finds no GPU here.*cpu or auto"
        ):
            images(scene, library, Acquisition(**GPU))
        with pytest.raises(InputError, match="device: gpu was requested"):
            Multislice().check_device(Acquisition(**GPU))
        Multislice().check_device(Acquisition(device="auto"))

    def test_jax_without_cuda_is_a_refusal_and_its_cpu_is_never_taken(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scene, library = scene_of()
        monkeypatch.setattr(gpu, "count", lambda: 1)
        monkeypatch.setattr(gpu, "free_memory", lambda: 10**12)
        with pytest.raises(InputError, match=r"device: gpu needs JAX for CUDA .*template-learning\[gpu\]"):
            images(scene, library, Acquisition(**GPU))
        views = [(scene, TILTS[0])]
        found = Multislice().simulate_together(views, library, Acquisition(device="auto"), 5)
        assert found.device == "CPU"
        assert np.array_equal(
            found.images[0], images(scene, library, Acquisition(), TILTS[:1], noise=True)[0]
        )

    def test_too_little_memory_for_one_tilt(self, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        scene, library = scene_of()
        monkeypatch.setattr(gpu, "free_memory_of", lambda _: 10_000_000)
        with pytest.raises(InputError, match=r"has 9\.54 MiB free and a tilt of this scene takes \S+ [MG]iB"):
            images(scene, library, Acquisition(**GPU))
        views = [(scene, TILTS[0])]
        assert Multislice().simulate_together(views, library, Acquisition(device="auto"), 5).device == "CPU"

    def test_more_pixels_than_the_device_can_count(
        self, device: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert place.tilts_that_fit((32, 4096, 4096)) == 3
        assert place.tilts_that_fit((32, 8192, 8192)) == 0
        scene, library = scene_of()
        monkeypatch.setattr(place, "MOST", 1000)
        with pytest.raises(InputError, match=r"billion pixels in all slabs, more than a GPU can address"):
            images(scene, library, Acquisition(**GPU))
        views = [(scene, TILTS[0])]
        assert Multislice().simulate_together(views, library, Acquisition(device="auto"), 5).device == "CPU"

    def test_what_computed_is_told(self, device: Any) -> None:
        scene, library = scene_of(kinds=1, copies=1)
        views = [(scene, TILTS[0])]
        for asked, told in (("cpu", "CPU"), ("gpu", f"cpu, JAX {jax.__version__}")):
            assert Multislice().simulate_together(views, library, Acquisition(device=asked), 5).device == told

    def test_a_call_takes_the_tilts_that_a_gpu_computes_at_once_or_a_core_in_a_quarter_of_a_second(
        self,
    ) -> None:
        ours, theirs = engine("multislice"), engine("parakeet")
        large, small, smaller = (64, 512, 512), (44, 88, 88), (16, 24, 25)
        assert ours.tilts_a_call(Acquisition(**GPU), large) == on_gpu.TILTS
        for acq in (Acquisition(voxel_size=10), Acquisition(voxel_size=10, device="auto")):
            assert ours.tilts_a_call(acq, large) == 1
            assert 1 < ours.tilts_a_call(acq, small) < ours.tilts_a_call(acq, smaller)
        assert theirs.tilts_a_call(Acquisition(engine="parakeet", **GPU), smaller) == 1

    def test_host_memory_counts_the_noise(self) -> None:
        scene, library = scene_of()
        here, there = (Multislice().memory(scene, library, Acquisition(device=d)) for d in ("cpu", "gpu"))
        assert there > here
        grid = slabs.grid_of(scene, Acquisition())
        assert on_gpu.host_memory(grid, 8, 8) == 8 * 8 * grid.nx * grid.ny * 4
        assert on_gpu.host_memory(grid, 9, 2) == 2 * 16 * grid.nx * grid.ny * 4
        assert on_gpu.host_memory(replace(grid, nx=8192, ny=8192), 64, 8) == 64 * 8192**2 * 4

    def test_free_memory_is_what_cuda_has_and_what_jax_holds_unused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @dataclass
        class Device:
            stats: dict[str, int] | None

            def memory_stats(self) -> dict[str, int] | None:
                return self.stats

        without_pool = {"bytes_in_use": 3, "bytes_limit": 50}
        stats = without_pool | {"pool_bytes": 10}
        for free, known, told in (
            (20, stats, 27),
            (100, stats, 47),
            (None, stats, 47),
            (20, without_pool, 47),
            (20, None, 20),
            (None, None, None),
        ):
            monkeypatch.setattr(gpu, "free_memory", lambda free=free: free)
            assert gpu.free_memory_of(Device(known)) == told


def followed(job: Job) -> tuple[list[tuple[str, int]], SampleRecord]:
    """Run a sample's calls here; which there were, how many of each, and the record."""
    steps, calls_made = job.steps(), []
    calls = next(steps)
    while True:
        calls_made.append((calls[0].kind, len(calls)))
        try:
            calls = steps.send([call.function(*call.args) for call in calls])
        except StopIteration as stop:
            return calls_made, stop.value.record


class TestCorpus:
    def test_series_is_made_in_groups_and_its_record_tells_the_device(
        self, device: Any, tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two samples alike but for the device, in this process."""
        from catalogs.corpus.catalog import Catalog
        from tlgen.recipes.recipe import Recipe
        from tlgen.recipes.samples import expand
        from tlgen.runs import jobs, prepare_structures

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(on_gpu, "TILTS", 4)
        series, told = {}, {}
        for name in ("cpu", "gpu"):
            acquisition = recipe["acquisition"] | {"device": name}
            made = Recipe.model_validate(recipe | {"acquisition": acquisition})
            url = str(tmp_path / name)
            wanted = prepare_structures.preparations(made)
            catalog = Catalog.create(
                url, classes=prepare_structures.class_infos(made), recipe={}, name="balls"
            )
            prepared = [prepare_structures.prepare(url, each) for each in wanted]
            spec = expand(made, {p.key: p.count for p in wanted})[0]
            classes = tuple(info.name for info in catalog.classes)
            made_by, record = followed(jobs.sample_job(url, spec, prepared, classes, {}))
            series[name], told[name] = made_by, record.software["device"]
        assert series["cpu"] == [("pack", 1), ("simulate_tilts", 1), ("finish", 1)]
        assert series["gpu"] == [("check_device", 1), ("pack", 1), ("simulate_tilts", 2), ("finish", 1)]
        assert told == {"cpu": "CPU", "gpu": f"cpu, JAX {jax.__version__}"}


def test_program_simulates_together_and_tells_the_device(
    device: Any, tmp_path: Path, recipe: dict[str, Any], tlgen: Callable[..., tuple[int, str, str]]
) -> None:
    path = tmp_path / "balls.yaml"
    path.write_text(yaml.safe_dump(recipe | {"acquisition": recipe["acquisition"] | GPU}))
    assert tlgen("pack", path, "--to", tmp_path / "scene")[0] == 0
    status, out, err = tlgen("simulate", tmp_path / "scene", path, "--to", tmp_path / "a.mrc")
    assert status == 0, err
    assert f"device cpu, JAX {jax.__version__}" in out
    assert out.count("CPU-s") == 7


def test_parakeet_simulates_one_after_the_other(device: Any) -> None:
    scene, library = scene_of(kinds=1, copies=1, shape=(6, 8, 9))
    acq = Acquisition(engine="parakeet", ice_density=0.0, padding=0)
    views = [(scene, tilt) for tilt in TILTS[:2]]
    found = engine("parakeet").simulate_together(views, library, acq, 1, noise=False)
    assert [image.shape for image in found.images] == [(8, 9)] * 2
    assert found.device == "CPU"


def test_programs_can_be_lowered_for_cuda(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: in single precision throughout, and without products that a GPU would round."""
    from jax import export

    lowered = {}

    def watched(module: Any) -> Any:
        program = module._program()

        def call(*arguments: Any) -> Any:
            lowered[module] = export.export(program, platforms=["cuda"])(*arguments)
            return program(*arguments)

        return lambda: call

    for module in (on_gpu, place):
        monkeypatch.setattr(module, "_program", watched(module))
    scene, library = scene_of(kinds=1, copies=1)
    images(scene, library, Acquisition(padding=0, contrast="physical", **GPU))
    assert set(lowered) == {on_gpu, place}
    for found in lowered.values():
        assert found.platforms == ("cuda",)
        assert "xf64" not in found.mlir_module()
        assert "stablehlo.dot" not in found.mlir_module()
