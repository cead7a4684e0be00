"""What a recipe may ask of the microscope, in both engines' pictures; and what is refused at the door."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from catalogs.corpus.sample_table import COLUMNS
from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library, centred
from tlgen.recipes.drawn import ACQUISITION_UNITS, QUALITIES
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.recipe_file import json_schema, read_recipe
from tlgen.recipes.samples import draw_acquisition, expand
from tlgen.scene.decoration_shapes import Bead
from tlgen.scene.scene import Scene
from tlgen.simulate import checks, devices, specimen
from tlgen.simulate.engine import engine
from tlgen.simulate.parakeet import Parakeet
from tlgen.tilts.scheme import Tilt

ENGINES = ["parakeet", "multislice"]
Tlgen = Callable[..., tuple[int, str, str]]


def balls(
    places: list[tuple[float, float, float]], shape: tuple[int, int, int] = (14, 20, 22)
) -> tuple[Scene, Library]:
    """Balls of 600 atoms, 40 Å wide."""
    rng = np.random.default_rng(4)
    inside = rng.uniform(-20, 20, (3000, 3))
    inside = inside[(inside**2).sum(axis=1) < 400][:600]
    molecule = centred("ball", rng.choice([6, 7, 8], len(inside)), inside, np.zeros(len(inside), bool))
    n = len(places)
    return Scene(
        shape, 8.0, (molecule.digest,), ("ball",), (-1,), (1,), ("ball",), np.zeros(n, np.int64),
        np.array(places, float).reshape(n, 3), np.tile([0.0, 0, 0, 1], (n, 1)),
    ), {molecule.digest: molecule}  # fmt: skip


def image(
    name: str, scene: Scene, library: Library, angle: float = 0.0, noise: bool = False, **more: object
) -> np.ndarray:
    words = {"engine": name, "padding": 30, "ice_density": 0.0, **more}
    acq = Acquisition.model_validate(words)
    simulator = engine(name)
    simulator.check(acq)
    simulator.check_scene(scene, library, acq)
    return simulator.simulate(scene, library, acq, Tilt(0, angle, 2.0, 0.0), 1, noise=noise)


@pytest.mark.parametrize("name", ENGINES)
class TestPictures:
    def test_astigmatism_stretches_the_point_spread(self, name: str) -> None:
        """Fresnel's fringes are wider where the underfocus is larger."""
        scene, library = balls([(0, 0, 0)], (10, 40, 40))
        dark = 1 - image(name, scene, library, defocus=6.0, astigmatism=8.0)
        turned = 1 - image(name, scene, library, defocus=6.0, astigmatism=8.0, astigmatism_angle=90.0)
        # the first bright ring's place along each axis
        x, y = (int(np.argmin(row[20:])) for row in (dark[20], dark[:, 20]))
        assert x > y
        assert np.allclose(turned, dark.T, atol=0.35 * dark.max())
        assert np.abs(turned - dark).max() > 0.1 * dark.max()

    def test_amplitude_contrast_shows_protein_in_focus(self, name: str) -> None:
        scene, library = balls([(0, 0, 0)])
        middle = (slice(8, 12), slice(9, 13))
        focused, absorbing = (
            image(name, scene, library, defocus=0.0, amplitude_contrast=a)[middle].mean() for a in (0.0, 0.1)
        )
        assert absorbing < focused - 0.003

    def test_beam_tilt_leaves_the_picture_in_its_place(self, name: str) -> None:
        scene, library = balls([(0, 0, 0)])
        straight, tilted = (
            1 - image(name, scene, library, defocus=1.0, beam_tilt_x=b, spherical_aberration=20.0)
            for b in (0.0, 15.0)
        )
        assert np.abs(straight - tilted).max() > 0.01 * straight.max()
        x = np.arange(22)
        centres = [
            float((i.clip(0.3 * i.max()) * x).sum() / i.clip(0.3 * i.max()).sum()) for i in (straight, tilted)
        ]
        assert abs(centres[0] - centres[1]) < 0.1

    def test_energy_filter_darkens_by_the_path_through_tilted_ice(self, name: str) -> None:
        """Slab of thickness t, tilted by a: exp(-t / cos a / mean free path)."""
        scene, library = balls([])
        for angle in (0.0, 60.0):
            pair = [
                image(name, scene, library, angle, ice_density=0.9, energy_filter=on, mean_free_path=500.0)
                for on in (False, True)
            ]
            expected = np.exp(-112 / np.cos(np.radians(angle)) / 500)
            assert pair[1].mean() / pair[0].mean() == pytest.approx(expected, rel=1e-3)

    def test_detectors_count_what_they_say(self, name: str) -> None:
        scene, library = balls([])
        shares = {"parakeet": 0.9286, "counting": 0.9286, "pixel": 1.0}  # at 2 electrons a pixel
        for detector, share in shares.items():
            seen = image(name, scene, library, noise=True, detector=detector)
            assert seen.mean() == pytest.approx(128 * share, rel=0.01)

    def test_tilted_ice_turns_with_the_stage(self, name: str) -> None:
        """Tilted back by its own tilt, the layer is level again: its random field is even, and no thicker."""
        scene, library = balls([], (10, 16, 60))
        level = image(name, scene, library, 0.0, ice_density=0.94, ice_tilt=0.0)
        back = image(name, scene, library, 20.0, ice_density=0.94, ice_tilt=20.0)
        away = image(name, scene, library, -20.0, ice_density=0.94, ice_tilt=20.0)
        thick = 10 * 8 + np.tan(np.radians(20)) * 480
        inner = (slice(None), slice(15, 45))
        # the noise's variance grows with the way through ice
        assert back[inner].var() / level[inner].var() == pytest.approx(
            thick * np.cos(np.radians(20)) / 80, rel=0.45
        )
        assert away[inner].var() > back[inner].var()

    def test_contamination_stands_on_the_ice_and_not_in_it(self, name: str) -> None:
        """A lump of water in vacuum is as dark as its inner potential says, and moves with its height."""
        from tlgen.simulate.microscope import contamination

        scene, library = balls([], (14, 40, 40))
        words = {"contamination": 2000.0, "contamination_size": 80.0, "defocus": 0.0, "phase_plate": True}
        acq = Acquisition.model_validate({"engine": name, **words})
        found = contamination.lumps(scene, acq, 1)
        assert 1 < len(found) < 40
        clean, dirty = (image(name, scene, library, **more) for more in ({}, words))
        assert np.abs(clean - 1).max() < 1e-4
        dark = 1 - dirty
        for angle in (0.0, 40.0):
            a = np.radians(angle)
            dark = 1 - image(name, scene, library, angle, **words)
            inside = []
            for lump in found:
                x, y, z = lump.centre
                assert abs(z) == pytest.approx(14 * 4 + lump.radius)
                column = (x * np.cos(a) + z * np.sin(a)) / 8 + 19.5
                row = y / 8 + 19.5
                if 2 < column < 37 and 2 < row < 37:
                    inside.append(dark[round(row), round(column)])
            assert inside
            assert np.mean(inside) > dark.mean() + dark.std()
        assert np.array_equal(dirty, image(name, scene, library, **words))

    def test_phase_plate_of_half_the_shift_shows_less(self, name: str) -> None:
        scene, library = balls([(0, 0, 0)])
        middle = (slice(8, 12), slice(9, 13))
        shown = [
            1 - image(name, scene, library, defocus=0.0, phase_plate=True, phase_shift=s)[middle].mean()
            for s in (90.0, 45.0)
        ]
        assert shown[1] / shown[0] == pytest.approx(np.sin(np.pi / 4), abs=0.12)

    def test_a_tilt_beyond_80_degrees_and_strange_detectors_are_refused(self, name: str) -> None:
        for more, words in (
            ({"tilt_max": 84.0}, r"tilt_max: a tilt of 84° is beyond 80°"),
            ({"tilt_angle_offset": 25.0}, r"tilt_max: a tilt of 85° with tilt_angle_offset is beyond 80°"),
            ({"tilt_min": -81.0}, r"tilt_min"),
            ({"detector": "k4"}, r"detector: 'k4' is neither"),
            ({"voltage": 300000.0}, r"voltage: no microscope has 300000 kV"),
            ({"defocus": 25000.0}, r"defocus: 25000 µm is beyond 100 µm"),
        ):
            with pytest.raises(InputError, match=words):
                engine(name).check(Acquisition.model_validate({"engine": name, **more}))

    def test_molecules_out_of_the_box_or_the_ice_are_named(self, name: str) -> None:
        acq = Acquisition.model_validate({"engine": name})
        for place, words in (
            ((0, 0, 48), r"molecule 2, ball, at \(0, 0, 48\) Å.*out of the ice"),
            ((130, 0, 0), r"molecule 2, ball.*no atom in the box of 176 x 160 x 112 Å"),
        ):
            scene, library = balls([(0, 0, 0), place])
            with pytest.raises(InputError, match=words):
                engine(name).check_scene(scene, library, acq)
        scene, library = balls([(85, 0, 0)])  # cut by the side, as in a field of view
        engine(name).check_scene(scene, library, acq)


