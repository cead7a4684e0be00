"""Sweeps a network along one axis of a volume, a few planes at a time, without computing anything twice.

A convolution needs a window of planes around each plane of its result. The sweep feeds planes into the first
layer; each layer computes the results for which it has enough input, and keeps the last planes for its next
results. So there are no tiles along the axis of the sweep, and no voxel is computed twice. Memory holds only
a slab of every layer. Every voxel is the same sum of the same products as for the whole volume. Such fused
execution of convolutions is known from video networks and accelerators as line buffers (Alwani et al., MICRO
2016, doi:10.1109/MICRO.2016.7783725).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlpick.network.geometry import Graph, Node

#: float32.
_BYTES = 4
#: Of what a layer reads and makes: joined, padded, and in the order that the convolution wants.
_COPIES = 3


@dataclass(frozen=True)
class Task:
    """Planes ``begin:end`` of a node's result that are computed next.

    ``low:high`` are the planes that it reads, inside the volume; what is missing is padded. The node's
    input tensors hold planes from ``first_needed`` on after it, by tensor.
    """

    node: Node
    begin: int
    end: int
    low: int
    high: int


class Schedule:
    """Determines which planes of each layer can be computed from the input planes read so far."""

    def __init__(self, graph: Graph, axis: int, length: int, planes: int) -> None:
        self._graph, self._axis = graph, axis
        self.total, self._most = {0: length}, {0: planes}
        for node in graph.nodes:
            self.total[node.output] = int(length * node.scale[axis])
            self._most[node.output] = math.ceil(planes * node.scale[axis])
        self.done = dict.fromkeys(self.total, 0)

    def __bool__(self) -> bool:
        return self.done[self._graph.output] < self.total[self._graph.output]

    def advance(self) -> Iterator[Task]:
        """Add planes of the input, and yield the tasks that become possible, in order."""
        self.done[0] = min(self.done[0] + self._most[0], self.total[0])
        for node in self._graph.nodes:
            there = min(self.done[tensor] for tensor in node.inputs)
            total, begin = self.total[node.output], self.done[node.output]
            whole = there == self.total[node.inputs[0]]
            end = total if whole else min(node.reach[self._axis].gives(there), total)
            end = min(end, begin + self._most[node.output])
            if end > begin:
                low, high = node.reach[self._axis].needs(begin, end)
                yield Task(node, begin, end, max(low, 0), min(high, self.total[node.inputs[0]]))
                self.done[node.output] = end

    def first_needed(self, tensor: int) -> int:
        """Return the first plane of a tensor that will be read again."""
        first = self.done[tensor]
        for node in self._graph.nodes:
            if tensor in node.inputs and self.done[node.output] < self.total[node.output]:
                at = self.done[node.output]
                first = min(first, node.reach[self._axis].needs(at, at + 1)[0])
        return max(first, 0)


def sweep(
    graph: Graph,
    axis: int,
    shape: tuple[int, int, int],
    read: Callable[[int, int], NDArray[np.float32]],
    planes: int,
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Run a network over a box.

    Parameters
    ----------
    graph
        The network.
    axis
        Axis of the sweep: 0 for z, 1 for y, 2 for x.
    shape
        Voxels (z, y, x) of the box, multiples of the network's pooling.
    read
        ``read(begin, end)`` gives planes of the box, (z, y, x) normalised grey values.
    planes
        Number of planes to read at a time.

    Yields
    ------
    tuple
        ``begin``, ``end`` and what the network says of these planes, (z, y, x, classes): probabilities, or
        logits where ``graph.softmax`` holds.
    """
    from keras import ops

    schedule = Schedule(graph, axis, shape[axis], planes)
    kept = {tensor: _Planes(axis) for tensor in schedule.total}
    while schedule:
        at = schedule.done[0]
        if at < shape[axis]:
            block = read(at, min(at + planes, shape[axis]))
            kept[0].add(ops.convert_to_tensor(block[np.newaxis, ..., np.newaxis]))
        for task in schedule.advance():
            inputs = [kept[tensor].part(task.low, task.high) for tensor in task.node.inputs]
            result = _compute(task, axis, inputs)
            if task.node.output == graph.output:
                answer = np.asarray(ops.convert_to_numpy(result)[0], np.float32)
                yield task.begin, task.end, answer
            else:
                kept[task.node.output].add(result)
            for tensor in task.node.inputs:
                kept[tensor].drop(schedule.first_needed(tensor))


