"""Loads the Keras network of a model file, for all programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from catalogs.console import without_greetings
from catalogs.errors import InputError
from catalogs.machine import require_backend
from catalogs.model_archive import ModelRefused
from catalogs.model_file import ModelCard, check, read_card, read_network, require
from catalogs.private_folders import scratch_folder
from catalogs.schema import ClassInfo
from tlpick.network.geometry import Graph, read_graph


def load_keras(
    path: str | os.PathLike[str],
    *,
    classes: Sequence[ClassInfo] | None = None,
    voxel_size: float | None = None,
) -> Any:
    """Load the network of a model file as a Keras model.

    Parameters
    ----------
    path
        Path of the model.
    classes, voxel_size
        Classes and voxel size that the model must have; None: any.

    Returns
    -------
    keras.Model
        (b, z, y, x, 1) -> (b, z, y, x, classes + 1) probabilities.

    Raises
    ------
    InputError
        If it is not a model, has other classes or voxels, or its network does not fit its card.
    """
    card = read_card(path)
    require(card, path, classes=classes, voxel_size=voxel_size)
    require_backend()
    check(path)  # before Keras is loaded
    with scratch_folder("tlpick-") as folder, without_greetings():
        file = read_network(path, folder)
        import keras

        _settle(keras.backend.backend())
        try:
            network = keras.saving.load_model(file, compile=False)
        except Exception as error:  # Keras passes on whatever its layers raise
            reason = str(error).strip().split("\n", 1)[0].rstrip(".")
            raise ModelRefused(
                f"Keras {keras.__version__} cannot load the network in {path} ({reason}); "
                "train it again with this version"
            ) from error
    # a network of several outputs is refused when its graph is read
    outputs = network.output_shape[-1] if len(network.outputs) == 1 else len(card.classes) + 1
    if outputs != len(card.classes) + 1:
        raise ModelRefused(
            f"the network in {path} has {outputs} outputs, its card names {len(card.classes)} classes "
            "and the background makes one more; train it again"
        )
    try:
        graph = read_graph(network)
    except InputError as error:
        raise ModelRefused(f"{path}: {error}") from error
    _compare(graph, card, path)
    return network


def _compare(graph: Graph, card: ModelCard, path: str | os.PathLike[str]) -> None:
    """Refuse a card that belongs to another network."""
    if graph.n_classes != len(card.classes) + 1:
        raise ModelRefused(
            f"the network in the model {path} tells {graph.n_classes - 1} classes apart, "
            f"its card names {len(card.classes)}; train it again."
        )
    sees = max(margin for axis in range(3) for margin in graph.margins(axis))
    pooling = max(graph.pooling)
    if card.halo > sees + 2 * pooling or card.pooling > pooling:
        raise ModelRefused(
            f"the card of the model {path} says that its network sees {card.halo} voxels a side and pools "
            f"{card.pooling}; the network sees {sees} and pools {pooling}: the card is of another network"
        )


def _settle(backend: str) -> None:
    """Let TensorFlow use as many threads as the worker may, and compute in full precision."""
    if backend != "tensorflow":
        return
    import tensorflow as tf

    # NVIDIA's TF32 keeps 10 bits of every factor, so a GPU would give other picks than a CPU
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
        threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        if threads > 0:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # TensorFlow is already in use in this process and keeps its settings
        pass


def in_float32(network: Any) -> Any:
    """Copy a network with its current weights; all layers of the copy compute in float32."""
    import keras

    copy = keras.models.clone_model(
        keras.Model(network.inputs, network.outputs),  # without the optimizer and the loss of a training
        clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "float32"}),
    )
    copy.set_weights(network.get_weights())
    return copy
