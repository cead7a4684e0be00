"""Structure files, read once per host: atoms, chains, and notes for the user about the file.

Reading a structure file takes up to several seconds and gives the same result for every command. The result
is kept in the cache of :mod:`tlgen.molecules.array_cache`, keyed by the file's content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs import user_warnings
from tlgen.molecules import array_cache, structures
from tlgen.molecules.molecule import Molecule, from_arrays, to_arrays
from tlgen.molecules.structures import Polymer

#: Modules whose source code determines what is read from a file.
READERS = tuple(
    f"tlgen.molecules.{name}"
    for name in ("structures", "structure_file", "elements", "residues", "copies", "bcif", "molecule")
)


def structure(path_or_name: str | Path, assembly: str = "first") -> tuple[Molecule, list[Polymer]]:
    """Read a structure and its chains; arguments and errors as in :func:`.structures.load_structure`."""
    path = structures.locate(path_or_name)

    def read() -> dict[str, NDArray[Any]]:
        with user_warnings.heard() as told:
            molecule, chains = structures.load_with_polymers(path, assembly=assembly)
        return {**to_arrays(molecule), **_as_arrays(chains), "notes": _text(told)}

    content = [structures.checksum(path), str(path.resolve()), structures.name_of(path), assembly]
    found = array_cache.cached("structures", content, (__name__, *READERS), read)
    for text in _lines(found["notes"]):
        user_warnings.warn(text)
    return from_arrays(found), _as_polymers(found)


def _as_arrays(chains: Sequence[Polymer]) -> dict[str, NDArray[Any]]:
    return {
        "chain_kinds": _text([p.kind for p in chains]),
        "chain_sequences": _text([p.sequence for p in chains]),
        "chain_copies": np.array([p.copies for p in chains], np.int64),
    }


def _as_polymers(arrays: Mapping[str, NDArray[Any]]) -> list[Polymer]:
    kinds, sequences = (_lines(arrays[name]) for name in ("chain_kinds", "chain_sequences"))
    copies = arrays["chain_copies"].tolist()
    return [Polymer(*each) for each in zip(kinds, sequences, copies, strict=True)]  # type: ignore[arg-type]


def _text(lines: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(f"{line}\n" for line in lines).encode(), np.uint8)


def _lines(text: NDArray[Any]) -> list[str]:
    return text.tobytes().decode().splitlines()
