"""What the generator's tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tlgen.molecules.molecule import Molecule, centred
from tlgen.scene.decoration_shapes import CLASS_NAMES, Bead
from tlgen.scene.scene import Scene
from tlgen.tilts.scheme import order


def ball(name: str, n: int) -> Molecule:
    points = np.random.default_rng(n).normal(0, 8, (n, 3))
    return centred(name, np.full(n, 6), points, np.ones(n, bool), rmsd=1.5, amplitudes=(1.2, -0.9))


@pytest.fixture
def example() -> tuple[Scene, dict[str, Molecule]]:
    """A small scene of two kinds of balls and a bead of gold, and its molecules."""
    library = {m.digest: m for m in (ball("one", 900), ball("two", 400))}
    rng = np.random.default_rng(0)
    quaternions = rng.normal(size=(5, 4))
    return Scene(
        shape=(20, 30, 26),
        voxel_size=8.0,
        digests=tuple(library),
        names=("one", "two"),
        variants=(-1, 3),
        labels=(1, 0),
        class_names=("one", *CLASS_NAMES),
        which=np.array([0, 1, 1, 0, 1]),
        positions=rng.uniform(-60, 60, (5, 3)),
        quaternions=quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True),
        amplitudes=((), (1.2, -0.9)),
        rmsds=(0.0, 1.5),
        decorations=(Bead((50, 60, 40), 20, 7),),
        asked={"one": 4, "distractor": 3},
    ), library


# ------------------------------------------------------------------------------- files of a tilt series

#: Of the series in those files, by angle and as they were taken.
SERIES_ANGLES = [float(angle) for angle in range(-9, 10, 3)]
SERIES_TAKEN = order(SERIES_ANGLES, "dose_symmetric", group=2)


@pytest.fixture
def mdoc() -> Callable[..., Path]:
    """Write an .mdoc of seven tilts into a folder."""
    return mdoc_file


@pytest.fixture
def relion() -> Callable[..., Path]:
    """Write RELION 5's files of such series into a folder."""
    return relion_project


def mdoc_file(
    folder: Path,
    *,
    prior: bool = True,
    dose: float = 3.2,
    dates: bool = True,
    by_angle: bool = True,
    **more: str,
) -> Path:
    """Write a series as SerialEM does: images in the stack by angle, or as they were taken."""
    rank = {angle: k for k, angle in enumerate(SERIES_TAKEN)}
    lines = [
        "PixelSpacing = 2.74", "Voltage = 300", "ImageFile = ts.mrc", "ImageSize = 2046 2880", "",
        "[T = SerialEM: Digitized on a microscope  12-Mar-24  14:10:03 ]", "",
        "[T =     Tilt axis angle = 85.1, binning = 2  spot = 8  camera = 0]", "",
    ]  # fmt: skip
    for z, angle in enumerate(SERIES_ANGLES if by_angle else SERIES_TAKEN):
        lines += [f"[ZValue = {z}]", f"TiltAngle = {angle + 0.004:.4f}", "StagePosition = 1.25 -3.5"]
        lines += [f"ExposureDose = {dose:g}"]
        lines += [f"PriorRecordDose = {rank[angle] * 3.2:.3f}"] if prior else []
        lines += [f"Defocus = {-4.1 + 0.01 * z:.3f}", "TargetDefocus = -4", "RotationAngle = 175.1"]
        lines += [f"DateTime = 12-Mar-24  14:{12 + rank[angle]:02d}:33"] if dates else []
        lines += [f"{key} = {value}" for key, value in more.items()]
        lines += [""]
    path = folder / "ts_01.mrc.mdoc"
    path.write_text("\n".join(lines))
    return path


