"""Shows what a cluster file would start; submits nothing."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import yaml

from tlrun.cluster import launch, security
from tlrun.cluster.cluster_file import (
    Address,
    Gpu,
    Kubernetes,
    Local,
    Pool,
    Queue,
    Threads,
    presets,
    read_cluster,
)


def listing() -> list[str]:
    """List the cluster files that come with the program, each with the first sentence of its comment."""
    return [f"{name:12} {_first_sentence(path.read_text())}" for name, path in presets().items()]


def _first_sentence(text: str) -> str:
    comment = takewhile(lambda line: line.startswith("# "), text.splitlines())
    return " ".join(line.removeprefix("# ") for line in comment).partition(". ")[0].rstrip(".")


def preview(cluster: str) -> str:
    """Show what a word or a file would start: workers, job scripts, pods.

    Raises
    ------
    InputError
        As :func:`tlrun.cluster.cluster_file.read_cluster`, or a package is missing.
    """
    pools = read_cluster(cluster)
    if pools["simulate"] is pools["rest"]:
        return _preview(pools["rest"])
    return "\n".join(f"# ---- {name}\n{_preview(pool)}" for name, pool in pools.items())


def _preview(pool: Pool) -> str:
    if isinstance(pool, Address):
        return f"# joins the Dask scheduler at {pool.address}"
    if isinstance(pool, Threads):
        return f"# {pool.workers or launch.cores()} threads of this process"
    if isinstance(pool, Local):
        return f"# {pool.workers or launch.cores()} worker processes on this machine"
    if isinstance(pool, Gpu):
        gpus = launch.visible_gpus()[: pool.workers]
        return f"# {len(gpus)} worker processes on this machine, GPUs {', '.join(gpus) or 'none'}"
    n = (
        f"{pool.workers.min} to {pool.workers.max}"
        if pool.workers.min < pool.workers.max
        else pool.workers.min
    )
    if isinstance(pool, Kubernetes):
        return f"# {n} worker pods, requested like this:\n" + yaml.safe_dump(
            launch.kubernetes_spec(pool), sort_keys=False
        )
    return f"# {n} workers, {pool.workers_per_job} in each job like this:\n" + job_script(pool)


def job_script(pool: Queue) -> str:
    """Write the script of one job, with a made-up address of the scheduler.

    Raises
    ------
    InputError
        dask-jobqueue is not installed.
    """
    launch.jobqueue(pool)
    from dask_jobqueue import pbs, sge, slurm

    job: Any = {"slurm": slurm.SLURMJob, "pbs": pbs.PBSJob, "sge": sge.SGEJob}[pool.kind]
    arguments = launch.queue_arguments(pool)
    for name in ("scheduler_options", "silence_logs"):  # of the scheduler
        arguments.pop(name)
    # dask-jobqueue makes a folder for logs as soon as it is named
    script = job(
        scheduler="tls://SCHEDULER:8786",
        name="NAME",
        protocol="tls://",
        security=security.to_be_shown(),
        **arguments | {"log_directory": None},
    ).job_script()
    return str(script)
