"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from catalogs.machine import prefer_onednn

if TYPE_CHECKING:
    from distributed import Client

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as on the workers
prefer_onednn(keep_memory=False)  # some tests make networks before they import a package that does this

# how long an example takes says how busy the machine is, not whether the code is right
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def prepared_structures(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is prepared of structures for these tests alone; their workers inherit the variable."""
    os.environ["TLGEN_PREPARED"] = str(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real structures, maps and tomograms beside the checkout; not part of the project."""
    if not (SHARED / "structures").is_dir():
        pytest.skip(f"needs the real test data in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A real Dask cluster of two worker processes, which runs can join by its address."""
    from distributed import LocalCluster

    from tlrun.cluster.connect import open_cluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as running,
        open_cluster(running.scheduler_address) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of the S3 protocol on the loopback interface."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed")
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()