def relion_project(folder: Path, names: tuple[str, ...] = ("TS_01", "TS_02"), refined: bool = True) -> Path:
    (folder / "AlignTiltSeries/job007/tilt_series").mkdir(parents=True)
    rows = []
    for k, name in enumerate(names):
        inside = f"AlignTiltSeries/job007/tilt_series/{name}.star"
        columns = ["rlnMicrographName", "rlnTomoNominalStageTiltAngle", "rlnMicrographPreExposure"]
        columns += ["rlnDefocusU", "rlnTomoZRot"] + (["rlnTomoYTilt"] if refined else [])
        lines = [f"data_{name}", "", "loop_", *(f"_{c} #{i + 1}" for i, c in enumerate(columns))]
        for angle in SERIES_ANGLES:
            values = [f"{name}_{angle}.mrc", angle, 3 * SERIES_TAKEN.index(angle), 30000 + 100 * k, 85.5]
            lines.append(" ".join(map(str, values + ([angle + 1] if refined else []))))
        (folder / inside).write_text("\n".join([*lines, ""]))
        rows.append(f"{name} {inside} 300.0 2.7 0.1 1.35 -1")
    columns = ["rlnTomoName", "rlnTomoTiltSeriesStarFile", "rlnVoltage", "rlnSphericalAberration"]
    columns += ["rlnAmplitudeContrast", "rlnTomoTiltSeriesPixelSize", "rlnTomoHand"]
    path = folder / "AlignTiltSeries/job007/aligned_tilt_series.star"
    head = [
        "# version 50001",
        "",
        "data_global",
        "",
        "loop_",
        *(f"_{c} #{i + 1}" for i, c in enumerate(columns)),
    ]
    path.write_text("\n".join([*head, *rows, ""]))
    return path


# ------------------------------------------------------------------------------------- images of spots


@pytest.fixture
def projections() -> Callable[..., np.ndarray]:
    """Draw images of spots."""
    return draw


@pytest.fixture
def peak() -> Callable[[np.ndarray], np.ndarray]:
    """Find the darkest spot of a volume."""
    return darkest


def draw(points: np.ndarray, shape: tuple[int, int, int], angles: np.ndarray, sigma: float = 1.5):
    """Images of dark Gaussian spots, drawn analytically: (t, y, x)."""
    centre = (np.array(shape[::-1]) - 1) / 2
    y, x = np.mgrid[: shape[1], : shape[2]]
    images = np.full((len(angles), *shape[1:]), 100.0)
    for k, angle in enumerate(np.radians(angles)):
        for point in points - centre:
            px = point[0] * np.cos(angle) + point[2] * np.sin(angle) + centre[0]
            images[k] -= 10 * np.exp(-((x - px) ** 2 + (y - point[1] - centre[1]) ** 2) / (2 * sigma**2))
    return images


def darkest(volume: np.ndarray) -> np.ndarray:
    """Centre (x, y, z) of mass of the darkest spot."""
    dark = np.clip(-volume, 0, None)
    dark[dark < 0.4 * dark.max()] = 0
    labels, _ = ndimage.label(dark)
    at = labels[np.unravel_index(dark.argmax(), dark.shape)]
    return np.array(ndimage.center_of_mass(dark, labels, at))[::-1]


def _write_ball(path: Path, radius: float, seed: int) -> None:
    """Write a PDB file of a ball of carbon atoms, about as dense as a protein."""
    rng = np.random.default_rng(seed)
    n = int(4 / 3 * np.pi * radius**3 / 18)
    xyz = rng.uniform(-radius, radius, (20 * n, 3))
    xyz = xyz[np.linalg.norm(xyz, axis=1) < radius][:n]
    lines = [
        f"ATOM  {i + 1:5d}  CA  ALA A{i % 9999 + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        for i, (x, y, z) in enumerate(xyz)
    ]
    path.write_text("\n".join([*lines, "END", ""]))


@pytest.fixture
def write_ball() -> Callable[[Path, float, int], None]:
    return _write_ball


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """A recipe of three samples that take a second, with its structures beside it."""
    _write_ball(tmp_path / "big.pdb", 30, 0)
    _write_ball(tmp_path / "small.pdb", 18, 1)
    return {
        "name": "balls",
        "shape": [16, 24, 25],
        "targets": {"big": {"structures": ["big.pdb"], "count": 2, "variants": {"number": 0}}},
        "distractors": [{"file": "small.pdb", "count": 3}],
        "acquisition": {
            "engine": "multislice",
            "voxel_size": 10,
            "tilt_range": 60,
            "tilt_step": 20,
            "dose": {"min": 90, "max": 120},
        },
        "samples": {"train": {"number": 2}, "held-out": {"number": 1, "split": "test"}},
    }


# ------------------------------------------------------------------------------------------ the program


@pytest.fixture
def tlgen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the program in this process: exit status, what it says, what it complains."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from tlgen.cli import main

        monkeypatch.setattr("sys.argv", ["tlgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call
