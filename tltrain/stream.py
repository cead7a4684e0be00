"""Patches out of a corpus, without end: read in blocks by threads, cut, augmented, shuffled, batched.

Batch ``n`` depends on the corpus, the settings and ``n`` only, never on the timing of threads: the stream of
a resumed training starts in the middle and goes on as if nothing had happened. Blocks are read in rounds; the
patches of a round are shuffled among each other while the next round is being read. So memory holds at most
two rounds of patches and one block a thread, whatever the size of the corpus.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogs.intensity import normalise
from catalogs.schema import ClassInfo, SampleRecord
from catalogs.seeds import generator
from tltrain.augment import Augmentation, augment
from tltrain.sampling import Plan, Sampler, Shares, Source, sites_of

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

#: (b, z, y, x, 1) float32 normalised grey values and (b, z, y, x) uint8 indices of classes.
Batch = tuple[NDArray[np.float32], NDArray[np.uint8]]
_Patch = tuple[NDArray[np.float16], NDArray[np.uint8]]

_OPEN = 1024  # samples whose arrays stay open; one is a few kilobytes


@dataclass(frozen=True, eq=False)
class PatchStream:
    """Batches of patches; see :func:`open_stream`.

    Attributes
    ----------
    catalog
        Where the volumes are.
    records
        Of the samples, in the order of ``sampler.sources``.
    sampler
        What to cut.
    channels
        (256,) value in the class volume -> index of the network's output.
    batch
        Patches of a batch.
    rounds
        Batches that are read and shuffled together.
    augmentation
        How patches are changed; None leaves them.
    seed
        Decides the shuffling and the augmentation.
    readers
        Threads that read blocks.
    """

    catalog: Catalog
    records: Sequence[SampleRecord]
    sampler: Sampler
    channels: NDArray[np.uint8]
    batch: int
    rounds: int
    augmentation: Augmentation | None
    seed: int
    readers: int

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield batch ``start`` and all that follow."""
        arrays = lru_cache(_OPEN)(self.catalog.arrays)  # opened when first needed: there may be many
        with ThreadPoolExecutor(self.readers, thread_name_prefix="tltrain-read") as pool:
            first, skip = divmod(start, self.rounds)
            upcoming = self._submit(pool, arrays, first)
            try:
                while True:
                    pending, upcoming = upcoming, self._submit(pool, arrays, first + 1)
                    yield from self._shuffled(pending, first, skip)
                    first, skip = first + 1, 0
            finally:  # the consumer has had enough
                for future in upcoming:
                    future.cancel()

    def _submit(
        self, pool: ThreadPoolExecutor, arrays: Callable[[str], dict[str, Any]], number: int
    ) -> list[Future[list[_Patch]]]:
        """Ask for all the blocks of a round."""
        blocks = math.ceil(self.rounds * self.batch / self.sampler.per_block)
        return [pool.submit(self._cut, arrays, number * blocks + k) for k in range(blocks)]

    def _shuffled(self, pending: list[Future[list[_Patch]]], number: int, skip: int) -> Iterator[Batch]:
        """Wait for a round, then yield its batches from number ``skip`` on."""
        patches = [patch for future in pending for patch in future.result()]
        order = generator(self.seed, "shuffle", number).permutation(len(patches))
        for n in range(skip, self.rounds):
            chosen = [patches[k] for k in order[n * self.batch : (n + 1) * self.batch]]
            yield (
                np.stack([tomogram for tomogram, _ in chosen]).astype(np.float32)[..., None],
                np.stack([classes for _, classes in chosen]),
            )

    def _cut(self, arrays: Callable[[str], dict[str, Any]], i: int) -> list[_Patch]:
        """Read the block of plan ``i`` and cut its patches."""
        plan = self.sampler.plan(i)
        where = tuple(slice(int(a), int(b)) for a, b in zip(plan.start, plan.stop, strict=True))
        record = self.records[plan.source]
        volumes = arrays(record.sample_id)
        tomogram = normalise(volumes["tomogram"][where], record.intensity)
        classes = self.channels[np.asarray(volumes["classes"][where])]
        patches = []
        for k, corner in enumerate(plan.corners):
            grey = _window(tomogram, plan, corner, self.sampler.patch)
            labels = _window(classes, plan, corner, self.sampler.patch)
            if self.augmentation is not None:
                rng = generator(self.seed, "augment", i, k)
                grey, labels = augment(grey, labels, rng, self.augmentation)
            # half precision while a patch waits: as precise as the tomogram on disk, far below the noise
            patches.append((grey.astype(np.float16), np.ascontiguousarray(labels)))
        return patches


