"""Atoms handed to MULTEM by the hundred thousand: its list of atoms, filled through memory.

python-multem takes atoms as tuples of Python numbers, at a third of a microsecond each, which is up to a
tenth of what MULTEM then does with them. But its ``AtomList`` is a C++ vector of plain structures, and copies
between two of them are quick: here one short list's memory is seen as an array, filled portion by portion,
and each portion appended to the list that MULTEM gets.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Elements, (n, 3) x, y, z in Å, and occupancies of some atoms.
Body = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]

# MULTEM's structure of an atom. Sigma is its thermal displacement, left out of atoms that stand still.
_ATOM = np.dtype(
    [
        ("element", np.int32), ("x", np.float64), ("y", np.float64), ("z", np.float64),
        ("sigma", np.float64), ("occupancy", np.float64), ("region", np.int32), ("charge", np.int32),
    ],
    align=True,
)  # fmt: skip
_AT_A_TIME = 8192  # half a megabyte, which stays in the cache
_TRIAL = [(6, 1.5, 2.5, 3.5, 0.25, 0.75, 2, -1), (92, -4.5, 5.5, 1e6, 0.0, 1.0, 0, 1)]


def atom_list(bodies: Iterable[Body]) -> Any:
    """Put atoms into MULTEM's list, all of them standing still.

    Raises
    ------
    RuntimeError
        If python-multem is not the build that this package was made for.
    """
    import multem

    _check_layout()
    atoms = multem.AtomList()
    portion = _blank(_AT_A_TIME)
    memory = _memory(portion)
    for elements, xyz, occupancy in bodies:
        for k in range(0, len(xyz), _AT_A_TIME):
            part = slice(k, k + _AT_A_TIME)
            number = len(xyz[part])
            memory["element"][:number] = elements[part]
            for axis, name in enumerate("xyz"):
                memory[name][:number] = xyz[part, axis]
            memory["occupancy"][:number] = occupancy[part]
            atoms.extend(portion if number == _AT_A_TIME else portion[:number])
    return atoms


def _blank(number: int) -> Any:
    """List of so many (a power of two) atoms at zero, grown by doubling."""
    import multem

    atoms = multem.AtomList([(1, 0.0, 0.0, 0.0, 0.0, 1.0, 0, 0)])
    while len(atoms) < number:
        atoms.extend(multem.AtomList(atoms))
    return atoms


def _memory(atoms: Any) -> NDArray[Any]:
    """See the atoms of a list as an array; only while the list lives and stays as long as it is."""
    # pybind11's object: Python's head, then the address of the vector, which begins with those of its
    # first element and of the end
    vector = ctypes.c_void_p.from_address(id(atoms) + object.__basicsize__).value
    first, end = (ctypes.c_size_t * 2).from_address(vector or 0)
    return np.frombuffer(memoryview((ctypes.c_char * (end - first)).from_address(first)), _ATOM)


@cache
def _check_layout() -> None:
    """Look once whether atoms given as tuples stand in memory where they are expected."""
    import multem

    atoms = multem.AtomList(_TRIAL)
    # before anything is followed: Python's head, the vector, its holder's two, weak references, flags
    known = type(atoms).__basicsize__ == object.__basicsize__ + 5 * ctypes.sizeof(ctypes.c_void_p)
    if not known or _memory(atoms).tolist() != _TRIAL:
        raise RuntimeError("python-multem keeps its atoms otherwise than version 0.4.1; run `make setup`")


__all__ = ["Body", "atom_list"]
