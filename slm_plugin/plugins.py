"""Find plugins, fill the registry of what they offer, and make the manager of one stage.

Built-ins come first and use the same hooks as every plugin: :data:`BUILT_INS` names modules that
implement the register hooks, then follow the entry points of the group ``slm_plugin``. The built-ins of a
kind are imported when something of that kind is first looked up, so that a verb which needs a codec imports no
probe.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import pluggy

from slm_plugin.errors import PluginError, suggest
from slm_plugin.hookspecs import PROJECT, RegisterHooks, StageHooks

BUILT_INS = (
    "slm_plugin.stages.llm",
    "slm_plugin.stages.asr",
    "slm_plugin.stages.tts",
    "slm_plugin.stages.sqa",
    "slm_plugin.speech.mel_kmeans",
    "slm_plugin.speech.hubert_kmeans",
    "slm_plugin.alignment.known",
    "slm_plugin.alignment.published",
    "slm_plugin.alignment.ctc",
    "slm_plugin.prepare.corpora.librispeech",
    "slm_plugin.prepare.corpora.common_voice",
    "slm_plugin.prepare.corpora.ljspeech",
    "slm_plugin.prepare.corpora.listed",
    "slm_plugin.prepare.corpora.hub",
    "slm_plugin.prepare.corpora.chats",
    "slm_plugin.prepare.voices.espeak",
    "slm_plugin.prepare.voices.endpoint",
    "slm_plugin.mitigations.replay",
    "slm_plugin.mitigations.l2_anchor",
    "slm_plugin.mitigations.llrd",
    "slm_plugin.mitigations.kl_anchor",
    "slm_plugin.mitigations.train_only",
    "slm_plugin.merge.linear",
    "slm_plugin.merge.task_arithmetic",
    "slm_plugin.merge.ties",
    "slm_plugin.merge.dare",
    "slm_plugin.merge.mergekit_methods",
    "slm_plugin.eval.probes.text_match",
    "slm_plugin.eval.probes.speech_recognition",
    "slm_plugin.eval.probes.speech_synthesis",
    "slm_plugin.eval.probes.unit_error",
    "slm_plugin.eval.probes.spoken_qa",
    "slm_plugin.eval.probes.spoken_questions",
    "slm_plugin.eval.probes.instruction_following",
    "slm_plugin.eval.probes.text_similarity",
    "slm_plugin.eval.probes.lm_harness",
    "slm_plugin.eval.probes.interleave_form",
    "slm_plugin.eval.probes.perplexity",
)
"""Modules of this package that register something; a test keeps the list equal to the folders."""


FOLDERS = {
    "slm_plugin.stages.": "stages",
    "slm_plugin.speech.": "codecs",
    "slm_plugin.prepare.corpora.": "corpora",
    "slm_plugin.alignment.": "aligners",
    "slm_plugin.prepare.voices.": "voices",
    "slm_plugin.mitigations.": "mitigations",
    "slm_plugin.merge.": "merges",
    "slm_plugin.eval.probes.": "probes",
}
"""Folder of built-ins -> the one kind of capability that its modules register."""


class Catalogue:
    """Names of one kind of capability and what makes each of them.

    Args:
        noun: The kind in words, for messages.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._known: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._fill: Callable[[], None] | None = None

    def fill_with(self, fill: Callable[[], None]) -> None:
        """Set what registers the built-ins; it runs once, before the catalogue is first used."""
        self._fill = fill

    @property
    def _factories(self) -> dict[str, Any]:
        with self._lock:
            if self._fill is not None:
                fill, self._fill = self._fill, None
                try:
                    fill()
                except BaseException:
                    # the next use meets the same error, not an empty catalogue
                    self._known.clear()
                    self._fill = fill
                    raise
            return self._known

    def register(self, name: str, factory: Any) -> None:
        """Announce a name.

        Raises:
            PluginError: The name is taken.
        """
        if name in self._factories:
            raise PluginError(f"two plugins register the {self.noun} {name!r}; rename one of them.")
        self._factories[name] = factory

    def get(self, name: str) -> Any:
        """Return what was registered under a name.

        Raises:
            PluginError: Nothing was; the message lists the names and the nearest one.
        """
        if name not in self._factories:
            raise PluginError(f"no {self.noun} is called {name!r}. {suggest(name, self._factories, 'Registered')}")
        return self._factories[name]

    def __contains__(self, name: object) -> bool:
        return name in self._factories

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._factories)


