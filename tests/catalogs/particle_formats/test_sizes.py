"""Pixel sizes that are none: nothing is converted by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats.base import Context
from tlpick.network.tomograms.inputs import Selection, expand

HEAD = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnTomoTiltSeriesPixelSize #2\n1 {size}\n\n"
BODY = (
    "data_particles\n\nloop_\n_rlnTomoName #1\n_rlnOpticsGroup #2\n_rlnCoordinateX #3\n_rlnCoordinateY #4\n"
    "_rlnCoordinateZ #5\nTS_1 1 10 20 30\n"
)


@pytest.mark.parametrize("size", ["0", "-10", "nan", "inf", "-0.0"])
def test_a_star_file(tmp_path: Path, size: str) -> None:
    file = tmp_path / "p.star"
    file.write_text(HEAD.format(size=size) + BODY)
    with pytest.raises(InputError, match=r"p\.star"):
        particles.read(file, "relion4", context=Context())
    file.write_text(HEAD.format(size="2.5") + BODY)
    assert particles.read(file, "relion4", context=Context())["x"].tolist() == [25.0]


@pytest.mark.parametrize("size", ["0", "-10", "nan"])
def test_a_list_of_tomograms(tmp_path: Path, size: str) -> None:
    file = tmp_path / "tomograms.star"
    file.write_text(
        "data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoReconstructedTomogram #2\n"
        f"_rlnTomoTiltSeriesPixelSize #3\n_rlnTomoTomogramBinning #4\nTS_1 a.mrc {size} 4\n"
    )
    [(_, error)] = expand([str(file)], Selection())[1]
    assert "which is not a valid size" in str(error)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_options(size: float) -> None:
    with pytest.raises(InputError, match=r"voxel size of .* is impossible"):
        Context(voxel_size=size)
    with pytest.raises(InputError, match=r"pixel size of .* is impossible"):
        Context(pixel_size={"a": 1.0, "b": size})
