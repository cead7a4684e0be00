"""Uses models: segments tomograms, localises particles, scores and reports picks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalogs.lazy import exports
from catalogs.machine import prefer_installed_backend, prefer_onednn

if TYPE_CHECKING:
    from tlpick.api import Comparison, RankedModel, Run, calibrate, pick_many, rank_models, score
    from tlpick.network.localisation.localise import Options as Localising
    from tlpick.network.model import Model, load_model
    from tlpick.network.segment import Segmentation
    from tlpick.network.tomograms.intake import Preprocessing

__all__ = [
    "Comparison",
    "Localising",
    "Model",
    "Preprocessing",
    "RankedModel",
    "Run",
    "Segmentation",
    "calibrate",
    "load_model",
    "pick_many",
    "rank_models",
    "score",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Comparison": "tlpick.api",
        "Localising": "tlpick.network.localisation.localise:Options",
        "Model": "tlpick.network.model",
        "RankedModel": "tlpick.api",
        "Run": "tlpick.api",
        "Segmentation": "tlpick.network.segment",
        "Preprocessing": "tlpick.network.tomograms.intake",
        "calibrate": "tlpick.api",
        "load_model": "tlpick.network.model",
        "pick_many": "tlpick.api",
        "rank_models": "tlpick.api",
        "score": "tlpick.api",
    },
    former={"Terms": "Preprocessing"},
)

prefer_onednn(keep_memory=False)
prefer_installed_backend()
