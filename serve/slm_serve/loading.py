"""Load what a server needs from a model folder and a codec, and check that they belong together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slm_plugin.errors import VocabularyError
from slm_plugin.generation.chat_form import require_trained_form
from slm_plugin.plugins import Registry
from slm_plugin.speech.codecs import load_codec
from slm_plugin.speech.protocol import Codec
from slm_plugin.vocabulary import UnitVocabulary
from slm_serve.service import bind_units

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_parts(model: str, codec: str) -> tuple[PreTrainedTokenizerBase, UnitVocabulary, Codec]:
    """Return the model's tokenizer, its units, and the codec they belong to.

    Args:
        model: Folder of an exported model.
        codec: Registered name, or folder.

    Raises:
        SlmError: One of them cannot be loaded, or the two do not fit.
    """
    # an automatic class would import every model there is
    from transformers import PreTrainedTokenizerFast

    speech = load_codec(codec, Registry.load())
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise VocabularyError(f"the tokenizer in {model} cannot be loaded: {error}") from error
    require_trained_form(Path(model), tokenizer, Path(model))
    return tokenizer, bind_units(tokenizer, speech, model, codec), speech
