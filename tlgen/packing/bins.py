"""A box divided into bins: which are occupied, where a molecule fits, and where it has most contact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from tlgen.packing import obstacles, raster
from tlgen.packing.obstacles import Bits, Bytes, Integers

if TYPE_CHECKING:
    from tlgen.packing.tetris import HasDistance

#: Å; margin for rounding of positions, so that the gap is kept and no atom leaves the box.
_SLACK = 1e-5

#: Å around a molecule's random place in which neighbours are sought, if molecules are spread; then
#: everywhere.
_COMPANY = (100.0, 300.0, 1e9)

#: Cubes of a molecule that are tested first.
_CUBES = 24

#: Places at which contacts are counted for a molecule; of more, about as many are drawn.
_CANDIDATES = 2000

#: Places among them at which contacts are counted in full.
_FINALISTS = 50

#: Parts along an axis that a bin at the surface of an obstacle is divided into.
_PARTS = 3


#: Bins along an axis of a block that an obstacle is first looked for in.
_BLOCK = 16


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
        Whether molecules may extend beyond the box along x and y.
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
        """Occupy every bin that any of an obstacle may be in; InputError if it gives no distances.

        Blocks of bins are tested at their centres first, then bins at theirs, and bins at the surface at the
        centres of smaller parts, so that molecules can come nearer than the width of a bin.
        """
        shape = np.array([*self.columns.shape[:2], self.depth])
        blocks = -(-shape // _BLOCK)
        steps = np.arange(_BLOCK)
        inner = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        for x in range(blocks[0]):  # layer by layer, for memory
            y, z = np.divmod(np.arange(blocks[1] * blocks[2]), blocks[2])
            corners = np.stack([np.full_like(y, x), y, z], axis=1) * _BLOCK
            reach = np.sqrt(3) / 2 * _BLOCK * self.size
            near = self._distance(obstacle, corners + (_BLOCK - 1) / 2) <= reach
            bins = (corners[near, None] + inner).reshape(-1, 3)
            bins = bins[(bins < shape).all(axis=1)]
            bins = bins[self._holds(obstacle, bins)]
            if len(bins):
                first = bins.min(axis=0)
                mask = np.zeros(bins.max(axis=0) + 1 - first, np.uint8)
                mask[tuple((bins - first).T)] = 1
                obstacles.stamp(self.columns, self.copies, mask, first)
                self.centres.append(bins.mean(axis=0).astype(np.int64))

    def _holds(self, obstacle: HasDistance, bins: Integers) -> NDArray[np.bool_]:
        """Return for each bin whether a part of an obstacle may be in it."""
        reach = np.sqrt(3) / 2 * self.size + _SLACK  # of a bin from its centre
        distance = self._distance(obstacle, bins)
        solid = np.asarray(distance <= -reach)  # wholly inside
        near = np.flatnonzero(np.abs(distance) < reach)
        steps = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
        parts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        if len(near):
            closest = self._distance(obstacle, (bins[near, None] + parts).reshape(-1, 3))
            solid[near] = (closest.reshape(len(near), -1) <= reach / _PARTS).any(axis=1)
        return solid

    def _distance(self, obstacle: HasDistance, bins: NDArray[Any]) -> NDArray[np.float64]:
        """Distance of an obstacle from the centres of bins, or from points between them."""
        if not len(bins):
            return np.empty(0)
        points = (bins + 0.5 - self.margin) * self.size - self.box / 2
        distance = np.asarray(obstacle.distance(points), np.float64)
        if distance.shape != (len(points),) or np.isnan(distance).any():
            raise InputError(
                f"an obstacle's distance() must return one number a point, of {len(points)}, and none NaN; "
                f"{type(obstacle).__name__}'s returned shape {distance.shape}"
            )
        return distance

    def place(
        self, solid: NDArray[np.float64], n_atoms: int, rng: np.random.Generator, *, spread: bool = False
    ) -> Pose | None:
        """Rotate a molecule at random and find the place with most contact; None if it fits nowhere.

        If ``spread``, places around a random one are tried first.
        """
        quaternion = rng.normal(size=4)
        quaternion /= np.linalg.norm(quaternion)
        shift = rng.uniform(0, self.size, size=3)
        salt = int(rng.integers(2**63))
        home = rng.uniform(size=3)
        points = raster.turned(solid, Rotation.from_quat(quaternion).as_matrix())
        lowest, highest = self._range(points[:n_atoms], shift)
        if (lowest > highest).any():
            return None
        low, high = raster.bounds(points)
        first = np.floor((low + shift) / self.size).astype(np.int64) - self.around
        last = np.floor((high + shift) / self.size).astype(np.int64) + self.around
        occupied, reach = raster.rasterise(
            points, first * self.size - shift, self.size, last - first + 1, self.gap
        )
        lo, hi = lowest + first + self.margin, highest + first + self.margin + 1
        target = lo + np.floor(home * (hi - lo)).astype(np.int64)
        if spread:
            for within in _COMPANY:
                near = target - int(within // self.size), target + int(within // self.size) + 1
                limits = np.maximum(lo, near[0]), np.minimum(hi, near[1])
                corner, contact = self._search(reach, *limits, salt, target)
                if contact >= 0 or ((limits[0] == lo) & (limits[1] == hi)).all():
                    break
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
        """Place a molecule at the position that was found for it."""
        obstacles.stamp(self.columns, self.copies, pose.occupied, pose.corner)
        self.centres.append(pose.corner + np.array(pose.occupied.shape) // 2)

    def _range(
        self, atoms: NDArray[np.float64], shift: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bins by which a molecule at the box's lowest corner may be moved: the first and the last."""
        low, high = raster.bounds(atoms)
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
        shell = obstacles.runs(raster.grown(reach) - reach)
        for wedged in (True, False):
            corners = obstacles.candidates(forbidden, allowed, lo, hi, _CANDIDATES, np.uint64(salt), wedged)
            contact, best = obstacles.most_contact(self.columns, corners, shell, _FINALISTS, np.uint64(salt))
            if contact > 0:
                return corners[best], contact
        # no free place beside anything
        found = obstacles.nearest_free(forbidden, allowed, lo, hi, target.astype(np.float64))
        return np.array(found[1:], np.int64), int(found[0])
