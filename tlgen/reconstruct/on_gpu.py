"""Back-projection on a GPU with JAX; does the same as :mod:`tlgen.reconstruct.wbp`, a few rows at a time."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.simulate import devices


class Projector:
    """Filters and geometry of a series, kept on a device.

    Parameters
    ----------
    filters
        (t, frequencies) weights of each image's rows, padded to ``n`` pixels.
    n
        Pixels of a padded row.
    cosines, sines
        (t,) of the tilts.
    axis
        Where the tilt axis is, pixels along x from the first one.
    shape
        Of the tomogram: (z, x).
    slabs, slab
        Number and thickness in voxels of the slabs that each image is given for.
    device
        Of JAX.
    """

    def __init__(
        self,
        filters: NDArray[np.float32],
        n: int,
        cosines: NDArray[np.float64],
        sines: NDArray[np.float64],
        axis: float,
        shape: tuple[int, int],
        slabs: int,
        slab: float,
        device: Any,
    ) -> None:
        import jax

        self.n, self.device = n, device
        z, x = (np.arange(m) - (m - 1) / 2 for m in shape)
        # A position is the sum of a part from z and a part from x. Each is stored as an integer and a
        # fraction, so that 32 bits represent the sum to a millionth of a pixel, however wide the images are.
        parts = [filters]
        for of_z, of_x in (
            (axis + sines[:, None] * z, cosines[:, None] * x),
            (slabs / 2 + cosines[:, None] * z / slab, -sines[:, None] * x / slab),
        ):
            for place in (of_z, of_x):
                whole = np.floor(place)
                parts += [whole.astype(np.int32), (place - whole).astype(np.float32)]
        self.parts = tuple(jax.device_put(part, device) for part in parts)

    def block(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Filter and back-project rows (t, slabs, rows, width) -> (z, rows, x).

        If they do not fit into the device's memory, half of them are computed at a time.

        Raises
        ------
        InputError
            If not even a single row fits.
        """
        import jax

        try:
            found = _program()(jax.device_put(images, self.device), self.parts, n=self.n)
            return np.asarray(found).transpose(0, 2, 1)
        except jax.errors.JaxRuntimeError as error:
            if not devices.ran_out(error):
                raise
        rows = images.shape[2]
        if rows == 1:
            raise InputError(
                "device: the GPU's memory does not hold one row of the images; use device: cpu, or bin more"
            )
        halves = images[:, :, : rows // 2], images[:, :, rows // 2 :]
        return np.concatenate([self.block(half) for half in halves], axis=1)


@cache
def _program() -> Any:
    import jax
    import jax.numpy as jnp

    def sum_of(whole_z: Any, rest_z: Any, whole_x: Any, rest_x: Any) -> tuple[Any, Any]:
        rest = rest_z[:, None] + rest_x[None, :]
        carried = jnp.floor(rest)
        return whole_z[:, None] + whole_x[None, :] + carried.astype(jnp.int32), rest - carried

    @partial(jax.jit, static_argnames="n")
    def run(images: Any, parts: tuple[Any, ...], *, n: int) -> Any:
        _, slabs, rows, width = images.shape

        def add(out: Any, of_tilt: tuple[Any, ...]) -> tuple[Any, None]:
            image, (weights, *places) = of_tilt
            weighted = jnp.fft.irfft(jnp.fft.rfft(image, n) * weights, n)[..., :width]
            weighted = weighted.transpose(0, 2, 1)  # the rows of a pixel beside each other
            left, share = sum_of(*places[:4])
            slab = jnp.clip(sum_of(*places[4:])[0], 0, slabs - 1)
            # the last pixel has no neighbour, and needs none where the place is its very own
            seen = (left >= 0) & (left + (share > 0) < width)
            at, right = jnp.clip(left, 0, width - 1), jnp.clip(left + 1, 0, width - 1)
            here = weighted[slab, at] * (1 - share)[..., None]
            here += weighted[slab, right] * share[..., None]
            return out + jnp.where(seen[..., None], here, 0), None

        start = jnp.zeros((parts[1].shape[1], parts[3].shape[1], rows), jnp.float32)
        return jax.lax.scan(add, start, (images, parts))[0]

    return run


__all__ = ["Projector"]
