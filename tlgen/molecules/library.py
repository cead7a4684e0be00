"""The molecules of a corpus, looked up by digest, and the corpus itself; both are opened once per process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from catalogs.corpus.catalog import Catalog
from tlgen.molecules import array_cache
from tlgen.molecules.molecule import Molecule, from_arrays

# Modules whose source code determines the molecule that belongs to a digest.
_DECIDED_BY = ("tlgen.molecules.molecule",)


class CorpusLibrary(Mapping[str, Molecule]):
    """The molecules stored in a corpus, by digest.

    Each molecule is read from the corpus once per host. All processes of the host map it into memory from
    there (:mod:`tlgen.molecules.array_cache`).
    """

    def __init__(self, url: str) -> None:
        self._catalog = open_catalog(url)

    def __getitem__(self, digest: str) -> Molecule:
        return _molecule(self._catalog.url, digest)

    def __iter__(self) -> Iterator[str]:
        raise TypeError("molecules of a corpus can be looked up by digest, but not listed")

    def __len__(self) -> int:
        raise TypeError("molecules of a corpus can be looked up by digest, but not counted")


@lru_cache(maxsize=4)
def open_catalog(url: str) -> Catalog:
    """Open a corpus, and keep it open in this process."""
    return Catalog.open(url)


@lru_cache(maxsize=1024)
def _molecule(url: str, digest: str) -> Molecule:
    arrays = array_cache.find("molecules", [digest], _DECIDED_BY)
    if arrays is None:
        arrays = open_catalog(url).get_molecule(digest)
        if "rmsd" in arrays:  # corpora of earlier versions lack some arrays of the molecule
            arrays = array_cache.store("molecules", [digest], _DECIDED_BY, arrays)
    molecule = from_arrays(arrays)
    molecule.__dict__["digest"] = digest  # already known, so it need not be computed
    return molecule


__all__ = ["CorpusLibrary", "open_catalog"]
