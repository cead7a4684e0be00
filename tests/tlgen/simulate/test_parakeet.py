"""The Parakeet engine against Parakeet's own classes, and its manners in a process."""

import contextlib
import io
import os
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.seeds import seed as seed_of
from tlgen.molecules.molecule import Library, centred
from tlgen.scene.scene import Scene
from tlgen.simulate.engine import engine
from tlgen.simulate.microscope import optics
from tlgen.simulate.parakeet import Parakeet, fast_size
from tlgen.simulate.specimen import tilt_rotation
from tlgen.tilts.scheme import Tilt

SHAPE = (16, 20, 18)
TILTS = [Tilt(0, 0.0, 2.0, 0.0), Tilt(3, 40.0, 2.0, 6.0), Tilt(8, -57.0, 1.2, 9.6)]


def blobs(
    shape: tuple[int, int, int] = SHAPE, n: int = 5, voxel_size: float = 8.0, radius: float = 20.0
) -> tuple[Scene, Library]:
    """Balls of atoms in about protein's proportions, anywhere in the box."""
    rng = np.random.default_rng(4)
    inside = rng.uniform(-radius, radius, (6000, 3))
    inside = inside[(inside**2).sum(axis=1) < radius**2][:2500]
    elements = rng.choice([6, 7, 8, 15, 16], len(inside), p=[0.6, 0.17, 0.21, 0.01, 0.01])
    molecule = centred("blob", elements, inside, np.zeros(len(inside), bool))
    quaternions = rng.standard_normal((n, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    room = np.array(shape[::-1]) * voxel_size - 2 * radius
    return Scene(
        shape, voxel_size, (molecule.digest,), ("blob",), (-1,), (1,), ("blob",),
        np.zeros(n, np.int64), rng.uniform(-0.5, 0.5, (n, 3)) * room, quaternions,
    ), {molecule.digest: molecule}  # fmt: skip


def square(**more: object) -> Acquisition:
    """Settings whose padding is the same on all sides, as Parakeet's is."""
    return Acquisition.model_validate({"engine": "parakeet", "padding": 20, "ice_density": 0.0} | more)


def published(acq: Acquisition) -> Acquisition:
    return acq.model_copy(update={"parakeet_faults": "as_published"})


def parakeets_own(scene: Scene, library: Library, acq: Acquisition, tilt: Tilt) -> np.ndarray:
    """Noise-free 1 Å image by Parakeet's own simulator classes, fed from memory."""
    with pytest.MonkeyPatch.context() as patch:
        # Parakeet imports its PDB downloader at the top; simulating does not use it.
        patch.setitem(sys.modules, "profet", types.ModuleType("profet"))
        import parakeet.config
        import parakeet.microscope
        import parakeet.scan
        from parakeet.io import METADATA_DTYPE
        from parakeet.sample import AtomData
        from parakeet.simulate._exit_wave import ExitWaveImageSimulator
        from parakeet.simulate._optics import OpticsImageSimulator

    nx, ny = (round(n * scene.voxel_size) for n in (scene.shape[2], scene.shape[1]))
    padding = (fast_size(nx + 2 * acq.padding) - nx) // 2
    assert padding == (fast_size(ny + 2 * acq.padding) - ny) // 2  # Parakeet knows one padding only
    box = np.array(scene.box)
    # Parakeet's coordinates run from the corner, where MULTEM has the value of the first pixel: the
    # scene's centre belongs half a pixel before the middle of the tilted image.
    half = tilt_rotation(tilt.angle).inv().apply([-0.5, -0.5, 0])
    atoms = np.concatenate([scene.atoms(i, library) for i in range(len(scene.which))]) + box / 2 + half
    elements = np.concatenate([library[scene.digests[k]].elements for k in scene.which])

    class Sample:
        containing_box = ((0, 0, 0), tuple(box))
        centre = box / 2
        shape = {  # noqa: RUF012
            "type": "cuboid",
            "margin": (0, 0, 0),
            "cuboid": dict(zip(("length_x", "length_y", "length_z"), box.tolist(), strict=True)),
        }

        def get_atoms(self) -> object:
            n = len(elements)
            columns = {"atomic_number": elements, "sigma": np.zeros(n, "f4"), "occupancy": np.ones(n, "f4")}
            columns |= {axis: atoms[:, k].astype("f4") for k, axis in enumerate("xyz")}
            columns |= {"charge": np.zeros(n, "i1"), "group": np.full(n, -1, "i4")}
            return AtomData(data=pd.DataFrame(columns))

    (a1, m1, s1), (a2, m2, s2) = optics.ICE_SPECTRA[acq.ice_spectrum]
    config = parakeet.config.Config(
        microscope={
            "beam": {"energy": acq.voltage, "electrons_per_angstrom": tilt.dose},
            "detector": {"nx": nx, "ny": ny, "pixel_size": 1.0},
            "lens": {
                "c_10": -acq.defocus * 1e4,
                "c_30": acq.spherical_aberration,
                "c_c": acq.chromatic_aberration,
            },
            "phase_plate": {"use": acq.phase_plate},
        },
        simulation={
            "slice_thickness": acq.slice_thickness, "margin": 0, "padding": padding,
            "ice": acq.ice_density > 0,
            "ice_parameters": {"a1": a1, "m1": m1, "s1": s1, "a2": a2, "m2": m2, "s2": s2,
                               "density": acq.ice_density or 1.0},
            "radiation_damage_model": acq.damage > 0,
        },
    )  # fmt: skip
    simulation = config.simulation.model_dump()
    # Its damage is sensitivity x dose x number of the image; the scan here has one image only.
    simulation["sensitivity_coefficient"] = acq.damage * tilt.dose_after / tilt.dose
    scan = parakeet.scan.new(
        mode="manual", axis=(0, 1, 0), angles=[tilt.angle], positions=[0.0], electrons_per_angstrom=tilt.dose
    )
    common = {
        "microscope": parakeet.microscope.new(config.microscope),
        "scan": scan,
        "simulation": simulation,
        "device": "cpu",
        "gpu_id": 0,
    }
    header = np.zeros(1, METADATA_DTYPE)
    with contextlib.redirect_stdout(io.StringIO()):
        first = ExitWaveImageSimulator(sample=Sample(), **common)
        first.metadata = [header[0]]
        wave = types.SimpleNamespace(data={0: first(0)[1]}, header=header)
        second = OpticsImageSimulator(exit_wave=wave, sample=config.sample.model_dump(), **common)
        return np.asarray(second(0)[1])


def residue(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Root mean square of the difference in standard deviations of the image."""
    return float(np.sqrt(((ours - theirs) ** 2).mean()) / theirs.std())


def at_one_angstrom(scene: Scene) -> Scene:
    """Give the same scene voxels of one pixel, so that nothing is binned away."""
    shape = tuple(round(n * scene.voxel_size) for n in scene.shape)
    return Scene(
        shape, 1.0, scene.digests, scene.names, scene.variants, scene.labels, scene.class_names,
        scene.which, scene.positions, scene.quaternions,
    )  # fmt: skip


@pytest.mark.parametrize("tilt", TILTS, ids=lambda t: f"{t.angle:g}°")
@pytest.mark.parametrize("ice", [0.0, 0.94], ids=["no ice", "ice"])
@pytest.mark.parametrize("lens", [{}, {"phase_plate": True, "defocus": 0.5, "voltage": 200.0}])
def test_equals_parakeets_own_simulator(
    tilt: Tilt, ice: float, lens: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every pixel, with Parakeet's misplaced ice and its periodic lens; the ice is that of one seed.

    What remains is the rounding of coordinates to float32, which moves an atom in ten thousand to the next
    slice. The limit is thirty times better than the eye could tell.
    """
    monkeypatch.chdir(tmp_path)  # their call leaves FFTW's wisdom behind
    scene, library = blobs((16, 20, 20))
    scene, acq = at_one_angstrom(scene), square(voxel_size=1.0, ice_density=ice, **lens)
    monkeypatch.setenv("MULTEM_SEED", str(seed_of(9, "ice", tilt.index) % (2**31 - 2) + 1))
    theirs = parakeets_own(scene, library, acq, tilt)
    ours = Parakeet().simulate(scene, library, published(acq), tilt, 9, noise=False)
    assert theirs.std() > 0.02
    assert residue(ours, theirs) < 3e-4


def test_corrected_ice_is_another_picture_of_the_same_molecules() -> None:
    """Without ice only the edges differ; with it, molecules that stood in vacuum lose contrast."""
    scene, library = blobs()
    for ice, limit in ((0.0, 0.998), (0.94, 0.97)):
        acq = square(ice_density=ice)
        ours, theirs = (
            Parakeet().simulate(scene, library, each, TILTS[1], 1, noise=False)[2:-2, 2:-2]
            for each in (acq, published(acq))
        )
        r = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
        assert r > limit if ice == 0 else r < limit


def test_lens_tails_do_not_wrap_around_the_edge() -> None:
    scene, library = blobs((12, 25, 25), n=1)
    scene.positions[:] = (-78, 0, 0)
    acq = square(defocus=4.0, padding=64)
    theirs = np.abs(Parakeet().simulate(scene, library, published(acq), TILTS[0], 1, noise=False) - 1)
    ours = np.abs(Parakeet().simulate(scene, library, acq, TILTS[0], 1, noise=False) - 1)
    assert theirs[:, -3:].max() > 0.1 * theirs.max()  # the pitfall
    assert ours[:, -3:].max() < 0.01 * ours.max()


def test_ice_makes_no_fringe_at_the_edge() -> None:
    scene, library = blobs((16, 25, 25), n=0)
    tilt = Tilt(0, 5.0, 2.0, 0.0)
    acq = square(ice_density=0.94, padding=32)
    theirs = Parakeet().simulate(scene, library, published(acq), tilt, 1, noise=False).mean(axis=0) - 1
    ours = Parakeet().simulate(scene, library, acq, tilt, 1, noise=False).mean(axis=0) - 1
    assert np.abs(theirs[:3]).max() > 0.03
    assert np.abs(ours[:3]).max() < 0.02


def test_no_atoms_and_no_ice_is_vacuum() -> None:
    scene, library = blobs(n=0)
    image = Parakeet().simulate(scene, library, square(), TILTS[1], 1, noise=False)
    assert image.shape == (20, 18)
    assert np.allclose(image, 1, atol=1e-5)


def test_same_seed_same_bits_and_another_tilt_has_other_ice() -> None:
    scene, library = blobs(n=2)
    acq = square(ice_density=0.94)
    one, same = (Parakeet().simulate(scene, library, acq, TILTS[0], 5) for _ in range(2))
    other_seed = Parakeet().simulate(scene, library, acq, TILTS[0], 6, noise=False)
    mean = Parakeet().simulate(scene, library, acq, TILTS[0], 5, noise=False)
    other_tilt = Parakeet().simulate(scene, library, acq, Tilt(1, 0.0, 2.0, 0.0), 5, noise=False)
    assert np.array_equal(one, same)
    assert not np.array_equal(mean, other_seed)
    assert not np.array_equal(mean, other_tilt)


def test_same_bits_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_parakeet as t;"
        "scene, library = t.blobs(n=2);"
        "image = t.Parakeet().simulate(scene, library, t.square(ice_density=0.94), t.TILTS[1], 5);"
        "sys.stdout.buffer.write(image.tobytes())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, check=True
        )
        for _ in range(2)
    ]
    # nothing but the image came out: MULTEM does not chatter
    assert len(runs[0].stdout) == 20 * 18 * 4
    assert runs[0].stdout == runs[1].stdout


def test_counts_have_the_mean_and_variance_of_parakeets_detector() -> None:
    scene, library = blobs((8, 60, 60), n=0)
    tilt = Tilt(0, 0.0, 2.0, 0.0)
    image = Parakeet().simulate(scene, library, square(), tilt, 3)
    expected = 2.0 * 64 * optics.quantum_efficiency((4, 4), 1.0, 2.0)[0, 0]
    assert expected == pytest.approx(2 * 64 * 0.92857, rel=1e-4)
    assert image.mean() == pytest.approx(expected, rel=0.005)
    assert image.var() == pytest.approx(expected, rel=0.06)
    blind = Parakeet().simulate(scene, library, square(dqe=False), tilt, 3)
    assert blind.mean() == pytest.approx(128, rel=0.005)


def test_quantum_efficiency_is_parakeets_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "profet", types.ModuleType("profet"))
    from parakeet.dqe import DQETable

    for rate in (0.5, 2.0, 7.0):
        theirs = np.fft.ifftshift(DQETable().dqe_fs(300, rate, (24, 30)))[:, :16]
        # they interpolate the curve linearly between 65 points
        assert np.abs(optics.quantum_efficiency((24, 30), 1.0, rate) - theirs).max() < 1e-4


