from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from catalogs import intensity
from catalogs.corpus.catalog import Catalog, Sample, read_particles_of, sample_record_of
from catalogs.errors import InputError
from catalogs.particles import COLUMNS
from catalogs.schema import ClassInfo
from catalogs.volumes import open_volume

MakeSample = Callable[..., Sample]


@pytest.fixture(params=["path", "memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kinds = {
        "path": str(tmp_path / "c"),
        "file": f"file://{tmp_path}/c",
        "memory": f"memory://{uuid4().hex}/c",
    }
    return kinds[request.param]


class TestCorpus:
    def test_create_is_idempotent(self, url: str, classes: list[ClassInfo]) -> None:
        assert not Catalog.exists(url)
        first = Catalog.create(url, classes=classes, recipe={"seed": 1}, name="demo")
        assert Catalog.exists(url)
        again = Catalog.create(url, classes=classes, recipe={"seed": 2}, name="demo")
        assert again.info == first.info == Catalog.open(url).info
        assert again.classes == classes
        assert again.digest == first.digest
        assert again.info["storage"] == {"create_if_absent": True}
        with pytest.raises(InputError, match=r"other classes \(ribosome, fas\)"):
            Catalog.create(url, classes=classes[:1], recipe={}, name="demo")

    def test_open_refuses_what_is_no_corpus(self, url: str) -> None:
        with pytest.raises(InputError, match=r"there is no corpus at .*/c"):
            Catalog.open(url)

    def test_open_refuses_damage_and_the_future(self, corpus: Catalog) -> None:
        file = Path(corpus.url) / "corpus.json"
        file.write_text(json.dumps({**corpus.info, "format_version": 99}))
        with pytest.raises(InputError, match="format version 99"):
            Catalog.open(corpus.url)
        for damage in ("{", "[]", "{}", '{"format_version": 1}'):
            file.write_text(damage)
            with pytest.raises(InputError, match=r"corpus\.json is damaged"):
                Catalog.open(corpus.url)

    def test_a_place_that_cannot_be_written(self, tmp_path: Path, classes: list[ClassInfo]) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match="no corpus can be written at"):
            Catalog.create(tmp_path / "file", classes=classes, recipe={}, name="demo")
        with pytest.raises(InputError, match="no corpus at"):
            Catalog.open(tmp_path / "file")
        with pytest.raises(InputError, match="nosuch"):
            Catalog.open("nosuch://bucket/c")

    def test_voxel_size(self, corpus: Catalog, make_sample: MakeSample) -> None:
        with pytest.raises(InputError, match="no samples yet"):
            _ = corpus.voxel_size
        corpus.write(make_sample(0))
        assert corpus.voxel_size == 8.0
        corpus.write(make_sample(1, voxel_size=10.0))
        with pytest.raises(InputError, match="voxel sizes 8, 10 Å"):
            _ = corpus.voxel_size


