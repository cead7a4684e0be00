"""Flexible variants of a molecule from the normal modes of its anisotropic network model.

The nodes are CA and P atoms, or pseudo-atoms, joined by equal springs (Atilgan et al., Biophys. J. 80, 505,
2001). If there are more than :data:`MIN_CHOSEN`, an evenly spaced subset is used, with a larger cut-off. This
keeps the slow modes (Doruker, Jernigan & Bahar, J. Comput. Chem. 23, 119, 2002) and removes those of single
loops and strands: of the 100 softest modes of a nucleosome's full network, one moves a tenth of the molecule;
of the subset's modes, more than 20 do. All atoms follow the nodes around them: each neighbourhood rotates and
shifts as a rigid body. Bonds therefore keep their lengths, whereas a displacement along straight lines would
stretch them (after Hoffmann & Grudinin, J. Chem. Theory Comput. 13, 2123, 2017).
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

#: Message for a recipe that asks for variants while ProDy is missing.
NEEDS_PRODY = (
    "flexible variants need ProDy, which is not installed: pip install 'template-learning[variants]', "
    "or write variants: {number: 0} in the recipe"
)
#: Smallest number of nodes for which normal modes are computed.
MIN_NODES = 10
#: Up to MIN_CHOSEN CA and P atoms are all used as nodes. From larger molecules a quarter of them is chosen,
#: but at least MIN_CHOSEN and at most MAX_CHOSEN.
MIN_CHOSEN, MAX_CHOSEN = 400, 1500
#: Å; the smallest cut-off. Springs join all nodes closer than the cut-off.
CUTOFF = 15.0
#: Where nodes are far apart, the cut-off is this many times the distance between neighbours. A node then has
#: about as many springs (50) as in the network of all CA atoms.
CUTOFF_SPACINGS = 3.0
#: Smallest share of the nodes that must take part in a mode. Other modes move a loose tail or loop only: its
#: soft springs would take up the whole RMSD and move it far out, unseen at the resolution of tomograms.
MIN_COLLECTIVITY = 0.1
#: In a variant, at least the share KEPT of the distances between neighbours along a chain changes by no more
#: than the fraction STRETCH, and no distance changes by more than MAX_STRETCH.
KEPT, STRETCH, MAX_STRETCH = 0.99, 0.15, 1 / 3
#: Largest number of new clashes of CA and P atoms in a variant, as a share of these atoms.
MAX_CLASHES = 0.001

# Eigenvalues below this are rigid motions: six, and more if nodes are loosely attached (for springs of
# constant 1).
_ZERO = 1e-6
# Number of nodes that an atom follows.
_NEIGHBOURS = 32
# Å; largest distance between neighbours along a chain: 3.8 for CA, up to 7.5 for P.
_BOND = 8.0
# Å; backbone atoms closer than this clash, unless they were as close in the original structure.
_CLASH = 2.8
# Number of nearest neighbours of a pseudo-atom whose distances are checked, because it has no chain.
_AROUND = 6
_DRAWS = 50
# Number of atoms moved at a time; one step needs about a hundred megabytes of memory.
_CHUNK = 50_000


@dataclass(frozen=True, eq=False)
class Modes:
    """Normal modes of a network of nodes, softest first.

    Attributes
    ----------
    nodes
        (m,) indices of the nodes among the molecule's atoms.
    eigenvalues
        (k,) for a spring constant of 1.
    vectors
        (m, 3, k), each of length 1, with reproducible signs.
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
        have no chains; their nearest neighbours are used instead.
    stretch
        Largest relative change of such a distance.
    clashes
        Number of pairs of CA and P atoms that are closer than 2.8 Å only in the variant. It is 0 for
        pseudo-atoms, which overlap anyway.
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

    The amplitudes of the modes are random, and scaled to an RMSD that is drawn uniformly from the range. If
    the result fails its :class:`Check`, the RMSD and the amplitudes are drawn again.

    Parameters
    ----------
    molecule
        The molecule; the nodes are taken from its backbone.
    n
        Number of variants; variant i does not depend on it.
    rmsd
        Å; smallest and largest RMSD of the CA and P atoms from ``molecule``, after superposition.
    n_modes
        Number of the softest collective modes to use; fewer if the molecule has fewer.
    seed
        Seed of the structure's variants in the corpus.
    scheme
        ``thermal``: amplitudes are normally distributed with a variance of one over the mode's eigenvalue,
        as in thermal motion. ``uniform``: amplitudes are drawn uniformly from the same range for all modes
        (Harastani et al., Nature Communications 2025), which gives more weight to the stiff ones.

    Returns
    -------
    list of Molecule
        ``variant`` is 0 ... n - 1 and ``rmsd`` is the RMSD reached. ``amplitudes`` are the signed
        contributions of the modes in Å; the sum of their squares is the square of the RMSD. Each variant is
        superposed on ``molecule``, so that a rotation means the same for both.

    Raises
    ------
    InputError
        If there are too few CA and P atoms, or the RMSD is too large for the chains to stay intact.
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
        # Three decimals, as in PDB files, because the last bits of linear algebra differ between machines.
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

    Among the softest ``5 * n_modes`` modes, the first ``n_modes`` that move at least
    :data:`MIN_COLLECTIVITY` of the nodes are taken.

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
            f"{molecule.name} has no normal modes that move at least a tenth of its atoms; "
            "set variants: {number: 0} for it"
        )
    values, vectors = values[good], vectors[:, :, good]
    # The sign of an eigenvector depends on the solver, so it is fixed here.
    marks = seeds.generator("modes", "signs").normal(size=vectors.shape[:2])
    return Modes(backbone, values, vectors * np.sign(np.einsum("nik,ni->k", vectors, marks)))


