"""Nothing is promised of picks in tomograms unlike the training data: a real cell, and a microtubule."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from catalogs.volumes import open_volume, write_mrc

RECIPE: dict[str, Any] = {
    "name": "proteasome",
    "seed": 11,
    "shape": [36, 64, 64],
    "distractors": [{"file": "4v1w", "count": 6}, {"file": "7cth", "count": 6}],
    "packing": {"fill": "counts"},
    "acquisition": {
        "engine": "multislice",
        "voxel_size": 10,
        "pixel_size": 2,
        "tilt_range": 60,
        "tilt_step": 6,
        "dose": 120,
        "defocus": 3,
    },
    "samples": {"train": {"number": 2}, "check": {"number": 1, "split": "val"}},
}


def run(program: str, *words: object) -> str:
    command = [str(Path(sys.executable).parent / program), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_proteasome_model_promises_nothing_in_a_cell_without_proteasomes(
    shared: Path, tmp_path: Path
) -> None:
    """A model that was calibrated on one simulated tomogram once said "expected precision 0.95" there."""
    series, density = shared / "real" / "TS_01.ali", shared / "maps" / "polnet_20S_3j9i_5A.mrc"
    if not series.exists() or not density.exists():
        pytest.skip("needs the real tilt series and the map of a 20S proteasome")
    recipe, corpus, model = (tmp_path / name for name in ("20S.yaml", "corpus", "20S.tlm"))
    target = {"map": str(density), "resolution": 12, "mass": 700}
    content = RECIPE | {
        "targets": {"proteasome": {"structures": [target], "count": 12, "variants": {"number": 0}}}
    }
    recipe.write_text(yaml.safe_dump(content))
    run("tlgen", "run", recipe, "--to", corpus)
    run(
        "tltrain", "fit", corpus, "--to", model, "--network", "small", "--steps", 120, "--patch", 32,
        "--batch", 4,
    )  # fmt: skip
    assert "proteasome" in run("tlpick", "calibrate", model, corpus)

    tomogram, crop = tmp_path / "TS_01.mrc", tmp_path / "crop.mrc"
    run(
        "tlgen", "reconstruct", series, "--angles", series.with_suffix(".tlt"), "--to", tomogram,
        "--voxel-size", 10, "--thickness", 640,
    )  # fmt: skip
    inside = (slice(0, 64), slice(256, 384), slice(256, 384))  # in the middle of the cell
    write_mrc(crop, np.ascontiguousarray(open_volume(tomogram).read(inside)), 10.0)
    promise = ("--precision", "0.9")
    to = tmp_path / "picks"
    for more in ((), promise, (*promise, "--decoys", "off")):
        said = run("tlpick", "run", model, crop, "--to", to, *more)
        assert "expected precision" not in said, said
        assert "of them wrong" not in said, said
        done = json.loads((to / "crop" / "done.json").read_text())
        if sum(done["counts"].values()):
            assert "no precision is promised" in said, said
            report = (to / "report.html").read_text()
            assert "no precision is promised" in report


@pytest.mark.slow
def test_the_ribosome_model_promises_nothing_at_a_microtubule(shared: Path, tmp_path: Path) -> None:
    """The demo's model once found 31 ribosomes there, with the scores of true ones."""
    crop = shared / "tomograms" / "13pf_MT.tif"
    if not crop.exists():
        pytest.skip("needs the crop of a microtubule")
    to = tmp_path / "picks"
    said = run(
        "tlpick", "run", "ribosome", crop, "--to", to, "--voxel-size", 10.52, "--rescale", "--invert",
        "--trust-contrast",
    )  # fmt: skip
    assert "of them wrong" not in said, said
    done = json.loads((to / "13pf_MT" / "done.json").read_text())
    if done["counts"]["ribosome"]:
        assert "no precision is promised" in said, said
