"""Which device computes: what was asked for, or a refusal; never silently another one."""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

from catalogs.errors import InputError


def choose(device: str, number: int, needed: int) -> bool:
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
    free = free_memory()
    if free is not None and free < needed:
        if device == "auto":
            return False
        raise InputError(
            f"device: the GPU has {free / 1e9:.1f} GB free and a tilt of this scene takes"
            f" {needed / 1e9:.1f} GB; make the box smaller, give each worker its own GPU, or use device: cpu"
        )
    return True


def free_memory() -> int | None:
    """Ask CUDA for the free bytes of the current GPU; None if its runtime cannot tell."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    for path in _runtimes():
        try:
            runtime = ctypes.CDLL(str(path))
        except OSError:
            continue
        if runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0:
            return free.value
    return None


def _runtimes() -> list[Path]:
    """List CUDA's runtime libraries in the installed wheels."""
    spec = find_spec("nvidia")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    return [path for folder in folders for path in sorted(folder.glob("*/lib/libcudart.so.*"))]
