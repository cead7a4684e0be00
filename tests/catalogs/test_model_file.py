from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path

import pytest

from catalogs import model_file
from catalogs.errors import InputError
from catalogs.model_file import ModelCard
from catalogs.schema import ClassInfo


@pytest.fixture
def card(classes: list[ClassInfo]) -> ModelCard:
    return ModelCard(
        name="demo",
        created="2026-01-01T00:00:00+00:00",
        voxel_size=8.0,
        contrast="dark",
        classes=classes,
        normalisation="robust-clip6",
        network="small",
        n_parameters=1234,
        pooling=4,
        halo=36,
        patch=56,
        thresholds={"ribosome": 0.5, "fas": 0.4},
        training={"steps": 100},
        provenance={"corpus": "memory://x", "samples": ["a"]},
    )


def archive(weights: bytes) -> bytes:
    """Make what looks like a Keras archive."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as members:
        members.writestr("config.json", "{}")
        members.writestr("model.weights.h5", weights)
    return raw.getvalue()


def weights(file: Path) -> bytes:
    with zipfile.ZipFile(file) as members:
        assert sorted(members.namelist()) == ["config.json", "model.weights.h5"]
        return members.read("model.weights.h5")


def test_round_trip(tmp_path: Path, card: ModelCard) -> None:
    file = tmp_path / "models" / "m.tlm"
    model_file.write_model(file, card, archive(b"keras bytes"))
    assert model_file.read_card(file) == card
    network = model_file.read_network(file, tmp_path)
    assert network == tmp_path / "network.keras"
    assert weights(network) == b"keras bytes"
    assert [entry.name for entry in file.parent.iterdir()] == ["m.tlm"]


def test_fingerprint_speaks_of_the_contents_only(
    tmp_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_file.write_model(tmp_path / "a.tlm", card, archive(b"1"))
    tomorrow = time.localtime(time.time() + 86400)
    monkeypatch.setattr(time, "localtime", lambda *_: tomorrow)  # where zipfile looks
    model_file.write_model(tmp_path / "b.tlm", card, archive(b"1"))
    model_file.write_model(tmp_path / "c.tlm", card, archive(b"2"))
    a, b, c = (model_file.fingerprint(tmp_path / f"{name}.tlm") for name in "abc")
    assert a == b != c


def test_a_failed_write_leaves_the_old_model(tmp_path: Path, card: ModelCard) -> None:
    file = tmp_path / "m.tlm"
    model_file.write_model(file, card, archive(b"old"))
    for wrong in (b"", b"new", archive(b"new")[:-1]):
        with pytest.raises(ValueError, match="not a Keras archive"):
            model_file.write_model(file, card, wrong)
    assert weights(model_file.read_network(file, tmp_path)) == b"old"
    assert {entry.name for entry in tmp_path.iterdir()} == {"m.tlm", "network.keras"}


def _with_card(file: Path, text: str) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("card.json", text)
    return file


def test_refuses_what_is_no_model(tmp_path: Path, card: ModelCard) -> None:
    file = tmp_path / "m.tlm"
    for read in (model_file.read_card, model_file.fingerprint):
        with pytest.raises(InputError, match="there is no model"):
            read(file)
    file.write_text("not a zip")
    with pytest.raises(InputError, match="not a model file"):
        model_file.read_card(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(InputError, match="not a model file"):
        model_file.read_card(file)
    good = json.loads(card.model_dump_json())
    with pytest.raises(InputError, match=r"damaged \(voxel_size"):
        model_file.read_card(_with_card(file, json.dumps({**good, "voxel_size": -1})))
    for future in ({**good, "format_version": 99}, {"format_version": 99, "new": 1}):
        with pytest.raises(InputError, match="format version 99"):
            model_file.read_card(_with_card(file, json.dumps(future)))


def test_a_flipped_bit_is_noticed(tmp_path: Path, card: ModelCard) -> None:
    file = tmp_path / "m.tlm"
    model_file.write_model(file, card, archive(b"N" * 1000))
    data = bytearray(file.read_bytes())
    data[data.index(b"NNNN") + 10] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged"):
        model_file.read_network(file, tmp_path)


def test_keras_alone_opens_it(tmp_path: Path, card: ModelCard) -> None:
    import keras
    import numpy as np

    entry = keras.Input((4,))
    network = keras.Model(entry, keras.layers.Dense(2)(entry))
    network.save(tmp_path / "plain.keras")
    file = tmp_path / "model.keras"
    model_file.write_model(file, card, (tmp_path / "plain.keras").read_bytes())
    opened = keras.saving.load_model(file)
    np.testing.assert_array_equal(opened.get_weights()[0], network.get_weights()[0])
    again = keras.saving.load_model(model_file.read_network(file, tmp_path))
    np.testing.assert_array_equal(again.get_weights()[0], network.get_weights()[0])
    with pytest.raises(
        InputError, match=r"plain.keras is a Keras network, but it does not state its classes"
    ):
        model_file.read_card(tmp_path / "plain.keras")


def test_files_of_version_1_are_read_and_become_version_2(tmp_path: Path, card: ModelCard) -> None:
    old = json.loads(card.model_dump_json())
    del old["task"]
    old["format_version"] = 1
    file, network = tmp_path / "old.tlm", archive(b"weights")
    with zipfile.ZipFile(file, "w") as members:
        members.writestr("card.json", json.dumps(old))
        members.writestr("network.keras", network)
    read = model_file.read_card(file)
    assert read == card.model_copy(update={"format_version": 1})
    assert model_file.read_network(file, tmp_path).read_bytes() == network
    model_file.with_card(file, read.model_copy(update={"name": "new"}), file)
    assert model_file.read_card(file) == card.model_copy(update={"name": "new"})
    assert weights(model_file.read_network(file, tmp_path)) == b"weights"


def test_a_model_of_another_task_is_refused(card: ModelCard) -> None:
    model_file.require(card, "m.tlm", classes=card.classes[::-1], voxel_size=8.01, network="small")
    other = [info.model_copy(update={"label": info.label + 1}) for info in card.classes]
    for wanted, message in (
        ({"classes": other}, r"m\.tlm finds .*, wanted is "),
        ({"voxel_size": 10.0}, r"for voxels of 8 Å, the tomograms have 10 Å"),
        ({"network": "deepfinder"}, r"holds the network small, wanted is deepfinder"),
    ):
        with pytest.raises(InputError, match=message):
            model_file.require(card, "m.tlm", **wanted)  # type: ignore[arg-type]
