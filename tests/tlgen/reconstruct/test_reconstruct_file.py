"""``tlgen reconstruct``: a user's stack of aligned images -> tomogram."""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy import ndimage

from catalogs.errors import InputError
from catalogs.volumes import open_volume
from tlgen.cli import tlgen
from tlgen.reconstruct import ctf
from tlgen.simulate import devices

ANGLES = np.arange(-60.0, 61.0, 3.0)
SHAPE = (24, 40, 48)  # z, y, x in pixels of the images
POINT = (np.array(SHAPE[::-1]) - 1) / 2 + (7.0, -5.0, 4.0)

Draw = Callable[..., np.ndarray]
Peak = Callable[[np.ndarray], np.ndarray]


def stack(
    folder: Path, images: np.ndarray, mode: str = "f4", pixel: float = 5.0, name: str = "ts.ali"
) -> Path:
    path = folder / name
    with mrcfile.new(path) as file:
        file.set_data(np.rint(images).astype(mode) if mode != "f4" else images.astype(mode))
        file.set_image_stack()
        file.voxel_size = pixel
        file.header.cella.z = 1.0  # as programs write it that think of images only
    np.savetxt(folder / "ts.tlt", ANGLES, "%.2f")
    return path


@pytest.fixture
def spots(projections: Draw) -> Draw:
    """Draw images of one spot."""

    def draw(
        shape: tuple[int, int, int] = SHAPE, point: np.ndarray = POINT, sigma: float = 2.5
    ) -> np.ndarray:
        return projections(point[None], shape, ANGLES, sigma)

    return draw


def command(folder: Path, *options: str, to: str = "out.mrc", angles: str = "ts.tlt") -> Result:
    arguments = [
        "reconstruct",
        str(folder / "ts.ali"),
        "--angles",
        str(folder / angles),
        "--to",
        str(folder / to),
    ]
    return CliRunner().invoke(tlgen, [*arguments, "--threads", "2", *options])