def test_multislice_shows_a_wedge_of_ice_and_parakeet_says_that_it_cannot() -> None:
    scene, library = balls([], (10, 24, 60))
    wedge = image("multislice", scene, library, ice_density=0.94, ice_wedge=20.0)
    assert wedge[:, 38:58].var() > 1.3 * wedge[:, 2:22].var()
    with pytest.raises(InputError, match=r"ice_wedge: .*parallel faces.*engine: multislice"):
        engine("parakeet").check(Acquisition(engine="parakeet", ice_wedge=1.0))
    with pytest.raises(InputError, match="parakeet_faults"):
        engine("multislice").check(Acquisition(parakeet_faults="as_published"))
    with pytest.raises(InputError, match="ice_tilt"):
        engine("parakeet").check(Acquisition(engine="parakeet", parakeet_faults="as_published", ice_tilt=3.0))


def test_molecules_in_each_other_are_named() -> None:
    scene, library = balls([(0, 0, 0), (50, 30, 0), (20, 0, 0)])
    with pytest.raises(InputError, match=r"molecules 1 \(ball\) and 3 \(ball\) overlap"):
        checks.check_overlaps(scene, library)
    scene, library = balls([(0, 0, 0), (50, 30, 0), (-42, 0, 0)])
    checks.check_overlaps(scene, library)