@dataclass(frozen=True)
class Registry:
    """Everything that the installed plugins offer, by kind and name.

    Attributes:
        stages: ``factory() -> Stage``.
        codecs: ``factory() -> Codec``, ready to encode and decode.
        corpora: Class with an ``Options`` model, made with ``cls(options)``; aligners and voices likewise.
        mitigations: Class with an ``Options`` model, made with ``cls(options)``.
        merges: Class with an ``Options`` model, made with ``cls(options)``.
        probes: Class with an ``Options`` model, made with ``cls(options)``.
    """

    stages: Catalogue = field(default_factory=lambda: Catalogue("stage"))
    codecs: Catalogue = field(default_factory=lambda: Catalogue("codec"))
    corpora: Catalogue = field(default_factory=lambda: Catalogue("corpus"))
    aligners: Catalogue = field(default_factory=lambda: Catalogue("aligner"))
    voices: Catalogue = field(default_factory=lambda: Catalogue("voice"))
    mitigations: Catalogue = field(default_factory=lambda: Catalogue("mitigation"))
    merges: Catalogue = field(default_factory=lambda: Catalogue("merge"))
    probes: Catalogue = field(default_factory=lambda: Catalogue("probe"))

    @classmethod
    def load(cls, extra: Iterable[object] = (), entry_points: bool = True) -> Registry:
        """Collect the built-ins, the installed plugins and ``extra`` plugin objects, in that order.

        Raises:
            PluginError: A plugin cannot be imported, implements a hook that does not exist or with
                arguments that it does not have, or a name is taken.
        """
        registry = cls()
        eager = [name for name in BUILT_INS if not name.startswith(tuple(FOLDERS))]
        for folder, kind in FOLDERS.items():
            modules = [name for name in BUILT_INS if name.startswith(folder)]
            registry._catalogue(kind).fill_with(partial(registry._add, modules))
        # an outsider that takes a built-in's name is the one refused: registering fills the catalogue first
        registry._add(eager, extra, entry_points)
        return registry

    def _catalogue(self, kind: str) -> Catalogue:
        catalogue: Catalogue = getattr(self, kind)
        return catalogue

    def _add(self, modules: Iterable[str], extra: Iterable[object] = (), entry_points: bool = False) -> None:
        """Register what modules, plugin objects and installed plugins offer, in that order."""
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(RegisterHooks)
        manager.add_hookspecs(StageHooks)
        for plugin in [*map(importlib.import_module, modules), *extra]:
            _register(manager, plugin)
        if entry_points:
            _load_installed(manager)
        _check(manager)
        for kind in fields(self):
            for implementation in getattr(manager.hook, f"slm_register_{kind.name}").get_hookimpls():
                implementation.function(self._catalogue(kind.name).register)


def stage_manager(instances: Iterable[object]) -> pluggy.PluginManager:
    """Make the hook manager of one stage from the objects its configuration names.

    Hooks fire in the order of ``instances``.

    Raises:
        PluginError: An instance implements a hook that does not exist, or with arguments that it does not have.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(RegisterHooks)
    manager.add_hookspecs(StageHooks)
    for instance in reversed(list(instances)):
        _register(manager, instance)
    _check(manager)
    return manager


def _register(manager: pluggy.PluginManager, plugin: object) -> None:
    try:
        manager.register(plugin)
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split()) + ".") from error


def _load_installed(manager: pluggy.PluginManager) -> None:
    try:
        manager.load_setuptools_entrypoints(PROJECT)
    except Exception as error:
        text = " ".join(str(error).split())
        raise PluginError(f"an installed plugin cannot be loaded: {type(error).__name__}: {text}") from error


def _check(manager: pluggy.PluginManager) -> None:
    known = [name for group in (RegisterHooks, StageHooks) for name in vars(group) if name.startswith("slm_")]
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        name = str(error).split("unknown hook ")[-1].split(" ")[0].strip("'\"")
        raise PluginError(f"{error}. {suggest(name, known, 'Hooks')}") from error
