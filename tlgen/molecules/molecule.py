"""A molecule: atoms around their own centre, the form that all later steps use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import chdtri

from catalogs import seeds

#: Dalton per cubic angstrom of protein: 1.35 g/cm³ (Fischer et al., Protein Science 13, 2825, 2004).
DALTON_PER_CUBIC_ANGSTROM = 1.35 / 1.66053907

# Standard atomic weights (IUPAC 2021) of the elements found in structures. Other elements are given twice
# their atomic number, which is carbon's ratio.
_WEIGHTS = {1: 1.008, 6: 12.011, 7: 14.007, 8: 15.999, 11: 22.990, 12: 24.305, 15: 30.974, 16: 32.06}
_WEIGHTS |= {17: 35.45, 19: 39.098, 20: 40.078, 25: 54.938, 26: 55.845, 29: 63.546, 30: 65.38, 34: 78.971}
_WEIGHT_OF = np.array([_WEIGHTS.get(z, 2.0 * z) for z in range(256)])

# An atom with a sigma becomes one point for each 13 Da, the mean of protein's heavy atoms, within limits.
_DALTON_PER_POINT, _FEWEST_POINTS, _MOST_POINTS = 13.2, 12, 128
# Number of rotated copies of each point pattern; the same pattern in all atoms would form a lattice.
_TURNS = 61


@dataclass(frozen=True, eq=False)
class Molecule:
    """A rigid structure.

    Attributes
    ----------
    name
        Name of the structure, e.g. ``4v5d``.
    elements
        (n,) atomic numbers, uint8.
    positions
        (n, 3) x, y, z in Å, float32, around the unweighted mean of the atoms.
    backbone
        (n,) True for the CA and P atoms, from which normal modes are computed.
    variant
        Number of the flexible variant; -1 for the original structure.
    amplitudes
        Signed amplitude of each normal mode in the variant, in Å RMSD.
    source
        Checksum of the file that the structure was read from.
    rmsd
        Å; RMSD of the variant's backbone from the original structure.
    occupancy
        (n,) number of atoms of its element that each atom stands for, float32; 1 by default.
    sigma
        (n,) Å, float32; standard deviation of the Gaussian over which each atom is spread, in addition to
        its own size; 0 by default. Pseudo-atoms have a sigma.
    """

    name: str
    elements: NDArray[np.uint8]
    positions: NDArray[np.float32]
    backbone: NDArray[np.bool_]
    variant: int = -1
    amplitudes: tuple[float, ...] = field(default=())
    source: str = ""
    rmsd: float = 0.0
    occupancy: NDArray[np.float32] = field(default_factory=lambda: np.ones(1, np.float32))
    sigma: NDArray[np.float32] = field(default_factory=lambda: np.zeros(1, np.float32))

    def __post_init__(self) -> None:
        for name in ("occupancy", "sigma"):  # one number for all atoms is broadcast and stored once
            values = np.broadcast_to(np.asarray(getattr(self, name), np.float32), len(self.elements))
            object.__setattr__(self, name, values)

    @cached_property
    def is_atomic(self) -> bool:
        """Whether every atom is one whole atom at a point, as in structure files."""
        return bool(np.all(self.occupancy == 1) and not np.any(self.sigma))

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.elements)

    @cached_property
    def mass(self) -> float:
        """Mass of the atoms in dalton, without hydrogens."""
        weights = _WEIGHT_OF[self.elements]
        return float((weights if self.is_atomic else weights * self.occupancy).sum())

    @property
    def volume(self) -> float:
        """Volume in Å³ of the molecule's mass at 1.35 g/cm³."""
        return self.mass / DALTON_PER_CUBIC_ANGSTROM

    @cached_property
    def radius(self) -> float:
        """Radius in Å of the solid sphere with the same radius of gyration: √(5/3) times that radius.

        It describes the molecule's extent at a tomogram's resolution: 108 Å for a 70S ribosome, whose
        diameter is usually given as 200 to 250 Å. A sphere of equal volume would have a radius of 85 Å,
        because molecules are not round and have grooves.
        """
        squares = (self.positions.astype(np.float64) ** 2).sum(axis=1)
        if self.is_atomic:
            return float(np.sqrt(5 / 3 * squares.mean()))
        squares += 3 * self.sigma.astype(np.float64) ** 2
        return float(np.sqrt(5 / 3 * np.average(squares, weights=self.occupancy)))

    @cached_property
    def points(self) -> Molecule:
        """The molecule with every atom at a point, as simulators, envelopes and packing need it.

        An atom with a ``sigma`` becomes about as many points as protein of its mass has atoms (12 to 128).
        The points share its occupancy, and have the mean and the variance of its Gaussian. A molecule of
        real atoms is returned unchanged. The digest stays the same, because scenes refer to the molecule by
        it.
        """
        return self if not np.any(self.sigma) else _spread(self)

    @cached_property
    def digest(self) -> str:
        """Hash of the content: 16 hexadecimal digits."""
        h = hashlib.blake2b(digest_size=8)
        h.update(f"{self.name}|{self.variant}".encode())
        h.update(self.elements.tobytes())
        h.update(self.positions.tobytes())
        if not self.is_atomic:
            h.update(self.occupancy.tobytes())
            h.update(self.sigma.tobytes())
        return h.hexdigest()


