"""A tomogram is preprocessed for the model, or refused: voxel size, contrast, binning, region."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.model_file import ModelCard, read_card
from catalogs.seeds import generator
from catalogs.volumes import write_mrc
from tlpick.network.tomograms.contrast import apparent_contrast
from tlpick.network.tomograms.inputs import Tomogram
from tlpick.network.tomograms.intake import Prepared, Preprocessing, prepare
from tlpick.network.tomograms.masks import Region
from tlpick.network.tomograms.scratch import Scratch


@pytest.fixture
def card(ball_model: Path) -> ModelCard:
    return read_card(ball_model)


@pytest.fixture
def take(card: ModelCard, tmp_path: Path) -> Any:
    """Write a volume and prepare it."""

    def run(
        data: NDArray[Any], header: float = 10.0, in_files: bool = False, **preprocessing: Any
    ) -> Prepared:
        write_mrc(tmp_path / "tomo.mrc", data, header)
        scratch = Scratch(tmp_path, 0 if in_files else 1e12)
        return prepare(
            Tomogram(str(tmp_path / "tomo.mrc")), card, Preprocessing(**preprocessing), scratch, 1e12
        )

    return run


def noise(*shape: int) -> NDArray[np.float32]:
    return generator("intake", *shape).normal(100, 7, shape).astype(np.float32)


def test_a_bin_is_a_mean_and_moves_the_first_voxel(take: Any) -> None:
    data = noise(23, 40, 41)
    made = take(data, 2.5, bin=4)
    means = data[:20, :40, :40].reshape(5, 4, 10, 4, 10, 4).mean(axis=(1, 3, 5))
    assert made.values.shape == (5, 10, 10)
    assert made.grid == 10.0
    assert made.offset == (3.75, 3.75, 3.75)  # the middle of four voxels
    assert (made.shape, made.voxel_size) == ((23, 40, 41), 2.5)
    np.testing.assert_allclose(made.values * means.std(), means - np.median(means), atol=0.5)


def test_a_crop_keeps_its_place(take: Any) -> None:
    data = noise(30, 20, 20)
    made = take(data, 10.0, crop=(7, 19))
    assert made.values.shape == (12, 20, 20)
    assert made.offset == (0.0, 0.0, 70.0)
    whole = take(data, 10.0)
    assert np.corrcoef(made.values.ravel(), whole.values[7:19].ravel())[0, 1] > 0.999
    with pytest.raises(InputError, match=r"`crop=40:50` leaves nothing of .* has 30 planes"):
        take(data, 10.0, crop=(40, 50))


def test_files_hold_what_memory_holds(take: Any) -> None:
    data = noise(30, 20, 20)
    np.testing.assert_array_equal(take(data, in_files=True).values, take(data).values)


def test_only_the_inside_of_a_mask_is_measured(take: Any, tmp_path: Path) -> None:
    data = noise(20, 24, 28)
    data[:, :, 14:] = 5000  # vacuum beside the lamella
    data[0, 0, 27] = np.nan
    mask = np.zeros((10, 12, 14), np.int8)
    mask[:, :, :7] = 1
    write_mrc(tmp_path / "mask-tomo.mrc", mask, 20.0)
    made = take(data, mask=str(tmp_path / "mask-{name}.mrc"))
    assert made.mask is not None
    assert made.mask.shape == (20, 24, 28)
    assert made.mask[:, :, :14].all()
    assert not made.mask[:, :, 14:].any()
    inside = made.values[made.mask]
    assert abs(np.median(inside)) < 0.01
    assert inside.std() == pytest.approx(1, abs=0.05)
    assert np.isfinite(made.values).all()


def test_a_mask_covers_the_tomogram_at_any_binning(tmp_path: Path) -> None:
    inside = generator("mask").random((7, 9, 11)) > 0.5
    write_mrc(tmp_path / "mask.mrc", inside.astype(np.int8), 0.0)  # which does not state its voxel size
    region = Region(str(tmp_path / "mask.mrc"), (28, 36, 44), 5.0)
    at = region.at([np.arange(n) * 5.0 for n in (28, 36, 44)])
    np.testing.assert_array_equal(at, inside.repeat(4, 0).repeat(4, 1).repeat(4, 2))
    xyz = np.array([[44 * 5.0 - 5, 0.0, 5.0 * 15]])
    assert region.holds(xyz).tolist() == [inside[3, 0, 10]]


def test_a_mask_of_another_box_is_refused(tmp_path: Path, take: Any) -> None:
    write_mrc(tmp_path / "mask.mrc", np.ones((10, 12, 14), np.int8), 10.0)
    with pytest.raises(
        InputError, match=r"mask .* has 14 x 12 x 10 voxels of 10 Å, the tomogram 28 x 24 x 20 of 10 Å"
    ):
        take(noise(20, 24, 28), mask=str(tmp_path / "mask.mrc"))
    write_mrc(tmp_path / "mask.mrc", np.zeros((20, 24, 28), np.int8), 10.0)
    with pytest.raises(InputError, match="is empty: all of its voxels are 0"):
        take(noise(20, 24, 28), mask=str(tmp_path / "mask.mrc"))


@pytest.mark.parametrize("header", [0.0, 1.0])
def test_a_voxel_size_of_0_or_1_is_unknown(take: Any, header: float) -> None:
    with pytest.raises(InputError, match=r"does not state its voxel size; give it with `voxel_size`, in Å"):
        take(noise(16, 16, 16), header)
    assert take(noise(16, 16, 16), header, voxel_size=10.1).voxel_size == 10.1


def test_the_option_goes_before_a_header_that_makes_no_sense(card: ModelCard, tmp_path: Path) -> None:
    file = tmp_path / "tomo.mrc"
    write_mrc(file, noise(16, 16, 16), 10.0)
    content = bytearray(file.read_bytes())
    content[48:52] = np.float32(528).tobytes()  # 33 Å along z
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match="not cubes"):
        prepare(Tomogram(str(file)), card, Preprocessing(), Scratch(tmp_path, 1e12), 1e12)
    made = prepare(Tomogram(str(file)), card, Preprocessing(voxel_size=10.0), Scratch(tmp_path, 1e12), 1e12)
    assert made.voxel_size == 10
    shutil.copy(file, tmp_path / "mask.mrc")  # of as many voxels: its header does not count
    preprocessing = Preprocessing(voxel_size=10.0, mask=str(tmp_path / "mask.mrc"))
    assert prepare(Tomogram(str(file)), card, preprocessing, Scratch(tmp_path, 1e12), 1e12).region is not None


def test_another_voxel_size_is_refused_with_what_to_do(take: Any) -> None:
    with pytest.raises(InputError, match=r"voxels of 5 Å, the model .* at 10 Å; add `rescale` or `bin=2`"):
        take(noise(16, 16, 16), 5.0)
    with pytest.raises(InputError, match=r"voxels of 7.5 Å after binning by 3.* add `rescale` to resample"):
        take(noise(16, 16, 16), 2.5, bin=3)
    assert take(noise(16, 16, 16), 5.0, rescale=True).values.shape == (8, 8, 8)


def balls(sign: int) -> NDArray[np.float32]:
    data = generator("contrast").normal(size=(48, 64, 64))
    z, y, x = np.indices(data.shape)
    for k in range(6):
        cz, cy, cx = generator("contrast", k).uniform(8, 40, 3)
        data[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 25] += 2 * sign
    return data.astype(np.float32)


def test_the_wrong_contrast_is_refused_and_can_be_turned(take: Any) -> None:
    dark, bright = balls(-1), balls(1)
    assert apparent_contrast(dark, 3)[0] == "dark"
    assert apparent_contrast(bright, 3)[0] == "bright"
    assert apparent_contrast(noise(48, 64, 64), 3)[0] is None
    with pytest.raises(
        InputError, match=r"seems to be bright .* expects it dark; add `invert`, or `trust_contrast`"
    ):
        take(bright)
    with pytest.raises(InputError, match=r"seems to be bright with `invert` .*; leave out `invert`"):
        take(dark, invert=True)
    np.testing.assert_allclose(take(bright, invert=True).values, -take(bright, trust_contrast=True).values)
    assert take(dark).values.shape == dark.shape


def test_a_file_that_states_its_contrast_is_believed(card: ModelCard, tmp_path: Path) -> None:
    tomogram = Tomogram(str(tmp_path / "tomo.mrc"))
    write_mrc(tomogram.path, noise(16, 16, 16), 10.0, contrast="bright")
    scratch = Scratch(tmp_path, 1e12)
    with pytest.raises(InputError, match=r"states that protein is bright, .* expects it dark; add `invert`"):
        prepare(tomogram, card, Preprocessing(), scratch, 1e12)
    prepare(tomogram, card, Preprocessing(invert=True), scratch, 1e12)
    write_mrc(tomogram.path, balls(1), 10.0, contrast="dark")  # whatever it looks like
    prepare(tomogram, card, Preprocessing(), scratch, 1e12)


def test_the_byte_order_does_not_matter(take: Any, card: ModelCard, tmp_path: Path) -> None:
    import mrcfile

    data = noise(16, 20, 24)
    native = take(data).values
    with mrcfile.new(tmp_path / "big.mrc") as mrc:
        mrc.set_data(data)
        mrc.voxel_size = 10.0
    with mrcfile.open(tmp_path / "big.mrc", "r+") as mrc:
        header, voxels = mrc.header.copy(), mrc.data.copy()
    swapped = header.byteswap().view(header.dtype.newbyteorder())
    swapped["machst"] = [0x11, 0x11, 0, 0]
    (tmp_path / "big.mrc").write_bytes(swapped.tobytes() + voxels.astype(">f4").tobytes())
    made = prepare(Tomogram(str(tmp_path / "big.mrc")), card, Preprocessing(), Scratch(tmp_path, 1e12), 1e12)
    np.testing.assert_array_equal(made.values, native)
