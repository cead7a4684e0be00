"""Nobody else gets into a cluster that the program starts, and nothing listens to the network unasked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from pathlib import Path
from threading import Thread

import psutil
import pytest
from distributed import Security
from distributed.comm import connect

from catalogs.errors import InputError
from tlrun.cluster import launch, security
from tlrun.cluster.cluster_file import Queue
from tlrun.cluster.connect import open_cluster
from tlrun.cluster.preview import job_script


def listening(process: psutil.Process) -> set[str]:
    """Addresses that a process and its children listen at."""
    family = [process, *process.children(recursive=True)]
    found = [link for each in family for link in each.net_connections() if link.status == "LISTEN"]
    assert found
    return {link.laddr.ip for link in found}


async def talk(address: str, certificates: Security) -> None:
    """Ask a scheduler or a worker who it is."""
    arguments = certificates.get_connection_args("client")
    comm = await connect(address, timeout=3, **arguments)
    try:
        await comm.write({"op": "identity", "reply": True})
        await asyncio.wait_for(comm.read(), 3)
    finally:
        comm.abort()


@pytest.mark.parametrize("word", ["local:1", "threads:1"])
def test_nothing_listens_to_the_network(word: str) -> None:
    with open_cluster(word) as client:
        assert client.submit(os.getpid).result() > 0
        assert listening(psutil.Process()) <= {"127.0.0.1", "::1"}


def test_ports_that_others_have_taken() -> None:
    """Dask's own ports are taken: a run needs none of them, and says so of one that is no scheduler."""
    with contextlib.ExitStack() as taken:
        for port in (8786, 8787):
            other = taken.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # somebody else on this machine has it already
                other.bind(("127.0.0.1", port))
                other.listen()
        with open_cluster("local:1") as client:
            assert client.submit(os.getpid).result() > 0
        web = taken.enter_context(socket.create_server(("127.0.0.1", 0)))

        def answer() -> None:
            with contextlib.suppress(OSError):  # it is closed
                while True:
                    with web.accept()[0] as link:
                        link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{web.getsockname()[1]}"
        with pytest.raises(InputError, match=address), open_cluster(address):
            pass


def test_who_has_no_certificate_gets_nowhere() -> None:
    with open_cluster("local:1") as client:
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        worker = next(iter(client.scheduler_info()["workers"]))
        assert worker.startswith("tls://127.0.0.1:")
        for theirs in (Security(), Security.temporary(), security.temporary()):
            for place in (address, address.replace("tls", "tcp"), worker, worker.replace("tls", "tcp")):
                with pytest.raises((OSError, TypeError, RuntimeError)):
                    asyncio.run(talk(place, theirs))
        asyncio.run(talk(address, client.security))
        assert client.submit(os.getpid).result() > 0


def test_jobs_of_a_queue(tmp_path: Path) -> None:
    pool = Queue(kind="slurm", logs=str(tmp_path / "lo gs"))
    said = launch.queue_arguments(pool)
    assert said["scheduler_options"]["dashboard_address"] == "127.0.0.1:0"
    script = job_script(pool)
    assert "tls://SCHEDULER:8786" in script
    assert "--tls-key KEY" in script
    assert "--dashboard-address 127.0.0.1:0" in script
    stale = tmp_path / "lo gs" / f".certificates-{os.uname().nodename}-999999999-x"
    stale.mkdir(parents=True)
    with security.folder_for_jobs(pool.logs) as folder:
        assert not stale.exists()
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        from dask_jobqueue import SLURMCluster

        certificates = security.temporary()
        with SLURMCluster(**said, security=certificates, shared_temp_directory=folder) as cluster:
            files = list(Path(folder).iterdir())
            assert len(files) == 3
            assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
            assert "PRIVATE KEY" not in cluster.job_script()
            assert str(files[0]) in cluster.job_script().replace("\\", "").replace("'", "")
    assert not Path(folder).exists()
