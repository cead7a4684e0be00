"""DeepFinder's weights, in and out; models for the wrong task."""

import sys

import h5py
import numpy as np
import pytest

import tltrain
from catalogs.errors import InputError
from catalogs.model_file import read_card, with_card
from catalogs.schema import ClassInfo
from tlpick.network.keras_network import load_keras
from tltrain.networks.architectures import architecture
from tltrain.networks.deepfinder_weights import (
    classes_with,
    import_deepfinder,
    radii_of,
    read_deepfinder,
    write_deepfinder,
)

#: All layers of DeepFinder's model in the order and with the names that Keras 2 gives them in a first model,
#: and how many arrays each has.
LAYERS = [
    ("input_1", 0), ("conv3d", 2), ("conv3d_1", 2), ("max_pooling3d", 0), ("conv3d_2", 2), ("conv3d_3", 2),
    ("max_pooling3d_1", 0), ("conv3d_4", 2), ("conv3d_5", 2), ("conv3d_6", 2), ("conv3d_7", 2),
    ("up_sampling3d", 0), ("conv3d_8", 2), ("concatenate", 0), ("conv3d_9", 2), ("conv3d_10", 2),
    ("up_sampling3d_1", 0), ("conv3d_11", 2), ("concatenate_1", 0), ("conv3d_12", 2), ("conv3d_13", 2),
    ("conv3d_14", 2),
]  # fmt: skip


@pytest.fixture(scope="module")
def deepfinder():
    network = architecture("deepfinder").build(4, 3)
    rng = np.random.default_rng(0)
    network.set_weights([rng.standard_normal(w.shape).astype(np.float32) / 10 for w in network.weights])
    return network


def write_keras2(path, arrays, *, whole=True, chunked=False):
    """Write a file as Keras 2 does: ``model.save`` of a whole model, or ``model.save_weights``."""
    left = iter(arrays)
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        if whole:
            file.attrs["model_config"] = b'{"class_name": "Functional"}'
            file.create_group("optimizer_weights").attrs["weight_names"] = [b"Adam/iter:0"]
        names = np.array([name.encode() for name, _ in LAYERS])
        if chunked:
            root.attrs["layer_names0"], root.attrs["layer_names1"] = names[:9], names[9:]
        else:
            root.attrs["layer_names"] = names
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.13.1"
        for name, n in LAYERS:
            group = root.create_group(name)
            words = [f"{name}/{word}:0" for word in ("kernel", "bias")[:n]]
            group.attrs["weight_names"] = np.array([word.encode() for word in words]) if n else np.array([])
            for word in words:
                group.create_dataset(word, data=next(left))


def test_weights_that_lie_elsewhere_or_are_made_to_fill_the_memory(deepfinder, tmp_path):
    weights = deepfinder.get_weights()
    write_keras2(tmp_path / "sound.h5", weights)
    (tmp_path / "secret").write_bytes(bytes(10**5))

    def changed(name, change):
        path = tmp_path / name
        path.write_bytes((tmp_path / "sound.h5").read_bytes())
        with h5py.File(path, "r+") as file:
            group = file["model_weights/conv3d/conv3d"]
            del group["bias:0"]
            change(group)
        return path

    raw = [(str(tmp_path / "secret"), 0, 10**5)]
    elsewhere = {
        "raw": lambda group: group.create_dataset("bias:0", shape=(32,), dtype="f4", external=raw),
        "link": lambda group: group.__setitem__("bias:0", h5py.ExternalLink("sound.h5", "/x")),
    }
    for name, change in elsewhere.items():
        with pytest.raises(InputError, match=rf"{name}\.h5 has its weights in other files"):
            read_deepfinder(changed(f"{name}.h5", change))
    packed = {"compression": "gzip", "chunks": (10**6,)}
    bombs = {
        "packed": lambda group: group.create_dataset("bias:0", shape=(10**9,), dtype="f4", **packed),
        "empty": lambda group: group.create_dataset("bias:0", shape=(10**9,), dtype="f4"),
    }
    for name, change in bombs.items():
        with pytest.raises(InputError, match=rf"{name}\.h5 holds weights that Keras does not write"):
            read_deepfinder(changed(f"{name}.h5", change))


