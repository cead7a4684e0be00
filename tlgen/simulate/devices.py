"""Which device computes: what was asked for, or a refusal; never silently another one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from catalogs.amounts import data_size
from catalogs.errors import InputError

# What JAX says where memory runs out: its own allocator, CUDA, and the FFT for its working space.
_RAN_OUT = ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "out of memory", "cuFFT batched plan")


def ran_out(error: Exception) -> bool:
    """Tell whether an error of JAX says that a GPU's memory ran out."""
    return any(words in str(error) for words in _RAN_OUT)


def choose(device: str, number: int, needed: int, free: int | None = None) -> bool:
    """Decide whether a call runs on a GPU.

    Dask's GPU clusters give each worker its own GPU by ``CUDA_VISIBLE_DEVICES``, in which that one stands
    first; so the first that CUDA sees is the worker's.

    Parameters
    ----------
    device
        ``cpu``, ``gpu`` or ``auto``: on a GPU where there is one with enough memory.
    number
        Of GPUs that CUDA sees.
    needed
        Bytes that the call takes on the device.
    free
        Bytes that it may take there; what CUDA says is free unless given.

    Raises
    ------
    InputError
        If ``gpu`` is asked for and there is none, or it has too little free memory.
    """
    if device == "cpu" or (device == "auto" and not number):
        return False
    if not number:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise InputError(f"device: gpu is asked for and CUDA finds none here{why}; use cpu or auto")
    free = free_memory() if free is None else free
    if free is not None and free < needed:
        if device == "auto":
            return False
        raise InputError(
            f"device: the GPU has {data_size(free)} free and a tilt of this scene takes"
            f" {data_size(needed)}; make the box smaller, give each worker its own GPU, or use device: cpu"
        )
    return True


def of_jax(device: str) -> Any | None:
    """Find the GPU that JAX computes on; None if it is to be the CPU.

    Parameters
    ----------
    device
        As :func:`choose` takes it.

    Raises
    ------
    InputError
        If ``gpu`` is asked for and there is none, or no JAX that can use it.
    """
    if not choose(device, 0 if device == "cpu" else count(), 0):
        return None
    # JAX would take three quarters of the GPU at once, whoever else computes on it
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        import jax

        return jax.devices("cuda")[0]
    except (ImportError, RuntimeError) as error:
        if device == "auto":
            return None
        why = str(error).splitlines()[0]
        raise InputError(
            f"device: gpu needs JAX for CUDA ({why}); pip install 'template-learning[gpu]', or use"
            " cpu or auto"
        ) from error


def count() -> int:
    """Count the GPUs that CUDA sees."""
    number = ctypes.c_int()
    for runtime in _runtimes():
        if runtime.cudaGetDeviceCount(ctypes.byref(number)) == 0:
            return number.value
    return 0


def free_memory() -> int | None:
    """Ask CUDA for the free bytes of the current GPU; None if its runtime cannot tell."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    for runtime in _runtimes():
        if runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0:
            return free.value
    return None


def free_memory_of(device: Any) -> int | None:
    """Count the bytes that JAX may still take on a device: what is free, and what it holds and has not used.

    None if neither CUDA nor JAX can tell.
    """
    stats = device.memory_stats() or {}
    used, pool, limit = (stats.get(key, -1) for key in ("bytes_in_use", "pool_bytes", "bytes_limit"))
    free = free_memory()
    found = [limit - used] if limit >= 0 else []
    # without word of what it holds, CUDA would count that as taken by others
    if free is not None and (pool >= 0 or not stats):
        found.append(free + max(0, pool - used))
    return min(found, default=None)


def _runtimes() -> Iterator[ctypes.CDLL]:
    """Load CUDA's runtime libraries, one after the other, from the installed wheels."""
    spec = find_spec("nvidia")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    for path in [path for folder in folders for path in sorted(folder.glob("*/lib/libcudart.so.*"))]:
        try:
            yield ctypes.CDLL(str(path))
        except OSError:
            continue
