"""What was made before the modules moved still opens and counts as done: names of modules are in no hash."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import tlgen
import tlpick
from catalogs import Catalog
from tlgen.recipes import samples
from tlgen.recipes.samples import expand
from tlgen.runs import prepare_structures

DATA = Path(__file__).parent / "data"
#: Sample ids of the recipe ``demo`` of then, and hashes of its structures with their variants.
STRUCTURES = ["9a1fc32e7dbd4790", "4e77d3302249cf13", "da6c0b92bae52758", "f0719b9460d52d32"]
SAMPLES = {  # but those whose tilts did not meet 0°, which are taken at other angles since
    "train-002": "127ec6cad02c3492",
    "train-003": "dc5a1e022e6a4916",
    "train-004": "9e78022adce2827f",
    "train-parakeet-000": "fe14f7b2dbf3d655",
    "check-000": "973d9bad0dd5a0e6",
    "held-out-000": "9e58ba2cabe104b3",
}
FINGERPRINT = "0082417cf826ff26"


@pytest.fixture
def thin_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that slabs of the multislice engine are one voxel thick, as when these samples were made."""
    monkeypatch.setattr(samples, "_MULTISLICE_VERSION", 1)


@pytest.mark.usefixtures("thin_slabs")
def test_samples_of_the_demo_have_the_ids_that_they_had() -> None:
    recipe = tlgen.load_recipe(str(DATA / "demo-before.yaml"))
    wanted = prepare_structures.preparations(recipe)
    assert [each.key for each in wanted] == STRUCTURES
    specs = expand(recipe, {each.key: each.count for each in wanted})
    assert {spec.name: spec.sample_id for spec in specs if spec.name in SAMPLES} == SAMPLES


def test_only_the_samples_of_the_multislice_engine_are_others_since() -> None:
    recipe = tlgen.load_recipe(str(DATA / "demo-before.yaml"))
    specs = expand(recipe, {each.key: each.count for each in prepare_structures.preparations(recipe)})
    same = {spec.name for spec in specs if SAMPLES.get(spec.name) == spec.sample_id}
    assert same == {spec.name for spec in specs if spec.acquisition.engine == "parakeet"} & set(SAMPLES)


@pytest.mark.usefixtures("thin_slabs")
def test_a_corpus_of_before_opens_and_counts_as_done(tmp_path: Path) -> None:
    with zipfile.ZipFile(DATA / "corpus-before.zip") as archive:
        archive.extractall(tmp_path)
    url = str(tmp_path / "corpus")
    before = Catalog.open(url)
    assert before.verify() == []
    # a run that had anything to make would need the molecules, which the archive leaves out
    corpus = tlgen.make(tlgen.load_recipe(str(DATA / "before.yaml")), url)
    assert list(corpus.samples["name"]) == ["train-000"]
    assert corpus.sample_ids() == before.sample_ids() == ["9fa3d852fe0e6bc8"]
    sample = corpus.open_sample(corpus.sample_ids()[0])
    assert sample["tomogram"].shape == (16, 24, 24)
    assert len(corpus.query("dose > 100")) == 1


def test_a_model_of_before_opens_and_picks() -> None:
    model = tlpick.load_model(DATA / "balls-before.tlm")
    assert model.fingerprint == FINGERPRINT
    assert model.classes == ["ball"]
    grid = np.indices((24, 32, 32)) * 10.0
    ball = sum((g - c) ** 2 for g, c in zip(grid, (120, 150, 150), strict=True)) <= 50**2
    noise = np.random.default_rng(0).standard_normal(ball.shape)
    picks = model.pick((0.3 * noise - 3 * ball).astype(np.float32), voxel_size=10.0)
    assert len(picks) == 1
    assert picks.loc[0, ["x", "y", "z"]].to_numpy(float) == pytest.approx([150, 150, 120], abs=5)
