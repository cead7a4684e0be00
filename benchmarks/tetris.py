"""How densely and how fast Tetris packs, beside the program of the paper, on one core.

    python benchmarks/tetris.py                               # without the paper's program
    python benchmarks/tetris.py --reference TemplateLearning  # a clone of MohamadHarastani/TemplateLearning

The box is the paper's (2048 x 2048 x 1024 Å), and so are the molecules, if there are any in
``--structures``: six nucleosomes in ``templates/``, 81 of the paper's distractors in ``distractors/`` and how
often each is tried in ``frequencies.csv``; else what installed packages ship. ``tetris`` is asked for the
same list as the paper's program, five rounds of it; then for as much as fits, and for ribosomes among as many
distractors as fit.

The paper's program is run as it is, in this process, on maps such as EMAN's e2pdb2mrc would make of the same
structures. It takes some 140 s of CPU time.

Prints a table, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import resource
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import scipy
from numba import njit
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tlgen.molecules.molecule import Molecule
from tlgen.molecules.structures import load_structure
from tlgen.packing.published import pack_as_published
from tlgen.packing.quantities import MG_PER_ML, Fill
from tlgen.packing.tetris import (
    BIN_SIZE,
    Counts,
    Packing,
    Request,
    Saturation,
    nearest_atoms,
    pack,
    summed_up,
)

VOXEL = 16.0  # Å, of the paper's grid
MARGIN = 11 * VOXEL  # Å along all faces that the paper's program leaves empty
ROUNDS = 5
SHIPPED = ("3jb9", "4v8r", "4v1w", "7pbl", "3o21", "3enl", "3mht", "1pwc")
Library = dict[str, Molecule]
Listed = list[tuple[Molecule, int, str]]  # molecule, how often in a round, group


def paper_list(folder: Path, rng: np.random.Generator) -> Listed:
    """List molecules as the paper does: a distractor, then a template or the distractor once more."""
    templates = [
        load_structure(str(p), assembly="asymmetric") for p in sorted((folder / "templates").glob("*"))
    ]
    ids, numbers = (line.split(",") for line in (folder / "frequencies.csv").read_text().split())
    drawn = rng.permutation(np.repeat(np.arange(len(templates)), 200))
    listed: Listed = []
    for i, (name, number) in enumerate(zip(ids, numbers, strict=True)):
        path = folder / "distractors" / f"{name}.pdb.gz"
        distractor = load_structure(str(path), assembly="asymmetric") if path.is_file() else None
        if distractor:
            listed.append((distractor, int(number), "distractor"))
        if i % 2 == 0:
            listed.append((templates[drawn[i]], int(number), "target"))
        elif distractor:
            listed.append((distractor, int(number), "distractor"))
    return listed


def shipped_list() -> Listed:
    return [(load_structure(n), 5, "target" if n == "4v1w" else "distractor") for n in SHIPPED]


def requests_for(listed: Listed, *, merged: bool) -> list[Request]:
    """Ask for a list as it stands, or for each molecule once, as many as in all rounds."""
    if not merged:
        return [Request(m.digest, n, group=group) for m, n, group in listed]
    totals: dict[tuple[str, str], int] = {}
    for m, n, group in listed:
        totals[m.digest, group] = totals.get((m.digest, group), 0) + ROUNDS * n
    return [Request(digest, n, share=n, group=group) for (digest, group), n in totals.items()]


# ---------------------------------------------------------------- the paper's program


@njit(cache=True)
def summed(xyz: NDArray[np.float64], z: NDArray[np.float64], n: int, apix: float, res: float) -> Any:
    """Sum Z exp(-(pi r / res)²) at the voxels [z, y, x] near each atom, as e2pdb2mrc does."""
    width = res / np.pi / apix
    near = int(np.sqrt(-np.log(1e-7)) * width)
    out = np.zeros((n, n, n), np.float32)
    for a in range(len(z)):
        x, y, w = xyz[a, 0] / apix + n // 2, xyz[a, 1] / apix + n // 2, xyz[a, 2] / apix + n // 2
        for k in range(max(0, int(w) - near), min(n, int(w) + near)):
            for j in range(max(0, int(y) - near), min(n, int(y) + near)):
                for i in range(max(0, int(x) - near), min(n, int(x) + near)):
                    r2 = (k - w) ** 2 + (j - y) ** 2 + (i - x) ** 2
                    out[k, j, i] += z[a] * np.exp(-r2 / width**2)
    return out


def reference_program(path: Path) -> Any:
    """Import the paper's script unmodified.

    It wants ``scipy.mgrid``, which newer SciPy lacks, and pyfftw, with which it replaces ``scipy.fftpack``;
    ``scipy.signal`` has not used that for years, so an empty stand-in changes nothing.
    """
    if not hasattr(scipy, "mgrid"):
        scipy.mgrid = np.mgrid
    if importlib.util.find_spec("pyfftw") is None:
        stand_in = types.ModuleType("pyfftw")
        stand_in.config = types.SimpleNamespace(NUM_THREADS=1)  # type: ignore[attr-defined]
        stand_in.interfaces = types.SimpleNamespace(scipy_fftpack=scipy.fft)  # type: ignore[attr-defined]
        sys.modules["pyfftw"] = stand_in
    script = path / "functions" / "multitetris_python.py"
    spec = importlib.util.spec_from_file_location("multitetris_python", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pack_by_reference(
    path: Path, shape: tuple[int, int, int], listed: Listed, library: Library, seed: int
) -> tuple[Packing, float]:
    """Pack with the paper's program; returns what it placed, and the CPU seconds that it took."""
    program = reference_program(path)
    requests = requests_for(listed, merged=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("maps", "coordinates", "angles"):
            (Path(folder) / name).mkdir()
        for request in requests:
            m = library[request.digest]
            grid = summed(m.positions.astype(np.float64), m.elements.astype(np.float64), 22, VOXEL, 32.0)
            with mrcfile.new(f"{folder}/maps/{m.digest}.mrc") as mrc:
                mrc.set_data(grid)
        np.random.seed(seed)  # noqa: NPY002  (the program draws from it)
        started = time.process_time()
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            program.tetris(
                [f"{folder}/maps/{m.digest}.mrc" for m, _, _ in listed],
                np.array(shape[::-1]),
                [n for _, n, _ in listed],
                ROUNDS,
                f"{folder}/coordinates",
                f"{folder}/angles",
                f"{folder}/scene.mrc",
                [-2, 0],
                1.65,
                100,
                threads=1,
            )
        seconds = time.process_time() - started
        which, voxels, turns = [], [], []
        for i, request in enumerate(requests):
            table = Path(folder) / "coordinates" / f"{request.digest}.txt"
            if not table.is_file():
                continue
            xyz = np.loadtxt(table, skiprows=1, delimiter=",", ndmin=2)
            zyz = np.loadtxt(Path(folder) / "angles" / table.name, skiprows=1, delimiter=",", ndmin=2)
            if xyz.size:
                which += [i] * len(xyz)
                voxels.append(xyz)
                turns.append(Rotation.from_euler("ZYZ", zyz, degrees=True).inv().as_quat())
    box = np.array(shape[::-1]) * VOXEL
    masses = np.array([library[r.digest].mass for r in requests])
    packing = summed_up(
        requests,
        np.array([r.count for r in requests]),
        np.array(which),
        (np.concatenate(voxels) - np.array(shape[::-1]) // 2) * VOXEL,
        np.concatenate(turns),
        set(),
        masses,
        masses[which],
        float(box.prod()),
    )
    return packing, seconds


# ---------------------------------------------------------------- measuring


def timed(work: Callable[[], Packing]) -> tuple[Packing, float]:
    started = time.process_time()
    packing = work()
    return packing, time.process_time() - started


def finite(value: float) -> float | None:
    return round(float(value), 2) if np.isfinite(value) else None


def measured(packing: Packing, seconds: float, library: Library, box: NDArray[np.float64]) -> dict[str, Any]:
    """Figures of a packing; residues are CA and P atoms, as normal modes are computed on."""
    residues = {
        digest: Molecule(m.name, m.elements[m.backbone], m.positions[m.backbone], m.backbone[m.backbone])
        for digest, m in library.items()
    }
    nearest = nearest_atoms(packing, residues)
    masses = np.array([library[r.digest].mass for r in packing.requests])[packing.which]
    core = box - 2 * MARGIN
    inside = (np.abs(packing.positions) <= core / 2).all(axis=1)
    closest, low, median = np.percentile(nearest, [0, 5, 50], method="lower")
    return {
        "placed": len(packing.which),
        "targets": sum(g.placed for g in packing.groups if g.group != "distractor"),
        "cpu_s": round(seconds, 2),
        "ms_per_placement": round(1e3 * seconds / len(packing.which), 2),
        "mg_per_ml": round(packing.concentration, 1),
        "mg_per_ml_core": round(float(masses[inside].sum() / core.prod() * MG_PER_ML), 1),
        "occupancy": round(packing.occupancy, 4),
        "closest_residues_A": finite(closest),
        "residues_5th_percentile_A": finite(low),
        "residues_median_A": finite(median),
        "clashes_percent": round(100 * float((nearest < 4).mean()), 2),
        "peak_memory_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def table(columns: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(columns.values())))
    rows = [f"{'':26s}" + "".join(f"{title:>16s}" for title in columns)]
    for name in names:
        values = "".join(
            f"{'-' if column[name] is None else column[name]:>16}" for column in columns.values()
        )
        rows.append(f"{name:26s}{values}")
    return "\n".join(rows)


def filled(
    shape: tuple[int, int, int], listed: Listed, library: Library, given: argparse.Namespace, fill: Fill
) -> tuple[Packing, float]:
    fine = tuple(2 * n for n in shape)
    requests = requests_for(listed, merged=True)
    return timed(
        lambda: pack(
            fine,  # type: ignore[arg-type]
            VOXEL / 2,
            requests,
            library,
            gap=given.gap,
            seed=given.seed,
            fill=fill,
            bin_size=given.bin_size,
            faces=given.faces,
        )
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fill a box to saturation on one core and measure.")
    parser.add_argument("--reference", type=Path, help="clone of MohamadHarastani/TemplateLearning")
    beside = Path(__file__).resolve().parents[2] / "shared" / "structures"
    parser.add_argument(
        "--structures", type=Path, default=beside, help="templates/, distractors/, frequencies.csv"
    )
    parser.add_argument("--ribosome", default="4v5d", help="structure file, or a name that a package ships")
    parser.add_argument(
        "--box", nargs=3, type=float, default=(2048, 2048, 1024), metavar=("X", "Y", "Z"), help="Å"
    )
    parser.add_argument("--gap", type=float, default=3.0, help="Å")
    parser.add_argument("--bin-size", type=float, default=BIN_SIZE, help="Å")
    parser.add_argument("--faces", default="whole", choices=("whole", "cut"))
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)

    paper = (given.structures / "frequencies.csv").is_file()
    listed = paper_list(given.structures, np.random.default_rng(given.seed)) if paper else shipped_list()
    library = {m.digest: m for m, _, _ in listed}
    x, y, z = (round(length / VOXEL) for length in given.box)
    shape = (z, y, x)
    box = np.array((x, y, z)) * VOXEL

    started = time.process_time()  # compiles, or reads what an earlier run compiled
    few = requests_for(listed[:2], merged=False)
    pack((25, 25, 25), VOXEL, few, library, gap=given.gap, seed=0)
    pack_as_published((30, 30, 30), few, library, seed=0, rounds=1)
    summed(np.zeros((1, 3)), np.zeros(1), 4, VOXEL, 32.0)
    compiling = time.process_time() - started

    columns: dict[str, dict[str, Any]] = {}
    ours, cpu = filled(shape, listed, library, given, Counts())
    columns["tetris"] = measured(ours, cpu, library, box)
    more, cpu = filled(shape, listed, library, given, Saturation())
    columns["to saturation"] = measured(more, cpu, library, box)

    ribosome = load_structure(given.ribosome)
    distractors = [(m, n, group) for m, n, group in listed if group == "distractor"]
    with_ribosomes: Listed = [(ribosome, 1, "ribosome"), *distractors]
    larger = {**library, ribosome.digest: ribosome}
    fill = Saturation(parts={"ribosome": 1, "distractor": 5})
    full, cpu = filled(shape, with_ribosomes, larger, given, fill)
    columns["with ribosomes"] = measured(full, cpu, larger, box)

    asked = requests_for(listed, merged=False)
    same, cpu = timed(lambda: pack_as_published(shape, asked, library, seed=given.seed, rounds=ROUNDS))
    columns["as published"] = measured(same, cpu, library, box)
    if given.reference:
        theirs, cpu = pack_by_reference(given.reference, shape, listed, library, given.seed)
        columns["the paper's"] = measured(theirs, cpu, library, box)

    figures: dict[str, Any] = {
        "speedup_per_placement": None,
        "mg_per_ml_ratio": None,
        "closest_residues_A": columns["tetris"]["closest_residues_A"],
        "cpu_ratio_whole_filling": None,
        "molecules": "paper" if paper else "shipped",
        "compile_s": round(compiling, 1),
    }
    if given.reference:
        tight, published, reference = (columns[c] for c in ("tetris", "as published", "the paper's"))
        figures["speedup_per_placement"] = round(
            reference["ms_per_placement"] / published["ms_per_placement"], 1
        )
        figures["mg_per_ml_ratio"] = round(tight["mg_per_ml"] / reference["mg_per_ml"], 3)
        figures["cpu_ratio_whole_filling"] = round(tight["cpu_s"] / reference["cpu_s"], 3)
    print(table(columns), "", sep="\n")
    for name, value in figures.items():
        print(f"{name:26s}{'not measured, see --reference' if value is None else value}")
    print()
    names = {
        "tetris": "tetris",
        "to saturation": "saturation",
        "with ribosomes": "ribosomes",
        "as published": "published",
    }
    names["the paper's"] = "reference"
    print(json.dumps(figures | {names[title]: column for title, column in columns.items()}))


if __name__ == "__main__":
    main()