@pytest.mark.parametrize("name", ENGINES)
def test_decorations_out_of_the_box_and_molecules_in_them_are_named(name: str) -> None:
    acq = Acquisition.model_validate({"engine": name})
    scene, library = balls([(0, 0, 0), (-50, 0, 0)])
    for centre in ((150.0, 0.0, 0.0), (0.0, 0.0, -80.0)):
        away = replace(scene, decorations=(Bead(centre, 20.0),), class_names=("ball", "gold"))
        with pytest.raises(InputError, match=r"a bead from .* is outside of the box of 176 x 160 x 112 Å"):
            engine(name).check_scene(away, library, acq)
    cut = replace(scene, decorations=(Bead((85.0, 0.0, 40.0), 20.0),), class_names=("ball", "gold"))
    engine(name).check_scene(cut, library, acq)
    checks.check_overlaps(cut, library)
    inside = replace(scene, decorations=(Bead((0.0, 0.0, 0.0), 12.0),), class_names=("ball", "gold"))
    with pytest.raises(InputError, match=r"molecule 1 \(ball\) reaches 1\d Å into a bead \(gold\)"):
        checks.check_overlaps(inside, library)
    # packing counts on voxels: 3 Å of a ball's 20 are left to it
    beside = replace(scene, decorations=(Bead((0.0, 0.0, 37.0), 20.0),), class_names=("ball", "gold"))
    checks.check_overlaps(beside, library)


def test_decorations_of_too_many_atoms_are_refused_before_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specimen, "MOST_ATOMS", 100)
    scene = Scene(
        (14, 20, 22), 8.0, (), (), (), (), ("gold",), np.zeros(0, int), np.zeros((0, 3)), np.zeros((0, 4)),
        decorations=(Bead((0.0, 0.0, 0.0), 30.0),),
    )  # fmt: skip
    with pytest.raises(InputError, match="decorations: gold would be"):
        Parakeet().check_scene(scene, {}, Acquisition(engine="parakeet"))
    engine("multislice").check_scene(scene, {}, Acquisition())


def test_an_element_without_scattering_factors_is_named() -> None:
    strange = centred("ball", [6, 104], [[0, 0, 0], [3, 0, 0]], [False, False])
    with pytest.raises(InputError, match=r"structure ball: .*element Rf"):
        checks.check_molecule(strange)