def _window(block: NDArray[Any], plan: Plan, corner: NDArray[np.int64], edge: int) -> NDArray[Any]:
    """Cut a cube out of a block; beyond the volume it is zero, as a network's own padding is."""
    first = corner - plan.start
    inside = tuple(slice(max(int(a), 0), int(a) + edge) for a in first)
    part = block[inside]
    if part.shape == (edge, edge, edge):
        return part
    before = np.maximum(-first, 0)
    return np.pad(part, [(int(b), edge - int(b) - n) for b, n in zip(before, part.shape, strict=True)])


def open_stream(
    catalog: Catalog,
    records: Sequence[SampleRecord],
    *,
    patch: int,
    batch: int,
    seed: int,
    shares: Shares | None = None,
    augmentation: Augmentation | None = None,
    shuffle: int = 256,
    readers: int = 8,
) -> PatchStream:
    """Prepare to stream patches of some samples.

    Parameters
    ----------
    catalog
        The corpus.
    records
        Of the samples to use, of one voxel size.
    patch
        Edge of a patch in voxels.
    batch
        Patches of a batch.
    seed
        Decides everything.
    shares
        What patches are centred on.
    augmentation
        How patches are changed; None leaves them.
    shuffle
        Patches that are shuffled among each other, at least.
    readers
        Threads that read blocks; on an object store more than one core can feed, for they wait.

    Returns
    -------
    PatchStream
    """
    with ThreadPoolExecutor(readers) as pool:
        tables = list(pool.map(lambda record: catalog.particles(record.sample_id), records))
    # one layout in one corpus; reading another one would be slower but not wrong
    z, y, x = catalog.arrays(records[0].sample_id)["tomogram"].chunks
    sampler = Sampler(
        sources=[Source(record.sample_id, record.shape, (z, y, x)) for record in records],
        sites=sites_of(tables, records[0].acquisition.voxel_size),
        patch=patch,
        shares=shares or Shares(),
        seed=seed,
    )
    return PatchStream(
        catalog=catalog,
        records=records,
        sampler=sampler,
        channels=channels_of(catalog.classes),
        batch=batch,
        rounds=math.ceil(shuffle / batch),
        augmentation=augmentation,
        seed=seed,
        readers=readers,
    )


def channels_of(classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """Map values of a class volume to outputs of a network: background, then the classes by their value."""
    channels = np.zeros(256, np.uint8)
    for k, info in enumerate(sorted(classes, key=lambda info: info.label), start=1):
        channels[info.label] = k
    return channels


def as_tf_dataset(stream: PatchStream, start: int = 0) -> Any:
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
        Of (b, z, y, x, 1) float32 and (b, z, y, x) uint8 tensors, without end.
    """
    import tensorflow as tf

    edge = stream.sampler.patch
    signature = (
        tf.TensorSpec((stream.batch, edge, edge, edge, 1), tf.float32),
        tf.TensorSpec((stream.batch, edge, edge, edge), tf.uint8),
    )
    # whole batches: for single patches, the way through Python would cost more than the reading
    batches = tf.data.Dataset.from_generator(lambda: stream.batches(start), output_signature=signature)
    return batches.prefetch(2)
