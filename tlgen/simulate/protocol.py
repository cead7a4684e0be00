"""What an engine is: (scene, tilt) -> image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library
from tlgen.scene.scene import Scene
from tlgen.tilts.scheme import Tilt


class Images(NamedTuple):
    """Of several tilts, as :meth:`Engine.simulate` gives each, and what computed them, in words."""

    images: list[NDArray[np.float32]]
    device: str


class Engine(Protocol):
    """A simulator of single tilt images."""

    @property
    def name(self) -> str:
        """Word for it in recipes and records."""

    @property
    def cost(self) -> float:
        """CPU seconds of an image of a cube of 0.1 µm, roughly: until some have been timed."""

    @property
    def one_call_per_process(self) -> bool:
        """Whether two calls at a time in one process (threads) would crash it."""

    def version(self) -> str:
        """Return names and versions of what computes the images."""

    def check(self, acq: Acquisition) -> None:
        """Refuse settings that the engine cannot honour, before anything is run.

        Raises
        ------
        InputError
            Names the setting, and what to do.
        """

    def check_scene(self, scene: Scene, library: Library, acq: Acquisition) -> None:
        """Refuse a scene that the engine cannot show, before any tilt of it is run.

        Raises
        ------
        InputError
            Names the molecule or decoration, what is wrong with it, and what to do.
        """

    def memory(self, scene: Scene, library: Library, acq: Acquisition) -> int:
        """Estimate the bytes that one call needs on top of the interpreter and the library."""

    def simulate(
        self, scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, seed: int, *, noise: bool = True
    ) -> NDArray[np.float32]:
        """Simulate one image.

        Parameters
        ----------
        scene, library
            What stands where.
        acq
            The microscope's settings.
        tilt
            Which image of the series.
        seed
            Of the sample; the random ice and the counts of each tilt follow from it and the tilt's index.
        noise
            False gives the mean intensity, where vacuum is 1, instead of counts.

        Returns
        -------
        ndarray, float32, (ny, nx) = (shape[1], shape[2]) of the scene
            Electrons a binned pixel, each of ``scene.voxel_size`` Å. The centre of the box projects to
            pixel ((nx - 1) / 2, (ny - 1) / 2): pixel 0's centre is 0 Å.

        Raises
        ------
        InputError
            If the engine cannot honour a setting.
        """

    def tilts_a_call(self, acq: Acquisition, shape: tuple[int, int, int]) -> int:
        """Say how many tilts of a scene of ``shape`` (z, y, x) voxels are worth one call."""

    def check_device(self, acq: Acquisition) -> None:
        """Refuse a process that lacks the device which the acquisition asks for (InputError)."""

    def simulate_together(
        self,
        views: Sequence[tuple[Scene, Tilt]],
        library: Library,
        acq: Acquisition,
        seed: int,
        *,
        noise: bool = True,
    ) -> Images:
        """Simulate several images of a series; each is that of :meth:`Engine.simulate`.

        Parameters
        ----------
        views
            The scene, as it stands at a tilt, and the tilt. Molecules may stand elsewhere at each.
        library, acq, seed, noise
            As of one image.

        Raises
        ------
        InputError
            If the engine cannot honour a setting.
        """
