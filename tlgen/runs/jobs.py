"""The steps that make one sample on a cluster: pack, simulate the tilts, then reconstruct and write."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

from tlgen.recipes.samples import SampleSpec
from tlgen.runs import make_sample, prepare_structures
from tlgen.runs.costs import like
from tlgen.simulate.engine import engine, in_calls
from tlgen.tilts.misalignment import misaligned
from tlgen.tilts.scheme import Tilt, tilt_series
from tlrun.calls import SIMULATE
from tlrun.fan_out import Call, Job, Steps

# Peak bytes in addition to the process' own, measured and rounded up. For the packing: per voxel. For the
# last step: per voxel, per voxel in addition if the density is kept, and per pixel of the series.
_PACKING = 24
_PER_VOXEL, _PER_VOXEL_OF_DENSITY, _PER_PIXEL = 40, 24, 16


def memory_to_finish(spec: SampleSpec, n_tilts: int) -> int:
    """Estimate the bytes that the last step of a sample needs."""
    _, y, x = spec.shape
    each = _PER_VOXEL + (_PER_VOXEL_OF_DENSITY if spec.keep.density else 0)
    return make_sample.PROCESS + math.prod(spec.shape) * each + n_tilts * y * x * _PER_PIXEL


def sample_job(
    url: str,
    spec: SampleSpec,
    prepared: list[prepare_structures.Prepared],
    class_names: tuple[str, ...],
    recipe: dict[str, Any],
) -> Job:
    """Describe the making of one sample to :func:`tlrun.fan_out.fan_out`."""

    def steps() -> Steps:
        acq = spec.acquisition
        if acq.device == "gpu":  # otherwise a minute of packing would be wasted
            yield [Call(make_sample.check_device, acq).needs(pool=SIMULATE, like=like(spec))]
        first = Call(make_sample.pack, url, spec, prepared, class_names)
        packed: make_sample.Packed | make_sample.Made = (
            yield [
                first.needs(memory=make_sample.PROCESS + math.prod(spec.shape) * _PACKING, like=like(spec))
            ]
        )[0]
        if isinstance(packed, make_sample.Made):
            return packed
        tilts = misaligned(tilt_series(acq), acq, spec.stream("alignment"))
        images = yield from _simulated(url, packed, spec, tilts)
        sources = {p.name: p.source for p in prepared}
        last = Call(make_sample.finish, url, spec, packed, sources, recipe, tilts, images)
        return (yield [last.needs(memory=memory_to_finish(spec, len(tilts)), like=like(spec))])[0]

    return Job(spec.sample_id, steps)


def _simulated(
    url: str, packed: make_sample.Packed, spec: SampleSpec, tilts: list[Tilt]
) -> Generator[list[Call], list[Any], list[make_sample.Simulated]]:
    """Simulate the images of a sample: one tilt per call, or several if the engine prefers that."""
    acq, seed = spec.acquisition, spec.stream("simulate")
    parts = in_calls(engine(acq.engine), acq, spec.shape, tilts)
    calls = [Call(make_sample.simulate_tilts, url, packed.scene, acq, part, seed) for part in parts]
    made = yield [call.needs(pool=SIMULATE, memory=packed.memory, like=like(spec)) for call in calls]
    return [image for part in made for image in part]
