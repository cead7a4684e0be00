"""Files without end, without sense, or with names that steer a terminal: one sentence, at once."""

from __future__ import annotations

import time
from pathlib import Path

import click
import pytest

from catalogs import console, particles
from catalogs.errors import InputError
from tlgen.recipes.recipe_file import read_recipe
from tlpick.network.tomograms.inputs import Selection, expand
from tlrun.cluster.cluster_file import read_cluster

DEEP = 100_000


@pytest.mark.parametrize("name", ["p.json", "p.ndjson", "p.star", "p.csv", "p.txt", "p.xml", "p.cbox"])
@pytest.mark.parametrize("content", ["[" * DEEP, '{"a":' * DEEP, "<a>" * DEEP, "(" * DEEP])
def test_particle_lists(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="p\\."):
        particles.read(tmp_path / name)


@pytest.mark.parametrize("content", ["[" * 5000, "{a: " * 5000, "a: [" * 5000, "- " * 5000, "\xff\xfe\0"])
def test_recipes_and_cluster_files(tmp_path: Path, content: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"r\.yaml"):
        read_recipe(str(file))
    with pytest.raises(InputError, match=r"r\.yaml"):
        read_cluster(str(file))


def test_a_star_file_of_a_million_columns(tmp_path: Path) -> None:
    file = tmp_path / "p.star"
    labels = "".join(f"_rlnColumn{k} #{k}\n" for k in range(10**6))
    file.write_text(f"data_particles\n\nloop_\n_rlnCoordinateX #1\n{labels}" + "1 " * 10**6 + "\n")
    began = time.process_time()
    with pytest.raises(InputError, match=r"p\.star"):
        particles.read(file)
    [(_, error)] = expand([str(file)], Selection())[1]
    assert "more than 2000 columns" in str(error)
    assert time.process_time() - began < 20


def test_a_copick_configuration_without_end(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("[" * DEEP)
    [(_, error)] = expand([str(tmp_path / "c.json")], Selection())[1]
    assert "is not the configuration of a copick project" in str(error)


def test_names_do_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["test", "say"])
    monkeypatch.setattr("click.echo", click.echo)
    group = console.program("test", "A test.")

    @group.command()
    def say() -> None:
        click.echo("a\x1b[2Jb\x9bc\rd å\n\te")
        raise InputError("no \x1b]0;x\x07")

    with pytest.raises(SystemExit):
        console.run(group)
    told = capsys.readouterr()
    assert told.out == "a\\x1b[2Jb\\x9bc\\rd å\n\te\n"
    assert told.err == "test: no \\x1b]0;x\\x07\n"