@pytest.mark.parametrize("layout", [{}, {"whole": False}, {"chunked": True}])
def test_deepfinders_files_are_read(deepfinder, tmp_path, layout):
    path = tmp_path / "net_weights_FINAL.h5"
    write_keras2(path, deepfinder.get_weights(), **layout)
    for a, b in zip(read_deepfinder(path), deepfinder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_imported_it_predicts_the_same_and_exported_it_is_as_it_was(deepfinder, tmp_path):
    source, model, out = (tmp_path / name for name in ("in.h5", "m.tlm", "out.h5"))
    write_keras2(source, deepfinder.get_weights())
    classes = classes_with(radii_of("ribosome:108, proteasome:62,fas:110"))
    card = import_deepfinder(source, model, classes, 10.0)
    assert read_card(model) == card
    assert [(c.name, c.label, c.radius) for c in card.classes] == [
        ("ribosome", 1, 108),
        ("proteasome", 2, 62),
        ("fas", 3, 110),
    ]
    assert (card.n_parameters, card.pooling, card.halo) == (902_928 + 33 * 4, 4, 36)
    network = load_keras(model, classes=classes, voxel_size=10.0)
    grey = np.random.default_rng(1).standard_normal((1, 16, 16, 16, 1), np.float32)
    np.testing.assert_array_equal(np.asarray(network(grey)), np.asarray(deepfinder(grey)))
    write_deepfinder(out, network)
    for a, b in zip(read_deepfinder(out), deepfinder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)

    radii = {"ribosome": 108.0, "proteasome": 62.0, "fas": 110.0}
    made = tltrain.import_deepfinder(source, tmp_path / "python.tlm", radii, 10.0, contrast="bright")
    assert made.card.contrast == "bright"
    assert made.card.classes == card.classes
    tltrain.export_deepfinder(made, tmp_path / "python.h5")
    assert (tmp_path / "python.h5").read_bytes() == out.read_bytes()
    with pytest.raises(InputError, match="names 2"):
        tltrain.import_deepfinder(source, tmp_path / "n.tlm", {"a": 80.0, "b": 90.0}, 10.0)


def test_keras_loads_what_is_exported_into_a_network_of_its_own(deepfinder, tmp_path):
    """As DeepFinder does, ``net.load_weights``: its reader of Keras 2's files goes by the order of layers."""
    from keras import Input, Model, layers

    def conv(x, width, size=3, activation="relu"):
        return layers.Conv3D(width, size, padding="same", activation=activation)(x)

    entry = Input((8, 8, 8, 1))
    high = conv(conv(entry, 32), 32)
    middle = conv(conv(layers.MaxPooling3D(2)(high), 48), 48)
    x = layers.MaxPooling3D(2)(middle)
    for _ in range(4):
        x = conv(x, 64)
    x = layers.concatenate([conv(layers.UpSampling3D(2)(x), 64, 2), middle])
    x = conv(conv(x, 48), 48)
    x = layers.concatenate([conv(layers.UpSampling3D(2)(x), 48, 2), high])
    theirs = Model(entry, conv(conv(conv(x, 32), 32), 4, 1, "softmax"))
    write_deepfinder(tmp_path / "out.weights.h5", deepfinder)
    with h5py.File(tmp_path / "out.weights.h5") as file:
        assert file["conv3d_3/conv3d_3/kernel:0"].shape == (3, 3, 3, 48, 48)
        from keras.src.legacy.saving import legacy_h5_format

        legacy_h5_format.load_weights_from_hdf5_group(file, theirs)
    grey = np.random.default_rng(1).standard_normal((1, 8, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(np.asarray(theirs(grey)), np.asarray(deepfinder(grey)))


def test_what_are_not_its_weights_is_refused(deepfinder, tmp_path):
    weights = deepfinder.get_weights()
    with pytest.raises(InputError, match=r"nowhere\.h5 cannot be read: there is no such file"):
        read_deepfinder(tmp_path / "nowhere.h5")
    text = tmp_path / "text.h5"
    text.write_text("weights")
    with pytest.raises(InputError, match="it is not HDF5"):
        read_deepfinder(text)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["dataset"] = np.zeros(3)
    with pytest.raises(InputError, match="not weights as Keras 2 writes them"):
        read_deepfinder(path)
    write_keras2(path, [w[..., :1] for w in weights])
    with pytest.raises(InputError, match="not the weights of DeepFinder's network"):
        read_deepfinder(path)
    write_keras2(path, weights)
    with pytest.raises(InputError, match="is for 3 classes and the background, `classes` names 2"):
        import_deepfinder(path, tmp_path / "m.tlm", classes_with(radii_of("a:1,b:2")), 10.0)
    with pytest.raises(InputError, match="`voxel_size` is -1"):
        import_deepfinder(path, tmp_path / "m.tlm", classes_with(radii_of("a:1,b:2,c:3")), -1)
    with pytest.raises(InputError, match="there is no folder"):
        import_deepfinder(path, tmp_path / "no" / "m.tlm", classes_with(radii_of("a:1,b:2,c:3")), 10.0)
    with pytest.raises(InputError, match=r"only the network deepfinder .* this one is small"):
        write_deepfinder(tmp_path / "out.h5", architecture("small").build(2, 0))
    assert not (tmp_path / "m.tlm").exists()


@pytest.mark.parametrize("text", ["ribosome", "ribosome:", "ribosome:large", "a_b:10", "a:10,,b:10", "a:-1"])
def test_classes_that_cannot_be_read_are_named(text):
    with pytest.raises(InputError, match=r"`classes` has .*; give name:radius"):
        classes_with(radii_of(text))
    with pytest.raises(InputError, match="names a class twice"):
        classes_with(radii_of("a:1,a:2"))


def test_a_model_does_not_load_silently_into_the_wrong_task(deepfinder, tmp_path):
    source, model = tmp_path / "in.h5", tmp_path / "m.tlm"
    write_keras2(source, deepfinder.get_weights())
    classes = classes_with(radii_of("a:10,b:20,c:30"))
    card = import_deepfinder(source, model, classes, 10.0)
    with pytest.raises(InputError, match=r"m\.tlm finds a \(1\), b \(2\), c \(3\), wanted is a \(1\)"):
        load_keras(model, classes=classes[:1])
    with pytest.raises(InputError, match="for voxels of 10 Å, the tomograms have 13"):
        load_keras(model, voxel_size=13)
    with_card(model, card.model_copy(update={"classes": [ClassInfo(name="a", label=1, radius=10)]}), model)
    with pytest.raises(InputError, match="has 4 outputs, its card names 1 classes"):
        load_keras(model)


def test_by_the_commands(deepfinder, tmp_path, monkeypatch, capsys):
    from tltrain.cli import main

    def tltrain(*arguments):
        monkeypatch.setattr(sys, "argv", ["tltrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, capsys.readouterr()

    source, model, out = (tmp_path / name for name in ("in.h5", "m.keras", "out.h5"))
    write_keras2(source, deepfinder.get_weights())
    status, said = tltrain(
        *("import", source, "--classes", "a:10,b:20,c:30", "--voxel-size", 10, "--to", model)
    )
    assert (status, said.out) == (0, f"wrote {model}: deepfinder for a, b, c\n")
    status, said = tltrain(
        *("import", source, "--classes", "a:10,b:2,c:30", "--voxel-size", 1, "--to", tmp_path / "nm.tlm")
    )
    assert status == 2
    assert "the voxel size of the model is 1 Å" in said.err
    assert "the radius of b in the model is 2 Å: complexes have radii of 20 to 500 Å; is it in nm" in said.err
    assert said.err.endswith("if this is meant, add --yes\n")
    assert not (tmp_path / "nm.tlm").exists()
    meant = ("--classes", "a:10,b:2,c:30", "--voxel-size", 1, "--to", tmp_path / "nm.tlm", "--yes")
    assert tltrain("import", source, *meant)[0] == 0
    status, said = tltrain("info", model)
    assert status == 0
    assert "m: segmentation of tomograms of 10 Å a voxel, protein dark" in said.out
    assert f"weights      {source}" in said.out
    status, said = tltrain("export", model, "--to", out)
    assert (status, said.out) == (0, f"wrote {out}\n")
    assert len(read_deepfinder(out)) == 30
    status, said = tltrain("export", source, "--to", out)
    assert status == 2
    assert "not a model file" in said.err
