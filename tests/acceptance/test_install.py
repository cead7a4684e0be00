"""The base package installs from wheels alone, and does the whole job without Parakeet and ProDy."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).parents[2]
UV = TOP / ".tools" / "bin" / "uv"
RECIPE = {
    "name": "tiny",
    "shape": [16, 32, 32],
    "targets": {"blob": {"structures": ["blob.pdb"], "count": 3, "variants": {"number": 0}}},
    "distractors": [],
    "acquisition": {"engine": "multislice", "voxel_size": 10, "tilt_range": 40, "tilt_step": 20},
    "samples": {"train": {"number": 1}, "check": {"number": 1, "split": "val"}},
}


def run(*words: str | Path, status: int = 0) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, timeout=1500, check=False, env=clean
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def benchmark() -> Any:
    """Load benchmarks/install.py, which resolves for other platforms."""
    folder = TOP / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_install", folder / "install.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not UV.exists(), reason="needs the uv that scripts/setup.sh installs")
@pytest.mark.parametrize("extra", ["", "cpu"])
def test_every_dependency_has_a_wheel_on_every_platform(extra: str) -> None:
    install = benchmark()
    assert set(install.PLATFORMS) == {"Linux x86-64", "Linux aarch64", "macOS arm64", "macOS x86-64"}
    for platform in install.PLATFORMS:
        for python in install.PYTHONS:
            why = install.lacking(platform, python, extra)
            if any(word in why for word in ("Failed to fetch", "error sending request", "Could not connect")):
                pytest.skip("no package index can be reached")
            assert not why, f"{platform}, Python {python}, {extra or 'base'}: {why}"


@pytest.mark.skipif(not UV.exists(), reason="needs the uv that scripts/setup.sh installs")
def test_a_dependency_without_wheels_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a project that has one, in a folder of its own; nothing is asked from an index."""
    install = benchmark()
    text = '[project]\nname = "x"\nversion = "1"\ndependencies = ["nothing-of-that-name"]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.setattr(install, "TOP", tmp_path)
    monkeypatch.setenv("UV_OFFLINE", "1")
    assert "nothing-of-that-name" in install.lacking("macOS arm64", "3.12", "")


@pytest.mark.slow
@pytest.mark.skipif(not UV.exists(), reason="needs the uv that scripts/setup.sh installs")
def test_wheels_alone_are_enough(tmp_path: Path) -> None:
    run(UV, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", tmp_path, TOP)
    [wheel] = tmp_path.glob("*.whl")
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    run(
        UV, "pip", "install", "--quiet", "--no-config", "--only-binary", ":all:",
        "--python", tmp_path / "venv/bin/python",
        "--constraints", TOP / "constraints.txt", wheel,
    )  # fmt: skip
    binaries = tmp_path / "venv" / "bin"
    size = sum(file.stat().st_size for file in (tmp_path / "venv").rglob("*") if file.is_file())
    assert size < 2e9
    assert "backends of Keras: jax" in run(binaries / "tlgen", "--version")
    assert "10.1038/s41467-025-63895-0" in run(binaries / "tlpick", "cite")  # of a file that the wheel brings
    doctor = run(binaries / "tlgen", "doctor")
    assert "template-learning[parakeet]" in doctor
    assert "template-learning[variants]" in doctor

    rows = []
    for i in range(343):
        x, y, z = (6.0 * (i // 7**k % 7) for k in range(3))
        rows.append(
            f"ATOM  {i + 1:>5}  CA  ALA A{i + 1:>4}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        )
    (tmp_path / "blob.pdb").write_text("\n".join([*rows, "END", ""]))
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    run(binaries / "tlgen", "run", recipe, "--to", tmp_path / "corpus", "--cluster", "local:1")
    run(
        binaries / "tltrain", "fit", tmp_path / "corpus", "--to", tmp_path / "m.tlm",
        "--steps", "4", "--patch", "16", "--batch", "2",
    )  # fmt: skip
    held_out = run(binaries / "tlgen", "ls", tmp_path / "corpus", "--where", "split == 'val'", "--paths")
    run(binaries / "tlpick", "run", tmp_path / "m.tlm", held_out.split()[-1], "--to", tmp_path / "picks")
    assert (tmp_path / "picks" / "particles.star").is_file()

    bent = RECIPE | {"targets": {"blob": {"structures": ["blob.pdb"], "count": 3, "variants": {"number": 2}}}}
    recipe.write_text(yaml.safe_dump(bent))
    said = run(binaries / "tlgen", "plan", recipe, "--to", tmp_path / "other", status=2)
    assert "template-learning[variants]" in said