def test_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MULTEM_SEED", raising=False)
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    scene, library = blobs(n=1)
    Parakeet().simulate(scene, library, square(), TILTS[0], 1)
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert "MULTEM_SEED" not in os.environ
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("MULTEM_SEED", "17")
    Parakeet().simulate(scene, library, square(), TILTS[0], 1)
    assert os.environ["MULTEM_SEED"] == "17"


@pytest.mark.parametrize("shape", [(9, 12, 15), (10, 13, 11)])
@pytest.mark.parametrize("voxel_size", [8.0, 10.0])
def test_image_has_the_shape_and_centre_of_the_tomogram(
    shape: tuple[int, int, int], voxel_size: float
) -> None:
    scene, library = blobs(shape, n=1, voxel_size=voxel_size, radius=12)
    scene.positions[:] = 0
    acq = square(voxel_size=voxel_size, phase_plate=True, defocus=0.0)
    image = 1 - Parakeet().simulate(scene, library, acq, TILTS[1], 1, noise=False)
    assert image.shape == shape[1:]
    image[image < 0.3 * image.max()] = 0
    y, x = np.indices(image.shape)
    assert (image * x).sum() / image.sum() == pytest.approx((shape[2] - 1) / 2, abs=0.1)
    assert (image * y).sum() / image.sum() == pytest.approx((shape[1] - 1) / 2, abs=0.1)