def test_contamination_of_too_many_atoms_is_refused_by_parakeet() -> None:
    scene, _ = balls([])
    acq = Acquisition(engine="parakeet", contamination=2000.0, contamination_size=800.0)
    with pytest.raises(InputError, match=r"contamination: .* million atoms"):
        Parakeet().check_scene(scene, {}, acq)


def test_expected_atoms_of_contamination_are_those_of_many_seeds() -> None:
    from tlgen.scene import decoration_density
    from tlgen.simulate.microscope import contamination

    scene, _ = balls([], (14, 60, 60))
    acq = Acquisition(contamination=5000.0, contamination_size=80.0)
    counted = np.mean(
        [
            decoration_density.count_atoms(contamination.lumps(scene, acq, seed), scene.box)
            for seed in range(10)
        ]
    )
    assert counted == pytest.approx(contamination.expected_atoms(scene, acq), rel=0.1)


class TestGpu:
    def test_none_is_a_refusal_and_never_silently_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(
            InputError, match=r"device: gpu was requested.*CUDA_VISIBLE_DEVICES is ''.*cpu or auto"
        ):
            devices.choose("gpu", 0, 0)
        assert not devices.choose("auto", 0, 0)
        assert not devices.choose("cpu", 2, 0)
        assert devices.choose("gpu", 1, 0)

    def test_too_little_memory_is_a_refusal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "free_memory", lambda: 2_000_000_000)
        with pytest.raises(InputError, match=r"1\.86 GiB free .* takes 3\.26 GiB"):
            devices.choose("gpu", 1, 3_500_000_000)
        assert not devices.choose("auto", 1, 3_500_000_000)
        assert devices.choose("auto", 1, 1_000_000_000)

    def test_parakeet_asks_where_it_simulates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import multem

        monkeypatch.setattr(multem, "number_of_gpu_available", lambda: 0)
        scene, library = balls([(0, 0, 0)])
        acq = Acquisition(engine="parakeet", device="gpu")
        Parakeet().check_scene(scene, library, acq)  # packed where there need be none
        with pytest.raises(InputError, match="device: gpu was requested"):
            Parakeet().check_device(acq)
        with pytest.raises(InputError, match="device: gpu was requested"):
            Parakeet().simulate(scene, library, acq, Tilt(0, 0.0, 2.0, 0.0), 1)
        monkeypatch.setattr(multem, "number_of_gpu_available", lambda: 1)
        from tlgen.simulate import parakeet

        system = parakeet._system("gpu")
        assert (system.device, system.gpu_device) == ("device", 0)
        assert parakeet._system("cpu").device == "host"
        seen = Parakeet().simulate_together([(scene, Tilt(0, 0.0, 2.0, 0.0))], library, Acquisition(), 1)
        assert seen.device == "CPU"


