"""The multislice engine: Parakeet's physics at the resolution of the tomogram, and much faster.

Parakeet works with 1 Å pixels and slices of 3 to 5 Å, because it keeps the cores of atoms. A tomogram of 8 Å
voxels has no signal beyond 1/16 Å⁻¹, and at this resolution an atom is a point with a weight. Each atom is
therefore splatted with the integral of its potential, on a grid of about 2 Å, into slabs as thick as the
voxels' resolution allows (:mod:`tlgen.simulate.multislice.slabs`). The wave is propagated through the slabs
by multislice, then through Parakeet's lens to its detector (:mod:`tlgen.simulate.multislice.wave`). The ice
has the mean and the fluctuations of Parakeet's ice, and is reduced to a third where atoms are. The volume
that atoms cover is computed once per structure (:mod:`tlgen.simulate.multislice.displaced_ice`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library
from tlgen.scene.scene import Scene
from tlgen.simulate import checks, devices
from tlgen.simulate.microscope import contamination, optics
from tlgen.simulate.multislice import displaced_ice, on_cpu, on_gpu, place, solids
from tlgen.simulate.multislice.slabs import grid_for, grid_of, lay_out, slab
from tlgen.simulate.protocol import Images
from tlgen.simulate.specimen import check_elements
from tlgen.tilts.scheme import Tilt

#: Seconds on one core: shortest useful call, time per pixel, and time per pixel and slab without atoms
#: (measured by ``benchmarks/simulate.py``).
_A_CALL, _PER_PIXEL, _PER_PIXEL_AND_SLAB = 0.25, 28e-9, 29e-9


@dataclass(frozen=True)
class Multislice:
    """The engine for large corpora."""

    name: ClassVar[str] = "multislice"
    cost: ClassVar[float] = 0.5
    one_call_per_process: ClassVar[bool] = False

    def version(self) -> str:
        """Return names and versions of the software that computes the images."""
        return f"template-learning {version('template-learning')} multislice"

    def check(self, acq: Acquisition) -> None:
        """Refuse Parakeet's own settings, and voxels that are not a whole number of pixels (InputError)."""
        checks.check_acquisition(acq)
        if acq.parakeet_faults != "corrected":
            raise InputError(
                "parakeet_faults: engine multislice has none of Parakeet's faults; "
                "leave it out, or use parakeet"
            )
        optics.binning(acq, acq.pixel_size)

    def check_scene(self, scene: Scene, library: Library, acq: Acquisition) -> None:
        """Refuse a scene that cannot be simulated; see :meth:`tlgen.simulate.protocol.Engine.check_scene`."""
        optics.check_voxel_size(scene, acq)
        check_elements(scene, library)
        checks.check_inside(scene, library)

    def memory(self, scene: Scene, library: Library, acq: Acquisition) -> int:
        """Estimate the bytes that one call needs on top of the interpreter and the library."""
        grid = grid_of(scene, acq)
        x, _, z = scene.box
        steep = ceil((x + z + 2 * acq.padding) / slab(scene.voxel_size))
        slabs = steep * place.channels(acq)
        structures = [library[scene.digests[k]].points for k in np.unique(scene.which)]
        cells = displaced_ice.memory(structures, acq.slice_thickness) if acq.ice_density else 0
        more = solids.MEMORY if scene.decorations else 0
        here = grid.nx * grid.ny * (4 * slabs + 80)
        if acq.device == "gpu":
            here = on_gpu.host_memory(grid, steep, on_gpu.TILTS) + on_gpu.PROCESS
        return here + cells + more

    def simulate(
        self, scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, seed: int, *, noise: bool = True
    ) -> NDArray[np.float32]:
        """Simulate one image; see :meth:`tlgen.simulate.protocol.Engine.simulate`.

        Raises
        ------
        InputError
            If ``voxel_size`` is not a whole multiple of ``pixel_size``, or an element is unknown.
        """
        return self.simulate_together([(scene, tilt)], library, acq, seed, noise=noise).images[0]

    def tilts_a_call(self, acq: Acquisition, shape: tuple[int, int, int]) -> int:
        """Return the number of tilts to simulate per call; see :class:`tlgen.simulate.protocol.Engine`.

        A GPU computes several tilts at once. A core computes, one after the other, as many as take a quarter
        of a second, so that the overhead of a call on a cluster is small.
        """
        if acq.device == "gpu":
            return on_gpu.TILTS
        grid = grid_for(shape, acq)
        slabs = ceil(shape[0] * acq.voxel_size / slab(acq.voxel_size))
        seconds = grid.nx * grid.ny * (_PER_PIXEL + _PER_PIXEL_AND_SLAB * slabs)
        return max(1, int(_A_CALL / seconds))

    def check_device(self, acq: Acquisition) -> None:
        """Refuse a process without the GPU that the acquisition requires (InputError)."""
        devices.of_jax(acq.device)

    def simulate_together(
        self,
        views: Sequence[tuple[Scene, Tilt]],
        library: Library,
        acq: Acquisition,
        seed: int,
        *,
        noise: bool = True,
    ) -> Images:
        """Simulate several images; see :meth:`tlgen.simulate.protocol.Engine.simulate_together`.

        Raises
        ------
        InputError
            As :meth:`simulate`; also if a GPU is requested and there is none, or it has too little memory.
        """
        self.check(acq)
        for scene, _ in views:
            check_elements(scene, library)
        device = devices.of_jax(acq.device)
        views = [(contamination.added(scene, acq, seed), tilt) for scene, tilt in views]
        grid = grid_of(views[0][0], acq)
        seen, where = None, "CPU"
        if device is not None:
            layouts = [lay_out(scene, library, acq, tilt, grid) for scene, tilt in views]
            seen = on_gpu.simulate(device, layouts, acq, grid, seed, detected=noise)
        if device is not None and seen is not None:
            where = f"{device.device_kind}, JAX {version('jax')}"
        else:  # one after the other, which needs the memory of only one
            seen = [
                on_cpu.simulate(lay_out(scene, library, acq, tilt, grid), acq, grid, seed, detected=noise)
                for scene, tilt in views
            ]
        images = []
        for image, (scene, tilt) in zip(seen, views, strict=True):
            mean = optics.energy_filtered(image, scene, acq, tilt)
            dose = tilt.dose * scene.voxel_size**2
            images.append(optics.counts(mean, dose, seed, tilt, acq) if noise else mean)
        return Images(images, where)


__all__ = ["Multislice", "slab"]
