"""``tlgen doctor`` says what is there and how to mend what is not."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from catalogs import machine
from catalogs.errors import InputError
from tlgen.cli import tlgen
from tlgen.commands import doctor
from tlgen.molecules import modes
from tlgen.recipes.recipe import Recipe
from tlgen.runs import recipe_checks
from tlgen.simulate.engine import engine

RECIPE = {
    "name": "r",
    "shape": [16, 32, 32],
    "targets": {"r": {"structures": ["x.pdb"], "count": 2, "variants": {"number": 3}}},
    "acquisition": {"engine": "multislice"},
    "samples": {"train": {"number": 1}},
}


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    from importlib.util import find_spec as real

    for module in (
        "catalogs.machine",
        "tlgen.commands.doctor",
        "tlgen.runs.recipe_checks",
        "tlgen.simulate.parakeet",
    ):
        monkeypatch.setattr(f"{module}.find_spec", lambda name: None if name in packages else real(name))


def test_everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    answer = CliRunner().invoke(tlgen, ["doctor"])
    assert answer.exit_code == 0, answer.output
    for word in ("Python", "oneDNN", "engine multislice", "shared memory", "libraries"):
        assert word in answer.output


def test_what_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "multem", "prody", "tensorflow", "jax", "torch")
    lines = {line.what: line for line in doctor.examine()}
    assert lines["engine parakeet"].mend == "pip install 'template-learning[parakeet]'"
    assert lines["flexible variants"].mend == "pip install 'template-learning[variants]'"
    assert lines["Keras backend"].needed
    assert CliRunner().invoke(tlgen, ["doctor"], standalone_mode=False).return_value == 1


def test_with_jax_alone_a_faster_backend_is_named_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "backends", lambda: {"jax": "0.6"})
    monkeypatch.setattr(doctor, "chosen_backend", lambda: "jax")
    monkeypatch.setattr("tlgen.commands.doctor.shutil.which", lambda name: None)
    lines = {line.what: line for line in doctor.examine()}
    assert lines["training"].mend == "pip install 'template-learning[cpu]'"
    assert not lines["training"].needed
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")  # there is no TensorFlow for it
    assert "training" not in {line.what for line in doctor._backends()}


def test_parts_that_are_not_installed_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    parakeet = engine("parakeet")
    without(monkeypatch, "multem", "prody", "tensorflow", "jax", "torch")
    with pytest.raises(InputError, match=r"template-learning\[variants\]"):
        recipe_checks.check_recipe(Recipe.model_validate(RECIPE))
    assert "number: 0" in modes.NEEDS_PRODY
    from catalogs.schema import Acquisition

    with pytest.raises(InputError, match=r"template-learning\[parakeet\]"):
        parakeet.check(Acquisition(engine="parakeet"))
    with pytest.raises(InputError, match=r"template-learning\[cpu\]"):
        machine.require_backend()


def test_keras_computes_with_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalogs.machine.find_spec", lambda name: True if name == "torch" else None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    machine.prefer_installed_backend()
    assert machine.os.environ["KERAS_BACKEND"] == "jax"  # the user has chosen
    monkeypatch.delenv("KERAS_BACKEND")
    machine.prefer_installed_backend()
    assert machine.os.environ["KERAS_BACKEND"] == "torch"
    monkeypatch.delenv("KERAS_BACKEND")