class TestRecipe:
    def test_quality_sets_slices_and_padding_and_yields_to_what_is_given(self) -> None:
        for word, values in QUALITIES.items():
            made = draw_acquisition({"quality": word}, 1)
            assert (made.slice_thickness, made.padding) == (values["slice_thickness"], values["padding"])
        mixed = draw_acquisition({"quality": "paper", "padding": 40}, 1)
        assert (mixed.slice_thickness, mixed.padding) == (3.0, 40)
        # what was done before there was the word
        assert draw_acquisition({}, 1) == draw_acquisition({"quality": "balanced"}, 1) == Acquisition()

    def test_quality_is_checked_and_described(self) -> None:
        content = {
            "name": "r", "shape": [16, 16, 16], "targets": {"a": {"structures": ["3enl"], "count": 1}},
            "samples": {"train": {}},
        }  # fmt: skip
        with pytest.raises(
            ValueError, match="'papper' is not one of paper, balanced, draft; did you mean 'paper'"
        ):
            Recipe.model_validate({**content, "acquisition": {"quality": "papper"}})
        described = json_schema()["properties"]["acquisition"]
        assert "draft: 10 Å" in json.dumps(described, ensure_ascii=False)
        both = Recipe.model_validate(
            {**content, "samples": {"train": {"grid": {"quality": ["paper", "draft"]}}}}
        )
        assert [s.acquisition.slice_thickness for s in expand(both, {"x": 1})] == [3.0, 10.0]
        assert all(
            spec.acquisition.slice_thickness == 3 and spec.acquisition.padding == 100
            for spec in expand(read_recipe("ribosome"), {"x": 1})
        )

    def test_a_detectors_file_travels_in_the_sample(self, tmp_path: Path) -> None:
        (tmp_path / "camera.csv").write_text("frequency,mtf,dqe\n0,1,0.9\n0.5,0.5,0.4\n")
        (tmp_path / "r.yaml").write_text(yaml.safe_dump({
            "extends": "demo", "name": "r", "acquisition": {"detector": "camera.csv"},
        }))  # fmt: skip
        specs = expand(read_recipe(str(tmp_path / "r.yaml")), {"x": 1})
        (tmp_path / "camera.csv").unlink()
        for spec in specs:
            assert spec.acquisition.detector == "camera"
            assert spec.acquisition.detector_curve == "0:1:0.9, 0.5:0.5:0.4"
            engine(spec.acquisition.engine).check(spec.acquisition)

    def test_options_have_units_and_columns_and_are_drawn(self) -> None:
        words = {
            "astigmatism": "2000 Å", "beam_tilt_x": "500 urad", "phase_plate_radius": "0.05 1/nm",
            "amplitude_contrast": 0.07, "ice_wedge": "2 deg",
        }  # fmt: skip
        read = Recipe.model_validate({
            "name": "r", "shape": [16, 16, 16], "targets": {"a": {"structures": ["3enl"], "count": 1}},
            "samples": {"train": {}}, "acquisition": words,
        })  # fmt: skip
        made = expand(read, {"x": 1})[0].acquisition
        assert (made.astigmatism, made.beam_tilt_x, made.phase_plate_radius) == (0.2, 0.5, 0.005)
        assert set(words) <= set(COLUMNS)
        assert set(words) <= set(ACQUISITION_UNITS)

    @pytest.mark.parametrize("end", ["tilt_min", "tilt_max"])
    def test_a_range_beside_one_of_its_ends_is_refused(self, end: str) -> None:
        """As where one recipe extends another that has the range."""
        with pytest.raises(InputError, match=f"tilt_range and {end} both set .*tilt_range: null"):
            draw_acquisition({"tilt_range": 60, end: 50.0 if end == "tilt_max" else -50.0}, 1)

    def test_a_strange_contrast_is_told_in_plain_words(self) -> None:
        content = {
            "name": "r", "shape": [16, 16, 16], "targets": {"a": {"structures": ["3enl"], "count": 1}},
            "samples": {"train": {}}, "acquisition": {"contrast": "abtem"},
        }  # fmt: skip
        with pytest.raises(
            ValueError, match=r"contrast: must be parakeet, physical or a number [^,]*, not abtem"
        ):
            Recipe.model_validate(content)

    @pytest.mark.parametrize("dose", [0, -10])
    def test_no_dose_is_refused(self, dose: float) -> None:
        with pytest.raises(InputError, match="acquisition: dose: "):
            draw_acquisition({"dose": dose}, 1)


PEAK = """
import sys
sys.path.insert(0, sys.argv[1])
import test_microscope as t
def now(word):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(word))
places = [(x, y, z) for x in range(-220, 221, 20) for y in range(-220, 221, 20) for z in (-30, 0, 30)]
scene, library = t.balls(places, (14, 60, 60))
acq = t.Acquisition(engine="parakeet", slice_thickness=20.0)
tilt = t.Tilt(0, 0.0, 2.0, 0.0)
import multem
small, few = t.balls([(0, 0, 0)], (4, 8, 8))
t.Parakeet().simulate(small, few, acq, tilt, 1)  # libraries are loaded
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = now("VmRSS")
t.Parakeet().simulate(scene, library, acq, tilt, 1)
print(now("VmHWM") - before, t.Parakeet().memory(scene, library, acq))
"""


@pytest.mark.slow
def test_memory_is_what_a_call_takes_at_most() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(Path(__file__).parent)],
        capture_output=True, text=True, check=True, env={**os.environ},
    )  # fmt: skip
    taken, estimated = map(int, done.stdout.split())
    assert 0.4 * estimated < taken < estimated
