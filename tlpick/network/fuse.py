"""Fuses layers to save passes through memory: a convolution, its normalisation, its activation.

In prediction, batch normalisation is a fixed scale and offset of each channel, so it can be merged into the
weights of the convolution before it (Jacob et al., CVPR 2018, section 3.2). Operations on single voxels are
done where the voxel is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tlpick.network.geometry import Call, Graph, Node


def joined(graph: Graph) -> Graph:
    """Fuse layers with those that follow, unless another layer reads the intermediate result.

    Parameters
    ----------
    graph
        Graph of a network from :func:`tlpick.network.geometry.read_graph`.

    Returns
    -------
    Graph
        Graph with fewer layers. Results are equal up to rounding, and do not depend on a voxel's position.
    """
    readers = Counter(tensor for node in graph.nodes for tensor in node.inputs)
    nodes: list[Node] = []
    for node in graph.nodes:
        before = nodes[-1] if nodes else None
        if before is None or node.inputs != (before.output,) or readers[before.output] > 1:
            nodes.append(node)
        elif (scaled := _scaled(before, node)) is not None:
            nodes[-1] = scaled
        elif all(reach.kind == "pointwise" for reach in node.reach):
            activation = _after(before.activation, node.compute)
            nodes[-1] = replace(before, output=node.output, channels=node.channels, activation=activation)
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _after(first: Callable[[Any], Any] | None, then: Call) -> Callable[[Any], Any]:
    return lambda sums: then([sums if first is None else first(sums)])


def _scaled(conv: Node, node: Node) -> Node | None:
    """Merge the batch normalisation that follows into a convolution; None if this is impossible."""
    from keras import layers, ops

    norm, layer = node.layer, conv.layer
    if not isinstance(norm, layers.BatchNormalization) or type(layer) is not layers.Conv3D:
        return None
    if conv.activation not in (None, layers.Activation("linear").activation) or layer.groups != 1:
        return None
    if norm.axis not in (-1, 4):
        return None

    def values(variable: Any) -> Any:
        return np.asarray(ops.convert_to_numpy(variable), np.float64)

    factor = 1 / np.sqrt(values(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        factor *= values(norm.gamma)
    offset = -values(norm.moving_mean)
    if layer.use_bias:
        offset += values(layer.bias)
    offset *= factor
    if norm.center:
        offset += values(norm.beta)
    kernel = ops.convert_to_tensor((values(layer.kernel) * factor).astype(np.float32))
    bias = ops.convert_to_tensor(offset.astype(np.float32))

    def convolve(tensors: list[Any]) -> Any:
        sums = ops.conv(tensors[0], kernel, layer.strides, "valid", dilation_rate=layer.dilation_rate)
        return sums + bias

    return replace(conv, output=node.output, call=convolve, activation=None)
