"""Whether the package installs without a compiler everywhere, in what time, and how much room it needs.

    python benchmarks/install.py              # resolves for every platform and Python; three minutes
    python benchmarks/install.py --install    # also installs the wheel with each Python that is here

Asks the package index, with uv's resolver, whether every dependency of the base and of the extra `cpu` has a
wheel for Linux (x86-64, aarch64) and macOS (arm64, x86-64) and Python 3.11 to 3.13. With --install, the
wheel is installed by pip into a clean environment of each Python that is found, and a model that comes with
the program picks in a tomogram of noise. Needs a package index and the uv that scripts/setup.sh installs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from machine import machine

TOP = Path(__file__).parents[1]
UV = TOP / ".tools" / "bin" / "uv"
#: uv's name of each platform.
PLATFORMS = {
    "Linux x86-64": "x86_64-unknown-linux-gnu",
    "Linux aarch64": "aarch64-unknown-linux-gnu",
    "macOS arm64": "aarch64-apple-darwin",
    "macOS x86-64": "x86_64-apple-darwin",
}
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("", "cpu")


def lacking(platform: str, python: str, extra: str) -> str:
    """Resolve with wheels only; returns why this fails, or nothing."""
    command = [
        str(UV), "pip", "compile", "--quiet", "--no-config", "--no-header", "--only-binary", ":all:",
        "--prerelease", "disallow", "--python-platform", PLATFORMS[platform], "--python-version", python,
        *(["--extra", extra] if extra else []), "pyproject.toml",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        return " ".join(done.stderr.split())
    for name in ("jax", "keras", "numba"):
        if not any(line.startswith(f"{name}==") for line in done.stdout.splitlines()):
            return f"{name} was not resolved"
    return ""


def pythons() -> Iterator[tuple[str, str]]:
    """Find one Python of each version on this machine, also among pyenv's: version, program."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in PYTHONS:
        own = [str(file) for file in sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
        command = [str(UV), "python", "find", "--no-python-downloads", "--system", version]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            own.append(found.stdout.strip())
        if own:
            yield version, own[0]


def installed(python: str, wheel: Path, extra: str, folder: Path) -> dict[str, float]:
    """Install the wheel into a clean environment and pick with it; returns seconds and bytes."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*words: object) -> None:
        subprocess.run([str(word) for word in words], check=True, env=clean, stdout=sys.stderr)

    place = folder / "venv"
    run(python, "-m", "venv", place)
    begun = time.monotonic()
    what = f"{wheel}[{extra}]" if extra else wheel
    run(place / "bin/pip", "install", "--quiet", "--only-binary", ":all:", what)
    seconds = time.monotonic() - begun
    room = sum(file.stat().st_size for file in place.rglob("*") if file.is_file() and not file.is_symlink())
    noise = (
        "import mrcfile, numpy as np\n"
        f"with mrcfile.new({str(folder / 'noise.mrc')!r}, overwrite=True) as file:\n"
        "    file.set_data(np.random.default_rng(0).standard_normal((48, 64, 64)).astype(np.float32))\n"
        "    file.voxel_size = 10\n"
    )
    run(place / "bin/python", "-c", noise)
    picks = folder / "picks"
    run(place / "bin/tlpick", "run", "ribosome", folder / "noise.mrc", "--to", picks, "--trust-contrast")
    if not (picks / "noise" / "done.json").is_file():
        raise SystemExit(f"{python}: nothing was picked")
    shutil.rmtree(place)
    return {"seconds": round(seconds, 1), "bytes": room}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", action="store_true", help="also install with each Python that is here")
    options = parser.parse_args()
    figures: dict[str, object] = {"benchmark": "install"}
    wrong = 0
    print(f"{'every dependency has a wheel':30}" + "".join(f"{python:>8}" for python in PYTHONS))
    for platform in PLATFORMS:
        for extra in EXTRAS:
            reasons = {python: lacking(platform, python, extra) for python in PYTHONS}
            name = f"{platform}, {extra or 'base'}"
            print(f"  {name:28}" + "".join(f"{'no' if reasons[p] else 'yes':>8}" for p in PYTHONS))
            for python, why in reasons.items():
                wrong += bool(why)
                if why:
                    print(f"    {python}: {why}")
    figures["combinations"] = len(PLATFORMS) * len(EXTRAS) * len(PYTHONS)
    figures["without_wheels"] = wrong
    if options.install:
        print(f"\n{'installed by pip, and picked':30}{'time':>10}{'on disk':>12}")
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            build = [UV, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", folder, TOP]
            subprocess.run([str(word) for word in build], check=True)
            [wheel] = folder.glob("*.whl")
            for version, python in pythons():
                for extra in EXTRAS:
                    found = installed(python, wheel, extra, folder)
                    name = f"Python {version}, {extra or 'base'}"
                    print(f"  {name:28}{found['seconds']:8.0f} s{found['bytes'] / 1e9:9.2f} GB")
                    for key, value in found.items():
                        figures[f"{key}_{version}_{extra or 'base'}"] = value
    print(machine())
    print(json.dumps(figures | machine().figures()))


if __name__ == "__main__":
    main()
