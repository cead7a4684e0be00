"""The whole way through, by the programs that a user types, on a corpus that takes a minute."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import starfile
import xarray
import yaml

from catalogs.corpus.catalog import Catalog

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "shape": [28, 40, 40],
    "targets": {"ribosome": {"structures": ["4v5d"], "count": 3, "variants": {"number": 0}}},
    "distractors": [{"file": "4v1w", "count": 4}],
    "acquisition": {
        "engine": "multislice",
        "voxel_size": 16,
        "tilt_step": 6,
        "dose": {"min": 90, "max": 120},
    },
    "samples": {
        "train": {"number": 2},
        "check": {"number": 1, "split": "val"},
        "held-out": {"number": 1, "split": "test"},
    },
}


def run(program: str, *words: str | Path) -> str:
    command = [str(Path(sys.executable).parent / program), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_structures_to_a_score(tmp_path: Path) -> None:
    recipe, corpus, model, picks = (tmp_path / n for n in ("tiny.yaml", "corpus", "m.tlm", "picks"))
    recipe.write_text(yaml.safe_dump(RECIPE))

    out = run("tlgen", "run", recipe, "--to", corpus, "--cluster", "local:2")
    assert "4 samples made" in out
    assert "4 samples, 4 of them" in run("tlgen", "run", recipe, "--to", corpus)  # nothing is made twice

    catalog = Catalog.open(str(corpus))
    assert sorted(r.split for r in catalog.records()) == ["test", "train", "train", "val"]
    assert catalog.verify() == []
    [held_out] = run("tlgen", "ls", corpus, "--where", "split == 'test'", "--paths").split()
    opened = xarray.open_zarr(held_out, consolidated=False)  # without our code
    assert opened["0"].dims == ("z", "y", "x")
    assert opened["0"].shape == (28, 40, 40)

    run("tltrain", "fit", corpus, "--to", model, "--steps", "60", "--patch", "24", "--batch", "4")
    assert "already trained" in run(
        "tltrain", "fit", corpus, "--to", model, "--steps", "60", "--patch", "24", "--batch", "4"
    )

    # sixty steps teach little: no cut would promise anything for the three particles of so small a box
    run("tlpick", "run", model, held_out, "--to", picks, "--fdr", "off")
    assert (picks / "particles.star").exists()
    out = run("tlpick", "score", picks, held_out)
    assert re.search(r"^F1 [01]\.\d\d  precision [01]\.\d\d  recall [01]\.\d\d", out, re.MULTILINE), out
    assert "<svg" in (picks / "report.html").read_text()
    assert "particles" in starfile.read(picks / "particles.star", always_dict=True)


@pytest.mark.slow
def test_a_corpus_made_with_one_worker_is_the_same_as_with_two(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE | {"samples": {"train": {"number": 2}}}))
    tomograms = []
    for workers in (1, 2):
        corpus = tmp_path / f"corpus-{workers}"
        run("tlgen", "run", recipe, "--to", corpus, "--cluster", f"local:{workers}")
        catalog = Catalog.open(str(corpus))
        tomograms.append({r.name: catalog.open_sample(r.sample_id).load() for r in catalog.records()})
    for name, sample in tomograms[0].items():
        xarray.testing.assert_identical(
            sample[["tomogram", "classes", "instances"]],
            tomograms[1][name][["tomogram", "classes", "instances"]],
        )
