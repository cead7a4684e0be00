"""An endless stream of patches: threads read blocks; patches are cut, augmented, shuffled and batched.

Batch ``n`` depends only on the tomograms, the settings and ``n``, never on the timing of threads: two streams
with the same seed are equal, bit for bit, and the stream of a resumed training can start in the middle. There
is no shuffle buffer; the place of every patch is computed. Place ``s`` in the batches ``n``, ``n + spread``,
``n + 2 spread``, ... is a lane. A lane takes all patches of one block, then those of the next, and the lanes
change their blocks at different times. So

- a batch holds at most one patch of each block that was read, and its blocks were drawn independently;
- about ``batch / per_block`` blocks are read for each batch, evenly over time;
- memory contains ``spread * per_block`` batches and those that are read ahead, whatever the size of the
corpus;
- starting at any batch takes no longer than starting at the first.

A damaged part of a tomogram is replaced by another part, the same one every time.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.intensity import CLIP, scale_of
from catalogs.schema import SampleRecord
from catalogs.seeds import generator
from tltrain.data.augment import NO_AUGMENTATION, Augmentation, Changes, Cutting, Patch, draws
from tltrain.data.blocks import Waiting, pieces_of
from tltrain.data.damage import PATIENCE, BadData, Damage, Reading
from tltrain.data.patch_sources import CorpusTomograms, Labels, TrainingTomograms, outputs_of
from tltrain.data.sampling import PatchBlock, Sampler, Sampling, Sites, patches_to_fill

if TYPE_CHECKING:
    from catalogs.corpus.catalog import Catalog

__all__ = [
    "Batch",
    "Mixed",
    "PatchStream",
    "Patches",
    "Place",
    "as_keras",
    "as_tf_dataset",
    "open_stream",
    "open_stream_of",
    "outputs_of",
]

#: (b, z, y, x, 1) float32 normalised grey values and (b, z, y, x) uint8 indices of classes, 255 where the
#: loss takes no notice.
Batch = tuple[NDArray[np.float32], NDArray[np.uint8]]

_ATTEMPTS = 20  # blocks that are tried instead of a damaged one


class Patches(Protocol):
    """Anything that yields batches of patches by their number."""

    @property
    def batch(self) -> int:
        """Patches of a batch."""

    @property
    def patch(self) -> int:
        """Edge of a patch in voxels."""

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield batch ``start`` and all that follow."""


@dataclass(frozen=True)
class Place:
    """The origin of a patch in a batch.

    Attributes
    ----------
    block
        Number of the block.
    k
        Which of its patches.
    """

    block: int
    k: int


