"""Every shell of the spectrum in ice, ours beside Parakeet's: over many seeds, with its standard error.

``benchmarks/simulate.py --only shells`` prints the same for two tilts.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from catalogs.schema import Acquisition
from tlgen.molecules.structures import load_structure
from tlgen.packing import tetris
from tlgen.scene.scene import Scene
from tlgen.simulate.multislice.multislice import Multislice
from tlgen.simulate.parakeet import Parakeet
from tlgen.tilts.scheme import Tilt

#: A thin box, in which a seed of Parakeet's ice costs two seconds, and what is asked for in it.
BOX, ASKED = (18, 50, 50), {"4v1w": 4, "3enl": 6, "3mht": 6, "7pbl": 6, "3o21": 6}
PARAKEETS, OURS = 44, 200


def powers(stack: np.ndarray, number: int = 8) -> np.ndarray:
    """(images, shells): power from zero to 0.8 of Nyquist."""
    q = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in stack.shape[1:]), indexing="ij"))
    power = np.abs(np.fft.fft2(stack - stack.mean(axis=(1, 2), keepdims=True))) ** 2
    edges = np.linspace(0, 0.4, number + 1)
    return np.stack(
        [power[:, (q > low) & (q <= high)].mean(axis=1) for low, high in itertools.pairwise(edges)], axis=1
    )


@pytest.mark.slow
@pytest.mark.long
def test_every_shell_in_ice_is_within_five_percent() -> None:
    library = {m.digest: m for m in map(load_structure, ASKED)}
    requests = [tetris.Request(d, n, share=n) for d, n in zip(library, ASKED.values(), strict=True)]
    packed = tetris.pack(BOX, 8.0, requests, library, gap=6, seed=1)
    n = len(ASKED)
    scene = Scene(
        BOX, 8.0, tuple(library), tuple(ASKED), (-1,) * n, (1,) * n, ("m",),
        packed.which, packed.positions, packed.quaternions,
    )  # fmt: skip
    acq = Acquisition.model_validate({"slice_thickness": 3.0, "padding": 100, "defocus": 2.5})
    tilt = Tilt(3, 0.0, 2.0, 6.0)
    ours, theirs = (
        powers(np.stack([engine.simulate(scene, library, acq, tilt, k, noise=False) for k in range(seeds)]))
        for engine, seeds in ((Multislice(), OURS), (Parakeet(), PARAKEETS))
    )
    ratio = ours.mean(axis=0) / theirs.mean(axis=0)
    error = np.hypot(*(p.std(axis=0, ddof=1) / p.mean(axis=0) / np.sqrt(len(p)) for p in (ours, theirs)))
    assert error.max() < 0.03, error  # so many seeds tell five percent from much more
    assert np.abs(ratio - 1).max() < 0.05, (ratio, error)
