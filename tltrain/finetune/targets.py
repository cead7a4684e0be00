"""What a network is told about a tomogram of which only some particles are annotated.

An annotation is a position, a network learns voxels. The shape of a class says which voxels around a position
are its own: it is measured on the label volumes of a corpus, where every particle's voxels are known. How a
particle is turned is unknown in most lists, so that only what holds for every orientation is said:

=============================  ==============================================================
share of particles at a place  what the voxel is
=============================  ==============================================================
at least half                  of the class
less, but one in twenty        :data:`IGNORED`: protein or not, as the particle is turned
fewer                          background, within a shell around what is the class's
=============================  ==============================================================

All that is further from every annotation is :data:`UNLABELLED`: nobody has said what is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.schema import ClassInfo, SampleRecord
from catalogs.seeds import generator
from tltrain.data.damage import needed

if TYPE_CHECKING:
    from catalogs.corpus.catalog import Catalog

Floats = NDArray[np.float64]
Box = tuple[slice, slice, slice]

#: In a volume of targets: a voxel of which the loss takes no notice.
IGNORED = 255
#: In a volume of targets: nobody has said what is here.
UNLABELLED = 254

#: Share of the particles that have a voxel: from the first on it is the class's, below the second nobody's.
PRESENT, ABSENT = 0.5, 0.05
#: Beyond a sphere's surface nothing is said up to so many radii: molecules are not spheres.
SPHERE_SKIN = 1.25
#: Width of the shell of background around an annotated particle, in radii of its class. Two particles of a
#: class that touch are two radii apart, so that little of a neighbour whom nobody annotated lies within.
SHELL = 0.5

#: A class is looked at to so many radii from its centre, on so many particles at most.
_REACH, _ENOUGH = 3.0, 64
_SPHERE_STEPS = 64  # of a sphere's profile in a radius: it has to be steep


@dataclass(frozen=True, eq=False)
class Shape:
    """How large a share of the particles of a class has a voxel near the centre.

    Attributes
    ----------
    spacing
        Å between two values of ``profile`` and ``volume``.
    profile
        (n,) share at 0, 1, 2, ... times ``spacing`` from the centre, over all directions.
    volume
        (k, k, k) share in the frame of the particle, z, y, x, the centre in the middle; None where it was not
        measured.
    n_particles
        That it was measured on; 0 for a sphere.
    """

    spacing: float
    profile: Floats
    volume: Floats | None = None
    n_particles: int = 0

    @property
    def reach(self) -> float:
        """Distance from the centre in Å that a share of :data:`ABSENT` is found at, at most."""
        reach = float(np.flatnonzero(self.profile >= ABSENT).max(initial=0) + 1)
        if self.volume is not None:
            far = np.argwhere(self.volume >= ABSENT) - self.volume.shape[0] // 2
            reach = max(reach, float(np.linalg.norm(far, axis=1).max(initial=0)) + 1)
        return reach * self.spacing

    def at(self, offsets: Floats, rotation: Floats | None = None) -> Floats:
        """Read the share at some places.

        Parameters
        ----------
        offsets
            (3, ...) z, y, x from the centre of a particle, Å.
        rotation
            (3, 3) active, particle -> tomogram, of vectors x, y, z; None: unknown, so the profile is read.

        Returns
        -------
        ndarray
            (...).
        """
        from scipy.ndimage import map_coordinates

        if rotation is None or self.volume is None:
            distance = np.sqrt((offsets**2).sum(axis=0)) / self.spacing
            return np.interp(distance, np.arange(len(self.profile)), self.profile, right=0.0)
        own = np.tensordot(rotation.T, offsets[::-1], axes=1)[::-1]  # back into the frame of the particle
        index = own / self.spacing + self.volume.shape[0] // 2
        share: Floats = map_coordinates(self.volume, index, order=1, cval=0.0)
        return share


def sphere(info: ClassInfo) -> Shape:
    """Make the shape of a class of which no more is known than its radius."""
    at = np.arange(math.ceil(SPHERE_SKIN * _SPHERE_STEPS) + 2) / _SPHERE_STEPS
    skin = np.where(at <= SPHERE_SKIN, (PRESENT + ABSENT) / 2, 0.0)
    return Shape(info.radius / _SPHERE_STEPS, np.where(at <= 1, 1.0, skin))


def measure_shape(
    catalog: Catalog, records: Sequence[SampleRecord], info: ClassInfo, *, oriented: bool = False
) -> Shape:
    """Measure the shape of a class on the labels of a corpus.

    Parameters
    ----------
    catalog
        The corpus.
    records
        Of the samples to look at, of one voxel size; one after the other until there are particles enough.
    info
        The class.
    oriented
        Measure ``volume`` too.

    Returns
    -------
    Shape

    Raises
    ------
    InputError
        If no particle of the class is in the samples, or no voxel belongs to half of them.
    """
    spacing = records[0].acquisition.voxel_size
    half = math.ceil(_REACH * info.radius / spacing)
    hits, places = np.zeros((2, half + 1))
    volume = np.zeros((2 * half + 1,) * 3)
    found = 0
    for offsets, mine, rotation in _particles(catalog, records, info, half):
        bins = np.rint(np.sqrt((offsets**2).sum(axis=0))).astype(np.int64)
        near = bins <= half
        places += np.bincount(bins[near], minlength=half + 1)
        hits += np.bincount(bins[near & mine], minlength=half + 1)
        if oriented:
            volume += _upright(offsets[:, 0, 0, 0], mine, rotation, half)
        found += 1
    if not found:
        raise InputError(
            f"the corpus {catalog.url} has no whole particle of the class {info.name!r}, whose shape is "
            "wanted; use `targets=sphere`"
        )
    profile = hits / np.maximum(places, 1)
    share = float(volume.max() / found if oriented else profile.max())
    if share < PRESENT:
        raise InputError(
            f"the particles of {info.name!r} in the corpus {catalog.url} have no voxel in common: at most "
            f"{share:.0%} of them fill one; use `targets=sphere`"
        )
    return Shape(spacing, profile, volume / found if oriented else None, found)


def paint(
    table: pd.DataFrame,
    shapes: Mapping[str, Shape],
    channels: Mapping[str, int],
    *,
    shape: tuple[int, int, int],
    voxel_size: float,
    radii: Mapping[str, float],
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    background_shell: float = SHELL,
    oriented: bool = False,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Write down what the annotations of a tomogram say about its voxels.

    Where annotations disagree, a particle goes before an ignored voxel and that before background; of two
    particles the one with the higher share has the voxel.

    Parameters
    ----------
    table
        Particle table of this tomogram.
    shapes, channels, radii
        Class -> shape, the number that its voxels get, radius in Å.
    shape
        Voxels along z, y, x.
    voxel_size
        Å.
    offset
        Place (x, y, z) of the centre of voxel 0, Å.
    background_shell
        Width of the shell of background, in radii of the class.
    oriented
        Turn the shapes as the particles are turned, where that was measured.
    out
        Written to if given; otherwise a new array.

    Returns
    -------
    ndarray of uint8
        (z, y, x) numbers of classes, 0 for background, :data:`IGNORED` or :data:`UNLABELLED`.
    """
    target = np.empty(shape, np.uint8) if out is None else out
    target[:] = UNLABELLED
    centres = (table[["z", "y", "x"]].to_numpy(np.float64) - np.array(offset[::-1])) / voxel_size
    rotations = _rotations(table) if oriented else [None] * len(table)
    highest = np.zeros(shape, np.float16)  # share of the particle that has a voxel; 0 where none has
    for name, centre, rotation in zip(table["class_name"], centres, rotations, strict=True):
        zone = _Zones.around(
            centre, shapes[name], rotation, background_shell * radii[name], shape, voxel_size
        )
        part, taken = target[zone.box], highest[zone.box]
        part[zone.beside & (part == UNLABELLED)] = 0
        part[zone.doubtful & (taken == 0)] = IGNORED
        higher = zone.present & (zone.share > taken)
        taken[higher] = zone.share[higher]
        part[higher] = channels[name]
    return target


