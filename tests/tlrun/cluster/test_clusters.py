"""Clusters from a word or a file: what is refused, what starts, and what job scripts and pods would say."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import jsonschema
import pytest
import yaml
from distributed import LocalCluster

from catalogs.errors import InputError
from tlrun.calls import Call, ClusterLost
from tlrun.cluster import agreement, connect, launch
from tlrun.cluster.cluster_file import Address, Gpu, Kubernetes, Local, Queue, Threads, presets, read_cluster
from tlrun.cluster.connect import check_cluster, describe, most_workers, n_workers, open_cluster, open_pools
from tlrun.cluster.preview import job_script, listing, preview
from tlrun.fan_out import Job, Steps, fan_out
from tlrun.memory import VARIABLE

pytest.importorskip("dask_jobqueue", reason="needs the extra hpc")
kubernetes = pytest.importorskip("dask_kubernetes.operator", reason="needs the extra hpc")


def written(folder: Path, content: Any) -> str:
    path = folder / "cluster.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


# ------------------------------------------------------------------------------------ words and files


@pytest.mark.parametrize(
    ("word", "pool"),
    [
        ("threads", Threads()),
        ("threads:3", Threads(workers=3)),
        ("local:2", Local(workers=2)),
        ("gpu", Gpu()),
        ("slurm", Queue(kind="slurm")),
        ("pbs", Queue(kind="pbs")),
        ("sge", Queue(kind="sge")),
        ("tcp://host:8786", Address(address="tcp://host:8786")),
        ("tls://host:8786", Address(address="tls://host:8786")),
    ],
)
def test_one_word_is_enough(word: str, pool: Any) -> None:
    pools = read_cluster(word)
    assert pools == {"simulate": pool, "rest": pool}
    assert pools["simulate"] is pools["rest"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("", "is not a cluster; give threads, local"),
        ("local:", "is not a cluster"),
        ("local:0", "is not a cluster"),
        ("slurm:4", "is not a cluster"),
        ("local:x", "is not a cluster; give local, or local:N for N workers"),
        ("tcp://", r"'tcp://' is not the address of a scheduler; give one such as tcp://HOST:8786"),
        ("tcp://host", "'tcp://host' is not the address of a scheduler"),
        ("slurmy", "did you mean 'slurm'"),
        ("address", "is not a cluster"),
        ("nowhere.yaml", "there is no cluster file nowhere.yaml"),
        ("kubernetes", r"the key image is missing \(Container image"),
    ],
)
def test_an_unknown_word_is_refused(word: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_cluster(word)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [", r"is not valid YAML in line \d"),
        ("- a", "is not a cluster file"),
        ({"workers": 2}, "the key kind is missing"),
        ({"kind": "slrum"}, "kind 'slrum' is not one of .* did you mean 'slurm'"),
        ({"kind": "slurm", "wall_time": "1h"}, "unknown key wall_time; did you mean 'walltime'"),
        ({"kind": "slurm", "workers": {"min": 1, "maxi": 2}}, "unknown key workers.maxi; did you mean 'max'"),
        ({"kind": "slurm", "workers": {"min": 3, "max": 2}}, "workers: min 3 is more than max 2"),
        ({"kind": "slurm", "walltime": 240}, "walltime: '240' is not a time; give one such as 04:00:00"),
        ({"kind": "slurm", "walltime": "1min"}, "less than 5 minutes"),
        ({"kind": "slurm", "memory": "4 elephants"}, "memory: '4 elephants' is not an amount of memory"),
        ({"kind": "slurm", "gpu": True, "workers_per_job": 2, "workers": 2}, "leave out workers_per_job"),
        ({"kind": "slurm", "workers_per_job": 9}, "one job has 9 workers, more than workers allows"),
        ({"kind": "sge", "workers_per_job": 2}, 'add it to directives, e.g. "-pe smp 2"'),
        ({"simulate": {"kind": "local"}}, "lacks the pool rest"),
        ({"simulate": {"kind": "local"}, "rst": {"kind": "local"}}, "unknown key rst; did you mean 'rest'"),
        ({"simulate": {"kind": "local", "n": 1}, "rest": {"kind": "local"}}, "simulate: unknown key n"),
        ({"simulate": "gpu", "rest": "local"}, "simulate must have keys"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: Any, says: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=says) as caught:
        read_cluster(path)
    assert str(caught.value).startswith(path)


def test_walltimes_mean_what_queueing_systems_mean(tmp_path: Path) -> None:
    """YAML would read 12:00:00 as a number."""
    for text, seconds in [("12:00:00", 43200), ("04:00:00", 14400), ("1-12:00:00", 129600), ("90 min", 5400)]:
        pool = read_cluster(written(tmp_path, f"kind: slurm\nwalltime: {text}\n"))["rest"]
        assert isinstance(pool, Queue)
        assert pool.walltime == seconds


@pytest.mark.parametrize("name", sorted(presets()))
def test_the_files_that_come_along_are_valid_with_all_their_comments(tmp_path: Path, name: str) -> None:
    """A key that a comment offers must be one that is taken."""
    text = presets()[name].read_text()
    read_cluster(str(presets()[name]))
    offered = "".join(
        line.removeprefix("#") if line.startswith(("#", "  #")) and not line.startswith("# ") else line
        for line in text.replace("  #-", "  -").splitlines(keepends=True)
    )
    if name == "pbs":  # gpu: true and workers_per_job exclude each other, as its comment says
        offered = offered.replace("workers_per_job: 4", "workers_per_job: 1")
    pools = read_cluster(written(tmp_path, offered))
    assert set(pools) == {"simulate", "rest"}


# ------------------------------------------------------------------------------------ on this machine


def thread() -> tuple[int, str]:
    return os.getpid(), threading.current_thread().name


def test_threads_stay_in_this_process() -> None:
    with open_cluster("threads:3") as client:
        assert n_workers(client) == 3
        assert {client.submit(thread, key=f"thread-{k}").result()[0] for k in range(6)} == {os.getpid()}


def test_what_crashes_in_threads_gets_one() -> None:
    with open_cluster("threads:3", one_call_per_process=True) as client:
        assert n_workers(client) == 1


def environment(name: str) -> str | None:
    return os.environ.get(name)


def test_steps_keep_to_the_memory_of_all_workers(tmp_path: Path) -> None:
    path = written(tmp_path, {"kind": "local", "workers": 2, "memory": "50MB"})

    def job(name: str, memory: int) -> Job:
        def steps() -> Steps:
            return (yield [Call(os.getpid).needs(memory=memory)])[0]

        return Job(name, steps)

    with open_cluster(path) as client:
        summary = fan_out([job("fits", 80_000_000), job("does-not", 95_000_000)], client, retries=0)
    assert list(summary.results) == ["fits"]
    assert "TooLarge: it needs 90.60 MiB of memory, and " in summary.failures[0].error
    assert " has 85.83 MiB for calls" in summary.failures[0].error


def test_scratch_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WHERE", str(tmp_path))
    path = written(tmp_path, {"kind": "local", "workers": 1, "scratch": "$WHERE/file/folder"})
    for start in (check_cluster, lambda word: open_cluster(word).__enter__()):
        with pytest.raises(
            InputError, match=r"scratch: .*/file/folder cannot be written \(Not a directory\)"
        ):
            start(path)
    check_cluster(written(tmp_path, {"kind": "local", "workers": 1, "scratch": "$WHERE/new"}))
    assert (tmp_path / "new").is_dir()


def test_two_pools_are_two_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "simulate": {"kind": "local", "workers": 1, "environment": {"POOL": "fast"}},
        "rest": {"kind": "threads", "workers": 2},
    }
    path = written(tmp_path, content)
    with pytest.raises(InputError, match="has two pools"), open_cluster(path):
        pass
    with open_pools(path) as clients:
        assert clients["simulate"].submit(environment, "POOL").result() == "fast"
        assert clients["rest"].submit(environment, "POOL").result() is None
        monkeypatch.setattr(connect, "find_spec", lambda name: None)
        assert describe(clients) == ["simulate: 1 worker", "rest: 2 workers"]  # it would say: needs bokeh
        monkeypatch.setattr(connect, "find_spec", lambda name: name)
        lines = describe(clients)
        for line in lines:
            with urlopen(line.partition("dashboard at ")[2], timeout=60) as page:
                assert page.status == 200
    assert lines[0].startswith("simulate: 1 worker, dashboard at http://127.0.0.1:")
    assert lines[1].startswith("rest: 2 workers, dashboard at http://")


def test_one_cluster_is_both_pools() -> None:
    with open_pools("threads:1") as clients:
        assert clients["simulate"] is clients["rest"]
        assert len(describe(clients)) == 1


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="shows no NVIDIA GPU"), open_cluster("gpu"):
        pass


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(InputError, match="this machine has 2 GPUs"), open_cluster("gpu:3"):
        pass


class LocalCUDACluster(LocalCluster):
    """What dask-cuda's does with the variables of its workers' environment; it starts on a GPU only."""

    def __init__(self, CUDA_VISIBLE_DEVICES: list[str], **options: Any) -> None:
        self._devices = CUDA_VISIBLE_DEVICES
        super().__init__(n_workers=0, processes=True, **options)
        self.scale(len(self._devices))
        self.sync(self._correct_state)

    def new_worker_spec(self) -> dict[str, Any]:
        name = min(set(self._devices) - set(self.worker_spec))
        k = self._devices.index(name)
        options = self.new_spec["options"] | {
            "env": {"CUDA_VISIBLE_DEVICES": ",".join(self._devices[k:] + self._devices[:k])}
        }
        return {name: self.new_spec | {"options": options}}


@pytest.mark.parametrize("dask_cuda", [None, SimpleNamespace(LocalCUDACluster=LocalCUDACluster)])
def test_each_worker_sees_one_gpu(dask_cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_cuda", dask_cuda)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    path = written(tmp_path, {"kind": "gpu", "memory": "1GB", "environment": {"BUCKET": "lab"}})
    with open_cluster(path) as client:
        client.wait_for_workers(2)
        assert sorted(client.run(environment, "CUDA_VISIBLE_DEVICES").values()) == ["2", "5"]
        for name, value in (("OMP_NUM_THREADS", "1"), ("BUCKET", "lab")):
            assert list(client.run(environment, name).values()) == [value] * 2
        [together] = set(client.run(environment, VARIABLE).values())
        assert together is not None
        assert together.endswith(" 2000000000")


def test_gpus_are_those_that_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG x'\necho 'GPU 1: A (UUID: GPU-2)'\n"
    )
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert launch.visible_gpus() == ["0", "1"]


# ------------------------------------------------------------------------------------ versions


def test_workers_that_run_the_same_are_taken(client: Any) -> None:
    agreement.check(client, ("tlgen.recipes.samples:DATA_VERSION",))


def another_numpy(package: str) -> str:
    return "1.0" if package == "numpy" else version(package)


def test_another_version_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "version", another_numpy)
    with pytest.raises(
        InputError, match=r"worker at tcp://127\.0\.0\.1:\d+ runs numpy .*, and this program 1\.0; give the"
    ):
        agreement.check(client)


def test_differences_are_named() -> None:
    ours = {"Python": "3.11", "numpy": "2.4.6", "tlgen.recipes.samples:DATA_VERSION": "2"}
    assert agreement.difference(ours, dict(ours)) == ""
    assert agreement.difference(ours, ours | {"numpy": "missing"}) == "runs no numpy, and this program 2.4.6"
    said = agreement.difference(ours, ours | {"tlgen.recipes.samples:DATA_VERSION": "1"})
    assert said == "runs DATA_VERSION 1, and this program 2"


def test_a_worker_that_comes_later_is_refused_if_it_differs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A scheduler that somebody started, and a worker whose environment is another one."""
    from distributed import Nanny

    with LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as running:
        with monkeypatch.context() as patch:
            patch.setattr(agreement, "check", lambda *_: None)
            patch.setattr(agreement, "version", another_numpy)
            with open_cluster(running.scheduler_address) as client:
                assert most_workers(client) == 1
                later = client.sync(_start, Nanny, running.scheduler_address)
                gone = _until(lambda: "was refused" in caplog.text)
                client.sync(later.close)
        assert gone