def collectivity(vectors: Array) -> Array:
    """Share of the nodes that take part in each mode, from 1/m to 1.

    This is the exponential of the entropy of the squared displacements, divided by m (Brüschweiler, J. Chem.
    Phys. 102, 3396, 1995). ``vectors`` is (m, 3, k); each mode has length 1.
    """
    share = np.sum(vectors**2, axis=1)
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-300)), axis=0)
    return np.asarray(np.exp(entropy) / len(vectors), np.float64)


def _evenly(points: Array, count: int) -> NDArray[np.int64]:
    """Choose evenly spaced points, starting at the centre: each next point is the farthest from those chosen.

    Taking every k-th atom along the chains would crowd protein and leave gaps in the wide turns of RNA, and
    chains break in the gaps between nodes.
    """
    distance = np.sum((points - points.mean(axis=0)) ** 2, axis=1)
    chosen = [int(np.argmin(distance))]
    distance[:] = np.inf
    while len(chosen) < count:
        np.minimum(distance, np.sum((points - points[chosen[-1]]) ** 2, axis=1), out=distance)
        chosen.append(int(np.argmax(distance)))
    return np.sort(np.array(chosen, np.int64))


def _hessian(nodes: Array, cutoff: float) -> Array:
    """Build the (3m, 3m) Hessian of a network; the cut-off is increased until the network is connected."""
    from scipy.sparse.csgraph import connected_components

    with warnings.catch_warnings():  # due to a pyproject.toml that some package installs beside Biopython
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
    """Keep ProDy's progress messages off the terminal, and restore its setting afterwards."""
    before = logger.verbosity
    logger.verbosity = "none"
    try:
        yield
    finally:
        logger.verbosity = before


def _softest(hessian: Array, k: int) -> tuple[Array, Array]:
    """Find the k smallest eigenvalues, ascending, and their eigenvectors.

    ProDy has a dense solver, which takes several times the CPU time for the 4500 degrees of freedom of a
    ribosome, and a sparse one without inversion, which converges poorly for the smallest eigenvalues.
    """
    if len(hessian) < 1000 or k > len(hessian) // 4:
        values, vectors = np.linalg.eigh(hessian)
        return values[:k], vectors[:, :k]
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import eigsh

    # With a shift below zero the matrix to factorise is positive definite. A fixed start vector makes the
    # result reproducible.
    start = seeds.generator("modes", "start").normal(size=len(hessian))
    values, vectors = eigsh(csc_matrix(hessian), k=k, sigma=-1e-3, which="LM", v0=start)
    order = np.argsort(values)
    return values[order], vectors[:, order]


# --------------------------------------------------------------------------------------- from nodes to atoms


@dataclass(frozen=True, eq=False)
class _Neighbourhoods:
    """Interpolates the displacements of m nodes to n atoms.

    The K nearest nodes of an atom define a rigid motion by least squares, and the atom follows it. Their
    weights fall to zero at the farthest node, so the displacement varies smoothly from atom to atom.
    """

    atoms: Array  # (n, 3)
    nodes: Array  # (m, 3)
    nearest: NDArray[np.int64]  # (n, K)
    weights: Array  # (n, K), their sum is 1
    inverse: Array  # (n, 3, 3), inverse of the inertia tensor

    def move(self, displacements: Array) -> Array:
        """Move all atoms: displacements (m, 3) of the nodes in Å -> positions (n, 3) of the atoms in Å."""
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
        # The factor 1.001 keeps the matrix invertible where all nodes of a neighbourhood lie on one line.
        inverse[part] = np.linalg.inv(1.001 * total[:, None, None] * np.eye(3) - moments)
    return _Neighbourhoods(atoms, nodes, np.asarray(nearest, np.int64), weights, inverse)


# ---------------------------------------------------------------------------------------------- variants


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A variant's motion: displacements of the nodes, and the rotation and shift that superpose it."""

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
        for _ in range(4):  # because of the rotations, the RMSD is not quite linear in the scale
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
    # Noise on the nodes, projected onto the modes, gives normal amplitudes. The motion does not depend on the
    # basis that the solver chose for degenerate modes, which are common in symmetric molecules.
    noise = rng.normal(size=modes.vectors.shape[:2])
    return np.asarray(np.einsum("nik,ni->k", modes.vectors, noise) / np.sqrt(modes.eigenvalues), np.float64)


def _superposition(moved: Array, fixed: Array) -> tuple[Rotation, Array]:
    """Find the rotation and shift that superpose moved atoms on fixed ones with the smallest RMSD."""
    centre = moved.mean(axis=0)
    turn, _ = Rotation.align_vectors(fixed - fixed.mean(axis=0), moved - centre)
    return turn, fixed.mean(axis=0) - turn.apply(centre)


def _neighbours(molecule: Molecule) -> NDArray[np.int64]:
    """Pairs of backbone atoms whose distances a variant should keep: (k, 2) indices into the backbone."""
    points = molecule.positions[molecule.backbone].astype(np.float64)
    if molecule.is_atomic:
        first = np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=1) < _BOND)
        return np.stack([first, first + 1], axis=1)
    count = min(_AROUND + 1, len(points))
    distances, nearest = cKDTree(points).query(points, k=count)
    # leave out pseudo-atoms that the fit moved very close together: small shifts stretch these pairs a lot
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
