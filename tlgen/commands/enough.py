"""How much is enough: three sizes of a corpus and a training, with what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from catalogs.amounts import duration

#: What the times of :data:`SIZES` were measured on, by ``benchmarks/enough.py``.
MEASURED_ON = "two cores of an AMD EPYC (Zen 4, AVX-512)"
_CORES = 2


@dataclass(frozen=True)
class Size:
    """A corpus and a training.

    Attributes
    ----------
    name
        What it is enough for.
    boxes
        Samples of the corpus, in words.
    network, steps, patch, batch
        Of the training.
    options
        The options of ``tltrain fit`` that say so.
    corpus, training
        Hours of one core that each takes.
    """

    name: str
    boxes: str
    network: str
    steps: int
    patch: int
    batch: int
    options: str
    corpus: float
    training: float

    @property
    def times(self) -> tuple[str, str]:
        """Times of the corpus and of the training on two cores, in words."""
        corpus, training = (duration(3600 * hours / _CORES) for hours in (self.corpus, self.training))
        return corpus, training


SIZES = (
    Size(
        name="a first look",
        boxes="the demo's 14 boxes",
        network="small", steps=1000, patch=40, batch=8,
        options="as it is",
        corpus=0.152, training=0.0772,
    ),
    Size(
        name="a working model",
        boxes="50 boxes of the demo's size by multislice: 40 to train, 5 with split: val, 5 with split: test",
        network="small", steps=5000, patch=40, batch=8,
        options="--steps 5000",
        corpus=0.118, training=0.386,
    ),
    Size(
        name="a paper",
        boxes="100 boxes of 256 x 256 x 128 voxels by multislice, in many conditions; "
        "10 variants of each structure",
        network="deepfinder", steps=10_000, patch=48, batch=24,
        options="--network deepfinder --steps 10000 --patch 48 --batch 24",
        corpus=4.13, training=85.7,
    ),
)  # fmt: skip


def lines() -> Iterator[str]:
    """Say how much is enough, as ``tlgen new`` prints it."""
    yield f"how much is enough; times were measured on {MEASURED_ON}:"
    for size in SIZES:
        corpus, training = size.times
        yield f"  {size.name}"
        yield f"    samples      {size.boxes}: {corpus}"
        yield f"    tltrain fit  {size.options}: {training}"
    yield "tlgen plan says what your corpus will take on your machine"


def table() -> str:
    """Write the same as a table in Markdown, for the documentation."""
    rows = [
        "| for | samples | corpus | `tltrain fit` | training |",
        "| --- | --- | --- | --- | --- |",
    ]
    for size in SIZES:
        corpus, training = size.times
        options = f"`{size.options}`" if size.options.startswith("-") else size.options
        rows.append(f"| {size.name} | {size.boxes} | {corpus} | {options} | {training} |")
    return "\n".join(rows)
