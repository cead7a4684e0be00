"""Flexible variants of a molecule by the normal modes of its anisotropic network model.

Nodes are CA and P atoms, or pseudo-atoms, joined by equal springs (Atilgan et al., Biophys. J. 80, 505,
2001). Of more than :data:`MIN_CHOSEN` an even choice is taken, with the cut-off grown in step, which keeps
the slow modes (Doruker, Jernigan & Bahar, J. Comput. Chem. 23, 119, 2002) and loses those of single loops
and strands: of the 100 softest modes of a nucleosome's full network one moves a tenth of it, of the chosen
network's more than 20 do. All atoms follow the nodes around them as
rigid neighbourhoods that turn and shift, so bonds keep their lengths where a displacement along
straight lines would stretch them (the idea of Hoffmann & Grudinin, J. Chem. Theory Comput. 13, 2123,
2017).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from catalogs import seeds
from catalogs.errors import InputError
from tlgen.molecules.molecule import Molecule, centred

Array = NDArray[np.float64]

Scheme = Literal["thermal", "uniform"]

#: Said where variants are asked for and ProDy is missing.
NEEDS_PRODY = (
    "flexible variants need ProDy, which is not installed: pip install 'template-learning[variants]', "
    "or write variants: {number: 0} in the recipe"
)
#: The fewest nodes of a network that has modes worth the name.
MIN_NODES = 10
#: Up to so many CA and P atoms all are nodes; of more a quarter is chosen, but so many at least and at most.
MIN_CHOSEN, MAX_CHOSEN = 400, 1500
#: Å; springs join nodes nearer than this at least.
CUTOFF = 15.0
#: Where nodes stand far apart, springs join them up to so many times the distance between neighbours. It
#: gives a node about as many springs (50) as it has in the network of all CA atoms.
CUTOFF_SPACINGS = 3.0
#: Least share of the nodes that take part in a mode. What moves less is a loose tail or loop, whose soft
#: springs would claim the whole RMSD and throw it far out, unseen at the resolution of tomograms.
MIN_COLLECTIVITY = 0.1
#: Of neighbours along a chain, this share at least keeps its distance in a variant to within STRETCH of it,
#: and none changes it by more than MAX_STRETCH.
KEPT, STRETCH, MAX_STRETCH = 0.99, 0.15, 1 / 3
#: Most new clashes of CA and P atoms in a variant, as a share of these atoms.
MAX_CLASHES = 0.001

# Eigenvalues below this are rigid motions: six, and more where nodes hang loose. Springs have constant 1.
_ZERO = 1e-6
# Nodes that an atom follows.
_NEIGHBOURS = 32
# Å; farthest that neighbours along a chain are from each other: 3.8 for CA, up to 7.5 for P.
_BOND = 8.0
# Å; backbone atoms nearer than this have run into each other, unless they stood so from the beginning.
_CLASH = 2.8
# Nearest neighbours of a pseudo-atom whose distances are watched, there being no chain.
_AROUND = 6
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


@dataclass(frozen=True)
class Check:
    """How a variant differs from its template.

    Attributes
    ----------
    rmsd
        Å, of the CA and P atoms or the pseudo-atoms, after superposition.
    kept
        Share of the neighbours along chains whose distance is within 15 % of the template's. Pseudo-atoms
        have no chains; theirs are the nearest ones.
    stretch
        Largest change of such a distance, as a share of it.
    clashes
        Pairs of CA and P atoms nearer than 2.8 Å that were not; pseudo-atoms overlap anyway and have none.
    passed
        Whether the variant is good enough to be used.
    """

    rmsd: float
    kept: float
    stretch: float
    clashes: int
    passed: bool


def variants(
    molecule: Molecule,
    n: int,
    *,
    rmsd: tuple[float, float],
    n_modes: int = 20,
    seed: int,
    scheme: Scheme = "thermal",
) -> list[Molecule]:
    """Make flexible variants of a molecule.

    A variant moves along random amplitudes of the modes, all scaled to an RMSD drawn evenly from the
    range. A draw that fails its :class:`Check` is drawn again, RMSD and all.

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
    scheme
        ``thermal``: amplitudes are normal with a variance of one over the mode's eigenvalue, as heat would
        move the molecule. ``uniform``: evenly from one range for all modes (Harastani et al., Nature
        Communications 2025), which shows more of the stiff ones.

    Returns
    -------
    list of Molecule
        ``variant`` is 0 ... n - 1; ``rmsd`` is what was reached and ``amplitudes`` are the modes' shares
        of it in Å with sign, whose squares sum up to its square. Each is superposed on ``molecule``, so
        that a rotation means the same for both.

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
    pairs = _neighbours(molecule)
    more: dict[str, Any] = {"source": molecule.source}
    if not molecule.is_atomic:
        more |= {"occupancy": molecule.occupancy, "sigma": molecule.sigma}

    made = []
    for i in range(n):
        drawn = _draw(molecule, modes, backbone, pairs, i, rmsd, seed, scheme)
        # Three decimals, as PDB files have: the last bits of linear algebra differ between machines.
        moved = np.round(drawn.turn.apply(everything.move(drawn.displacement)) + drawn.shift, 3)
        variant = centred(molecule.name, molecule.elements, moved, molecule.backbone, **more)
        made.append(replace(variant, variant=i, amplitudes=drawn.amplitudes, rmsd=drawn.rmsd))
    return made


