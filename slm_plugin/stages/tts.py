"""Stage ``tts``: text in, words interleaved with speech units out.

Source: arXiv 2505.17496, stage 2; column names as in its published data sets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from slm_plugin.data import rows
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Sample
from slm_plugin.vocabulary import text_to_units

INSTRUCTION = "Please speak out loud the following words: "
_REPEAT = re.compile(r"\brepeat\b", re.IGNORECASE)


class TtsStage:
    """User turn = instruction to speak followed by the text, assistant turn = interleaved words and units."""

    columns = ("text|transcription", "words|interleaf")

    def sample(self, row: Mapping[str, Any], unit_count: int) -> Sample | None:
        """Return the conversation of a row; None without words or units.

        Example: text ``anna`` with units ``[3, 7]`` gives the assistant turn ``anna<|3|><|7|>``.
        """
        said = rows.text(row, self.columns[0])
        spoken = rows.interleaved(row, self.columns[1], unit_count)
        if not said.strip() or not text_to_units(spoken):
            return None
        instruction = speaking_instruction(rows.text(row, "instruction", INSTRUCTION))
        return Sample(rows.join(instruction, said), spoken)

    def continuous_text(self, row: Mapping[str, Any], unit_count: int) -> str | None:
        """Return the words interleaved with their units, ``anna<|3|><|7|>``; None without units."""
        spoken = rows.interleaved(row, self.columns[1], unit_count)
        return spoken if text_to_units(spoken) else None


def speaking_instruction(instruction: str) -> str:
    """Turn an instruction to repeat into one to speak, keeping its capital.

    The published rows serve ASR and TTS alike and say "Please repeat ..."; for TTS that becomes
    "Please speak out loud ...".
    """
    return _REPEAT.sub(lambda match: ("S" if match[0][0] == "R" else "s") + "peak out loud", instruction)


@hookimpl
def slm_register_stages(register: Callable[[str, type], None]) -> None:
    """Offer ``tts``."""
    register("tts", TtsStage)