@pytest.mark.parametrize("mode", ["i1", "i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("to", ["out.mrc", "out.zarr"])
def test_every_mode_becomes_a_tomogram(peak: Peak, spots: Draw, tmp_path: Path, mode: str, to: str) -> None:
    stack(tmp_path, spots(), mode)
    result = command(tmp_path, "--thickness", "120", to=to)
    assert result.exit_code == 0, result.output
    assert "48 x 40 x 24 voxels of 5 Å" in result.output
    volume = open_volume(tmp_path / to)
    assert (volume.voxel_size, volume.shape, volume.origin) == (5.0, SHAPE, (0, 0, 0))
    assert np.abs(peak(volume.read()) - POINT).max() < 0.15


@pytest.mark.parametrize("binning", ["fourier", "average"])
@pytest.mark.parametrize(
    ("size", "times"), [((24, 40, 48), 2), ((24, 41, 49), 2), ((25, 43, 50), 3), ((48, 42, 51), 4)]
)
def test_binned_voxels_are_where_their_origin_says(
    peak: Peak, spots: Draw, tmp_path: Path, binning: str, size: tuple[int, int, int], times: int
) -> None:
    point = (np.array(size[::-1]) - 1) / 2 + (7.0, -5.0, 4.0)
    stack(tmp_path, spots(size, point, 1.4 * times))
    result = command(tmp_path, "--thickness", str(5 * size[0]), "--bin", str(times), "--binning", binning)
    assert result.exit_code == 0, result.output
    volume = open_volume(tmp_path / "out.mrc")
    assert volume.voxel_size == 5 * times
    assert volume.binning is not None
    assert volume.binning.factor == times
    # across and along the axis, voxels are counted from the images' first pixel; along z from the middle
    found = peak(volume.read()) * 5 * times + volume.origin
    assert np.abs(found[:2] / 5 - point[:2]).max() < 0.15 * times
    middle = (volume.shape[0] - 1) / 2
    assert abs((peak(volume.read())[2] - middle) * times - 4.0) < 0.15 * times


def test_a_voxel_size_asks_for_the_nearest_whole_binning(spots: Draw, tmp_path: Path) -> None:
    stack(tmp_path, spots())
    assert (
        "24 x 20 x 12 voxels of 10 Å" in command(tmp_path, "--thickness", "120", "--voxel-size", "11").output
    )


@pytest.mark.parametrize("axis", [-90.0, 85.3, -4.0, 180.0])
def test_a_turned_tilt_axis_is_turned_back(
    projections: Draw, peak: Peak, tmp_path: Path, axis: float
) -> None:
    """Images are drawn with their axis anywhere, about the middle of a large field."""
    size = (24, 60, 60)
    point = np.array([36.5, 24.5, 15.5])
    upright = projections(point[None], size, ANGLES, 2.5)
    # scipy turns from rows to columns: drawn anticlockwise, with y upwards
    turned = np.stack([ndimage.rotate(i, -axis, reshape=False, order=3, mode="nearest") for i in upright])
    stack(tmp_path, turned)
    result = command(tmp_path, "--thickness", "120", "--tilt-axis", str(axis))
    assert result.exit_code == 0, result.output
    assert np.abs(peak(open_volume(tmp_path / "out.mrc").read()) - point).max() < 0.2


def test_width_and_height_change_places_with_an_axis_along_x(spots: Draw, tmp_path: Path) -> None:
    stack(tmp_path, np.swapaxes(spots(), 1, 2)[:, ::-1])
    assert "48 x 40 x 24 voxels" in command(tmp_path, "--thickness", "120", "--tilt-axis", "90").output


def test_negated_angles_mirror_along_z(peak: Peak, spots: Draw, tmp_path: Path) -> None:
    stack(tmp_path, spots())
    command(tmp_path, "--thickness", "120", "--negate-angles")
    found = peak(open_volume(tmp_path / "out.mrc").read())
    assert np.abs(found - (POINT[0], POINT[1], SHAPE[0] - 1 - POINT[2])).max() < 0.15


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
def test_grey_values_on_any_scale_and_images_left_out(peak: Peak, spots: Draw, tmp_path: Path) -> None:
    images = 5 - spots() / 10  # bright, about a mean below zero
    images[7] = np.nan
    images[12] = 3
    path = stack(tmp_path, images)
    for bad, words in (
        (7, "image 7 has pixels that are not numbers"),
        (12, "image 12 is the same everywhere"),
    ):
        result = command(tmp_path, "--leave-out", {7: "12", 12: "7"}[bad])
        assert isinstance(result.exception, InputError)
        assert words in str(result.exception)
    result = command(tmp_path, "--thickness", "120", "--leave-out", "7,12")
    assert result.exit_code == 0, result.output
    assert np.abs(peak(-open_volume(path.parent / "out.mrc").read()) - POINT).max() < 0.2


@pytest.mark.parametrize(
    "options",
    [
        ("--filter", "sirt", "--iterations", "12"), ("--filter", "exact", "--rolloff", "gaussian"),
        ("--ctf", "phase_flip", "--defocus", "0.01", "--yes"),
    ],
)  # fmt: skip
def test_options_reach_the_filters(peak: Peak, spots: Draw, tmp_path: Path, options: tuple[str, ...]) -> None:
    stack(tmp_path, spots())
    command(tmp_path, "--thickness", "120")
    plain = open_volume(tmp_path / "out.mrc").read()
    result = command(tmp_path, "--thickness", "120", *options)
    assert result.exit_code == 0, result.output
    other = open_volume(tmp_path / "out.mrc").read()
    assert np.abs(peak(other) - POINT).max() < 0.3
    assert not np.allclose(other, plain, rtol=1e-3)


def test_options_of_the_lens_reach_it(spots: Draw, tmp_path: Path) -> None:
    """A corrected microscope has no spherical aberration; that is not the same as none given."""
    stack(tmp_path, spots())
    common = ("--thickness", "120", "--ctf", "wiener", "--defocus", "0.02", "--yes")
    found = []
    for options in (
        (), ("--cs", "2.7"), ("--cs", "0"), ("--ctf-slab", "20"), ("--wiener-snr", "5"), ("--voltage", "100"),
    ):  # fmt: skip
        result = command(tmp_path, *common, *options)
        assert result.exit_code == 0, result.output
        found.append(open_volume(tmp_path / "out.mrc").read())
    assert np.array_equal(found[0], found[1])
    for other in found[2:]:
        assert np.abs(other - found[0]).max() > 1e-3 * found[0].std()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--thickness", "30"), "--thickness is 30 Å: a 70S ribosome is 250 Å large and lamellae are"),
        (
            ("--pixel-size", "0.2"),
            "--pixel-size is 0.2 Å: tilt images have pixels of 0.5 to 6 Å; is it in nm",
        ),
        (("--pixel-size", "50"), "the tomogram's voxel size is 50 Å: tomograms to pick in"),
        (("--voxel-size", "60"), "the tomogram's voxel size is 60 Å"),
        (("--defocus", "-3"), "--defocus is -3 µm: tilt series are taken 1 to 8 µm under focus"),
        (("--defocus", "3", "--voltage", "3000"), "--voltage is 3000 kV"),
        (("--defocus", "3", "--cs", "27"), "--cs is 27 mm: lenses have"),
        (("--defocus", "3", "--amplitude-contrast", "0.7"), "--amplitude-contrast is 0.7"),
        (
            ("--dose-per-tilt", "0.03"),
            "--dose-per-tilt, over all 41 images, is 1.23 e/Å²: a whole tilt series",
        ),
    ],
)
def test_an_unusual_value_is_refused_unless_it_is_meant(
    spots: Draw, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    stack(tmp_path, spots())
    refused = command(tmp_path, *(() if "--thickness" in options else ("--thickness", "120")), *options)
    assert isinstance(refused.exception, InputError)
    assert words in str(refused.exception)
    assert str(refused.exception).endswith("if this is meant, add --yes")
    assert not (tmp_path / "out.mrc").exists()


def test_images_of_one_angle_are_refused(spots: Draw, tmp_path: Path) -> None:
    stack(tmp_path, spots()[:3])
    (tmp_path / "same.tlt").write_text("4\n4\n4\n")
    result = command(tmp_path, "--thickness", "120", angles="same.tlt")
    assert isinstance(result.exception, InputError)
    assert "all images have the same angle" in str(result.exception)


def test_what_does_not_fit_into_memory_goes_through_files(
    spots: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(tmp_path, spots())
    options = ("--thickness", "120", "--ctf", "wiener", "--defocus", "1")
    command(tmp_path, *options)
    before = open_volume(tmp_path / "out.mrc").read()
    monkeypatch.setattr(ctf, "_IN_MEMORY", 0)
    command(tmp_path, *options, to="other.mrc")
    assert np.array_equal(open_volume(tmp_path / "other.mrc").read(), before)


def test_an_mdoc_gives_angles_doses_and_defocus(
    mdoc: Callable[..., Path], projections: Draw, tmp_path: Path
) -> None:
    path = mdoc(tmp_path)
    angles = np.arange(-9.0, 10, 3) + 0.004
    images = projections(POINT[None], SHAPE, angles, 2.5)
    stack(tmp_path, images, pixel=0.0)
    options = ("--thickness", "66", "--dose-weighting", "--ctf", "phase_flip", "--yes")
    result = command(tmp_path, *options, angles=path.name)
    assert result.exit_code == 0, result.output
    assert open_volume(tmp_path / "out.mrc").voxel_size == pytest.approx(2.74)
    path.write_text(path.read_text().replace("Voltage = 300", "Voltage = 300000"))
    refused = command(tmp_path, *options, angles=path.name).exception
    assert isinstance(refused, InputError)
    assert "a voltage of 300000 kV, which no microscope has; give --voltage" in str(refused)
    assert command(tmp_path, *options, "--voltage", "300", angles=path.name).exit_code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "7 images and .* has 41 angles"),
        (("--tilt-axis", "200"), "degrees from the images' y"),
        (("--bin", "0"), "--bin must be positive"),
        (("--bin", "2", "--voxel-size", "10"), "give one of them"),
        (("--thickness", "-5"), "--thickness must be positive"),
        (("--iterations", "0", "--filter", "sirt"), "--iterations 0"),
        (("--leave-out", "x"), "--leave-out x: give image numbers"),
        (("--defocus", "nan"), "--defocus must be from -100 to 100 µm, not nan"),
        (("--voltage", "0"), "--voltage must be from 10 to 3000 kV, not 0"),
        (("--cs", "-1"), "--cs must be from 0 to 100 mm"),
        (("--amplitude-contrast", "2"), "--amplitude-contrast must be from 0 to 1, not 2"),
        (("--phase-shift", "nan"), "--phase-shift must be from -180 to 180 degrees"),
        (("--ctf-slab", "0"), "--ctf-slab 0"),
        (("--wiener-snr", "nan"), "--wiener-snr nan"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    spots: Draw, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    stack(tmp_path, spots()[:7])
    result = command(tmp_path, *options)
    assert isinstance(result.exception, InputError)
    assert "\n" not in str(result.exception)
    with pytest.raises(InputError, match=words):
        raise result.exception


def test_a_device_is_used_or_refused(spots: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX's CPU stands for the GPU; where there is none, it never becomes the CPU silently."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    stack(tmp_path, spots())
    monkeypatch.setattr(devices, "count", lambda: 0)
    refused = command(tmp_path, "--thickness", "120", "--device", "gpu", to="no.mrc").exception
    assert isinstance(refused, InputError)
    assert "device: gpu was requested, but CUDA finds no GPU here" in str(refused)
    assert not (tmp_path / "no.mrc").exists()
    assert command(tmp_path, "--thickness", "120", "--device", "auto", to="auto.mrc").exit_code == 0
    assert command(tmp_path, "--thickness", "120", to="cpu.mrc").exit_code == 0
    asked = []
    monkeypatch.setattr(devices, "of_jax", lambda word: asked.append(word) or jax.devices("cpu")[0])
    assert command(tmp_path, "--thickness", "120", "--device", "gpu", to="gpu.mrc").exit_code == 0
    assert asked == ["gpu"]
    cpu, auto, there = (open_volume(tmp_path / f"{name}.mrc").read() for name in ("cpu", "auto", "gpu"))
    assert np.array_equal(cpu, auto)
    assert 0 < np.abs(there - cpu).max() < 1e-5 * cpu.std()  # as back-projected by another code


def test_more_mistakes(spots: Draw, tmp_path: Path) -> None:
    stack(tmp_path, spots(), pixel=0.0)
    for options, to, words in (
        ((), "out.mrc", "give --pixel-size"),
        (("--pixel-size", "5", "--leave-out", "99"), "out.mrc", "has images 0 to 40"),
        (("--pixel-size", "5"), "out.tif", "must end in"),
        (("--pixel-size", "5", "--dose-weighting"), "out.mrc", "give its .mdoc"),
        (("--pixel-size", "5", "--ctf", "wiener"), "out.mrc", "give --defocus"),
        (("--pixel-size", "5", "--bin", "30"), "out.mrc", "cannot be binned 30 times"),
    ):
        result = command(tmp_path, *options, to=to)
        assert isinstance(result.exception, InputError), options
        assert words in str(result.exception)
        assert not (tmp_path / to).exists()
    (tmp_path / "ts.ali").write_bytes(b"not a stack")
    assert isinstance(command(tmp_path, "--pixel-size", "5").exception, InputError)
    (tmp_path / "ts.ali").unlink()
    assert "there is no stack" in str(command(tmp_path).exception)
