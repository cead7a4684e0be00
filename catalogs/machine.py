"""Describes the machine: processor, instruction set, cores, and what oneDNN may use.

oneDNN has fast convolutions for every processor. By default, TensorFlow uses them only on processors with
AVX-512 VNNI, bf16 or AMX; on others, its own convolutions take tens of times as long. So the packages that
compute with TensorFlow call :func:`prefer_onednn` when they are imported, before TensorFlow is.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from catalogs.errors import InputError

#: Backends of Keras, the best first, named as in its variable KERAS_BACKEND.
BACKENDS = ("tensorflow", "jax", "torch")
# Other distributions that contain the same package.
_DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow-cpu")}
_SWITCH, _LIMIT = "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA"
_ALLOCATOR = "TF_ONEDNN_USE_SYSTEM_ALLOCATOR"
# Instruction sets that matter for speed, best first: name, and flags of /proc/cpuinfo, any of which shows it.
_SETS = (
    ("AMX", ("amx_tile", "amx_bf16")),
    ("AVX-512 with bf16", ("avx512f", "avx512_bf16")),
    ("AVX-512 with VNNI", ("avx512f", "avx512_vnni")),
    ("AVX-512", ("avx512f", "avx512bw", "avx512dq", "avx512vl")),
    ("AVX2", ("avx2", "fma")),
    ("AVX", ("avx",)),
    ("SSE4.2", ("sse4_2",)),
    ("SVE", ("sve",)),
    ("NEON", ("asimd",)),
)


@dataclass(frozen=True)
class Machine:
    """The properties of a machine on which timings depend.

    Attributes
    ----------
    processor
        Name of the processor, with family and model where several generations share the name.
    instruction_set
        The best instruction set that the processor has.
    cores
        Number of cores that this process may use.
    onednn
        The environment variables of oneDNN, or its defaults.
    """

    processor: str
    instruction_set: str
    cores: int
    onednn: str

    def __str__(self) -> str:
        """Describe the machine in one line, to print above a table."""
        return f"{self.processor}, {self.instruction_set}, {self.cores} cores; oneDNN: {self.onednn}"

    def figures(self) -> dict[str, object]:
        """Return the properties for the JSON line of a benchmark."""
        return {
            "processor": self.processor,
            "instruction_set": self.instruction_set,
            "cores": self.cores,
            "onednn": self.onednn,
        }


def machine() -> Machine:
    """Describe the machine of this process and the current settings of oneDNN."""
    facts = _cpuinfo()
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts.get('model', '?')})"
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    best = next((word for word, needed in _SETS if flags.issuperset(needed)), platform.machine())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(name, best, cores, _onednn())


def prefer_onednn(*, keep_memory: bool) -> None:
    """Let TensorFlow use oneDNN on every processor, unless the user has set this.

    TensorFlow reads the environment once, when it is imported. Child processes inherit it.

    Parameters
    ----------
    keep_memory
        Whether oneDNN keeps the memory that it has used once, as suits training, or returns it.
    """
    os.environ.setdefault(_SWITCH, "1")
    os.environ.setdefault(_ALLOCATOR, "0" if keep_memory else "1")


def prefer_installed_backend() -> None:
    """Let Keras use JAX or PyTorch if TensorFlow is not installed and the user has not chosen a backend."""
    if "KERAS_BACKEND" not in os.environ and (backend := next(iter(backends()), BACKENDS[0])) != BACKENDS[0]:
        os.environ["KERAS_BACKEND"] = backend


def require_backend() -> None:
    """Refuse to train or pick if no backend of Keras is installed.

    Raises
    ------
    InputError
        If neither TensorFlow nor JAX nor PyTorch is installed; the message says how to install one.
    """
    if not backends():
        raise InputError(
            "neither TensorFlow nor JAX nor PyTorch is installed, and Keras needs one of them: "
            "pip install 'template-learning[cpu]', or pip install jax"
        )


def backends() -> dict[str, str]:
    """Find the installed backends of Keras, the best first: name -> version; nothing is imported."""
    return {name: _version(name) for name in BACKENDS if find_spec(name) is not None}


def chosen_backend() -> str | None:
    """Name the backend of Keras: KERAS_BACKEND, else the best that is installed, if any."""
    return os.environ.get("KERAS_BACKEND") or next(iter(backends()), None)


def has_screen() -> bool:
    """Tell whether a window can be opened; else Python may start a browser of text in this terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def has_tensorflow_wheels() -> bool:
    """Tell whether TensorFlow can be installed here without a compiler: everywhere but on Intel Macs."""
    return not (sys.platform == "darwin" and platform.machine() == "x86_64")


def _version(backend: str) -> str:
    for name in _DISTRIBUTIONS.get(backend, (backend,)):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"


def best_for_onednn() -> str:
    """Name the best instruction set that oneDNN may use: the processor's, or a limit of the user."""
    most = os.environ.get(_LIMIT, "ALL")
    return machine().instruction_set if most.upper() in ("", "ALL", "DEFAULT") else f"at most {most}"


def _cpuinfo() -> dict[str, str]:
    """Read what Linux reports about the first core; empty on other systems."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", maxsplit=1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _onednn() -> str:
    # by default, TensorFlow uses oneDNN only on processors with AVX-512 VNNI, bf16 or AMX
    switch = os.environ.get(_SWITCH, "left to TensorFlow")
    return f"{_SWITCH} {switch}, {_LIMIT} {os.environ.get(_LIMIT, 'all')}"


if __name__ == "__main__":
    print(machine())