class TestSamples:
    def test_round_trip(self, url: str, classes: list[ClassInfo], make_sample: MakeSample) -> None:
        corpus = Catalog.create(url, classes=classes, recipe={}, name="demo")
        sample = make_sample(0)
        assert not corpus.has(sample.facts["sample_id"])
        record = corpus.write(sample)
        corpus = Catalog.open(url)
        assert corpus.has(record.sample_id)
        assert corpus.record(record.sample_id) == record
        assert corpus.records() == [record]
        arrays = {name: array[...] for name, array in corpus.arrays(record.sample_id).items()}
        np.testing.assert_allclose(arrays["tomogram"], sample.tomogram, rtol=2**-11)
        np.testing.assert_array_equal(arrays["classes"], sample.classes)
        np.testing.assert_array_equal(arrays["instances"], sample.instances)
        assert record.intensity == intensity.measure(arrays["tomogram"])
        pd.testing.assert_frame_equal(corpus.particles(record.sample_id), sample.particles)
        dataset = corpus.open_sample(record.sample_id)
        assert dataset["tomogram"].dims == ("z", "y", "x")
        assert dataset["x"][:3].values.tolist() == [0, 8, 16]
        np.testing.assert_array_equal(dataset["classes"].sel(z=16.0).values, sample.classes[2])
        assert corpus.verify() == []

    def test_writing_again_changes_nothing(self, corpus: Catalog, make_sample: MakeSample) -> None:
        first = corpus.write(make_sample(0))
        files = {file: file.stat().st_mtime_ns for file in Path(corpus.url).rglob("*")}
        assert Catalog.open(corpus.url).write(make_sample(0)) == first
        assert {file: file.stat().st_mtime_ns for file in Path(corpus.url).rglob("*")} == files

    def test_opens_without_our_code(self, corpus: Catalog, make_sample: MakeSample) -> None:
        sample = make_sample(0)
        path = corpus.sample_url(corpus.write(sample).sample_id)
        tree = xr.open_datatree(path, engine="zarr")
        assert tree["0"].dims == ("z", "y", "x")
        assert tree["0"].dtype == np.float32
        np.testing.assert_array_equal(tree["labels/classes/0"].values, sample.classes)
        np.testing.assert_array_equal(tree["labels/instances/0"].values, sample.instances)
        np.testing.assert_array_equal(
            tree["particles/position"].values, sample.particles[["x", "y", "z"]].to_numpy()
        )
        np.testing.assert_array_equal(tree["tilts/angle"].values, sample.tilt_angles)
        np.testing.assert_allclose(tree["tilts/images"].values, sample.tilt_images, rtol=2**-11)
        flat = xr.open_zarr(path)  # a single group, through Dask
        np.testing.assert_allclose(flat["0"].values, sample.tomogram, rtol=2**-11)
        multiscales = flat.attrs["ome"]["multiscales"][0]
        assert multiscales["datasets"][0]["coordinateTransformations"][0]["scale"] == [8.0] * 3

    def test_layout_is_chunks_of_64_in_one_shard(self, corpus: Catalog, make_sample: MakeSample) -> None:
        record = corpus.write(make_sample(0))
        for array in corpus.arrays(record.sample_id).values():
            assert array.chunks == (64, 64, 64)
            assert array.shards == (64, 128, 128)
        group = Path(corpus.sample_url(record.sample_id))
        assert [p.relative_to(group).as_posix() for p in group.glob("0/c/**/*") if p.is_file()] == [
            "0/c/0/0/0"
        ]
        images = zarr.open_array(group / "tilts/images")
        assert (images.chunks, images.shards) == ((1, 70, 72), (5, 70, 72))

    def test_empty_label_volume_is_stored(self, corpus: Catalog, make_sample: MakeSample) -> None:
        """An absent shard would read as zeros too: only one that is there shows that none was lost."""
        sample = make_sample(0)
        record = corpus.write(replace(sample, classes=np.zeros_like(sample.classes)))
        assert (Path(corpus.sample_url(record.sample_id)) / "labels/classes/0/c/0/0/0").is_file()

    def test_without_tilt_images_and_without_particles(
        self, corpus: Catalog, make_sample: MakeSample
    ) -> None:
        sample = make_sample(0)
        bare = replace(sample, tilt_images=None, particles=sample.particles.iloc[:0])
        record = corpus.write(bare)
        table = corpus.particles(record.sample_id)
        assert len(table) == 0
        assert list(table.columns)[: len(COLUMNS)] == list(COLUMNS)
        assert "images" not in zarr.open_group(corpus.sample_url(record.sample_id))["tilts"]

    def test_opens_as_a_volume(self, corpus: Catalog, make_sample: MakeSample) -> None:
        record = corpus.write(make_sample(0))
        volume = open_volume(corpus.sample_url(record.sample_id))
        assert (volume.name, volume.voxel_size, volume.shape) == (record.sample_id, 8.0, record.shape)
        label = open_volume(f"{corpus.sample_url(record.sample_id)}/labels/classes")
        np.testing.assert_array_equal(label.read(), make_sample(0).classes)

    def test_rounding_keeps_ten_bits(self, corpus: Catalog, make_sample: MakeSample) -> None:
        record = corpus.write(make_sample(0))
        bits = corpus.arrays(record.sample_id)["tomogram"][...].view(np.uint32)
        assert not (bits & ((1 << 13) - 1)).any()

    def test_wrong_arrays_are_refused_before_anything_is_written(
        self, corpus: Catalog, make_sample: MakeSample
    ) -> None:
        sample = make_sample(0)
        before = sorted(Path(corpus.url).rglob("*"))
        with pytest.raises(ValueError, match="classes is int64"):
            corpus.write(replace(sample, classes=sample.classes.astype(np.int64)))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="tomogram is"):
            corpus.write(replace(sample, tomogram=sample.tomogram[1:]))
        with pytest.raises(ValueError, match="differ in number"):
            corpus.write(replace(sample, tilt_doses=sample.tilt_doses[1:]))
        with pytest.raises(InputError, match="not finite"):
            corpus.write(replace(sample, tomogram=np.full_like(sample.tomogram, np.nan)))
        assert sorted(Path(corpus.url).rglob("*")) == before

    def test_unknown_sample(self, corpus: Catalog) -> None:
        for read in (corpus.arrays, corpus.particles, corpus.open_sample, corpus.sample_url):
            with pytest.raises(InputError, match="there is no sample 00ff"):
                read("00ff")
        assert corpus.record("00ff") is None

    def test_travels_to_a_worker(self, corpus: Catalog, make_sample: MakeSample) -> None:
        record = corpus.write(make_sample(0))
        assert pickle.loads(pickle.dumps(corpus)).records() == [record]


