"""The multislice on a GPU with JAX: several tilts at a time; structures are uploaded once and rotated there.

The noise for the ice is drawn on the host with the same generators as on the CPU, so a sample has the same
ice on every device. Electron counts are also drawn on the host
(:mod:`tlgen.simulate.multislice.multislice`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.simulate import devices
from tlgen.simulate.microscope import potentials
from tlgen.simulate.multislice import place, wave
from tlgen.simulate.multislice.slabs import Grid, Layout

#: Largest number of tilts that a GPU computes together, and largest size in bytes of their noise on the host.
TILTS, NOISE = 8, 2 << 30
#: Approximate bytes on the host for JAX and CUDA.
PROCESS = 1 << 30
# The number of slabs is padded to a multiple of this, so that one compiled program serves similar tilts.
_SLABS = 8
# Bytes on the device per pixel of the image (waves, transforms and factors), and the share of the free memory
# to use. The rest is left for FFT plans and fragmentation.
_PER_PIXEL, _USED = 200, 0.8


def host_memory(grid: Grid, slabs: int, tilts: int) -> int:
    """Estimate the bytes on the host for the noise of those of ``tilts`` tilts that are computed together."""
    each = _up(slabs) * grid.nx * grid.ny * 4
    return each * max(1, min(tilts, NOISE // each))


def simulate(
    device: Any, layouts: Sequence[Layout], acq: Acquisition, grid: Grid, seed: int, *, detected: bool
) -> list[NDArray[np.float32]] | None:
    """Compute the mean intensities of several tilts.

    Each is the same as from :func:`tlgen.simulate.multislice.on_cpu.simulate`. As many tilts are computed
    together as fit into the device's memory.

    Parameters
    ----------
    device
        The JAX device.
    layouts
        Layouts of the tilts; molecules may move between them.
    acq, grid, seed, detected
        As on the CPU.

    Returns
    -------
    list of ndarray, float32 (ny, nx), or None
        None if the acquisition allows any device and a single tilt is too large for this one.

    Raises
    ------
    InputError
        If a single tilt is too large for the requested device, or matter overlaps more than is possible.
    """
    import jax

    slabs = _up(max(layout.slabs for layout in layouts))
    pixels = grid.nx * grid.ny
    each = (4 * slabs * (place.channels(acq) + bool(acq.ice_density)) + _PER_PIXEL) * pixels
    needed = round((place.memory(layouts, acq) + each) / _USED)
    free = devices.free_memory_of(device)
    if not devices.choose(acq.device, 1, needed, free):
        return None
    most = place.tilts_that_fit((slabs, *grid.shape))
    if not most:
        if acq.device == "auto":
            return None
        raise InputError(
            f"device: a tilt of this scene has {slabs * pixels / 1e9:.1f} billion pixels in all slabs, more"
            " than a GPU can address; make the box smaller or use device: cpu"
        )
    together = min(TILTS, NOISE // (4 * slabs * pixels), most)
    if free is not None:
        together = min(together, int((free * _USED - place.memory(layouts, acq)) // each))
    together = max(1, min(together, len(layouts)))

    images: list[NDArray[np.float32]] = []
    while len(images) < len(layouts):
        batch = layouts[len(images) : len(images) + together]
        try:
            images += _batch(device, batch, together, slabs, acq, grid, seed, detected)
        except jax.errors.JaxRuntimeError as error:
            if not devices.ran_out(error):
                raise
            if together == 1:
                if acq.device == "auto":
                    return None
                raise InputError(
                    "device: the GPU's memory is too small for a single tilt of this "
                    "scene; make the box smaller,"
                    " give each worker its own GPU, or use device: cpu"
                ) from error
            together = (together + 1) // 2
    return images


def _batch(
    device: Any,
    layouts: Sequence[Layout],
    together: int,
    slabs: int,
    acq: Acquisition,
    grid: Grid,
    seed: int,
    detected: bool,
) -> list[NDArray[np.float32]]:
    """Compute tilts together; the last batch is padded with empty tilts to use the same compiled program."""
    import jax

    number = max(layout.slabs for layout in layouts)
    views = [_padded(wave.view(layout, acq, grid, number, detected=detected), slabs) for layout in layouts]
    views += views[-1:] * (together - len(views))
    shape = (together, slabs, *grid.shape)
    potential = place.atoms(device, layouts, acq, grid, shape)
    covered = place.cells(device, layouts, acq, grid, shape) if acq.ice_density else None
    lost = place.lost(device, layouts, acq, grid, shape) if acq.contrast == "physical" else None
    white = jax.device_put(_noise(layouts, shape, seed), device) if acq.ice_density else None
    seen, lowest = _program()(
        wave.sizes_of(layouts[0], grid),
        jax.device_put(wave.common(layouts[0], acq, grid), device),
        jax.device_put(jax.tree.map(lambda *each: np.stack(each), *views), device),
        number,
        potential,
        covered,
        lost,
        white,
    )
    if int(lowest) < 0:
        raise InputError(
            f"scene: one place has more than {place.DENSEST:g} V of mean inner potential, which no"
            " material has; molecules or decorations overlap; move them"
        )
    return list(np.asarray(seen)[: len(layouts)])


def _up(slabs: int) -> int:
    return -(-slabs // _SLABS) * _SLABS


def _padded(view: wave.View, slabs: int) -> wave.View:
    """Add slabs without ice at the end."""
    if view.ice is None:
        return view
    share, mean = (np.pad(each, [(0, slabs - len(each)), (0, 0)]) for each in (view.ice.share, view.ice.mean))
    return view._replace(ice=view.ice._replace(share=share, mean=mean))


def _noise(layouts: Sequence[Layout], shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Draw the noise of each tilt, slab by slab as on the CPU, in as many threads as there are cores."""
    white = np.empty(shape, np.float32)

    def draw(k: int) -> None:
        number = layouts[k].slabs if k < len(layouts) else 0
        if number:
            rng = generator(seed, "ice", layouts[k].tilt.index)
            rng.standard_normal(dtype=np.float32, out=white[k, :number])
        white[k, number:] = 0

    with ThreadPoolExecutor(min(len(white), len(os.sched_getaffinity(0)))) as threads:
        list(threads.map(draw, range(len(white))))
    return white


