from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from catalogs.schema import Acquisition
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.samples import expand
from tlgen.tilts.scheme import steps_meet, tilt_series


def test_dose_symmetric_goes_outwards_negative_first() -> None:
    tilts = tilt_series(Acquisition(tilt_min=-6, tilt_max=6, tilt_step=2, dose=70))
    assert [t.angle for t in tilts] == [0, -2, 2, -4, 4, -6, 6]
    assert [t.index for t in tilts] == list(range(7))


@pytest.mark.parametrize(
    ("words", "angles"),
    [
        ({"tilt_scheme": "unidirectional"}, [-6, -4, -2, 0, 2, 4]),
        ({"tilt_scheme": "continuous"}, [-6, -4, -2, 0, 2, 4]),  # the older word
        ({"tilt_scheme": "unidirectional", "tilt_first": "positive"}, [4, 2, 0, -2, -4, -6]),
        ({"tilt_scheme": "bidirectional"}, [0, -2, -4, -6, 2, 4]),
        ({"tilt_scheme": "bidirectional", "tilt_start": -4}, [-4, -6, -2, 0, 2, 4]),
        ({"tilt_scheme": "bidirectional", "tilt_first": "positive"}, [0, 2, 4, -2, -4, -6]),
        ({"tilt_first": "positive"}, [0, 2, -2, 4, -4, -6]),
        ({"tilt_group": 2}, [0, -2, -4, 2, 4, -6]),
        ({"tilt_start": -2, "tilt_group": 2, "tilt_first": "positive"}, [-2, 0, 2, -4, -6, 4]),
        ({"tilt_start": 2}, [2, 0, 4, -2, -4, -6]),
    ],
)
def test_schemes(words: dict[str, Any], angles: list[float]) -> None:
    acq = Acquisition.model_validate({"tilt_min": -6, "tilt_max": 4, "tilt_step": 2, **words})
    assert [t.angle for t in tilt_series(acq)] == angles


def test_a_group_of_two_is_serialems() -> None:
    tilts = tilt_series(Acquisition(tilt_min=-8, tilt_max=8, tilt_group=2))
    assert [t.angle for t in tilts] == [0, -2, -4, 2, 4, -6, -8, 6, 8]


@given(
    scheme=st.sampled_from(["dose_symmetric", "bidirectional", "unidirectional"]),
    first=st.sampled_from(["negative", "positive"]),
    group=st.integers(1, 7),
    low=st.integers(-80, 0),
    steps=st.integers(1, 40),
    step=st.sampled_from([0.7, 1.0, 1.5, 2.0, 3.0]),
    share=st.floats(0, 1),
    dose=st.floats(1, 300),
)
def test_every_angle_once_and_doses_add_up(
    scheme: str, first: str, group: int, low: int, steps: int, step: float, share: float, dose: float
) -> None:
    high = min(80.0, low + steps * step)
    assume(step <= (high - low) * max(share, 1 - share) or scheme == "unidirectional")
    acq = Acquisition.model_validate(
        {
            "tilt_scheme": scheme, "tilt_first": first, "tilt_group": group, "tilt_min": low,
            "tilt_max": high, "tilt_step": step, "tilt_start": low + share * (high - low), "dose": dose,
        }
    )  # fmt: skip
    tilts = tilt_series(acq)
    angles = [t.angle for t in tilts]
    number = len(angles)
    start = low if scheme == "unidirectional" else acq.tilt_start
    steps_from = whole_steps(low - start, high - start, step)
    assert sorted(angles) == pytest.approx([start + k * step for k in steps_from], abs=1e-5)
    assert [t.index for t in tilts] == list(range(number))
    assert tilts[0].dose_before == 0
    assert tilts[-1].dose_after == pytest.approx(dose)
    for before, after in pairwise(tilts):
        assert after.dose_before == pytest.approx(before.dose_after)
    if scheme == "dose_symmetric" and group > 1:
        # never more than a group on one side before the other has had as many, or has no more
        side = np.sign(np.subtract(angles[1:], angles[0]))
        runs = [len(list(run)) for _, run in groupby(side)]
        assert all(run <= group for run in runs[:-1])


def whole_steps(below: float, above: float, step: float) -> range:
    return range(int(np.ceil(below / step - 1e-6)), int(np.floor(above / step + 1e-6)) + 1)


