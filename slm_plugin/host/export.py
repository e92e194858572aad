"""``llamafactory-cli export`` with the chat form of training, a card and a hook behind it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm_plugin import card
from slm_plugin.errors import WeightsError
from slm_plugin.generation import chat_form
from slm_plugin.host import hook_check, runtime
from slm_plugin.host.chat_template import require_written
from slm_plugin.host.merge import export_merged
from slm_plugin.weights.checkpoint import Checkpoint, count_not_finite
from slm_plugin.weights.staging import discard, not_written, publish, writing_error
from slm_plugin.weights.tied import untie_differing


def patch(tuner: Any) -> None:
    """Let the host export, then write ``slm.json`` beside the model and fire ``slm_export``."""
    stock = tuner.export_model

    @functools.wraps(stock)
    def export_model(args: Any = None) -> None:
        if export_merged(args):
            return
        position, n_exports = 0, 1
        while position < n_exports:
            with runtime.at_sweep_position(position):
                _export(stock, args)
            active = runtime.active()
            if active is not None:
                factors = active.config.block.lora_scale
                n_exports = len(factors) if isinstance(factors, list) else 1
            position += 1

    tuner.export_model = export_model
    tuner._training_function = hook_check.with_final_check(tuner._training_function)


def _export(stock: Callable[[Any], None], args: Any) -> None:
    """Export once; what the host writes appears in ``export_dir`` when all of it is there.

    Raises:
        WeightsError: The disk is full, or a file cannot be written; an earlier model stays as it was.
    """
    try:
        stock(args)
        active = runtime.active()
        if active is not None:
            _finish(active)
    except Exception as error:
        active, failed = runtime.active(), writing_error(error)
        if active is None or active.staged_export is None or failed is None:
            raise
        raise not_written(active.staged_export[1], failed) from None
    finally:
        active = runtime.active()
        if active is not None and active.staged_export is not None:
            partial, destination = active.staged_export
            discard(partial)
            active.staged_export = None
            active.model_args.export_dir = str(destination)


def _finish(active: runtime.Active) -> None:
    assert active.staged_export is not None, "an export is always staged"
    (partial, folder), base = active.staged_export, str(active.model_args.model_name_or_path)
    adapters = [str(path) for path in active.model_args.adapter_name_or_path or []]
    trained = card.read(Path(adapters[-1])) if adapters else {}
    content: dict[str, Any] = {
        "stage": active.config.block.stage or trained.get("stage"),
        "units": active.unit_record(),
        "base": {"path": base, "fingerprint": card.fingerprint(Path(base))},
        "adapters": adapters,
        **{key: active.facts[key] for key in (chat_form.KEY, "lora_scale", "scaled_modules") if key in active.facts},
    }
    card.write(partial, content)
    require_written(partial, active)
    _require_finite(partial, folder)
    _untie(partial)
    publish(partial, folder)
    n_units = active.vocabulary.count if active.vocabulary else 0
    runtime.say(f"exported {folder}: {n_units} units, adapters: {', '.join(adapters) or 'none'}")
    active.hooks.hook.slm_export(export_dir=folder)


def _untie(partial: Path) -> None:
    """Say ``tie_word_embeddings: false`` of a model whose embeddings and head were trained apart."""
    if any(partial.glob("model*.safetensors")) and untie_differing(partial):
        runtime.say("embeddings and head differ after training: the export says tie_word_embeddings: false.")


def _require_finite(partial: Path, folder: Path) -> None:
    """Refuse a model with values that are not finite, whether its training diverged or its type is too narrow.

    Raises:
        WeightsError: Names the first such tensor.
    """
    quantised = "quantization_config" in json.loads((partial / "config.json").read_text(encoding="utf-8"))
    if quantised or not any(partial.glob("model*.safetensors")):
        return
    weights = Checkpoint(partial)
    for name in weights.names():
        n_bad = count_not_finite(weights.tensor(name))
        if n_bad:
            text = f"{n_bad} value(s) of the tensor {name!r} are not finite in the model or its {weights.dtype(name)}"
            raise WeightsError(f"{folder} was not written: {text}.")
