"""``tlgen structures``: list structures that are installed, and describe others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tlgen.molecules import structures

_ROW = "{:<12} {:>9} {:>10}  {}"


def shipped_lines() -> Iterator[str]:
    """List the structures that come with installed packages, with a description; reads none."""
    yield _ROW.format("name", "mass", "diameter", "is")
    there = structures.shipped()
    for name, facts in structures.FACTS.items():
        if name in there:
            yield _ROW.format(name, f"{facts.mass:,} kDa", f"{facts.diameter} Å", facts.what)


def described_lines(names: Sequence[str]) -> Iterator[str]:
    """Read structures and describe them.

    Raises
    ------
    InputError
        One cannot be read.
    """
    yield _ROW.format("name", "mass", "diameter", "file")
    for name in names:
        path = structures.locate(name)
        molecule = structures.load_structure(path)
        mass = f"{molecule.mass / 1e3:,.3g} kDa" if molecule.mass < 1e6 else f"{molecule.mass / 1e3:,.0f} kDa"
        yield _ROW.format(molecule.name, mass, f"{2 * molecule.radius:.0f} Å", path)