@cache
def _program() -> Any:
    """Compile :func:`tlgen.simulate.multislice.wave.image` with JAX, for several tilts."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    def refract(wave_: Any, phase: Any, sigma: Any) -> Any:
        return wave_ * lax.complex(jnp.cos(sigma * phase), jnp.sin(sigma * phase))

    def damp(white: Any, covered: Any, ice: Any, volume: Any) -> Any:
        third = (1 - potentials.DISPLACED) ** 2
        return white * jnp.sqrt(jnp.maximum(ice - (1 - third) * covered / volume, third * ice))

    operations = wave.Operations(
        ones=lambda shape: jnp.ones(shape, jnp.complex64),
        rfft2=jnp.fft.rfft2,
        irfft2=lambda spectrum, shape: jnp.fft.irfft2(spectrum, shape),
        fft2=jnp.fft.fft2,
        ifft2=jnp.fft.ifft2,
        times=lambda a, b: a * b,
        with_ice=lambda lost, covered, share, of_cover, of_ice: (
            lost + jnp.maximum(share * of_ice - covered * of_cover, 0)
        ),
        fade=lambda wave_, lost, area: wave_ * jnp.exp(-lost / area),
        mix=lambda a, of_a, b, of_b, c, of_c: a * of_a - b * of_b + c * of_c,
        add_to_row=lambda spectrum, row: spectrum.at[0].add(row),
        damp=damp,
        refract=refract,
        intensity=lambda wave_: wave_.real**2 + wave_.imag**2,
        repeat=lambda number, body, state: lax.fori_loop(0, number, body, state),
    )

    def images(
        sizes: wave.Sizes,
        common: wave.Common,
        views: wave.View,
        number: Any,
        potential: Any,
        covered: Any,
        lost: Any,
        white: Any,
    ) -> tuple[Any, Any]:
        def one(view: wave.View, potential: Any, covered: Any, lost: Any, white: Any) -> Any:
            filled = wave.Filled(
                number,
                potential.slab,
                None if covered is None else covered.slab,
                None if lost is None else lost.slab,
                lambda k: white[k],
            )
            return wave.image(operations, sizes, common, view, filled)

        sums = (potential, covered, lost)
        axes = [None if each is None else place.AXES for each in sums]
        seen = jax.vmap(one, (0, *axes, None if white is None else 0))(views, *sums, white)
        return seen, jnp.min(jnp.stack([each.whole.min() for each in sums if each is not None]))

    return jax.jit(images, static_argnums=0)
