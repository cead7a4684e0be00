"""A tiny world for the commands of the documentation: a corpus, a model, tomograms, lists, a stack."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from catalogs import particles
from catalogs.corpus.catalog import Catalog
from catalogs.volumes import write_mrc

BIN = Path(sys.executable).parent
VOXEL = 10.0
TILTS = (-40.0, -20.0, 0.0, 20.0, 40.0)

#: A recipe like the demo, with small molecules in small boxes.
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "shape": [24, 40, 40],
    "targets": {"ribosome": {"structures": ["3enl"], "count": 6, "variants": {"number": 1, "rmsd": [1, 2]}}},
    "distractors": [{"file": "1pwc", "count": 6}],
    "acquisition": {
        "engine": "multislice",
        "voxel_size": VOXEL,
        "tilt_range": 40,
        "tilt_step": 20,
        "dose": 90,
        "defocus": 2.0,
    },
    "samples": {
        "train": {"number": 2},
        "train-far": {"number": 1, "acquisition": {"dose": 95, "defocus": 4.5}},
        "check": {"number": 1, "split": "val"},
        "held-out": {"number": 1, "split": "test", "acquisition": {"defocus": 3.5}},
    },
}
#: A sample that the corpus of the world lacks, so that `tlgen run` has something to make.
MORE = {"more": {"number": 1, "shape": [24, 24, 24]}}

_MDOC = """PixelSpacing = 5
Voltage = 300
ImageFile = TS_01.mrc
ImageSize = 80 80

"""


def call(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> None:
    """Run a program of ours; a failure shows what it said."""
    command = [str(BIN / str(words[0])), *map(str, words[1:])]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}")


def make(folder: Path) -> None:
    """Make everything that a page may name; see ``PLACES`` of the test for where it is put."""
    (folder / "first.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | {"samples": RECIPE["samples"] | MORE}))
    call("tlgen", "run", "first.yaml", "--to", "corpus", "--cluster", "local:2", cwd=folder)
    fit = ("--steps", "60", "--patch", "16", "--batch", "4", "--validate-every", "30")
    call("tltrain", "fit", "corpus", "--to", "ribosome.tlm", *fit, cwd=folder)
    _tomograms(folder)
    call("tlpick", "run", "ribosome.tlm", "tomograms/*.mrc", "--to", "picks", "--fdr", "off", cwd=folder)
    test = ("corpus", "--where", "split == 'test'")
    call("tlpick", "run", "ribosome.tlm", *test, "--to", "picks-of-corpus", "--fdr", "off", cwd=folder)
    _series(folder)
    _weights(folder / "net_weights_FINAL.h5")


def _tomograms(folder: Path) -> None:
    """Write two tomograms of the corpus as MRC, and their particles in the forms that the pages name."""
    corpus = Catalog.open(folder / "corpus")
    truth, rows = [], []
    (folder / "tomograms").mkdir()
    for name, split in (("TS_01", "test"), ("TS_02", "val")):
        sample_id = corpus.query(f"split == '{split}'").index[0]
        sample = corpus.open_sample(sample_id)
        write_mrc(folder / f"tomograms/{name}.mrc", sample["tomogram"].to_numpy(), VOXEL, contrast="dark")
        table = corpus.particles(sample_id)
        truth.append(table[table["label"] > 0].assign(tomogram=name))
        rows.append(f"{name} tomograms/{name}.mrc 5.0 2")
        if name == "TS_01":
            labels = sample["classes"].to_numpy()
            write_mrc(folder / "labels.mrc", labels.astype(np.int8), VOXEL)
            write_mrc(folder / "mask.mrc", np.ones(labels.shape, np.int8), VOXEL)
    columns = (
        "rlnTomoName",
        "rlnTomoReconstructedTomogram",
        "rlnTomoTiltSeriesPixelSize",
        "rlnTomoTomogramBinning",
    )
    head = ["data_global", "", "loop_", *(f"_{name} #{k}" for k, name in enumerate(columns, 1))]
    (folder / "tomograms.star").write_text("\n".join([*head, *rows, ""]))
    known = pd.concat(truth, ignore_index=True)
    shape = tuple(RECIPE["shape"])
    particles.write(known, folder / "truth.star", voxel_size=VOXEL, shape=shape, classes=corpus.classes)
    one = known[known["tomogram"] == "TS_01"]
    particles.write(one, folder / "truth-1.star", voxel_size=VOXEL, shape=shape, classes=corpus.classes)
    verdicts = np.where(np.arange(len(known)) % 6 == 5, "rejected", "accepted")
    particles.write(known.assign(verdict=verdicts), folder / "curated.csv")


def _series(folder: Path) -> None:
    """Write a tilt series as a stack with its angles."""
    corpus = Catalog.open(folder / "corpus")
    tilts = corpus.tilts(corpus.query("split == 'test'").index[0])
    images = tilts["images"].to_numpy().repeat(2, axis=1).repeat(2, axis=2)
    write_mrc(folder / "TS_01.ali", images, VOXEL / 2)
    assert tilts["angle"].to_numpy().tolist() == list(TILTS)
    (folder / "TS_01.tlt").write_text("".join(f"{angle}\n" for angle in TILTS))
    blocks = [
        f"[ZValue = {k}]\nTiltAngle = {angle}\nExposureDose = 18\nPriorRecordDose = {18 * k}\n"
        f"Defocus = -2.5\nDateTime = 12-Mar-24  14:{10 + k}:33\n"
        for k, angle in enumerate(TILTS)
    ]
    (folder / "TS_01.mrc.mdoc").write_text(_MDOC + "\n".join(blocks))


def _weights(path: Path) -> None:
    """Write weights of DeepFinder's network for two classes, as its training does."""
    from tltrain.networks.architectures import architecture
    from tltrain.networks.deepfinder_weights import write_deepfinder

    write_deepfinder(path, architecture("deepfinder").build(3, 0))


@dataclass(frozen=True)
class World:
    """Folder of what is there, and the environment of commands."""

    folder: Path
    env: dict[str, str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, server: str) -> World:
    """Make the world, with its corpus in two buckets; our programs come first, and there is no screen."""
    folder = tmp_path_factory.mktemp("world")
    here = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    here |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FSSPEC_S3_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    make(folder)
    for name in ("bucket", "lab"):
        bucket = f"import s3fs; s3fs.S3FileSystem(endpoint_url={server!r}).mkdir({name!r})"
        subprocess.run([sys.executable, "-c", bucket], env=here, check=True)
        call("tlgen", "copy", "corpus", f"s3://{name}/corpus", cwd=folder, env=here)
    return World(folder, here)
