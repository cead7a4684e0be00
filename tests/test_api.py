"""What the packages export, what importing them costs, and who may print."""

from __future__ import annotations

import ast
import importlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import catalogs
from catalogs.errors import InputError

ROOT = Path(catalogs.__file__).parents[1]
PACKAGES = ("catalogs", "tlrun", "tlgen", "tltrain", "tlpick")
#: Names that a user of the documentation imports.
NAMES = {
    "catalogs": {"Catalog", "Volume", "open_volume", "particles", "Acquisition", "InputError"},
    "tlgen": {"load_recipe", "Recipe", "pack", "plan", "make", "match"},
    "tltrain": {"fit", "fine_tune"},
    "tlpick": {"load_model", "Model", "pick_many", "score", "convert", "select"},
}
HEAVY = {"numpy", "pandas", "tensorflow", "keras", "dask", "distributed", "zarr", "scipy", "numba", "prody"}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("package", NAMES)
def test_everything_that_is_exported_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) >= NAMES[package]
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


@pytest.mark.parametrize("package", NAMES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    program = f"import sys, {package}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(loaded.stdout.split())


@pytest.mark.parametrize("package", NAMES)
def test_importing_a_package_is_quick(package: str) -> None:
    program = (
        f"import time; start = time.process_time()\nimport {package}\nprint(time.process_time() - start)"
    )
    seconds = min(
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout)
        for _ in range(3)
    )
    assert seconds < 0.3


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_types(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_only_command_lines_print() -> None:
    """Modules with commands or options may; all others report through ``progress`` and ``logging``."""
    wrong = []
    for path in sources():
        tree = ast.parse(path.read_text())
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        command_line = {"click.command", "click.option", "click.argument", "click.group"} & set(calls)
        for_command_line = path.parent.name == "commands" or path.name == "console.py"
        if "click" in names and not (command_line or for_command_line):
            wrong.append(f"{path.relative_to(ROOT)} imports click")
        printing = "print" in calls and 'if __name__ == "__main__":' not in path.read_text()
        if printing:
            wrong.append(f"{path.relative_to(ROOT)} prints")
    assert wrong == []


def test_libraries_name_parameters_and_no_flags() -> None:
    """A user of Python is never told to add ``--rescale``; command lines write their flags instead."""
    wrong = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("InputError", "_log.warning")):
                text = re.sub(r"tl(gen|train|pick) [^;]*", "", ast.unparse(node))  # a command may be named
                command_line = (
                    path.name in ("command.py", "console.py")
                    or path.name.startswith("cli")
                    or "commands" in path.parts
                )
                if re.search(r"(?<![\w-])--[a-z]", text) and not command_line:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {text[:100]}")
    assert wrong == []


def test_an_input_error_knows_its_parameter() -> None:
    error = InputError("a.mrc does not state its voxel size; give it with `voxel_size`, in Å")
    assert isinstance(error, ValueError)
    assert error.parameter == "voxel_size"
    assert InputError("no such file").parameter is None
    assert InputError("no such file", parameter="volume").parameter == "volume"
    travelled = pickle.loads(pickle.dumps(InputError("wrong", parameter="to")))
    assert (str(travelled), travelled.parameter) == ("wrong", "to")


class Called(Exception):
    """A function of the API was called, and how."""

    def __init__(self, *args: object, **words: object) -> None:
        super().__init__(*args)
        self.words = words