class TestTable:
    def test_query(self, corpus: Catalog, make_sample: MakeSample) -> None:
        assert len(corpus.query("dose < 100 and split == 'train'")) == 0  # of an empty corpus
        for number, dose in enumerate([80, 100, 120]):
            corpus.write(make_sample(number, dose=dose, defocus=2 + number))
        assert corpus.samples.index.name == "sample_id"
        assert corpus.query("dose >= 100 and split == 'train'")["name"].tolist() == ["demo-001"]
        assert corpus.query(None)["defocus"].tolist() == [2, 3, 4]
        assert corpus.query("structures.str.contains('4v5d') and defocus > 2.5").shape[0] == 2
        row = corpus.samples.loc[f"{1:016x}"]
        assert row["path"] == corpus.sample_url(f"{1:016x}")
        assert (row["shape_z"], row["cpu_seconds"], row["engine"]) == (21, 3.5, "multislice")

    @pytest.mark.parametrize(
        ("where", "says"),
        [
            ("doze < 100", "names 'doze', which is not a column of the corpus; did you mean 'dose'"),
            ("dose <", "cannot be understood"),
            ("dose + 1", "is not a condition"),
            ("split", "is not a condition"),
            ("split < 3", "cannot be understood"),
            ("", "cannot be understood"),
        ],
    )
    def test_wrong_queries(self, corpus: Catalog, make_sample: MakeSample, where: str, says: str) -> None:
        corpus.write(make_sample(0))
        with pytest.raises(InputError, match=re.escape(says)):
            corpus.query(where)

    def test_new_samples_appear(self, corpus: Catalog, make_sample: MakeSample) -> None:
        other = Catalog.open(corpus.url)
        assert other.records() == []
        corpus.write(make_sample(1))
        corpus.write(make_sample(0))
        assert [record.seed for record in other.records()] == [0, 1]

    def test_damaged_record(self, corpus: Catalog, make_sample: MakeSample) -> None:
        record = corpus.write(make_sample(0))
        key = f"commits/00/{record.sample_id}.json"
        (Path(corpus.url) / key).write_text("{}")
        with pytest.raises(InputError, match=re.escape(key)):
            Catalog.open(corpus.url).records()
        assert any(key in problem for problem in corpus.verify())
        (Path(corpus.url) / key).write_text(json.dumps({"format_version": 99}))
        with pytest.raises(InputError, match="format version 99"):
            Catalog.open(corpus.url).records()


class TestByUrlOfASample:
    def test_particles_and_record(self, url: str, classes: list[ClassInfo], make_sample: MakeSample) -> None:
        corpus = Catalog.create(url, classes=classes, recipe={}, name="demo")
        record = corpus.write(make_sample(0))
        path = corpus.sample_url(record.sample_id)
        pd.testing.assert_frame_equal(read_particles_of(path + "/"), make_sample(0).particles)
        assert sample_record_of(path + "/") == record

    def test_elsewhere(self, tmp_path: Path, corpus: Catalog, make_sample: MakeSample) -> None:
        record = corpus.write(make_sample(0))
        copy = tmp_path / "copy.zarr"
        Path(corpus.sample_url(record.sample_id)).rename(copy)
        assert sample_record_of(copy) is None
        assert len(read_particles_of(copy)) == 3
        with pytest.raises(InputError, match="not a sample of a corpus"):
            read_particles_of(tmp_path)
        with pytest.raises(InputError, match="not a sample of a corpus"):
            read_particles_of(tmp_path / "none.zarr")
        zarr.create_group(tmp_path / "other.zarr")
        with pytest.raises(InputError, match="no particles"):
            read_particles_of(tmp_path / "other.zarr")


class TestMolecules:
    def test_round_trip(self, url: str, classes: list[ClassInfo]) -> None:
        corpus = Catalog.create(url, classes=classes, recipe={}, name="demo")
        arrays: dict[str, Any] = {
            "name": np.array("4v5d"),
            "positions": np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32),
            "backbone": np.zeros(9, bool),
        }
        corpus.put_molecule("abcd", arrays)
        corpus.put_molecule("abcd", {})  # there already
        for _ in range(2):
            read = Catalog.open(url).get_molecule("abcd")
            assert set(read) == set(arrays)
            for name, array in arrays.items():
                np.testing.assert_array_equal(read[name], array)
                assert read[name].dtype == array.dtype
        with pytest.raises(InputError, match=r"structures/none\.npz is missing"):
            corpus.get_molecule("none")
