"""What flexible variants cost and how good they are: seconds of one core, RMSD reached, checks.

    python benchmarks/variants.py                          # 4v5d (70S ribosome) and smaller ones
    python benchmarks/variants.py 4v5d my.cif --rmsd 2 6 --number 10

Prints a table, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from tlgen.molecules import modes
from tlgen.molecules.structures import load_structure

DEFAULT = ("4v5d", "4v8r", "3enl", "1pwc")


def measured(name: str, number: int, rmsd: tuple[float, float], scheme: modes.Scheme) -> dict[str, object]:
    """CPU seconds of modes and variants of one structure, and what its variants are like."""
    molecule = load_structure(name)
    start = time.process_time()
    found = modes.normal_modes(molecule, 20)
    nma = time.process_time() - start
    start = time.process_time()
    made = modes.variants(molecule, number, rmsd=rmsd, seed=1, scheme=scheme)
    everything = time.process_time() - start
    checks = [modes.check(molecule, variant) for variant in made]
    return {
        "structure": molecule.name,
        "kDa": round(molecule.mass / 1e3),
        "atoms": molecule.n_atoms,
        "backbone": int(molecule.backbone.sum()),
        "nodes": len(found.nodes),
        "modes": len(found.eigenvalues),
        "nma_cpu_s": round(nma, 2),
        "cpu_s": round(everything, 2),
        "rmsd_A": [round(min(c.rmsd for c in checks), 2), round(max(c.rmsd for c in checks), 2)],
        "neighbours_kept": round(min(c.kept for c in checks), 4),
        "largest_stretch": round(max(c.stretch for c in checks), 3),
        "new_clashes": max(c.clashes for c in checks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the making of flexible variants on one core.")
    parser.add_argument("structures", nargs="*", default=DEFAULT, help="files or PDB ids")
    parser.add_argument("--number", type=int, default=10, help="variants of each")
    parser.add_argument("--rmsd", nargs=2, type=float, default=(1.0, 3.0), metavar=("LOW", "HIGH"), help="Å")
    parser.add_argument("--scheme", choices=("thermal", "uniform"), default="thermal")
    given = parser.parse_args()

    modes.variants(load_structure("1ubi"), 1, rmsd=(0.3, 0.5), seed=0)  # imports ProDy
    rows = [measured(name, given.number, tuple(given.rmsd), given.scheme) for name in given.structures]
    columns = list(rows[0])
    texts = [columns, *([str(row[c]) for c in columns] for row in rows)]
    widths = [max(len(text[i]) for text in texts) for i in range(len(columns))]
    for text in texts:
        print("  ".join(word.rjust(width) for word, width in zip(text, widths, strict=True)))
    figures = {
        "number": given.number,
        "rmsd_A": list(given.rmsd),
        "scheme": given.scheme,
        "peak_memory_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "slowest_cpu_s": float(np.max([row["cpu_s"] for row in rows])),
        "structures": rows,
    }
    print()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
