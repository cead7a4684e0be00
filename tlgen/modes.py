"""Flexible variants of a molecule by the normal modes of its anisotropic network model.

Nodes are CA and P atoms joined by equal springs (Atilgan et al., Biophys. J. 80, 505, 2001). Large
molecules take an even choice of them with the cut-off grown in step, which keeps the slow modes
(Doruker, Jernigan & Bahar, J. Comput. Chem. 23, 119, 2002). All atoms follow the nodes around them as
rigid neighbourhoods that turn and shift, so bonds keep their lengths where a displacement along
straight lines would stretch them (the idea of Hoffmann & Grudinin, J. Chem. Theory Comput. 13, 2123,
2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from catalogs import seeds
from catalogs.errors import InputError
from tlgen.molecule import Molecule, centred

Array = NDArray[np.float64]

#: Most nodes of a network, and the fewest that have modes worth the name.
MAX_NODES, MIN_NODES = 1500, 10
#: Å; springs join nodes nearer than this where every CA and P atom is a node.
CUTOFF = 15.0
#: Where nodes are chosen, springs join them up to so many times the distance between neighbours. It gives
#: a node about as many springs (50) as it has in the full network.
CUTOFF_SPACINGS = 3.0
#: Least share of the nodes that take part in a mode. What moves less is a loose tail or loop, whose soft
#: springs would claim the whole RMSD and throw it far out, unseen at the resolution of tomograms.
MIN_COLLECTIVITY = 0.1
#: Most that the distance of neighbours along a chain may change in a variant, as a share of it.
MAX_STRETCH = 1 / 3

# Eigenvalues below this are rigid motions: six, and more where nodes hang loose. Springs have constant 1.
_ZERO = 1e-6
# Nodes that an atom follows.
_NEIGHBOURS = 32
# Å; farthest that neighbours along a chain are from each other: 3.8 for CA, up to 7.5 for P.
_BOND = 8.0
# Å; backbone atoms nearer than this have run into each other, unless they stood so from the beginning.
_CLASH = 2.8
_DRAWS = 50
# Atoms moved at a time: what a step needs in memory is a hundred megabytes.
_CHUNK = 50_000


@dataclass(frozen=True, eq=False)
class Modes:
    """Normal modes of a network of nodes, softest first.

    Attributes
    ----------
    nodes
        (m,) indices of the nodes among the molecule's atoms.
    eigenvalues
        (k,) for springs of constant 1.
    vectors
        (m, 3, k), each of length 1; their signs are fixed.
    """

    nodes: NDArray[np.int64]
    eigenvalues: Array
    vectors: Array


def variants(
    molecule: Molecule, n: int, *, rmsd: tuple[float, float], n_modes: int = 20, seed: int
) -> list[Molecule]:
    """Make flexible variants of a molecule.

    A variant moves along random amplitudes of the modes, normal with a variance of one over the mode's
    eigenvalue, as heat would move it; all are scaled to an RMSD drawn evenly from the range. A draw that
    tears a chain or lets backbones run into each other is drawn again, RMSD and all.

    Parameters
    ----------
    molecule
        Its backbone holds the nodes.
    n
        Number of variants; variant i does not depend on it.
    rmsd
        Å; least and largest RMSD of the CA and P atoms from ``molecule``, after superposition.
    n_modes
        Softest collective modes to use; fewer where the molecule has fewer.
    seed
        Of the structure's variants in the corpus.

    Returns
    -------
    list of Molecule
        ``variant`` is 0 ... n - 1; ``amplitudes`` are the modes' shares in Å with sign, and the root of
        the sum of their squares is the RMSD reached. Each is superposed on ``molecule``, so that a
        rotation means the same for both.

    Raises
    ------
    InputError
        Too few CA and P atoms, or the RMSD is too large for the molecule to stay whole.
    """
    modes = normal_modes(molecule, n_modes)
    atoms = molecule.positions.astype(np.float64)
    nodes = atoms[modes.nodes]
    backbone = _neighbourhoods(atoms[molecule.backbone], nodes)
    everything = _neighbourhoods(atoms, nodes)

    made = []
    for i in range(n):
        displacement, amplitudes, turn, shift = _draw(molecule.name, modes, backbone, i, rmsd, seed)
        # Three decimals, as PDB files have: the last bits of linear algebra differ between machines.
        moved = np.round(turn.apply(everything.move(displacement)) + shift, 3)
        variant = centred(molecule.name, molecule.elements, moved, molecule.backbone, source=molecule.source)
        made.append(replace(variant, variant=i, amplitudes=amplitudes))
    return made


# ------------------------------------------------------------------------------------------------ modes


def normal_modes(molecule: Molecule, n_modes: int) -> Modes:
    """Compute the softest collective modes of a molecule's network.

    They are the softest ``n_modes`` that move at least :data:`MIN_COLLECTIVITY` of the nodes, among the
    softest ``5 * n_modes``.

    Raises
    ------
    InputError
        The molecule has fewer than :data:`MIN_NODES` CA and P atoms, or no collective modes.
    """
    backbone = np.flatnonzero(molecule.backbone)
    if len(backbone) < MIN_NODES:
        raise InputError(
            f"{molecule.name} has {len(backbone)} CA and P atoms and flexible variants need {MIN_NODES}; "
            "set variants: {number: 0} for it"
        )
    points = molecule.positions[backbone].astype(np.float64)
    cutoff = CUTOFF
    if len(points) > MAX_NODES:
        chosen = _evenly(points, MAX_NODES)
        backbone, points = backbone[chosen], points[chosen]
        spacing = np.median(cKDTree(points).query(points, k=2)[0][:, 1])
        cutoff = max(CUTOFF, CUTOFF_SPACINGS * float(spacing))

    hessian = _hessian(points, cutoff)
    values, vectors = _softest(hessian, min(6 + 5 * n_modes, len(hessian)))
    vectors = vectors.reshape(len(points), 3, -1)
    good = np.flatnonzero((values > _ZERO) & (collectivity(vectors) >= MIN_COLLECTIVITY))[:n_modes]
    if len(good) == 0:
        raise InputError(
            f"{molecule.name} has no normal modes that move a tenth of it or more; "
            "set variants: {number: 0} for it"
        )
    values, vectors = values[good], vectors[:, :, good]
    # An eigenvector's sign is the solver's whim.
    marks = seeds.generator("modes", "signs").normal(size=vectors.shape[:2])
    return Modes(backbone, values, vectors * np.sign(np.einsum("nik,ni->k", vectors, marks)))


def collectivity(vectors: Array) -> Array:
    """Share of the nodes that take part in each mode, from 1/m to 1.

    The exponential of the entropy of the squared displacements over m (Brüschweiler, J. Chem. Phys. 102,
    3396, 1995); ``vectors`` is (m, 3, k), each mode of length 1.
    """
    share = np.sum(vectors**2, axis=1)
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-300)), axis=0)
    return np.asarray(np.exp(entropy) / len(vectors), np.float64)


def _evenly(points: Array, count: int) -> NDArray[np.int64]:
    """Choose points evenly in space, beginning at the centre: each next one is farthest from those before.

    Every k-th along the chains would leave the wide turns of RNA bare where it crowds protein, and what
    lies between bare nodes tears.
    """
    distance = np.sum((points - points.mean(axis=0)) ** 2, axis=1)
    chosen = [int(np.argmin(distance))]
    distance[:] = np.inf
    while len(chosen) < count:
        np.minimum(distance, np.sum((points - points[chosen[-1]]) ** 2, axis=1), out=distance)
        chosen.append(int(np.argmax(distance)))
    return np.sort(np.array(chosen, np.int64))


def _hessian(nodes: Array, cutoff: float) -> Array:
    """Build the (3m, 3m) Hessian of a network; the cut-off grows until the network is in one piece."""
    import prody
    from scipy.sparse.csgraph import connected_components

    tree = cKDTree(nodes)
    while connected_components(tree.sparse_distance_matrix(tree, cutoff), False, return_labels=False) > 1:
        cutoff *= 1.2
    model = prody.ANM()
    with _quiet(prody.LOGGER):
        model.buildHessian(nodes, cutoff=cutoff, gamma=1.0)
    return np.asarray(model.getHessian(), np.float64)


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """Keep ProDy's progress notes off the terminal, and leave its setting as it was."""
    before = logger.verbosity
    logger.verbosity = "none"
    try:
        yield
    finally:
        logger.verbosity = before


