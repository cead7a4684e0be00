"""Uses models: segments tomograms, localises particles, scores and reports picks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalogs.lazy import exports
from catalogs.machine import prefer_installed_backend, prefer_onednn

if TYPE_CHECKING:
    from tlpick.api import (
        RankedModel,
        Run,
        calibrate,
        check,
        convert,
        mask,
        models,
        pick_many,
        rank_models,
        report,
        score,
        select,
    )
    from tlpick.evaluation.comparison import Comparison
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
    "check",
    "convert",
    "load_model",
    "mask",
    "models",
    "pick_many",
    "rank_models",
    "report",
    "score",
    "select",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Comparison": "tlpick.evaluation.comparison",
        "Localising": "tlpick.network.localisation.localise:Options",
        "Model": "tlpick.network.model",
        "RankedModel": "tlpick.api",
        "Run": "tlpick.api",
        "Segmentation": "tlpick.network.segment",
        "Preprocessing": "tlpick.network.tomograms.intake",
        "calibrate": "tlpick.api",
        "check": "tlpick.api",
        "convert": "tlpick.api",
        "load_model": "tlpick.network.model",
        "mask": "tlpick.api",
        "models": "tlpick.api",
        "pick_many": "tlpick.api",
        "rank_models": "tlpick.api",
        "report": "tlpick.api",
        "score": "tlpick.api",
        "select": "tlpick.api",
    },
    former={"Terms": "Preprocessing"},
)

prefer_onednn(keep_memory=False)
prefer_installed_backend()
