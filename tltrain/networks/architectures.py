"""Fully convolutional networks: from patches of any size to a probability for each class and voxel.

Only Keras' own layers are used, so that Keras alone opens a saved network, with any backend. The last layer
always computes in float32, because losses add up millions of probabilities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from catalogs.plugins import Known
from catalogs.seeds import seed as seed_of


@dataclass(frozen=True)
class Architecture:
    """A network with a name.

    Attributes
    ----------
    name
        Its name for users.
    pooling
        Voxels of the input for one voxel of the coarsest level; sizes and origins of tiles are multiples of
        it.
    learning_rate
        The highest learning rate that trains it well.
    build
        ``build(n_classes, seed)`` makes it with fresh weights; ``n_classes`` counts the background.
    """

    name: str
    pooling: int
    learning_rate: float
    build: Callable[[int, int], Any]


def architecture(name: str) -> Architecture:
    """Find a network by name.

    Raises
    ------
    InputError
        If there is no such network.
    """
    return ARCHITECTURES.named(name)


def deepfinder(n_classes: int, seed: int = 0) -> Any:
    """Make DeepFinder's network (Moebel et al., Nature Methods 18, 1386, 2021), layer for layer.

    Parameters
    ----------
    n_classes
        Classes, the background included.
    seed
        Of the initial weights.

    Returns
    -------
    keras.Model
        (b, z, y, x, 1) -> (b, z, y, x, n_classes) probabilities; 902,928 + 33 ``n_classes`` parameters.
    """
    import keras
    from keras import layers

    seeds = _layer_seeds(seed)

    def conv(x: Any, width: int, size: int = 3) -> Any:
        start = keras.initializers.GlorotUniform(seed=next(seeds))
        return layers.Conv3D(width, size, padding="same", activation="relu", kernel_initializer=start)(x)

    x = entry = keras.Input((None, None, None, 1), name="tomogram")
    x = fine = conv(conv(x, 32), 32)
    x = middle = conv(conv(layers.MaxPooling3D(2)(x), 48), 48)
    x = layers.MaxPooling3D(2)(x)
    for _ in range(4):
        x = conv(x, 64)
    x = conv(layers.UpSampling3D(2)(x), 64, size=2)
    x = conv(conv(layers.Concatenate()([x, middle]), 48), 48)
    x = conv(layers.UpSampling3D(2)(x), 48, size=2)
    x = conv(conv(layers.Concatenate()([x, fine]), 32), 32)
    start = keras.initializers.GlorotUniform(seed=next(seeds))
    classes = layers.Conv3D(
        n_classes, 1, padding="same", activation="softmax", kernel_initializer=start, dtype="float32"
    )
    return keras.Model(entry, classes(x), name="deepfinder")


def small(n_classes: int, seed: int = 0) -> Any:
    """Make a network for two CPU cores: a U-Net whose finest level has half the resolution.

    A strided convolution doubles the voxel size and a transposed one restores it, so nothing is computed on
    the full grid; molecules to be picked span several voxels. One more level is enough: its receptive field
    is 25 voxels to each side, and deeper levels would need ever wider tiles in picking. Batch normalisation
    (Ioffe and Szegedy, ICML 2015) reduces the necessary steps to a few hundred. In prediction it is a fixed
    scale and offset, so the result of a voxel does not depend on the rest of the tile.

    Parameters
    ----------
    n_classes
        Classes, the background included.
    seed
        Of the initial weights.

    Returns
    -------
    keras.Model
        (b, z, y, x, 1) -> (b, z, y, x, n_classes) probabilities.
    """
    import keras
    from keras import layers

    seeds = _layer_seeds(seed)

    def kernel() -> Any:
        return keras.initializers.HeNormal(seed=next(seeds))

    def conv(x: Any, width: int, size: int = 3, strides: int = 1) -> Any:
        x = layers.Conv3D(
            width, size, strides=strides, padding="same", use_bias=False, kernel_initializer=kernel()
        )(x)
        # a momentum of 0.9 follows the weights within tens of steps; 0.99 would lag in a short training
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    entry = keras.Input((None, None, None, 1), name="tomogram")
    half = conv(conv(entry, 16, size=4, strides=2), 16)
    x = layers.MaxPooling3D(2)(half)
    for width in (32, 64, 64, 32):
        x = conv(x, width)
    x = layers.UpSampling3D(2)(layers.Conv3D(16, 1, kernel_initializer=kernel())(x))
    x = conv(layers.Add()([x, half]), 16)
    classes = layers.Conv3DTranspose(
        n_classes,
        4,
        strides=2,
        padding="same",
        activation="softmax",
        kernel_initializer=kernel(),
        dtype="float32",
    )(x)
    return keras.Model(entry, classes, name="small")


def residual_unet(n_classes: int, seed: int = 0) -> Any:
    """Make a U-Net of residual blocks (He et al., CVPR 2016) with batch normalisation, for a GPU.

    It needs three quarters of the operations of DeepFinder's network and has 2.6 million weights, most of
    them at coarse resolution. Strided convolutions reduce the resolution and transposed ones increase it;
    skip connections are added, so that gradients reach every level. In prediction the normalisation is a
    fixed scale and offset, so the result of a voxel does not depend on the rest of the tile.

    Parameters
    ----------
    n_classes
        Classes, the background included.
    seed
        Of the initial weights.

    Returns
    -------
    keras.Model
        (b, z, y, x, 1) -> (b, z, y, x, n_classes) probabilities.
    """
    import keras
    from keras import layers

    seeds = _layer_seeds(seed)

    def start() -> Any:
        return keras.initializers.HeNormal(seed=next(seeds))

    def normal(x: Any) -> Any:
        return layers.BatchNormalization(momentum=0.95)(x)

    def conv(x: Any, width: int, size: int = 3, strides: int = 1) -> Any:
        x = layers.Conv3D(
            width, size, strides=strides, padding="same", use_bias=False, kernel_initializer=start()
        )(x)
        return normal(x)

    def block(x: Any) -> Any:
        width = x.shape[-1]
        y = conv(layers.ReLU()(conv(x, width)), width)
        return layers.ReLU()(layers.Add()([x, y]))

    def up(x: Any, width: int) -> Any:
        return normal(
            layers.Conv3DTranspose(
                width, 2, strides=2, padding="same", use_bias=False, kernel_initializer=start()
            )(x)
        )

    entry = keras.Input((None, None, None, 1), name="tomogram")
    fine = block(layers.ReLU()(conv(entry, 24)))
    middle = block(layers.ReLU()(conv(fine, 56, size=2, strides=2)))
    x = layers.ReLU()(conv(middle, 112, size=2, strides=2))
    for _ in range(3):
        x = block(x)
    x = block(layers.ReLU()(layers.Add()([up(x, 56), middle])))
    x = block(layers.ReLU()(layers.Add()([up(x, 24), fine])))
    classes = layers.Conv3D(
        n_classes, 1, padding="same", activation="softmax", kernel_initializer=start(), dtype="float32"
    )
    return keras.Model(entry, classes(x), name="residual-unet")


#: The networks by name, those of other packages among them; their entry points name an ``Architecture``.
ARCHITECTURES: Known[Architecture] = Known(
    "networks",
    "network",
    {
        "small": lambda: Architecture("small", pooling=4, learning_rate=3e-3, build=small),
        "deepfinder": lambda: Architecture("deepfinder", pooling=4, learning_rate=5e-4, build=deepfinder),
        "residual-unet": lambda: Architecture(
            "residual-unet", pooling=4, learning_rate=2e-3, build=residual_unet
        ),
    },
    "network",
)


def arithmetic(network: Any, edge: int = 64) -> float:
    """Count the operations of one prediction.

    Parameters
    ----------
    network
        A Keras model of :data:`ARCHITECTURES`.
    edge
        Edge of the cube for the count, in voxels; a multiple of the pooling.

    Returns
    -------
    float
        Floating-point operations per voxel of the input, in millions; a multiply-add counts as two. Only
        convolutions are counted, because the rest is small.
    """
    import keras

    shapes: dict[int, tuple[int, ...]] = {}  # of each tensor in the graph, by identity
    total = 0
    for tensor in network.inputs:
        shapes[id(tensor)] = (1, edge, edge, edge, int(tensor.shape[-1]))
    for layer in network.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        into = [shapes[id(tensor)] for tensor in _tensors(layer.input)]
        out = layer.compute_output_shape(into if len(into) > 1 else into[0])
        shapes[id(layer.output)] = tuple(out)
        if isinstance(layer, keras.layers.Conv3DTranspose):  # each voxel of its input is spread over a kernel
            total += 2 * math.prod(layer.kernel.shape) * math.prod(into[0][1:4])
        elif isinstance(layer, keras.layers.Conv3D):
            total += 2 * math.prod(layer.kernel.shape) * math.prod(out[1:4])
    return total / edge**3 / 1e6


def _tensors(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _layer_seeds(seed: int) -> itertools.chain[int]:
    """Yield seeds for the initial weights, one per layer, in the 31 bits that Keras accepts."""
    return itertools.chain.from_iterable([seed_of(seed, "layer", k) % 2**31] for k in itertools.count())
