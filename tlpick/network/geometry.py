"""The graph of a network: the inputs of each layer, and how far it sees along each axis.

Everything that picking must know about a network's geometry is derived from its layers: their padding, the
receptive field of a voxel, and the coarsest level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from catalogs.errors import InputError

Kind = Literal["window", "spread", "pointwise"]
Triple = tuple[int, int, int]
Call = Callable[[list[Any]], Any]

#: Layers and operators whose result at a voxel depends only on that voxel, in prediction.
_POINTWISE = frozenset(
    {
        "Activation",
        "ActivityRegularization",
        "Add",
        "AlphaDropout",
        "Average",
        "BatchNormalization",
        "Dense",
        "Dropout",
        "ELU",
        "GaussianDropout",
        "GaussianNoise",
        "Gelu",
        "Identity",
        "LeakyReLU",
        "LeakyRelu",
        "Maximum",
        "Minimum",
        "Multiply",
        "ReLU",
        "Relu",
        "Rescaling",
        "Sigmoid",
        "Silu",
        "SpatialDropout3D",
        "Subtract",
        "Tanh",
    }
)
#: The same, if they work along the channels.
_ALONG_CHANNELS = frozenset({"Concatenate", "LayerNormalization", "Softmax", "UnitNormalization"})


@dataclass(frozen=True)
class Reach:
    """The inputs that a layer reads along one axis for a range of its results.

    Attributes
    ----------
    kind
        ``window``: result i reads inputs ``i * step - before`` and the ``size - 1`` that follow.
        ``spread``: input j adds to results ``j * step - before`` and the ``size - 1`` that follow.
        ``pointwise``: result i reads input i.
    size, step, before
        In voxels of the finer side.
    """

    kind: Kind
    size: int = 1
    step: int = 1
    before: int = 0

    def needs(self, begin: int, end: int) -> tuple[int, int]:
        """Return the inputs that results ``begin:end`` read; some may lie outside of the volume."""
        if self.kind == "spread":
            return (
                -(-(begin + self.before - self.size + 1) // self.step),
                (end - 1 + self.before) // self.step + 1,
            )
        return begin * self.step - self.before, (end - 1) * self.step - self.before + self.size

    def gives(self, end: int) -> int:
        """Return the end of the results that can be computed from inputs ``:end``."""
        if self.kind == "spread":
            return max(end * self.step - self.before, 0)
        return max((end + self.before - self.size) // self.step + 1, 0)


@dataclass(frozen=True, eq=False)
class Node:
    """One layer at its place in the graph.

    Attributes
    ----------
    layer
        The Keras layer.
    inputs
        Numbers of the tensors that it reads; 0 is the network's input.
    output
        Number of the tensor that it computes.
    reach
        Reach along z, y, x.
    channels
        Channels of the output.
    scale
        Voxels of the output per voxel of the network's input, along z, y, x.
    call
        The layer as a function of a list of tensors, in prediction, without padding and ``activation``.
    activation
        Activation of the layer; None if it is part of ``call`` or there is none.
    padding
        Value beyond the edge of the volume.
    """

    layer: Any
    inputs: tuple[int, ...]
    output: int
    reach: tuple[Reach, Reach, Reach]
    channels: int
    scale: tuple[Fraction, Fraction, Fraction]
    call: Call
    activation: Callable[[Any], Any] | None = None
    padding: float = 0.0

    def compute(self, tensors: list[Any]) -> Any:
        """Return the result of the layer."""
        sums = self.call(tensors)
        return sums if self.activation is None else self.activation(sums)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as a list of layers in the order of computation.

    Attributes
    ----------
    nodes
        The layers.
    output
        Number of the output tensor.
    softmax
        Whether a softmax, which is not among the layers, must turn the output into probabilities. As a layer,
        its rounding would depend on a voxel's position in the array, and so on its tile.
    """

    nodes: tuple[Node, ...]
    output: int
    softmax: bool = False

    @property
    def pooling(self) -> Triple:
        """Voxels along z, y, x of which origins and lengths of tiles must be multiples."""
        z, y, x = (math.lcm(*(node.scale[axis].denominator for node in self.nodes), 1) for axis in range(3))
        return z, y, x

    @property
    def n_classes(self) -> int:
        """Channels of the output, including the background."""
        return next(node.channels for node in self.nodes if node.output == self.output)

    def margins(self, axis: int) -> tuple[int, int]:
        """Return the margins that a tile needs along an axis, before and after its used part.

        Parameters
        ----------
        axis
            0 for z, 1 for y, 2 for x.

        Returns
        -------
        tuple of int
            Voxels, for a part that begins and ends at multiples of the pooling.
        """
        begin, end = self.needs(axis, 0, self.pooling[axis])
        return -begin, end - self.pooling[axis]

    @property
    def reach(self) -> int:
        """Return the largest distance in voxels along an axis on which a voxel's result can depend."""
        most = 0
        for axis, pooling in enumerate(self.pooling):
            for place in range(pooling):  # the reach repeats with the pooling
                begin, end = self.needs(axis, place, place + 1)
                most = max(most, place - begin, end - 1 - place)
        return most

    @property
    def halo(self) -> int:
        """The reach, rounded up to a multiple of the poolings: the margin of a tile on each side."""
        pooling = math.lcm(*self.pooling)
        return -(-self.reach // pooling) * pooling

    def needs(self, axis: int, begin: int, end: int) -> tuple[int, int]:
        """Return the range of an infinite input along an axis on which results ``begin:end`` depend."""
        wanted: dict[int, tuple[int, int]] = {self.output: (begin, end)}
        for node in reversed(self.nodes):
            if node.output in wanted:
                low, high = node.reach[axis].needs(*wanted[node.output])
                for tensor in node.inputs:
                    first, last = wanted.get(tensor, (low, high))
                    wanted[tensor] = min(first, low), max(last, high)
        return wanted.get(0, (begin, end))


def read_graph(model: Any) -> Graph:
    """Read the graph of a Keras network.

    Parameters
    ----------
    model
        (b, z, y, x, 1) -> (b, z, y, x, classes); fully convolutional, channels last.

    Returns
    -------
    Graph

    Raises
    ------
    InputError
        If it has more than one input or output, or a layer that sees more than a window of the volume.
    """
    import keras

    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(f"the network {model.name!r} must have one input and one output")
    numbers: dict[int, int] = {}
    nodes: list[Node] = []
    kept: list[Any] = []  # ids of tensors are unique only while the tensors exist
    scales: list[tuple[Fraction, Fraction, Fraction]] = [(Fraction(1), Fraction(1), Fraction(1))]

    def record(layer: Any, *args: Any, **kwargs: Any) -> Any:
        out = layer(*args, **kwargs)
        flat = keras.tree.flatten(args)
        slots = [k for k, value in enumerate(flat) if id(value) in numbers]
        inputs = tuple(numbers[id(flat[k])] for k in slots)
        if not inputs or len(keras.tree.flatten(out)) != 1:
            raise InputError(_not_local(layer))
        if len({scales[tensor] for tensor in inputs}) > 1:
            raise InputError(f"the layer {layer.name!r} joins volumes of different voxel sizes")

        def call(tensors: list[Any]) -> Any:
            values = list(flat)
            for k, tensor in zip(slots, tensors, strict=True):
                values[k] = tensor
            return layer(*keras.tree.pack_sequence_as(args, values), **kwargs)

        if isinstance(layer, keras.layers.Conv3DTranspose):
            node = _transposed(layer)
        else:
            reach, valid, padding = _local(layer, out.ndim)
            activation = getattr(layer, "activation", None) if valid is not None else None
            node = Node(
                layer, (), 0, reach, int(out.shape[-1]), scales[0], valid or call, activation, padding
            )
        z, y, x = (
            base * each.step if each.kind == "spread" else base / each.step
            for base, each in zip(scales[inputs[0]], node.reach, strict=True)
        )
        number = len(scales)
        scales.append((z, y, x))
        nodes.append(replace(node, inputs=inputs, output=number, scale=(z, y, x)))
        numbers[id(out)] = number
        kept.append(out)
        return out

    entry = keras.Input((None, None, None, 1))
    numbers[id(entry)] = 0
    kept.append(entry)
    functional = keras.Model(model.inputs, model.outputs)
    copy = keras.models.clone_model(
        functional, input_tensors=[entry], clone_function=lambda layer: layer, call_function=record
    )
    output = numbers[id(copy.outputs[0])]
    if scales[output] != scales[0]:
        raise InputError(f"the network {model.name!r} gives its answer at another voxel size than its input")
    return _without_softmax(nodes, output)


def _without_softmax(nodes: list[Node], output: int) -> Graph:
    """Leave out layers that do not lead to the output, and a final softmax."""
    import keras

    number = next(k for k, node in enumerate(nodes) if node.output == output)
    last = nodes[number]
    softmax = keras.activations.softmax in (last.activation, getattr(last.layer, "activation", None))
    if last.activation is keras.activations.softmax:
        nodes[number] = replace(last, activation=None)
    elif isinstance(last.layer, keras.layers.Softmax | keras.layers.Activation) and (
        softmax or isinstance(last.layer, keras.layers.Softmax)
    ):
        softmax, output = True, last.inputs[0]
    else:
        softmax = False
    used = {output}
    for node in reversed(nodes):
        if node.output in used:
            used.update(node.inputs)
    return Graph(tuple(node for node in nodes if node.output in used), output, softmax)


def _local(layer: Any, rank: int) -> tuple[tuple[Reach, Reach, Reach], Call | None, float]:
    """Return a layer's reach, a function for it without padding (None: as it is), and its padding."""
    import keras
    from keras import layers, ops

    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise InputError(
            f"the layer {layer.name!r} has channels first; this program supports only channels last"
        )
    if isinstance(layer, layers.Conv3D):
        sizes = [(k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True)]

        def convolve(tensors: list[Any]) -> Any:
            sums = ops.conv(
                tensors[0], layer.kernel, layer.strides, "valid", dilation_rate=layer.dilation_rate
            )
            return sums + layer.bias if layer.use_bias else sums

        return _windows(layer, sizes), convolve, 0.0
    if isinstance(layer, layers.MaxPooling3D):

        def maximum(tensors: list[Any]) -> Any:
            return ops.max_pool(tensors[0], layer.pool_size, layer.strides, "valid")

        return _windows(layer, layer.pool_size), maximum, -math.inf
    # where average pools overlap, the edge of the volume counts fewer voxels
    if isinstance(layer, layers.AveragePooling3D) and tuple(layer.pool_size) == tuple(layer.strides):
        return _windows(layer, layer.pool_size), None, 0.0
    if isinstance(layer, layers.UpSampling3D):
        z, y, x = (Reach("spread", int(n), int(n)) for n in layer.size)
        return (z, y, x), None, 0.0
    kind = type(layer).__name__
    if kind == "PReLU":
        pointwise = set(layer.shared_axes or ()) >= {1, 2, 3}
    elif kind in _ALONG_CHANNELS:
        axis = keras.tree.flatten(layer.axis)
        pointwise = len(axis) == 1 and axis[0] in (-1, rank - 1)
    else:
        pointwise = kind in _POINTWISE
    if not pointwise:
        raise InputError(_not_local(layer))
    same = Reach("pointwise")
    return (same, same, same), None, 0.0


def _transposed(layer: Any) -> Node:
    """Write a transposed convolution as a convolution and an interleaving of its channels.

    Result i adds up ``input[j] * kernel[i + before - j * step]``, so results i, i + step, i + 2 step, ... are
    a convolution of their own, with every step-th value of the kernel. All of them read the same inputs if
    they are counted from i + before. As one convolution with step³ times as many channels they are quicker,
    and round in the same way wherever a voxel is.
    """
    from keras import ops

    if layer.padding != "same" or layer.output_padding is not None or set(layer.dilation_rate) != {1}:
        raise InputError(_changes_size(layer))
    given = np.asarray(ops.convert_to_numpy(layer.kernel))  # (z, y, x, out, in)
    strides = [int(step) for step in layer.strides]
    sizes = [-(-size // step) for size, step in zip(given.shape, strides, strict=False)]
    n_out, n_in = given.shape[3:]
    kernel = np.zeros((*sizes, n_in, *strides, n_out), np.float32)
    for tap in np.ndindex(*given.shape[:3]):
        back = [k // step for k, step in zip(tap, strides, strict=True)]
        place = tuple(n - 1 - k for n, k in zip(sizes, back, strict=True))
        phase = tuple(k % step for k, step in zip(tap, strides, strict=True))
        kernel[(*place, slice(None), *phase)] = given[tap].T
    kernel = ops.convert_to_tensor(kernel.reshape(*kernel.shape[:4], -1))
    beyond = [(0, 0), *((n - 1, n - 1) for n in sizes), (0, 0)]

    def spread(tensors: list[Any]) -> Any:
        sums = ops.conv(ops.pad(tensors[0], beyond), kernel, 1, "valid")
        _, z, y, x, _ = ops.shape(sums)
        parts = ops.reshape(sums, (z, y, x, *strides, n_out))
        placed = ops.transpose(parts, (0, 3, 1, 4, 2, 5, 6))
        out = ops.reshape(placed, (1, z * strides[0], y * strides[1], x * strides[2], n_out))
        return out + layer.bias if layer.use_bias else out

    z, y, x = (
        Reach("spread", int(size), step, max(int(size) - step, 0) // 2)
        for size, step in zip(given.shape, strides, strict=False)
    )
    one = (Fraction(1), Fraction(1), Fraction(1))
    return Node(layer, (), 0, (z, y, x), n_out, one, spread, layer.activation)


def _windows(layer: Any, sizes: Sequence[int]) -> tuple[Reach, Reach, Reach]:
    """Reach of a convolution or pooling; half of its padding, rounded down, stands before the volume."""
    if layer.padding != "same" and tuple(sizes) != tuple(layer.strides):
        raise InputError(_changes_size(layer))
    z, y, x = (
        Reach("window", int(size), int(step), max(int(size) - int(step), 0) // 2)
        for size, step in zip(sizes, layer.strides, strict=True)
    )
    return z, y, x


def _not_local(layer: Any) -> str:
    return (
        f"the network has a layer {layer.name!r} ({type(layer).__name__}) that may see more than a window of "
        "the volume, so it cannot be run tile by tile; train one of convolutions and poolings"
    )


def _changes_size(layer: Any) -> str:
    return f"the layer {layer.name!r} has padding {layer.padding!r}; only 'same' keeps the volume's size"
