"""Starts the Dask cluster that a pool's settings describe. A worker is a process with one thread."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

from catalogs.errors import InputError
from catalogs.private_folders import scratch_folder
from tlrun.cluster import security
from tlrun.cluster.cluster_file import Address, Gpu, Kubernetes, Local, Pool, Queue, Threads
from tlrun.memory import share_of

# A worker has one thread, so its libraries must not start threads of their own.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)

# Dask's defaults suit many short tasks. Tasks here take seconds to hours, hold the interpreter's lock for
# long, and may kill their worker when a simulator crashes.
SCHEDULER = {
    "distributed.scheduler.worker-ttl": "30 minutes",
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.unknown-task-duration": "1 minute",
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "120s",
}
WORKER = {
    "distributed.worker.memory.target": False,  # results are small, so spilling them to disk does not help
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.admin.tick.limit": "10 minutes",  # do not warn about a busy event loop
    "distributed.worker.profile.enabled": False,  # the profiler samples every thread a hundred times a second
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "120s",
}
SETTINGS = SCHEDULER | WORKER

# The scheduler holds only a window of the calls to come, so Dask's estimate of the remaining work is always
# too small. So each waiting call may get a worker of its own (target_duration), and workers are released only
# after they have been idle for long (wait_count times interval), because there is little to do between the
# steps of a sample.
ADAPTIVE = {"target_duration": "1s", "interval": "10s", "wait_count": 30}


NEEDS_JOBQUEUE = (
    "`cluster={kind}` needs dask-jobqueue, which is not installed: pip install 'template-learning[hpc]'."
)

_NOT_SUBMITTED = "`cluster={kind}`: no job was submitted: {why}."
_NO_COMMAND = "there is no {command} on this machine; start the program where jobs can be submitted"


def cores() -> int:
    """Count the cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def check(pool: Pool) -> None:
    """Refuse a pool if this machine lacks what it needs; nothing is started.

    Raises
    ------
    InputError
        There are no GPUs, or fewer than asked for; a package or the command that submits jobs is missing;
        the scratch folder of this machine cannot be written; or no scheduler answers at the address.
    """
    if isinstance(pool, Local | Gpu) and pool.scratch:
        _writable(pool.scratch)
    if isinstance(pool, Gpu):
        _devices(pool)
    elif isinstance(pool, Queue):
        jobqueue(pool)
        command = "sbatch" if pool.kind == "slurm" else "qsub"
        if not shutil.which(command):
            raise InputError(_NOT_SUBMITTED.format(kind=pool.kind, why=_NO_COMMAND.format(command=command)))
    elif isinstance(pool, Kubernetes):
        kubernetes_spec(pool)
    elif isinstance(pool, Address):
        try:
            place = urlsplit(pool.address)
            socket.create_connection((place.hostname or "", place.port or 0), timeout=10).close()
        except (OSError, ValueError) as error:  # ValueError: not a valid port number
            raise InputError(f"no Dask scheduler answers at {pool.address} ({error}).") from error


@contextmanager
def threads(pool: Threads, *, one_call_per_process: bool) -> Iterator[Any]:
    """Start workers that are threads of this process."""
    from distributed import LocalCluster
    from threadpoolctl import threadpool_limits

    os.environ.update(ONE_THREAD)  # for the processes that these threads start
    n = 1 if one_call_per_process else pool.workers or cores()
    cluster: Any = LocalCluster(
        n_workers=n,
        threads_per_worker=1,
        processes=False,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",  # else it listens to the network
        silence_logs=logging.CRITICAL,
    )
    with threadpool_limits(1), cluster:
        yield cluster


@contextmanager
def local(pool: Local) -> Iterator[Any]:
    """Start worker processes on this machine."""
    from distributed import LocalCluster

    with _scratch(pool.scratch) as folder:
        n = pool.workers or cores()
        cluster: Any = LocalCluster(n_workers=n, processes=True, **_on_this_machine(pool, n, folder))
        with cluster:
            yield cluster


