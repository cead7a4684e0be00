"""The benchmark of the simulation on a GPU."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tlgen.simulate import parakeet
from tlgen.simulate.multislice.multislice import Multislice

jax = pytest.importorskip("jax", reason="JAX is not installed")


BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


class TestBenchmark:
    @pytest.mark.slow
    def test_a_series_is_timed_as_a_run_makes_it(self, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(BENCHMARKS)
        simulate, crowd = (importlib.import_module(name) for name in ("simulate", "crowd"))
        monkeypatch.setattr(simulate, "PAPER", {"padding": 20, "tilt_step": 12.0})
        monkeypatch.setattr(simulate, "BEST", {"padding": 0, "ice_density": 0.0, "slice_thickness": 20.0})
        host = parakeet._system("cpu")
        monkeypatch.setattr(parakeet, "_system", lambda *_: host)
        asked = []
        together = Multislice.simulate_together

        def watched(self: Multislice, views: Any, *others: Any, **more: Any) -> Any:
            asked.append(len(views))
            return together(self, views, *others, **more)

        monkeypatch.setattr(Multislice, "simulate_together", watched)
        library, box = crowd.molecules(), (320, 320, 160)
        figures, devices = simulate.series(library, "gpu", box, beside=True)
        assert asked == [8, 3, 8, 3]  # all of them once to compile, and once more
        assert devices["multislice"].startswith("cpu, JAX ")
        assert min(figures["series_seconds"], figures["series_seconds_with_compiling"]) > 0
        assert (figures["series_tilts"], figures["series_tilts_a_call"]) == (11, 8)
        assert devices["parakeet"] == "CPU"
        asked.clear()
        figures, devices = simulate.series(library, "cpu", box)
        assert asked == [11, 11]  # a core has all of them in less than a quarter of a second
        assert devices == {"multislice": "CPU"}
        assert "series_seconds_with_compiling" not in figures

    @pytest.mark.parametrize("options", [("--device", "gpu"), ("--device", "gpu", "--only", "ice")])
    def test_without_a_gpu_it_ends_in_one_sentence(self, options: tuple[str, ...]) -> None:
        done = subprocess.run(
            [sys.executable, BENCHMARKS / "simulate.py", *options],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stdout == ""
        words = "--device is of the speed part" if "--only" in options else "device: gpu was requested"
        assert words in done.stderr.splitlines()[-1]
