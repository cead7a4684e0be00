"""Maps -> pseudo-atoms: real averages and maps made of known bodies."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from tlgen.molecules import pseudoatoms
from tlgen.molecules.envelope import SIGMA_OF_RESOLUTION
from tlgen.molecules.molecule import DALTON_PER_CUBIC_ANGSTROM, Molecule, centred
from tlgen.molecules.pseudoatoms import load_map
from tlgen.molecules.structure_file import is_map


def density(points: Any, weights: Any, sigma: float, n: int, voxel_size: float) -> Any:
    """Gaussians (x, y, z in Å from the middle voxel), summed voxel by voxel: slow and plain."""
    axis = (np.arange(n) - n // 2) * voxel_size
    g = [np.exp(-0.5 * ((axis[None] - points[:, i, None]) / sigma) ** 2) for i in range(3)]
    return np.einsum("a,ak,aj,ai->kji", weights, g[2], g[1], g[0])


def body(n: int = 40, voxel_size: float = 5.0, resolution: float = 15.0) -> Any:
    """A bent rod with a knob, and what it is made of."""
    rng = np.random.default_rng(1)
    t = np.linspace(-1, 1, 600)
    rod = np.stack([55 * t, 30 * t**2, 10 * t], axis=1) + rng.uniform(-12, 12, (600, 3))
    knob = np.array([45, 20, 30]) + rng.uniform(-12, 12, (150, 3))
    points = np.concatenate([rod, knob])
    return density(points, np.ones(len(points)), resolution * SIGMA_OF_RESOLUTION, n, voxel_size), points


def written(path: Path, data: Any, voxel_size: float = 5.0) -> Path:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.asarray(data, np.float32))
        mrc.voxel_size = voxel_size
    return path


#: About a fifth of the body's highest value.
CONTOUR = 2.0


def rendered(molecule: Molecule, n: int, voxel_size: float) -> Any:
    sigma = float(molecule.sigma[0])
    return density(molecule.positions.astype(float), molecule.occupancy.astype(float), sigma, n, voxel_size)


# ----------------------------------------------------------------------------------------------- real maps


@pytest.mark.parametrize(
    ("name", "voxel_size"),
    [
        ("betagal_3.54A", 3.54), ("chlamy_atpsynthase_dimer_STA_7.84A", 7.84),
        ("chlamy_hsp60_STA_7.84A", 7.84), ("polnet_20S_3j9i_5A", 5), ("polnet_26S_4cr2_5A", 5),
        ("polnet_FAS_2uv8_5A", 5), ("ribo80s_emd_3883_866_64_resized", 8.66),
    ],
)  # fmt: skip
def test_real_maps_become_molecules_that_look_like_them(shared: Path, name: str, voxel_size: float) -> None:
    model = load_map(shared / "maps" / f"{name}.mrc")
    assert model.correlation > 0.95
    assert model.polarity == "bright"
    assert model.resolution == pytest.approx(3 * voxel_size, rel=1e-3)
    molecule = model.molecule
    assert molecule.name == name
    assert molecule.backbone.all()
    assert np.all(molecule.occupancy > 0)
    assert molecule.sigma == pytest.approx(model.resolution * SIGMA_OF_RESOLUTION, rel=1e-5)
    assert 0.3e6 < molecule.mass < 6e6
    assert model.summary.startswith(f"{name}: bright map at ")


# ------------------------------------------------------------------------------------------ bodies we know


def test_the_correlation_is_what_an_independent_rendering_gives(tmp_path: Path) -> None:
    data, points = body()
    model = load_map(written(tmp_path / "rod.mrc", data), contour=CONTOUR)
    # the molecule's centre is the centre of mass, which we know
    shift = points.mean(axis=0)
    ours = density(
        model.molecule.positions + shift, model.molecule.occupancy, float(model.molecule.sigma[0]), 40, 5.0
    )
    from scipy.ndimage import distance_transform_edt

    region = distance_transform_edt(data < CONTOUR) * 5 <= model.resolution
    assert np.corrcoef(ours[region], data[region])[0, 1] == pytest.approx(model.correlation, abs=0.005)
    assert model.correlation > 0.99


@pytest.mark.parametrize(("sign", "offset", "polarity"), [(1, 0, "bright"), (-1, 0, "dark"), (-2, 7, "dark")])
def test_polarity_scale_and_background_do_not_matter(
    tmp_path: Path, sign: float, offset: float, polarity: str
) -> None:
    data, _ = body()
    plain = load_map(written(tmp_path / "plain.mrc", data), contour=CONTOUR)
    model = load_map(written(tmp_path / "other.mrc", sign * data + offset), contour=sign * CONTOUR + offset)
    assert model.polarity == polarity
    assert model.contour == pytest.approx(sign * CONTOUR + offset)
    assert model.molecule.n_atoms == plain.molecule.n_atoms
    assert model.molecule.positions == pytest.approx(plain.molecule.positions, abs=0.01)
    assert model.molecule.occupancy == pytest.approx(plain.molecule.occupancy, rel=0.01, abs=0.01)
    assert f"{polarity} map" in model.summary


def test_noise_is_told_from_the_molecule(tmp_path: Path) -> None:
    data, points = body()
    noisy = data + np.random.default_rng(2).normal(0, 0.03 * data.max(), data.shape)
    model = load_map(written(tmp_path / "noisy.mrc", noisy))
    assert model.correlation > 0.95
    spread = points - points.mean(axis=0)
    expected = np.sqrt(5 / 3 * ((spread**2).sum(axis=1).mean() + 3 * (15 * SIGMA_OF_RESOLUTION) ** 2))
    assert model.molecule.radius == pytest.approx(expected, rel=0.06)
    assert np.linalg.norm(model.molecule.positions, axis=1).max() < 90


def test_dust_is_left_out(tmp_path: Path) -> None:
    data, _ = body()
    clean = load_map(written(tmp_path / "clean.mrc", data), contour=CONTOUR)
    data[2:4, 2:4, 2:4] = 2 * CONTOUR
    dusty = load_map(written(tmp_path / "dusty.mrc", data), contour=CONTOUR)
    assert dusty.molecule.n_atoms == clean.molecule.n_atoms


def test_the_mass_is_as_stated_or_of_the_contours_volume(tmp_path: Path) -> None:
    data, _ = body()
    path = written(tmp_path / "rod.mrc", data)
    model = load_map(path, contour=CONTOUR)
    volume = np.count_nonzero(data >= CONTOUR) * 125.0
    assert model.molecule.mass == pytest.approx(volume * DALTON_PER_CUBIC_ANGSTROM, rel=1e-3)
    stated = load_map(path, contour=CONTOUR, mass=250e3)
    assert stated.molecule.mass == pytest.approx(250e3, rel=1e-4)
    assert stated.molecule.positions == pytest.approx(model.molecule.positions)
    # without a contour, the mass makes one
    by_mass = load_map(path, mass=100e3)
    inside = np.count_nonzero(data >= by_mass.contour) * 125.0
    assert inside * DALTON_PER_CUBIC_ANGSTROM == pytest.approx(100e3, rel=0.01)


def test_a_turned_map_gives_the_turned_molecule(tmp_path: Path) -> None:
    """Positions are x, y, z and not mirrored."""
    data, points = body()
    weights = np.ones(len(points))
    turn = Rotation.from_euler("zyx", [40, 25, -60], degrees=True)
    sigma = 15 * SIGMA_OF_RESOLUTION
    turned = density(turn.apply(points), weights, sigma, 40, 5.0)
    a, b = (
        load_map(written(tmp_path / f"{k}.mrc", d), contour=CONTOUR).molecule
        for k, d in enumerate((data, turned))
    )
    there = centred(
        "a", a.elements, turn.apply(a.positions), a.backbone, occupancy=a.occupancy, sigma=a.sigma
    )
    volumes = [rendered(m, 40, 5.0).ravel() for m in (there, b, a)]
    assert np.corrcoef(volumes[0], volumes[1])[0, 1] > 0.99
    assert np.corrcoef(volumes[2], volumes[1])[0, 1] < 0.8


def test_fine_maps_are_taken_at_eight_angstrom(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    points = rng.uniform(-10, 10, (400, 3))
    data = density(points, np.ones(400), 3 * SIGMA_OF_RESOLUTION, 56, 0.9)
    model = load_map(written(tmp_path / "fine.mrc", data, 0.9), resolution=3.0)
    assert model.resolution == 8
    assert model.correlation > 0.95
    assert model.molecule.n_atoms < 1000
    assert model.molecule.radius == pytest.approx(np.sqrt(5 / 3) * 10, rel=0.3)


def test_the_same_map_gives_the_same_molecule_plain_or_zipped(tmp_path: Path) -> None:
    data, _ = body()
    path = written(tmp_path / "rod.map", data)
    first, second = load_map(path), load_map(str(path))
    assert first.molecule.digest == second.molecule.digest
    zipped = tmp_path / "rod.map.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    model = load_map(zipped)
    assert model.molecule.digest == first.molecule.digest
    assert model.molecule.name == "rod"
    assert model.molecule.source != first.molecule.source
    assert is_map(zipped)
    assert is_map("a.MRC")
    assert not is_map("a.cif.gz")


# ---------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"contour": 50.0}, r"rod.mrc: the contour 50 leaves 0 voxels and the molecule's extreme is \d"),
        ({"contour": -1.0}, r"contour -1 is below the background's grey value; the molecule is bright"),
        ({"resolution": 9.0}, r"rod.mrc: voxels of 5.00 Å hold nothing finer than 10.0 Å; set a resolution"),
        ({"resolution": -1.0}, r"rod.mrc: the resolution must be positive, not -1"),
        ({"mass": 0.0}, r"rod.mrc: the mass must be positive, not 0"),
    ],
)
def test_numbers_that_make_no_sense(tmp_path: Path, given: dict[str, float], words: str) -> None:
    path = written(tmp_path / "rod.mrc", body()[0])
    with pytest.raises(InputError, match=words) as caught:
        load_map(path, **given)
    assert "\n" not in str(caught.value)


def test_a_contour_in_the_noise(tmp_path: Path) -> None:
    data = body()[0] + np.random.default_rng(2).normal(0, 0.1, (40, 40, 40))
    with pytest.raises(
        InputError, match=r"the contour 0.01 takes in 4\d % of the map; set one between that and"
    ):
        load_map(written(tmp_path / "noisy.mrc", data), contour=0.01)


def test_maps_that_hold_no_molecule(tmp_path: Path) -> None:
    zeros = np.zeros((20, 20, 20))
    with pytest.raises(InputError, match="has the same value in every voxel"):
        load_map(written(tmp_path / "flat.mrc", zeros))
    zeros[3, 3, 3] = np.nan
    with pytest.raises(InputError, match="has voxels that are not numbers"):
        load_map(written(tmp_path / "nan.mrc", zeros))
    with pytest.raises(InputError, match="does not state its voxel size"):
        load_map(written(tmp_path / "sizeless.mrc", body()[0], 0.0))
    with pytest.raises(InputError, match=r"missing.mrc"):
        load_map(tmp_path / "missing.mrc")
    (tmp_path / "cut.mrc.gz").write_bytes(gzip.compress(b"x" * 5000)[:-20])
    with pytest.raises(InputError, match=r"cut.mrc.gz is cut off or damaged .*; copy it again"):
        load_map(tmp_path / "cut.mrc.gz")


def test_a_bad_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = body()
    path = written(tmp_path / "rod.mrc", data)
    monkeypatch.setattr(pseudoatoms, "_STEPS", 0)
    with pytest.raises(InputError, match=r"pseudo-atoms reach a correlation of 0.\d+ .* and 0.95 is needed"):
        load_map(path, contour=CONTOUR)