def _on_this_machine(pool: Local | Gpu, n: int, folder: str) -> dict[str, Any]:
    return {
        "threads_per_worker": 1,
        "memory_limit": 0,  # see share_of
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "local_directory": folder,
        "security": security.temporary(),
        "silence_logs": logging.CRITICAL,
        "env": _environment(pool, n),
    }


def _environment(pool: Local | Gpu, n: int) -> dict[str, str]:
    """Make the environment of ``n`` workers: one thread each, and the memory that they share."""
    return ONE_THREAD | (share_of(n * pool.memory) if pool.memory else {}) | pool.environment


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, named as in ``CUDA_VISIBLE_DEVICES``."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(k) for k in range(len(lines))] if listed.returncode == 0 else []


def _devices(pool: Gpu) -> list[str]:
    """List the GPUs of a pool (InputError if there are none, or fewer than asked for)."""
    devices = visible_gpus()
    if not devices:
        raise InputError(
            "`cluster=gpu`: this machine shows no NVIDIA GPU (nvidia-smi lists none, or CUDA_VISIBLE_DEVICES "
            "hides them); use local."
        )
    if pool.workers and pool.workers > len(devices):
        raise InputError(
            f"`cluster=gpu:{pool.workers}`: this machine has {len(devices)} GPUs; request no more than that."
        )
    return devices[: pool.workers]


@contextmanager
def gpu(pool: Gpu) -> Iterator[Any]:
    """Start one worker process per GPU, which sees only that GPU; use dask-cuda if it is installed.

    Raises
    ------
    InputError
        There are no GPUs, or fewer than asked for.
    """
    devices = _devices(pool)
    with _scratch(pool.scratch) as folder:
        try:
            from dask_cuda import LocalCUDACluster
        except ImportError:
            cluster = _worker_a_gpu(devices, pool, folder)
        else:
            said = _on_this_machine(pool, len(devices), folder)

            class OneEach(LocalCUDACluster):
                """dask-cuda would list all GPUs, the worker's own first, and set no other variables."""

                def new_worker_spec(self) -> dict[Any, Any]:
                    spec: dict[Any, Any] = super().new_worker_spec()
                    for worker in spec.values():
                        first = worker["options"]["env"]["CUDA_VISIBLE_DEVICES"].partition(",")[0]
                        worker["options"]["env"] = said["env"] | {"CUDA_VISIBLE_DEVICES": first}
                    return spec

            cluster = OneEach(CUDA_VISIBLE_DEVICES=devices, **said)
        with cluster:
            yield cluster


def _worker_a_gpu(devices: list[str], pool: Gpu, folder: str) -> Any:
    from distributed import Nanny, Scheduler, SpecCluster

    environment = _environment(pool, len(devices))
    certificates = security.temporary()

    def worker(device: str) -> dict[str, Any]:
        return {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "memory_limit": 0,
                "host": "127.0.0.1",
                "local_directory": folder,
                "protocol": "tls://",
                "security": certificates,
                "silence_logs": logging.CRITICAL,
                "env": environment | {"CUDA_VISIBLE_DEVICES": device},
            },
        }

    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": "127.0.0.1",
            "dashboard_address": "127.0.0.1:0",
            "dashboard": True,
            "protocol": "tls://",
            "security": certificates,
        },
    }
    return SpecCluster(
        workers={k: worker(device) for k, device in enumerate(devices)},
        scheduler=scheduler,
        security=certificates,
        silence_logs=logging.CRITICAL,
    )


# ------------------------------------------------------------------------------------ queueing systems