def _softest(hessian: Array, k: int) -> tuple[Array, Array]:
    """Find the k smallest eigenvalues, ascending, and their vectors.

    ProDy would solve it densely, in several times the CPU time at a ribosome's 4500 degrees of freedom,
    or sparsely without inversion, which converges poorly at this end of the spectrum.
    """
    if len(hessian) < 1000 or k > len(hessian) // 4:
        values, vectors = np.linalg.eigh(hessian)
        return values[:k], vectors[:, :k]
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import eigsh

    # A shift below zero leaves a positive definite matrix to factorise; a fixed start repeats the result.
    start = seeds.generator("modes", "start").normal(size=len(hessian))
    values, vectors = eigsh(csc_matrix(hessian), k=k, sigma=-1e-3, which="LM", v0=start)
    order = np.argsort(values)
    return values[order], vectors[:, order]


# --------------------------------------------------------------------------------------- from nodes to atoms


@dataclass(frozen=True, eq=False)
class _Neighbourhoods:
    """What turns displacements of m nodes into those of n atoms.

    Around each atom its K nearest nodes move as one rigid body, that of the least squares. Their weights
    fall to nothing at the last of them, so the field is smooth from atom to atom.
    """

    atoms: Array  # (n, 3)
    nodes: Array  # (m, 3)
    nearest: NDArray[np.int64]  # (n, K)
    weights: Array  # (n, K), of sum 1
    inverse: Array  # (n, 3, 3), of the tensor of inertia

    def move(self, displacements: Array) -> Array:
        """Move all atoms: displacements (m, 3) of the nodes in Å -> positions (n, 3)."""
        moved = np.empty_like(self.atoms)
        for start in range(0, len(self.atoms), _CHUNK):
            part = slice(start, start + _CHUNK)
            weights, around = self.weights[part, :, None], self.nodes[self.nearest[part]]
            steps = displacements[self.nearest[part]]
            centre = np.sum(weights * around, axis=1)
            shift = np.sum(weights * steps, axis=1)
            torque = np.sum(weights * np.cross(around - centre[:, None], steps), axis=1)
            turn = Rotation.from_rotvec(np.einsum("nij,nj->ni", self.inverse[part], torque))
            moved[part] = turn.apply(self.atoms[part] - centre) + centre + shift
        return moved


