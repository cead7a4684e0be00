"""Exports of a corpus, read as the programs that they are for read them."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from click.testing import CliRunner

from catalogs import particles
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.export import LAYOUTS, export
from catalogs.export import target as target_module
from catalogs.schema import ClassInfo
from catalogs.volumes import open_volume, write_mrc

MakeSample = Callable[..., Sample]
NAMES = ["demo-000", "demo-001", "demo-002"]  # the last is of the split test


@pytest.fixture
def full(corpus: Catalog, make_sample: MakeSample) -> Catalog:
    for number in range(3):
        corpus.write(make_sample(number))
    return corpus


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read_mrc(path: Path) -> np.ndarray:
    with mrcfile.open(path) as mrc:  # the strict reader
        assert mrc.voxel_size.x == 8.0
        assert mrc.is_volume()
        return np.array(mrc.data)


class TestMrc:
    def test_files(self, full: Catalog, tmp_path: Path, make_sample: MakeSample) -> None:
        done = export(full.url, tmp_path / "out", "mrc")
        assert (done.written, done.present, done.failed) == (tuple(NAMES), (), {})
        places = [f"{kind}/{name}.mrc" for kind in ("classes", "instances", "tomograms") for name in NAMES]
        places += [f"particles/{name}.star" for name in NAMES]
        assert files(tmp_path / "out") == sorted([*places, "classes.csv", "particles.star", "export.json"])
        for number, name in enumerate(NAMES):
            sample = make_sample(number)
            tomogram = tmp_path / "out" / "tomograms" / f"{name}.mrc"
            np.testing.assert_allclose(read_mrc(tomogram), sample.tomogram, rtol=2**-11)
            assert open_volume(tomogram).contrast == "dark"
            classes = read_mrc(tmp_path / "out" / "classes" / f"{name}.mrc")
            assert classes.dtype == np.int8
            np.testing.assert_array_equal(classes, sample.classes)
            np.testing.assert_array_equal(
                read_mrc(tmp_path / "out" / "instances" / f"{name}.mrc"), sample.instances
            )
            table = particles.read(tmp_path / "out" / "particles" / f"{name}.star")
            targets = sample.particles[sample.particles["label"] > 0]
            np.testing.assert_allclose(table[["x", "y", "z"]], targets[["x", "y", "z"]], atol=1e-3)
            assert table["class_name"].tolist() == ["ribosome", "fas"]
            assert set(table["tomogram"]) == {name}
        together = particles.read(tmp_path / "out" / "particles.star")
        assert together["tomogram"].tolist() == [name for name in NAMES for _ in range(2)]
        assert (tmp_path / "out" / "classes.csv").read_text() == (
            "label,name,radius_angstrom\n1,ribosome,132.5\n2,fas,118\n"
        )

    def test_density(self, corpus: Catalog, make_sample: MakeSample, tmp_path: Path) -> None:
        sample = make_sample(0)
        corpus.write(replace(sample, density=np.abs(sample.tomogram)))
        export(corpus.url, tmp_path / "out", "mrc")
        stored = read_mrc(tmp_path / "out" / "density" / "demo-000.mrc")
        np.testing.assert_allclose(stored, np.abs(sample.tomogram), rtol=2**-11)

    def test_to_a_bucket(self, full: Catalog, bucket: str, make_sample: MakeSample) -> None:
        export(full.url, f"{bucket}/out", "mrc", where="split == 'train'")
        volume = open_volume(f"{bucket}/out/classes/demo-001.mrc")
        np.testing.assert_array_equal(volume.data[:], make_sample(1).classes)
        again = export(full.url, f"{bucket}/out", "mrc")
        assert (again.present, again.written) == (("demo-000", "demo-001"), ("demo-002",))


class TestDeepFinder:
    def test_as_its_dataloader_takes_it(self, full: Catalog, tmp_path: Path, make_sample: MakeSample) -> None:
        folder = tmp_path / "out"
        done = export(full.url, folder, "deepfinder")
        assert any("no sample is of the split val" in remark for remark in done.remarks)
        for split, numbers in {"train": [0, 1], "test": [2]}.items():
            lists = [name for name in os.listdir(folder / split) if name.endswith("_objl.xml")]
            assert sorted(lists) == [f"{NAMES[k]}_objl.xml" for k in numbers]
            for number in numbers:
                sample, stem = make_sample(number), folder / split / NAMES[number]
                np.testing.assert_allclose(read_mrc(Path(f"{stem}.mrc")), sample.tomogram, rtol=2**-11)
                target = read_mrc(Path(f"{stem}_target.mrc"))
                assert target.dtype == np.int8
                np.testing.assert_array_equal(target, sample.classes)
                self.check_list(Path(f"{stem}_objl.xml"), [(0, sample)])

    def check_list(self, path: Path, samples: list[tuple[int, Sample]]) -> None:
        """Read it as deepfinder.utils.objl does: attributes of whatever is below the root."""
        found = [dict(item.attrib) for item in ET.parse(path).getroot()]
        expected = [
            (number, row)
            for number, sample in samples
            for row in sample.particles.to_dict("records")
            if row["label"] > 0
        ]
        assert len(found) == len(expected)
        for item, (number, row) in zip(found, expected, strict=True):
            assert (int(item["tomo_idx"]), int(item["class_label"])) == (number, row["label"])
            for axis in "xyz":
                assert float(item[axis]) == pytest.approx(row[axis] / 8.0, abs=1e-3)
            float(item["phi"]), float(item["psi"]), float(item["the"])

    def test_parameters_of_its_training(
        self, corpus: Catalog, make_sample: MakeSample, tmp_path: Path
    ) -> None:
        samples = [make_sample(number) for number in range(3)]
        for sample, split in zip(samples, ("val", "train", "train"), strict=True):
            sample.facts["split"] = split
            corpus.write(sample)
        done = export(corpus.url, tmp_path / "out", "deepfinder")
        assert not any("validation" in remark for remark in done.remarks)
        root = ET.parse(tmp_path / "out" / "params_train.xml").getroot()
        assert root.tag == "paramsTrain"

        def value(tag: str, attribute: str) -> str:
            found = root.find(tag)
            assert found is not None
            return str(found.get(attribute))

        order = ["train/demo-001", "train/demo-002", "valid/demo-000"]
        for tag, child, ending in (("path_tomo", "tomo", ".mrc"), ("path_target", "target", "_target.mrc")):
            paths = [value(f"{tag}/{child}{k}", "path") for k in range(3)]
            assert paths == [str(tmp_path / "out" / f"{name}{ending}") for name in order]
            assert all(Path(path).is_file() for path in paths)
        assert value("number_of_classes", "n") == "3"
        assert value("flag_bootstrap", "flag") == "True"
        assert Path(value("path_out", "path")).is_dir()
        self.check_list(Path(value("path_objl_train", "path")), [(0, samples[1]), (1, samples[2])])
        self.check_list(Path(value("path_objl_valid", "path")), [(2, samples[0])])

    def test_nothing_to_train_on(self, full: Catalog, tmp_path: Path) -> None:
        done = export(full.url, tmp_path / "out", "deepfinder", where="split == 'test'")
        assert done.remarks == ("all samples are of the split test: there is nothing to train on",)


class TestOriginal:
    def test_files(self, full: Catalog, tmp_path: Path, make_sample: MakeSample) -> None:
        done = export(full.url, tmp_path / "out", "original")
        assert done.remarks[0].startswith("the classes ribosome, fas were merged")
        for number, name in enumerate(NAMES):
            sample = make_sample(number)
            tomogram = read_mrc(tmp_path / "out" / "tomograms" / f"{name}.mrc")
            np.testing.assert_allclose(tomogram, sample.tomogram, rtol=2**-11)
            mask = read_mrc(tmp_path / "out" / "segmentations" / f"{name}.mrc")
            assert mask.dtype == np.int8
            np.testing.assert_array_equal(mask, sample.classes > 0)
            places = np.loadtxt(tmp_path / "out" / "coordinates" / f"{name}.txt")
            targets = sample.particles[sample.particles["label"] > 0]
            np.testing.assert_allclose(places, targets[["x", "y", "z"]] / 8.0, atol=1e-5)


class TestCopick:
    def check(self, config: Path | dict[str, Any], make_sample: MakeSample, names: list[str]) -> None:
        copick = pytest.importorskip("copick")
        if isinstance(config, Path):
            root = copick.from_file(str(config))
        else:
            from copick.impl.filesystem import CopickConfigFSSpec, CopickRootFSSpec

            root = CopickRootFSSpec(CopickConfigFSSpec(**config))
        objects = [(item.name, item.label, item.radius, item.is_particle) for item in root.pickable_objects]
        assert objects == [("ribosome", 1, 132.5, True), ("fas", 2, 118.0, True)]
        assert [run.name for run in root.runs] == names
        for run in root.runs:
            sample = make_sample(int(run.name[-3:]))
            (tomogram,) = run.get_voxel_spacing(8.0).get_tomograms("wbp")
            np.testing.assert_allclose(tomogram.numpy(), sample.tomogram, rtol=2**-11)
            (labels,) = run.get_segmentations(is_multilabel=True, name="classes")
            assert labels.voxel_size == 8.0
            np.testing.assert_array_equal(labels.numpy(), sample.classes)
            for info in root.pickable_objects:
                (picks,) = run.get_picks(object_name=info.name)
                positions, poses = picks.numpy()
                rows = sample.particles[sample.particles["class_name"] == info.name]
                np.testing.assert_allclose(positions, rows[["x", "y", "z"]])
                from scipy.spatial.transform import Rotation

                rotations = Rotation.from_quat(rows[["qx", "qy", "qz", "qw"]].to_numpy()).as_matrix()
                np.testing.assert_allclose(poses[:, :3, :3], rotations, atol=1e-9)

    def test_project(self, full: Catalog, tmp_path: Path, make_sample: MakeSample) -> None:
        export(full.url, tmp_path / "out", "copick")
        self.check(tmp_path / "out" / "copick.json", make_sample, NAMES)
        assert not (tmp_path / "out" / ".unfinished").exists()
        shard = "VoxelSpacing8.000/wbp.zarr/0/c/0/0/0"
        linked = tmp_path / "out" / "ExperimentRuns" / "demo-000" / shard
        ours = Path(full.sample_url(full.query("name == 'demo-000'").index[0])) / "0/c/0/0/0"
        assert linked.samefile(ours)
        # what people do in the project does not reach the corpus
        copick = pytest.importorskip("copick")
        root = copick.from_file(str(tmp_path / "out" / "copick.json"))
        run = root.get_run("demo-000")
        run.get_voxel_spacing(8.0).get_tomograms("wbp")[0].set_region(np.zeros((21, 70, 65), np.float32))
        assert full.verify() == []
        shutil.rmtree(full.url)  # nor the other way round
        volume = open_volume(tmp_path / "out" / "ExperimentRuns" / "demo-001")
        assert (volume.name, volume.voxel_size, volume.contrast) == ("demo-001", 8.0, "dark")

    def test_copies(self, full: Catalog, tmp_path: Path, make_sample: MakeSample) -> None:
        export(full.url, tmp_path / "out", "copick", copies=True, where="name == 'demo-000'")
        self.check(tmp_path / "out" / "copick.json", make_sample, NAMES[:1])
        for path in (tmp_path / "out").rglob("*"):
            assert path.is_dir() or path.stat().st_nlink == 1

    @pytest.mark.parametrize("where", ["disk to bucket", "bucket to bucket", "bucket to disk"])
    def test_buckets(
        self, where: str, bucket: str, classes: list[ClassInfo], make_sample: MakeSample, tmp_path: Path
    ) -> None:
        source, _, target = where.partition(" to ")
        url = f"{bucket}/corpus" if source == "bucket" else str(tmp_path / "corpus")
        out = f"{bucket}/out" if target == "bucket" else str(tmp_path / "out")
        corpus = Catalog.create(url, classes=classes, recipe={}, name="demo")
        corpus.write(make_sample(0))
        export(url, out, "copick")
        if target == "disk":
            self.check(Path(out) / "copick.json", make_sample, NAMES[:1])
            return
        import fsspec

        config = json.loads(fsspec.filesystem("s3").cat_file(f"{out}/copick.json"))
        self.check(config, make_sample, NAMES[:1])
        assert export(url, out, "copick").present == ("demo-000",)


class TestAgain:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_what_is_there_is_not_written_again(
        self, full: Catalog, tmp_path: Path, layout: str, make_sample: MakeSample
    ) -> None:
        folder = tmp_path / "out"
        export(full.url, folder, layout, where="split == 'train'")
        before = {path: os.stat(folder / path).st_mtime_ns for path in files(folder)}
        done = export(full.url, folder, layout)  # the corpus has grown
        assert (done.written, done.present) == (("demo-002",), ("demo-000", "demo-001"))
        same = {path for path, when in before.items() if os.stat(folder / path).st_mtime_ns == when}
        assert {path for path in before if "demo-00" in path} <= same
        assert len(files(folder)) > len(before)

    @pytest.mark.parametrize("layout", ["mrc", "deepfinder", "original"])
    def test_a_lost_file_comes_back(self, full: Catalog, tmp_path: Path, layout: str) -> None:
        folder = tmp_path / "out"
        export(full.url, folder, layout)
        before = {path: (folder / path).read_bytes() for path in files(folder)}
        lost = next(folder.rglob("demo-001.mrc"))
        lost.unlink()
        done = export(full.url, folder, layout)
        assert (done.written, done.present) == (("demo-001",), ("demo-000", "demo-002"))
        assert {path: (folder / path).read_bytes() for path in files(folder)} == before

    def test_what_belongs_to_all_is_finished(
        self, full: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "out"
        export(full.url, folder, "mrc", where="split == 'train'")
        layout = LAYOUTS["mrc"]

        def breaks(*_: Any) -> list[str]:
            raise KeyboardInterrupt

        monkeypatch.setitem(LAYOUTS, "mrc", replace(layout, finish=breaks))
        export(full.url, folder, "mrc", where="split == 'train'")  # nothing to do
        with pytest.raises(KeyboardInterrupt):
            export(full.url, folder, "mrc")  # all samples are written, the list of them all is not
        monkeypatch.undo()
        assert "demo-002" not in (folder / "particles.star").read_text()
        assert export(full.url, folder, "mrc").written == ()
        assert "demo-002" in (folder / "particles.star").read_text()

    def test_interrupted(self, full: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        export(full.url, tmp_path / "whole", "mrc")
        calls = []

        def breaks(path: str, data: Any, *args: Any, **how: Any) -> None:
            calls.append(path)
            if len(calls) == 4:
                write_mrc(path, half(data), *args, shape=data.shape, **{**how, "dtype": data.dtype})
            write_mrc(path, data, *args, **how)

        def half(data: Any) -> Any:
            yield data[:10]
            raise KeyboardInterrupt

        monkeypatch.setattr(target_module, "write_mrc", breaks)
        with pytest.raises(KeyboardInterrupt):
            export(full.url, tmp_path / "out", "mrc")
        monkeypatch.undo()
        for path in files(tmp_path / "out"):
            if path != "export.json":
                assert (tmp_path / "out" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
        done = export(full.url, tmp_path / "out", "mrc")
        assert len(done.written) + len(done.present) == 3
        assert files(tmp_path / "out") == files(tmp_path / "whole")

    def test_damaged_sample(self, full: Catalog, tmp_path: Path) -> None:
        sample_id = full.query("name == 'demo-001'").index[0]
        (Path(full.sample_url(sample_id)) / "labels/classes/0/c/0/0/0").unlink()
        for layout in LAYOUTS:
            done = export(full.url, tmp_path / layout, layout)
            assert (done.written, list(done.failed)) == (("demo-000", "demo-002"), ["demo-001"])
            assert "is damaged" in done.failed["demo-001"]
            assert not [path for path in files(tmp_path / layout) if "demo-001" in path]
            assert "demo-001" not in (tmp_path / "mrc" / "particles.star").read_text()


class TestRefuses:
    def test_bad_requests(self, full: Catalog, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no export as 'deepfindr'; did you mean 'deepfinder'\?"):
            export(full.url, tmp_path / "out", "deepfindr")
        with pytest.raises(InputError, match="no samples for which dose > 1000: there is nothing to export"):
            export(full.url, tmp_path / "out", "mrc", where="dose > 1000")
        with pytest.raises(InputError, match="there is no corpus at"):
            export(tmp_path, tmp_path / "out", "mrc")
        assert not (tmp_path / "out").exists()

    def test_places(self, full: Catalog, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("precious")
        with pytest.raises(InputError, match="mine is neither empty nor an export; give another place"):
            export(full.url, tmp_path / "mine", "mrc")
        assert files(tmp_path / "mine") == ["notes.txt"]
        export(full.url, tmp_path / "out", "original")
        with pytest.raises(InputError, match="is an export as original; give another place for mrc"):
            export(full.url, tmp_path / "out", "mrc")
        with pytest.raises(InputError, match=r"/proc/out/export\.json cannot be written"):
            export(full.url, "/proc/out", "mrc")

    def test_other_samples_of_the_same_name(
        self, full: Catalog, tmp_path: Path, make_sample: MakeSample, classes: list[ClassInfo]
    ) -> None:
        export(full.url, tmp_path / "out", "original")
        other = Catalog.create(tmp_path / "other", classes=classes, recipe={}, name="other")
        sample = make_sample(7)
        sample.facts["name"] = "demo-000"
        sample.particles["tomogram"] = "demo-000"
        other.write(sample)
        with pytest.raises(InputError, match="holds another sample called demo-000"):
            export(other.url, tmp_path / "out", "original")
        full.write(sample)
        with pytest.raises(InputError, match=r"several samples of the corpus .* are called 'demo-000'"):
            export(full.url, tmp_path / "new", "original")


def test_command(full: Catalog, tmp_path: Path) -> None:
    from tlgen.cli import tlgen

    run = CliRunner().invoke(
        tlgen, ["export", full.url, "--to", str(tmp_path / "o"), "--as", "copick", "--where", "seed < 2"]
    )
    assert run.exit_code == 0
    assert "a copick project; 2 samples exported" in run.output
    assert f"open it with copick.from_file('{tmp_path}/o/copick.json')" in run.output
    shutil.rmtree(next((Path(full.url) / "samples").rglob("*002-*.zarr")) / "0")
    run = CliRunner().invoke(tlgen, ["export", full.url, "--to", str(tmp_path / "o"), "--as", "copick"])
    assert run.exit_code == 1
    assert "demo-002 was not exported: the sample" in run.output