def lifetime(walltime: int) -> tuple[int, int]:
    """Return the seconds after which a worker ends by itself, and their random spread.

    Because of the spread, not all workers end at once. A worker that ends by itself hands its work back; one
    that the queueing system kills counts as crashed.
    """
    margin = min(600, max(60, walltime // 20))
    stagger = min(300, walltime // 20)
    return walltime - margin - stagger, stagger


def jobqueue(pool: Queue) -> Any:
    """Import dask-jobqueue (InputError if it is not installed)."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ImportError as error:
        raise InputError(NEEDS_JOBQUEUE.format(kind=pool.kind)) from error
    finally:
        if here:  # dask-jobqueue lets Ctrl-C end the program with status 0
            signal.signal(signal.SIGINT, before)
    return dask_jobqueue


@contextmanager
def queue(pool: Queue) -> Iterator[Any]:
    """Submit the first jobs to a queueing system; more follow later and replace those that have ended.

    Raises
    ------
    InputError
        dask-jobqueue is not installed, or the queueing system refuses the jobs.
    """
    dask_jobqueue = jobqueue(pool)
    from distributed import Status

    name = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster"}[pool.kind]
    with (
        security.folder_for_jobs(pool.logs) as folder,
        ExitStack() as stack,
        getattr(dask_jobqueue, name)(
            **queue_arguments(pool), security=security.temporary(), shared_temp_directory=folder
        ) as cluster,
    ):
        for part in ("ca_file", "cert", "key"):
            # temporary files: if closed after their folder is removed, they print errors
            stack.callback(getattr(cluster, f"_job_{part}").close)
        # submit the first jobs directly: scale() and adapt() would hide that the queueing system refuses them
        while len(cluster.worker_spec) < -(-pool.workers.min // pool.workers_per_job):
            cluster.worker_spec.update(cluster.new_worker_spec())
        try:
            cluster.sync(cluster._correct_state)
        except (OSError, RuntimeError, ValueError) as error:
            for job in cluster._created:  # Dask refuses to close jobs that seem about to start
                job.status = Status.failed
            raise InputError(_NOT_SUBMITTED.format(kind=pool.kind, why=_last_words(error))) from error
        # unlike scale(), adapt() also replaces workers whose jobs have ended
        cluster.adapt(minimum=pool.workers.min, maximum=pool.workers.max, **ADAPTIVE)
        yield cluster


def _last_words(error: Exception) -> str:
    """Extract the last line that a failed command printed from dask-jobqueue's error."""
    if isinstance(error, FileNotFoundError):
        return _NO_COMMAND.format(command=error.filename)
    said = str(error).partition("stderr:")[2] or str(error)
    return next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "no reason given")


def queue_arguments(pool: Queue) -> dict[str, Any]:
    """Translate a pool's settings for dask-jobqueue."""
    n, memory = pool.workers_per_job, pool.workers_per_job * pool.memory
    seconds, stagger = lifetime(pool.walltime)
    hours, rest = divmod(pool.walltime, 3600)
    directives = list(pool.directives)
    said: dict[str, Any] = {}
    if pool.kind == "pbs":
        said["resource_spec"] = f"select=1:ncpus={n}" + ":ngpus=1" * pool.gpu + f":mem={memory // 10**6}MB"
    elif pool.gpu:
        directives.append("--gres=gpu:1" if pool.kind == "slurm" else "-l gpu=1")
    environment = ONE_THREAD | _as_variables(WORKER) | pool.environment
    optional = {
        "queue": pool.queue,
        "project" if pool.kind == "sge" else "account": pool.account,
        "python": pool.python,
        "interface": pool.interface,
        "local_directory": pool.scratch,
    }
    return {
        "cores": n,
        "processes": n,
        "memory": f"{memory} B",
        "walltime": f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}",
        "job_name": "tl-worker",
        "job_extra_directives": directives,
        "job_script_prologue": [f"export {key}={_quoted(value)}" for key, value in environment.items()]
        + list(pool.setup),
        "worker_extra_args": [
            *("--lifetime", f"{seconds}s", "--lifetime-stagger", f"{stagger}s"),
            *("--dashboard-address", "127.0.0.1:0"),  # else it listens without certificates
        ],
        "log_directory": pool.logs,
        "death_timeout": 300,
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
        "silence_logs": logging.CRITICAL,
        **said,
        **{key: value for key, value in optional.items() if value is not None},
    }


def _quoted(value: str) -> str:
    """Quote a value for the shell, so that it still fills in $VARIABLES."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`") + '"'


def _as_variables(settings: Mapping[str, object]) -> dict[str, str]:
    """Write Dask settings as environment variables, for processes that other programs start."""
    return {f"DASK_{key.replace('.', '__').replace('-', '_').upper()}": str(v) for key, v in settings.items()}


# ------------------------------------------------------------------------------------ Kubernetes


def kubernetes_spec(pool: Kubernetes) -> dict[str, Any]:
    """Describe the pods for the Dask operator.

    Raises
    ------
    InputError
        dask-kubernetes is not installed.
    """
    try:
        from dask_kubernetes.operator import make_cluster_spec
    except ImportError as error:
        raise InputError(
            "`cluster=kubernetes` needs dask-kubernetes, which is not installed: "
            "pip install 'template-learning[hpc]'."
        ) from error
    variables = ONE_THREAD | _as_variables(SETTINGS) | pool.environment
    variables["DASK_DISTRIBUTED__ADAPTIVE__TARGET_DURATION"] = ADAPTIVE["target_duration"]  # type: ignore[assignment]
    memory = f"{pool.memory // 10**6}M"
    command = ["dask", "worker", "--nthreads", "1", "--memory-limit", f"{pool.memory}"]
    if pool.scratch:
        command += ["--local-directory", pool.scratch]
    spec: dict[str, Any] = make_cluster_spec(
        name=pool.name,
        image=pool.image,
        n_workers=pool.workers.min,
        resources={"requests": {"cpu": "1", "memory": memory}, "limits": {"memory": memory}},
        env=variables,
        worker_command=command,
    )
    worker, scheduler = spec["spec"]["worker"]["spec"], spec["spec"]["scheduler"]["spec"]
    if pool.gpu:
        worker["containers"][0]["resources"] = {
            "requests": {"cpu": "1", "memory": memory, "nvidia.com/gpu": "1"},
            "limits": {"memory": memory, "nvidia.com/gpu": "1"},
        }
    for pod in (worker, scheduler):
        if pool.service_account:
            pod["serviceAccountName"] = pool.service_account
    worker["containers"][0]["envFrom"] = [{"secretRef": {"name": name}} for name in pool.secrets]
    if pool.node_selector:
        worker["nodeSelector"] = dict(pool.node_selector)
    if pool.tolerations:
        worker["tolerations"] = [dict(each) for each in pool.tolerations]
    return spec


@contextmanager
def kubernetes(pool: Kubernetes) -> Iterator[Any]:
    """Ask the Dask operator for a cluster.

    Raises
    ------
    InputError
        dask-kubernetes is not installed, or no Kubernetes answers.
    """
    spec = kubernetes_spec(pool)
    from dask_kubernetes.operator import KubeCluster

    try:
        cluster = KubeCluster(
            name=pool.name,
            namespace=pool.namespace,
            custom_cluster_spec=spec,
            quiet=True,
            resource_timeout=600,
        )
    except Exception as error:  # kr8s, httpx and the operator raise unrelated exceptions
        raise InputError(
            f"`cluster=kubernetes`: the Dask operator did not start a cluster ({type(error).__name__}: "
            f"{error}); check that kubectl get pods works here and that the operator is installed."
        ) from error
    with cluster:
        cluster.adapt(minimum=pool.workers.min, maximum=pool.workers.max)
        yield cluster


def _scratch(folder: str | None) -> Any:
    return nullcontext(_writable(folder)) if folder else _own_scratch()


@contextmanager
def _own_scratch() -> Iterator[str]:
    with scratch_folder("tlrun-") as folder:
        yield str(folder)


def _writable(folder: str) -> str:
    """Fill in variables and make the folder (InputError if it cannot be written)."""
    path = os.path.expandvars(folder)
    try:
        os.makedirs(path, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise InputError(
            f"scratch: {path} cannot be written ({error.strerror}); name a folder on a local disk, or leave "
            "it out"
        ) from error
    return path
