"""Picks without orientations say so, with the next command of RELION or Warp."""

from __future__ import annotations

import numpy as np
import pytest

from catalogs import particles
from tlpick.output.next_step import next_step, without_orientations


def test_picks_without_orientations_are_known() -> None:
    places = {"tomogram": ["a", "a"], "x": [1.0, 2], "y": [1.0, 2], "z": [1.0, 2]}
    assert without_orientations(particles.make(**places))
    turned = {"qx": [0.0, np.sqrt(0.5)], "qy": [0.0, 0], "qz": [0.0, 0], "qw": [1.0, np.sqrt(0.5)]}
    assert not without_orientations(particles.make(**places, **turned))
    assert not without_orientations(particles.empty())


@pytest.mark.parametrize(
    ("name", "pixel_size", "words"),
    [
        ("relion5", 2.5, "relion_tomo_subtomo --p p.star --t tomograms.star --o Extract/job001/ --b 60"),
        ("relion5", 2.5, "--crop 30 --bin 4 --stack2d"),
        ("relion5-set", 2.5, "--i p.star"),
        ("relion4", None, "--bin BIN"),
        (
            "relion3",
            2.5,
            "WarpTools ts_export_particles --settings",
        ),
        ("relion3", 2.5, "--input_star p.star --coords_angpix 10 "),
        ("dynamo", 2.5, "refine them from a global search"),
    ],
)
def test_the_next_command(name: str, pixel_size: float | None, words: str) -> None:
    lines = next_step("p.star", name, 10.0, {"ribosome": 100.0, "small": 30.0}, pixel_size)
    assert lines[0].startswith("the picks have no orientation")
    assert words in "\n".join(lines)
    assert ("(BIN is 10 Å over" in lines[-1]) == (pixel_size is None)
    assert len(next_step("p.star", name, None, {}, pixel_size)) == 1
