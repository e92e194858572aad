"""Probe ``lm_harness``: any task of lm-evaluation-harness."""

from __future__ import annotations

import importlib.util
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from slm_plugin.errors import DataError, PipelineError, PluginError, SlmError, suggest
from slm_plugin.eval.protocol import Generator, WorksOnTokens
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.strict import Strict


class LmHarness:
    """A task's own metric, by lm-evaluation-harness, of the evaluated model or of one that is served."""

    class Options(Strict):
        """Options of ``lm_harness``."""

        task: str
        """Name of the task or group of tasks."""

        include: str | None = None
        """Folder with task files of your own, such as one with ``dataset_path: json`` over local data."""

        metric: str | None = None
        """Which metric: ``acc``, or with the harness's filter ``exact_match,strict-match``; the first unless set."""

        few_shot: int | None = Field(default=None, ge=0)
        """Solved examples in the prompt; as the task says unless set."""

        chat: bool = False
        """Whether prompts are user turns of the model's chat template; base models are asked without."""

        served: str | None = None
        """Address of a server of OpenAI's completions, such as vLLM's ``http://127.0.0.1:8000``, which is asked in
        place of the model in hand; its tokenizer must be that model's."""

        served_model: str | None = None
        """Name of the model there; needed with ``served``."""

        max_length: int = Field(default=4096, ge=2)
        """Longest prompt and answer together, in tokens; longer prompts lose their beginning."""

        n: int | None = Field(default=None, ge=1)
        """How many documents of each task; all unless set."""

        examples: int = Field(default=3, ge=0)
        """How many answers to keep for people to read."""

    better: Literal["higher", "lower"] = "higher"
    needs_units = False

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the metric as the harness computes it; its direction is what the task says.

        Raises:
            PipelineError: lm-evaluation-harness is not installed, the generator does not work on token ids, or
                the server cannot be asked.
            PluginError: There is no such task or metric.
            DataError: The task's data cannot be loaded, as without a network.
        """
        if importlib.util.find_spec("lm_eval") is None:
            raise PipelineError("the probe lm_harness needs lm-eval; pip install 'slm-plugin[eval]'.")
        if not isinstance(generator, WorksOnTokens):
            raise PipelineError(f"the probe lm_harness of {skill!r} needs a generator that works on token ids.")
        if self.options.served is not None and self.options.served_model is None:
            raise PipelineError("the probe lm_harness needs served_model, the name of the model at served.")
        manager = self._manager()
        with tempfile.TemporaryDirectory(prefix="slm-harness-") as folder, _own_random_numbers():
            results = self._evaluate(manager, generator, Path(folder))
        return self._score(skill, results)

    def _manager(self) -> Any:
        """Return the harness's index of tasks; its own thousands are looked at only where they are needed."""
        from lm_eval.tasks import TaskManager

        if self.options.include is not None:
            own = TaskManager(include_path=self.options.include, include_defaults=False)
            if self.options.task in own.all_tasks:
                return own
        manager = TaskManager(include_path=self.options.include)
        if self.options.task not in manager.all_tasks:
            known = suggest(self.options.task, manager.all_tasks, "Tasks").split("Tasks: ")[0]
            where = f" or in {self.options.include}" if self.options.include else "; include names a folder of others"
            raise PluginError(f"lm-eval has no task {self.options.task!r}{where}. {known}".rstrip())
        return manager

    def _evaluate(self, manager: Any, generator: WorksOnTokens, folder: Path) -> Mapping[str, Any]:
        from lm_eval import simple_evaluate

        try:
            found: Mapping[str, Any] = simple_evaluate(
                model=self._model(generator, folder),
                tasks=[self.options.task],
                num_fewshot=self.options.few_shot,
                limit=self.options.n,
                apply_chat_template=self.options.chat,
                task_manager=manager,
                # the error is the harness's own, by formula where it has one
                bootstrap_iters=1000,
            )
        except SlmError:
            raise
        except Exception as error:
            # what can go wrong comes from the libraries that read data and talk to servers
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise DataError(f"the task {self.options.task} cannot be scored: {reason}") from error
        return found

    def _model(self, generator: WorksOnTokens, folder: Path) -> Any:
        if self.options.served is None:
            from slm_plugin.eval.harness_model import HarnessModel

            return HarnessModel(generator, self.options.max_length)
        from lm_eval.models.openai_completions import LocalCompletionsAPI

        generator.tokenizer.save_pretrained(folder)
        return LocalCompletionsAPI(
            base_url=f"{self.options.served.rstrip('/').removesuffix('/v1')}/v1/completions",
            model=self.options.served_model,
            tokenizer=str(folder),
            tokenizer_backend="huggingface",
            max_length=self.options.max_length,
            num_concurrent=8,
        )

    def _score(self, skill: str, results: Mapping[str, Any]) -> Score:
        task, wanted = self.options.task, self.options.metric
        cells = results["results"][task]
        keys = [key for key in cells if "," in key and "_stderr," not in key]
        key = next((key for key in keys if wanted is None or wanted in (key, key.split(",")[0])), None)
        if key is None:
            raise PluginError(f"the task {task} has no metric {wanted!r}. {suggest(wanted, keys, 'Metrics')}")
        name, sieve = key.split(",", 1)
        samples = [found for found in results.get("samples", {}).get(task, []) if found.get("filter", sieve) == sieve]
        value, error = float(cells[key]), cells.get(f"{name}_stderr,{sieve}")
        higher = results.get("higher_is_better", {}).get(task, {}).get(name, True)
        return Score(
            skill,
            value,
            sum(counts["effective"] for counts in results["n-samples"].values()),
            "lower" if higher is False else "higher",
            float(error) if isinstance(error, float) and math.isfinite(error) else None,
            [_example(found) for found in samples[: self.options.examples]],
            items=_items([found.get(name) for found in samples], value),
        )


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Keep the caller's random numbers from the harness, which seeds and draws as it likes."""
    import numpy as np
    import torch

    ours, theirs = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)


def _items(values: Sequence[Any], mean: float) -> tuple[tuple[float, float], ...]:
    """Return a document's part of a metric; nothing where the metric is no mean over documents."""
    if not values or not all(isinstance(value, bool | int | float) for value in values):
        return ()
    items = tuple((float(value), 1.0) for value in values)
    return items if math.isclose(sum(top for top, _ in items) / len(items), mean, abs_tol=1e-9) else ()


def _example(sample: Mapping[str, Any]) -> dict[str, str]:
    asked, answers = sample["arguments"], sample["filtered_resps"]
    answer = answers[0]
    if len(asked) > 1:
        # one request for each choice; the answer is the likeliest
        answer = asked[max(range(len(asked)), key=lambda choice: answers[choice][0])][1]
    return {"prompt": str(asked[0][0]), "expected": str(sample["target"]), "answer": str(answer)}


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``lm_harness``."""
    register("lm_harness", LmHarness)