def test_underfocus_and_phase_plate_make_protein_dark_and_overfocus_bright() -> None:
    scene, library = blobs(n=1)
    scene.positions[:] = 0

    def middle(**more: object) -> float:
        image = Parakeet().simulate(scene, library, square(**more), TILTS[0], 1, noise=False)
        return float(image[8:12, 7:11].mean())

    assert middle(defocus=2.5) < 0.99
    assert middle(defocus=-2.5) > 1.005
    assert middle(defocus=0.0, phase_plate=True) < 0.97


def test_damage_blurs_later_tilts() -> None:
    scene, library = blobs()
    early, late = (
        Parakeet().simulate(scene, library, square(), Tilt(0, 0.0, 2.0, before), 1, noise=False).std()
        for before in (0.0, 98.0)
    )
    assert late < early


def test_memory_grows_with_pixels_and_atoms() -> None:
    scene, library = blobs()
    more, _ = blobs(n=50)
    wider, _ = blobs((16, 40, 40))
    base = Parakeet().memory(scene, library, square())
    assert Parakeet().memory(more, library, square()) > base
    assert Parakeet().memory(wider, library, square()) > 2 * base


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pixel_size": 2.0}, "pixel_size: .*1 Å"),
        ({"voxel_size": 8.5}, "voxel_size: .*8.5 Å"),
        ({"voxel_size": 10.0}, "packed at 8 Å"),
    ],
)
def test_settings_it_cannot_honour_are_refused(settings: dict[str, float], words: str) -> None:
    voxel_size = settings.get("voxel_size", 8.0) if settings.get("voxel_size") == 8.5 else 8.0
    scene, library = blobs(voxel_size=voxel_size)
    with pytest.raises(InputError, match=words):
        Parakeet().simulate(scene, library, square(**settings), TILTS[0], 1)


