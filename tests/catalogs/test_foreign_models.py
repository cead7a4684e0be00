"""Model files that somebody made to run code, to read files or to fill the memory: refused, unopened."""

from __future__ import annotations

import io
import json
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from catalogs import model_file
from catalogs.errors import InputError
from catalogs.model_archive import ModelRefused
from catalogs.schema import ClassInfo

CONV: dict[str, Any] = {
    "module": "keras.layers",
    "class_name": "Conv3D",
    "config": {"name": "conv", "filters": 2, "kernel_size": [3, 3, 3], "strides": [1, 1, 1]},
    "registered_name": None,
}
CARD: dict[str, Any] = {
    "format_version": 2,
    "name": "demo",
    "created": "2026-01-01T00:00:00+00:00",
    "voxel_size": 8.0,
    "classes": [{"name": "ribosome", "label": 1, "radius": 130.0}],
    "normalisation": "robust-clip6",
    "network": "small",
    "n_parameters": 56,
    "pooling": 1,
    "halo": 1,
    "patch": 16,
    "thresholds": {},
    "training": {},
    "provenance": {},
}


def network(*layers: dict[str, Any]) -> bytes:
    model = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {"layers": [*layers]},
    }
    return json.dumps(model).encode()


def weights(change: Callable[[h5py.File], object] = lambda _: None) -> bytes:
    raw = io.BytesIO()
    with h5py.File(raw, "w") as file:
        file["layers/conv/vars/0"] = np.random.default_rng(0).normal(size=(3, 3, 3, 1, 2)).astype(np.float32)
        file["layers/conv/vars/1"] = np.zeros(2, np.float32)
        change(file)
    return raw.getvalue()


def write(file: Path, *, method: int = zipfile.ZIP_STORED, **parts: bytes | None) -> Path:
    """Write a model; ``parts`` replace members, None leaves one out."""
    content: dict[str, bytes | None] = {
        "card.json": json.dumps(CARD).encode(),
        "metadata.json": b"{}",
        "config.json": network(CONV),
        "model.weights.h5": weights(),
    } | {{"card": "card.json", "config": "config.json", "h5": "model.weights.h5"}.get(k, k): v for k, v in parts.items()}  # fmt: skip  # noqa: E501
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)
    return file


def card(**changes: Any) -> bytes:
    return json.dumps(CARD | changes).encode()


def test_a_sound_one_is_taken(tmp_path: Path) -> None:
    model_file.check(write(tmp_path / "m.tlm"))


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {"module": "x"}}},
        {"module": "keras.src.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp/evil"}},
        {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "x"}},
        {"module": "os", "class_name": "system", "config": "touch /tmp/pwned"},
        {"module": "builtins", "class_name": "eval", "config": "1"},
        {"module": "builtins", "class_name": "function", "config": "exec"},
        {"module": "subprocess", "class_name": "Popen", "config": ["id"]},
        {"module": "kerasx.layers", "class_name": "Conv3D", "config": {}},
        {"class_name": "__lambda__", "config": {"value": "AA=="}},
        {"module": "keras.layers", "class_name": "Conv3D", "config": {
            "activation": {"module": "os", "class_name": "system", "config": "id"}}},
        {"module": "keras.layers", "class_name": "Conv3D", "config": {}, "build_config": {
            "deep": [[{"module": "shutil", "class_name": "rmtree", "config": {}}]]}},
    ],
)  # fmt: skip
def test_code_is_refused(tmp_path: Path, layer: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused, match=r"m\.tlm asks for code that no network needs \(.*\); nothing"):
        model_file.check(write(tmp_path / "m.tlm", config=network(CONV, layer)))


def external(file: h5py.File) -> None:
    file.create_dataset("layers/x", shape=(10,), dtype="u1", external=[("/etc/passwd", 0, 10)])


def linked(file: h5py.File) -> None:
    file["layers/x"] = h5py.ExternalLink("/etc/passwd", "/")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", shape=(4,))
    file.create_virtual_dataset("layers/x", layout)


