"""Stage ``llm``: text chat, what the model could do before it learned to listen and speak."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slm_plugin.data import rows
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Sample


class LlmStage:
    """User turn = ``input``, assistant turn = ``output`` (or Magpie's ``instruction`` and ``response``)."""

    columns = ("input|instruction", "output|response")

    def sample(self, row: Mapping[str, Any], unit_count: int) -> Sample | None:
        """Return the chat of a row; None where either turn is blank."""
        user, assistant = (rows.text(row, names) for names in self.columns)
        if not user.strip() or not assistant.strip():
            return None
        return Sample(user, assistant)

    def continuous_text(self, row: Mapping[str, Any], unit_count: int) -> str | None:
        """Return both turns with a blank line between them; None if either is blank."""
        chat = self.sample(row, unit_count)
        return f"{chat.user}\n\n{chat.assistant}" if chat else None


@hookimpl
def slm_register_stages(register: Callable[[str, type], None]) -> None:
    """Offer ``llm``."""
    register("llm", LlmStage)
