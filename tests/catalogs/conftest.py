from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from catalogs import particles
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.schema import Acquisition, ClassInfo

CLASSES = [ClassInfo(name="ribosome", label=1, radius=132.5), ClassInfo(name="fas", label=2, radius=118.0)]


def _sample(number: int = 0, shape: tuple[int, int, int] = (21, 70, 65), **acquisition: Any) -> Sample:
    rng = np.random.default_rng(number)
    t, _, ny, nx = 5, *shape
    name = f"demo-{number:03d}"
    table = particles.make(
        tomogram=name,
        class_name=["ribosome", "distractor", "fas"],
        label=[1, 0, 2],
        instance=[1, 2, 3],
        x=rng.uniform(0, 500, 3),
        y=rng.uniform(0, 500, 3),
        z=rng.uniform(0, 100, 3),
        qx=[0.0, 0.6, 0.5],
        qy=[0.0, 0.0, 0.5],
        qz=[0.0, 0.8, 0.5],
        qw=[1.0, 0.0, 0.5],
        structure=["4v5d", "1e10", ""],  # 1e10 is a name that looks like a number
        variant=[3, -1, 0],
        crowding=[0.25, 0.5, 0.75],
        note=["", "edge", "a b"],
    )
    return Sample(
        tomogram=rng.normal(7, 2, shape).astype(np.float32),
        classes=rng.integers(0, 3, shape, np.uint8),
        instances=rng.integers(0, 4, shape, np.uint16),
        particles=table,
        tilt_images=rng.uniform(0, 9, (t, ny, nx)).astype(np.float32),
        tilt_angles=np.linspace(-60, 60, t, dtype=np.float32),
        tilt_doses=np.arange(t, dtype=np.float32),
        facts={
            "sample_id": f"{number:016x}",
            "name": name,
            "split": "test" if number == 2 else "train",
            "seed": number,
            "acquisition": Acquisition(**acquisition),
            "shape": shape,
            "n_tilts": t,
            "n_particles": 2,
            "n_distractors": 1,
            "class_counts": {"ribosome": 1, "fas": 1},
            "structures": {"4v5d": "aa", "1e10": "bb"},
            "occupancy": 0.1,
            "seconds": {"simulate": 3.0, "pack": 0.5},
            "software": {"parakeet": "0.6.8"},
        },
    )


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., Sample]:
    return _sample


@pytest.fixture(scope="session")
def classes() -> list[ClassInfo]:
    return CLASSES


@pytest.fixture
def corpus(tmp_path: Path) -> Catalog:
    return Catalog.create(tmp_path / "corpus", classes=CLASSES, recipe={"seed": 1}, name="demo")


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    import fsspec
    from fsspec.config import conf

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(conf, "s3", {"key": "test", "secret": "test", "endpoint_url": server})
    fs = fsspec.filesystem("s3")
    name = f"bucket-{uuid4().hex[:8]}"
    fs.mkdir(name)
    return f"s3://{name}"
