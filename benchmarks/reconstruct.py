"""Weighted back-projection beside astra-toolbox's and scikit-image's: CPU time, and correlation to the truth.

    python benchmarks/reconstruct.py              # 61 tilts; some five minutes
    python benchmarks/reconstruct.py --size 128   # a phantom of half each length
    python benchmarks/reconstruct.py --only phantom

Two scenes. The phantom, 256 x 256 x 128 voxels, is of balls, and its images are projections made
analytically, with the noise of counts. The crowd is 1024 x 1024 x 512 Å of ribosomes, spliceosomes,
chaperonins and ferritins in ice, whose images the multislice engine simulates with its lens, detector and
counts, at 8 Å and 2.5 µm under focus. The truth is the phantom, or the mass density of the crowd, without the
frequencies that no tilt holds; the lens reverses and damps some that it has, so that no reconstruction
correlates fully.

Each program filters with its ramp times a Hann window and works on one thread, row by row of the images.
astra-toolbox is optional (``pip install astra-toolbox``); it and scikit-image are timed on every eighth row,
times eight; the correlation is that of these rows for all.

Prints a table for each scene, and as the last line one JSON object: seconds of CPU, ``speedup_over_...``
(other time / our time), and ``correlation_...``, for the crowd under ``crowd``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from crowd import CROWD, molecules, packed

from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.reconstruct import ProjectionParameters, Reconstruction, reconstruct
from tlgen.scene.density import density
from tlgen.simulate.multislice.multislice import Multislice
from tlgen.tilts.scheme import tilt_series

EVERY = 8  # rows; of the others' time


def phantom(shape: tuple[int, int, int], angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Balls of one density: the volume (z, y, x), and its projections (t, y, x), both in closed form."""
    rng = generator("benchmark", "reconstruct")
    nz, ny, nx = shape
    volume = np.zeros(shape, np.float32)
    images = np.zeros((len(angles), ny, nx), np.float32)
    middle = (np.array([nx, ny, nz]) - 1) / 2
    for _ in range(nx // 2):
        radius = rng.uniform(3, 9)
        x, y, z = rng.uniform(-1, 1, 3) * (middle - radius - 2) * (0.7, 1, 1)
        _add(volume, (z + middle[2], y + middle[1], x + middle[0]), radius)
        for image, angle in zip(images, np.radians(angles), strict=True):
            at = x * np.cos(angle) + z * np.sin(angle)
            rows, columns = _around(y + middle[1], radius, ny), _around(at + middle[0], radius, nx)
            far = (np.arange(ny)[rows, None] - y - middle[1]) ** 2 + (
                np.arange(nx)[columns] - at - middle[0]
            ) ** 2
            image[rows, columns] += 2 * np.sqrt(np.clip(radius**2 - far, 0, None))
    return volume, images


def _around(middle: float, radius: float, n: int) -> slice:
    return slice(max(int(middle - radius), 0), min(int(middle + radius) + 2, n))


def _add(volume: np.ndarray, place: tuple[float, ...], radius: float) -> None:
    box = tuple(_around(p, radius + 1, n) for p, n in zip(place, volume.shape, strict=True))
    axes = np.meshgrid(
        *(np.arange(n)[part] for n, part in zip(volume.shape, box, strict=True)), indexing="ij"
    )
    far = np.sqrt(sum((axis - p) ** 2 for axis, p in zip(axes, place, strict=True)))
    volume[box] += np.clip(radius - far + 0.5, 0, 1)


def within_the_wedge(volume: np.ndarray, most: float) -> np.ndarray:
    """Leave out the frequencies that no tilt up to so many degrees holds."""
    kz, kx = np.fft.fftfreq(volume.shape[0])[:, None], np.fft.fftfreq(volume.shape[2])[None]
    held = np.degrees(np.arctan2(np.abs(kz), np.abs(kx))) <= most
    spectrum = np.fft.fft2(volume, axes=(0, 2)) * held[:, None]
    return np.asarray(np.fft.ifft2(spectrum, axes=(0, 2)).real, np.float32)


def by_astra(images: np.ndarray, angles: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Reconstruct row by row with astra's linear projector."""
    import astra

    nz, ny, nx = shape
    # astra's y points against the row's order, as its angles do
    geometry = astra.create_proj_geom("parallel", 1.0, images.shape[2], np.radians(-angles))
    space = astra.create_vol_geom(nz, nx)
    projector = astra.create_projector("linear", geometry, space)
    out = np.empty(shape, np.float32)
    for y in range(ny):
        sinogram = astra.data2d.create("-sino", geometry, images[:, y])
        found = astra.data2d.create("-vol", space)
        config = astra.astra_dict("FBP")
        config |= {"ProjectorId": projector, "ProjectionDataId": sinogram, "ReconstructionDataId": found}
        config["option"] = {"FilterType": "hann"}
        algorithm = astra.algorithm.create(config)
        astra.algorithm.run(algorithm)
        out[:, y] = astra.data2d.get(found)
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([sinogram, found])
    return out


def by_skimage(images: np.ndarray, angles: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Reconstruct row by row with scikit-image's ``iradon``; it makes squares, cut to z."""
    from skimage.transform import iradon

    nz, ny, nx = shape
    # iradon turns about index n // 2, half a pixel from the middle of an even number
    out = np.empty(shape, np.float32)
    first = nx // 2 - nz // 2
    for y in range(ny):
        square = iradon(images[:, y].T, theta=-angles, filter_name="hann", circle=True, output_size=nx)
        out[:, y] = square[first : first + nz]
    return out


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of what is away from the ends in x, where tilted images show nothing."""
    inner = slice(a.shape[2] // 8, -a.shape[2] // 8)
    return float(np.corrcoef(a[:, :, inner].ravel(), b[:, :, inner].ravel())[0, 1])


def simulated(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Pack and simulate: density of the molecules (z, y, x), images (t, y, x), CPU seconds of simulating."""
    library = molecules()
    scene = packed(library, (1024, 1024, 512), CROWD)
    acq = Acquisition.model_validate({"dose": 120.0, "defocus": 2.5})
    tilts = sorted(tilt_series(acq), key=lambda tilt: tilt.angle)
    assert np.allclose([tilt.angle for tilt in tilts], angles)
    started = time.process_time()
    images = np.stack([Multislice().simulate(scene, library, acq, tilt, 1) for tilt in tilts])
    return density(scene, library), images, time.process_time() - started


def compare(
    counts: np.ndarray, angles: np.ndarray, truth: np.ndarray, choices: dict[str, Reconstruction]
) -> dict[str, object]:
    """Reconstruct by every program, and print what each takes and how well it agrees."""
    shape: tuple[int, int, int] = truth.shape
    contrast = counts / counts.mean(axis=(1, 2), keepdims=True) - 1
    figures: dict[str, object] = {"voxels": list(shape), "tilts": len(angles)}
    print(f"{'':34s} {'CPU s':>8s} {'correlation':>12s}")

    def tell(name: str, seconds: float, agreement: float) -> None:
        word = name.replace(" ", "_").replace(",", "").replace("-", "_")
        figures[f"seconds_{word}"], figures[f"correlation_{word}"] = round(seconds, 3), round(agreement, 4)
        print(f"{name:34s} {seconds:8.3f} {agreement:12.4f}", flush=True)

    ours = 0.0
    series = ProjectionParameters(angles)
    for name, settings in choices.items():
        found, seconds = timed(lambda s=settings: reconstruct(counts, series, shape, s))  # type: ignore[misc]
        ours = ours or seconds
        tell(name, seconds, -correlation(found[:, ::EVERY], truth[:, ::EVERY]))
    others: dict[str, Callable[..., np.ndarray]] = {"scikit-image": by_skimage}
    if find_spec("astra"):
        others["astra"] = by_astra
    few = (shape[0], shape[1] // EVERY, shape[2])
    for name, other in others.items():
        rows = np.ascontiguousarray(contrast[:, ::EVERY])
        other(rows[:, :1], angles, (shape[0], 1, shape[2]))
        found, seconds = timed(lambda o=other, r=rows: o(r, angles, few))  # type: ignore[misc]
        tell(name, seconds * EVERY, -correlation(found, truth[:, ::EVERY]))
        figures[f"speedup_over_{name.replace('-', '_')}"] = round(seconds * EVERY / ours, 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure weighted back-projection beside other libraries.")
    parser.add_argument("--size", type=int, default=256, help="voxels along x and y; half of it along z")
    parser.add_argument("--dose", type=float, default=2000.0, help="electrons a voxel and image")
    parser.add_argument("--only", choices=("phantom", "crowd"), help="one scene")
    given = parser.parse_args()
    angles = np.arange(-60.0, 61, 2.0)
    choices = {
        "ramp": Reconstruction(), "exact": Reconstruction(filter="exact"),
        "ramp gaussian": Reconstruction(rolloff="gaussian"),
        "sirt 10": Reconstruction(filter="sirt", iterations=10),
        "sirt 30": Reconstruction(filter="sirt", iterations=30),
    }  # fmt: skip
    reconstruct(np.ones((len(angles), 8, given.size)), angles, (8, 8, given.size))  # compiles
    figures: dict[str, object] = {}
    if given.only != "crowd":
        shape = (given.size // 2, given.size, given.size)
        volume, images = phantom(shape, angles)
        expected = given.dose * np.exp(-0.01 * images)
        counts = generator("benchmark", "counts").poisson(expected).astype(np.float32)
        print(f"Phantom, {given.size} x {given.size} x {given.size // 2} voxels, {len(angles)} tilts")
        figures |= compare(counts, angles, within_the_wedge(volume, 60), choices)
    if given.only != "phantom":
        volume, images, seconds = simulated(angles)
        print(
            f"\nSimulated crowd, 128 x 128 x 64 voxels, {len(angles)} tilts ({seconds:.0f} CPU s to simulate)"
        )
        figures["crowd"] = compare(images, angles, within_the_wedge(volume, 60), choices)
    print()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
