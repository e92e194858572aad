"""``llamafactory-cli export`` with the chat form of training, a card and a hook behind it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from slm_plugin import card
from slm_plugin.host import runtime
from slm_plugin.host.chat_template import write_training_template
from slm_plugin.host.merge import export_merged


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
                stock(args)
            active = runtime.active()
            if active is not None:
                _finish(active)
                factors = active.config.block.lora_scale
                n_exports = len(factors) if isinstance(factors, list) else 1
            position += 1

    tuner.export_model = export_model


def _finish(active: runtime.Active) -> None:
    folder, base = Path(active.model_args.export_dir), str(active.model_args.model_name_or_path)
    adapters = [str(path) for path in active.model_args.adapter_name_or_path or []]
    trained = card.read(Path(adapters[-1])) if adapters else {}
    content: dict[str, Any] = {
        "stage": active.config.block.stage or trained.get("stage"),
        "units": active.unit_record(),
        "base": {"path": base, "fingerprint": card.fingerprint(Path(base))},
        "adapters": adapters,
        **{key: active.facts[key] for key in ("lora_scale", "scaled_modules") if key in active.facts},
    }
    card.write(folder, content)
    write_training_template(folder, active.data_args)
    n_units = active.vocabulary.count if active.vocabulary else 0
    runtime.say(f"exported {folder}: {n_units} units, adapters: {', '.join(adapters) or 'none'}")
    active.hooks.hook.slm_export(export_dir=folder)
