"""Names of the columns of RELION's particle tables, and what of the particle table each holds."""

from __future__ import annotations

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
PIXELS = [f"rlnCoordinate{axis}" for axis in "XYZ"]
EULERS = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
ORIGIN = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
ORIGIN_PIXELS = [f"rlnOrigin{axis}" for axis in "XYZ"]
#: What a refinement expects of an angle or a shift, and would be wrong beside others than it was made for.
ANGLE_PRIORS = ["rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior"]
SHIFT_PRIORS = [f"rlnOrigin{axis}Prior{unit}" for axis in "XYZ" for unit in ("", "Angst")]
SCORE = "rlnAutopickFigureOfMerit"
#: Scores under the names of others (PyTom's template matching), which stay beside.
SCORES = [SCORE, "rlnLCCmax", "ptmLCCmax"]
PARTICLE_NAME = "rlnTomoParticleName"
TOMOGRAM = "rlnTomoName"
MICROGRAPH = "rlnMicrographName"
GROUP = "rlnOpticsGroup"
TILT_SERIES_PIXEL = "rlnTomoTiltSeriesPixelSize"
IMAGE_PIXEL = "rlnImagePixelSize"
BINNING = "rlnTomoSubtomogramBinning"
STACKS = "rlnTomoSubTomosAre2DStacks"

# Column of the particle table -> of the STAR file, where the value is the same.
SAME = {
    "label": "rlnClassNumber",
    "class_name": "tlClassName",
    "instance": "tlInstance",
    "structure": "tlStructure",
    "variant": "tlVariant",
    "calibrated": "tlCalibrated",
    "size": "tlSize",
    "flags": "tlFlags",
}
TEXT = [TOMOGRAM, MICROGRAPH, PARTICLE_NAME, "tlClassName", "tlStructure", "tlFlags"]
# Columns of RELION's optics table; in a particle table they ride with every particle.
OPTICS = [
    "rlnOpticsGroupName",
    "rlnSphericalAberration",
    "rlnVoltage",
    "rlnAmplitudeContrast",
    TILT_SERIES_PIXEL,
    "rlnCtfDataAreCtfPremultiplied",
    "rlnImageDimensionality",
    BINNING,
    IMAGE_PIXEL,
    "rlnImageSize",
    "rlnMicrographOriginalPixelSize",
    "rlnMicrographPixelSize",
    "rlnMicrographBinning",
]
#: Blocks of this program's own.
TOMOGRAMS = "tl_tomograms"
CLASSES = "tl_classes"
#: Attributes of a particle table: the file's blocks beside the particles, and the columns of its optics.
BLOCKS = "star_blocks"
RIDING = "star_optics"
