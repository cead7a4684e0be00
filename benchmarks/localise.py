"""How fast a segmentation becomes particles, beside scikit-learn's mean shift on the same voxels.

    python benchmarks/localise.py                       # 300 balls of radius 8 voxels, scikit-learn beside
    python benchmarks/localise.py --radius 12           # as large as the paper's; scikit-learn takes minutes
    python benchmarks/localise.py --no-sklearn --particles 3000 --shape 256 512 512

The map has balls that touch and overlap a little, ragged surfaces, holes and specks of noise, as a network
leaves them. Ours is timed from the label volume to particles with sizes and scores; scikit-learn from the
list of the voxels to cluster centres. Figures are CPU time, that of all threads together. Prints a table,
and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from tlpick.network.localisation.localise import Options, localise
from tlpick.network.localisation.meanshift import modes

VOXEL_SIZE = 8.0


def ragged_balls(
    shape: tuple[int, int, int], n: int, radius: float, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Make a label volume of balls, a third of which touch another, and tell where they are (z, y, x)."""
    rng = generator("benchmark localise", seed)
    labels = np.zeros(shape, np.uint8)
    reach = int(radius) + 2
    grid = np.indices((2 * reach + 1,) * 3) - reach
    places: list[NDArray[np.float64]] = []
    tries = 0
    while len(places) < n:
        tries += 1
        if tries > 200 * n:
            raise SystemExit(f"only {len(places)} balls fit into {shape}; give a larger --shape")
        if places and len(places) % 3 == 0:  # beside the last one
            away = rng.normal(size=3)
            place = places[-1] + away / np.linalg.norm(away) * rng.uniform(1.8, 2.1) * radius
        else:
            place = rng.uniform(reach, np.array(shape) - reach - 1)
        if not ((place >= reach) & (place < np.array(shape) - reach - 1)).all():
            continue
        if places and np.linalg.norm(np.array(places) - place, axis=1).min() < 1.8 * radius:
            continue
        places.append(place)
        corner = np.floor(place).astype(int)
        far = np.sqrt(((grid - (place - corner)[:, None, None, None]) ** 2).sum(axis=0))
        ball = far + rng.normal(0, 0.7, far.shape) <= radius
        box = tuple(slice(c - reach, c + reach + 1) for c in corner)
        labels[box] |= ball
    labels &= rng.random(shape) < 0.98
    labels |= rng.random(shape) < 2e-5
    return labels, np.array(places)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    result = work()
    return result, time.process_time() - begun


def found(
    centres: NDArray[np.float64], truth: NDArray[np.float64], within: float = 3.0
) -> tuple[float, float]:
    """Give the shares of particles that have a pick near, and of picks that have a particle near."""
    if not len(centres):
        return 0.0, 0.0
    recall = (cKDTree(centres).query(truth)[0] <= within).mean()
    precision = (cKDTree(truth).query(centres)[0] <= within).mean()
    return float(recall), float(precision)


def main() -> None:
    parser = argparse.ArgumentParser(description="Localise particles and measure, beside scikit-learn.")
    parser.add_argument("--shape", nargs=3, type=int, default=(128, 300, 300), metavar=("Z", "Y", "X"))
    parser.add_argument("--particles", type=int, default=300)
    parser.add_argument("--radius", type=float, default=8.0, help="voxels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-sklearn", action="store_true", help="do not run scikit-learn beside")
    given = parser.parse_args()

    shape = tuple(given.shape)
    labels, truth = ragged_balls(shape, given.particles, given.radius, given.seed)
    probability = np.where(labels, 220, 20).astype(np.uint8)
    classes = [ClassInfo(name="ball", label=1, radius=given.radius * VOXEL_SIZE)]
    small, _ = ragged_balls((40, 40, 40), 3, 6.0, 0)
    for method in ("meanshift", "components", "peaks"):  # compiles
        localise(
            small, small, [ClassInfo(name="ball", label=1, radius=48.0)], VOXEL_SIZE, Options(method=method)
        )

    figures: dict[str, Any] = {
        "shape_voxels": list(shape),
        "particles": given.particles,
        "radius_voxels": given.radius,
        "foreground_voxels": int(labels.sum()),
    }
    for method in ("meanshift", "components", "peaks"):
        seconds = []
        for _ in range(3):
            [picks], cpu = timed(
                lambda m=method: localise(labels, probability, classes, VOXEL_SIZE, Options(method=m))
            )
            seconds.append(cpu)
        recall, precision = found(picks.centres[:, ::-1] / VOXEL_SIZE, truth)
        figures[f"{method}_cpu_s"] = round(min(seconds), 4)
        figures[f"{method}_recall"], figures[f"{method}_precision"] = round(recall, 4), round(precision, 4)
    figures["peak_memory_MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    if not given.no_sklearn:
        import warnings

        from sklearn.cluster import MeanShift

        points = np.argwhere(labels)
        ours = modes(labels, {1: given.radius}, edge=160)[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, cpu = timed(lambda: MeanShift(bandwidth=given.radius, bin_seeding=True).fit(points))
        centres = theirs.cluster_centers_
        same = len(ours) == len(centres)
        figures["sklearn_cpu_s"] = round(cpu, 2)
        figures["sklearn_recall"], figures["sklearn_precision"] = (round(v, 4) for v in found(centres, truth))
        figures["clusters"], figures["sklearn_clusters"] = len(ours), len(centres)
        figures["max_centre_difference_voxels"] = (
            float(np.abs(ours - centres).max()) if same else float(cKDTree(ours).query(centres)[0].max())
        )
        figures["speedup_over_sklearn"] = round(cpu / figures["meanshift_cpu_s"], 1)

    print(f"{'method':12s} {'CPU s':>9s} {'recall':>8s} {'precision':>10s}")
    for method in ("meanshift", "components", "peaks", "sklearn"):
        if f"{method}_cpu_s" in figures:
            values = (figures[f"{method}_{what}"] for what in ("cpu_s", "recall", "precision"))
            print("{:12s} {:9.3f} {:8.3f} {:10.3f}".format(method, *values))
    print("", "\n".join(f"{name:30s} {value}" for name, value in figures.items()), "", sep="\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
