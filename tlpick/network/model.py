"""The class ``Model``: loads a model once, segments volumes and finds particles."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogs.beads import labelled_as_dense
from catalogs.errors import InputError
from catalogs.former_names import accepts_former
from catalogs.model_file import ModelCard, fingerprint, read_card
from catalogs.model_sources import find_model
from catalogs.progress import Progress, progress_of
from catalogs.threads import allowed_threads, pool
from catalogs.volumes import Volume
from tlpick.network.geometry import Graph, read_graph
from tlpick.network.keras_network import in_float32, load_keras
from tlpick.network.localisation.budget import blocks_within
from tlpick.network.localisation.localise import Options, localise
from tlpick.network.memory import give_back, resident
from tlpick.network.picks import as_table, particle_volumes, refuse_unknown_classes
from tlpick.network.segment import Segmentation, load_network, predict, segment
from tlpick.network.tiles import Box, plan
from tlpick.network.tomograms.inputs import Tomogram
from tlpick.network.tomograms.intake import Prepared, Preprocessing, prepare
from tlpick.network.tomograms.scratch import Scratch
from tlpick.network.voxel_classes import add_probabilities

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd

#: Probabilities of a volume: boxes that do not overlap, and (z, y, x, classes + 1) in each.
Predictor = Callable[[NDArray[Any]], Iterator[tuple[Box, NDArray[np.float32]]]]

#: Default limit in bytes for the memory of the sweep.
MEMORY = 3e9
#: Bytes for Keras' compiled layers and the allocators of its threads, besides the slabs: in the first sweep,
#: and in later ones, when the process already uses most of them.
ASIDE, ASIDE_LATER = 250e6, 120e6
#: Share of the sweep's memory that is lost to fragmentation.
_LOST = 0.1
#: Share of the memory for the arrays of a tomogram; what does not fit is stored in files.
IN_MEMORY = 0.25


class Model:
    """A trained network with its card, made by :func:`load_model`.

    Other processes receive the path of its file and load it once.

    Attributes
    ----------
    path
        Path of the model file.
    card
        Description of the model, a :class:`catalogs.model_file.ModelCard`.
    fingerprint
        Hash of the file.
    """

    def __init__(self, path: str, card: ModelCard, fingerprint: str) -> None:
        self.path, self.card, self.fingerprint = path, card, fingerprint
        self._has_swept = False

    def __reduce__(self) -> tuple[Any, ...]:
        return load_model, (self.path,)

    def __repr__(self) -> str:
        size = f"{self.card.voxel_size:g} Å"
        return f"Model({self.card.name!r}, {self.card.network}, {', '.join(self.classes)}, {size})"

    def _repr_html_(self) -> str:
        """Show the model in a notebook."""
        rows = "".join(
            f"<tr><td>{escape(info.name)}</td><td>{info.label}</td><td>{info.radius:g} Å</td>"
            f"<td>{self.card.thresholds.get(info.name, float('nan')):.3g}</td></tr>"
            for info in self.card.classes
        )
        head = "<tr><th>class</th><th>label</th><th>radius</th><th>threshold</th></tr>"
        what = (
            f"{escape(self.card.name)}: network {escape(self.card.network)}, "
            f"{self.card.n_parameters:,} weights, voxels of {self.card.voxel_size:g} Å"
        )
        return f"<table><caption>{what}</caption>{head}{rows}</table>"

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the model finds."""
        return [info.name for info in self.card.classes]

    @property
    def radii(self) -> dict[str, float]:
        """Class -> radius of its particles in Å."""
        return {info.name: info.radius for info in self.card.classes}

    @property
    def aside(self) -> float:
        """Bytes that the next sweep takes beside its slabs."""
        return ASIDE_LATER if self._has_swept else ASIDE

    @cached_property
    def network(self) -> Graph:
        """The network, ready for sweeping over volumes; loaded on first use."""
        return load_network(self.path)

    def keras(self) -> Any:
        """Load the network as a ``keras.Model``: (b, z, y, x, 1) -> (b, z, y, x, classes + 1)."""
        return load_keras(self.path)

    @accepts_former(terms="preprocessing")
    def segment(
        self,
        volume: Volume | NDArray[Any] | da.Array | str | os.PathLike[str],
        *,
        voxel_size: float | None = None,
        preprocessing: Preprocessing | None = None,
        tta: int = 1,
        max_memory: float = 4e9,
        progress: bool | Progress = False,
    ) -> Segmentation:
        """Assign a class to each voxel of a tomogram.

        Parameters
        ----------
        volume
            (z, y, x) grey values: a NumPy or Dask array, a :class:`catalogs.Volume`, or the path or URL of a
            file that :func:`catalogs.open_volume` opens.
        voxel_size
            Å; needed for arrays; has priority over the volume's own.
        preprocessing
            How the tomogram is preprocessed for the model; None: it must fit as it is.
        tta
            Orientations whose mean counts: 1, 4 or 8.
        max_memory
            Bytes that this process may use.
        progress
            True shows a bar; or a :class:`catalogs.progress.Progress`.

        Returns
        -------
        Segmentation
            ``classes`` and ``probabilities`` (z, y, x), with the voxel size and position of their grid.

        Raises
        ------
        InputError
            If the volume does not fit the model, or its voxel size is unknown.
        """
        with Scratch(Path(tempfile.gettempdir()), IN_MEMORY * max_memory) as scratch:
            prepared = self._prepared(volume, voxel_size, preprocessing, scratch, max_memory)
            return self._segmented(prepared, tta, max_memory, None, progress)

    @accepts_former(terms="preprocessing")
    def pick(
        self,
        volume: Volume | NDArray[Any] | da.Array | str | os.PathLike[str],
        *,
        voxel_size: float | None = None,
        preprocessing: Preprocessing | None = None,
        tta: int = 1,
        localising: Options | None = None,
        tomogram: str | None = None,
        max_memory: float = 4e9,
        progress: bool | Progress = False,
    ) -> pd.DataFrame:
        """Find the particles of a tomogram.

        Parameters
        ----------
        volume, voxel_size, preprocessing, tta, max_memory, progress
            As for :meth:`segment`.
        localising
            How particles are found, and which of them count; None: the defaults.
        tomogram
            Name in the table; None: the volume's own.

        Returns
        -------
        pandas.DataFrame
            The particle table (:mod:`catalogs.particle_table`): positions in Å from the centre of the
            volume's voxel 0, scores, sizes.

        Raises
        ------
        InputError
            As for :meth:`segment`; also if ``localising`` names a class that the model does not have.
        """
        localising = localising or Options()
        refuse_unknown_classes(localising, self.card)
        opened = _opened(volume)
        with Scratch(Path(tempfile.gettempdir()), IN_MEMORY * max_memory) as scratch:
            prepared = self._prepared(opened, voxel_size, preprocessing, scratch, max_memory)
            segmentation = self._segmented(prepared, tta, max_memory, scratch, progress)
            beads = (preprocessing or Preprocessing()).beads
            return self.localise(
                prepared,
                segmentation,
                localising,
                tomogram or opened.name,
                beads=beads,
                max_memory=max_memory,
            )

    def segment_prepared(
        self,
        prepared: Prepared,
        *,
        max_memory: float,
        tile: int | None = None,
        tta: int = 1,
        scratch: Scratch | None = None,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Segmentation:
        """Segment a tomogram that is already preprocessed for the model.

        Parameters
        ----------
        prepared
            From :func:`tlpick.network.tomograms.intake.prepare`.
        max_memory
            Bytes that this process may use, including those that it uses already.
        tile
            Largest cross-section of a column; see :func:`tlpick.network.tiles.plan`.
        tta, scratch, progress
            As for :func:`tlpick.network.segment.segment`.
        """
        give_back()  # what an earlier sweep let go of is no longer taken
        network, voxels = self.network, prepared.values.size
        sums = [4 * network.n_classes * voxels] if tta > 1 else []
        arrays = [voxels, voxels, *sums]
        to_come = scratch.will_hold(arrays) if scratch is not None else sum(arrays)
        z, y, x = prepared.values.shape
        left = max_memory - resident() - to_come - self.aside
        tiling = plan((z, y, x), network, (1 - _LOST) * left, tile)
        segmentation = segment(
            prepared.values,
            network,
            tiling,
            self.card.classes,
            self.card.thresholds,
            mask=prepared.mask,
            tta=tta,
            scratch=scratch,
            progress=progress,
        )
        self._has_swept = True
        return segmentation

    def localise(
        self,
        prepared: Prepared,
        segmentation: Segmentation,
        options: Options,
        tomogram: str,
        *,
        beads: bool,
        max_memory: float,
    ) -> pd.DataFrame:
        """Find the particles in the segmentation of a prepared tomogram.

        They lie in mask and ice, and away from gold beads if ``beads`` is set. ``max_memory`` is for the
        whole process, as in :meth:`segment_prepared`; it does not change the particles.
        """
        give_back()
        radii = {info.label: info.radius / prepared.grid for info in self.card.classes if info.is_particle}
        left = (1 - _LOST) * (max_memory - resident())
        edge, at_a_time = blocks_within(
            left, segmentation.labels.shape, radii, options.method, allowed_threads()
        )
        with pool(at_a_time) as threads:
            picks = localise(
                segmentation.labels,
                segmentation.score,
                self.card.classes,
                prepared.grid,
                options,
                volumes=particle_volumes(self.card),
                block=edge,
                run=threads.map,
            )
        table = as_table(tomogram, picks, self.card.classes, self.card.calibration)
        for axis, shift in zip("xyz", prepared.offset, strict=True):
            table[axis] += shift
        xyz = table[["x", "y", "z"]].to_numpy(np.float64)
        # the centre of a particle at the mask's edge may lie outside
        stay = prepared.holds(xyz)
        if beads:
            classes = self.card.classes
            labelled = labelled_as_dense(segmentation.labels, classes, prepared.grid, prepared.offset)
            for info in classes:
                ours = (table["class_name"] == info.name).to_numpy()
                for places in (prepared.beads, labelled):
                    stay[ours] &= ~places.near(xyz[ours], info.radius)
        return table[stay].reset_index(drop=True)

    def _prepared(
        self,
        volume: Volume | NDArray[Any] | da.Array | str | os.PathLike[str],
        voxel_size: float | None,
        preprocessing: Preprocessing | None,
        scratch: Scratch,
        max_memory: float,
    ) -> Prepared:
        opened = _opened(volume)
        tomogram = Tomogram(opened.name, opened.name, voxel_size)
        return prepare(
            tomogram,
            self.card,
            preprocessing or Preprocessing(),
            scratch,
            max_memory - resident(),
            volume=opened,
        )

    def _segmented(
        self,
        prepared: Prepared,
        tta: int,
        max_memory: float,
        scratch: Scratch | None,
        progress: bool | Progress,
    ) -> Segmentation:
        if tta not in (1, 4, 8):
            raise InputError(f"tta is {tta}; give 1, 4 or 8", parameter="tta")
        with progress_of(progress)("segmented", 100, "%") as line:
            return self.segment_prepared(
                prepared,
                max_memory=max_memory,
                tta=tta,
                scratch=scratch,
                progress=lambda done, total: line.update(100 * done // total),
            ).placed(prepared.grid, prepared.offset)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Load a model; the same file is read once per process.

    Parameters
    ----------
    path
        Of the model (``.tlm``); the name of one that comes with the program, as ``tlpick models`` lists them;
        or a URL with its checksum, as :func:`catalogs.model_sources.find_model` takes it.

    Returns
    -------
    Model
        Its network is loaded on first use, on a GPU if Keras finds one.

    Raises
    ------
    InputError
        If it is not a model file, or was written by a newer version of this program.
    """
    path = find_model(path)
    text = os.path.abspath(path)
    try:
        seen = os.stat(text)
    except OSError:
        raise InputError(f"there is no model {os.fspath(path)}") from None
    return _load_model(os.fspath(path), text, (seen.st_mtime_ns, seen.st_size, seen.st_ino))


@functools.lru_cache(maxsize=8)
def _load_model(path: str, _absolute: str, _seen: tuple[int, ...]) -> Model:
    return Model(path, read_card(path), fingerprint(path))


def predictor(network: Any, memory: float = MEMORY) -> Predictor:
    """Let a Keras network predict whole volumes in the same way as the picker.

    Parameters
    ----------
    network
        ``keras.Model``, (b, z, y, x, 1) -> (b, z, y, x, classes). Its current weights are used, in float32;
        the network itself is not changed.
    memory
        Bytes that the sweep may use.

    Returns
    -------
    Predictor
        A function of (z, y, x) normalised grey values.
    """
    graph = read_graph(in_float32(network))

    def over(volume: NDArray[Any]) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        z, y, x = volume.shape
        for _, _, box, answer in predict(volume, graph, plan((z, y, x), graph, memory)):
            probabilities = np.zeros(answer.shape, np.float32)
            add_probabilities(answer, graph.softmax, probabilities)
            yield box, probabilities

    return over


def _opened(volume: Volume | NDArray[Any] | da.Array | str | os.PathLike[str]) -> Volume:
    """Turn an array, path or volume into a volume."""
    if isinstance(volume, Volume):
        return volume
    if isinstance(volume, str | os.PathLike):
        from catalogs.volumes import open_volume

        return open_volume(volume)
    if getattr(volume, "ndim", None) != 3:
        raise InputError(
            f"volume has the shape {getattr(volume, 'shape', '()')}; give a tomogram of three axes (z, y, x)",
            parameter="volume",
        )
    return Volume(volume, None, (0.0, 0.0, 0.0), "volume")
