"""The same scene through our engine and through Parakeet's own programs, file by file."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gemmi
import h5py
import numpy as np
import pytest
import yaml

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library
from tlgen.molecules.structures import load_structure
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope import optics
from tlgen.simulate.parakeet import Parakeet, fast_size
from tlgen.tilts.scheme import Tilt

N, DEPTH, PADDING = 160, 120, 20  # pixels of 1 Å
DOSE = 2.0
ANGLES = (0.0, 40.0, -57.0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Library, Path]:
    """Three copies of a ball of 700 atoms in about protein's proportions, read from one PDB file by both."""
    rng = np.random.default_rng(4)
    xyz = rng.uniform(-16, 16, (2000, 3))
    xyz = xyz[(xyz**2).sum(axis=1) < 16**2][:700]
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    for k, place in enumerate(xyz):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid, residue.het_flag = "ALA", gemmi.SeqId(k + 1, " "), "A"
        atom.name = rng.choice(["CA", "N", "O", "S"], p=[0.6, 0.18, 0.21, 0.01])
        atom.element = gemmi.Element(atom.name[0])
        atom.pos = gemmi.Position(*place)
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    file = tmp_path_factory.mktemp("structure") / "ball.pdb"
    structure.write_pdb(str(file))
    molecule = load_structure(str(file))
    assert molecule.n_atoms == len(xyz)  # none lost at reading, none doubled
    quaternions = rng.standard_normal((3, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    places = np.array([(-45.0, -40.0, -25.0), (40.0, 10.0, 20.0), (-10.0, 45.0, 0.0)])
    made = Scene(
        (DEPTH, N, N), 1.0, (molecule.digest,), ("ball",), (-1,), (1,), ("ball",),
        np.zeros(3, int), places, quaternions,
    )  # fmt: skip
    return made, {molecule.digest: molecule}, file


def configuration(scene: Scene, file: Path, acq: Acquisition) -> dict[str, Any]:
    """Say the same in Parakeet's words."""
    from scipy.spatial.transform import Rotation

    padding = (fast_size(N + 2 * acq.padding) - N) // 2
    # Its atoms count from the corner, where MULTEM has its first pixel's centre. The ice would move with
    # them, and bare pixels at the image's edge are worse than half a pixel in a picture of figures.
    shift = 0.0 if acq.ice_density else 0.5
    (a1, m1, s1), (a2, m2, s2) = optics.ICE_SPECTRA[acq.ice_spectrum]
    poses = zip(scene.positions, scene.quaternions, strict=True)
    centre = np.array(scene.box) / 2
    instances = [
        {
            "position": (centre + xyz).tolist(),
            "orientation": Rotation.from_quat(q).as_rotvec().tolist(),
        }
        for xyz, q in poses
    ]
    return {
        "sample": {
            "box": list(scene.box),
            "centre": centre.tolist(),
            "shape": {
                "type": "cuboid",
                "cuboid": dict(zip(("length_x", "length_y", "length_z"), scene.box, strict=True)),
                "margin": [0, 0, 0],
            },
            "molecules": {"local": [{"filename": str(file), "instances": instances}]},
        },
        "microscope": {
            "beam": {
                "energy": acq.voltage,
                "energy_spread": acq.energy_spread * 1e-6,
                "acceleration_voltage_spread": acq.voltage_spread * 1e-6,
                "electrons_per_angstrom": DOSE,
                "illumination_semiangle": acq.illumination_semiangle,
            },
            "lens": {
                "c_10": -acq.defocus * 1e4,
                "c_30": acq.spherical_aberration,
                "c_c": acq.chromatic_aberration,
                "current_spread": acq.current_spread * 1e-6,
            },
            "phase_plate": {
                "use": acq.phase_plate,
                "phase_shift": acq.phase_shift,
                "radius": acq.phase_plate_radius,
            },
            "detector": {"nx": N, "ny": N, "pixel_size": 1.0, "dqe": acq.dqe},
        },
        "scan": {"mode": "manual", "angles": list(ANGLES), "positions": [[shift, shift]] * len(ANGLES)},
        "simulation": {
            "slice_thickness": acq.slice_thickness,
            "margin": 0,
            "padding": padding,
            "ice": acq.ice_density > 0,
            "ice_parameters": {
                "a1": a1,
                "m1": m1,
                "s1": s1,
                "a2": a2,
                "m2": m2,
                "s2": s2,
                "density": acq.ice_density or 1.0,
            },
            "radiation_damage_model": acq.damage > 0,
            "sensitivity_coefficient": acq.damage,
        },
        "multiprocessing": {"device": "cpu", "nproc": 1, "gpu_id": [0]},
    }


def parakeets_programs(folder: Path, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Run ``parakeet.sample.new`` and its fellows in a folder of their own: name -> (tilts, y, x)."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    # Parakeet imports its PDB downloader and its analysis at the top and uses neither here.
    (folder / "stand-ins").mkdir()
    for name in ("profet", "guanaco", "maptools"):
        (folder / "stand-ins" / f"{name}.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": str(folder / "stand-ins"), "MULTEM_SEED": "11"}
    programs = (
        ("parakeet.sample.new", "-c", "config.yaml", "-s", "sample.h5"),
        ("parakeet.sample.add_molecules", "-c", "config.yaml", "-s", "sample.h5"),
        *(
            (f"parakeet.simulate.{stage}", "-c", "config.yaml", *files)
            for stage, files in (
                ("exit_wave", ("-s", "sample.h5", "-e", "exit_wave.h5", "-d", "cpu")),
                ("optics", ("-e", "exit_wave.h5", "-o", "optics.h5", "-d", "cpu")),
                ("image", ("-o", "optics.h5", "-i", "image.h5")),
            )
        ),
    )
    for program, *options in programs:
        command = [str(Path(sys.executable).parent / program), *options]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    images = {}
    for stage in ("optics", "image"):
        with h5py.File(folder / f"{stage}.h5") as file:
            images[stage] = np.array(file["/entry/instrument/detector/data"])
    return images


def ours(scene: tuple[Scene, Library, Path], acq: Acquisition, *, noise: bool) -> np.ndarray:
    tilts = [Tilt(k, angle, DOSE, k * DOSE) for k, angle in enumerate(ANGLES)]
    made, library, _ = scene
    return np.stack([Parakeet().simulate(made, library, acq, tilt, 5, noise=noise) for tilt in tilts])


def settings(**more: object) -> Acquisition:
    words = {"engine": "parakeet", "voxel_size": 1.0, "padding": PADDING, "parakeet_faults": "as_published"}
    return Acquisition.model_validate(words | more)


@pytest.mark.slow
def test_noise_free_images_are_those_of_parakeets_programs(
    scene: tuple[Scene, Library, Path], tmp_path: Path
) -> None:
    """Every pixel without ice, with damage that grows from tilt to tilt and a phase plate.

    The limit is float32 rounding of coordinates, which moves one atom in ten thousand to the next slice.
    """
    acq = settings(ice_density=0.0, slice_thickness=3.0, phase_plate=True, defocus=1.0)
    theirs = parakeets_programs(tmp_path, configuration(scene[0], scene[2], acq))["optics"]
    mine = ours(scene, acq, noise=False)
    assert mine.shape == theirs.shape
    for a, b in zip(mine, theirs, strict=True):
        assert b.std() > 0.01
        assert np.sqrt(((a - b) ** 2).mean()) / b.std() < 3e-4


@pytest.mark.slow
def test_pictures_in_ice_have_the_figures_of_parakeets_programs(
    scene: tuple[Scene, Library, Path], tmp_path: Path
) -> None:
    """Mean, variance and spectrum of noise-free and of counted images; each side has ice of its own."""
    acq = settings(ice_density=0.94)
    theirs = parakeets_programs(tmp_path, configuration(scene[0], scene[2], acq))
    for stage, noise in (("optics", False), ("image", True)):
        mine = ours(scene, acq, noise=noise)
        for a, b in zip(mine, theirs[stage], strict=True):
            # two electrons a pixel: the means of two counted images differ by 0.7 % as a rule
            assert a.mean() == pytest.approx(b.mean(), rel=2.5e-2 if noise else 5e-3)
            assert a.var() == pytest.approx(b.var(), rel=0.1)
        spectra = [spectrum(series) for series in (mine, theirs[stage])]
        assert np.abs(spectra[0] / spectra[1] - 1).max() < 0.15


def spectrum(series: np.ndarray) -> np.ndarray:
    """Power of all tilts in six shells up to 0.8 of Nyquist."""
    power = sum(np.abs(np.fft.fft2(image - image.mean())) ** 2 for image in series)
    q = np.hypot(*np.meshgrid(np.fft.fftfreq(N), np.fft.fftfreq(N), indexing="ij"))
    edges = np.linspace(0.02, 0.4, 7)
    return np.array([power[(q > a) & (q <= b)].mean() for a, b in itertools.pairwise(edges)])
