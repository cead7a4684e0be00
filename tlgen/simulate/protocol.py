"""The protocol of an engine: (scene, tilt) -> image."""

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
    """Images of several tilts, as from :meth:`Engine.simulate`, and a description of the device used."""

    images: list[NDArray[np.float32]]
    device: str


class Engine(Protocol):
    """A simulator of single tilt images."""

    @property
    def name(self) -> str:
        """Name of the engine in recipes and records."""

    @property
    def cost(self) -> float:
        """Rough CPU time in seconds for an image of a 0.1 µm cube, used until images have been timed."""

    @property
    def one_call_per_process(self) -> bool:
        """Whether simultaneous calls in one process (in threads) would crash it."""

    def version(self) -> str:
        """Return names and versions of the software that computes the images."""

    def check(self, acq: Acquisition) -> None:
        """Refuse settings that the engine does not support, before anything is run.

        Raises
        ------
        InputError
            Names the setting, and says what to do.
        """

    def check_scene(self, scene: Scene, library: Library, acq: Acquisition) -> None:
        """Refuse a scene that the engine cannot simulate, before any of its tilts is run.

        Raises
        ------
        InputError
            Names the molecule or decoration, and says what is wrong with it and what to do.
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
            The scene, and its molecules.
        acq
            The microscope's settings.
        tilt
            The image's tilt in the series.
        seed
            Seed of the sample; the random ice and the counts of a tilt depend on it and on the tilt's index.
        noise
            False returns the mean intensity, where vacuum is 1, instead of counts.

        Returns
        -------
        ndarray, float32, (ny, nx) = (shape[1], shape[2]) of the scene
            Electrons per binned pixel of ``scene.voxel_size`` Å. The centre of the box projects to pixel
            ((nx - 1) / 2, (ny - 1) / 2); the centre of pixel 0 is at 0 Å.

        Raises
        ------
        InputError
            If the engine does not support a setting.
        """

    def tilts_a_call(self, acq: Acquisition, shape: tuple[int, int, int]) -> int:
        """Return the number of tilts to simulate per call, for a scene of ``shape`` (z, y, x) voxels."""

    def check_device(self, acq: Acquisition) -> None:
        """Refuse a process that lacks the device that the acquisition asks for (InputError)."""

    def simulate_together(
        self,
        views: Sequence[tuple[Scene, Tilt]],
        library: Library,
        acq: Acquisition,
        seed: int,
        *,
        noise: bool = True,
    ) -> Images:
        """Simulate several images of a series; each is the same as from :meth:`Engine.simulate`.

        Parameters
        ----------
        views
            For each image, the scene at this tilt and the tilt. Molecules may move between tilts.
        library, acq, seed, noise
            As for one image.

        Raises
        ------
        InputError
            If the engine does not support a setting.
        """
