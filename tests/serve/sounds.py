"""Recordings as requests carry them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import soundfile


def recording(wave: np.ndarray, rate_hz: int = 16_000, form: str = "WAV") -> str:
    """Return a wave as a file in base64."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate_hz, format=form)
    return base64.b64encode(file.getvalue()).decode()


def spoken(data: str, form: str = "wav") -> dict[str, Any]:
    """Return a user message that holds a recording alone."""
    return {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": data, "format": form}}]}
