"""What stands where: the one source of truth for the simulator and for the labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs import particles
from tlgen.molecule import Library


@dataclass(frozen=True, eq=False)
class Scene:
    """Placed molecules in a box. It names molecules by digest and holds no atoms, so it travels cheaply.

    Attributes
    ----------
    shape
        Voxels of the tomogram along z, y, x.
    voxel_size
        Å.
    digests, names, variants, labels
        Of each distinct molecule: its digest in the library, the structure's name, the number of the
        variant (-1: none), the label of its class (0: a distractor).
    class_names
        Name of the class with label 1, 2, ...
    which
        (n,) index of each placed molecule into ``digests``.
    positions
        (n, 3) x, y, z in Å of each molecule's centre from the centre of the box.
    quaternions
        (n, 4) x, y, z, w of each molecule's rotation, particle -> tomogram.
    """

    shape: tuple[int, int, int]
    voxel_size: float
    digests: tuple[str, ...]
    names: tuple[str, ...]
    variants: tuple[int, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    which: NDArray[np.int64]
    positions: NDArray[np.float64]
    quaternions: NDArray[np.float64]

    @property
    def box(self) -> tuple[float, float, float]:
        """Lengths of the box along x, y, z in Å."""
        z, y, x = self.shape
        return (x * self.voxel_size, y * self.voxel_size, z * self.voxel_size)

    @property
    def centre(self) -> NDArray[np.float64]:
        """Centre of the box in the tomogram's coordinates, (x, y, z) in Å: voxel 0's centre is 0 Å."""
        return (np.array(self.shape[::-1], np.float64) - 1) / 2 * self.voxel_size

    def particles(self, tomogram: str) -> pd.DataFrame:
        """Return the particle table: row k has instance k + 1; label 0 marks a distractor."""
        labels = np.array(self.labels, np.int64)[self.which]
        names = ("distractor", *self.class_names)
        xyz = self.positions + self.centre
        return particles.make(
            tomogram=[tomogram] * len(self.which),
            class_name=[names[label] for label in labels],
            label=labels,
            instance=np.arange(1, len(self.which) + 1),
            x=xyz[:, 0],
            y=xyz[:, 1],
            z=xyz[:, 2],
            qx=self.quaternions[:, 0],
            qy=self.quaternions[:, 1],
            qz=self.quaternions[:, 2],
            qw=self.quaternions[:, 3],
            structure=[self.names[k] for k in self.which],
            variant=[self.variants[k] for k in self.which],
        )

    def atoms(self, i: int, library: Library) -> NDArray[np.float64]:
        """Place the atoms of molecule ``i``: (n_atoms, 3) x, y, z in Å from the centre of the box."""
        molecule = library[self.digests[self.which[i]]]
        placed = Rotation.from_quat(self.quaternions[i]).apply(molecule.positions) + self.positions[i]
        return np.asarray(placed, np.float64)
