"""Show a sample in Neuroglancer, with the server of its Python package."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError

MISSING = (
    "the package neuroglancer is not installed; pip install 'template-learning[neuroglancer]', then start "
    "tlgen browse again"
)
_LARGEST = 1 << 30  # voxels; the server keeps them in memory
_PIXELS = 400  # approximate width of a section on the screen
#: The viewer that was opened last; the previous one and its volumes are released.
_open: list[Any] = []


def viewer_url(catalog: Catalog, sample_id: str) -> str:
    """Open a viewer with a tomogram and its instances; returns its address, which contains its own token.

    Raises
    ------
    InputError
        If the package or the sample is missing, or the sample is too large.
    """
    if find_spec("neuroglancer") is None:
        raise InputError(MISSING)
    import neuroglancer

    record = catalog.record(sample_id)
    arrays = catalog.arrays(sample_id)
    assert record is not None
    if int(np.prod(record.shape)) > _LARGEST:
        raise InputError(
            f"sample {sample_id} is too large for this server; open its OME-Zarr in Neuroglancer"
        )
    neuroglancer.set_server_bind_address("127.0.0.1")
    nanometres = record.acquisition.voxel_size / 10
    space = neuroglancer.CoordinateSpace(names=list("zyx"), units=["nm"] * 3, scales=[nanometres] * 3)
    viewer = neuroglancer.Viewer()
    reach = 3 * record.intensity.spread
    low, high = record.intensity.centre - reach, record.intensity.centre + reach
    with viewer.txn() as state:
        state.dimensions = space
        state.display_dimensions = list("xyz")  # x to the right and y down, as on the page of tlgen browse
        state.cross_section_scale = max(record.shape) / _PIXELS
        state.position = [n / 2 for n in record.shape]
        state.layers["tomogram"] = neuroglancer.ImageLayer(
            source=neuroglancer.LocalVolume(arrays["tomogram"][...], dimensions=space),
            shader="#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }",
            shader_controls={"normalized": {"range": [low, high]}},
        )
        state.layers["instances"] = neuroglancer.SegmentationLayer(
            source=neuroglancer.LocalVolume(
                arrays["instances"][...].astype(np.uint32), dimensions=space, volume_type="segmentation"
            ),
            selected_alpha=0.3,
        )
    _open[:] = [viewer]
    return str(viewer.get_viewer_url())
