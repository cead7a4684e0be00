"""A real Slurm on this host: its daemons run for the length of these tests, and jobs are real jobs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from tlrun.cluster.connect import open_cluster
from tlrun.fan_out import Call, Job, Steps, fan_out

PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munged")

CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run munged, slurmctld and slurmd in the foreground, with all they keep in one folder."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")]
    if missing:
        pytest.skip(
            f"needs Slurm on this host: there is no {missing[0]} (Debian: apt install slurm-wlm munge)"
        )
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons start jobs as other users, so they need root")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host, ports=free_ports(2)))
    environment = os.environ | {"SLURM_CONF": str(configuration), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    munge = [f"--{what}={folder}/munge.{what.split('-')[0]}" for what in ("socket", "key-file", "pid-file")]
    munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    daemons = []
    try:
        for command in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D"]):
            with open(folder / f"{command[0]}.out", "wb") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            deadline = time.monotonic() + 60
            while not (folder / "munge.socket").exists():  # the others end where they find none
                assert time.monotonic() < deadline, (folder / "munged.out").read_text()
                time.sleep(0.1)
            time.sleep(1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(configuration))
            deadline = time.monotonic() + 120
            while "idle" not in (
                state := subprocess.run(["sinfo", "-h"], capture_output=True, text=True).stdout
            ):
                assert time.monotonic() < deadline, (state, (folder / "slurmctld.out").read_text())
                time.sleep(0.5)
            yield
            subprocess.run(["scancel", "--user=root"], check=False)
            time.sleep(1)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(20)


@pytest.fixture
def cluster(tmp_path: Path, slurm: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return {
        "kind": "slurm",
        "queue": "main",
        "workers": 2,
        "memory": "1GB",
        "walltime": "00:10:00",
        "interface": "lo",
        "environment": {"FROM_THE_FILE": "$SLURM_JOB_ID"},
        "directives": ["--comment=tlrun"],
    }


def written(content: dict[str, Any]) -> str:
    path = Path("cluster.yaml")
    path.write_text(yaml.safe_dump(content))
    return str(path)


def where() -> tuple[str, str, str]:
    time.sleep(1.5)
    return os.environ["SLURM_JOB_ID"], os.environ["FROM_THE_FILE"], os.environ["OMP_NUM_THREADS"]


def job(name: str, call: Call) -> Job:
    def steps() -> Steps:
        return (yield [call])[0]

    return Job(name, steps)


@pytest.mark.slow
def test_calls_run_in_jobs_with_the_settings_of_the_file(cluster: dict[str, Any]) -> None:
    with open_cluster(written(cluster), constants=("tlgen.recipes.samples:DATA_VERSION",)) as client:
        client.wait_for_workers(2, timeout=180)
        summary = fan_out([job(f"where-{k}", Call(where)) for k in range(6)], client)
        jobs = subprocess.run(["squeue", "-h", "-o", "%k %m %l"], capture_output=True, text=True).stdout
    assert jobs.splitlines() == ["tlrun 954M 10:00"] * 2
    found = set(summary.results.values())
    assert len({job_id for job_id, _, _ in found}) == 2
    assert all(job_id == from_file and threads == "1" for job_id, from_file, threads in found)
    deadline = time.monotonic() + 120
    while subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout:
        assert time.monotonic() < deadline, "jobs outlive the run"
        time.sleep(0.5)


RODS = """
name: rods
shape: [16, 24, 25]
targets: {big: {structures: [big.pdb], count: 2, variants: {number: 0}}}
acquisition: {engine: multislice, voxel_size: 10, tilt_range: 60, tilt_step: 20}
samples: {train: {number: 3}}
"""
ATOM = "ATOM  {0:5d}  CA  ALA A{0:4d}    {1:8.3f}{2:8.3f}{3:8.3f}  1.00  0.00           C"


@pytest.mark.slow
def test_a_corpus_is_made_by_jobs(cluster: dict[str, Any], tmp_path: Path) -> None:
    """The program itself, as its user starts it."""
    atoms = [ATOM.format(i + 1, i % 7 * 3, i // 7 % 5 * 3, i // 35 * 3) for i in range(200)]
    (tmp_path / "big.pdb").write_text("\n".join([*atoms, "END", ""]))
    (tmp_path / "rods.yaml").write_text(RODS)
    command = [sys.executable, "-c", "from tlgen.cli import main; main()"]
    command += [
        "run",
        "rods.yaml",
        "--to",
        "corpus",
        "--cluster",
        written(cluster),
        "--log-json",
        "log.jsonl",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("dashboard at http://" in done.stdout) == (find_spec("bokeh") is not None)
    assert "3 of 3 made, 0 failed" in done.stdout
    catalog = Catalog.open(str(tmp_path / "corpus"))
    assert len(catalog.records()) == 3
    assert catalog.verify() == []
    # nothing of it was made here: the jobs' output tells of their workers
    assert any("Registered to" in log.read_text() for log in (tmp_path / "cluster-logs").glob("*.err"))
    assert '"event": "end"' in (tmp_path / "log.jsonl").read_text().splitlines()[-1]


def napping(seconds: float) -> str:
    time.sleep(seconds)
    return os.environ["SLURM_JOB_ID"]


@pytest.mark.slow
@pytest.mark.long  # Dask waits a while before it believes that a worker has gone
def test_jobs_that_end_are_replaced(cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers end before their walltime and others take their place, without a call failing."""
    monkeypatch.setattr("tlrun.cluster.launch.lifetime", lambda _: (20, 2))
    with open_cluster(written(cluster | {"workers": 1})) as client:
        jobs = [job(f"nap-{k}", Call(napping, 1)) for k in range(30)]
        summary = fan_out(jobs, client, retries=0)
    assert not summary.failures
    assert len(set(summary.results.values())) > 1


@pytest.mark.slow
def test_a_job_that_cannot_start_says_why(cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlrun.cluster.connect.REMIND_EVERY", 2)
    seen: list[str] = []

    def stop(text: str) -> None:
        seen.append(text)
        if "No such file" in text or len(seen) > 10:
            raise KeyboardInterrupt

    monkeypatch.setattr("tlrun.cluster.connect._log.warning", stop)
    with (
        pytest.raises(KeyboardInterrupt),
        open_cluster(written(cluster | {"python": "/no/such/python"})),
    ):
        pass
    assert "waiting for the first worker: jobs " in seen[-1]
    assert "/no/such/python: No such file or directory" in seen[-1]


@pytest.mark.slow
def test_a_partition_that_does_not_exist_is_refused(cluster: dict[str, Any]) -> None:
    with (
        pytest.raises(InputError, match=r"no job was submitted: .*Invalid partition"),
        open_cluster(written(cluster | {"queue": "no"})),
    ):
        pass