@pytest.mark.parametrize("name", ["parakeet", "multislice"])
def test_an_element_without_scattering_factors_is_named(name: str) -> None:
    scene, library = blobs(n=1)
    strange = centred("blob", [6, 0], [[0, 0, 0], [3, 0, 0]], [False, False])
    library = dict.fromkeys(library, strange)
    with pytest.raises(InputError, match=r"structure blob: .*atomic number 0"):
        engine(name).simulate(scene, library, square(), TILTS[0], 1)


def test_engines_by_name() -> None:
    assert engine("parakeet").one_call_per_process
    assert "0.4.1" in engine("parakeet").version()
    assert not engine("multislice").one_call_per_process
    with pytest.raises(InputError, match="did you mean 'parakeet'"):
        engine("parakeat")


def test_fast_sizes() -> None:
    assert fast_size(1028) == 1080
    assert fast_size(1008) == 1008
    assert fast_size(2431) >= 2431


def test_threads_take_turns_and_see_the_same_bits() -> None:
    """MULTEM crashes when two threads call it; ours may, and wait for each other."""
    scene, library = blobs(n=2)
    acq = square(ice_density=0.94)
    alone = [Parakeet().simulate(scene, library, acq, tilt, 5) for tilt in TILTS]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda tilt: Parakeet().simulate(scene, library, acq, tilt, 5), TILTS * 2))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 2, together, strict=True))


