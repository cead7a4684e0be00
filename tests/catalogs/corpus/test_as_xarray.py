"""A corpus as one lazy tree of xarray."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from catalogs.corpus.catalog import Catalog, Sample

MakeSample = Callable[..., Sample]
SHAPE = "9x14x11 at 8 Å"


@pytest.fixture
def filled(corpus: Catalog, make_sample: MakeSample) -> Catalog:
    """Three samples of one shape and one of another; the dose falls from sample to sample."""
    for k in range(3):
        corpus.write(
            make_sample(k, shape=(9, 14, 11), dose=120.0 - 20 * k, contrast=1.5 if k else "parakeet")
        )
    corpus.write(make_sample(3, shape=(8, 8, 8), dose=60.0))
    return corpus


def test_the_table_is_in_it_with_its_units(filled: Catalog) -> None:
    tree = filled.to_xarray("dose > 90")
    assert isinstance(tree, xr.DataTree)
    table = tree["samples"].dataset
    assert dict(table.sizes) == {"sample": 2}
    assert table["dose"].attrs["units"] == "e/Å²"
    assert table["defocus"].attrs["units"] == "µm"
    assert table["sample"].values.tolist() == filled.sample_ids()[:2]
    assert tree.attrs["classes"] == ["ribosome", "fas"]
    assert set(Catalog.open(filled.url).to_xarray()["volumes"].children) == {SHAPE, "8x8x8 at 8 Å"}


def test_nothing_is_read_before_voxels_are_asked_for(
    filled: Catalog, make_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = Catalog.arrays
    monkeypatch.setattr(Catalog, "arrays", lambda self, i: opened.append(i) or real(self, i))
    tree = filled.to_xarray()
    volumes = tree[f"volumes/{SHAPE}"].dataset
    assert volumes["tomogram"].dims == ("sample", "z", "y", "x")
    assert volumes["tomogram"].shape == (3, 9, 14, 11)
    assert "tomogram" in repr(tree)
    assert "tomogram" in tree._repr_html_()
    chosen = volumes.sel(dose=slice(70, 100)).isel(z=4)
    assert opened == []
    for name in ("tomogram", "classes", "instances"):
        expected = [getattr(make_sample(k, shape=(9, 14, 11)), name)[4] for k in (1, 2)]
        np.testing.assert_allclose(chosen[name].values, np.stack(expected), rtol=1e-3)
        assert chosen[name].dtype == expected[0].dtype
    assert set(opened) == set(filled.sample_ids()[1:3])


def test_samples_are_chosen_by_their_parameters(filled: Catalog) -> None:
    volumes = filled.to_xarray()[f"volumes/{SHAPE}"].dataset
    assert volumes["dose"].attrs["units"] == "e/Å²"
    assert "defocus" not in volumes.coords  # the same for all
    names = volumes.sel(dose=slice(None, 100))["name"]
    assert names.values.tolist() == ["demo-001", "demo-002"]
    assert names["dose"].attrs["units"] == "e/Å²"
    assert volumes.sel(split="train", dose=[120, 80])["name"].values.tolist() == ["demo-000"]
    assert volumes.sel(split="test").sel(dose=slice(70, 90)).rename(dose="e").sel(e=80).sizes["sample"] == 1
    assert volumes.sel(dose=95, method="nearest")["name"].item() == "demo-001"
    assert volumes.sel(contrast="parakeet").sizes["sample"] == 1
    assert volumes.sel(sample=filled.sample_ids()[2])["dose"].item() == 80
    with pytest.raises(KeyError, match="no sample has dose = 5"):
        volumes.sel(dose=5)


def test_voxels_are_those_of_the_samples_however_they_are_asked_for(filled: Catalog) -> None:
    stacked = filled.to_xarray()[f"volumes/{SHAPE}"]["tomogram"]
    whole = np.stack([filled.arrays(i)["tomogram"][...] for i in filled.sample_ids()[:3]])
    np.testing.assert_array_equal(stacked.isel(sample=[2, 0]).values, whole[[2, 0]])
    np.testing.assert_array_equal(
        stacked.isel(sample=1, y=[3, 9, 4], x=-1).values, whole[1][:, [3, 9, 4], -1]
    )
    np.testing.assert_array_equal(stacked[:, 2:8:3, :, [5, 5]].values, whole[:, 2:8:3][..., [5, 5]])
    np.testing.assert_array_equal(stacked.isel(sample=slice(0, 0)).values, whole[:0])
    np.testing.assert_array_equal(stacked.isel(z=[], sample=[0]).values, whole[:1, :0])
    near = stacked.sel(z=33, method="nearest")
    np.testing.assert_array_equal(near.values, whole[:, 4])
    assert near["z"].item() == 32