@pytest.mark.parametrize(
    ("function", "command", "words"),
    [
        (
            "tlgen.api.make",
            "tlgen run demo --to c --retries 1 --time-limit 2",
            {"retries": 1, "time_limit": 120},
        ),
        (
            "tlgen.api.reconstruct_series",
            "tlgen reconstruct a.mrc --angles a.tlt --to b.mrc --bin 2",
            {"bin": 2},
        ),
        ("tlgen.api.open_scene", "tlgen view scene --to s.png", {}),
        (
            "tlgen.api.plan",
            "tlgen plan demo --to c --cluster local:2 --price 0.05/core-hour --budget 3",
            {"cluster": "local:2", "price": "0.05/core-hour", "budget": 3.0},
        ),
        ("tlgen.api.pack", "tlgen pack demo --to scene --sample train-001", {}),
        ("tlgen.api.match", "tlgen match a.mdoc --to mine.yaml --voxel-size 8", {"voxel_size": 8.0}),
        ("tlgen.api.write_variants", "tlgen variants demo --to v", {}),
        ("tlgen.api.fetch_structures", "tlgen fetch demo --to f", {}),
        ("tltrain.api.fit", "tltrain fit c --to m.tlm --overwrite", {"overwrite": True, "yes": False}),
        (
            "tltrain.api.fine_tune",
            "tltrain finetune m.tlm -t a.mrc -p a.star --class 80S=ribosome --held-out a",
            {"classes": {"80S": "ribosome"}, "held_out": ("a",)},
        ),
        ("tltrain.api.learning_curve", "tltrain finetune m.tlm -t a.mrc -p a.star --learning-curve 0,5", {}),
        (
            "tlpick.api.pick_many",
            "tlpick run m.tlm a.mrc --to p --fdr 0.1 --max-memory 4GiB --decoys off --tta 4 --workers 3",
            {"fdr": 0.1, "max_memory": 2.0**32, "decoys": 0, "tta": 4, "cluster": "local:3"},
        ),
        (
            "tlpick.api.score",
            "tlpick score p c --radius 80 --join a=b",
            {"report": True, "radius": 80.0, "join": {"a": "b"}},
        ),
        ("tlpick.api.select", "tlpick select p --to s.star --top 5", {"fdr": None, "top": 5}),
        ("tlpick.api.mask", "tlpick mask p --to m", {}),
        ("tlpick.api.report", "tlpick report p", {}),
        ("tlpick.api.check", "tlpick check m.tlm a.mrc --rescale", {}),
        (
            "tlpick.api.convert",
            "tlpick convert a.star b.tbl --shape 4,5,6 --radius a=80 --pixels b --from-centre picker",
            {
                "shape": (4, 5, 6),
                "radii": {"a": 80.0},
                "of_source": {"centre": "picker", "in_pixels": False},
                "of_target": {"centre": None, "in_pixels": True},
            },
        ),
        (
            "tltrain.api.import_deepfinder",
            "tltrain import w.h5 --classes a:80,b:40 --voxel-size 10 --to m.tlm",
            {"contrast": "dark"},
        ),
        ("tltrain.api.export_deepfinder", "tltrain export m.tlm --to w.h5", {}),
        (
            "tlpick.api.calibrate",
            "tlpick calibrate m.tlm c --to n.tlm",
            {"to": "n.tlm", "where": "split == 'val'"},
        ),
    ],
)
def test_a_command_calls_what_python_users_call(
    monkeypatch: pytest.MonkeyPatch, function: str, command: str, words: dict[str, object]
) -> None:
    module, _, name = function.rpartition(".")

    def called(*args: object, **given: object) -> None:
        raise Called(*args, **given)

    monkeypatch.setattr(importlib.import_module(module), name, called)
    program, *arguments = command.split()
    group = getattr(importlib.import_module(f"{program}.cli"), program)
    with pytest.raises(Called) as how:
        group.main(arguments, standalone_mode=False)
    assert words.items() <= how.value.words.items()


def test_two_wishes_for_the_same_picks_are_refused() -> None:
    import tlpick

    with pytest.raises(InputError, match="`fdr` and `top` all say which picks are kept"):
        tlpick.pick_many("m.tlm", "a.mrc", "picks", fdr=0.1, top=5)
    with pytest.raises(InputError, match=r"`fdr=1\.5` is not a share"):
        tlpick.pick_many("m.tlm", "a.mrc", "picks", fdr=1.5)
    with pytest.raises(InputError, match="`join` is for comparisons with `report=True`"):
        tlpick.score("a.star", "b.star", join={"a": "b"})
    with pytest.raises(InputError, match="`report` takes the radii of the run"):
        tlpick.score("a.star", "b.star", radii={"a": 1.0}, report=True)
