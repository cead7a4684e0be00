"""``tlgen ls``, ``verify``, ``repair``, ``copy`` and ``index`` as people use them."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catalogs.amounts import data_size
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from tlgen.cli import tlgen
from tlgen.commands.listing import listing

PACKED = Path(__file__).parents[2] / "catalogs" / "data" / "corpus-v1.zip"


@pytest.fixture
def url(tmp_path: Path) -> str:
    with zipfile.ZipFile(PACKED) as packed:
        packed.extractall(tmp_path / "corpus")
    return str(tmp_path / "corpus")


def call(*words: str) -> Result:
    return CliRunner().invoke(tlgen, [*words])


def flip(url: str, sample_id: str) -> Path:
    shard = Path(Catalog.open(url).sample_url(sample_id)) / "0/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(bytes(data))
    return shard


class TestLs:
    def test_table(self, url: str) -> None:
        lines = list(listing(url))
        assert lines[0].split()[:3] == ["name", "split", "engine"]
        assert [line.split()[0] for line in lines[1:3]] == ["demo-000", "demo-001"]
        size = data_size(Catalog.open(url).samples["n_bytes"].sum())
        assert lines[3] == f"2 samples, 4 target particles, {size}; --columns all shows every column"
        assert list(listing(url, columns="all"))[3] == f"2 samples, 4 target particles, {size}"
        assert len({line.index("multislice") for line in lines[1:3]}) == 1  # columns stand below each other

    def test_choice_and_order(self, url: str) -> None:
        lines = list(listing(url, columns="name,dose,phase_plate", sort="-dose"))
        assert [line.split() for line in lines[:3]] == [
            ["name", "dose", "phase_plate"],
            ["demo-001", "100", "False"],
            ["demo-000", "80", "False"],
        ]
        assert list(listing(url, "dose < 90", columns="name"))[1:2] == ["demo-000"]
        assert list(listing(url, sort="seed,-name"))[1].split()[0] == "demo-000"

    def test_csv_and_json(self, url: str) -> None:
        rows = list(csv.DictReader(listing(url, form="csv")))
        assert [(row["name"], float(row["dose"])) for row in rows] == [
            ("demo-000", 80.0),
            ("demo-001", 100.0),
        ]
        assert set(rows[0]) == {"sample_id", *Catalog.open(url).samples.columns}
        found = [json.loads(line) for line in listing(url, form="json", columns="name,dose,dqe")]
        assert found[0] == {"name": "demo-000", "dose": 80.0, "dqe": True}

    def test_paths(self, url: str) -> None:
        paths = list(listing(url, "dose > 90", paths=True))
        assert [Path(path).is_dir() for path in paths] == [True]

    def test_by_the_program(self, url: str) -> None:
        done = call("ls", url, "--where", "dose > 90", "--csv", "--columns", "name")
        assert done.output.splitlines() == ["name", "demo-001"]
        assert call("ls", url, "--json").output.count("\n") == 2

    @pytest.mark.parametrize("words", [{"columns": "doze"}, {"sort": "-doze"}])
    def test_unknown_columns(self, url: str, words: dict[str, str]) -> None:
        with pytest.raises(InputError, match=r"--(columns|sort) names 'doze'.*did you mean 'dose'"):
            list(listing(url, **words))  # type: ignore[arg-type]


class TestUpkeep:
    def test_a_whole_corpus(self, url: str) -> None:
        done = call("verify", url)
        assert done.exit_code == 0
        assert re.search(r"is complete: 2 samples, \d\S* kiB compared with their checksums", done.output)
        assert "names and sizes compared" in call("verify", url, "--quick").output
        done = call("repair", url)
        assert (done.exit_code, f"nothing to repair in {url}" in done.output) == (0, True)

    def test_damage_is_said_and_mended_only_if_told_to(self, url: str) -> None:
        shard = flip(url, f"{1:016x}")
        done = call("verify", url)
        assert done.exit_code == 1
        assert f"{shard} has changed since it was written\n" in done.output
        assert "1 problem in 2 samples" in done.output
        assert call("verify", url, "--quick").exit_code == 0
        done = call("repair", url)
        assert done.exit_code == 1
        assert f"demo-001 ({1:016x})" in done.output
        assert "nothing has been changed; give --yes" in done.output
        assert shard.exists()
        done = call("repair", url, "--yes")
        assert done.exit_code == 0
        assert "1 sample to make again" in done.output
        assert Catalog.open(url).sample_ids() == [f"{0:016x}"]
        assert call("verify", url).exit_code == 0

    def test_what_somebody_may_be_writing_stays(self, url: str) -> None:
        group = Path(url) / "samples/ab/ab00000000000000-123456.zarr"
        group.mkdir(parents=True)
        (group / "zarr.json").write_text("{}")
        done = call("repair", url, "--yes")
        assert done.exit_code == 1
        assert "younger than 24 h: another run may be writing them" in done.output
        assert group.exists()
        assert call("repair", url, "--yes", "--grace", "-1").exit_code == 0
        assert not group.exists()

    def test_copy(self, url: str, tmp_path: Path) -> None:
        target = str(tmp_path / "copy")
        assert "1 sample copied" in call("copy", url, target, "--where", "dose < 90").output
        flip(url, f"{1:016x}")
        done = call("copy", url, target)
        assert done.exit_code == 1
        assert f"{1:016x} is damaged and was not copied" in done.output
        assert "0 samples copied (0 B), 1 was there already" in done.output
        assert call("verify", target).exit_code == 0

    def test_index(self, url: str) -> None:
        assert call("index", url).output == f"2 samples in the index of {url}\n"
        assert (Path(url) / "index/index-00000001.parquet").is_file()
