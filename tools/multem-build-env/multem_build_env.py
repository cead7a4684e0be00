"""Runs at the start of every Python in python-multem's build environment (by its .pth file).

CMake reads CMAKE_TOOLCHAIN_FILE and CUDAARCHS from the environment, so nothing in python-multem's
own build has to be changed. The package is never installed anywhere else.
"""

import os
from pathlib import Path

_FILES = Path(__file__).parent / "multem_build_env_files"
os.environ.setdefault("CMAKE_TOOLCHAIN_FILE", str(_FILES / "cuda-wheels.cmake"))
os.environ.setdefault("MULTEM_ICE_SEED_HEADER", str(_FILES / "ice_seed.h"))
# Native code for Turing, Ampere and Hopper in the one wheel that also serves machines without a GPU.
os.environ.setdefault("CUDAARCHS", "75;80;90")
