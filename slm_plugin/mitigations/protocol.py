"""What a mitigation must answer."""

from __future__ import annotations

from typing import Any, Protocol

from slm_plugin.strict import Strict


class Mitigation(Protocol):
    """Keeps earlier skills alive; what it does stands in any of :class:`slm_plugin.hookspecs.StageHooks`.

    Made with ``cls(options)``; ``Options`` is a :class:`slm_plugin.strict.Strict` model.
    """

    Options: type[Strict]

    def __init__(self, options: Any) -> None: ...
