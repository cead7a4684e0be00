"""How well pseudo-atoms stand for density maps: correlation with the map, seconds of one core.

    python benchmarks/pseudoatoms.py map.mrc other.mrc     # contour and resolution as load_map takes them
    python benchmarks/pseudoatoms.py folder/
    python benchmarks/pseudoatoms.py                       # a map computed from 4v8r, which a package ships

Prints a table, and as the last line one JSON object of the figures. The correlation is Pearson's in all
voxels within one resolution of the contour, inside and outside of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import mrcfile

from tlgen.molecules.envelope import envelope
from tlgen.molecules.pseudoatoms import load_map
from tlgen.molecules.structure_file import is_map
from tlgen.molecules.structures import load_structure


def computed(folder: Path) -> Path:
    """Write a map of the chaperonin CCT at 15 Å."""
    body = envelope(load_structure("4v8r"), resolution=15.0)
    path = folder / "4v8r_15A.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(body.density)
        mrc.voxel_size = body.spacing
    return path


def measured(path: Path) -> dict[str, object]:
    start = time.process_time()
    model = load_map(path)
    spent = time.process_time() - start
    with mrcfile.mmap(path, permissive=True) as mrc:
        shape = list(mrc.data.shape)
    return {
        "map": path.stem,
        "shape": shape,
        "polarity": model.polarity,
        "resolution_A": round(model.resolution, 1),
        "contour": float(f"{model.contour:.4g}"),
        "kDa": round(model.molecule.mass / 1e3),
        "pseudo_atoms": model.molecule.n_atoms,
        "correlation": round(model.correlation, 4),
        "cpu_s": round(spent, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit pseudo-atoms to maps and measure.")
    parser.add_argument("maps", nargs="*", type=Path, help="MRC files, or folders of them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own = computed(Path(folder))
        load_map(own)  # compiles
        paths = [
            found
            for path in given.maps or [own]
            for found in (sorted(p for p in path.iterdir() if is_map(p)) if path.is_dir() else [path])
        ]
        rows = [measured(path) for path in paths]
    columns = list(rows[0])
    texts = [columns, *([str(row[c]) for c in columns] for row in rows)]
    widths = [max(len(text[i]) for text in texts) for i in range(len(columns))]
    for text in texts:
        print("  ".join(word.rjust(width) for word, width in zip(text, widths, strict=True)))
    print()
    print(json.dumps({"lowest_correlation": min(row["correlation"] for row in rows), "maps": rows}))


if __name__ == "__main__":
    main()
