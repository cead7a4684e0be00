"""Choose the device to compute on; if the requested one is not available, an error says so."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from catalogs.amounts import data_size
from catalogs.errors import InputError

# JAX's messages when memory runs out: from its allocator, from CUDA, and from the FFT for its work space.
_RAN_OUT = ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "out of memory", "cuFFT batched plan")


def ran_out(error: Exception) -> bool:
    """Tell whether an error from JAX means that a GPU's memory ran out."""
    return any(words in str(error) for words in _RAN_OUT)


def choose(device: str, number: int, needed: int, free: int | None = None) -> bool:
    """Decide whether a call runs on a GPU.

    Dask's GPU clusters give each worker its own GPU: it is the first one in ``CUDA_VISIBLE_DEVICES``, and
    therefore the first that CUDA sees.

    Parameters
    ----------
    device
        ``cpu``, ``gpu`` or ``auto``, which uses a GPU if there is one with enough memory.
    number
        Number of GPUs that CUDA sees.
    needed
        Bytes that the call needs on the device.
    free
        Bytes available on the device; by default the free memory that CUDA reports.

    Raises
    ------
    InputError
        If ``gpu`` is requested and there is none, or it has too little free memory.
    """
    if device == "cpu" or (device == "auto" and not number):
        return False
    if not number:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise InputError(f"device: gpu was requested, but CUDA finds no GPU here{why}; use cpu or auto")
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
    """Find the GPU that JAX computes on; None for the CPU.

    Parameters
    ----------
    device
        As in :func:`choose`.

    Raises
    ------
    InputError
        If ``gpu`` is requested and there is none, or the installed JAX cannot use it.
    """
    if not choose(device, 0 if device == "cpu" else count(), 0):
        return None
    # by default JAX reserves three quarters of the GPU's memory, even if other processes use the GPU
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
    """Ask CUDA for the free bytes on the current GPU; None if its runtime does not report them."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    for runtime in _runtimes():
        if runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0:
            return free.value
    return None


def free_memory_of(device: Any) -> int | None:
    """Bytes available to JAX on a device: free memory, and memory that JAX has reserved but not used.

    None if neither CUDA nor JAX reports them.
    """
    stats = device.memory_stats() or {}
    used, pool, limit = (stats.get(key, -1) for key in ("bytes_in_use", "pool_bytes", "bytes_limit"))
    free = free_memory()
    found = [limit - used] if limit >= 0 else []
    # if JAX does not report its reserved memory, CUDA's figure would count it as used by others
    if free is not None and (pool >= 0 or not stats):
        found.append(free + max(0, pool - used))
    return min(found, default=None)


def _runtimes() -> Iterator[ctypes.CDLL]:
    """Load the CUDA runtime libraries of the installed wheels, one after the other."""
    spec = find_spec("nvidia")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    for path in [path for folder in folders for path in sorted(folder.glob("*/lib/libcudart.so.*"))]:
        try:
            yield ctypes.CDLL(str(path))
        except OSError:
            continue
