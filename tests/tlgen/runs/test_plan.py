"""``tlgen plan``: counts that are exact, estimates from a small sample, and nothing changed."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import tlgen
from catalogs.console import shown_log
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.recipe_file import read_recipe
from tlgen.recipes.samples import SampleSpec, expand
from tlgen.runs import cost_calibration, plan
from tlgen.runs import run as run_module
from tlgen.runs.cost_calibration import Measured, shrink
from tlgen.runs.costs import like, one_of_each_first, work
from tlgen.runs.jobs import sample_job
from tlrun.calls import Call

PDB = "ATOM  {:5d}  CA  ALA A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00           C"


@pytest.fixture(autouse=True)
def no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_calibration, "_file", lambda: tmp_path / "calibration.json")


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """Two rods of carbon, and samples of two kinds."""
    for name, n in (("big", 200), ("small", 60)):
        lines = [PDB.format(i + 1, i + 1, i % 7 * 3, i // 7 % 5 * 3, i // 35 * 3) for i in range(n)]
        (tmp_path / f"{name}.pdb").write_text("\n".join([*lines, "END", ""]))
    return {
        "name": "rods",
        "shape": [16, 24, 25],
        "targets": {"big": {"structures": ["big.pdb"], "count": 2, "variants": {"number": 0}}},
        "distractors": [{"file": "small.pdb", "count": 3}],
        "acquisition": {"engine": "multislice", "voxel_size": 10, "tilt_range": 60, "tilt_step": 20},
        "samples": {
            "train": {"number": 3},
            "wide": {"number": 2, "shape": [16, 32, 32], "acquisition": {"tilt_step": 30}},
        },
    }


def read(tmp_path: Path, content: dict[str, Any]) -> Recipe:
    path = tmp_path / "rods.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_recipe(str(path))


def test_counts_are_those_of_the_run(tmp_path: Path, content: dict[str, Any], client: Any) -> None:
    url = str(tmp_path / "corpus")
    recipe = read(tmp_path, content)
    counts = plan.count(recipe, url)
    assert (len(counts.found.todo), len(counts.found.done), len(counts.found.stale)) == (5, 0, 0)
    assert counts.tilts == 3 * 7 + 2 * 5
    assert counts.together == 3 * 1 + 2 * 1  # 0.04 s a tilt: all of a sample in one call
    assert counts.tasks == 2 + counts.together + 2 * 5
    assert not Path(url).exists()

    content["samples"]["train"]["number"] = 2
    part = read(tmp_path, content)
    assert run_module.run(part, url, client.scheduler.address, 0)
    [kept] = (Path(url) / "runs").glob("*.json")
    assert yaml.safe_load(kept.read_text())["calls"]["simulate_tilts multislice 16x24x25 10A"]["done"] == 2
    assert Catalog.open(url).verify() == []

    counts = plan.count(recipe, url)
    assert (len(counts.found.todo), len(counts.found.done), len(counts.found.stale)) == (1, 4, 0)
    assert (counts.tilts, counts.structures, counts.tasks) == (7, [], 3)

    content["samples"] = {"wide": {"number": 1, "shape": [16, 32, 32], "acquisition": {"tilt_step": 30}}}
    counts = plan.count(read(tmp_path, content), url)
    assert (len(counts.found.todo), len(counts.found.done), len(counts.found.stale)) == (0, 1, 3)
    assert counts.tasks == 0


def test_a_plan_says_what_it_will_cost_and_changes_nothing(
    tmp_path: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    url = tmp_path / "corpus"
    recipe = read(tmp_path, content)
    with shown_log("tlgen"):  # as the program prints it
        plan.plan(recipe, str(url), "0.05/core-hour", "local:2", 5.0)
    text = capsys.readouterr().out
    assert not url.exists()
    assert "  samples to do   5\n" in text
    assert (
        "  tasks           17  (2 structures, 5 packings, 31 tilts in 5 groups, 5 reconstructions)\n" in text
    )
    assert "  multislice 16x24x25 10A: pack " in text
    assert "  multislice 16x32x32 10A: pack " in text
    for word in ("core-hours", "GPU-hours", "bytes", "money", "time"):
        assert f"\n  {word} " in text
    assert "with 2 workers" in text


def test_a_plan_in_python_has_the_same_numbers(
    tmp_path: Path,
    content: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = Measured(pack=10.0, tilt=2.0, finish=0.5, n_bytes=1e6, factor=1.3)
    monkeypatch.setattr(cost_calibration, "_one", lambda *_: one)
    recipe, url = read(tmp_path, content), tmp_path / "corpus"
    made = tlgen.plan(recipe, url, cluster="local:2", price=0.5, budget=5.0)
    assert capsys.readouterr() == ("", "")
    assert (made.counts.tilts, made.counts.together, made.workers) == (31, 5, 2)
    assert made.costs is not None
    hours = (5 * 10 + 31 * 2.5) / 3600
    assert made.costs.core_hours == pytest.approx(hours)
    assert made.money == pytest.approx(0.5 * hours)
    assert made.seconds == pytest.approx(3600 * hours / 2)
    assert "  samples to do   5\n" in str(made)
    assert "\n  money " in str(made)
    assert tlgen.plan(recipe, url, cluster="tcp://1.2.3.4:8786").seconds is None
    assert not url.exists()
    with pytest.raises(InputError, match="`price='much'` is not a price"):
        tlgen.plan(recipe, url, price="much")


def test_what_was_measured_is_remembered(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Measured(pack=10.0, tilt=2.0, finish=0.5, n_bytes=1e6, factor=1.3)
    times: list[str] = []

    def measured(url: str, recipe: Recipe, spec: Any, *_: Any) -> Measured:
        times.append(like(spec))
        return one

    monkeypatch.setattr(cost_calibration, "_one", measured)
    recipe = read(tmp_path, content)
    todo = plan.count(recipe, str(tmp_path / "corpus")).found.todo
    costs = plan.estimate(recipe, todo, 5.0)
    assert times == ["multislice 16x24x25 10A", "multislice 16x32x32 10A"]
    assert costs.seconds["multislice 16x32x32 10A"] == {"pack": 20.0, "simulate": 20.0, "finish": 5.0}
    assert costs.core_hours == pytest.approx((5 * 10 + 31 * 2.5) / 3600)
    assert costs.n_bytes == 5e6
    plan.estimate(recipe, todo, 5.0)
    assert len(times) == 2


def called(spec: SampleSpec) -> Counter[str]:
    """Count what the making of a sample calls, by group."""
    found: Counter[str] = Counter()

    def answer(call: Call) -> Any:
        if call.kind == "simulate_tilts":
            return [None] * len(call.args[3])
        return SimpleNamespace(scene=None, memory=0)

    steps = sample_job("nowhere", spec, [], (), {}).steps()
    answers: Any = None
    with contextlib.suppress(StopIteration):
        while True:
            calls = steps.send(answers)
            found.update(call.group for call in calls)
            answers = [answer(call) for call in calls]
    return found


@pytest.mark.parametrize(
    ("device", "side", "tilts"),
    [
        ("cpu", 24, {"simulate_tilts": 1}),  # of 7 tilts that take less than a quarter of a second together
        ("cpu", 400, {"simulate_tilts": 7}),
        ("gpu", 400, {"simulate_tilts": 1, "check_device": 1}),
    ],
)
def test_the_work_of_a_run_is_what_its_jobs_call(
    tmp_path: Path, content: dict[str, Any], device: str, side: int, tilts: dict[str, int]
) -> None:
    content["acquisition"]["device"] = device
    content["shape"] = [16, side, side]
    recipe = read(tmp_path, content)
    counts = plan.count(recipe, str(tmp_path / "corpus"))
    todo = counts.found.todo
    found = {each.group: each.calls for each in work(todo)}
    assert found == sum((called(spec) for spec in todo), Counter())
    first = {"pack": 1, **tilts, "finish": 1}
    assert called(todo[0]) == {f"{name} multislice 16x{side}x{side} 10A": n for name, n in first.items()}
    assert counts.tilts == 3 * 7 + 2 * 5
    assert counts.tasks == 2 + sum(found.values())
    assert sum(each.pieces for each in work(todo)) == counts.tilts


@pytest.mark.parametrize(("text", "price"), [("0.05/core-hour", 0.05), ("2", 2.0), ("€.5", 0.5)])
def test_prices(text: str, price: float) -> None:
    assert plan.price_of(text) == price


@pytest.mark.parametrize("text", ["cheap", "-1", "0.05/GPU-hour", "nan"])
def test_a_price_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=rf"`price='{text}'` is not a price; give one such as 0\.05/c"):
        plan.price_of(text)


def test_small_boxes_keep_their_form() -> None:
    assert shrink((64, 512, 512), 1e9) == (64, 512, 512)
    assert shrink((64, 512, 512), 64 * 512 * 512 / 8) == (32, 256, 256)
    assert shrink((20, 4096, 4096), 1e5)[0] == 16
    assert shrink((64, 512, 512), 64 * 512 * 512 / 4, flat=True) == (64, 256, 256)


def test_one_sample_of_each_kind_comes_first(tmp_path: Path, content: dict[str, Any]) -> None:
    specs = expand(read(tmp_path, content), {})
    kinds = [like(spec) for spec in specs]
    assert len(set(kinds[:2])) == 1  # the recipe's own order has them one kind after the other
    first = one_of_each_first(specs)
    assert len({like(spec) for spec in first[:2]}) == 2
    assert sorted(s.sample_id for s in first) == sorted(s.sample_id for s in specs)
    rest = [spec for spec in specs if spec in first[2:]]
    assert first[2:] == rest
