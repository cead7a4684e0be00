"""What a sample holds: every column as it was, the density, and how it was made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from catalogs import particles
from catalogs.corpus import sample_group
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.schema import Acquisition
from catalogs.volumes import open_volume

MakeSample = Callable[..., Sample]

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint8": st.integers(0, 255),
    "float64": st.floats(allow_nan=True),
    "float32": st.floats(width=32, allow_nan=True),
    "bool": st.booleans(),
}


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    """Draw columns of numbers, truth and text of equal length, under any names."""
    n = draw(st.integers(0, 5))
    found: dict[str, Any] = {}
    for name in draw(st.lists(TEXT.filter(lambda t: t not in particles.COLUMNS), max_size=4, unique=True)):
        kind = draw(st.sampled_from([*NUMBERS, "text", "text with gaps"]))
        value = NUMBERS.get(kind, TEXT if kind == "text" else st.one_of(TEXT, st.none()))
        values = draw(st.lists(value, min_size=n, max_size=n))
        found[name] = np.array(values, dtype=kind if kind in NUMBERS else object)
    return {"x": np.zeros(n), "y": np.arange(n), "z": np.ones(n), **found}


@pytest.fixture(scope="module")
def template(make_sample: MakeSample) -> Sample:
    return make_sample(0, shape=(4, 5, 6))


@settings(deadline=None, max_examples=40)
@given(columns())
def test_every_column_is_kept(template: Sample, given_columns: dict[str, Any]) -> None:
    table = particles.make(tomogram="demo-000", **given_columns)
    sample = replace(template, particles=table)
    objects = sample_group.encode(sample, voxel_size=8.0, attributes={}, classes=[], thumbnail=b"")
    from zarr.core.buffer import default_buffer_prototype

    store = {k: default_buffer_prototype().buffer.from_bytes(v) for k, v in objects.items()}
    read = sample_group.read_particles(zarr.open_group(MemoryStore(store), mode="r"))
    expected = table.assign(tomogram="demo-000") if len(table) else read[table.columns].iloc[:0]
    pd.testing.assert_frame_equal(read, expected, check_exact=True)
    for name in table.columns:
        if table[name].dtype != object:
            assert read[name].dtype == table[name].dtype


def test_what_pandas_makes_of_columns(corpus: Catalog, make_sample: MakeSample) -> None:
    sample = make_sample(0)
    table = sample.particles.assign(
        mode_1=[0.5, -1.0, np.nan],
        rmsd=np.array([1, 2, 3], np.float32),
        cut=[True, False, True],
        kind=pd.Categorical(["a", "b", "a"]),
        word=pd.array(["x", pd.NA, "y"], dtype="string"),
        big=pd.array([2**62 + 1, 2, 3], dtype="Int64"),
    )
    read = corpus.particles(corpus.write(replace(sample, particles=table)).sample_id)
    np.testing.assert_array_equal(read["mode_1"], [0.5, -1.0, np.nan])
    assert read["rmsd"].dtype == np.float32
    assert read["cut"].tolist() == [True, False, True]
    assert read["cut"].dtype == bool
    assert read["kind"].tolist() == ["a", "b", "a"]
    assert read["word"].tolist() == ["x", None, "y"]
    assert read["big"].tolist() == [2**62 + 1, 2, 3]


@pytest.mark.parametrize("values", [[1, "a", 2.0], [b"x", b"y", b"z"], pd.to_datetime(["2026-01-01"] * 3)])
def test_columns_that_no_array_holds(corpus: Catalog, make_sample: MakeSample, values: Any) -> None:
    sample = make_sample(0)
    with pytest.raises(ValueError, match="column 'odd' of a particle table holds neither"):
        corpus.write(replace(sample, particles=sample.particles.assign(odd=values)))
    assert corpus.records() == []
    assert not (Path(corpus.url) / "samples").exists()


def test_density(corpus: Catalog, make_sample: MakeSample) -> None:
    sample = make_sample(0)
    density = np.random.default_rng(1).gamma(1.0, 0.1, sample.tomogram.shape).astype(np.float32)
    record = corpus.write(replace(sample, density=density))
    np.testing.assert_allclose(corpus.arrays(record.sample_id)["density"][...], density, rtol=2**-11)
    dataset = corpus.open_sample(record.sample_id)
    assert set(dataset) == {"tomogram", "classes", "instances", "density"}
    assert dataset["density"].attrs["unit"] == "Da/Å³"
    volume = open_volume(f"{corpus.sample_url(record.sample_id)}/density")
    assert volume.voxel_size == 8.0
    np.testing.assert_allclose(volume.read(), density, rtol=2**-11)
    assert corpus.verify() == []
    with pytest.raises(ValueError, match="density is float64"):
        corpus.write(replace(make_sample(1), density=density.astype(np.float64)))  # type: ignore[arg-type]


def test_how_it_was_made_is_in_the_sample_itself(corpus: Catalog, make_sample: MakeSample) -> None:
    recipe = {"name": "demo", "distractors": [{"file": "1pwc", "count": 3}], "note": "Å"}
    sample = replace(make_sample(0, dose=90.0), recipe=recipe, seeds={"corpus": 7, "pack": 2**62})
    record = corpus.write(sample)
    path = corpus.sample_url(record.sample_id)
    for made in (corpus.provenance(record.sample_id), zarr.open_group(path).attrs["template_learning"]):
        assert isinstance(made, dict)
        assert made["recipe"] == recipe
        assert made["seeds"] == {"corpus": 7, "pack": 2**62}
        assert made["software"] == {"parakeet": "0.6.8"}
        assert made["structures"] == {"4v5d": "aa", "1e10": "bb"}
        assert made["acquisition"]["dose"] == 90.0
        assert made["units"]["dose"] == "e/Å²"
        assert set(made["units"]) <= set(made["acquisition"]) == set(Acquisition.model_fields)
    assert xr.open_zarr(path).attrs["template_learning"]["seed"] == 0


def test_a_record_does_not_grow_with_its_sample(corpus: Catalog, make_sample: MakeSample) -> None:
    """Neither with the tilts nor with the particles nor with the columns."""
    small, large = make_sample(0, shape=(9, 14, 11)), make_sample(1, shape=(9, 14, 11))
    n, t = 500, 61
    table = particles.make(
        tomogram="demo-001",
        **{axis: np.arange(n) for axis in "xyz"},
        **{f"mode_{k}": np.linspace(0, 1, n) for k in range(20)},
    )
    large = replace(
        large,
        particles=table,
        tilt_images=np.ones((t, 14, 11), np.float32),
        tilt_angles=np.zeros(t, np.float32),
        tilt_doses=np.zeros(t, np.float32),
        density=large.tomogram,
    )
    sizes = []
    for sample in (small, large):
        record = corpus.write(sample)
        sizes.append((Path(corpus.url) / f"commits/00/{record.sample_id}.json").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 50
    assert corpus.verify() == []
    images = corpus.tilts(record.sample_id)["images"]
    assert images.shape == (t, 14, 11)
    assert images.attrs["unit"] == "electrons"


def test_images_of_any_size_compress_alike(corpus: Catalog, make_sample: MakeSample) -> None:
    rng = np.random.default_rng(0)
    bytes_a_pixel = []
    for k, edge in enumerate((64, 69, 70)):
        images = rng.poisson(300, (12, edge, edge)).astype(np.float32)
        angles = np.zeros(12, np.float32)
        sample = replace(
            make_sample(k, shape=(9, 14, 11)), tilt_images=images, tilt_angles=angles, tilt_doses=angles
        )
        sample_id = corpus.write(sample).sample_id
        np.testing.assert_allclose(corpus.tilts(sample_id)["images"].values, images, rtol=2**-11)
        stored = zarr.open_group(corpus.sample_url(sample_id), mode="r")["tilts/images"]
        assert isinstance(stored, zarr.Array)
        bytes_a_pixel.append(stored.nbytes_stored() / images.size)
    assert max(bytes_a_pixel) < 1.15 * min(bytes_a_pixel) < 1.5
