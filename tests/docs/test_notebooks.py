"""The notebooks of the documentation run from a fresh kernel, and their outputs are those that are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_the_notebooks_that_the_pages_name() -> None:
    assert {path.stem for path in NOTEBOOKS} == {
        *("own-protein", "look-into-a-corpus", "train-and-pick", "add-your-own"),
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_pictures_and_no_errors(path: Path) -> None:
    cells = nbformat.read(path, 4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    told = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert told == []


def kinds(cells: list[Any]) -> list[list[list[str]]]:
    """Of each code cell, what each of its outputs is shown as."""
    return [
        [sorted(output.get("data", {})) for output in cell.outputs if output.output_type != "stream"]
        for cell in cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, 4)
    shown = kinds(notebook.cells)
    there = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=there).execute()
    assert kinds(notebook.cells) == shown
