"""What README and documentation tell people to type: Python runs, commands and their options exist."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from catalogs import particles
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.schema import Acquisition, ClassInfo
from catalogs.volumes import write_mrc

TOP = Path(__file__).parents[2]
PAGES = sorted([TOP / "README.md", *(TOP / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = ("tlgen", "tltrain", "tlpick")
#: These take more than a few seconds.
SLOW = {"packing.md", "structures.md"}


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match.group(1) in languages:
            yield match.group(2)


def commands(page: Path) -> Iterator[list[str]]:
    """Every command of ours in a page's blocks, in words, without comments."""
    for block in blocks(page, "", "sh", "bash", "console"):
        joined = block.replace("\\\n", " ")
        for line in re.split(r"\n|&&|;", joined):
            words = shlex.split(line, comments=True) if "'" not in line or line.count("'") % 2 == 0 else []
            if ">" in words:
                words = words[: words.index(">")]
            if words and words[0] in PROGRAMS and "|" not in words:
                yield words


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    program: click.Command = getattr(importlib.import_module(f"{words[0]}.cli"), words[0])
    rest = words[1:]
    while isinstance(program, click.Group) and rest:
        if rest[0].startswith("-"):
            rest = rest[1:]
            continue
        found = program.get_command(click.Context(program), rest[0])
        assert found is not None, f"{' '.join(words)}: there is no command {rest[0]}"
        program, rest = found, rest[1:]
    return program, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        command, rest = find(words)
        rest = [word for word in rest if word not in ("...", "[...]")]
        try:
            command.make_parser(click.Context(command)).parse_args(list(rest))
        except click.UsageError as error:
            pytest.fail(f"{page.name}: {' '.join(words)}: {error.format_message()}")


def test_commands_are_found_in_the_pages() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 60
    with pytest.raises(AssertionError, match="no command simulat"):
        find(["tlgen", "simulat", "x"])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages open: a corpus, a tomogram, particle lists."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    grey = rng.normal(size=(130, 260, 260)).astype(np.float32)
    write_mrc("TS_01.rec", grey, 10.0, contrast="dark")
    table = particles.make(
        tomogram="TS_01", class_name="ribosome", x=[80.0, 160.0], y=[80.0, 90.0], z=[60.0, 70.0]
    )
    particles.write(table, "motl.em", voxel_size=8.0)
    particles.write(table, "run_data.star", voxel_size=8.0, shape=(256, 512, 512))
    corpus = Catalog.create(
        "demo/corpus", classes=[ClassInfo(name="ribosome", label=1, radius=108.0)], recipe={}, name="demo"
    )
    for number, dose in enumerate((60.0, 90.0, 120.0)):
        corpus.write(
            Sample(
                tomogram=rng.normal(size=(56, 60, 60)).astype(np.float32),
                classes=np.zeros((56, 60, 60), np.uint8),
                instances=np.zeros((56, 60, 60), np.uint16),
                particles=table,
                tilt_images=np.zeros((3, 60, 60), np.float32),
                tilt_angles=np.array([-3, 0, 3], np.float32),
                tilt_doses=np.arange(3, dtype=np.float32),
                facts={
                    "sample_id": f"{number:016x}", "name": f"train-{number:03d}",
                    "split": "test" if number == 2 else "train", "seed": number,
                    "acquisition": Acquisition(dose=dose, defocus=3.5), "shape": (56, 60, 60), "n_tilts": 3,
                    "n_particles": 2, "n_distractors": 0, "class_counts": {"ribosome": 2}, "structures": {},
                    "occupancy": 0.1, "seconds": {}, "software": {},
                },
            )
        )  # fmt: skip
    return tmp_path


def _python(page: Path) -> list[str]:
    return list(blocks(page, "python"))


#: Pages whose code needs what cannot stand here: a bucket, a map, a packed scene, a long training.
ELSEWHERE = {"api.md", "augmentation.md", "scenes.md"}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page.name in SLOW else [], id=page.name)
        for page in PAGES
        if _python(page) and page.name not in ELSEWHERE
    ],
)
def test_python_of_the_pages_runs(page: Path, place: Path) -> None:
    names: dict[str, object] = {}
    for code in _python(page):
        if "average.mrc" in code:
            continue
        corpus = place / "demo" / "corpus"
        path = next((corpus / "samples").glob("*/*.zarr")).relative_to(place)
        code = code.replace("demo/corpus/samples/ab/ab...-12.zarr", str(path))
        exec(compile(code, page.name, "exec"), names)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name in ELSEWHERE], ids=lambda page: page.name)
def test_what_the_pages_import_is_there(page: Path) -> None:
    for code in _python(page):
        for line in code.splitlines():
            if line.startswith(("from ", "import ")):
                exec(line, {})
