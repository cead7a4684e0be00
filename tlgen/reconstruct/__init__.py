"""Tilt images -> tomogram, by weighted back-projection."""

from tlgen.reconstruct.ctf import Optics
from tlgen.reconstruct.settings import Reconstruction
from tlgen.reconstruct.wbp import Series, reconstruct, reconstruct_rows

__all__ = ["Optics", "Reconstruction", "Series", "reconstruct", "reconstruct_rows"]
