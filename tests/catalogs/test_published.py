"""A corpus that is described to be published, read as those read it who find it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.export.published import Owner, publish
from catalogs.schema import Acquisition
from tlgen.cli import tlgen

MakeSample = Callable[..., Sample]
OWNER = Owner("CC-BY-4.0", ("Ada Lovelace",), "https://example.org/demo")


def meant(parameter: str) -> str:
    """What the schema says of a parameter."""
    return str(Acquisition.model_fields[parameter].description)


@pytest.fixture
def full(corpus: Catalog, make_sample: MakeSample) -> Catalog:
    for k in range(3):
        corpus.write(
            make_sample(k, dose=90.0 + k, phase_plate=k == 1, contrast="physical" if k == 2 else 1.5)
        )
    return corpus


def test_croissant_is_valid_and_its_records_are_the_samples(full: Catalog) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    assert publish(full.url, OWNER) == [
        f"{full.url}/{name}" for name in ("samples.parquet", "croissant.json", "README.md")
    ]
    dataset = mlcroissant.Dataset(jsonld=f"{full.url}/croissant.json")
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert not issues.warnings
    assert dataset.metadata.license == ["https://spdx.org/licenses/CC-BY-4.0.html"]
    samples = full.samples
    rows = list(dataset.records("samples"))
    assert len(rows) == 3
    for row, (sample_id, sample) in zip(rows, samples.iterrows(), strict=True):
        plain = {
            name.removeprefix("samples/"): value.decode() if isinstance(value, bytes) else value
            for name, value in row.items()
        }
        assert plain["sample_id"] == sample_id
        assert (plain["dose"], plain["phase_plate"]) == (sample["dose"], sample["phase_plate"])
        assert (Path(full.url) / plain["path"] / "zarr.json").is_file()
    classes = list(dataset.records("classes"))
    assert [row["classes/name"] for row in classes] == ["ribosome", "fas"]
    assert [row["classes/radius"] for row in classes] == [132.5, 118.0]
    assert full.verify() == []  # a corpus with them is as whole as without
    assert Catalog.open(full.url).sample_ids() == full.sample_ids()


def test_every_column_has_its_meaning_and_unit(full: Catalog) -> None:
    publish(full.url, OWNER)
    content = json.loads((Path(full.url) / "croissant.json").read_text())
    fields = {field["@id"]: field for field in content["recordSet"][0]["field"]}
    assert set(fields) == {f"samples/{name}" for name in ["sample_id", *full.samples.columns]}
    assert all(field["description"] for field in fields.values())
    assert fields["samples/dose"]["description"] == f"{meant('dose')} In e/Å²."
    assert fields["samples/phase_plate"]["dataType"] == "sc:Boolean"
    sets = {each["@id"]: each for each in content["distribution"]}
    for name in ("tomograms", "class-volumes", "instance-volumes", "particle-tables", "tilt-series"):
        assert list(Path(full.url).glob(sets[name]["includes"].removesuffix("**") + "*")), name


def test_the_card_says_what_is_in_it(full: Catalog) -> None:
    publish(full.url, OWNER)
    text = (Path(full.url) / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert (head["license"], head["size_categories"]) == ("cc-by-4.0", ["n<1K"])
    assert "| samples |  | 2 | 1 |" in text
    assert "| ribosome | 1, 132.5 | 2 | 1 |" in text
    assert f"| dose | 90 to 92, mean 91 | e/Å² | {meant('dose')} |" in text
    assert "phase_plate | False (2), True (1)" in text
    assert "voltage 300.0 kV" in text
    named = [name for name in Acquisition.model_fields if name not in text]
    assert named == []
    assert "1e10, 4v5d" in text
    assert "Licence: CC-BY-4.0. Made by Ada Lovelace." in text
    assert "10.1038/s41467-025-63895-0" in text
    samples = pd.read_parquet(Path(full.url) / "samples.parquet")
    block = text.split("```python")[1].split("```")[0]
    found: dict[str, Any] = {}
    code = block.replace('"samples.parquet"', repr(f"{full.url}/samples.parquet")).replace(
        'samples["path"][0]', f'"{full.url}/" + samples["path"][0]'
    )
    exec(code, found)  # what the card tells people to type
    assert found["tomogram"].shape == (21, 70, 65)
    assert len(samples) == 3


def test_they_are_written_anew_but_nobody_elses_card_is(full: Catalog, tmp_path: Path) -> None:
    publish(full.url, OWNER)
    publish(full.url, Owner("CC0-1.0"))
    assert "CC0-1.0" in (Path(full.url) / "README.md").read_text()
    own = tmp_path / "mine"
    own.mkdir()
    (own / "README.md").write_text("mine")
    with pytest.raises(InputError, match="is not one that tlgen export wrote"):
        publish(full.url, OWNER, own)
    assert [path.name for path in own.iterdir()] == ["README.md"]
    assert (own / "README.md").read_text() == "mine"
    publish(full.url, OWNER, tmp_path / "other")
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == [
        "README.md", "croissant.json", "samples.parquet",
    ]  # fmt: skip


def test_what_cannot_be_described_is_refused(corpus: Catalog, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no samples yet"):
        publish(corpus.url, OWNER)
    with pytest.raises(InputError, match="no corpus"):
        publish(tmp_path / "nowhere", OWNER)
    with pytest.raises(InputError, match="licence=my own words"):
        publish(corpus.url, Owner("my own words"))
    assert [path.name for path in Path(corpus.url).iterdir()] == ["corpus.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--croissant"], "--croissant needs --licence"),
        (["--croissant", "--licence", "CC0-1.0", "--where", "dose > 1"], "takes no --where"),
        (["--croissant", "--licence", "CC0-1.0", "--format", "mrc"], "takes no --format"),
        (["--format", "mrc"], "--to is missing"),
        (["--to", "somewhere"], "--format is missing"),
        (["--to", "somewhere", "--format", "mrc", "--creator", "me"], "--creator is for --croissant"),
    ],
)
def test_options_that_do_not_fit_together(full: Catalog, words: list[str], said: str) -> None:
    answer = CliRunner().invoke(tlgen, ["export", full.url, *words])
    assert isinstance(answer.exception, InputError)
    assert said in str(answer.exception)


def test_by_the_command(full: Catalog, tmp_path: Path) -> None:
    words = ["export", full.url, "--croissant", "--licence", "CC0-1.0", "--to", str(tmp_path / "out")]
    answer = CliRunner().invoke(tlgen, words)
    assert answer.exit_code == 0, answer.output
    assert answer.output.splitlines()[0] == str(tmp_path / "out" / "samples.parquet")
