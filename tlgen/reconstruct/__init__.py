"""Tilt images -> tomogram, by weighted back-projection."""

from tlgen.reconstruct.ctf import Optics
from tlgen.reconstruct.settings import Reconstruction
from tlgen.reconstruct.wbp import ProjectionParameters, reconstruct, reconstruct_rows

__all__ = ["Optics", "ProjectionParameters", "Reconstruction", "reconstruct", "reconstruct_rows"]