class _Planes:
    """The last planes of a tensor, stored in the pieces in which they were computed, without copies."""

    def __init__(self, axis: int) -> None:
        self._axis, self._end = axis, 0
        self._pieces: deque[tuple[int, Any]] = deque()  # with the plane that each begins at

    def add(self, piece: Any) -> None:
        self._pieces.append((self._end, piece))
        self._end += piece.shape[self._axis + 1]

    def part(self, begin: int, end: int) -> Any:
        """Return planes ``begin:end`` as one tensor."""
        from keras import ops

        parts = []
        for at, piece in self._pieces:
            n = piece.shape[self._axis + 1]
            first, last = max(begin - at, 0), min(end - at, n)
            if first < last:
                cut = (slice(None),) * (self._axis + 1) + (slice(first, last),)
                parts.append(piece if (first, last) == (0, n) else piece[cut])
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, self._axis + 1)

    def drop(self, begin: int) -> None:
        """Release the planes before ``begin``, as far as whole pieces allow."""
        while self._pieces and self._pieces[0][0] + self._pieces[0][1].shape[self._axis + 1] <= begin:
            self._pieces.popleft()


def peak_bytes(graph: Graph, axis: int, planes: int, length: int) -> float:
    """Return the memory of a sweep for each voxel of its cross-section.

    Parameters
    ----------
    graph, axis, planes
        As for :func:`sweep`.
    length
        Length of the box along the axis.

    Returns
    -------
    float
        Peak bytes of all layers' pieces, with copies for padding and convolution.
    """
    before, after = graph.margins(axis)
    unit = math.lcm(graph.pooling[axis], planes)
    # once all layers are active, memory no longer changes
    length = min(length, unit * -(-(2 * (before + after) + 4 * planes) // unit))
    schedule = Schedule(graph, axis, length, planes)
    width = {0: 1.0} | {
        node.output: node.channels * math.prod(float(s) for k, s in enumerate(node.scale) if k != axis)
        for node in graph.nodes
    }
    held = {tensor: deque[tuple[int, int]]() for tensor in schedule.total}
    peak = 0.0
    while schedule:
        at = schedule.done[0]
        if at < length:
            held[0].append((at, min(at + planes, length)))
        for task in schedule.advance():
            now = sum(width[t] * (pieces[-1][1] - pieces[0][0]) for t, pieces in held.items() if pieces)
            read = sum(width[t] for t in task.node.inputs) * (task.high - task.low)
            made = width[task.node.output] * (task.end - task.begin)
            peak = max(peak, now + _COPIES * (read + made))
            if task.node.output != graph.output:
                held[task.node.output].append((task.begin, task.end))
            for tensor in task.node.inputs:
                pieces, keep = held[tensor], schedule.first_needed(tensor)
                while pieces and pieces[0][1] <= keep:
                    pieces.popleft()
    return _BYTES * peak


def _compute(task: Task, axis: int, inputs: list[Any]) -> Any:
    """Compute a layer's planes; beyond the box it reads its padding."""
    from keras import ops

    node = task.node
    if node.reach[axis].kind == "pointwise":
        return node.compute(inputs)
    if node.reach[axis].kind == "spread":
        out = node.compute(inputs)
        cut = [slice(None)]
        for k, reach in enumerate(node.reach):
            begin = reach.before
            n = inputs[0].shape[k + 1] * reach.step
            if k == axis:
                begin, n = task.begin + reach.before - task.low * reach.step, task.end - task.begin
            cut.append(slice(begin, begin + n))
        return out if _is_all(cut, out.shape) else out[tuple(cut)]
    widths = [(0, 0)]
    for k, reach in enumerate(node.reach):
        beyond = max(reach.size - reach.step, 0)
        before, after = reach.before, beyond - reach.before
        if k == axis:
            low, high = reach.needs(task.begin, task.end)
            before, after = task.low - low, high - task.high
        widths.append((before, after))
    widths.append((0, 0))
    if any(pair != (0, 0) for pair in widths):
        inputs = [ops.pad(inputs[0], widths, constant_values=node.padding)]
    return node.compute(inputs)


def _is_all(cut: list[slice], shape: Any) -> bool:
    return all(
        part == slice(None) or (part.start, part.stop) == (0, n) for part, n in zip(cut, shape, strict=False)
    )