#: Molecules by digest.
Library = Mapping[str, Molecule]


def centred(name: str, elements: Any, positions: Any, backbone: Any, **more: Any) -> Molecule:
    """Make a molecule from atoms anywhere in space: the mean of their positions becomes its centre.

    The mean is weighted by ``occupancy``, if that is given.
    """
    xyz = np.asarray(positions, np.float64)
    counts = more.get("occupancy")
    centre = xyz.mean(axis=0) if counts is None else np.average(xyz, axis=0, weights=counts)
    around = np.ascontiguousarray(xyz - centre, np.float32)
    return Molecule(name, np.asarray(elements, np.uint8), around, np.asarray(backbone, bool), **more)


def to_arrays(molecule: Molecule) -> dict[str, NDArray[Any]]:
    """Molecule -> plain arrays for storage; :func:`from_arrays` restores the molecule exactly."""
    return {
        "name": np.array(molecule.name),
        "elements": molecule.elements,
        "positions": molecule.positions,
        "backbone": molecule.backbone,
        "variant": np.array(molecule.variant),
        "amplitudes": np.array(molecule.amplitudes, np.float64),
        "source": np.array(molecule.source),
        "rmsd": np.array(molecule.rmsd),
        **({} if molecule.is_atomic else {"occupancy": molecule.occupancy, "sigma": molecule.sigma}),
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
        rmsd=float(arrays.get("rmsd", 0.0)),  # missing in corpora of earlier versions
        **{name: np.asarray(arrays[name], np.float32) for name in ("occupancy", "sigma") if name in arrays},
    )


def _spread(molecule: Molecule) -> Molecule:
    """Replace each atom that has a sigma by points; see :attr:`Molecule.points`."""
    wide = molecule.sigma > 0
    atoms = np.rint(_WEIGHT_OF[molecule.elements] * molecule.occupancy / _DALTON_PER_POINT)
    copies = np.where(wide, np.clip(atoms, _FEWEST_POINTS, _MOST_POINTS), 1).astype(np.int64)
    owner = np.repeat(np.arange(molecule.n_atoms), copies)
    first = np.concatenate([[0], np.cumsum(copies)[:-1]])
    rank = np.arange(len(owner)) - first[owner]
    offsets = np.zeros((len(owner), 3), np.float32)
    for count in np.unique(copies[wide]):
        rows = np.flatnonzero(wide[owner] & (copies[owner] == count))
        offsets[rows] = _pattern(int(count))[owner[rows] % _TURNS, rank[rows]]
    points = replace(
        molecule,
        elements=molecule.elements[owner],
        positions=molecule.positions[owner] + offsets * molecule.sigma[owner, None],
        backbone=molecule.backbone[owner] & (rank == 0),
        occupancy=np.asarray((molecule.occupancy / copies)[owner], np.float32),
        sigma=np.zeros(1, np.float32),
    )
    points.__dict__["digest"] = molecule.digest
    return points


@cache
def _pattern(count: int) -> NDArray[np.float32]:
    """Points that represent a Gaussian of standard deviation 1, in several rotations: (rotations, count, 3).

    The directions are those of a Fibonacci sphere, and the radii divide the Gaussian's mass into equal
    shares. The points are then scaled so that their mean and covariance are those of the Gaussian.
    """
    k = np.arange(count)
    golden = (1 + np.sqrt(5)) / 2
    z, azimuth = 1 - (2 * k + 1) / count, 2 * np.pi * k / golden
    directions = np.stack([np.sqrt(1 - z**2) * np.cos(azimuth), np.sqrt(1 - z**2) * np.sin(azimuth), z], 1)
    # the squared radius is chi-squared with 3 degrees of freedom; radii are not sorted by direction
    shares = (k * np.sqrt(2) + 0.5 / count) % 1
    points = directions * np.sqrt(chdtri(3, 1 - (np.argsort(np.argsort(shares)) + 0.5) / count))[:, None]
    points -= points.mean(axis=0)
    values, axes = np.linalg.eigh(points.T @ points / count)
    points = points @ (axes / np.sqrt(values)) @ axes.T
    q = seeds.generator("molecule", "points").normal(size=(_TURNS, 4))
    turns = Rotation.from_quat(q).as_matrix()
    return np.round(np.einsum("tij,kj->tki", turns, points), 4).astype(np.float32)