@dataclass(frozen=True, eq=False)
class PatchStream:
    """Batches of patches; see :func:`open_stream`.

    Attributes
    ----------
    tomograms
        Where the volumes are.
    sampler
        What to cut.
    batch
        Patches of a batch.
    spread
        Batches between two patches of one block, at least.
    augmentation
        How patches are changed; None leaves them.
    seed
        Decides the augmentation.
    readers
        Threads that read blocks.
    part
        Which part of each batch of all hosts or workers together this one is, and how many there are.
    damage
        What was found damaged so far: ``damage.found`` is a list of sentences.
    patience
        Seconds that the storage may take to answer.
    process
        Process in which the stream was opened.
    """

    tomograms: TrainingTomograms
    sampler: Sampler
    batch: int
    spread: int
    augmentation: Augmentation | None
    seed: int
    readers: int
    part: tuple[int, int]
    damage: Damage
    patience: float = PATIENCE
    process: int = field(default_factory=os.getpid)

    @property
    def patch(self) -> int:
        """Edge of a patch in voxels."""
        return self.sampler.patch

    @property
    def ahead(self) -> int:
        """Batches that are read ahead: enough for every reader to have two blocks to read."""
        return max(2, math.ceil(2 * self.readers * self.sampler.per_block / self.batch))

    def places(self, n: int) -> list[Place]:
        """Return the origins of the patches of batch ``n``; no two are from one block."""
        index, parts = self.part
        per_block, width = self.sampler.per_block, parts * self.batch
        group, turn = n % self.spread, n // self.spread
        found = []
        for s in range(index * self.batch, (index + 1) * self.batch):
            lane = group * width + s
            # lanes are as far through their blocks as they are far along: blocks are needed one by one
            through = (s * self.spread + group) * per_block // (width * self.spread)
            q, k = divmod(turn + through, per_block)
            found.append(Place(q * width * self.spread + lane, k))
        return found

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield batch ``start`` and all that follow.

        Raises
        ------
        InputError
            If more is damaged than allowed, the storage does not answer for too long, or this process was
            forked after the stream was opened.
        """
        self._refuse_forked()
        reading = Reading(self.patience)
        labels, waiting = Labels(self.tomograms.outputs), Waiting(self.batch, self.patch)
        pending: dict[int, Future[None]] = {}
        pool = ThreadPoolExecutor(self.readers, thread_name_prefix="tltrain-read")
        asked = n = start
        try:
            while True:
                for m in range(asked, n + self.ahead + 1):
                    for s, place in enumerate(self.places(m)):
                        if place.block not in pending:  # its patches go to every spread-th batch from here on
                            numbers = range(self.sampler.per_block - place.k)
                            patches = [waiting.patch(m + k * self.spread, s) for k in numbers]
                            pending[place.block] = pool.submit(self._cut, reading, labels, place, patches)
                asked = n + self.ahead + 1
                for place in self.places(n):
                    pending[place.block].result()
                    if place.k == self.sampler.per_block - 1:
                        del pending[place.block]
                yield waiting.deliver(n)
                self._refuse_forked()
                n += 1
        finally:  # the consumer has stopped, or an error is raised
            reading.close()
            pool.shutdown(wait=False, cancel_futures=True)

    def _refuse_forked(self) -> None:
        """Refuse to wait for threads that do not exist: a fork copies only their locks."""
        if os.getpid() != self.process:
            raise InputError(
                "a stream of patches cannot be read in a process that was forked from the one that opened "
                "it; start processes by multiprocessing.get_context('spawn') and open the stream in each, "
                "with part=(k, n)"
            )

    def _cut(self, reading: Reading, labels: Labels, first: Place, patches: list[Patch]) -> None:
        """Read a block and cut its patches from the given one on."""
        for attempt in range(_ATTEMPTS):
            try:
                block = self.sampler.block(first.block, attempt, lambda k: self._sites(reading, k))
                return self._cut_block(reading, labels, block, first, patches)
            except BadData as bad:
                self.damage.report(bad)
        raise InputError(f"{_ATTEMPTS} blocks drawn at random are damaged: {'; '.join(self.damage.found)}")

    def _sites(self, reading: Reading, k: int) -> Sites:
        return reading(lambda: self.tomograms.sites(k), self.sampler.sources[k].name, k)

    def _cut_block(
        self, reading: Reading, labels: Labels, block: PatchBlock, first: Place, patches: list[Patch]
    ) -> None:
        source, box = self.sampler.sources[block.source], (block.start.tolist(), block.stop.tolist())
        dice = draws(generator(self.seed, "augment", first.block), self.sampler.per_block)[first.k :]
        changes = Changes(dice, self.augmentation or NO_AUGMENTATION, source.tilts, self.patch)
        cutting = Cutting(changes, block.corners[first.k :], (block.start, block.stop), patches)
        centre, clip = np.float32(source.intensity.centre), np.float32(CLIP)
        normal = centre, scale_of(source.intensity), clip
        tomogram, classes = reading(lambda: self.tomograms.volumes(block.source), source.name, block.source)

        # the whole block is checked, also parts that no patch needs, so that damage does not depend on
        # ``first``
        def grey() -> None:
            for place, piece in pieces_of(tomogram, block, np.dtype(np.float32)):
                if not cutting.grey(place, piece, normal):
                    raise ValueError("the tomogram holds values that are not finite numbers")

        def outputs() -> None:
            for place, piece in pieces_of(classes, block, np.dtype(np.uint8)):
                cutting.labels(place, labels(piece))

        reading(grey, source.name, block.source, box)
        reading(outputs, source.name, block.source, box)
        cutting.finish()


@dataclass(frozen=True)
class Mixed:
    """Streams whose batches are joined: some patches of each.

    Attributes
    ----------
    streams
        Of patches of one size.
    """

    streams: Sequence[PatchStream]

    @property
    def batch(self) -> int:
        """Patches of a batch."""
        return sum(stream.batch for stream in self.streams)

    @property
    def patch(self) -> int:
        """Edge of a patch in voxels."""
        return self.streams[0].patch

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield batch ``start`` and all that follow, the streams' patches in the order of the streams."""
        several = [stream.batches(start) for stream in self.streams]
        try:
            for parts in zip(*several, strict=True):
                grey, classes = zip(*parts, strict=True)
                yield np.concatenate(grey), np.concatenate(classes)
        finally:
            for batches in several:
                batches.close()  # type: ignore[attr-defined]


def open_stream(
    catalog: Catalog,
    records: Sequence[SampleRecord],
    *,
    patch: int,
    batch: int,
    seed: int,
    sampling: Sampling | None = None,
    augmentation: Augmentation | None = None,
    **options: Any,
) -> PatchStream:
    """Prepare to stream patches of some samples of a corpus.

    Nothing of a sample is read before one of its blocks is needed.

    Parameters
    ----------
    catalog
        The corpus.
    records
        Of the samples to use, of one voxel size.
    patch, batch, seed, sampling, augmentation, options
        As :func:`open_stream_of` takes them.

    Returns
    -------
    PatchStream
    """
    return open_stream_of(
        CorpusTomograms(catalog, records),
        patch=patch,
        batch=batch,
        seed=seed,
        sampling=sampling,
        augmentation=augmentation,
        **options,
    )


