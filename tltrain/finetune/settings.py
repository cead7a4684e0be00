"""The settings of a fine-tuning, and checks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.former_names import accepts_former
from tltrain.finetune.targets import SHELL
from tltrain.training.settings import check_numbers

#: Share of simulated patches in a batch, unless the user says.
SIMULATED_SHARE = 0.5
#: Without a corpus, voxels to which the model gives less than this probability remain background.
SURELY_BACKGROUND = 0.1

Targets = Literal["shape", "sphere", "oriented"]
Unlabelled = Literal["ignore", "background", "positive-unlabelled"]


@accepts_former(shell="background_shell", mix="simulated_share")
@dataclass(frozen=True)
class FineTuning:
    """How a model is fine-tuned.

    Attributes
    ----------
    targets
        How an annotation becomes voxels: ``shape`` is the average shape of the class over all orientations,
        ``oriented`` its shape rotated as the annotation, ``sphere`` a ball with the class' radius; None:
        ``shape`` if there is a corpus to measure it on.
    unlabelled
        How the loss treats voxels far from all annotations.
    background_shell
        Width of the background around an annotated particle, in radii of its class.
    background_below
        Unlabelled voxels to which the model gives all targets together less than this probability count as
        background; 0: none do. None: 0 with simulated patches, and 0.1 without a corpus.
    prior
        Share of the unlabelled voxels that are targets, for ``positive-unlabelled``; None: as in the corpus.
    simulated_share
        Share of simulated patches in every batch; None: 0.5, or 0 if the corpus of the model is not there.
    corpus
        Corpus of the simulated patches; None: the corpus of the model.
    max_forgetting
        Largest loss of F1 on simulated tomograms; beyond it the training stops.
    annotations
        Number of annotations that are used, drawn at random; None: all.
    steps, batch, patch, learning_rate, seed, precision
        As in :class:`tltrain.training.settings.Settings`; None: a default that depends on the model.
    validate_every
        Steps between two validations; None: a tenth of all.
    from_scratch
        Begin with fresh weights and use only the annotations, for comparison.
    keep_last
        Keep the last network and not the best one on the held-out tomograms, so that these remain independent
        of the choice and can be used to evaluate it.
    """

    targets: Targets | None = None
    unlabelled: Unlabelled = "ignore"
    background_shell: float = SHELL
    background_below: float | None = None
    prior: float | None = None
    simulated_share: float | None = None
    corpus: str | None = None
    max_forgetting: float = 0.05
    annotations: int | None = None
    steps: int = 400
    batch: int = 8
    patch: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    precision: str = "float32"
    validate_every: int | None = None
    from_scratch: bool = False
    keep_last: bool = False

    @property
    def simulated(self) -> float:
        """Share of simulated patches; the usual one if nothing was said."""
        return SIMULATED_SHARE if self.simulated_share is None else self.simulated_share

    @property
    def surely_background(self) -> float:
        """Probability of a target below which unlabelled voxels are background; 0 if nothing was said."""
        return self.background_below or 0.0


def check(settings: FineTuning) -> None:
    """Refuse settings that are not valid.

    Raises
    ------
    InputError
        It names the setting and its possible values.
    """
    check_numbers(settings, ("steps", "batch", "patch", "validate_every", "annotations"))
    for option, value, known in (
        ("targets", settings.targets, get_args(Targets)),
        ("unlabelled", settings.unlabelled, get_args(Unlabelled)),
    ):
        if value is not None and value not in known:
            raise InputError(
                f"`{option}` is {value!r}; give one of {', '.join(known)}{nearest(value, known)}"
            )
    for option, share in (
        ("simulated_share", settings.simulated),
        ("max_forgetting", settings.max_forgetting),
        ("background_below", settings.surely_background),
    ):
        if not 0 <= share <= 1:
            raise InputError(f"`{option}` is {share:g}; give a number from 0 to 1")
    if settings.simulated == 1:
        raise InputError(
            "`simulated_share=1` leaves no room for the annotated tomograms; give less, such as 0.5"
        )
    if settings.prior is not None and not 0 < settings.prior < 1:
        raise InputError(f"`prior` is {settings.prior:g}; give a share between 0 and 1")
    if not settings.background_shell >= 0:
        raise InputError(f"`background_shell` is {settings.background_shell:g}; give 0 or more radii")
    if (
        settings.unlabelled == "ignore"
        and settings.background_shell == 0
        and settings.surely_background == 0 == settings.simulated
    ):
        raise InputError(
            "`background_shell=0` and `simulated_share=0` with `unlabelled=ignore` name no background, and a "
            "network would call everything a particle; give one of them more"
        )
    if settings.simulated > 0 and settings.batch < 2:
        raise InputError(
            f"`batch` is {settings.batch}, too few to mix; give at least 2, or `simulated_share=0`"
        )
