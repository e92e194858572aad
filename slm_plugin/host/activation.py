"""Which host modules are patched, and by what; light, because it is read at the host's first import."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

PATCHES = {
    "llamafactory.hparams.parser": "slm_plugin.host.arguments",
    "llamafactory.data.converter": "slm_plugin.host.converters",
    "llamafactory.data.loader": "slm_plugin.host.tokenised",
    "llamafactory.data.template": "slm_plugin.host.chat_template",
    "llamafactory.model.loader": "slm_plugin.host.tokenizer",
    "llamafactory.model.patcher": "slm_plugin.host.embeddings",
    "llamafactory.model.adapter": "slm_plugin.host.adapter",
    "llamafactory.train.sft.workflow": "slm_plugin.host.training",
    "llamafactory.train.pt.workflow": "slm_plugin.host.training",
    "llamafactory.train.rm.workflow": "slm_plugin.host.training",
    "llamafactory.train.kto.workflow": "slm_plugin.host.training",
    "llamafactory.train.dpo.workflow": "slm_plugin.host.training",
    "llamafactory.train.dpo.trainer": "slm_plugin.host.training",
    "llamafactory.train.tuner": "slm_plugin.host.export",
    "llamafactory.v1.config.arg_parser": "slm_plugin.host.workflows",
}
"""Host module -> module of ours whose ``patch(module)`` runs right after the host's executed."""


def patch_for(name: str) -> Callable[[ModuleType], None] | None:
    """Return what to run after the host module ``name`` executed; None for modules left alone."""
    ours = PATCHES.get(name)
    if ours is None:
        return None

    def patch(module: ModuleType) -> None:
        from slm_plugin.host import surface

        # a host that differs is left untouched; using the slm block then says what differs
        if not surface.differences(module):
            from slm_plugin.host import runtime

            before = dict(vars(module))
            import_module(ours).patch(module)
            runtime.record_patched(module, before)
        elif name == "llamafactory.hparams.parser":
            surface.warn(module)

    return patch
