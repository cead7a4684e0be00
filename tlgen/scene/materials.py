"""What decorations are made of: density and composition, from which scattering follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

#: g/cm³ in one dalton per cubic angstrom (CODATA 2018).
GRAMS_PER_CM3 = 1.66053907


@dataclass(frozen=True)
class Material:
    """A homogeneous substance.

    Attributes
    ----------
    name
        For people.
    density
        g/cm³, of the atoms that are counted in ``formula``.
    formula
        (atomic number, share) pairs; shares are numbers of atoms up to a factor.
    lattice
        Edge in Å of the cube of a face-centred cubic crystal; 0 for an amorphous substance.
    """

    name: str
    density: float
    formula: tuple[tuple[int, float], ...]
    lattice: float = 0.0

    @cached_property
    def elements(self) -> NDArray[np.uint8]:
        """Atomic numbers of the formula."""
        return np.array([z for z, _ in self.formula], np.uint8)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Share of each element among the atoms; they add up to 1."""
        parts = np.array([part for _, part in self.formula], np.float64)
        return np.asarray(parts / parts.sum())

    @property
    def atoms(self) -> float:
        """Atoms of all elements together in 1 Å³."""
        return self.density / GRAMS_PER_CM3 / float(self.shares @ [_weight(z) for z, _ in self.formula])


def _weight(element: int) -> float:
    """Atomic weight in dalton of an atomic number."""
    import gemmi

    return float(gemmi.Element(element).weight)


#: Gold of a fiducial bead: 19.3 g/cm³, face-centred cubic with an edge of 4.078 Å (CRC Handbook of
#: Chemistry and Physics, 97th edition).
GOLD = Material("gold", 19.3, ((79, 1.0),), lattice=4.078)

#: Evaporated amorphous carbon, as support films are made of; measured densities lie around 2 g/cm³
#: (Robertson, Advances in Physics 35, 317, 1986).
CARBON = Material("amorphous carbon", 2.0, ((6, 1.0),))

# Fluid POPC at 30 °C (Kučerka, Nieh & Katsaras, Biochim. Biophys. Acta 1808, 2761, 2011): 64.3 Å² and
# 1256 Å³ a lipid, 331 Å³ of it the head group with glycerol and both carboxyls, C10 N O8 P; the tails are
# C32. Hydrogens are left out, as they are missing from the structures that stand beside the membrane.
_AREA, _LIPID, _HEAD = 64.3, 1256.0, 331.0


def _per_volume(name: str, formula: tuple[tuple[int, float], ...], volume: float) -> Material:
    mass = sum(n * _weight(z) for z, n in formula)
    return Material(name, mass / volume * GRAMS_PER_CM3, formula)


#: Head groups of a leaflet, without hydrogens.
HEADS = _per_volume("lipid head groups", ((6, 10.0), (7, 1.0), (8, 8.0), (15, 1.0)), _HEAD)
#: Hydrocarbon tails of a leaflet, without hydrogens.
TAILS = _per_volume("lipid tails", ((6, 32.0),), _LIPID - _HEAD)
#: Å; thickness of the layer of head groups of one leaflet, without the water between them.
HEAD_THICKNESS = _HEAD / _AREA
#: Å; thickness of a bilayer of POPC, both leaflets with their head groups.
BILAYER_THICKNESS = 2 * _LIPID / _AREA
