"""The box in bins: what is occupied, where a molecule fits, and where it touches the most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tlgen import obstacles
from tlgen.obstacles import Bits, Bytes, Integers

if TYPE_CHECKING:
    from tlgen.tetris import HasDistance

#: Å; rounding in the positions must not eat into the gap, nor push an atom through a face.
_SLACK = 1e-5

#: Å around a molecule's place that it looks for company in, if molecules are to be spread.
_COMPANY = 100.0

#: Cubes of a molecule that are looked at first.
_CUBES = 24

#: Places at which contacts are counted for a molecule; of more, about as many are drawn.
_CANDIDATES = 2000

#: Places among them at which contacts are counted in full.
_FINALISTS = 50

#: Parts along an axis that a bin at the surface of an obstacle is divided into.
_PARTS = 3


@dataclass(frozen=True, eq=False)
class Pose:
    """A molecule at an orientation, binned, and the place found for it."""

    quaternion: NDArray[np.float64]
    position: NDArray[np.float64]  # Å from the centre of the box
    occupied: Bytes  # (nx, ny, nz) 1 in the molecule's bins
    corner: Integers  # bin of the box where `occupied` begins
    contact: int  # occupied bins in the shell


class Bins:
    """The box in bins.

    Bins are indexed x, y, z from a margin below the box's lowest corner, so that the reach and the shell of
    a molecule at a face lie on the grid, too.

    Parameters
    ----------
    box
        Å along x, y, z.
    size
        Å; edge of a bin.
    gap
        Å between atoms of two molecules.
    extent
        Å from the centre to the farthest point of any molecule that is to be placed.
    cut
        Whether molecules may stick out of the box along x and y.
    """

    def __init__(self, box: NDArray[np.float64], size: float, gap: float, extent: float, cut: bool) -> None:
        self.box, self.size, self.gap, self.cut = box, size, gap + _SLACK, cut
        # bins around a molecule's own for its reach and its shell, and one more to look beside a position
        self.around = int(np.ceil(self.gap / size)) + 1
        over = int(np.ceil(extent / size)) if cut else 0
        self.margin = self.around + 1 + np.array([over, over, 0])
        nx, ny, nz = np.floor(box / size).astype(np.int64) + 1 + 2 * self.margin
        self.words = int(-(-nz // obstacles.BITS))
        #: [x, y, word]: columns along z, for counting contacts; the last word is always empty.
        self.columns: Bits = np.zeros((nx, ny, self.words + 1), np.uint64)
        # Copies of them, smeared: [copy, word, x, y], bit z; see `obstacles`. Beyond the box's bins they are
        # empty as far as a molecule there is looked at.
        beyond = 2 + int(2 * (extent / size + self.around + 1)) // obstacles.BITS
        shape = (obstacles.SPANS + obstacles.CUBES, self.words + beyond, nx, ny + obstacles.BLOCK)
        self.copies: Bits = np.zeros(shape, np.uint64)
        self.depth = int(nz)
        self.centres: list[NDArray[np.int64]] = []

    def block(self, obstacle: HasDistance) -> None:
        """Occupy every bin that any of an obstacle may be in.

        Bins are judged by their centres; those near the surface by the centres of smaller parts, so that
        molecules come nearer than the bins are wide.
        """
        nx, ny = self.columns.shape[:2]
        reach = np.sqrt(3) / 2 * self.size + _SLACK  # of a bin from its centre
        low = -self.box / 2 - self.margin * self.size
        steps = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
        parts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3) * self.size
        for x in range(nx):  # slice by slice, for memory
            y, z = np.divmod(np.arange(ny * self.depth), self.depth)
            centres = low + (np.stack([np.full_like(y, x), y, z], axis=1) + 0.5) * self.size
            distance = np.asarray(obstacle.distance(centres), np.float64)
            solid = distance <= -reach  # wholly inside
            near = np.flatnonzero(np.abs(distance) < reach)
            if len(near):
                points = (centres[near, None] + parts).reshape(-1, 3)
                closest = np.asarray(obstacle.distance(points), np.float64).reshape(len(near), -1).min(axis=1)
                solid[near] = closest <= reach / _PARTS
            if solid.any():
                mask = solid.reshape(1, ny, self.depth).astype(np.uint8)
                obstacles.stamp(self.columns, self.copies, mask, np.array([x, 0, 0]))
                self.centres.append(np.array([x, *np.argwhere(mask[0]).mean(axis=0)], np.int64))

    def place(
        self, solid: NDArray[np.float64], n_atoms: int, rng: np.random.Generator, *, spread: bool = False
    ) -> Pose | None:
        """Turn a molecule at random and find the place where it touches the most; None if it fits nowhere.

        If ``spread``, the places around a random one come first.
        """
        quaternion = rng.normal(size=4)
        quaternion /= np.linalg.norm(quaternion)
        shift = rng.uniform(0, self.size, size=3)
        salt = int(rng.integers(2**63))
        home = rng.uniform(size=3)
        points = obstacles.turned(solid, Rotation.from_quat(quaternion).as_matrix())
        lowest, highest = self._range(points[:n_atoms], shift)
        if (lowest > highest).any():
            return None
        low, high = obstacles.bounds(points)
        first = np.floor((low + shift) / self.size).astype(np.int64) - self.around
        last = np.floor((high + shift) / self.size).astype(np.int64) + self.around
        occupied, reach = obstacles.rasterise(
            points, first * self.size - shift, self.size, last - first + 1, self.gap
        )
        lo, hi = lowest + first + self.margin, highest + first + self.margin + 1
        target = lo + np.floor(home * (hi - lo)).astype(np.int64)
        if spread:
            around = int(np.ceil(_COMPANY / self.size))
            near = np.maximum(lo, target - around), np.minimum(hi, target + around + 1)
            corner, contact = self._search(reach, *near, salt, target)
            if contact < 0:
                corner, contact = self._search(reach, lo, hi, salt, target)
        elif not self.centres:
            corner, contact = target, 0
        else:
            middle = np.mean(self.centres, axis=0).astype(np.int64) + first
            corner, contact = self._search(reach, lo, hi, salt, middle)
        if contact < 0:
            return None
        position = shift + (corner - first - self.margin) * self.size - self.box / 2
        return Pose(quaternion, position, occupied, corner, contact)

    def occupy(self, pose: Pose) -> None:
        """Put a molecule at the place that was found for it."""
        obstacles.stamp(self.columns, self.copies, pose.occupied, pose.corner)
        self.centres.append(pose.corner + np.array(pose.occupied.shape) // 2)

    def _range(
        self, atoms: NDArray[np.float64], shift: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bins by which a molecule at the box's lowest corner may be moved: the first and the last."""
        low, high = obstacles.bounds(atoms)
        if self.cut:
            low[:2] = high[:2] = 0.0  # the centre counts
        lowest = np.ceil((_SLACK - low - shift) / self.size).astype(np.int64)
        highest = np.floor((self.box - _SLACK - high - shift) / self.size).astype(np.int64)
        return lowest, highest

    def _search(
        self, reach: Bytes, lo: Integers, hi: Integers, salt: int, target: Integers
    ) -> tuple[Integers, int]:
        """Find the corner in lo <= corner < hi with the most contact, else the free one nearest a target.

        The contact is -1 if there is none free.
        """
        runs = obstacles.runs(reach)
        allowed = obstacles.bits(lo[2], hi[2], self.words)
        forbidden = obstacles.forbidden(
            self.copies,
            obstacles.cubes_within(reach, _CUBES),
            obstacles.spans(runs),
            obstacles.cubes_around(reach.shape),
            allowed,
            lo,
            hi,
        )
        shell = obstacles.runs(obstacles.grown(reach) - reach)
        for wedged in (True, False):
            corners = obstacles.candidates(forbidden, allowed, lo, hi, _CANDIDATES, np.uint64(salt), wedged)
            contact, best = obstacles.most_contact(self.columns, corners, shell, _FINALISTS, np.uint64(salt))
            if contact > 0:
                return corners[best], contact
        # no free place beside anything
        found = obstacles.nearest_free(forbidden, allowed, lo, hi, target.astype(np.float64))
        return np.array(found[1:], np.int64), int(found[0])
