"""A molecule: atoms around their own centre, as every later step sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Dalton per cubic angstrom of protein: 1.35 g/cm³ (Fischer et al., Protein Science 13, 2825, 2004).
DALTON_PER_CUBIC_ANGSTROM = 1.35 / 1.66053907

# Standard atomic weights (IUPAC 2021) of the elements met in structures; others count as carbon's
# ratio of weight to atomic number.
_WEIGHTS = {1: 1.008, 6: 12.011, 7: 14.007, 8: 15.999, 11: 22.990, 12: 24.305, 15: 30.974, 16: 32.06}
_WEIGHTS |= {17: 35.45, 19: 39.098, 20: 40.078, 25: 54.938, 26: 55.845, 29: 63.546, 30: 65.38, 34: 78.971}
_WEIGHT_OF = np.array([_WEIGHTS.get(z, 2.0 * z) for z in range(256)])


@dataclass(frozen=True, eq=False)
class Molecule:
    """A rigid structure.

    Attributes
    ----------
    name
        Of the structure, e.g. ``4v5d``.
    elements
        (n,) atomic numbers, uint8.
    positions
        (n, 3) x, y, z in Å, float32, around the unweighted mean of the atoms.
    backbone
        (n,) True for the CA and P atoms, which normal modes are computed on.
    variant
        Number of the flexible variant; -1 for the structure as it was read.
    amplitudes
        Of the normal modes in the variant, in Å RMSD each, with sign.
    source
        Checksum of the file that the structure was read from.
    """

    name: str
    elements: NDArray[np.uint8]
    positions: NDArray[np.float32]
    backbone: NDArray[np.bool_]
    variant: int = -1
    amplitudes: tuple[float, ...] = field(default=())
    source: str = ""

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.elements)

    @cached_property
    def mass(self) -> float:
        """Mass of the atoms in dalton (hydrogens are not among them)."""
        return float(_WEIGHT_OF[self.elements].sum())

    @property
    def volume(self) -> float:
        """Volume in Å³ of the mass at 1.35 g/cm³."""
        return self.mass / DALTON_PER_CUBIC_ANGSTROM

    @cached_property
    def radius(self) -> float:
        """Radius in Å of the solid sphere with the same radius of gyration, √(5/3) of it.

        The molecule's extent as it looks at a tomogram's resolution: 108 Å for a 70S ribosome, whose
        diameter people give as 200 to 250 Å. A sphere of equal volume would be 85 Å, since molecules are
        neither round nor without grooves.
        """
        return float(np.sqrt(5 / 3 * (self.positions.astype(np.float64) ** 2).sum(axis=1).mean()))

    @cached_property
    def digest(self) -> str:
        """Hash of the content: 16 hexadecimal digits."""
        h = hashlib.blake2b(digest_size=8)
        h.update(f"{self.name}|{self.variant}".encode())
        h.update(self.elements.tobytes())
        h.update(self.positions.tobytes())
        return h.hexdigest()


#: Molecules by digest.
Library = Mapping[str, Molecule]


def centred(name: str, elements: Any, positions: Any, backbone: Any, **more: Any) -> Molecule:
    """Make a molecule from atoms anywhere in space: the mean of the atoms becomes its centre."""
    xyz = np.asarray(positions, np.float64)
    around = np.ascontiguousarray(xyz - xyz.mean(axis=0), np.float32)
    return Molecule(name, np.asarray(elements, np.uint8), around, np.asarray(backbone, bool), **more)


def to_arrays(molecule: Molecule) -> dict[str, NDArray[Any]]:
    """Molecule -> plain arrays, to be stored; :func:`from_arrays` brings it back to the bit."""
    return {
        "name": np.array(molecule.name),
        "elements": molecule.elements,
        "positions": molecule.positions,
        "backbone": molecule.backbone,
        "variant": np.array(molecule.variant),
        "amplitudes": np.array(molecule.amplitudes, np.float64),
        "source": np.array(molecule.source),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Molecule:
    """Plain arrays -> molecule."""
    return Molecule(
        name=str(arrays["name"]),
        elements=np.asarray(arrays["elements"], np.uint8),
        positions=np.asarray(arrays["positions"], np.float32),
        backbone=np.asarray(arrays["backbone"], bool),
        variant=int(arrays["variant"]),
        amplitudes=tuple(float(a) for a in arrays["amplitudes"]),
        source=str(arrays["source"]),
    )