def test_a_series_begins_with_its_start_angle() -> None:
    acq = Acquisition(tilt_min=-50, tilt_max=50, tilt_step=3)
    angles = [t.angle for t in tilt_series(acq)]
    assert (angles[:3], min(angles), max(angles), len(angles)) == ([0, -3, 3], -48, 48, 33)
    assert not steps_meet(acq)
    both = Acquisition(tilt_min=-50, tilt_max=50, tilt_step=3, tilt_scheme="bidirectional", tilt_start=-20)
    assert [t.angle for t in tilt_series(both)][:3] == [-20, -23, -26]
    assert max(t.angle for t in tilt_series(both)) == 49
    along = Acquisition(tilt_min=-50, tilt_max=50, tilt_step=3, tilt_scheme="unidirectional")
    assert [t.angle for t in tilt_series(along)][:2] == [-50, -47]
    aside = Acquisition(tilt_min=10, tilt_max=50, tilt_step=3)  # 0 is not among them
    assert [t.angle for t in tilt_series(aside)][:2] == [10, 13]
    for same in (along, aside, Acquisition(), Acquisition(tilt_min=-51, tilt_max=51, tilt_step=3)):
        assert steps_meet(same)


def test_a_sample_keeps_its_id_where_its_angles_stay() -> None:
    words = {"name": "a", "shape": [16, 16, 16], "targets": {"x": {"structures": ["4v5d"], "count": 1}}}

    def identity(acquisition: dict[str, Any]) -> str:
        recipe = Recipe.model_validate({**words, "acquisition": acquisition, "samples": {"train": {}}})
        return expand(recipe, {"key": 1})[0].sample_id

    # since the slabs of the multislice engine are two voxels thick
    assert identity({"tilt_range": 51, "tilt_step": 3}) == "31be7f88633147c3"
    # what the program called it with angles that were counted from tilt_min
    assert identity({"tilt_range": 50, "tilt_step": 3}) != "c5d9b93d068f01d5"


def test_a_list_is_taken_as_it_is() -> None:
    acq = Acquisition(tilt_series="3:2 0:2, -3:4 6.5:2")
    tilts = tilt_series(acq)
    assert [t.angle for t in tilts] == [3, 0, -3, 6.5]
    assert [t.dose for t in tilts] == pytest.approx([2, 2, 4, 2])
    assert [t.dose_before for t in tilts] == pytest.approx([0, 2, 4, 8])
    assert (acq.dose, acq.tilt_scheme, acq.tilt_min, acq.tilt_max) == (10, "listed", -3, 6.5)
    assert Acquisition.model_validate(acq.model_dump()) == acq


def test_a_list_may_take_a_tilt_again() -> None:
    acq = Acquisition(tilt_series="0:1 0:1 0:1 3:1")
    assert (acq.tilt_min, acq.tilt_max, acq.tilt_step) == (0, 3, 3)
    assert [t.angle for t in tilt_series(acq)] == [0, 0, 0, 3]
    assert len(tilt_series(Acquisition(tilt_series="4 4 4"))) == 3


def test_doses_of_a_list_share_the_dose_that_is_asked_for() -> None:
    tilts = tilt_series(Acquisition(tilt_series="0:1 3:1 -3:2", dose=100))
    assert [t.dose for t in tilts] == pytest.approx([25, 25, 50])
    assert sum(t.dose for t in tilt_series(Acquisition(tilt_series="0 3 -3", dose=90))) == pytest.approx(90)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0:3 x", "is not a list"),
        ("0:3 3:1:2", "is not a list"),
        ("0:3 3", "give all doses or none"),
        ("0:3 95:3", "tilts are below 90"),
        ("0:3 3:0", "each dose must be positive"),
        ("0:3 3:-1", "each dose must be positive"),
        ("nan:3", "tilts are below 90"),
    ],
)
def test_a_wrong_list_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Acquisition(tilt_series=text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"tilt_scheme": "listed"}, "needs tilt_series"), ({"tilt_start": 70}, "between tilt_min and tilt_max")],
)
def test_a_scheme_that_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Acquisition.model_validate(fields)


def test_dose_adds_up_in_the_order_of_acquisition() -> None:
    tilts = tilt_series(Acquisition(dose=120))
    assert len(tilts) == 61
    assert sum(t.dose for t in tilts) == pytest.approx(120)
    for before, after in pairwise(tilts):
        assert after.dose_before == pytest.approx(before.dose_after)
    assert tilts[0].dose_before == 0


@pytest.mark.parametrize(("step", "count"), [(0.1, 1201), (0.3, 401), (3.0, 41), (7.0, 17)])
def test_steps_that_binary_fractions_miss_are_counted_whole(step: float, count: int) -> None:
    tilts = tilt_series(Acquisition(tilt_step=step))
    angles = np.sort([t.angle for t in tilts])
    assert len(tilts) == count
    assert np.allclose(np.diff(angles), step)
    assert 0 in angles
    assert angles[0] >= -60
    assert angles[-1] <= 60


@pytest.mark.parametrize(("start", "step", "count"), [(-60.0, 2.0, 61), (-40.0, 4.0, 21)])
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