@dataclass(frozen=True, eq=False)
class _Zones:
    """What one annotation says about the voxels of a box."""

    box: Box
    share: NDArray[np.float16]
    present: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    beside: NDArray[np.bool_]

    @classmethod
    def around(
        cls,
        centre: Floats,
        known: Shape,
        rotation: Floats | None,
        width: float,
        shape: tuple[int, int, int],
        voxel_size: float,
    ) -> _Zones:
        from scipy.ndimage import distance_transform_edt

        half = math.ceil((known.reach + width) / voxel_size) + 1
        box, offsets = _around(centre, half, shape)
        share = known.at(offsets * voxel_size, rotation)
        outside = share < ABSENT
        # to the nearest voxel that may be the particle's; the box is cut where the tomogram ends
        away = distance_transform_edt(outside) if not outside.all() else np.full(share.shape, np.inf)
        return cls(
            box=box,
            share=share.astype(np.float16),
            present=share >= PRESENT,
            doubtful=~outside & (share < PRESENT),
            beside=outside & (away * voxel_size <= width),
        )


def _particles(
    catalog: Catalog, records: Sequence[SampleRecord], info: ClassInfo, half: int
) -> Iterator[tuple[Floats, NDArray[np.bool_], Floats]]:
    """Yield offsets from the centre (voxels), which voxels are the particle's, and how it is turned."""
    left = _ENOUGH
    for record in records:
        said = f"{record.name} ({record.sample_id})"
        table = needed(partial(catalog.particles, record.sample_id), said, "to measure shapes")
        table = table[(table["label"] == info.label) & (table["instance"] > 0)]
        centres = table[["z", "y", "x"]].to_numpy(np.float64) / record.acquisition.voxel_size
        margin = info.radius / record.acquisition.voxel_size
        whole = ((centres >= margin) & (centres <= np.array(record.shape) - 1 - margin)).all(axis=1)
        rows = np.flatnonzero(whole)
        if not len(rows):
            continue
        rows = generator("shape", record.sample_id, info.label).permutation(rows)[:left]
        rotations = _rotations(table)
        instances = needed(partial(_instances, catalog, record.sample_id), said, "to measure shapes")
        for row in rows:
            box, offsets = _around(centres[row], half, record.shape)
            yield offsets, instances[box] == int(table["instance"].iloc[row]), rotations[row]
        left -= len(rows)
        if left <= 0:
            return


