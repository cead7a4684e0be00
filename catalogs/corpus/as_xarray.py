"""Opens a corpus in xarray: the volumes and tilts of a sample, and all samples as one lazy tree."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from catalogs.corpus import sample_group, sample_table
from catalogs.corpus.commit import check_complete
from catalogs.schema import Acquisition, SampleRecord
from catalogs.storage.store import Store, zarr_store

if TYPE_CHECKING:
    from xarray.core.indexing import IndexSelResult

#: Volumes that every sample has, with their types, so that no sample need be opened.
_VOLUMES = {"tomogram": np.float32, "classes": np.uint8, "instances": np.uint16}

#: Opens the volumes of a sample by its id; they are sliced like NumPy arrays.
Opener = Callable[[str], Mapping[str, Any]]


def open_volumes(store: Store, record: SampleRecord) -> xr.Dataset:
    """Open the volumes of a sample lazily, over z, y, x in Å."""
    check_complete(store, record)
    opened = zarr_store(store.at(record.path))
    variables = {}
    for name, path in sample_group.volumes_in(sample_group.open_group(store.at(record.path))).items():
        group, _, array = path.rpartition("/")
        variables[name] = _opened(opened, group)[array]
    places = _places(record.shape, record.acquisition.voxel_size)
    return xr.Dataset(variables, coords=places, attrs={"sample_id": record.sample_id, "name": record.name})


def open_tilts(store: Store, record: SampleRecord) -> xr.Dataset:
    """Open the tilt series of a sample lazily."""
    check_complete(store, record)
    return _opened(zarr_store(store.at(record.path)), "tilts")


def tree(samples: pd.DataFrame, open_arrays: Opener, attributes: Mapping[str, Any]) -> xr.DataTree:
    """Open samples as one lazy tree; volumes are read only when their voxels are used.

    Parameters
    ----------
    samples
        The table of samples (:mod:`catalogs.corpus.sample_table`).
    open_arrays
        Opens the volumes of a sample.
    attributes
        Attributes of the root.

    Returns
    -------
    xarray.DataTree
        ``samples``: the table, as made by :func:`catalogs.corpus.sample_table.to_xarray`. A node below
        ``volumes`` for each shape and voxel size: ``tomogram``, ``classes`` and ``instances`` over
        (sample, z, y, x), indexed by the parameters that vary: ``.sel(dose=slice(80, 120), split="train")``.
    """
    nodes: dict[str, xr.Dataset] = {
        "/": xr.Dataset(attrs=dict(attributes)),
        "/samples": sample_table.to_xarray(samples),
    }
    grids = samples[["shape_z", "shape_y", "shape_x", "voxel_size"]]
    for z, y, x, voxel_size in sorted(set(grids.itertuples(index=False, name=None))):
        rows = samples[(grids == (z, y, x, voxel_size)).all(axis=1)]
        node = f"/volumes/{z}x{y}x{x} at {voxel_size:g} Å"
        nodes[node] = _stacked(rows, (int(z), int(y), int(x)), float(voxel_size), open_arrays)
    return xr.DataTree.from_dict(nodes)


def _stacked(
    rows: pd.DataFrame, shape: tuple[int, int, int], voxel_size: float, open_arrays: Opener
) -> xr.Dataset:
    """Stack the volumes of samples of equal shape."""
    ids = [str(sample_id) for sample_id in rows.index]
    dims = ("sample", "z", "y", "x")
    variables = {
        name: xr.Variable(
            dims, indexing.LazilyIndexedArray(_Volumes(name, ids, shape, np.dtype(kind), open_arrays))
        )
        for name, kind in _VOLUMES.items()
    }
    dataset = xr.Dataset(
        variables, coords={"sample": np.asarray(ids, dtype=object), **_places(shape, voxel_size)}
    )
    varying = [name for name in Acquisition.model_fields if rows[name].astype(str).nunique() > 1]
    parameters = sample_table.to_xarray(rows[["name", "split", *varying]])
    coordinates = {name: ("sample", each.to_numpy(), each.attrs) for name, each in parameters.items()}
    return dataset.assign_coords(coordinates).set_xindex(list(coordinates), ParameterIndex)


def _places(shape: Sequence[int], voxel_size: float) -> dict[str, Any]:
    """Return the positions of the voxels along each axis in Å."""
    return {
        axis: (axis, np.arange(n) * voxel_size, {"units": "Å"}) for axis, n in zip("zyx", shape, strict=True)
    }


def _opened(store: Any, group: str) -> xr.Dataset:
    return xr.open_dataset(  # type: ignore[no-untyped-call,unused-ignore]
        store, engine="zarr", group=group, chunks=None, consolidated=False, mask_and_scale=False
    )


class _Volumes(BackendArray):
    """One kind of volume of many samples, (sample, z, y, x); a sample is opened when its voxels are read."""

    def __init__(
        self, name: str, ids: list[str], shape: tuple[int, ...], dtype: np.dtype[Any], open_arrays: Opener
    ) -> None:
        self.shape = (len(ids), *shape)
        self.dtype = dtype
        self._name, self._ids, self._open = name, ids, open_arrays

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        which, *inside = key
        chosen = np.arange(len(self._ids))[which]
        if np.ndim(chosen) == 0:
            return self._voxels(int(chosen), inside)
        parts = [self._voxels(int(number), inside) for number in chosen]
        empty = np.zeros(self.shape[1:], self.dtype)[tuple(inside)][None][:0] if not parts else None
        return empty if empty is not None else np.stack(parts)

    def _voxels(self, number: int, inside: Sequence[Any]) -> NDArray[Any]:
        volume = self._open(self._ids[number])[self._name]
        around: list[Any] = []
        rest: list[Any] = []
        for where in inside:  # for lists of positions, read the box around them and select from it
            if isinstance(where, np.ndarray):
                first = int(where.min()) if len(where) else 0
                around.append(slice(first, int(where.max()) + 1 if len(where) else 0))
                rest.append(where - first)
            else:
                around.append(where)
                rest.append(None)
        found = np.asarray(volume[tuple(around)])
        axis = 0
        for where, place in zip(around, rest, strict=True):
            if place is not None:
                found = np.take(found, place, axis=axis)
            axis += not isinstance(where, int | np.integer)
        return found


class ParameterIndex(xr.Index):
    """Selects samples by their parameters: by one value, by several, or by a slice between two values.

    Values may be in any order and repeat, where a pandas index allows no slices. Several parameters can be
    used at once, which xarray does not allow with one index for each.

    Attributes
    ----------
    dim
        Dimension of the samples.
    values
        Name of each parameter -> its value for each sample.
    """

    def __init__(self, dim: Hashable, values: Mapping[Hashable, NDArray[Any]]) -> None:
        self.dim, self.values = dim, dict(values)

    @classmethod
    def from_variables(
        cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]
    ) -> ParameterIndex:
        """Make the index from coordinates over one dimension."""
        [dim] = {dim for variable in variables.values() for dim in variable.dims}
        return cls(dim, {name: np.asarray(variable.values) for name, variable in variables.items()})

    def create_variables(
        self, variables: Mapping[Any, xr.Variable] | None = None
    ) -> dict[Hashable, xr.Variable]:
        """Make the coordinates of this index's samples, with the attributes of the previous ones."""
        before = {name: variable.attrs for name, variable in (variables or {}).items()}
        return {name: xr.Variable(self.dim, values, before.get(name)) for name, values in self.values.items()}

    def sel(self, labels: dict[Any, Any], method: Any = None, tolerance: Any = None) -> IndexSelResult:
        """Find the samples; with ``method="nearest"`` the one whose value is nearest to a number."""
        if method is not None:
            if method != "nearest" or len(labels) != 1:
                raise ValueError("the only method is nearest, for one parameter at a time")
            [(name, wanted)] = labels.items()
            return indexing.IndexSelResult({self.dim: int(np.abs(self.values[name] - wanted).argmin())})
        fits = np.ones(len(next(iter(self.values.values()))), bool)
        for name, wanted in labels.items():
            those = _fitting(self.values[name], wanted)
            if not isinstance(wanted, slice) and not those.any():
                raise KeyError(f"no sample has {name} = {wanted}")
            fits &= those
        return indexing.IndexSelResult({self.dim: np.flatnonzero(fits)})

    def isel(self, indexers: Mapping[Any, Any]) -> ParameterIndex | None:
        """Return the index of some samples; None for a single one, which needs no selection."""
        where = indexers[self.dim]
        where = where.values if isinstance(where, xr.Variable) else where
        if np.ndim(np.empty(len(next(iter(self.values.values()))))[where]) != 1:
            return None
        return type(self)(self.dim, {name: values[where] for name, values in self.values.items()})

    def equals(self, other: xr.Index, **more: Any) -> bool:
        """Return whether another index is the same."""
        return (
            isinstance(other, ParameterIndex)
            and self.values.keys() == other.values.keys()
            and all(np.array_equal(values, other.values[name]) for name, values in self.values.items())
        )

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> ParameterIndex:
        """Return the index after coordinates or the dimension were renamed."""
        values = {name_dict.get(name, name): each for name, each in self.values.items()}
        return type(self)(dims_dict.get(self.dim, self.dim), values)


def _fitting(values: NDArray[Any], wanted: Any) -> NDArray[np.bool_]:
    """Return which values equal a value, are in a list, or lie in a slice."""
    if isinstance(wanted, slice):
        fits = np.ones(len(values), bool)
        fits &= True if wanted.start is None else values >= wanted.start
        fits &= True if wanted.stop is None else values <= wanted.stop
        return fits
    several = np.asarray(wanted, dtype=object).ravel()
    return np.asarray(
        pd.Series(values).isin([each.item() if hasattr(each, "item") else each for each in several])
    )
