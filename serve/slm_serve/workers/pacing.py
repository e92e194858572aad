"""How many units to speak at once: little while the listener waits, more once sound is ahead of the ears."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_S = 0.4
"""Most speech in a push until the first sound is out."""
GROWTH = 2.0
LONGEST_S = 1.0
"""Most speech in a later chunk; an answer that is interrupted stops within it."""
MARGIN_S = 0.25
"""Sound left to play at which the next chunk goes out whatever its size."""


class Pacer:
    """Sizes the chunks of one answer that is played as it comes.

    The first chunk leaves at once. Each later one may be ``GROWTH`` times as long as the one before,
    up to ``LONGEST_S``, and is waited for while more than ``MARGIN_S`` of sound is left to play: larger
    chunks cost the vocoder less, and no listener hears the wait.

    Args:
        rate_hz: Units per second; a folded unit lasts longer, which errs on the early side.
        clock: Gives seconds.
    """

    def __init__(self, rate_hz: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_hz = rate_hz
        self._clock = clock
        self._began_at: float | None = None
        self._sent_s = 0.0
        self._target_s = FIRST_S

    @property
    def most(self) -> int:
        """Most units of the next push."""
        return max(1, int(self._target_s * self._rate_hz))

    def wanted(self) -> int:
        """Return how many units make the next push worth its while now."""
        return 1 if self.wait_s() <= 0.0 else self.most

    def wait_s(self) -> float:
        """Return for how many seconds the next chunk may still grow."""
        if self._began_at is None:
            return 0.0
        return self._sent_s - (self._clock() - self._began_at) - MARGIN_S

    def sent(self, seconds: float) -> None:
        """Take note of sound that went out."""
        now = self._clock()
        if self._began_at is None:
            self._began_at = now
        else:
            self._target_s = min(LONGEST_S, self._target_s * GROWTH)
        # whoever ran dry plays on from now
        if self._sent_s < now - self._began_at:
            self._began_at, self._sent_s = now, 0.0
        self._sent_s += seconds
