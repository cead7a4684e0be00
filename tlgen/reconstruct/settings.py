"""How tomograms are reconstructed: the section ``reconstruction`` of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Reconstruction(BaseModel):
    """Settings of the weighted back-projection; the default is a ramp with a Hann window."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filter: Literal["ramp", "exact", "sirt"] = Field(
        "ramp",
        description="`exact` weighs by the density of tilts at each frequency; `sirt` resembles this number"
        " of `iterations` of SIRT.",
    )
    iterations: int = Field(
        10, ge=1, le=1000, description="Iterations of the SIRT that `filter: sirt` imitates."
    )
    rolloff: Literal["hann", "gaussian", "none"] = Field(
        "hann",
        description="Fall-off of the filter: a Hann window up to Nyquist, or a Gaussian beyond `cutoff`.",
    )
    cutoff: float = Field(
        0.35, gt=0, le=0.5, description="Where the Gaussian begins.", json_schema_extra={"unit": "1/pixel"}
    )
    falloff: float = Field(
        0.035, gt=0, le=0.5, description="The Gaussian's sigma.", json_schema_extra={"unit": "1/pixel"}
    )
    dose_weighting: bool = Field(
        False, description="Reduce high frequencies according to the dose (Grant & Grigorieff 2015)."
    )
    ctf: Literal["none", "phase_flip", "wiener"] = Field(
        "none", description="Correct the contrast transfer, slab by slab along the beam."
    )
    ctf_slab: float = Field(
        150.0, gt=0, allow_inf_nan=False, description="Thickness of a slab.", json_schema_extra={"unit": "Å"}
    )
    wiener_snr: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Signal-to-noise ratio for `ctf: wiener`, at all frequencies.",
    )