async def _start(nanny: Any, address: str) -> Any:
    return await nanny(address, nthreads=1, host="127.0.0.1", silence_logs=50)


def _until(true: Any, seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.1)
    return False


# ------------------------------------------------------------------------------------ job scripts


@pytest.fixture
def pool(tmp_path: Path) -> dict[str, Any]:
    return {
        "queue": "q",
        "account": "lab",
        "workers": 8,
        "workers_per_job": 4,
        "memory": "2 GiB",
        "walltime": "2h",
        "scratch": "/scratch/$USER",
        "environment": {"BUCKET": 'a "b" $HOME'},
        "setup": ["module load x"],
        "python": "/opt/python",
        "logs": str(tmp_path / "logs"),
    }


@pytest.mark.parametrize(
    ("kind", "more", "header"),
    [
        ("slurm", {}, ["-p q", "-A lab", "--cpus-per-task=4", "--mem=8G", "-t 02:00:00", "--nice"]),
        ("pbs", {}, ["-q q", "-A lab", "-l select=1:ncpus=4:mem=8589MB", "-l walltime=02:00:00", "--nice"]),
        ("sge", {"directives": ["-pe smp 4"]}, ["-q q", "-P lab", "-pe smp 4", "-l h_rt=02:00:00", "-cwd"]),
    ],
)
def test_job_scripts_say_what_the_file_says(
    pool: dict[str, Any], kind: str, more: dict[str, Any], header: list[str]
) -> None:
    text = job_script(Queue.model_validate({"kind": kind, "directives": ["--nice"], **pool, **more}))
    mark = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$"}[kind]
    lines = text.splitlines()
    for wanted in header:
        assert f"{mark} {wanted}" in lines
    assert 'export OMP_NUM_THREADS="1"' in lines
    assert 'export BUCKET="a \\"b\\" $HOME"' in lines
    assert "module load x" in lines
    [start] = [line for line in lines if line.startswith("/opt/python")]
    for wanted in (
        "--nthreads 1",
        "--nworkers 4",
        "--memory-limit 2.00GiB",
        "--lifetime 6540s --lifetime-stagger 300s",
        "--local-directory /scratch/$USER",
    ):
        assert wanted in start


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("slurm", "#SBATCH --gres=gpu:1"),
        ("pbs", "#PBS -l select=1:ncpus=1:ngpus=1:mem=2147MB"),
        ("sge", "#$ -l gpu=1"),
    ],
)
def test_a_gpu_is_asked_for(pool: dict[str, Any], kind: str, line: str) -> None:
    text = job_script(Queue.model_validate({"kind": kind, **pool, "gpu": True, "workers_per_job": 1}))
    assert line in text.splitlines()