def zeros(file: h5py.File) -> None:
    file.create_dataset("layers/x", shape=(400_000_000,), dtype="f4", compression="gzip", chunks=(4_000_000,))


def packed(file: h5py.File) -> None:
    file.create_dataset("layers/x", data=np.zeros(64, np.float32), compression="gzip", chunks=(64,))
    file["layers/x"].id.write_direct_chunk((0,), zlib.compress(bytes(8 << 20)))


def loop(file: h5py.File) -> None:
    for k in range(30):
        file[f"layers/again{k}"] = file["layers"]


@pytest.mark.parametrize("change", [external, linked, virtual, zeros, packed, loop])
def test_weights_elsewhere_or_without_end(tmp_path: Path, change: Callable[[h5py.File], object]) -> None:
    with pytest.raises(ModelRefused, match=r"the weights in .*m\.tlm"):
        model_file.check(write(tmp_path / "m.tlm", h5=weights(change)))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"filters": 10**9}, "channels"),
        ({"kernel_size": [100_000] * 3}, "kernel_size of"),
        ({"kernel_size": [1000] * 3}, "channels"),
        ({"strides": [10**9] * 3}, "strides of"),
        ({"filters": -5}, "channels"),
    ],
)
def test_layers_that_their_weights_do_not_fit(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    layer = CONV | {"config": CONV["config"] | config}
    with pytest.raises(ModelRefused, match=says):
        model_file.check(write(tmp_path / "m.tlm", config=network(layer)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"halo": 10**9}, "halo"),
        ({"pooling": 10**9}, "pooling"),
        ({"patch": 0}, "patch"),
        ({"voxel_size": 1e300}, "voxel_size"),
        ({"classes": [{"name": "ribosome", "label": 1, "radius": 1e300}]}, "classes.0.radius"),
        ({"n_parameters": 10**12}, "is of another network"),
        ({"n_parameters": -1}, "n_parameters"),
    ],
)
def test_cards_that_no_network_has(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        model_file.check(write(tmp_path / "m.tlm", card=card(**changes)))


@pytest.mark.parametrize(
    "parts",
    [
        {"card": b"[" * 200_000},
        {"config": b"[" * 200_000},
        {"config": b'{"a":' * 100_000},
        {"config": b"\xff\xfe"},
        {"config": None},
        {"h5": None},
        {"h5": b"no HDF5"},
        {"card": None},
        {"card": b"null"},
        {"card": b" " * ((64 << 20) + 1)},
        {"network.keras": b"no zip"},
    ],
)
def test_odd_parts(tmp_path: Path, parts: dict[str, bytes | None]) -> None:
    with pytest.raises(InputError) as refused:
        model_file.check(write(tmp_path / "m.tlm", **parts))
    assert "m.tlm" in str(refused.value)
    assert "\n" not in str(refused.value)


def patched(file: Path, offset: int, value: bytes) -> Path:
    """Change a field of the headers of all entries: offset in the local one, two more in the central one."""
    data = bytearray(file.read_bytes())
    for mark, more in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = data.find(mark)
        while at >= 0:
            data[at + offset + more : at + offset + more + len(value)] = value
            at = data.find(mark, at + 4)
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (6, struct.pack("<H", 1)),
        (8, struct.pack("<H", 99)),
        (8, struct.pack("<H", 9)),
        (8, struct.pack("<H", 14)),
    ],
)
def test_encrypted_and_unknown_methods(tmp_path: Path, offset: int, value: bytes) -> None:
    with pytest.raises(InputError, match=r"m\.tlm"):
        model_file.read_card(patched(write(tmp_path / "m.tlm"), offset, value))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("part", ["card", "h5", "network.keras", "other"])
def test_bombs(tmp_path: Path, part: str, method: int) -> None:
    bomb = write(tmp_path / "m.tlm", method=method, **{part: b"\0" * (40 << 20)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"m\.tlm"):
        model_file.check(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 25_000  # kB


def test_classes_of_a_card_are_bounded() -> None:
    with pytest.raises(ValueError, match="radius"):
        ClassInfo(name="x", label=1, radius=float("inf"))
