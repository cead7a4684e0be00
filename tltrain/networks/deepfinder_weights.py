"""Read and write DeepFinder's weights, its ``.h5`` files.

DeepFinder saves with ``model.save`` or ``model.save_weights`` of Keras 2. Both contain groups of layers in
the order of the network, each with its arrays in order: one inside ``model_weights``, the other at the root.
Layers are matched by their order, since Keras numbers their names again in every process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.atomic_write import replacing
from catalogs.console import without_greetings
from catalogs.errors import InputError
from catalogs.intensity import NORMALISATION
from catalogs.model_file import ModelCard, write_model
from catalogs.schema import ClassInfo
from catalogs.storage.hdf5_data import lies_elsewhere, n_filters
from catalogs.usual_values import doubts_of_model, refuse_impossible, refuse_unusual
from tlpick.network.geometry import read_graph
from tltrain.networks.architectures import architecture
from tltrain.training.cards import keras_file, now, software

#: Edge of a patch in DeepFinder and in the Template Learning paper, voxels.
_PATCH = 56


def read_deepfinder(path: str | os.PathLike[str]) -> list[NDArray[np.float32]]:
    """Read the weights in an ``.h5`` file of DeepFinder.

    Parameters
    ----------
    path
        File that its ``Train`` wrote, such as ``net_weights_FINAL.h5``.

    Returns
    -------
    list of ndarray
        In the order of the network ``deepfinder``: kernel and bias of each convolution.

    Raises
    ------
    InputError
        If the file is not HDF5, or contains the weights of another network.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "there is no such file" if not Path(path).exists() else "it is not HDF5"
        raise InputError(f"DeepFinder's weights {path} cannot be read: {reason}") from error
    with file:
        root = file.get("model_weights", file)
        try:
            found = [
                _array(file, f"{root.name}/{layer}/{weight}", path)
                for layer in _names(root, "layer_names")
                for weight in _names(root[layer], "weight_names")
            ]
        except KeyError as error:
            raise InputError(
                f"{path} is HDF5 but not weights as Keras 2 writes them ({error.args[0]}); give a file that "
                "DeepFinder's training wrote, such as net_weights_FINAL.h5"
            ) from error
    outputs = found[-1].shape[-1] if found and found[-1].ndim else 0
    wanted = _shapes(outputs) if outputs > 1 else []
    if [weight.shape for weight in found] != wanted:
        raise InputError(
            f"{path} holds {len(found)} arrays that are not the weights of DeepFinder's network; "
            "give a file that DeepFinder's training wrote"
        )
    return found


