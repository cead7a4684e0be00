"""``tlgen run`` on a corpus of seconds: what it makes, what it keeps, what it says when something fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr
from distributed import LocalCluster

from catalogs.console import shown_log
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.volumes import write_mrc
from tlgen.commands.listing import listing
from tlgen.molecules.structures import shipped
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.recipe_file import read_recipe
from tlgen.runs import prepare_structures
from tlgen.runs import run as run_module
from tlgen.runs.bookkeeping import Bookkeeping
from tlrun.fan_out import Failure


def read(tmp_path: Path, content: dict[str, Any]) -> Recipe:
    path = tmp_path / "balls.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_recipe(str(path))


@pytest.fixture(autouse=True)
def one_cluster(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Join the cluster of the test session instead of starting one for each run."""
    address = client.scheduler.address
    original = run_module.run

    def joined(
        recipe: Recipe, url: str, cluster: str = address, retries: int = 0, log_json: str | None = None
    ) -> bool:
        return original(recipe, url, cluster, retries, log_json=log_json)

    monkeypatch.setattr(run_module, "run", joined)


def make(recipe: Recipe, url: Path, **options: Any) -> bool:
    with shown_log("tlgen"):  # as the program prints it
        return run_module.run(recipe, str(url), **options)


def events(path: Path) -> list[dict[str, Any]]:
    """Read a run's JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_corpus_is_made_once_and_grows(
    tmp_path: Path, recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    url = tmp_path / "corpus"
    assert make(read(tmp_path, recipe), url)
    catalog = Catalog.open(str(url))
    first = {r.name: r for r in catalog.records()}
    assert sorted(first) == ["held-out-000", "train-000", "train-001"]
    assert first["held-out-000"].split == "test"
    assert len({r.acquisition.dose for r in first.values()}) == 3
    assert catalog.verify() == []

    record = first["train-000"]
    assert record.shape == (16, 24, 25)
    assert record.n_tilts == 7
    assert record.class_counts == {"big": record.n_particles}
    assert record.seconds["simulate"] > 0
    table = catalog.particles(record.sample_id)
    assert len(table) == record.n_particles + record.n_distractors

    capsys.readouterr()
    assert make(read(tmp_path, recipe), url)
    assert "3 samples, 3 of them" in capsys.readouterr().out

    recipe["samples"]["train"]["number"] = 3
    assert make(read(tmp_path, recipe), url)
    after = {r.name: r for r in Catalog.open(str(url)).records()}
    assert sorted(after) == ["held-out-000", "train-000", "train-001", "train-002"]
    assert all(after[name] == first[name] for name in first)


def test_protein_is_dark_where_the_labels_are(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["samples"] = {"train": {"number": 1}}
    make(read(tmp_path, recipe), tmp_path / "corpus")
    catalog = Catalog.open(str(tmp_path / "corpus"))
    [record] = catalog.records()
    sample = catalog.open_sample(record.sample_id).load()
    tomogram, instances = sample["tomogram"].values, sample["instances"].values
    assert tomogram[instances > 0].mean() < tomogram[instances == 0].mean() - 0.3 * tomogram.std()
    assert set(np.unique(sample["classes"].values)) == {0, 1}


def test_vacuum_lies_above_and_below_and_moves_nothing_in_the_ice(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    recipe["samples"] = {"train": {"number": 1}}
    size = recipe["acquisition"].get("voxel_size", 8.0)
    size = float(str(size).split()[0])
    recipe["acquisition"]["vacuum"] = 5 * size
    make(read(tmp_path, recipe), tmp_path / "corpus")
    catalog = Catalog.open(str(tmp_path / "corpus"))
    [record] = catalog.records()
    assert record.shape == (16 + 10, 24, 25)
    sample = catalog.open_sample(record.sample_id).load()
    tomogram, instances = sample["tomogram"].values, sample["instances"].values
    assert tomogram.shape == instances.shape == record.shape
    assert not instances[:5].any()
    assert not instances[-5:].any()
    assert tomogram[instances > 0].mean() < tomogram[instances == 0].mean() - 0.3 * tomogram.std()
    table = catalog.particles(record.sample_id)
    for k in range(1, int(instances.max()) + 1):  # those whole in the box stand where their voxels are
        voxels = np.argwhere(instances == k)
        if len(voxels) > 20 and voxels.min() > 0 and (voxels.max(axis=0) < np.array(record.shape) - 1).all():
            row = table[table["instance"] == k].iloc[0]
            assert abs(voxels[:, 0].mean() * size - row["z"]) < 3 * size
    assert catalog.verify() == []


def test_what_fails_is_named_and_stops_nothing_else(
    tmp_path: Path, recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    # No scattering factor is known for an element in one structure, so every sample that holds it fails.
    # Its residue is none of a polymer, where the name would tell the element.
    bad = (tmp_path / "small.pdb").read_text().splitlines()
    bad[0] = f"HETATM{bad[0][6:12]}RF    RF A{bad[0][22:76]}RF"
    (tmp_path / "bad.pdb").write_text("\n".join(bad))
    recipe["distractors"] = [{"file": "bad.pdb", "count": 1}]
    log = tmp_path / "log.jsonl"
    assert not make(read(tmp_path, recipe), tmp_path / "corpus", retries=2, log_json=str(log))
    captured = capsys.readouterr()
    assert "bad failed in prepare: Refused: " in captured.err  # once: another attempt would say the same
    assert "the same command tries only these" in captured.err
    failed, end = events(log)
    assert (failed["event"], failed["item"], failed["step"], failed["attempts"]) == (
        "failed", "bad", "prepare", 1,
    )  # fmt: skip
    assert (end["event"], end["items"], end["items_done"], end["items_failed"]) == ("end", 3, 0, 1)
    assert end["stopped"] == "a structure is missing"
    assert len(list((tmp_path / "corpus" / "runs").glob("*.json"))) == 1


def test_a_run_is_told_to_programs_from_beginning_to_end(tmp_path: Path, recipe: dict[str, Any]) -> None:
    log, url = tmp_path / "log.jsonl", tmp_path / "corpus"
    with pytest.raises(InputError, match=r"`log_json=.*` cannot be written"):
        make(read(tmp_path, recipe), url, log_json=str(tmp_path / "nowhere" / "log.jsonl"))
    with pytest.raises(InputError, match="no Dask scheduler answers at"):
        make(read(tmp_path, recipe), url, cluster="tcp://127.0.0.1:9")
    assert not url.exists()  # nothing was begun
    assert make(read(tmp_path, recipe), url, log_json=str(log))
    first = events(log)
    assert [each["event"] for each in first if each["event"] != "progress"] == ["begin", *["done"] * 3, "end"]
    assert sorted(each["item"] for each in first if each["event"] == "done") == [
        "held-out-000", "train-000", "train-001",
    ]  # fmt: skip
    assert (first[-1]["items_done"], first[-1]["items_failed"], first[-1]["stopped"]) == (3, 0, "")
    [kept] = (url / "runs").glob("*.json")
    assert json.loads(kept.read_text()).items() <= first[-1].items()
    assert make(read(tmp_path, recipe), url, log_json=str(log))  # appended: nothing was to do
    [more] = events(log)[len(first) :]
    assert (more["event"], more["items"]) == ("end", 0)


def test_a_scheduler_that_goes_leaves_an_account(
    tmp_path: Path,
    recipe: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe["samples"] = {"train": {"number": 8}}
    log, url = tmp_path / "log.jsonl", tmp_path / "corpus"
    with LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as running:
        monkeypatch.setattr(Bookkeeping, "made", lambda _self, name: "-" in name or running.close())
        options = {"cluster": running.scheduler_address, "log_json": str(log)}
        assert not make(read(tmp_path, recipe), url, **options)
    end = events(log)[-1]
    assert (end["event"], end["items"], end["items_failed"]) == ("end", 8, 0)
    assert 1 <= end["items_done"] < 8
    assert end["stopped"].startswith("the Dask scheduler")
    assert end["workers"][0].startswith("1 worker")
    assert len(list((url / "runs").glob("*.json"))) == 1
    captured = capsys.readouterr()
    assert f"  {end['items_done']} of 8 made, 0 failed" in captured.out
    assert "the same command goes on" in captured.err


def test_what_a_crashed_process_said_itself_is_told() -> None:
    log = "going wrong\nFatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent):\n  File x"
    failure = Failure("k", "ChildDied: by SIGSEGV", "", kind="pack", attempts=2, log=log)
    assert run_module._said(failure, "train-001") == (
        "train-001 failed in pack after 2 attempts: ChildDied: by SIGSEGV; its process said last: going wrong"
    )
    silent = Failure("k", "TimeLimit: 6 s", "", log="Thread 0x00007 (most recent call first):\n  File x")
    assert run_module._said(silent, "train-001") == "train-001 failed: TimeLimit: 6 s"


def test_a_target_among_the_distractors_is_refused(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["targets"] = {"capsid": {"structures": ["4v1w"], "count": 1}}
    recipe["distractors"] = [{"file": str(shipped()["4v1w"]), "assembly": "asymmetric", "count": 1}]
    with pytest.raises(InputError, match=r"4v1w has 100 % of 4v1w's mass .* leave such out"):
        make(read(tmp_path, recipe), tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_the_same_structure_twice_is_refused(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["distractors"] *= 2
    with pytest.raises(InputError, match="twice"):
        make(read(tmp_path, recipe), tmp_path / "corpus")


def test_distractors_of_a_folder_and_of_the_paper(
    tmp_path: Path, recipe: dict[str, Any], write_ball: Callable[[Path, float, int], None]
) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    for seed, name in enumerate(["a.pdb", "b.pdb"]):
        write_ball(folder / name, 15, seed + 5)
    (folder / "notes.txt").write_text("no structure")
    recipe["distractors"] = [{"folder": "others", "count": 4}, {"file": "small.pdb", "count": 3}]
    found = prepare_structures.distractors(read(tmp_path, recipe))
    assert [(Path(s.source).name, n) for s, n in found] == [("a.pdb", 4), ("b.pdb", 4), ("small.pdb", 3)]

    recipe["distractors"] = [{"set": "paper", "count": 2}]
    entries = {structure.source: n for structure, n in prepare_structures.distractors(read(tmp_path, recipe))}
    assert len(entries) == 100
    assert (entries["3qm1"], entries["6up6"]) == (10, 2)

    recipe["distractors"] = "nowhere"
    with pytest.raises(InputError, match="nowhere is not a folder"):
        prepare_structures.distractors(read(tmp_path, recipe))


def test_decorations_density_and_what_made_a_sample_reach_the_corpus(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    recipe["samples"] = {"train": {"number": 1}}
    recipe["targets"]["big"]["count"] = 20  # shares: so many that a variant is among them
    recipe["decorations"] = {"beads": {"number": 2, "radius": "2 nm"}}
    recipe["acquisition"] |= {"shift_error": 8, "tilt_axis_error": {"min": -0.5, "max": 0.5}}
    recipe["reconstruction"] = {"filter": "sirt"}
    recipe["keep"] = {"density": True, "tilt_images": False}
    recipe["packing"] = {"faces": "cut", "concentration": "100 mg/ml", "gap": 4}
    recipe["targets"]["big"]["variants"] = {"number": 2, "rmsd": [1, 2], "modes": 5}
    assert make(read(tmp_path, recipe), tmp_path / "corpus")
    catalog = Catalog.open(str(tmp_path / "corpus"))
    assert [(c.name, c.label, c.is_particle) for c in catalog.classes] == [
        ("big", 1, True),
        ("gold", 2, False),
    ]
    [record] = catalog.records()
    assert record.class_counts["gold"] == 2
    assert record.n_particles == record.class_counts["big"] > 0
    sample = catalog.open_sample(record.sample_id).load()
    gold = sample["classes"].values == 2
    assert gold.sum() == pytest.approx(2 * 4 / 3 * np.pi * 2**3, rel=0.3)
    assert sample["density"].values[gold].mean() > 5 * sample["density"].values[~gold].mean()
    assert catalog.verify() == []

    table = catalog.particles(record.sample_id)
    assert {"rmsd", "mode_1", "mode_5", "inside", "cut"} <= set(table)
    variants = table[table["variant"] >= 0]
    assert ((variants["rmsd"] > 0.9) & (variants["rmsd"] < 2.1)).all()

    attributes = zarr.open_group(catalog.sample_url(record.sample_id), mode="r").attrs["template_learning"]
    assert attributes["recipe"]["decorations"]["beads"]["number"] == [2, 2]
    assert attributes["recipe"]["reconstruction"] == {"filter": "sirt"}
    errors = catalog.tilts(record.sample_id)
    assert errors["shift_error"].shape == (7, 2)
    assert errors["shift_error"].values.std() == pytest.approx(8, rel=0.75)
    assert errors["angle"].values.tolist() == [-60, -40, -20, 0, 20, 40, 60]
    assert set(attributes["seeds"]) == {"alignment", "counts", "decorations", "pack", "simulate"}


def test_a_map_as_a_target(tmp_path: Path, recipe: dict[str, Any]) -> None:
    z, y, x = np.mgrid[:24, :24, :24] - 11.5
    ball = 1 / (1 + np.exp((np.sqrt(x**2 + y**2 + (1.3 * z) ** 2) - 6) / 0.7))
    write_mrc(tmp_path / "ball.mrc", ball.astype(np.float32), 5.0)
    recipe["targets"] = {
        "ball": {
            "structures": [{"map": "ball.mrc", "resolution": "1.6 nm", "mass": 80}],
            "count": 2,
            "variants": {"number": 0},
        }
    }
    recipe["samples"] = {"train": {"number": 1}}
    assert make(read(tmp_path, recipe), tmp_path / "corpus")
    catalog = Catalog.open(str(tmp_path / "corpus"))
    [record] = catalog.records()
    assert record.class_counts == {"ball": 2}
    assert prepare_structures.read_structure(
        read(tmp_path, recipe).targets["ball"].structures[0]
    ).mass == pytest.approx(80e3, rel=1e-3)
    recipe["targets"]["ball"]["structures"] = [{"map": "bal.mrc"}]
    with pytest.raises(InputError, match="there is no map"):
        prepare_structures.preparations(read(tmp_path, recipe))


def test_listing(tmp_path: Path, recipe: dict[str, Any]) -> None:
    make(read(tmp_path, recipe), tmp_path / "corpus")
    url = str(tmp_path / "corpus")
    lines = list(listing(url, None, paths=False))
    assert len(lines) == 5
    assert lines[0].split()[:3] == ["name", "split", "engine"]
    assert [line.split()[0] for line in lines[1:4]] == ["held-out-000", "train-000", "train-001"]
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("3 samples, ")
    [path] = listing(url, "split == 'test'", paths=True)
    assert Path(path).is_dir()
    with pytest.raises(InputError, match="did you mean 'defocus'"):
        list(listing(url, "defocuss > 3", paths=False))
