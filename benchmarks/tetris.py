"""How fast and how densely Tetris packs: fill a box to saturation on one core.

    python benchmarks/tetris.py                          # structures that installed packages ship
    python benchmarks/tetris.py --synthetic              # balls and rods, no structures needed
    python benchmarks/tetris.py --box 2048 2048 1024 --gap 3 --orientations 2

Prints a table, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterable

import numpy as np

from tlgen.molecule import Molecule, centred
from tlgen.structures import load_structure
from tlgen.tetris import BIN_SIZE, Packing, Request, nearest_atoms, pack

# From megadaltons to tens of kilodaltons, each asked for more often than fits.
SHIPPED = ("4v5d", "3jb9", "4v8r", "4v1w", "7pbl", "3o21", "3enl", "3mht", "1pwc")
BODIES = ((110, 110, 110), (60, 60, 60), (20, 20, 90), (45, 45, 45), (35, 35, 35), (28, 28, 28), (20, 20, 20))
SPACING = 2.4  # Å between nitrogen atoms on a lattice: 1.7 g/cm³ inside, since a body has no grooves


def body(axes: tuple[int, int, int]) -> Molecule:
    """Fill an ellipsoid with these half axes in Å with atoms."""
    steps = [np.arange(-np.ceil(a / SPACING), np.ceil(a / SPACING) + 1) * SPACING for a in axes]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[np.linalg.norm(points / axes, axis=1) <= 1]
    return centred("x".join(map(str, axes)), np.full(len(points), 7), points, np.zeros(len(points), bool))


def wanted(molecules: Iterable[Molecule], box: float) -> list[Request]:
    """Ask for a tenth of the box (at 1.35 g/cm³) of each molecule: together more than fits."""
    return [Request(m.digest, max(1, round(0.1 * box / m.volume))) for m in molecules]


def table(packing: Packing, library: dict[str, Molecule]) -> str:
    rows = [f"{'molecule':12s} {'kDa':>8s} {'asked':>7s} {'placed':>7s}"]
    for request, placed in zip(packing.requests, packing.achieved, strict=True):
        molecule = library[request.digest]
        rows.append(f"{molecule.name:12s} {molecule.mass / 1e3:8.0f} {request.count:7d} {placed:7d}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill a box to saturation on one core and measure.")
    parser.add_argument(
        "--box", nargs=3, type=float, default=(900, 900, 450), metavar=("X", "Y", "Z"), help="Å"
    )
    parser.add_argument("--voxel-size", type=float, default=10.0, help="Å; the box is rounded to voxels")
    parser.add_argument("--gap", type=float, default=3.0, help="Å")
    parser.add_argument("--bin-size", type=float, default=BIN_SIZE, help="Å")
    parser.add_argument("--orientations", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--synthetic", action="store_true", help="ellipsoids in place of structures")
    given = parser.parse_args()

    molecules = [body(b) for b in BODIES] if given.synthetic else [load_structure(name) for name in SHIPPED]
    library = {molecule.digest: molecule for molecule in molecules}
    x, y, z = (round(length / given.voxel_size) for length in given.box)
    options = {"gap": given.gap, "bin_size": given.bin_size, "orientations": given.orientations}
    smallest = min(molecules, key=lambda m: m.mass)
    pack((12, 16, 16), 10.0, [Request(smallest.digest, 5)], library, seed=0, **options)  # compiles

    requests = wanted(molecules, x * y * z * given.voxel_size**3)
    cpu, wall = time.process_time(), time.perf_counter()
    packing = pack((z, y, x), given.voxel_size, requests, library, seed=given.seed, **options)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    nearest = nearest_atoms(packing, library)

    figures = {
        "box_A": [n * given.voxel_size for n in (x, y, z)],
        "gap_A": given.gap,
        "bin_size_A": given.bin_size,
        "orientations": given.orientations,
        "molecules": "synthetic" if given.synthetic else "shipped",
        "placed": len(packing.which),
        "asked": sum(packing.asked),
        "cpu_s": round(cpu, 2),
        "wall_s": round(wall, 2),
        "ms_per_molecule": round(1e3 * cpu / len(packing.which), 2),
        "mg_per_ml": round(packing.concentration, 1),
        "occupancy": round(packing.occupancy, 4),
        "closest_atoms_A": round(float(nearest.min()), 3),
        "median_nearest_A": round(float(np.median(nearest)), 2),
        "peak_memory_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(table(packing, library), "", sep="\n")
    print("\n".join(f"{name:18s} {value}" for name, value in figures.items()), "", sep="\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
