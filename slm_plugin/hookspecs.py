"""Every extension point of slm_plugin: the only file a plugin author must read.

A plugin is any module or object with functions of these names, marked with ``slm_plugin.hookimpl``
and announced under the entry-point group ``slm_plugin``::

    [project.entry-points.slm_plugin]
    my_plugin = "my_package.my_module"

There are two kinds of hooks.

*Register* hooks run once per plugin manager and announce what a plugin offers by name. ``register``
takes the name and a factory; a factory is called with no arguments for stages and codecs, and with
its parsed options for everything else (see :class:`slm_plugin.plugins.Registry`).

*Stage* hooks are methods of the objects that a stage's configuration names (its stage and its
mitigations), on a manager made for that stage alone. They fire in the order of the configuration,
contributions add up and none replaces another. An implementation may take fewer arguments than the
specification.

Two further entry-point groups need no hook. Each entry of ``slm_plugin.commands`` is a verb of ``slm``: a function
whose annotated parameters typer reads. Each entry of ``slm_plugin.reference`` is a page of ``docs/reference``: a
function without arguments that returns its Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from slm_plugin.records import PoolDraw, StageRun

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from slm_plugin.alignment.protocol import Aligner
    from slm_plugin.eval.protocol import Probe
    from slm_plugin.merge.protocol import MergeMethod
    from slm_plugin.mitigations.protocol import Mitigation
    from slm_plugin.prepare.corpora.protocol import Corpus
    from slm_plugin.prepare.voices.protocol import Voice
    from slm_plugin.speech.protocol import Codec
    from slm_plugin.stages.protocol import Stage

PROJECT = "slm_plugin"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class RegisterHooks:
    """Fire once, when a plugin manager is made; each announces capabilities by name."""

    @hookspec
    def slm_register_stages(self, register: Callable[[str, Callable[[], Stage]], None]) -> None:
        """Announce training stages; ``slm.stage`` and ``formatting: slm_<name>`` then accept the name."""

    @hookspec
    def slm_register_codecs(self, register: Callable[[str, Callable[[], Codec]], None]) -> None:
        """Announce codecs (audio <-> units); ``slm.units.codec`` and ``slm serve --codec`` accept the name."""

    @hookspec
    def slm_register_corpora(self, register: Callable[[str, type[Corpus]], None]) -> None:
        """Announce forms of corpora; ``corpus`` of ``slm prepare`` accepts the name."""

    @hookspec
    def slm_register_aligners(self, register: Callable[[str, type[Aligner]], None]) -> None:
        """Announce ways to place words in recordings; ``align`` of ``slm prepare`` accepts the name."""

    @hookspec
    def slm_register_voices(self, register: Callable[[str, type[Voice]], None]) -> None:
        """Announce synthesisers that speak text chats; ``voice`` of ``slm prepare`` accepts the name."""

    @hookspec
    def slm_register_mitigations(self, register: Callable[[str, type[Mitigation]], None]) -> None:
        """Announce mitigation classes; each has an ``Options`` model and is made with an instance of it."""

    @hookspec
    def slm_register_merges(self, register: Callable[[str, type[MergeMethod]], None]) -> None:
        """Announce merge methods; a merge class has an ``Options`` model and is made with an instance of it."""

    @hookspec
    def slm_register_probes(self, register: Callable[[str, type[Probe]], None]) -> None:
        """Announce probe classes; pipelines and ``slm eval`` accept the name."""


class StageHooks:
    """Fire on the stage and the mitigations that a run's configuration names, in that order."""

    @hookspec
    def slm_check(
        self, run: StageRun, arguments: Mapping[str, Any], draws: Sequence[PoolDraw]
    ) -> Sequence[str] | None:
        """Fire after a train YAML was parsed, before anything is loaded.

        ``arguments`` are the host's by name (``optim``, ``use_galore``, ``deepspeed`` and so on), ``draws``
        the wishes of every ``slm_mix_samples``.

        Returns:
            What the user must mend, a sentence each; any refuses the run, all are shown at once.
        """

    @hookspec
    def slm_extend_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> Sequence[str] | None:
        """Fire after the host has loaded the tokenizer and before the model is resized.

        Returns:
            Further special tokens to add behind the units.
        """

    @hookspec
    def slm_mix_samples(self, run: StageRun) -> Sequence[PoolDraw] | None:
        """Fire after the current stage's rows are tokenised, before the model is loaded.

        Returns:
            Pools to draw extra rows from; all wishes are added up and mixed in one shuffle.
        """

    @hookspec
    def slm_stage_start(self, run: StageRun, model: PreTrainedModel) -> None:
        """Fire on every process after the trainer was built, before the first step."""

    @hookspec
    def slm_parameter_groups(self, run: StageRun, model: PreTrainedModel) -> Mapping[str, float] | None:
        """Fire when the optimizer is made, whichever the host makes, before the schedule and the first step.

        Returns:
            Learning-rate factor by trainable parameter name; absent names have factor 1 and the
            factors of several implementations multiply.
        """

    @hookspec
    def slm_extra_loss(
        self,
        run: StageRun,
        model: PreTrainedModel,
        inputs: Mapping[str, Any],
        outputs: Any,
        weight: float | torch.Tensor,
    ) -> torch.Tensor | None:
        """Fire after the forward pass of every training micro-batch.

        Where the host takes the mean over the answer tokens of a whole optimizer step, the scalar ``weight`` is the
        answer tokens of this micro-batch over the step's mean per micro-batch and process, else 1: a
        mean over answer tokens times ``weight`` does not depend on how the step was cut.

        Where an object of the configuration has ``wants_sources = True``, ``inputs["slm_source"]`` says of each
        row where it comes from, ``(batch,)``: 0 for the current stage, k for the k-th replay pool.

        Returns:
            A scalar added to the loss of the optimizer step, averaged over its micro-batches.
        """

    @hookspec
    def slm_extra_gradient(
        self, run: StageRun, parameters: Sequence[torch.nn.Parameter]
    ) -> float | torch.Tensor | None:
        """Fire just before every optimizer step with the parameters that have a gradient.

        The fused twin of ``slm_extra_loss`` for penalties with a closed form: add to ``parameter.grad``
        in place. It runs after gradient clipping and is unaffected by accumulation and loss scaling. Under
        DeepSpeed the parameters are the flat fp32 shards of this process, and it may fire several times a
        step, each time with others of them.

        Returns:
            The penalty's value over all processes, a scalar logged as ``extra_gradient``; summed over
            implementations.
        """

    @hookspec
    def slm_stage_end(self, run: StageRun, model: PreTrainedModel) -> None:
        """Fire on every process after training and after the host saved the result."""

    @hookspec
    def slm_export(self, export_dir: Path) -> None:
        """Fire after ``llamafactory-cli export`` wrote a model with this configuration."""
