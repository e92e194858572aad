"""What a codec of a speech network, k-means and a vocoder is, but for its weights."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import Field

from slm_plugin.errors import CodecError
from slm_plugin.speech.features.settings import FeatureSettings
from slm_plugin.speech.vocoder.settings import VocoderSettings
from slm_plugin.strict import Strict

if TYPE_CHECKING:
    from slm_plugin.speech.parts import Parts

KIND = "hubert-kmeans"


class HubertKmeansSettings(Strict):
    """A codec of this kind without its weights."""

    n_units: int = Field(ge=1)
    """Centroids, K."""

    features: FeatureSettings
    """How waves become features."""

    network: dict[str, Any]
    """The speech network, in the keys of transformers' ``config.json``."""

    folds_runs: bool = False
    """Whether runs of equal units are folded into one; durations are then predicted by the vocoder."""

    vocoder: VocoderSettings | None = None
    """How units become waves; unset where the codec only listens."""

    licences: list[str] = Field(default_factory=list)
    """Terms that the weights came under."""


def fingerprint(settings: HubertKmeansSettings, parts: Parts) -> str:
    """Return twelve hex digits over what decides which units come out: all but vocoder and licences."""
    from slm_plugin.speech.parts import CENTROIDS, ENCODER

    decisive = settings.model_dump(include={"features", "network", "folds_runs"})
    decisive |= {part: parts.digests[part] for part in (ENCODER, CENTROIDS)}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def check(settings: HubertKmeansSettings, parts: Parts) -> None:
    """Refuse settings and weights that do not belong together.

    Raises:
        CodecError: A part is missing or too many, or the vocoder lacks units or the voice.
    """
    from slm_plugin.speech.parts import CENTROIDS, ENCODER, VOCODER
    from slm_plugin.speech.vocoder.voices import voice_numbers

    wanted = {ENCODER, CENTROIDS} | ({VOCODER} if settings.vocoder else set())
    if set(parts.digests) != wanted:
        raise CodecError(
            f"a {KIND} codec with these settings has the parts {', '.join(sorted(wanted))},"
            f" got {', '.join(sorted(parts.digests)) or 'none'}."
        )
    if settings.vocoder is not None:
        if settings.vocoder.shape.n_units < settings.n_units:
            raise CodecError(
                f"the vocoder knows {settings.vocoder.shape.n_units} units, the codec has {settings.n_units}."
            )
        voice_numbers(settings.vocoder)
