"""The mean particle in the training tomograms of a model, stored in the model's card."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Real = NDArray[np.float32]

#: Largest edge in voxels; it also limits the memory for a damaged card.
_LARGEST = 128


class ParticleMean(BaseModel):
    """Means of normalised grey values around true particles of one class.

    Both means are cubes with the particle's centre at the middle voxel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spacing: float = Field(
        gt=0,
        le=1e4,
        allow_inf_nan=False,
        json_schema_extra={"unit": "Å"},
        description="Of the cubes' voxels.",
    )
    edge: int = Field(ge=3, le=_LARGEST, json_schema_extra={"unit": "voxels"}, description="Odd.")
    n: int = Field(ge=1, description="Particles that were averaged.")
    aligned: str = Field(description="Mean in the particle's own orientation: float16, deflated, base64.")
    unaligned: str = Field(description="Mean as the particles lie in the tomograms; coded likewise.")

    @model_validator(mode="after")
    def _holds_cubes(self) -> ParticleMean:
        self.cube("aligned"), self.cube("unaligned")
        return self

    @classmethod
    def of(cls, aligned: Real, unaligned: Real, spacing: float, n: int) -> ParticleMean:
        """Make one from two cubes (z, y, x)."""
        return cls(
            spacing=spacing, edge=len(aligned), n=n, aligned=_packed(aligned), unaligned=_packed(unaligned)
        )

    def cube(self, which: str) -> Real:
        """Unpack ``aligned`` or ``unaligned``.

        Returns
        -------
        ndarray of float32
            (z, y, x).

        Raises
        ------
        ValueError
            If the mean is damaged.
        """
        wanted = 2 * self.edge**3
        try:
            packed = base64.b64decode(getattr(self, which), validate=True)
            content = zlib.decompressobj().decompress(packed, wanted + 1)
        except (ValueError, zlib.error) as error:
            raise ValueError(f"the mean particle ({which}) is damaged") from error
        if len(content) != wanted:
            raise ValueError(f"the mean particle ({which}) does not have {self.edge} voxels along its edges")
        cube = np.frombuffer(content, "<f2").reshape((self.edge,) * 3).astype(np.float32)
        if not np.isfinite(cube).all():
            raise ValueError(f"the mean particle ({which}) holds values that are not finite numbers")
        return cube


def layout(radius: float, voxel_size: float) -> tuple[int, int]:
    """Choose the binning and the odd edge of the cubes of a class.

    The cubes extend 1.5 radii from the centre, with about ten voxels per radius if the tomogram has as many.
    """
    binning = max(1, int(radius / 10 / voxel_size))
    half = int(np.ceil(1.5 * radius / (voxel_size * binning)))
    return binning, 2 * min(half, (_LARGEST - 1) // 2) + 1


def radial(cube: Real, spacing: float) -> tuple[Sequence[float], Sequence[float]]:
    """Average a cube over shells around its centre; returns radii in Å and means."""
    half = len(cube) // 2
    z, y, x = np.ogrid[-half : half + 1, -half : half + 1, -half : half + 1]
    shell = np.rint(np.sqrt(z * z + y * y + x * x)).astype(np.int64).ravel()
    counts = np.bincount(shell)[: half + 1]
    sums = np.bincount(shell, cube.ravel())[: half + 1]
    return [k * spacing for k in range(half + 1)], [float(v) for v in sums / counts]


def _packed(cube: Real) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(cube, "<f2").tobytes(), 9)).decode()
