"""The one place that knows which ``slm:`` block is in force in this process.

The host's functions do not pass our configuration along, and hanging it on the host's data
arguments would change the fingerprints of its caches, so it lives here.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from slm_plugin.config import SlmConfig
from slm_plugin.data.planned import RowPlan
from slm_plugin.errors import SlmError
from slm_plugin.plugins import Registry, stage_manager
from slm_plugin.records import StageRun
from slm_plugin.vocabulary import UnitVocabulary


@dataclass
class Active:
    """The configuration in force and what has been learned about the run so far.

    Attributes:
        config: The parsed block.
        hooks: Manager with the stage and mitigations of the block.
        tokenizer: The tokenizer that the host trains with, once it is loaded.
        vocabulary: Unit tokens of the tokenizer, once it is loaded; None without units.
        new_tokens: Ids of the tokens that this run added to the tokenizer; empty if it had all of them.
        host_tokens: Ids of the tokens that the host added before, for ``add_tokens`` and ``add_special_tokens``.
        promises_units: Whether the block itself, rather than an adapter's card, says that unit rows train.
        seed: The host's training seed.
        output_dir: Where the host writes.
        process_index: Rank of this process.
        n_processes: Processes that train together.
        facts: Entries for ``slm.json``.
        factors: Discount by adapter folder; empty where there is none.
        model_args: The host's model arguments.
        data_args: The host's data arguments.
        finetuning_args: The host's finetuning arguments.
        training_args: The host's training arguments; None outside training.
        keeps_order: Whether the host visits the training rows in the order they have.
        trains: Whether this is a training or a prediction, and not chat, api or export.
        shows_units: Whether units stay in text from which special tokens are left out.
        row_plan: Which rows of the source that is being loaded to tokenise; None for all of them.
        staged_export: Where the host writes the export under way, and where that goes when all of it is there.
        where: File and key of the block, for messages.
        calls: Patched functions that the host called since the block was parsed.
        trainer: Weak reference to the trainer with our hooks, once it is built.
        train_dataset: The training rows as our wrapper of ``get_dataset`` returned them.
        hooks_checked: Whether :mod:`slm_plugin.host.hook_check` has run.
    """

    config: SlmConfig
    hooks: pluggy.PluginManager
    tokenizer: Any = None
    vocabulary: UnitVocabulary | None = None
    new_tokens: range = range(0)
    host_tokens: range = range(0)
    promises_units: bool = False
    seed: int = 0
    output_dir: Path = Path()
    process_index: int = 0
    n_processes: int = 1
    facts: dict[str, Any] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    model_args: Any = None
    data_args: Any = None
    finetuning_args: Any = None
    training_args: Any = None
    keeps_order: bool = False
    trains: bool = False
    shows_units: bool = False
    row_plan: RowPlan | None = None
    staged_export: tuple[Path, Path] | None = None
    where: str = "slm"
    calls: set[str] = field(default_factory=set)
    trainer: weakref.ref[Any] | None = None
    train_dataset: Any = None
    hooks_checked: bool = False

    @property
    def run(self) -> StageRun:
        """What hooks are told about this run."""
        return StageRun(
            stage=self.config.block.stage or "",
            seed=self.seed,
            output_dir=self.output_dir,
            process_index=self.process_index,
            n_processes=self.n_processes,
            unit_count=self.vocabulary.count if self.vocabulary else 0,
            facts=dict(self.facts),
        )

    @property
    def adapters(self) -> list[str]:
        """Folders of the adapters that this run starts from, in order."""
        return [str(path) for path in self.model_args.adapter_name_or_path or []]

    def unit_record(self) -> dict[str, Any] | None:
        """Return the unit vocabulary as ``slm.json`` records it; None without units."""
        if self.vocabulary is None:
            return None
        units = self.config.block.units
        return {
            "count": self.vocabulary.count,
            "first_id": self.vocabulary.first_id,
            "seed": units.seed if units else None,
            "init": units.init if units else None,
        }


_state: dict[str, Any] = {
    "active": None,
    "registry": None,
    "sweep_position": None,
    "block_requested": False,
    "host_stage": "sft",
    "tokenizer": None,
}


def active() -> Active | None:
    """Return the block in force; None where the YAML has none."""
    found: Active | None = _state["active"]
    return found


def activate(config: SlmConfig | None) -> Active | None:
    """Put a parsed block in force, or none."""
    _state["active"] = None if config is None else Active(config, stage_manager(config.instances))
    return active()


def block_requested() -> bool:
    """Tell whether the arguments that the host read last have an ``slm`` key."""
    found: bool = _state["block_requested"]
    return found


def set_block_requested(requested: bool) -> None:
    """Record whether the arguments that the host has just read have an ``slm`` key."""
    _state["block_requested"] = requested


def host_stage() -> str:
    """Return the host's ``stage``, such as ``sft``, of the arguments that were parsed last."""
    found: str = _state["host_stage"]
    return found


def set_host_stage(stage: str) -> None:
    """Record the host's ``stage``, with or without a block."""
    _state["host_stage"] = stage


def recorded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Wrap a function so that ``name`` is in :attr:`Active.calls` once it was called."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        in_force = active()
        if in_force is not None:
            in_force.calls.add(name)
        return function(*args, **kwargs)

    wrapped.slm_recorded = name  # type: ignore[attr-defined]  # by which a test finds every patched function
    return wrapped


def record_patched(module: ModuleType, before: Mapping[str, Any]) -> None:
    """Record the calls of every function of a host module that a patch put in place.

    Args:
        module: The patched module.
        before: Its names before the patch.
    """
    for name, value in list(vars(module).items()):
        if inspect.isfunction(value) and value is not before.get(name):
            setattr(module, name, recorded(value, f"{module.__name__}.{name}"))


def note_tokenizer(tokenizer: Any) -> None:
    """Keep the tokenizer that the host loaded last, with a block or without."""
    _state["tokenizer"] = tokenizer


def loaded_tokenizer() -> Any:
    """Return the tokenizer that the host loaded last; None before the first."""
    return _state["tokenizer"]


def sweep_position() -> int | None:
    """Return which of a list of settings the export under way is made with; None outside an export."""
    found: int | None = _state["sweep_position"]
    return found


@contextlib.contextmanager
def at_sweep_position(position: int) -> Iterator[None]:
    """Say which of a list of settings the exports inside are made with."""
    before = _state["sweep_position"]
    _state["sweep_position"] = position
    try:
        yield
    finally:
        _state["sweep_position"] = before


def registry() -> Registry:
    """Return what the installed plugins offer, collected once per process."""
    if _state["registry"] is None:
        _state["registry"] = Registry.load()
    found: Registry = _state["registry"]
    return found


def say(message: str) -> None:
    """Log one line to the person who runs the host, on the first process only."""
    logger = logging.getLogger("slm_plugin")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[slm] %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    found = active()
    if found is None or found.process_index == 0:
        logger.info(message)


def show_errors_plainly() -> None:
    """Print a user's mistakes as one message without a traceback; everything else as before."""
    before = sys.excepthook
    if getattr(before, "slm", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, SlmError):
            sys.stderr.write(f"slm: {kind.__name__}: {error}\n")
        else:
            before(kind, error, trace)

    hook.slm = True  # type: ignore[attr-defined]  # so that it is set once
    sys.excepthook = hook