def open_stream_of(
    tomograms: TrainingTomograms,
    *,
    patch: int,
    batch: int,
    seed: int,
    sampling: Sampling | None = None,
    augmentation: Augmentation | None = None,
    per_block: int | None = None,
    spread: int = 2,
    readers: int = 8,
    part: tuple[int, int] = (0, 1),
    max_damaged: float = 0.01,
    patience: float = PATIENCE,
    tell: Callable[[str], None] | None = None,
) -> PatchStream:
    """Prepare to stream patches of any tomograms.

    Parameters
    ----------
    tomograms
        The tomograms.
    patch
        Edge of a patch in voxels.
    batch
        Patches of a batch; of the batch of this host, if there are several.
    seed
        Decides everything.
    sampling
        What patches are centred on.
    augmentation
        How patches are changed; None leaves them as they are in the tomogram, at the places where they would
        be anyway.
    per_block
        Patches that are cut from a block once it was read; None: as many as fill it, and no more than 32.
    spread
        Batches between two patches of one block, at least. Memory grows with it.
    readers
        Threads that read blocks; on an object store more than there are cores, for they wait.
    part
        (h, n): this is host, or worker, h of n. All together yield the stream of a single one with a batch
        of ``n * batch``: batch ``i`` of host h is the h-th part of its batch ``i``. They read different
        blocks and need not know of each other.
    max_damaged
        Share of the tomograms' volume that may be damaged: it is skipped and listed. More stops the stream.
    patience
        Seconds that the storage may be silent.
    tell
        Gets a sentence about each damaged part that is skipped; called from any thread.

    Returns
    -------
    PatchStream

    Raises
    ------
    InputError
        If there is no such part, or a number is too small.
    """
    if per_block is None and patch >= 1:
        per_block = patches_to_fill(tomograms.sources[0], patch)
    for name, value in (("patch", patch), ("batch", batch), ("per_block", per_block), ("spread", spread)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; give at least 1")
    if not 0 <= part[0] < part[1]:
        raise InputError(f"there is no part {part[0]} of {part[1]}; count from 0")
    shift = augmentation.shift if augmentation is not None else Augmentation().shift
    sampler = Sampler(
        tomograms.sources,
        tomograms.sites,
        patch,
        per_block=per_block or 1,
        sampling=sampling,
        shift=shift.strength,
        shift_probability=shift.probability,
        seed=seed,
    )
    return PatchStream(
        tomograms=tomograms,
        sampler=sampler,
        batch=batch,
        spread=spread,
        augmentation=augmentation,
        seed=seed,
        readers=readers,
        part=part,
        damage=Damage(tomograms.sources, max_damaged, tell),
        patience=patience,
    )


def as_tf_dataset(stream: Patches, start: int = 0) -> Any:
    """Wrap a stream in a ``tf.data.Dataset`` of batches that keeps two of them ready.

    Parameters
    ----------
    stream
        From :func:`open_stream`.
    start
        Number of the first batch.

    Returns
    -------
    tf.data.Dataset
        Of (b, z, y, x, 1) float32 and (b, z, y, x) uint8 tensors, without end. It cannot be saved by
        TensorFlow's checkpoints, and need not be: ``start`` says where to go on.
    """
    import tensorflow as tf

    shape = (stream.batch, *[stream.patch] * 3)
    batch_of = _InOrder(stream, start)

    # Whole batches: for single patches, the way through Python would cost more than the reading. Not
    # Dataset.from_generator: what it does with memory makes the system map every array's pages anew.
    def batch(number: Any) -> tuple[Any, Any]:
        grey, classes = tf.numpy_function(batch_of, [number], (tf.float32, tf.uint8))
        return tf.ensure_shape(grey, (*shape, 1)), tf.ensure_shape(classes, shape)

    return tf.data.Dataset.counter().map(batch).prefetch(2)


def as_keras(stream: Patches, steps: int, start: int = 0) -> Any:
    """Wrap a stream in a ``keras.utils.PyDataset``, for ``fit`` on any of Keras' backends.

    Parameters
    ----------
    stream
        From :func:`open_stream`.
    steps
        Batches of an epoch; the next epoch goes on where the last one ended.
    start
        Number of the first batch.

    Returns
    -------
    keras.utils.PyDataset
        It reads by the stream's own threads: ``workers`` and ``use_multiprocessing`` do not concern it. A
        forked process would hang in the libraries that read.
    """
    import keras

    batch_of = _InOrder(stream, start)

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self._epoch = 0

        def __len__(self) -> int:
            return steps

        def on_epoch_end(self) -> None:
            self._epoch += 1

        def __getitem__(self, index: int) -> Batch:
            return batch_of(self._epoch * steps + index)

    return Batches()


class _InOrder:
    """Returns batches by their number, quickly if they are asked for one after the other."""

    def __init__(self, stream: Patches, start: int) -> None:
        self._stream, self._start = stream, start
        self._next = 0
        self._batches: Iterator[Batch] | None = None
        self._lock = threading.Lock()  # several iterators of a dataset may ask

    def __call__(self, number: int) -> Batch:
        with self._lock:
            if self._batches is None or number != self._next:  # not the next one: begin there
                self._batches = self._stream.batches(self._start + int(number))
            self._next = int(number) + 1
            return next(self._batches)
