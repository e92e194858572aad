"""Stop strings over text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Passes text on until a stop string appears in it, which is not passed on.

    Text that may still become a stop string is held back. How the text is cut never matters.

    Args:
        stops: Stop strings, none empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """Take further text; return what is sure to be in front of any stop string."""
        if self.found:
            return ""
        held = self._held + text
        # of several stop strings the one that is complete first counts, as in a token-wise search
        ends = {stop: held.find(stop) + len(stop) for stop in self._stops if stop in held}
        if ends:
            stop = min(ends, key=lambda name: (ends[name], -len(name)))
            self.found, self._held = True, ""
            return held[: ends[stop] - len(stop)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """Return the text held back; it did not become a stop string."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest proper prefix of ``stop`` that ``text`` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