def check(template: Molecule, variant: Molecule) -> Check:
    """Compare a variant with its template, atom by atom."""
    before, after = (m.positions[m.backbone].astype(np.float64) for m in (template, variant))
    turn, shift = _superposition(after, before)
    return _check(before, turn.apply(after) + shift, _neighbours(template), template.is_atomic)


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
    if len(points) > MIN_CHOSEN:
        chosen = _evenly(points, min(max(MIN_CHOSEN, len(points) // 4), MAX_CHOSEN))
        backbone, points = backbone[chosen], points[chosen]
    spacing = float(np.median(cKDTree(points).query(points, k=2)[0][:, 1]))

    hessian = _hessian(points, max(CUTOFF, CUTOFF_SPACINGS * spacing))
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
    from scipy.sparse.csgraph import connected_components

    with warnings.catch_warnings():  # of a pyproject.toml that some package leaves beside Biopython's
        warnings.filterwarnings("ignore", message="You may be importing Biopython")
        try:
            import prody
        except ModuleNotFoundError as error:
            raise InputError(NEEDS_PRODY) from error
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


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A variant's motion: displacements of the nodes, and the turn and shift that superpose it."""

    displacement: Array  # (m, 3)
    amplitudes: tuple[float, ...]
    rmsd: float
    turn: Rotation
    shift: Array


def _draw(
    molecule: Molecule,
    modes: Modes,
    backbone: _Neighbourhoods,
    pairs: NDArray[np.int64],
    i: int,
    rmsd: tuple[float, float],
    seed: int,
    scheme: Scheme,
) -> _Drawn:
    """Draw variant i until it passes its check."""
    rng = seeds.generator(seed, "variant", i)
    for _ in range(_DRAWS):
        wanted = float(rng.uniform(*rmsd))
        amplitudes = _amplitudes(modes, scheme, rng)
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
        if _check(backbone.atoms, moved, pairs, molecule.is_atomic).passed:
            shares = reached * amplitudes / np.linalg.norm(amplitudes)
            in_angstrom = tuple(round(float(a), 4) for a in shares)
            return _Drawn(displacement, in_angstrom, round(reached, 4), turn, shift)
    raise InputError(
        f"{molecule.name}: none of {_DRAWS} flexible variants of {rmsd[0]:g} to {rmsd[1]:g} Å RMSD kept its "
        "chains whole; set a smaller rmsd in variants"
    )


def _amplitudes(modes: Modes, scheme: Scheme, rng: np.random.Generator) -> Array:
    """Draw amplitudes (k,), not yet scaled."""
    if scheme == "uniform":
        return rng.uniform(-1, 1, len(modes.eigenvalues))
    # Noise on the nodes as each mode sees it: normal amplitudes, and the same motion whatever basis the
    # solver chose among modes of one eigenvalue, which symmetric molecules have many of.
    noise = rng.normal(size=modes.vectors.shape[:2])
    return np.asarray(np.einsum("nik,ni->k", modes.vectors, noise) / np.sqrt(modes.eigenvalues), np.float64)


def _superposition(moved: Array, fixed: Array) -> tuple[Rotation, Array]:
    """Find the turn and shift that bring atoms to the least RMSD from where they were."""
    centre = moved.mean(axis=0)
    turn, _ = Rotation.align_vectors(fixed - fixed.mean(axis=0), moved - centre)
    return turn, fixed.mean(axis=0) - turn.apply(centre)


def _neighbours(molecule: Molecule) -> NDArray[np.int64]:
    """Pairs of backbone atoms, (k, 2) numbers among them, whose distances a variant should keep."""
    points = molecule.positions[molecule.backbone].astype(np.float64)
    if molecule.is_atomic:
        first = np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=1) < _BOND)
        return np.stack([first, first + 1], axis=1)
    count = min(_AROUND + 1, len(points))
    distances, nearest = cKDTree(points).query(points, k=count)
    # what the fit has moved close together stretches a lot by little
    far = distances[:, 1:] > 0.5 * np.median(distances[:, 1])
    own = np.broadcast_to(np.arange(len(points))[:, None], far.shape)[far]
    pairs = np.sort(np.stack([own, nearest[:, 1:][far]], axis=1), axis=1)
    return np.unique(pairs, axis=0)


def _check(before: Array, after: Array, pairs: NDArray[np.int64], is_atomic: bool) -> Check:
    """Compare superposed backbones, (n, 3) each in Å."""
    lengths = [np.linalg.norm(xyz[pairs[:, 0]] - xyz[pairs[:, 1]], axis=1) for xyz in (before, after)]
    stretch = np.abs(lengths[1] / lengths[0] - 1)
    kept = float(np.mean(stretch <= STRETCH)) if len(pairs) else 1.0
    largest = float(stretch.max(initial=0.0))
    clashes = 0
    if is_atomic:
        close = cKDTree(after).query_pairs(_CLASH, output_type="ndarray")
        apart = np.linalg.norm(before[close[:, 0]] - before[close[:, 1]], axis=1) > _CLASH + 0.5
        clashes = int(np.count_nonzero(apart))
    whole = largest <= MAX_STRETCH or not is_atomic
    passed = kept >= KEPT and whole and clashes <= MAX_CLASHES * len(before)
    return Check(_rms(after - before), kept, largest, clashes, passed)


def _rms(displacements: Array) -> float:
    return float(np.sqrt(np.mean(np.sum(displacements**2, axis=1))))
