"""A packed scene with its molecules: a picture, a particle table, measures, a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import pandas as pd

from tlgen.molecules.molecule import Library
from tlgen.recipes.recipe import Packing
from tlgen.scene.scene import Scene
from tlgen.scene.scene_file import COARSE, write_scene

if TYPE_CHECKING:
    from PIL import Image

    from tlgen.scene.view import Facts


@dataclass(frozen=True, eq=False)
class PackedScene:
    """A scene with its molecules: everything in the box of one sample. A notebook shows it as a picture.

    Attributes
    ----------
    scene
        Positions and rotations of the molecules.
    library
        The molecules, by digest.
    name
        Of the sample.
    seconds
        CPU time of the packing.
    occupancy, packing
        Share of the box that the molecules fill, and the settings of the packing; None if not known.
    """

    scene: Scene
    library: Library
    name: str = "scene"
    seconds: float = 0.0
    occupancy: float | None = None
    packing: Packing | None = None

    def view(self, to: str | os.PathLike[str] | None = None) -> Image.Image:
        """Draw three sections, the gaps between molecules and the counts.

        Parameters
        ----------
        to
            File to write the picture to, ``.png`` or ``.html``; None: no file.

        Returns
        -------
        PIL.Image.Image
            The picture; a notebook displays it.
        """
        from tlgen.scene.view import picture

        if to is not None:
            self.draw(to)
        return picture(self.scene, self.library, title=self.name)

    def draw(self, to: str | os.PathLike[str]) -> Facts:
        """Draw the same into a file, ``.png`` or ``.html``; returns the numbers that are in it."""
        from tlgen.scene.view import view

        return view(self.scene, self.library, to, title=self.name)

    def _repr_png_(self) -> bytes:
        """Show the scene in a notebook."""
        raw = BytesIO()
        self.view().save(raw, "PNG")
        return raw.getvalue()

    @property
    def particles(self) -> pd.DataFrame:
        """The particle table of a tomogram of this scene."""
        return self.scene.particles(self.name, self.library)

    def measure(self) -> Facts:
        """Count the molecules in the scene and measure the gaps between them."""
        from tlgen.scene.view import measure

        return measure(self.scene, self.library)

    def save(self, folder: str | os.PathLike[str], voxel_size: float = COARSE) -> None:
        """Write the scene into a folder, with a coarse density; :func:`open_scene` reads it.

        Parameters
        ----------
        folder
            Folder to write to; see :func:`tlgen.scene.scene_file.write_scene`.
        voxel_size
            Å; of the coarse density.
        """
        write_scene(self.scene, self.library, folder, name=self.name, voxel_size=voxel_size)