@pytest.mark.parametrize("walltime", [300, 600, 3600, 14400, 7 * 86400])
def test_workers_end_before_their_job(walltime: int) -> None:
    seconds, stagger = launch.lifetime(walltime)
    assert seconds - stagger > walltime / 2
    assert seconds + stagger <= walltime - 60


def test_without_a_queueing_system_it_says_so(
    tmp_path: Path, pool: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = written(tmp_path, {"kind": "pbs", **pool})
    complaints: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", complaints.append)
    with pytest.raises(InputError, match="there is no qsub on this machine"), open_cluster(path):
        pass
    gc.collect()
    assert [each.exc_value for each in complaints] == []


def test_ctrl_c_stays_what_it_was_when_jobs_are_submitted() -> None:
    script = (
        "import signal; from tlrun.cluster import launch; from tlrun.cluster.cluster_file import Queue; "
        "launch.jobqueue(Queue(kind='slurm')); "
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("word", "package"), [("slurm", "dask_jobqueue"), ("kubernetes.yaml", "dask_kubernetes")]
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, word: str, package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    word = str(presets()["kubernetes"]) if word.endswith(".yaml") else word
    with (
        pytest.raises(InputError, match=rf"needs {package.replace('_', '-')}.*template-learning\[hpc\]"),
        open_cluster(word),
    ):
        pass


def test_a_preview_submits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    text = preview(str(presets()["slurm-gpu"]))
    assert "# ---- simulate\n# 1 to 8 workers, 1 in each job like this:" in text
    assert "#SBATCH --gres=gpu:1" in text
    assert "kind: DaskCluster" in preview(str(presets()["kubernetes"]))
    assert preview("threads:3") == "# 3 threads of this process"
    assert list(tmp_path.iterdir()) == []
    listed = listing()  # whole sentences, wherever the lines of a comment end
    assert "slurm        Workers in Slurm jobs" in listed
    assert any(line.startswith("slurm-gpu    Two Slurm clusters for one run: ") for line in listed)


# ------------------------------------------------------------------------------------ Kubernetes


def schema_of_the_operator() -> dict[str, Any]:
    folder = Path(kubernetes.__file__).parent / "deployment/helm/dask-kubernetes-operator/crds"
    definition = yaml.safe_load((folder / "daskcluster.yaml").read_text())
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def test_pods_are_what_the_operator_takes() -> None:
    pool = Kubernetes.model_validate(
        {
            "image": "lab/tl:1",
            "name": "tl",
            "workers": {"min": 2, "max": 9},
            "memory": "6GB",
            "gpu": True,
            "secrets": ["bucket"],
            "service_account": "tl",
            "node_selector": {"pool": "spot"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "environment": {"A": "b"},
            "scratch": "/scratch",
        }
    )
    spec = launch.kubernetes_spec(pool)
    jsonschema.validate(spec, schema_of_the_operator())
    pod = spec["spec"]["worker"]["spec"]
    [worker] = pod["containers"]
    assert spec["spec"]["worker"]["replicas"] == 2
    assert worker["image"] == "lab/tl:1"
    assert worker["args"][:4] == ["dask", "worker", "--nthreads", "1"]
    assert worker["resources"]["limits"] == {"memory": "6000M", "nvidia.com/gpu": "1"}
    assert worker["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert {"name": "A", "value": "b"} in worker["env"]
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in worker["env"]
    assert (pod["nodeSelector"], pod["serviceAccountName"]) == ({"pool": "spot"}, "tl")
    [scheduler] = spec["spec"]["scheduler"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in scheduler["resources"]["limits"]
    assert all(isinstance(each["value"], str) for each in (*worker["env"], *scheduler["env"]))


def test_a_scheduler_that_has_gone_is_said_where_workers_are_counted() -> None:
    gone = SimpleNamespace(scheduler_info=lambda n_workers: {})
    with pytest.raises(ClusterLost, match="the Dask scheduler is gone"):
        n_workers(gone)
