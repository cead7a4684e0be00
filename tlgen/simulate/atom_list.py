"""Pass hundreds of thousands of atoms to MULTEM by writing directly into the memory of its atom list.

python-multem takes atoms as tuples of Python numbers. This needs a third of a microsecond per atom, up to a
tenth of the time of the simulation itself. Its ``AtomList``, however, is a C++ vector of plain structures,
and copying from one list to another is fast. The memory of one short list is therefore accessed as an array
and filled with one portion of the atoms after the other, and each portion is appended to the list for MULTEM.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Elements (n,), positions (n, 3) x, y, z in Å, and occupancies (n,) of some atoms.
Body = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]

# MULTEM's structure of an atom. Sigma is the thermal displacement; it is 0 for atoms at rest.
_ATOM = np.dtype(
    [
        ("element", np.int32), ("x", np.float64), ("y", np.float64), ("z", np.float64),
        ("sigma", np.float64), ("occupancy", np.float64), ("region", np.int32), ("charge", np.int32),
    ],
    align=True,
)  # fmt: skip
_AT_A_TIME = 8192  # half a megabyte, which fits into the processor's cache
_TRIAL = [(6, 1.5, 2.5, 3.5, 0.25, 0.75, 2, -1), (92, -4.5, 5.5, 1e6, 0.0, 1.0, 0, 1)]


def atom_list(bodies: Iterable[Body]) -> Any:
    """Put atoms at rest into a MULTEM atom list.

    Raises
    ------
    RuntimeError
        If python-multem is not the build that this package supports.
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
    """Atom list of ``number`` atoms at the origin, made by doubling; ``number`` must be a power of two."""
    import multem

    atoms = multem.AtomList([(1, 0.0, 0.0, 0.0, 0.0, 1.0, 0, 0)])
    while len(atoms) < number:
        atoms.extend(multem.AtomList(atoms))
    return atoms


def _memory(atoms: Any) -> NDArray[Any]:
    """View the atoms of a list as an array; valid only while the list exists and keeps its length."""
    # a pybind11 object has Python's header, then the address of the vector, which starts with the addresses
    # of its first element and of its end
    vector = ctypes.c_void_p.from_address(id(atoms) + object.__basicsize__).value
    first, end = (ctypes.c_size_t * 2).from_address(vector or 0)
    return np.frombuffer(memoryview((ctypes.c_char * (end - first)).from_address(first)), _ATOM)


@cache
def _check_layout() -> None:
    """Check once that atoms given as tuples are stored in memory as expected."""
    import multem

    atoms = multem.AtomList(_TRIAL)
    # before any address is used: Python's header, vector, two words of its holder, weak references, flags
    known = type(atoms).__basicsize__ == object.__basicsize__ + 5 * ctypes.sizeof(ctypes.c_void_p)
    if not known or _memory(atoms).tolist() != _TRIAL:
        raise RuntimeError(
            "this python-multem stores its atoms in another way than version 0.4.1; run `make setup`"
        )


__all__ = ["Body", "atom_list"]
