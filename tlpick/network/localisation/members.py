"""Assigns voxels to the nearest cluster centre, and sums them up block by block.

The sums are integers, so the sums over blocks equal those of the whole volume exactly. With ``connected``,
voxels that are not connected within their class are kept apart as well. A cluster then has several pieces,
and pieces that are cut by blocks are joined at the blocks' faces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tlpick.network.localisation.blocks import Block, Volume8, cut
from tlpick.network.localisation.meanshift import Map

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NOWHERE = np.zeros((1, 1, 1), np.int32)

_ROWS = 4096  # that memory is taken for at first
# Edge of the coarser cells over that of the finer ones.
_COARSE = 3.0

#: Cells of a grid over the volume: start of each cell's list, the lists, and the cells along z, y, x.
Cells = tuple[Ints, Ints, Ints]


@dataclass(frozen=True, eq=False)
class Members:
    """Clusters of one class, or the connected pieces of clusters.

    Attributes
    ----------
    centre
        (n,) number of the nearest centre.
    component
        (n,) number of the connected component; 0 if components were not searched.
    size
        (n,) voxels.
    sums
        (n, 3) sums of the voxels' indices z, y, x.
    score
        (n,) sum of the voxels' scores in 1/255.
    """

    centre: Ints
    component: Ints
    size: Ints
    sums: Ints
    score: Ints

    @property
    def means(self) -> Floats:
        """(n, 3) mean place of the voxels, z, y, x."""
        means: Floats = self.sums / self.size[:, np.newaxis]
        return means


@dataclass(frozen=True, eq=False)
class _Task:
    labels: Volume8
    score: Volume8
    block: Block
    centres: dict[int, Floats]
    cell: dict[int, float]
    limit: dict[int, float]
    connected: bool
    smallest: dict[int, int]


@dataclass(frozen=True, eq=False)
class _Part:
    """The contribution of one block.

    ``members`` are its clusters by label. ``label_of`` has the label of each of its connected bodies, and
    ``low`` and ``high`` are the bodies (counted from 1; 0 is none) on its faces across z, y and x.
    """

    members: dict[int, Members]
    label_of: NDArray[np.uint8]
    low: list[NDArray[np.int32]]
    high: list[NDArray[np.int32]]


def gather(
    labels: Volume8,
    score: Volume8,
    centres: Mapping[int, Floats],
    radii: Mapping[int, float],
    *,
    edge: int,
    reach: float = math.inf,
    connected: bool = False,
    smallest: Mapping[int, int] | None = None,
    run: Map = map,
) -> dict[int, Members]:
    """Assign every voxel of some classes to the nearest centre of its class.

    Parameters
    ----------
    labels, score
        (z, y, x) class, and probability in 1/255, of each voxel; in memory or read piece by piece.
    centres
        Label -> (n, 3) voxels z, y, x.
    radii
        Label -> radius of the class, voxels.
    edge
        Edge of a block, voxels; it affects memory and time, but not the result.
    reach
        Voxels further than so many radii from all centres belong to none.
    connected
        Keep components apart that are not connected by faces of voxels.
    smallest
        Label -> voxels; with ``connected``, smaller components may be left out, as nobody needs them. Noise
        has millions.
    run
        How blocks are worked on, as :func:`map`.

    Returns
    -------
    dict
        Label -> the clusters that have voxels, in the order of the centres.
    """
    blocks = cut(labels.shape, edge, 0)
    wanted = {label: places for label, places in centres.items() if len(places)}
    limit = {label: reach * radii[label] for label in wanted}
    tasks = [
        _Task(labels, score, block, wanted, dict(radii), limit, connected, dict(smallest or {}))
        for block in blocks
    ]
    parts: list[_Part] = list(run(_gather_task, tasks))
    bodies = _join(blocks, parts) if connected else None
    found = {}
    for label in centres:
        of_label = []
        offset = 0
        for part in parts:
            members = part.members.pop(label, None)
            if members is not None:
                component = members.component
                if bodies is not None:
                    component = bodies[offset + component]
                of_label.append((members, component))
            offset += len(part.label_of)
        found[label] = _merge(of_label)
    return found


def _merge(parts: Sequence[tuple[Members, Ints]]) -> Members:
    """Sum up voxels of the same centre and component."""
    if not parts:
        none = np.empty(0, np.int64)
        return Members(none, none, none, np.empty((0, 3), np.int64), none)
    centre = np.concatenate([members.centre for members, _ in parts])
    component = np.concatenate([component for _, component in parts])
    n = int(centre.max(initial=0)) + 1
    unique, where = np.unique(component * n + centre, return_inverse=True)

    def total(values: Ints) -> Ints:
        out = np.zeros(len(unique), np.int64)
        np.add.at(out, where, values)
        return out

    sums = np.concatenate([members.sums for members, _ in parts])
    return Members(
        centre=unique % n,
        component=unique // n,
        size=total(np.concatenate([members.size for members, _ in parts])),
        sums=np.stack([total(sums[:, axis]) for axis in range(3)], axis=1),
        score=total(np.concatenate([members.score for members, _ in parts])),
    )


def _gather_task(task: _Task) -> _Part:
    block = task.block
    labels = block.read(task.labels)
    score = block.read(task.score)
    bodies, label_of = _bodies(labels) if task.connected else (_NOWHERE, np.empty(0, np.uint8))
    members = {}
    for label, centres in task.centres.items():
        # nearly every voxel has a centre within a radius; coarser cells serve the others
        shape, cell = np.array(block.shape, np.int64), task.cell[label]
        near, far = _cells(centres, cell, shape), _cells(centres, _COARSE * cell, shape)
        rows, lost = _sum_up(
            labels, score, bodies, label, block.low, centres, cell, near, far, task.limit[label],
            task.connected,
        )  # fmt: skip
        if lost.any():
            rows = np.concatenate([rows, *_far_away(lost, score, bodies, block.low, centres, task.connected)])
        if len(rows):
            each = Members(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3:6], rows[:, 6])
            members[label] = _merge([(each, each.component)])
    low, high = (
        [np.take(bodies, side, axis=axis) if task.connected else _NOWHERE[0] for axis in range(3)]
        for side in (0, -1)
    )
    if task.connected:
        cut = np.zeros(len(label_of) + 1, bool)  # bodies that may go on in other blocks
        for face in (*low, *high):
            cut[face.reshape(-1)] = True
        for label, least in task.smallest.items():
            if label in members:
                members[label] = _without_small(members[label], cut[1:], least)
    return _Part(members, label_of, low, high)


def _without_small(members: Members, cut: NDArray[np.bool_], least: int) -> Members:
    """Leave out bodies of fewer voxels than ``least`` that are whole in this block."""
    voxels = np.zeros(len(cut), np.int64)
    np.add.at(voxels, members.component, members.size)
    keep = (cut | (voxels >= least))[members.component]
    return Members(
        members.centre[keep],
        members.component[keep],
        members.size[keep],
        members.sums[keep],
        members.score[keep],
    )


def _far_away(
    lost: NDArray[np.bool_],
    score: Volume8,
    bodies: NDArray[np.int32],
    low: Ints,
    centres: Floats,
    connected: bool,
) -> Iterator[Ints]:
    """Yield rows as :func:`_sum_up` gives them, one a voxel, for voxels that no centre is near to."""
    tree = cKDTree(centres)
    for plane in np.flatnonzero(lost.any(axis=(1, 2))).tolist():
        y, x = np.nonzero(lost[plane])
        inside = np.column_stack([np.full(len(y), plane), y, x])
        place = inside + low
        body = bodies[plane, y, x].astype(np.int64) - 1 if connected else np.zeros(len(y), np.int64)
        nearest = tree.query(place)[1]
        one = np.ones(len(y), np.int64)
        yield np.column_stack([nearest, body, one, place, score[plane, y, x].astype(np.int64)])


def _join(blocks: Sequence[Block], parts: Sequence[_Part]) -> Ints:
    """Give one number to components of different blocks that touch across a face."""
    offset = np.concatenate([[0], np.cumsum([len(part.label_of) for part in parts])])
    at = {tuple(core.start for core in block.core): k for k, block in enumerate(blocks)}
    pairs: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    for k, block in enumerate(blocks):
        for axis in range(3):
            corner = [core.start for core in block.core]
            corner[axis] = block.core[axis].stop
            other = at.get(tuple(corner))
            if other is None:
                continue
            ours, theirs = parts[k].high[axis], parts[other].low[axis]
            touch = (ours > 0) & (theirs > 0)
            ours, theirs = ours[touch] - 1, theirs[touch] - 1
            same = parts[k].label_of[ours] == parts[other].label_of[theirs]
            pairs.append(np.stack([ours[same] + offset[k], theirs[same] + offset[other]], axis=1))
    joined = np.unique(np.concatenate(pairs), axis=0)
    n = int(offset[-1])
    graph = coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


@numba.njit(cache=True, nogil=True)
def _cells(centres: Floats, cell: float, shape: Ints) -> Cells:
    """List for each cell of a grid over the volume the centres in it and in the 26 around it.

    ``items[first[k] : first[k + 1]]`` are those of cell k, in ascending order.
    """
    dims = np.empty(3, np.int64)
    for axis in range(3):
        dims[axis] = int(shape[axis] / cell) + 1
    first = np.zeros(dims[0] * dims[1] * dims[2] + 1, np.int64)
    items = np.zeros(1, np.int64)
    for filling in range(2):
        if filling:
            first[1:] = np.cumsum(first[1:])
            items = np.zeros(first[-1], np.int64)
            at = first[:-1].copy()
        for i in range(len(centres)):
            cz, cy, cx = int(centres[i, 0] / cell), int(centres[i, 1] / cell), int(centres[i, 2] / cell)
            for z in range(max(cz - 1, 0), min(cz + 2, dims[0])):
                for y in range(max(cy - 1, 0), min(cy + 2, dims[1])):
                    for x in range(max(cx - 1, 0), min(cx + 2, dims[2])):
                        k = (z * dims[1] + y) * dims[2] + x
                        if filling:
                            items[at[k]] = i
                            at[k] += 1
                        else:
                            first[k + 1] += 1
    return first, items, dims


@numba.njit(inline="always")
def _square(centres: Floats, i: int, z: int, y: int, x: int) -> float:
    return (centres[i, 0] - z) ** 2 + (centres[i, 1] - y) ** 2 + (centres[i, 2] - x) ** 2


@numba.njit(cache=True, nogil=True)
def _nearest(z: int, y: int, x: int, centres: Floats, cell: float, cells: Cells) -> tuple[int, float]:
    """Find the nearest centre (the first of equals) in a voxel's cell and its neighbours, and its distance².

    It is the nearest of all centres if the distance is at most the edge of a cell.
    """
    first, items, dims = cells
    k = (int(z / cell) * dims[1] + int(y / cell)) * dims[2] + int(x / cell)
    best, least = -1, np.inf
    for i in items[first[k] : first[k + 1]]:
        square = _square(centres, i, z, y, x)
        if square < least:
            best, least = i, square
    return best, least


@numba.njit(cache=True, nogil=True)
def _sum_up(
    labels: NDArray[np.uint8],
    score: NDArray[np.uint8],
    bodies: NDArray[np.int32],
    label: int,
    low: Ints,
    centres: Floats,
    cell: float,
    near: Cells,
    far: Cells,
    limit: float,
    connected: bool,
) -> tuple[Ints, NDArray[np.bool_]]:
    """Assign every voxel of a class to its nearest centre (the first of equals) and sum up.

    Returns rows of (centre, body, size, sums of z, y, x and score), more than one of a centre and body; and
    the voxels that no centre is near to, which are in none of them.
    """
    nz, ny, nx = labels.shape
    lost = np.zeros((nz, ny, nx), np.bool_)
    # connected, there is a row for each run of voxels along x; how many there are shows as they are met
    rows = np.zeros((_ROWS if connected else len(centres), 7), np.int64)
    used = 0
    for z in range(nz):
        gz = z + low[0]
        for y in range(ny):
            gy = y + low[1]
            last_centre, last_body = -1, -1
            for x in range(nx):
                if labels[z, y, x] != label:
                    continue
                gx = x + low[2]
                best, least = _nearest(gz, gy, gx, centres, cell, near)
                if least > cell * cell and limit > cell:
                    best, least = _nearest(gz, gy, gx, centres, _COARSE * cell, far)
                    if least > (_COARSE * cell) ** 2 and limit > _COARSE * cell:
                        lost[z, y, x] = True
                        continue
                if least > limit * limit:
                    continue
                row = best
                body = 0
                if connected:
                    body = bodies[z, y, x] - 1
                    if best != last_centre or body != last_body:
                        last_centre, last_body = best, body
                        if used == len(rows):
                            more = np.zeros((2 * used, 7), np.int64)
                            more[:used] = rows
                            rows = more
                        used += 1
                    row = used - 1
                rows[row, 0] = best
                rows[row, 1] = body
                rows[row, 2] += 1
                rows[row, 3] += gz
                rows[row, 4] += gy
                rows[row, 5] += gx
                rows[row, 6] += score[z, y, x]
    if connected:
        return rows[:used], lost
    return rows[rows[:, 2] > 0], lost


@numba.njit(cache=True, nogil=True)
def _bodies(labels: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Find the bodies: voxels of one class that are connected by faces. They count from 1.

    Returns the number of each voxel's body, 0 for background, and the class of each body.
    """
    nz, ny, nx = labels.shape
    number = np.zeros((nz, ny, nx), np.int32)
    n = 0
    for value in labels.flat:
        n += value != 0
    parent = np.zeros(n + 1, np.int32)
    used = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                label = labels[z, y, x]
                if label == 0:
                    continue
                mine = 0
                for side in range(3):
                    a, b, c = z - (side == 0), y - (side == 1), x - (side == 2)
                    if a < 0 or b < 0 or c < 0 or labels[a, b, c] != label:
                        continue
                    other = number[a, b, c]
                    while parent[other] != other:
                        parent[other] = parent[parent[other]]
                        other = parent[other]
                    if mine == 0:
                        mine = other
                    elif other != mine:
                        low, high = min(mine, other), max(mine, other)
                        parent[high] = low
                        mine = low
                if mine == 0:
                    used += 1
                    mine = used
                    parent[used] = used
                number[z, y, x] = mine
    final = np.zeros(used + 1, np.int32)
    label_of = np.zeros(used, np.uint8)
    count = 0
    for k in range(1, used + 1):
        if parent[k] == k:
            count += 1
            final[k] = count
        else:
            root = k
            while parent[root] != root:
                root = parent[root]
            final[k] = final[root]
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if labels[z, y, x] != 0:
                    k = final[number[z, y, x]]
                    number[z, y, x] = k
                    label_of[k - 1] = labels[z, y, x]
    return number, label_of[:count]
