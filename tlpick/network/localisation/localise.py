"""Finds particles in a segmentation: clusters of voxels of each class, filtered, scored and flagged.

There are three methods to find the clusters:

``meanshift``
    Flat-kernel mean shift with the class's radius as bandwidth, as in the paper
    (:mod:`tlpick.network.localisation.meanshift`).
``components``
    Connected components. If mean shift finds several clusters in a component, those further apart than
    :data:`APART` radii are separate particles: touching particles are split, long ones stay whole.
``peaks``
    Maxima of the smoothed probability (:mod:`tlpick.network.localisation.peaks`).

The computation goes block by block with integer sums, so the division into blocks does not change the picks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from catalogs.former_names import accepts_former
from catalogs.plugins import Known
from catalogs.schema import ClassInfo
from tlpick.network.localisation.blocks import Volume8
from tlpick.network.localisation.meanshift import Map, modes
from tlpick.network.localisation.members import Members, gather
from tlpick.network.localisation.peaks import peaks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Edge of the blocks in which a volume is processed, voxels.
BLOCK = 160
#: Clusters of one component that are nearer than this, in radii, are parts of one particle. Two touching
#: solid spheres are two radii apart; the two halves of a thin rod, with a radius from its radius of gyration,
#: 1.3.
APART = 1.5
#: With ``peaks``, voxels further than so many radii from all peaks belong to no particle.
PEAK_REACH = 1.5


class Localiser(Protocol):
    """Finds the positions of particles; entry points of other packages name such a function.

    Voxels of a class belong to the nearest position, up to :data:`PEAK_REACH` radii away. Scores, sizes and
    duplicates follow as for all other methods.
    """

    def __call__(
        self, labels: Volume8, score: Volume8, radii: Mapping[int, float], *, edge: int, run: Map
    ) -> Mapping[int, Floats]:
        """Find the particles.

        Parameters
        ----------
        labels, score
            (z, y, x) class, and probability in 1/255, of each voxel; in memory or read in parts.
        radii
            Label of each class -> its radius, voxels.
        edge
            Edge of the blocks in which the volume may be processed, voxels.
        run
            Function that maps over blocks, like :func:`map`.

        Returns
        -------
        mapping
            Label -> (n, 3) voxels z, y, x.
        """


#: Localisers by name. Mean shift and components are part of :func:`localise`, so they have no function.
LOCALISERS: Known[Localiser | None] = Known(
    "localisers",
    "localiser",
    {"meanshift": lambda: None, "components": lambda: None, "peaks": lambda: peaks},
    "method",
)


@accepts_former(exclusion="min_separation")
@dataclass(frozen=True)
class Options:
    """How particles are found in a segmentation.

    Attributes
    ----------
    method
        ``meanshift``, ``components`` or ``peaks``, or the name of one that a package adds.
    min_size, max_size
        Smallest and largest size of a pick as a share of a particle's volume; None: no limit.
    sizes
        Class -> (min_size, max_size) for this class.
    min_separation
        Of two picks nearer than this share of the sum of their radii, the one with the lower score is
        dropped, whatever their classes; 0 keeps all.
    border
        ``flag`` or ``drop`` picks within a radius of the volume's faces.
    """

    method: str = "meanshift"
    min_size: float = 0.1
    max_size: float | None = None
    sizes: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    min_separation: float = 0.5
    border: Literal["flag", "drop"] = "flag"


@dataclass(frozen=True, eq=False)
class Picks:
    """The particles of one class in one tomogram, those with the highest scores first.

    Attributes
    ----------
    label
        The class's value in the segmentation.
    centres
        (n, 3) positions x, y, z in Å: the mean of each cluster's voxels.
    voxels
        (n,) size of each cluster in voxels.
    scores
        (n,) ``probability`` times :func:`size_agreement`, 0 to 1.
    probability
        (n,) mean probability of the class over the cluster's voxels, 0 to 1.
    size
        (n,) size of each cluster over that of a particle.
    border
        (n,) True within a radius of the volume's faces: such a particle may be cut.
    """

    label: int
    centres: Floats
    voxels: Ints
    scores: Floats
    probability: Floats
    size: Floats
    border: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.centres)

    def __getitem__(self, rows: Any) -> Picks:
        """Select picks by an index array or a mask."""
        chosen = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, **chosen)

    @property
    def flags(self) -> list[str]:
        """Flags of each pick, as words; empty if there are none."""
        return ["border" if here else "" for here in self.border]


_ARRAYS = ("centres", "voxels", "scores", "probability", "size", "border")


def localise(
    labels: Volume8,
    score: Volume8,
    classes: Sequence[ClassInfo],
    voxel_size: float,
    options: Options | None = None,
    *,
    volumes: Mapping[str, float] | None = None,
    block: int = BLOCK,
    run: Map = map,
) -> list[Picks]:
    """Find the particles of every class.

    Parameters
    ----------
    labels
        (z, y, x) class of each voxel, 0 for background; in memory or read in parts (Zarr).
    score
        (z, y, x) target probability in 1/255, in the same way.
    classes
        The classes to find; the bandwidth of each is its radius.
    voxel_size
        Voxel size of the grid, Å.
    options
        Method and limits; None: the defaults.
    volumes
        Class -> volume of a particle in this segmentation, Å³, if known (from a calibrated model); otherwise
        that of a sphere with the class's radius.
    block
        Edge of the blocks in which the volume is processed, voxels; larger ones need more memory.
    run
        Function that maps over blocks: ``map``, or that of a pool of threads or processes.

    Returns
    -------
    list of Picks
        One for each class, in the order of ``classes``; empty for classes that are not particles, such as
        membranes.
    """
    options = options or Options()
    smallest = {
        info.label: math.floor(_expected(info, voxel_size, volumes) * _limits(info, options)[0])
        for info in classes
        if info.is_particle
    }
    found = find(labels, score, classes, voxel_size, options, block=block, run=run, smallest=smallest)
    return score_clusters(found, classes, voxel_size, options, volumes)


@dataclass(frozen=True, eq=False)
class Found:
    """The clusters of a volume by the label of their class, before they are scored and filtered.

    ``shape`` is the shape of the volume, voxels (z, y, x).
    """

    clusters: dict[int, Members]
    shape: tuple[int, ...]


def find(
    labels: Volume8,
    score: Volume8,
    classes: Sequence[ClassInfo],
    voxel_size: float,
    options: Options,
    *,
    block: int = BLOCK,
    run: Map = map,
    smallest: Mapping[int, int] | None = None,
) -> Found:
    """Do the first half of :func:`localise`: everything that reads voxels.

    Components of fewer voxels than ``smallest`` says for their label may be left out.
    """
    radii = {info.label: info.radius / voxel_size for info in classes if info.is_particle}
    shape = tuple(labels.shape)
    return Found(_clusters(labels, score, radii, options, block, run, smallest) if radii else {}, shape)


def score_clusters(
    found: Found,
    classes: Sequence[ClassInfo],
    voxel_size: float,
    options: Options,
    volumes: Mapping[str, float] | None = None,
) -> list[Picks]:
    """Do the second half of :func:`localise`: score, filter and flag the clusters."""
    shape = np.array(found.shape)
    picks = []
    for info in classes:
        if info.label not in found.clusters:
            picks.append(_nothing(info.label))
            continue
        expected = _expected(info, voxel_size, volumes)
        radius = info.radius / voxel_size
        clusters = _picks(info.label, found.clusters[info.label], expected, radius, shape, voxel_size)
        least, most = _limits(info, options)
        keep = (clusters.size >= least) & (clusters.size <= (math.inf if most is None else most))
        if options.border == "drop":
            keep &= ~clusters.border
        picks.append(clusters[keep])
    return without_duplicates(picks, {info.label: info.radius for info in classes}, options.min_separation)


def _expected(info: ClassInfo, voxel_size: float, volumes: Mapping[str, float] | None) -> float:
    """Return the size of a particle, voxels."""
    sphere = 4 / 3 * math.pi * info.radius**3
    return (volumes or {}).get(info.name, sphere) / voxel_size**3


def _limits(info: ClassInfo, options: Options) -> tuple[float, float | None]:
    return options.sizes.get(info.name, (options.min_size, options.max_size))


def size_agreement(size: Floats) -> Floats:
    """Rate how well sizes agree with that of a particle: 1 if equal, towards 0 for large differences.

    Parameters
    ----------
    size
        Volume divided by that of a particle.

    Returns
    -------
    ndarray
        Ratio of the smaller to the larger radius of spheres with these volumes.
    """
    size = np.asarray(size, np.float64)
    agreement: Floats = np.cbrt(np.minimum(size, 1 / np.maximum(size, 1e-12)))
    return agreement


def without_duplicates(
    picks: Sequence[Picks], radii: Mapping[int, float], min_separation: float
) -> list[Picks]:
    """Drop picks that are too near to a better one of any class.

    Parameters
    ----------
    picks
        Picks of one tomogram, one entry for each class.
    radii
        Label -> radius of the class, Å.
    min_separation
        Two picks belong to one particle if they are nearer than this share of the sum of their radii.

    Returns
    -------
    list of Picks
        The remaining picks, the highest scores first.
    """
    ordered = [each[np.lexsort((*each.centres.T, -each.scores))] for each in picks]
    centres = np.concatenate([np.empty((0, 3)), *(each.centres for each in ordered)])
    if not len(centres) or min_separation <= 0:
        return ordered
    scores = np.concatenate([each.scores for each in ordered])
    radius = np.concatenate([np.full(len(each), radii[each.label]) for each in ordered])
    pairs = cKDTree(centres).query_pairs(2 * min_separation * radius.max(), output_type="ndarray")
    far = np.linalg.norm(centres[pairs[:, 0]] - centres[pairs[:, 1]], axis=1)
    pairs = pairs[far < min_separation * (radius[pairs[:, 0]] + radius[pairs[:, 1]])]
    rank = np.empty(len(centres), np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(centres))
    better, worse = np.sort(rank[pairs], axis=1).T
    keep = np.ones(len(centres), bool)  # by rank
    for k in np.lexsort((worse, better)):
        if keep[better[k]]:
            keep[worse[k]] = False
    ends = np.cumsum([len(each) for each in ordered])[:-1]
    return [each[kept] for each, kept in zip(ordered, np.split(keep[rank], ends), strict=True)]


def _clusters(
    labels: Volume8,
    score: Volume8,
    radii: dict[int, float],
    options: Options,
    block: int,
    run: Map,
    smallest: Mapping[int, int] | None,
) -> dict[int, Members]:
    localiser = LOCALISERS.named(options.method)
    if localiser is not None:
        places = localiser(labels, score, radii, edge=block, run=run)
        seeds = {label: np.asarray(places.get(label, np.empty((0, 3))), np.float64) for label in radii}
        return gather(labels, score, seeds, radii, edge=block, reach=PEAK_REACH, run=run)
    centres = modes(labels, radii, edge=block, run=run)
    connected = options.method == "components"
    found = gather(labels, score, centres, radii, edge=block, connected=connected, smallest=smallest, run=run)
    if connected:
        return {label: _of_bodies(members, APART * radii[label]) for label, members in found.items()}
    return found


def _of_bodies(pieces: Members, apart: float) -> Members:
    """Join the pieces of each component that are nearer than ``apart`` voxels, transitively."""
    means = pieces.means
    n = len(means)
    # Along a fourth axis bodies lie further apart than pieces may: noise has hundreds of thousands of pieces,
    # and all pairs of near ones would fill the memory.
    body = np.unique(pieces.component, return_inverse=True)[1].reshape(n, 1) * (2.0 * apart)
    tree = cKDTree(np.hstack([means, body])) if n else None
    pairs = np.empty((0, 2), int) if tree is None else tree.query_pairs(apart, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    particle = np.asarray(connected_components(graph, directed=False)[1] if n else [], np.int64)
    total = np.zeros((n, 5), np.int64)
    np.add.at(total, particle, np.column_stack([pieces.size, pieces.sums, pieces.score]))
    total = total[: int(particle.max(initial=-1)) + 1]
    first = np.unique(particle, return_index=True)[1]
    return Members(pieces.centre[first], pieces.component[first], total[:, 0], total[:, 1:4], total[:, 4])


def _picks(
    label: int, clusters: Members, expected: float, radius: float, shape: Ints, voxel_size: float
) -> Picks:
    # a flat kernel stops anywhere inside a larger body, so the pick is the mean of the voxels
    means = clusters.means
    size = clusters.size / expected
    probability = clusters.score / clusters.size / 255
    return Picks(
        label=label,
        centres=means[:, ::-1] * voxel_size,
        voxels=clusters.size,
        scores=probability * size_agreement(size),
        probability=probability,
        size=size,
        # the outer face of the first voxel lies half a voxel before its centre
        border=np.asarray(((means + 0.5 < radius) | (shape - 0.5 - means < radius)).any(axis=1)),
    )


def _nothing(label: int) -> Picks:
    none = np.empty(0)
    return Picks(label, np.empty((0, 3)), np.empty(0, np.int64), none, none, none, np.empty(0, bool))
