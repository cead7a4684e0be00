"""How well labels lie on their molecules: structures at random places and orientations, one at a time.

    python benchmarks/labels.py                       # structures that installed packages ship
    python benchmarks/labels.py --structures FOLDER   # every PDB and mmCIF file in a folder

For each voxel size: the mean difference between a label's centroid and the particle's position by axis
(bias) with its standard error, the mean distance between them, and the label's volume over the envelope's.
Prints a table, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from catalogs.seeds import generator
from tlgen.envelope import envelope
from tlgen.labels import label
from tlgen.molecule import Molecule
from tlgen.scene import Scene
from tlgen.structures import files_in, load_structure

SHIPPED = ("4v5d", "3jb9", "4v8r", "4v1w", "7pbl", "3o21", "3enl", "3mht")
SIZES = (4.0, 8.0, 10.0, 16.0)


@dataclass(frozen=True)
class Result:
    """Of one molecule at one voxel size: (n, 3) offsets in voxels, and its label's mean volume ratio."""

    offsets: np.ndarray
    ratio: float


def alone(molecule: Molecule, voxel_size: float, position: np.ndarray, quaternion: np.ndarray) -> Scene:
    """Place one molecule in a box that holds it whole."""
    reach = np.linalg.norm(molecule.positions, axis=1).max() + 40
    n = int(np.ceil(2 * reach / voxel_size))
    return Scene(
        (n, n + 1, n + 2), voxel_size, (molecule.digest,), (molecule.name,), (-1,), (1,), ("particle",),
        np.zeros(1, np.int64), position[None], quaternion[None],
    )  # fmt: skip


def measure(molecule: Molecule, voxel_size: float, repeats: int) -> Result:
    """Label a molecule at places all over a voxel."""
    rng = generator("benchmark", "labels", molecule.name, str(voxel_size))
    offsets, volumes = [], []
    for _ in range(repeats):
        position = rng.uniform(-0.5, 0.5, 3) * voxel_size
        quaternion = Rotation.from_quat(rng.normal(size=4)).as_quat()
        scene = alone(molecule, voxel_size, position, quaternion)
        library = {molecule.digest: molecule}
        _, instances = label(scene, library)
        row = scene.particles("t", library).iloc[0]
        centroid = np.argwhere(instances == 1).mean(axis=0)[::-1]
        offsets.append(centroid - row[["x", "y", "z"]].to_numpy(np.float64) / voxel_size)
        volumes.append(np.count_nonzero(instances) * voxel_size**3)
    return Result(np.array(offsets), float(np.mean(volumes)) / envelope(molecule).volume)


def summary(results: Sequence[Result]) -> dict[str, float]:
    """Put the figures of all molecules at one voxel size together."""
    offsets = np.concatenate([result.offsets for result in results])
    bias = offsets.mean(axis=0)
    error = offsets.std(axis=0, ddof=1) / np.sqrt(len(offsets))
    ratios = [result.ratio for result in results]
    return {
        **{f"bias_{axis}": round(float(value), 4) for axis, value in zip("xyz", bias, strict=True)},
        "bias_standard_error": round(float(error.max()), 4),
        "mean_distance": round(float(np.linalg.norm(offsets, axis=1).mean()), 4),
        "volume_ratio": round(float(np.mean(ratios)), 4),
        "volume_ratio_least": round(min(ratios), 4),
        "volume_ratio_most": round(max(ratios), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how well labels lie on their molecules.")
    parser.add_argument("--structures", metavar="FOLDER", help="instead of those that packages ship")
    parser.add_argument("--repeats", type=int, default=16, help="places of each structure and voxel size")
    given = parser.parse_args()
    names = files_in(given.structures) if given.structures else SHIPPED
    molecules = [load_structure(name) for name in names]

    figures: dict[str, object] = {
        "structures": [m.name for m in molecules],
        "repeats": given.repeats,
        "unit": "voxels",
    }
    words = ("bias x", "y", "z", "(s.e.)", "distance", "volume", "least", "most")
    print(f"{'voxel':>7s} " + " ".join(f"{word:>9s}" for word in words))
    for size in SIZES:
        result = summary([measure(molecule, size, given.repeats) for molecule in molecules])
        figures[f"{size:g}_A"] = result
        print(f"{size:5g} Å " + " ".join(f"{value:9.4f}" for value in result.values()))
    print()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
