"""Mean particles of a corpus: what the picks of a model should look like, for its card."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalogs.corpus.catalog import Catalog
from catalogs.intensity import normalise
from catalogs.particle_mean import ParticleMean, layout
from catalogs.schema import SampleRecord

#: Particles of a class that are averaged at most, and at least.
MOST, LEAST = 300, 5


def particle_means(catalog: Catalog, records: Sequence[SampleRecord]) -> dict[str, ParticleMean]:
    """Average the particles of each class of some samples, in their own orientation and as they lie.

    Parameters
    ----------
    catalog
        The corpus.
    records
        Samples of one voxel size.

    Returns
    -------
    dict
        Class -> mean; without classes that have fewer than :data:`LEAST` particles. If a class has several
        structures, the mean in the particle's own orientation is that of the most frequent one.
    """
    from scipy.ndimage import map_coordinates
    from scipy.spatial.transform import Rotation

    classes = [info for info in catalog.classes if info.is_particle]
    tables = {record.sample_id: catalog.particles(record.sample_id) for record in records}
    wanted = {info.name: _structure([table[table["class_name"] == info.name] for table in tables.values()])
              for info in classes}  # fmt: skip
    sums: dict[str, list[NDArray[np.float64]]] = {}
    counts = {info.name: [0, 0] for info in classes}
    for record in records:
        if all(n[0] >= MOST for n in counts.values()):
            break
        values = None
        size = record.acquisition.voxel_size
        for info in classes:
            table = tables[record.sample_id]
            table = table[table["class_name"] == info.name]
            binning, edge = layout(info.radius, size)
            half = edge // 2
            grid = np.arange(-half, half + 1) * size * binning
            offsets = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), axis=-1).reshape(-1, 3)[:, ::-1]
            ends = (np.array(record.shape[::-1]) - 1) * size
            for row in table.itertuples():
                centre = np.array([row.x, row.y, row.z], np.float64)
                if counts[info.name][0] >= MOST or ((centre < info.radius) | (centre > ends - info.radius)).any():
                    continue
                if values is None:
                    grey = np.asarray(catalog.arrays(record.sample_id)["tomogram"][:], np.float32)
                    values = normalise(grey, record.intensity)
                both = sums.setdefault(info.name, [np.zeros((edge,) * 3), np.zeros((edge,) * 3)])
                rotation = Rotation.from_quat([row.qx, row.qy, row.qz, row.qw])
                same = row.structure == wanted[info.name]
                for k, places in ((0, rotation.apply(offsets) if same else None), (1, offsets)):
                    if places is None:
                        continue
                    at = ((centre + places) / size)[:, ::-1].T
                    both[k] += map_coordinates(values, at, order=1, mode="nearest").reshape((edge,) * 3)
                    counts[info.name][k] += 1
    return {
        info.name: ParticleMean.of(
            (sums[info.name][0] / counts[info.name][0]).astype(np.float32),
            (sums[info.name][1] / counts[info.name][1]).astype(np.float32),
            records[0].acquisition.voxel_size * layout(info.radius, records[0].acquisition.voxel_size)[0],
            counts[info.name][0],
        )
        for info in classes
        if counts[info.name][0] >= LEAST
    }


def _structure(tables: Sequence[object]) -> str:
    """Name the structure that most particles have."""
    import pandas as pd

    names = pd.concat([table["structure"] for table in tables])  # type: ignore[index]
    return str(names.mode().iloc[0]) if len(names) else ""
