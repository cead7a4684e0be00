"""Train on a corpus: stream patches, train a segmentation network, write a model file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalogs.lazy import exports
from catalogs.machine import prefer_installed_backend, prefer_onednn

if TYPE_CHECKING:
    from tltrain.api import export_deepfinder, fine_tune, fit, import_deepfinder, learning_curve
    from tltrain.finetune.settings import FineTuning
    from tltrain.training.settings import Settings

__all__ = [
    "FineTuning",
    "Settings",
    "export_deepfinder",
    "fine_tune",
    "fit",
    "import_deepfinder",
    "learning_curve",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "FineTuning": "tltrain.finetune.settings",
        "Settings": "tltrain.training.settings",
        "export_deepfinder": "tltrain.api",
        "fine_tune": "tltrain.api",
        "fit": "tltrain.api",
        "import_deepfinder": "tltrain.api",
        "learning_curve": "tltrain.api",
    },
)

prefer_onednn(keep_memory=True)
prefer_installed_backend()