def _array(file: Any, name: str, path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read one array of weights, if it lies in the file as Keras writes it."""
    if lies_elsewhere(file, name):
        raise InputError(f"{path} has its weights in other files ({name}); put them into one file")
    data = file[name]
    if n_filters(data) or data.size * data.dtype.itemsize > Path(path).stat().st_size:
        raise InputError(
            f"{path} holds weights that Keras does not write ({name}): compressed, or not all there"
        )
    return np.asarray(data, np.float32)


def write_deepfinder(path: str | os.PathLike[str], network: Any) -> None:
    """Write the weights of a network ``deepfinder`` as DeepFinder reads them (``net.load_weights``).

    Parameters
    ----------
    path
        The ``.h5`` file.
    network
        A network with DeepFinder's layers.

    Raises
    ------
    InputError
        If it is another network.
    """
    import h5py

    shapes = [tuple(weight.shape) for weight in network.weights]
    if shapes != _shapes(network.output_shape[-1]):
        raise InputError(
            f"only the network deepfinder can be written for DeepFinder; this one is {network.name}"
        )
    target = Path(path)
    try:
        with replacing(target) as unfinished, h5py.File(unfinished, "w") as file:
            layers = [layer for layer in network.layers if layer.weights]
            names = [f"conv3d_{k}" if k else "conv3d" for k in range(len(layers))]
            file.attrs["layer_names"] = np.array([name.encode() for name in names])
            file.attrs["backend"] = b"tensorflow"
            file.attrs["keras_version"] = b"2.13.1"
            for name, layer in zip(names, layers, strict=True):
                group = file.create_group(name)
                words = [f"{name}/kernel:0", f"{name}/bias:0"]
                group.attrs["weight_names"] = np.array([word.encode() for word in words])
                for word, value in zip(words, layer.get_weights(), strict=True):
                    group.create_dataset(word, data=value)
    except OSError as error:
        raise InputError(f"the weights cannot be written to {target} ({error.strerror})") from error


def import_deepfinder(
    path: str | os.PathLike[str],
    to: str | os.PathLike[str],
    classes: Sequence[ClassInfo],
    voxel_size: float,
    contrast: str = "dark",
    *,
    yes: bool = False,
) -> ModelCard:
    """Make a model file from DeepFinder's weights.

    Parameters
    ----------
    path
        Of the weights.
    to
        The model file.
    classes
        In the order of the network's outputs after the background.
    voxel_size
        Å, of the tomograms that the network was trained on.
    contrast
        ``dark`` or ``bright``: how protein looks in them.
    yes
        Continue although the voxel size or a radius is unusual.

    Returns
    -------
    ModelCard

    Raises
    ------
    InputError
        If the weights cannot be read or have another number of classes, or a size is unusual.
    """
    weights = read_deepfinder(path)
    n_classes = weights[-1].shape[0]
    if n_classes != len(classes) + 1:
        raise InputError(
            f"{path} is for {n_classes - 1} classes and the background, `classes` names {len(classes)}"
        )
    if not voxel_size > 0:
        raise InputError(f"`voxel_size` is {voxel_size:g}; give the size of a voxel in Å")
    if not Path(to).parent.is_dir():
        raise InputError(f"there is no folder {Path(to).parent} for the model")
    radii = {info.name: info.radius for info in classes}
    refuse_impossible("voxel_size", voxel_size, "`voxel_size`")
    refuse_unusual(doubts_of_model(voxel_size, radii, "the model"), yes)
    arch = architecture("deepfinder")
    with without_greetings():
        import keras  # noqa: F401
    network = arch.build(n_classes, 0)
    network.set_weights(weights)
    card = ModelCard.model_validate(
        {
            "name": Path(to).stem,
            "created": now(),
            "voxel_size": voxel_size,
            "contrast": contrast,
            "classes": list(classes),
            "normalisation": NORMALISATION,
            "network": arch.name,
            "n_parameters": int(network.count_params()),
            "pooling": arch.pooling,
            "halo": read_graph(network).halo,
            "patch": _PATCH,
            "thresholds": {},
            "training": {"by": "DeepFinder"},
            "provenance": {"weights": str(path), "software": software()},
        }
    )
    write_model(to, card, keras_file(arch, network, n_classes))
    return card


def radii_of(text: str) -> dict[str, float]:
    """Read classes as a user writes them, ``ribosome:108,proteasome:62``: names and radii in Å.

    Raises
    ------
    InputError
        It says which part is wrong.
    """
    radii: dict[str, float] = {}
    for part in text.split(","):
        name, _, radius = part.strip().partition(":")
        try:
            value = float(radius)
        except ValueError as error:
            raise _not_a_class(part.strip()) from error
        if name in radii:
            raise InputError("`classes` names a class twice")
        radii[name] = value
    return radii


def classes_with(radii: Mapping[str, float]) -> list[ClassInfo]:
    """Make numbered classes of names and radii in Å.

    Raises
    ------
    InputError
        If a name or a radius is not valid.
    """
    classes = []
    for label, (name, radius) in enumerate(radii.items(), start=1):
        try:
            classes.append(ClassInfo(name=name, label=label, radius=radius))
        except ValueError as error:
            raise _not_a_class(f"{name}:{radius:g}") from error
    return classes


def _not_a_class(part: str) -> InputError:
    return InputError(
        f"`classes` has {part!r}; give name:radius for each class, the radius in Å, such as "
        "ribosome:108,proteasome:62"
    )


def _shapes(outputs: int) -> list[tuple[int, ...]]:
    """List the shapes of DeepFinder's kernels and biases for so many outputs."""
    widths = [
        (3, 1, 32), (3, 32, 32), (3, 32, 48), (3, 48, 48), (3, 48, 64), (3, 64, 64), (3, 64, 64), (3, 64, 64),
        (2, 64, 64), (3, 112, 48), (3, 48, 48), (2, 48, 48), (3, 80, 32), (3, 32, 32), (1, 32, outputs),
    ]  # fmt: skip
    return [shape for size, n_in, n_out in widths for shape in ((size, size, size, n_in, n_out), (n_out,))]


def _names(group: Any, attribute: str) -> list[str]:
    """Read a list of names; Keras 2 spreads a long one over several attributes."""
    if attribute in group.attrs:
        parts = [group.attrs[attribute]]
    else:
        parts, k = [], 0
        while f"{attribute}{k}" in group.attrs:
            parts.append(group.attrs[f"{attribute}{k}"])
            k += 1
        if not parts:
            raise KeyError(f"no {attribute} in {group.name}")
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in part]
