"""Detect distractors that are the same as a target, because they would be packed and labelled as background.

Structures are compared by the sequences of their chains, including the number of copies. A homologue from
another species is the same assembly, and so is a larger complex that contains the target; a part of the
target is not. If one of the two is a map, their shapes are superposed and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from catalogs import seeds
from catalogs.errors import InputError
from tlgen.molecules import read_once
from tlgen.molecules.envelope import envelope
from tlgen.molecules.molecule import Molecule
from tlgen.molecules.structures import Polymer, locate, name_of

#: Two chains of one kind are alike if at least this share of the shorter chain's residues is equal. Unrelated
#: nucleic acids align to one half; the RNAs of bacterial ribosomes share three quarters.
IDENTITY = {"protein": 0.4, "RNA": 0.65, "DNA": 0.65}
#: A distractor is the target if it contains at least this share of the target's mass ...
HELD = 0.7
#: ... or at least CORE of the target's mass, while at least INSIDE of its own mass is in the target.
CORE, INSIDE = 0.5, 0.9
#: Two shapes are the same if their correlation at :data:`SHAPE_RESOLUTION` Å is at least this.
SHAPE, SHAPE_RESOLUTION = 0.9, 30.0

# Mean mass of a residue in dalton.
_MASS = {"protein": 110.0, "RNA": 320.0, "DNA": 310.0}
# If proteins are at least this share of a complex's mass, its DNA, which is often arbitrary, is ignored.
_PROTEIN_SHARE = 0.2
# Chains shorter than this are ignored.
_SHORTEST = 25
# Largest relative difference between the radii of two equal shapes.
_RADII = 0.15
_ROTATIONS, _REFINED, _POINTS = 4000, 5, 4000


@dataclass(frozen=True, eq=False)
class Candidate:
    """A structure or a map to compare; made by :func:`of_structure` and :func:`of_molecule`.

    Attributes
    ----------
    name
        Name of the structure.
    chains
        Its chains; empty if only its shape is known.
    """

    name: str
    chains: tuple[Polymer, ...]
    load: Callable[[], Molecule]

    @cached_property
    def molecule(self) -> Molecule:
        """The atoms, read when they are first needed."""
        return self.load()


def of_structure(path_or_name: str | Path, *, assembly: str = "first") -> Candidate:
    """Describe a structure file or PDB entry; arguments and errors as in :func:`load_structure`."""
    path = locate(path_or_name)
    chains = tuple(p for p in read_once.structure(path, assembly)[1] if len(p.sequence) >= _SHORTEST)
    return Candidate(name_of(path), chains, lambda: read_once.structure(path, assembly)[0])


def of_molecule(molecule: Molecule) -> Candidate:
    """Describe a molecule whose shape alone is known, such as one fitted to a map."""
    return Candidate(molecule.name, (), lambda: molecule)


def same_assembly(target: Candidate, distractor: Candidate) -> str | None:
    """Tell whether a distractor is the target, or contains it.

    Returns
    -------
    str or None
        The reason, to follow the distractor's name: ``has 97 % of 2pyo's mass in like chains``. None if they
        are different.
    """
    if not target.chains or not distractor.chains:
        return _same_shape(target, distractor)
    of_target, of_distractor = _shared(_compared(target.chains), _compared(distractor.chains))
    if of_target >= HELD or (of_target >= CORE and of_distractor >= INSIDE):
        return f"has {100 * of_target:.0f} % of {target.name}'s mass in like chains"
    return None


def refuse_targets(targets: Mapping[str, Sequence[Candidate]], distractors: Sequence[Candidate]) -> None:
    """Refuse distractors that are a target.

    Parameters
    ----------
    targets
        Structures of each class.
    distractors
        Structures that are to be labelled as background.

    Raises
    ------
    InputError
        If any distractor is a target; names every such distractor, the class and the reason.
    """
    found = []
    for distractor in distractors:
        for name, structures in targets.items():
            reasons = (same_assembly(target, distractor) for target in structures)
            if reason := next((reason for reason in reasons if reason), None):
                found.append(f"{distractor.name} {reason} (class {name})")
                break
    if found:
        raise InputError(
            f"distractors are labelled as background, and {'; '.join(found)}: leave such out of distractors"
        )


# -------------------------------------------------------------------------------------------- sequences


def _compared(chains: tuple[Polymer, ...]) -> list[Polymer]:
    """Chains by which a complex is compared."""
    total = sum(map(_mass, chains))
    of_proteins = sum(_mass(p) for p in chains if p.kind == "protein")
    if of_proteins < _PROTEIN_SHARE * total:
        return list(chains)
    return [p for p in chains if p.kind != "DNA"]


def _mass(polymer: Polymer) -> float:
    return polymer.copies * len(polymer.sequence) * _MASS[polymer.kind]


def _shared(ours: list[Polymer], theirs: list[Polymer]) -> tuple[float, float]:
    """For each of two complexes, the share of its mass in chains that the other one has too."""
    alike = []
    for i, one in enumerate(ours):
        for j, other in enumerate(theirs):
            if one.kind == other.kind and (identity := _identity(one, other)) >= IDENTITY[one.kind]:
                alike.append((-identity, i, j))
    left = [[p.copies for p in ours], [p.copies for p in theirs]]
    found = [0.0, 0.0]
    for _, i, j in sorted(alike):
        pairs = min(left[0][i], left[1][j])
        for side, polymers_, k in ((0, ours, i), (1, theirs, j)):
            left[side][k] -= pairs
            found[side] += pairs * len(polymers_[k].sequence) * _MASS[polymers_[k].kind]
    return found[0] / sum(map(_mass, ours)), found[1] / sum(map(_mass, theirs))


def _identity(one: Polymer, other: Polymer) -> float:
    """Share of equal residues in the alignment of two chains; 0 if one is more than twice as long."""
    import gemmi

    if one.sequence == other.sequence:
        return 1.0
    shorter, longer = sorted((one.sequence, other.sequence), key=len)
    if 2 * len(shorter) < len(longer):
        return 0.0
    scoring = gemmi.AlignmentScoring("b" if one.kind == "protein" else "s")
    aligned = gemmi.align_string_sequences(list(shorter), list(longer), [], scoring)
    return float(aligned.match_count / len(shorter))


# ---------------------------------------------------------------------------------------------- shapes


def _same_shape(target: Candidate, distractor: Candidate) -> str | None:
    a, b = target.molecule, distractor.molecule
    if abs(a.radius - b.radius) > _RADII * max(a.radius, b.radius):
        return None
    found = shape_correlation(a, b)
    return f"has the shape of {target.name} (correlation {found:.2f})" if found >= SHAPE else None


def shape_correlation(a: Molecule, b: Molecule) -> float:
    """Correlate two molecules' densities at :data:`SHAPE_RESOLUTION` Å, in the best orientation found.

    Orientations about 15 degrees apart are tried, and the best ones are refined, including their shifts.
    """
    fixed, moving = (envelope(m, resolution=SHAPE_RESOLUTION) for m in (a, b))
    reach = np.array(fixed.density.shape) // 2
    step = max(1, round((fixed.density.size / _POINTS) ** (1 / 3)))
    axes = [np.arange(-(n // step) * step, n + 1, step) for n in reach]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    values = fixed.density[tuple((index + reach).T)].astype(np.float64)
    points = np.ascontiguousarray(index[:, ::-1] * fixed.spacing)

    def score(turns: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
        return _correlations(moving.density, moving.spacing, points, values, turns, shift)

    rotations = Rotation.from_quat(seeds.generator("similarity").normal(size=(_ROTATIONS, 4)))
    coarse = score(rotations.as_matrix(), np.zeros(3))
    best = -1.0
    for k in np.argsort(-coarse)[:_REFINED]:
        start = rotations[k]

        def cost(x: NDArray[np.float64], start: Rotation = start) -> float:
            turn = (Rotation.from_rotvec(x[:3]) * start).as_matrix()
            return -float(score(turn[None], x[3:] * 100)[0])

        simplex = np.vstack([np.zeros(6), 0.15 * np.eye(6)])
        options = {"initial_simplex": simplex, "maxfev": 200, "xatol": 0.01, "fatol": 1e-3}
        best = max(best, -float(minimize(cost, np.zeros(6), method="Nelder-Mead", options=options).fun))
    return best


@njit(cache=True)
def _correlations(
    density: NDArray[np.float32],
    spacing: float,
    points: NDArray[np.float64],
    values: NDArray[np.float64],
    turns: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Pearson's correlation of ``values`` at ``points`` (x, y, z in Å) with a rotated and shifted density."""
    nz, ny, nx = density.shape
    n = len(points)
    mean = values.mean()
    spread = np.sqrt(((values - mean) ** 2).sum())
    out = np.empty(len(turns))
    for t in range(len(turns)):
        m = turns[t]
        total, squares, cross = 0.0, 0.0, 0.0
        for p in range(n):
            x0, y0, z0 = points[p, 0] - shift[0], points[p, 1] - shift[1], points[p, 2] - shift[2]
            # the transpose of a rotation is its inverse
            x = (m[0, 0] * x0 + m[1, 0] * y0 + m[2, 0] * z0) / spacing + (nx - 1) / 2
            y = (m[0, 1] * x0 + m[1, 1] * y0 + m[2, 1] * z0) / spacing + (ny - 1) / 2
            z = (m[0, 2] * x0 + m[1, 2] * y0 + m[2, 2] * z0) / spacing + (nz - 1) / 2
            if x < 0 or y < 0 or z < 0 or x >= nx - 1 or y >= ny - 1 or z >= nz - 1:
                continue
            i, j, k = int(x), int(y), int(z)
            u, v, w = x - i, y - j, z - k
            near = density[k, j, i] * (1 - u) + density[k, j, i + 1] * u
            above = density[k, j + 1, i] * (1 - u) + density[k, j + 1, i + 1] * u
            far = density[k + 1, j, i] * (1 - u) + density[k + 1, j, i + 1] * u
            across = density[k + 1, j + 1, i] * (1 - u) + density[k + 1, j + 1, i + 1] * u
            value = (near * (1 - v) + above * v) * (1 - w) + (far * (1 - v) + across * v) * w
            total += value
            squares += value * value
            cross += value * (values[p] - mean)
        rest = squares - total * total / n
        out[t] = cross / (spread * np.sqrt(rest)) if rest > 0 else 0.0
    return out
