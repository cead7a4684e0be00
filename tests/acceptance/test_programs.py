"""The three programs as a tired person meets them: help, versions, and every common mistake."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

PROGRAMS = ["tlgen", "tltrain", "tlpick"]
HEAVY = [
    "tensorflow",
    "keras",
    "multem",
    "parakeet",
    "prody",
    "sklearn",
    "distributed",
    "zarr",
    "pandas",
    "numba",
]

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "shape": [16, 32, 32],
    "targets": {"ribosome": {"structures": ["4v5d"], "count": 2}},
    "samples": {"train": {"number": 1}},
}


def run(
    program: str, *words: str | Path, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / program), *map(str, words)]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False, env=environment
    )


def refusal(program: str, *words: str | Path, cwd: Path | None = None) -> str:
    """Run a program that must refuse: exit status 2, one sentence, no traceback."""
    done = run(program, *words, cwd=cwd)
    assert done.returncode == 2, done.stderr + done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"{program}: ")
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_nothing_heavy(program: str) -> None:
    code = f"import {program}.cli, sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_version(program: str) -> None:
    assert "Usage" in run(program, "--help").stdout
    first, versions, backends = run(program, "--version").stdout.splitlines()[:3]
    assert first.startswith(f"{program}, version ")
    assert f"Python {platform.python_version()}, NumPy {np.__version__}, Zarr " in versions
    assert "(in use)" in backends


@pytest.mark.parametrize(
    ("program", "command"), [("tlgen", "verify"), ("tltrain", "fit"), ("tlpick", "cite")]
)
def test_a_shell_completes_commands_and_options(program: str, command: str) -> None:
    variable = f"_{program.upper()}_COMPLETE"
    assert f"{variable}=bash_complete" in run(program, **{variable: "bash_source"}).stdout
    typed = {"COMP_WORDS": f"{program} {command[:3]}", "COMP_CWORD": "1"}
    assert f"plain,{command}" in run(program, **{variable: "bash_complete"}, **typed).stdout.splitlines()
    typed = {"COMP_WORDS": f"{program} {command} --h", "COMP_CWORD": "2"}
    assert "plain,--help" in run(program, **{variable: "bash_complete"}, **typed).stdout.splitlines()


def test_the_paper_can_be_cited(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "CITATION.cff"
    work = yaml.safe_load(file.read_text())["preferred-citation"]
    line = run("tlpick", "cite", cwd=tmp_path).stdout
    assert all(str(work[name]) in line for name in ("title", "journal", "year", "doi"))
    entry = run("tlpick", "cite", "--format", "bibtex", cwd=tmp_path).stdout
    assert entry.startswith("@article{")
    assert f"doi = {{{work['doi']}}}" in entry
    assert run("tlpick", "cite", "--format", "cff", cwd=tmp_path).stdout == file.read_text()


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_command_is_refused(program: str) -> None:
    assert "No such command" in refusal(program, "frobnicate")


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    assert "there is no recipe nowhere.yaml" in refusal(
        "tlgen", "run", "nowhere.yaml", "--to", tmp_path / "c"
    )
    assert not (tmp_path / "c").exists()


def test_an_unknown_key_in_a_recipe_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"acquisition": {"tilt_stpe": 3}}))
    text = refusal("tlgen", "run", path, "--to", tmp_path / "c")
    assert "unknown key acquisition.tilt_stpe; did you mean 'tilt_step'?" in text


def test_a_missing_structure_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    targets = {"ribosome": {"structures": ["my_protein.pdb"], "count": 2}}
    path.write_text(yaml.safe_dump(RECIPE | {"targets": targets}))
    assert "my_protein.pdb" in refusal("tlgen", "run", path, "--to", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_without_a_network_a_pdb_id_is_refused_with_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLGEN_PDB_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TLGEN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"targets": {"r": {"structures": ["4v5e"], "count": 2}}}))
    text = refusal("tlgen", "run", path, "--to", tmp_path / "c")
    assert "4v5e" in text
    assert str(tmp_path / "cache") in text


def test_a_misspelt_structure_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"targets": {"r": {"structures": ["4v5d.pbd"], "count": 2}}}))
    assert "4v5d.pbd" in refusal("tlgen", "run", path, "--to", tmp_path / "c")


def test_a_parakeet_pixel_other_than_one_angstrom_is_refused_at_the_door(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"acquisition": {"engine": "parakeet", "pixel_size": 2}}))
    text = refusal("tlgen", "run", path, "--to", tmp_path / "c")
    assert "pixel_size" in text
    assert "1" in text


@pytest.mark.parametrize("words", [["ls"], ["ls", "--paths"]])
def test_a_corpus_that_is_not_one_is_refused(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in refusal("tlgen", words[0], tmp_path / "empty", *words[1:])
    assert "nowhere" in refusal("tlgen", words[0], tmp_path / "nowhere", *words[1:])


def test_a_url_of_an_unknown_protocol_is_refused(tmp_path: Path) -> None:
    assert "s4://" in refusal("tlgen", "ls", "s4://bucket/corpus")


def test_an_unknown_cluster_is_refused(tmp_path: Path) -> None:
    assert "'lokal'" in refusal("tlgen", "run", "demo", "--to", tmp_path / "c", "--cluster", "lokal")


def test_training_on_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    assert "nowhere" in refusal("tltrain", "fit", tmp_path / "nowhere", "--to", tmp_path / "m.tlm")
    assert not (tmp_path / "m.tlm").exists()


def test_picking_with_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tlm").write_text("not a zip")
    text = refusal("tlpick", "run", tmp_path / "m.tlm", tmp_path / "t.mrc", "--to", tmp_path / "picks")
    assert "m.tlm" in text


def test_debug_shows_the_traceback() -> None:
    done = run("tlgen", "--debug", "ls", "nowhere")
    assert "Traceback" in done.stderr
