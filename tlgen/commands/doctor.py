"""``tlgen doctor``: show what is installed and what works, and how to fix what does not."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from catalogs.amounts import data_size
from catalogs.machine import backends, chosen_backend, has_tensorflow_wheels, machine, prefer_onednn

#: Bytes of free disk and of shared memory below which a line is a warning.
LITTLE_DISK, LITTLE_SHARED = 10 << 30, 1 << 30
_INSTALL = "pip install 'template-learning[{}]'"


class Line(NamedTuple):
    """The result of one check.

    Attributes
    ----------
    what
        Its name.
    state
        What was found.
    mend
        The command or the step that fixes it; empty if nothing is wrong.
    needed
        Whether every user needs it; otherwise it is optional.
    """

    what: str
    state: str
    mend: str = ""
    needed: bool = False


def examine() -> list[Line]:
    """Check the machine and the environment; starts nothing and leaves no files.

    Returns
    -------
    list of Line
        The results, in the order in which they are shown.
    """
    return [*_program(), *_backends(), *_engines(), *_stores(), *_clusters(), *_room()]


def _program() -> Iterator[Line]:
    prefer_onednn(keep_memory=True)
    yield Line("template-learning", version("template-learning"))
    yield Line("Python", f"{sys.version.split()[0]} ({sys.executable})")
    yield Line("processor", str(machine()))
    names = ("dask", "distributed", "zarr", "numpy", "numba", "keras")
    yield Line("libraries", ", ".join(f"{name} {version(name)}" for name in names))


def _backends() -> Iterator[Line]:
    found, chosen = backends(), chosen_backend()
    if not found:
        yield Line("Keras backend", "none: training and picking do not work", _INSTALL.format("cpu"), True)
        return
    if chosen not in found:
        yield Line(
            "Keras backend", f"KERAS_BACKEND is {chosen}, which is not installed", "unset KERAS_BACKEND", True
        )
    else:
        others = ", ".join(f"{name} {found[name]}" for name in found if name != chosen)
        also = f" (also installed: {others})" if others else ""
        yield Line("Keras backend", f"{chosen} {found[chosen]}{also}")
        if chosen == "jax" and not shutil.which("nvidia-smi") and has_tensorflow_wheels():
            state = "JAX takes many times as long as TensorFlow to train on a CPU"
            yield Line("training", state, _INSTALL.format("cpu"))
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        state = "switched off by TF_ENABLE_ONEDNN_OPTS=0: training is tens of times slower on many processors"
        yield Line("oneDNN", state, "unset TF_ENABLE_ONEDNN_OPTS")
    else:
        yield Line("oneDNN", "on")
    if shutil.which("nvidia-smi"):
        yield Line("GPU", "nvidia-smi is there; `tlpick run` and `tltrain fit` say which device they use")
    else:
        yield Line("GPU", "none found: everything runs on the CPU")


def _engines() -> Iterator[Line]:
    yield Line("engine multislice", "works")
    if find_spec("multem") is None:
        yield Line("engine parakeet", "not installed", _INSTALL.format("parakeet"))
    else:
        yield Line("engine parakeet", f"python-multem {version('python-multem')}")
    if find_spec("prody") is None:
        yield Line("flexible variants", "ProDy is not installed", _INSTALL.format("variants"))
    else:
        yield Line("flexible variants", f"ProDy {version('prody')}")


def _stores() -> Iterator[Line]:
    for scheme, package, extra in (("s3://", "s3fs", "s3"), ("gs://", "gcsfs", "gcs")):
        try:
            yield Line(scheme, f"{package} {version(package)}")
        except PackageNotFoundError:
            yield Line(scheme, f"{package} is not installed", _INSTALL.format(extra))
    if find_spec("s3fs") is not None:
        given = bool(os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_PROFILE"))
        given = given or Path("~/.aws/credentials").expanduser().is_file()
        yield Line("S3 credentials", "found" if given else "none in the environment or in ~/.aws")
    if find_spec("tensorstore") is None:
        yield Line("fast reading of buckets", "TensorStore is not installed", _INSTALL.format("fast"))
    else:
        yield Line("fast reading of buckets", f"TensorStore {version('tensorstore')}")


def _clusters() -> Iterator[Line]:
    queues = [name for name, command in (("Slurm", "sbatch"), ("PBS", "qsub")) if shutil.which(command)]
    if queues and find_spec("dask_jobqueue") is None:
        yield Line(
            "queues", f"{', '.join(queues)}, but dask-jobqueue is not installed", _INSTALL.format("hpc")
        )
    else:
        yield Line("queues", ", ".join(queues) or "none on this machine; --cluster local uses its cores")


def _room() -> Iterator[Line]:
    for name, folder in (("disk here", Path.cwd()), ("temporary folder", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        state = f"{data_size(free)} free in {folder}"
        mend = "set TMPDIR to a larger disk" if "temporary" in name else "use another folder"
        yield Line(name, state, mend if free < LITTLE_DISK else "")
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        small = "give the container more, e.g. --shm-size 4g" if free < LITTLE_SHARED else ""
        yield Line("shared memory", data_size(free), small)