def _neighbourhoods(atoms: Array, nodes: Array) -> _Neighbourhoods:
    """Find the nodes around each atom, and the inertia of each such neighbourhood."""
    distances, nearest = cKDTree(nodes).query(atoms, k=min(_NEIGHBOURS, len(nodes)))
    reach = 1.001 * distances[:, -1:]
    weights = (1 - (distances / reach) ** 2) ** 2
    weights /= weights.sum(axis=1, keepdims=True)

    inverse = np.empty((len(atoms), 3, 3))
    for start in range(0, len(atoms), _CHUNK):
        part = slice(start, start + _CHUNK)
        w, around = weights[part], nodes[nearest[part]]
        arms = around - np.sum(w[:, :, None] * around, axis=1)[:, None]
        moments = np.einsum("nk,nki,nkj->nij", w, arms, arms)
        total = np.trace(moments, axis1=1, axis2=2)
        # The thousandth more keeps neighbourhoods solvable whose nodes lie on one line.
        inverse[part] = np.linalg.inv(1.001 * total[:, None, None] * np.eye(3) - moments)
    return _Neighbourhoods(atoms, nodes, np.asarray(nearest, np.int64), weights, inverse)


# ---------------------------------------------------------------------------------------------- variants


def _draw(
    name: str, modes: Modes, backbone: _Neighbourhoods, i: int, rmsd: tuple[float, float], seed: int
) -> tuple[Array, tuple[float, ...], Rotation, Array]:
    """Draw variant i: the nodes' displacements, the amplitudes, and the turn and shift that superpose it."""
    rng = seeds.generator(seed, "variant", i)
    for _ in range(_DRAWS):
        wanted = float(rng.uniform(*rmsd))
        # Noise on the nodes as each mode sees it: normal amplitudes, and the same motion whatever basis the
        # solver chose among modes of one eigenvalue, which symmetric molecules have many of.
        noise = rng.normal(size=modes.vectors.shape[:2])
        amplitudes = np.einsum("nik,ni->k", modes.vectors, noise) / np.sqrt(modes.eigenvalues)
        direction = modes.vectors @ amplitudes
        scale = wanted / _rms(direction)
        for _ in range(4):  # turning makes it a little non-linear
            displacement = scale * direction
            moved = backbone.move(displacement)
            turn, shift = _superposition(moved, backbone.atoms)
            moved = turn.apply(moved) + shift
            reached = _rms(moved - backbone.atoms)
            if abs(reached - wanted) < 0.001 * wanted:
                break
            scale *= wanted / reached
        if not torn(backbone.atoms, moved):
            shares = reached * amplitudes / np.linalg.norm(amplitudes)
            return displacement, tuple(round(float(a), 4) for a in shares), turn, shift
    raise InputError(
        f"{name}: none of {_DRAWS} flexible variants of {rmsd[0]:g} to {rmsd[1]:g} Å RMSD kept its chains "
        "whole; set a smaller rmsd in variants"
    )


def _superposition(moved: Array, fixed: Array) -> tuple[Rotation, Array]:
    """Find the turn and shift that bring atoms to the least RMSD from where they were."""
    centre = moved.mean(axis=0)
    turn, _ = Rotation.align_vectors(fixed - fixed.mean(axis=0), moved - centre)
    return turn, fixed.mean(axis=0) - turn.apply(centre)


def torn(before: Array, after: Array) -> bool:
    """Whether neighbours along a chain parted or closed up, or backbone atoms ran into each other.

    Parameters
    ----------
    before, after
        (n, 3) CA and P atoms in Å in the order of the chains.
    """
    distance = np.linalg.norm(np.diff(before, axis=0), axis=1)
    stretch = np.abs(np.linalg.norm(np.diff(after, axis=0), axis=1) - distance)
    if np.any(stretch[distance < _BOND] > MAX_STRETCH * distance[distance < _BOND]):
        return True
    close = cKDTree(after).query_pairs(_CLASH, output_type="ndarray")
    return bool(np.any(np.linalg.norm(before[close[:, 0]] - before[close[:, 1]], axis=1) > _CLASH + 0.5))


def _rms(displacements: Array) -> float:
    return float(np.sqrt(np.mean(np.sum(displacements**2, axis=1))))
