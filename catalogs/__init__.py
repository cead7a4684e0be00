"""Files and folders: corpora, volumes, particle lists and model files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalogs.lazy import exports

if TYPE_CHECKING:
    from catalogs import particles
    from catalogs.corpus.catalog import Catalog
    from catalogs.errors import InputError
    from catalogs.model_file import ModelCard
    from catalogs.progress import Progress
    from catalogs.schema import Acquisition, ClassInfo
    from catalogs.volumes import Volume, open_volume, write_mrc, write_ome_zarr

__all__ = [
    "Acquisition",
    "Catalog",
    "ClassInfo",
    "InputError",
    "ModelCard",
    "Progress",
    "Volume",
    "open_volume",
    "particles",
    "write_mrc",
    "write_ome_zarr",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Acquisition": "catalogs.schema",
        "Catalog": "catalogs.corpus.catalog",
        "ClassInfo": "catalogs.schema",
        "InputError": "catalogs.errors",
        "ModelCard": "catalogs.model_file",
        "Progress": "catalogs.progress",
        "Volume": "catalogs.volumes",
        "open_volume": "catalogs.volumes",
        "particles": "catalogs.particles:",
        "write_mrc": "catalogs.volumes",
        "write_ome_zarr": "catalogs.volumes",
    },
)
