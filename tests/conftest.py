"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from distributed import Client

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as on the workers

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real structures, maps and tomograms beside the checkout; not part of the project."""
    if not (SHARED / "structures").is_dir():
        pytest.skip(f"needs the real test data in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A real Dask cluster of two worker processes."""
    from tlrun.clusters import open_cluster

    with open_cluster("local:2") as client:
        yield client
