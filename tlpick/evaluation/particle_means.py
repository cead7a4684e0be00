"""Mean particles of a corpus, stored in a model's card to show what its picks should look like."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.corpus.catalog import Catalog
from catalogs.intensity import normalise
from catalogs.particle_mean import ParticleMean, layout
from catalogs.schema import ClassInfo, SampleRecord
from catalogs.tomogram_look import TomogramLook, look_at

Floats = NDArray[np.float64]

#: Largest and smallest number of particles of a class to average.
MOST, LEAST = 300, 5
#: Largest number of tomograms whose properties are measured.
LOOKS = 24


def particle_means(catalog: Catalog, records: Sequence[SampleRecord]) -> dict[str, ParticleMean]:
    """Average the particles of each class over some samples, both aligned and unaligned.

    Parameters
    ----------
    catalog
        The corpus.
    records
        Records of samples of one voxel size. Unreadable samples are left out.

    Returns
    -------
    dict
        Class -> mean; classes with fewer than :data:`LEAST` particles are missing. If a class has several
        structures, the aligned mean is that of the most frequent one.
    """
    classes = [info for info in catalog.classes if info.is_particle]
    tables = {}
    for record in records:
        with contextlib.suppress(Exception):  # a damaged sample must not stop a training at its end
            tables[record.sample_id] = catalog.particles(record.sample_id)
    records = [record for record in records if record.sample_id in tables]
    if not records:
        return {}
    sums = {}
    for info in classes:
        names = pd.concat([t.loc[t["class_name"] == info.name, "structure"] for t in tables.values()])
        if len(names):
            sums[info.name] = _Sums(info, records[0].acquisition.voxel_size, str(names.mode().iloc[0]))
    for record in records:
        if all(each.n_aligned >= MOST for each in sums.values()):
            break
        try:
            grey = np.asarray(catalog.arrays(record.sample_id)["tomogram"][:], np.float32)
        except Exception:  # a damaged sample must not stop a training at its end
            continue
        values = normalise(grey, record.intensity)
        if np.isfinite(values).all():
            for each in sums.values():
                each.add(values, tables[record.sample_id])
    return {name: each.mean() for name, each in sums.items() if each.n_aligned >= LEAST}


def tomogram_looks(catalog: Catalog, records: Sequence[SampleRecord]) -> list[TomogramLook]:
    """Measure the properties of some evenly chosen tomograms of a corpus; unreadable ones are left out."""
    found = []
    for k in np.unique(np.linspace(0, len(records) - 1, min(len(records), LOOKS)).round().astype(int)):
        record = records[int(k)]
        try:
            grey = np.asarray(catalog.arrays(record.sample_id)["tomogram"][:], np.float32)
        except Exception:  # a damaged sample must not stop a training at its end
            continue
        values = normalise(grey, record.intensity)
        if np.isfinite(values).all():
            look = look_at(values, record.acquisition.voxel_size)
            found += [] if look is None else [look]
    return found


@dataclass
class _Sums:
    """Sums of the grey values around the particles of a class."""

    info: ClassInfo
    voxel_size: float
    structure: str
    n_aligned: int = 0
    n: int = 0
    aligned: Floats = field(init=False)
    unaligned: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._binning, self._edge = layout(self.info.radius, self.voxel_size)
        self.aligned, self.unaligned = np.zeros((2, *(self._edge,) * 3))

    def add(self, values: NDArray[np.float32], table: pd.DataFrame) -> None:
        """Add the particles that are completely inside a tomogram."""
        from scipy.spatial.transform import Rotation

        half = self._edge // 2
        steps = np.arange(-half, half + 1) * self.voxel_size * self._binning
        cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)[:, ::-1]
        ends = (np.array(values.shape[::-1]) - 1) * self.voxel_size - self.info.radius
        ours = table[table["class_name"] == self.info.name]
        centres = ours[["x", "y", "z"]].to_numpy(np.float64)
        turns = ours[["qx", "qy", "qz", "qw"]].to_numpy(np.float64)
        for centre, turn, name in zip(centres, turns, ours["structure"], strict=True):
            if self.n_aligned >= MOST or (centre < self.info.radius).any() or (centre > ends).any():
                continue
            self.unaligned += self._around(values, centre + cube)
            self.n += 1
            if name == self.structure:
                self.aligned += self._around(values, centre + Rotation.from_quat(turn).apply(cube))
                self.n_aligned += 1

    def _around(self, values: NDArray[np.float32], places: Floats) -> Floats:
        from scipy.ndimage import map_coordinates

        at = (places / self.voxel_size)[:, ::-1].T
        return np.asarray(map_coordinates(values, at, order=1, mode="nearest")).reshape((self._edge,) * 3)

    def mean(self) -> ParticleMean:
        """Divide the sums by the numbers."""
        return ParticleMean.of(
            (self.aligned / self.n_aligned).astype(np.float32),
            (self.unaligned / self.n).astype(np.float32),
            self.voxel_size * self._binning,
            self.n_aligned,
        )
