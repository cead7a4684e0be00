"""Reads NumPy's ``.npz`` archives of others: nothing that unpacks to more than its bytes."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError


def read_npz(data: bytes, where: object) -> dict[str, NDArray[Any]]:
    """Read the arrays of an archive as :func:`numpy.savez` writes it, without compression.

    Parameters
    ----------
    data
        The archive.
    where
        Name for messages.

    Raises
    ------
    InputError
        If it is damaged, compressed, or states more values than it has.
    """
    damaged = f"{where} is damaged, or was made to fill the memory; get it again"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for entry in packed.infolist():
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data):
                    raise InputError(damaged)
                with packed.open(entry) as raw:
                    _check_shape(raw, entry.file_size)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except InputError:
        raise
    except (zipfile.BadZipFile, ValueError, OSError, KeyError, EOFError, NotImplementedError) as error:
        raise InputError(damaged) from error


def _check_shape(raw: Any, size: int) -> None:
    """Refuse an array with more values than the file has bytes (ValueError)."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read[np.lib.format.read_magic(raw)](raw)
    if math.prod(shape) * dtype.itemsize > size or dtype.hasobject:
        raise ValueError(f"it states an array of the shape {shape}")
