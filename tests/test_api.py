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
    "tlgen": {"load_recipe", "Recipe", "pack", "make"},
    "tltrain": {"fit", "fine_tune"},
    "tlpick": {"load_model", "Model", "pick_many", "score"},
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
                    path.name in ("command.py", "console.py", "options.py", "run_options.py")
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
