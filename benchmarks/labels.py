"""How well labels lie on their molecules, and on the picture of them in a tomogram.

    python benchmarks/labels.py                       # structures that installed packages ship
    python benchmarks/labels.py --structures FOLDER   # the first table: every PDB and mmCIF file in a folder
    python benchmarks/labels.py --only molecules      # without the second table, which takes ten minutes

The first table is of structures at random places and orientations, one at a time. For each voxel size: the
mean difference between a label's centroid and the particle's position by axis (bias) with its standard error,
the mean distance between them, and the label's volume over the envelope's.

The second table is of two crowded boxes, simulated in ice by each engine and reconstructed with each filter:
ribosomes, spliceosomes, chaperonins and ferritins as the packing leaves them, and a dozen bodies without
symmetry near each other. Each label, without the frequencies that no tilt holds, is registered on the
tomogram; told are the mean distance over molecules and the mean by axis (bias) with its standard error.

Prints tables, and as the last line one JSON object of the figures. All lengths are in voxels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from crowd import molecules, packed
from scipy.spatial.transform import Rotation

from catalogs.seeds import generator
from tlgen.molecules.envelope import envelope
from tlgen.molecules.molecule import Molecule
from tlgen.molecules.structures import files_in, load_structure
from tlgen.scene.labels import label
from tlgen.scene.scene import Scene

SHIPPED = ("4v5d", "3jb9", "4v8r", "4v1w", "7pbl", "3o21", "3enl", "3mht")
SIZES = (4.0, 8.0, 10.0, 16.0)

PICTURES = (8.0, 10.0, 16.0)
ENGINES = ("multislice", "parakeet")
FILTERS = ("ramp", "exact", "sirt")
BOX, ASKED = (560, 560, 320), (3, 3, 4, 8)  # Å, whole voxels of each size; more of each than fit


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


def pictures() -> dict[str, float]:
    """Register labels on tomograms: the same measure as the tests', on more."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "tlgen" / "scene"))
    from test_labels_and_picture import crowd, series, shifts

    real = molecules()
    print(f"\n{'scene':7s} {'engine':10s} {'filter':6s} {'voxel':>7s} {'n':>3s} ", end="")
    print(" ".join(f"{word:>8s}" for word in ("distance", "bias x", "y", "z", "(s.e.)")))
    figures: dict[str, float] = {}
    most = worst = 0.0
    for size in PICTURES:
        for kind, (scene, library) in (
            ("packed", (packed(real, BOX, ASKED, size), real)),
            ("bodies", crowd(size)),
        ):
            for name in ENGINES:
                images, angles = series(name, scene, library, tilt_step=6.0 if name == "multislice" else 10.0)
                for filter_ in FILTERS:
                    found = shifts(scene, library, images, angles, filter_)
                    distance = float(np.linalg.norm(found, axis=1).mean())
                    bias, error = found.mean(axis=0), found.std(axis=0, ddof=1).max() / np.sqrt(len(found))
                    values = " ".join(f"{value:8.3f}" for value in (distance, *bias, error))
                    print(
                        f"{kind:7s} {name:10s} {filter_:6s} {size:5g} Å {len(found):3d} {values}", flush=True
                    )
                    figures[f"{kind}_{name}_{filter_}_{size:g}_A"] = round(distance, 4)
                    most, worst = max(most, distance), max(worst, float(np.abs(bias).max()))
    return {**figures, "largest_mean_distance": round(most, 4), "largest_bias": round(worst, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how well labels lie on their molecules.")
    parser.add_argument("--structures", metavar="FOLDER", help="instead of those that packages ship")
    parser.add_argument("--repeats", type=int, default=16, help="places of each structure and voxel size")
    parser.add_argument("--only", choices=("molecules", "pictures"), help="one table")
    given = parser.parse_args()
    figures: dict[str, object] = {"unit": "voxels"}
    if given.only != "pictures":
        figures |= table(files_in(given.structures) if given.structures else SHIPPED, given.repeats)
    if given.only != "molecules":
        figures["pictures"] = pictures()
    print()
    print(json.dumps(figures))


def table(names: Sequence[str | Path], repeats: int) -> dict[str, object]:
    """Measure labels against molecules alone in a box."""
    molecules = [load_structure(name) for name in names]
    figures: dict[str, object] = {"structures": [m.name for m in molecules], "repeats": repeats}
    words = ("bias x", "y", "z", "(s.e.)", "distance", "volume", "least", "most")
    print(f"{'voxel':>7s} " + " ".join(f"{word:>9s}" for word in words))
    for size in SIZES:
        result = summary([measure(molecule, size, repeats) for molecule in molecules])
        figures[f"{size:g}_A"] = result
        print(f"{size:5g} Å " + " ".join(f"{value:9.4f}" for value in result.values()))
    return figures


if __name__ == "__main__":
    main()
