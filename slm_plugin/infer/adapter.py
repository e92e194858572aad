"""The adapter that answers: as trained, or counted by a factor."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slm_plugin.adapters.discount import write_discounted
from slm_plugin.adapters.lora import LoraAdapter
from slm_plugin.errors import WeightsError
from slm_plugin.generation.model import load_speaker
from slm_plugin.infer.options import InferOptions
from slm_plugin.weights.checkpoint import Checkpoint


@contextlib.contextmanager
def answering(options: InferOptions) -> Iterator[Path | None]:
    """Yield the folder of the adapter to load; a discounted copy of it is gone afterwards.

    Args:
        options: Model, adapter, ``lora_scale`` and ``scaled_modules``.

    Raises:
        WeightsError: The adapter is damaged or belongs to another base, or its copy cannot be written.
    """
    if options.adapter is None or options.lora_scale == 1:
        yield Path(options.adapter) if options.adapter else None
        return
    with tempfile.TemporaryDirectory(prefix="slm_infer_") as folder:
        copy, model = Path(folder) / "adapter", Path(options.model)
        interpolate = options.scaled_modules == "interpolate"
        adapter = LoraAdapter(Path(options.adapter))
        vocabulary = load_speaker(model, adapter.folder).vocabulary
        units = None if vocabulary is None else {"first_id": vocabulary.first_id, "count": vocabulary.count}
        try:
            write_discounted(adapter, copy, options.lora_scale, lambda: Checkpoint(model), interpolate, units=units)
        except OSError as error:
            raise WeightsError(f"the discounted copy of {options.adapter} cannot be written: {error}.") from None
        yield copy
