"""The molecules of a corpus as engines look them up, and the corpus itself, each opened once a process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from catalogs.corpus.catalog import Catalog
from tlgen.molecules import array_cache
from tlgen.molecules.molecule import Molecule, from_arrays

# Whose source code decides what a molecule with a digest is.
_DECIDED_BY = ("tlgen.molecules.molecule",)


class CorpusLibrary(Mapping[str, Molecule]):
    """The molecules stored in a corpus, by digest.

    Each is read from the corpus once a host, and mapped into memory by its processes
    (:mod:`tlgen.molecules.array_cache`).
    """

    def __init__(self, url: str) -> None:
        self._catalog = open_catalog(url)

    def __getitem__(self, digest: str) -> Molecule:
        return _molecule(self._catalog.url, digest)

    def __iter__(self) -> Iterator[str]:
        raise TypeError("the molecules of a corpus are looked up by digest, not listed")

    def __len__(self) -> int:
        raise TypeError("the molecules of a corpus are looked up by digest, not counted")


@lru_cache(maxsize=4)
def open_catalog(url: str) -> Catalog:
    """Open a corpus, which this process keeps open."""
    return Catalog.open(url)


@lru_cache(maxsize=1024)
def _molecule(url: str, digest: str) -> Molecule:
    arrays = array_cache.find("molecules", [digest], _DECIDED_BY)
    if arrays is None:
        arrays = open_catalog(url).get_molecule(digest)
        if "rmsd" in arrays:  # corpora of earlier versions hold less than the digest's molecule has now
            arrays = array_cache.store("molecules", [digest], _DECIDED_BY, arrays)
    molecule = from_arrays(arrays)
    molecule.__dict__["digest"] = digest  # known already
    return molecule


__all__ = ["CorpusLibrary", "open_catalog"]