def test_defaults_are_the_papers_and_not_parakeets() -> None:
    """Whose own have neither ice nor damage nor DQE, and another ice when asked for it."""
    acq = Acquisition()
    lens = (acq.voltage, acq.spherical_aberration, acq.chromatic_aberration, acq.illumination_semiangle)
    assert lens == (300.0, 2.7, 2.7, 0.02)
    assert (acq.energy_spread, acq.current_spread, acq.voltage_spread) == (2.66, 0.33, 0.8)
    assert (acq.damage, acq.dqe, acq.pixel_size, acq.phase_plate_radius) == (0.08, True, 1.0, 0.005)
    assert acq.ice_density > 0
    (a1, m1, s1), (a2, m2, s2) = optics.ICE_SPECTRA[acq.ice_spectrum]
    assert (a1, m1, s1, a2, s2) == (0.72, 0, 0.1, 0.28, 0.5)
    assert m2 == pytest.approx(1 / 2.88)
    assert acq.tilt_scheme == "dose_symmetric"


def test_nothing_of_parakeets_python_is_needed() -> None:
    """Its functions fail with new NumPy and pandas, and its imports bring a downloader."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np;"
        "from tlgen.scene.scene import Scene; from tlgen.simulate.engine import engine;"
        "from catalogs.schema import Acquisition; from tlgen.tilts.scheme import Tilt;"
        "scene = Scene((4, 6, 6), 8.0, (), (), (), (), ('a',), np.zeros(0, int), np.zeros((0, 3)),"
        " np.zeros((0, 4)));"
        "acq = Acquisition(engine='parakeet', padding=8);"
        "engine('parakeet').simulate(scene, {}, acq, Tilt(0, 0.0, 2.0, 0.0), 1);"
        "print(sorted({'parakeet', 'profet', 'guanaco', 'maptools'} & set(sys.modules)))"
    )
    run = [sys.executable, "-c", code, str(Path(__file__).parents[3])]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
