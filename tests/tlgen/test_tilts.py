from itertools import pairwise

import numpy as np
import pytest

from catalogs.schema import Acquisition
from tlgen.tilts import tilt_series


def test_dose_symmetric_goes_outwards_negative_first() -> None:
    tilts = tilt_series(Acquisition(tilt_min=-6, tilt_max=6, tilt_step=2, dose=70))
    assert [t.angle for t in tilts] == [0, -2, 2, -4, 4, -6, 6]
    assert [t.index for t in tilts] == list(range(7))


def test_continuous_goes_from_one_end_to_the_other() -> None:
    tilts = tilt_series(Acquisition(tilt_min=-6, tilt_max=4, tilt_step=2, tilt_scheme="continuous"))
    assert [t.angle for t in tilts] == [-6, -4, -2, 0, 2, 4]


def test_dose_adds_up_in_the_order_of_acquisition() -> None:
    tilts = tilt_series(Acquisition(dose=120))
    assert len(tilts) == 61
    assert sum(t.dose for t in tilts) == pytest.approx(120)
    for before, after in pairwise(tilts):
        assert after.dose_before == pytest.approx(before.dose_after)
    assert tilts[0].dose_before == 0


@pytest.mark.parametrize(("step", "count"), [(0.1, 1201), (0.3, 401), (3.0, 41), (7.0, 18)])
def test_steps_that_binary_fractions_miss_are_counted_whole(step: float, count: int) -> None:
    tilts = tilt_series(Acquisition(tilt_step=step))
    angles = np.sort([t.angle for t in tilts])
    assert len(tilts) == count
    assert np.allclose(np.diff(angles), step)
    assert angles[0] == -60
    assert angles[-1] <= 60


@pytest.mark.parametrize(("start", "step", "count"), [(-60.0, 2.0, 61), (-40.0, 4.0, 21), (-61.0, 3.0, 41)])
def test_order_is_parakeets(start: float, step: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    monkeypatch.setitem(sys.modules, "profet", types.ModuleType("profet"))
    import parakeet.scan

    theirs = parakeet.scan.new(
        mode="dose_symmetric", axis=(0, 1, 0), start_angle=start, step_angle=step, num_images=count
    )
    end = start + (count - 1) * step
    ours = tilt_series(Acquisition(tilt_min=start, tilt_max=end, tilt_step=step))
    assert [t.angle for t in ours] == pytest.approx(list(theirs.angles))
