"""Two engines' images beside each other: their power in shells of frequencies, and pictures."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def spectrum(image: Image, number: int = 8) -> NDArray[np.float64]:
    """Power in shells from zero to 0.8 of Nyquist."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    q = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"))
    edges = np.linspace(0, 0.4, number + 1)
    return np.array([power[(q > low) & (q <= high)].mean() for low, high in itertools.pairwise(edges)])


def draw(folder: Path | None, name: str, ours: Image, theirs: Image, voxel_size: float, caption: str) -> None:
    """Draw both images, their difference and their spectra into one picture."""
    if folder is None:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    low, high = np.percentile(theirs, [0.5, 99.5])
    reach = (high - low) / 2
    for axis, image, title in zip(
        axes, (ours, theirs, ours - theirs), ("multislice", "Parakeet", "difference"), strict=False
    ):
        ends = (-reach, reach) if title == "difference" else (low, high)
        shown = axis.imshow(image, cmap="gray", vmin=ends[0], vmax=ends[1])
        axis.set(title=title, xticks=[], yticks=[])
        figure.colorbar(shown, ax=axis, shrink=0.8)
    q = (np.arange(16) + 0.5) * 0.4 / 16 / voxel_size
    for image, title in ((ours, "multislice"), (theirs, "Parakeet")):
        axes[3].semilogy(q, spectrum(image, 16), label=title, ls="-" if title == "Parakeet" else "--")
    axes[3].set(title="radial power", xlabel="1/Å")
    axes[3].legend()
    figure.suptitle(f"{name}: {caption}")
    figure.savefig(folder / f"{name}.png", dpi=90)
    pyplot.close(figure)
