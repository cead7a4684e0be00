"""Samples of a corpus and images that we write, opened by programs that know nothing of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from catalogs.corpus.catalog import Catalog, Sample
from catalogs.volumes import write_ome_zarr

MakeSample = Callable[..., Sample]
VOXEL = 8.0


@pytest.fixture
def sample(make_sample: MakeSample) -> Sample:
    return make_sample(0)


@pytest.fixture
def path(corpus: Catalog, sample: Sample) -> str:
    return corpus.sample_url(corpus.write(sample).sample_id)


def close(stored: np.ndarray, sample: Sample) -> None:
    """The tomogram is stored with 10 bits of mantissa."""
    np.testing.assert_allclose(stored, sample.tomogram, rtol=2**-11)


def test_zarr(path: str, sample: Sample) -> None:
    group = zarr.open_group(path, mode="r")
    close(group["0"][:], sample)
    np.testing.assert_array_equal(group["labels/classes/0"][:], sample.classes)
    np.testing.assert_array_equal(group["labels/instances/0"][:], sample.instances)
    np.testing.assert_allclose(group["particles/position"][:, 0], sample.particles["x"])


def test_xarray(path: str, sample: Sample) -> None:
    image = xr.open_zarr(path)
    assert image["0"].dims == ("z", "y", "x")
    close(image["0"].values, sample)
    particles = xr.open_zarr(path, group="particles")
    np.testing.assert_allclose(particles["position"].sel(xyz=2), sample.particles["z"])
    tilts = xr.open_zarr(path, group="tilts")
    np.testing.assert_allclose(tilts["angle"], sample.tilt_angles)
    tree = xr.open_datatree(path, engine="zarr")
    np.testing.assert_array_equal(tree["labels/classes"]["0"].values, sample.classes)


def test_tensorstore(path: str, sample: Sample) -> None:
    tensorstore = pytest.importorskip("tensorstore")

    def read(array: str) -> np.ndarray:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/{array}"}}
        opened = tensorstore.open(spec, read=True).result()
        assert opened.domain.labels == ("z", "y", "x")
        return np.asarray(opened.read().result())

    close(read("0"), sample)
    np.testing.assert_array_equal(read("labels/classes/0"), sample.classes)
    np.testing.assert_array_equal(read("labels/instances/0"), sample.instances)


def test_ome_zarr(path: str, sample: Sample) -> None:
    """The reader that napari's plugin is built on."""
    io = pytest.importorskip("ome_zarr.io")
    from ome_zarr.reader import Reader

    nodes = {str(node.zarr): node for node in Reader(io.parse_url(path))()}
    assert len(nodes) == 4  # the image, the group of labels, and two labels in it
    image, *labels = nodes.values()
    close(np.asarray(image.data[0]), sample)
    assert [axis["name"] for axis in image.metadata["axes"]] == ["z", "y", "x"]
    assert image.metadata["coordinateTransformations"][0][0]["scale"] == [VOXEL] * 3
    shown = {node.metadata["name"]: np.asarray(node.data[0]) for node in labels if node.data}
    assert shown.keys() == {"classes", "instances"}
    np.testing.assert_array_equal(shown["classes"], sample.classes)
    np.testing.assert_array_equal(shown["instances"], sample.instances)


def test_ome_zarr_models(path: str, tmp_path: Path) -> None:
    """A validator of the specification."""
    v05 = pytest.importorskip("ome_zarr_models.v05")
    if (
        version("ome_zarr_models") < "1.7"
    ):  # the last for Python 3.11, which trips over labels without colours
        path = shutil.copytree(path, tmp_path / "coloured.zarr")
        for key in ("zarr.json", "labels/instances/zarr.json"):
            content = json.loads(Path(path, key).read_text())
            content.pop("consolidated_metadata", None)
            label = content["attributes"]["ome"].get("image-label", {})
            label["colors"] = [{"label-value": 1, "rgba": [255, 0, 0, 255]}]
            Path(path, key).write_text(json.dumps(content))
    group = zarr.open_group(path, mode="r")
    image = v05.Image.from_zarr(group)
    scale = image.ome_attributes.multiscales[0].datasets[0].coordinateTransformations[0]
    assert scale.scale == [VOXEL] * 3
    assert {axis.unit for axis in image.ome_attributes.multiscales[0].axes} == {"angstrom"}
    assert image.labels is not None
    assert set(image.labels.label_paths) == {"classes", "instances"}
    for name in ("classes", "instances"):
        v05.ImageLabel.from_zarr(group[f"labels/{name}"])

    data = np.zeros((70, 30, 41), np.uint8)
    write_ome_zarr(tmp_path / "a.zarr", data, VOXEL, origin=(1.0, 2.0, 3.0), levels=3, labels=True)
    written = v05.Image.from_zarr(zarr.open_group(tmp_path / "a.zarr", mode="r"))
    assert [level.path for level in written.ome_attributes.multiscales[0].datasets] == ["0", "1", "2"]
