"""Sources of patches: tomograms with their labels and the places of interest in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from catalogs.corpus.ome import CHUNK
from catalogs.schema import ClassInfo, SampleRecord
from tltrain.data.sampling import Sites, Source

if TYPE_CHECKING:
    from catalogs.corpus.catalog import Catalog

#: Value in a class volume, unless a class has it, for voxels that the loss ignores.
IGNORE = 255

_OPEN = 1024  # samples whose arrays and tables are kept open; each takes some kilobytes


class TrainingTomograms(Protocol):
    """Tomograms for a stream; several threads may read at the same time.

    A value in a class volume that is not among ``outputs`` is an error in the data.
    """

    @property
    def sources(self) -> Sequence[Source]:
        """The tomograms."""

    @property
    def outputs(self) -> dict[int, int]:
        """Value in a class volume -> index of the network's output, or :data:`IGNORE`."""

    def sites(self, k: int) -> Sites:
        """Read the places of interest in source ``k``."""

    def volumes(self, k: int) -> tuple[Any, Any]:
        """Open the tomogram and the class volume of source ``k``: anything that slices like an array.

        The class volume is uint8.
        """


class CorpusTomograms:
    """Samples of a corpus.

    Parameters
    ----------
    catalog
        The corpus.
    records
        Of the samples to use, of one voxel size.
    """

    def __init__(self, catalog: Catalog, records: Sequence[SampleRecord]) -> None:
        self._catalog = catalog
        self._voxel_size = records[0].acquisition.voxel_size
        classes = catalog.classes
        self.outputs = outputs_of(classes)
        self._picked = {info.label for info in classes if info.is_particle}
        labels = {info.name: info.label for info in classes if info.is_particle}
        self.sources = [_source(record, labels) for record in records]
        self.sites = lru_cache(_OPEN)(self._read_sites)
        self.volumes = lru_cache(_OPEN)(self._open_volumes)

    def _read_sites(self, k: int) -> Sites:
        table = self._catalog.particles(self.sources[k].name)
        labels = table["label"].to_numpy(np.int64)
        return Sites(
            # classes that are labelled but not picked are hard negatives, too
            label=np.where(np.isin(labels, list(self._picked)), labels, 0),
            centre=table[["z", "y", "x"]].to_numpy(np.float64) / self._voxel_size,
        )

    def _open_volumes(self, k: int) -> tuple[Any, Any]:
        arrays = self._catalog.arrays(self.sources[k].name)
        return arrays["tomogram"], arrays["classes"]


class Labels:
    """Converts values of a class volume into outputs of a network.

    Parameters
    ----------
    outputs
        Value -> output; other values are an error.
    """

    def __init__(self, outputs: Mapping[int, int]) -> None:
        unused = next(value for value in range(256) if value not in outputs.values())
        self._table = bytes(outputs.get(value, unused) for value in range(256))
        self._unused = bytes([unused])
        self._known = frozenset(outputs)
        #: Up to this value, values equal their outputs, so most volumes need no conversion.
        self._same = next((v for v in range(256) if outputs.get(v) != v), 256) - 1

    def __call__(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the outputs of a part of a volume, of the same shape.

        Raises
        ------
        ValueError
            If it holds other values.
        """
        part = np.ascontiguousarray(values)
        if part.size and part.max() <= self._same:
            return part
        looked_up = bytearray(part).translate(self._table)  # several times as fast as indexing
        if self._unused in looked_up:
            strange = sorted(set(np.unique(part).tolist()) - self._known)
            raise ValueError(f"the label {strange[0]} belongs to no class")
        return np.frombuffer(looked_up, np.uint8).reshape(part.shape)


def outputs_of(classes: Iterable[ClassInfo]) -> dict[int, int]:
    """Map values of a class volume to outputs of a network: background, then the classes by their value."""
    labels = sorted(info.label for info in classes)
    return {IGNORE: IGNORE, 0: 0} | {label: k for k, label in enumerate(labels, start=1)}


def _source(record: SampleRecord, labels: dict[str, int]) -> Source:
    counts = {labels[name]: n for name, n in record.class_counts.items() if name in labels}
    return Source(
        name=record.sample_id,
        shape=record.shape,
        chunk=(CHUNK,) * 3,
        intensity=record.intensity,
        counts=counts | {0: record.n_distractors},
        tilts=(record.acquisition.tilt_min, record.acquisition.tilt_max),
    )
