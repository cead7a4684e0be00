"""The molecules of a corpus as engines look them up, and the corpus itself, each opened once a process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from catalogs.corpus.catalog import Catalog
from tlgen.molecules.molecule import Molecule, from_arrays


class CorpusLibrary(Mapping[str, Molecule]):
    """The molecules stored in a corpus, by digest; each is read once a process."""

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


@lru_cache(maxsize=256)
def _molecule(url: str, digest: str) -> Molecule:
    return from_arrays(open_catalog(url).get_molecule(digest))


__all__ = ["CorpusLibrary", "open_catalog"]