def _instances(catalog: Catalog, sample_id: str) -> NDArray[Any]:
    return catalog.arrays(sample_id)["instances"][:]


def _around(centre: Floats, half: int, shape: tuple[int, int, int]) -> tuple[Box, Floats]:
    """Cut a box around a centre out of a volume; returns offsets (3, ...) from the centre too, in voxels."""
    middle = np.rint(centre).astype(np.int64)
    first = np.clip(middle - half, 0, np.array(shape))
    last = np.clip(middle + half + 1, first, np.array(shape))
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    places = np.meshgrid(*(np.arange(a, b) for a, b in zip(first, last, strict=True)), indexing="ij")
    return (z, y, x), np.stack([at - c for at, c in zip(places, centre, strict=True)])


def _upright(first: Floats, mine: NDArray[np.bool_], rotation: Floats, half: int) -> Floats:
    """Turn a particle's voxels back into its own frame; ``first`` is the offset of the box's first voxel."""
    from scipy.ndimage import map_coordinates

    own = np.indices((2 * half + 1,) * 3) - half
    index = np.tensordot(rotation, own[::-1], axes=1)[::-1] - first[:, None, None, None]
    share: Floats = map_coordinates(mine.astype(np.float32), index, order=1, cval=0.0)
    return share


def _rotations(table: pd.DataFrame) -> Any:
    """(n, 3, 3) active rotations, particle -> tomogram."""
    from scipy.spatial.transform import Rotation

    if table.empty:
        return np.empty((0, 3, 3))
    return Rotation.from_quat(table[["qx", "qy", "qz", "qw"]].to_numpy(np.float64)).as_matrix()
