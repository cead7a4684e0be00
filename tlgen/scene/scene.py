"""The scene: the only source of images and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs import particles
from tlgen.molecules.molecule import Library
from tlgen.scene.decoration_shapes import Decoration


@dataclass(frozen=True)
class Grid:
    """Voxels over a scene, of any size and anywhere.

    Attributes
    ----------
    shape
        Voxels along z, y, x.
    voxel_size
        Å.
    origin
        x, y, z in Å of the centre of voxel 0 in the tomogram's coordinates, whose own voxel 0 is at 0.
    """

    shape: tuple[int, int, int]
    voxel_size: float
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Scene:
    """Placed molecules in a box. Molecules are named by digest, without atoms, so a scene is small.

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
        Name of the class with label 1, 2, ...; those of the decorations are among them.
    which
        (n,) index of each placed molecule into ``digests``.
    positions
        (n, 3) x, y, z in Å of each molecule's centre from the centre of the box.
    quaternions
        (n, 4) x, y, z, w of each molecule's rotation, particle -> tomogram.
    amplitudes, rmsds
        Of each distinct molecule: its share in Å, with sign, along each normal mode, and its RMSD in Å from
        the structure, both as in :class:`tlgen.molecules.molecule.Molecule`. Empty as a whole if they are not
        known. decorations Other objects in the ice. Decoration k has instance n + k + 1, after the n
        molecules.
    asked
        Number of molecules asked for, by the name of the class; ``distractor`` stands for all distractors. A
        class is missing if as many as fit were asked for, or if the number is not known.
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
    amplitudes: tuple[tuple[float, ...], ...] = ()
    rmsds: tuple[float, ...] = ()
    decorations: tuple[Decoration, ...] = ()
    asked: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        of_each = {"names": self.names, "variants": self.variants, "labels": self.labels}
        of_each |= {"amplitudes": self.amplitudes} if self.amplitudes else {}
        of_each |= {"rmsds": self.rmsds} if self.rmsds else {}
        for name, values in of_each.items():
            if len(values) != len(self.digests):
                raise ValueError(f"a scene of {len(self.digests)} molecules has {len(values)} {name}")
        nameless = {d.class_name for d in self.decorations} - set(self.class_names)
        if nameless:
            raise ValueError(f"a scene has decorations of the class {min(nameless)!r} but not the class")

    @property
    def box(self) -> tuple[float, float, float]:
        """Lengths of the box along x, y, z in Å."""
        z, y, x = self.shape
        return (x * self.voxel_size, y * self.voxel_size, z * self.voxel_size)

    @property
    def centre(self) -> NDArray[np.float64]:
        """Centre of the box in the tomogram's coordinates, (x, y, z) in Å: voxel 0's centre is 0 Å."""
        return (np.array(self.shape[::-1], np.float64) - 1) / 2 * self.voxel_size

    @property
    def grid(self) -> Grid:
        """The tomogram's own voxels."""
        return Grid(self.shape, self.voxel_size)

    def grid_of(self, voxel_size: float) -> Grid:
        """Cover the box with voxels of another size: the smallest grid around it, with the same centre."""
        z, y, x = (int(np.ceil(n * self.voxel_size / voxel_size - 1e-9)) for n in self.shape)
        origin = self.centre - (np.array([x, y, z]) - 1) / 2 * voxel_size
        return Grid((z, y, x), voxel_size, (float(origin[0]), float(origin[1]), float(origin[2])))

    def label_of(self, decoration: Decoration) -> int:
        """Label of the class that a decoration belongs to."""
        return self.class_names.index(decoration.class_name) + 1

    def particles(self, tomogram: str, library: Library) -> pd.DataFrame:
        """Return the particle table: the molecules whose centre lies in the box, label 0 for a distractor.

        ``instance`` is 1 + the molecule's index in the scene. Further columns: ``rmsd`` of the variant from
        its structure and its share along each normal mode, ``mode_1``, ``mode_2``, ..., all in Å and 0 where
        there are none; ``inside``, the share of the molecule's atoms in the box, and ``cut``, 1 if this is
        less than 1.

        Parameters
        ----------
        tomogram
            Its name.
        library
            The molecules, by digest.
        """
        half = np.array(self.box) / 2
        inside = self.inside(library)
        rows = np.flatnonzero((np.abs(self.positions) <= half).all(axis=1))
        which = self.which[rows]
        names = ("distractor", *self.class_names)
        labels = np.array(self.labels, np.int64)[which]
        xyz = self.positions[rows] + self.centre
        quaternions = self.quaternions[rows]
        shares = self._shares_of_modes()[which]
        return particles.make(
            tomogram=[tomogram] * len(rows),
            class_name=[names[label] for label in labels],
            label=labels,
            instance=rows + 1,
            x=xyz[:, 0],
            y=xyz[:, 1],
            z=xyz[:, 2],
            qx=quaternions[:, 0],
            qy=quaternions[:, 1],
            qz=quaternions[:, 2],
            qw=quaternions[:, 3],
            structure=[self.names[k] for k in which],
            variant=[self.variants[k] for k in which],
            rmsd=np.array(self.rmsds or np.zeros(len(self.digests)), np.float64)[which],
            **{f"mode_{k + 1}": shares[:, k] for k in range(shares.shape[1])},
            inside=inside[rows],
            cut=(inside[rows] < 1).astype(np.int64),
        )

    def inside(self, library: Library) -> NDArray[np.float64]:
        """Return the share of each molecule's atoms in the box: (n,) from 0 to 1."""
        half = np.array(self.box) / 2
        shares = np.ones(len(self.which))
        for k in np.unique(self.which):
            molecule = library[self.digests[k]].points
            reach = np.linalg.norm(molecule.positions, axis=1).max(initial=0)
            mine = self.which == k
            near = mine & (np.abs(self.positions) > half - reach).any(axis=1)
            for i in np.flatnonzero(near).tolist():
                within = (np.abs(self.atoms(i, library)) <= half).all(axis=1)
                if not within.all():
                    shares[i] = np.average(within, weights=molecule.occupancy)
        return shares

    def atoms(self, i: int, library: Library) -> NDArray[np.float64]:
        """Place the atoms of molecule ``i``: (n, 3) x, y, z in Å from the centre of the box.

        Atoms that are spread out (pseudo-atoms) are given as
        :attr:`tlgen.molecules.molecule.Molecule.points`.
        """
        molecule = library[self.digests[self.which[i]]].points
        placed = Rotation.from_quat(self.quaternions[i]).apply(molecule.positions) + self.positions[i]
        return np.asarray(placed, np.float64)

    def _shares_of_modes(self) -> NDArray[np.float64]:
        """Amplitudes as (distinct molecules, modes), with zeros where a molecule has fewer."""
        shares = np.zeros((len(self.digests), max(map(len, self.amplitudes), default=0)))
        for row, amplitudes in zip(shares, self.amplitudes, strict=False):
            row[: len(amplitudes)] = amplitudes
        return shares
