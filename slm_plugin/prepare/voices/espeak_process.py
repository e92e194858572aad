"""A process that speaks: one JSON object per line in, a line of JSON and float32 samples out, until its input ends."""

from __future__ import annotations

import json
import sys

from slm_plugin.errors import SlmError
from slm_plugin.speech.espeak import Espeak


def main() -> None:
    """Speak what comes on standard input."""
    espeak = Espeak()
    for line in sys.stdin.buffer:
        wish = json.loads(line)
        try:
            spoken = espeak.say(wish["text"], wish["voice"], wish["words_per_minute"], wish["pitch"])
        except SlmError as error:
            _answer({"error": str(error)}, b"")
            continue
        content = spoken.wave_N.tobytes()
        words = [(span.word, span.start_s, span.end_s) for span in spoken.words]
        _answer({"sample_rate_hz": spoken.sample_rate_hz, "words": words, "n_bytes": len(content)}, content)


def _answer(header: dict[str, object], content: bytes) -> None:
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + content)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
