"""Rough guesses of the costs of a sample's steps, before any step has been timed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from tlgen.recipes.samples import SampleSpec
from tlgen.simulate.engine import engine, in_calls
from tlgen.tilts.scheme import tilt_series
from tlrun.reporting.estimate import Work

#: Names of the functions that make a sample, as :mod:`tlgen.runs.jobs` calls them.
CHECK_DEVICE, PACK, SIMULATE, FINISH = "check_device", "pack", "simulate_tilts", "finish"

# CPU seconds for a cube of 0.1 µm; only their ratios matter, and only until some steps are timed.
_PACKING = 4.0
_VOLUME = 1e9  # Å³
_FINISHING = 1e-8  # for each voxel and tilt
_CHECKING = 0.01


def like(spec: SampleSpec) -> str:
    """Name the kind of a sample: samples of the same kind take about the same time."""
    shape = "x".join(map(str, spec.shape))
    return f"{spec.acquisition.engine} {shape} {spec.acquisition.voxel_size:g}A"


def one_of_each_first(specs: Sequence[SampleSpec]) -> list[SampleSpec]:
    """Put the first sample of each kind before all others, so that costs and errors are known early."""
    firsts: dict[str, SampleSpec] = {}
    for spec in specs:
        firsts.setdefault(like(spec), spec)
    ids = {spec.sample_id for spec in firsts.values()}
    return [*firsts.values(), *(spec for spec in specs if spec.sample_id not in ids)]


def work(specs: Iterable[SampleSpec]) -> list[Work]:
    """List the calls that make the samples, by group, with the probable cost of each."""
    calls: Counter[str] = Counter()
    tilts_of: Counter[str] = Counter()
    guesses: dict[str, float] = {}
    for spec in specs:
        series = tilt_series(spec.acquisition)
        simulator = engine(spec.acquisition.engine)
        parts = in_calls(simulator, spec.acquisition, spec.shape, series)
        tilts, each = len(series), len(parts[0])
        volume = math.prod(spec.shape) * spec.acquisition.voxel_size**3 / _VOLUME
        for function, number, guess in (
            (PACK, 1, _PACKING * volume),
            (SIMULATE, len(parts), each * simulator.cost * volume),
            (FINISH, 1, _FINISHING * math.prod(spec.shape) * tilts),
            (CHECK_DEVICE, int(spec.acquisition.device == "gpu"), _CHECKING),
        ):
            if not number:
                continue
            group = f"{function} {like(spec)}"
            calls[group] += number
            guesses[group] = guess
            tilts_of[group] += tilts if function == SIMULATE else 0
    return [Work(group, number, guesses[group], tilts_of[group]) for group, number in calls.items()]
