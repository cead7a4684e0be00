"""Training targets for a tomogram in which only some of the particles are annotated.

An annotation is a position, but a network learns from voxels. The shape of a class tells which voxels around
a position belong to the particle. It is measured on the label volumes of a corpus, in which the voxels of
every particle are known. Most lists do not give the orientation of particles, so the targets are limited to
what holds for every orientation:

=============================  ==============================================================
share of particles at a place  target of the voxel
=============================  ==============================================================
at least half                  the class
less, but one in twenty        :data:`IGNORED`, because it depends on the particle's orientation
fewer                          background, within a shell around the particle
=============================  ==============================================================

If a person rejected a pick, the voxels within its radius are background. Voxels that are farther from every
annotation are :data:`UNLABELLED`.
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

#: Target value of voxels that the loss ignores.
IGNORED = 255
#: Target value of voxels without annotation.
UNLABELLED = 254

#: A voxel belongs to the class if at least the first share of the particles contains it, and to no particle
#: if less than the second share does.
PRESENT, ABSENT = 0.5, 0.05
#: Voxels between the surface of a sphere and this many radii are ignored, because molecules are not spheres.
SPHERE_SKIN = 1.25
#: Width of the shell of background around an annotated particle, in radii of its class. Touching particles
#: of a class are two radii apart, so the shell contains little of a neighbour that is not annotated.
SHELL = 0.5

#: The shape of a class is measured to this many radii from the centre, on at most this many particles.
_REACH, _ENOUGH = 3.0, 64
_SPHERE_STEPS = 64  # steps per radius in the profile of a sphere, which must be steep


@dataclass(frozen=True, eq=False)
class Shape:
    """Share of the particles of a class that contain a place near their centre.

    Attributes
    ----------
    spacing
        Distance between two values of ``profile`` and ``volume``, Å.
    profile
        (n,) share at 0, 1, 2, ... times ``spacing`` from the centre, averaged over all directions.
    volume
        (k, k, k) share in the frame of the particle, z, y, x, with the centre in the middle; None if it was
        not measured.
    n_particles
        Number of particles that were measured; 0 for a sphere.
    """

    spacing: float
    profile: Floats
    volume: Floats | None = None
    n_particles: int = 0

    @property
    def reach(self) -> float:
        """Largest distance from the centre, in Å, at which the share is at least :data:`ABSENT`."""
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
            (3, 3) active rotation, particle -> tomogram, of vectors x, y, z; None if it is unknown, in which
            case the profile is used.

        Returns
        -------
        ndarray
            (...).
        """
        from scipy.ndimage import map_coordinates

        if rotation is None or self.volume is None:
            distance = np.sqrt((offsets**2).sum(axis=0)) / self.spacing
            return np.interp(distance, np.arange(len(self.profile)), self.profile, right=0.0)
        own = np.tensordot(rotation.T, offsets[::-1], axes=1)[::-1]  # in the frame of the particle
        index = own / self.spacing + self.volume.shape[0] // 2
        share: Floats = map_coordinates(self.volume, index, order=1, cval=0.0)
        return share


def sphere(info: ClassInfo) -> Shape:
    """Make the shape of a class from its radius, if nothing else is known."""
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
        Records of the samples to use, all of one voxel size. They are read in order until there are enough
        particles.
    info
        The class.
    oriented
        Whether to measure ``volume`` too.

    Returns
    -------
    Shape

    Raises
    ------
    InputError
        If the samples have no particle of the class, or no voxel is common to half of the particles.
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
    rejected: pd.DataFrame | None = None,
) -> NDArray[np.uint8]:
    """Convert the annotations of a tomogram to targets of its voxels.

    Where annotations disagree, particles take precedence over ignored voxels, and these over background. If
    two particles overlap, the one with the higher share gets the voxel.

    Parameters
    ----------
    table
        Particle table of this tomogram.
    shapes, channels, radii
        Class -> shape, target value of its voxels, radius in Å.
    shape
        Number of voxels along z, y, x.
    voxel_size
        Å.
    offset
        Position (x, y, z) of the centre of voxel 0, Å.
    background_shell
        Width of the shell of background, in radii of the class.
    oriented
        Whether to rotate the shapes as the particles are rotated, if ``volume`` was measured.
    out
        Array to write to; a new one by default.
    rejected
        Picks of this tomogram that are not particles. Voxels within the radius of the pick's class are
        background, unless an annotation says otherwise.

    Returns
    -------
    ndarray of uint8
        (z, y, x) target values: a class's number, 0 for background, :data:`IGNORED` or :data:`UNLABELLED`.
    """
    target = np.empty(shape, np.uint8) if out is None else out
    target[:] = UNLABELLED
    centres = (table[["z", "y", "x"]].to_numpy(np.float64) - np.array(offset[::-1])) / voxel_size
    rotations = _rotations(table) if oriented else [None] * len(table)
    highest = np.zeros(shape, np.float16)  # highest share of the particles so far; 0 where there is none
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
    for name, xyz in _rejected(rejected):
        centre = (xyz[::-1] - np.array(offset[::-1])) / voxel_size
        box, offsets = _around(centre, math.ceil(radii[name] / voxel_size), shape)
        part = target[box]
        near = np.sqrt((offsets**2).sum(axis=0)) * voxel_size <= radii[name]
        part[near & (part == UNLABELLED)] = 0
    return target


def _rejected(table: pd.DataFrame | None) -> Iterator[tuple[str, Floats]]:
    """Yield the class and the position (x, y, z), Å, of picks that are not particles."""
    if table is not None:
        yield from zip(table["class_name"], table[["x", "y", "z"]].to_numpy(np.float64), strict=True)


@dataclass(frozen=True, eq=False)
class _Zones:
    """Targets of the voxels of a box, from one annotation."""

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
        # distance to the nearest voxel that may belong to the particle; the tomogram's edges cut the box
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
    """Yield, for each particle, offsets from its centre (voxels), a mask of its voxels, and its rotation."""
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
    """Find the box around a centre within a volume, and the offsets (3, ...) from the centre in voxels."""
    middle = np.rint(centre).astype(np.int64)
    first = np.clip(middle - half, 0, np.array(shape))
    last = np.clip(middle + half + 1, first, np.array(shape))
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    places = np.meshgrid(*(np.arange(a, b) for a, b in zip(first, last, strict=True)), indexing="ij")
    return (z, y, x), np.stack([at - c for at, c in zip(places, centre, strict=True)])


def _upright(first: Floats, mine: NDArray[np.bool_], rotation: Floats, half: int) -> Floats:
    """Rotate a particle's voxels back to its own frame; ``first`` is the offset of the box's first voxel."""
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
