"""Data-free replay for ``mitigations.py``: the base answers the tiny world's questions itself.

Writes a data folder like the tiny world's with one more data set, ``tiny_own_text``: the questions are those
of ``tiny_text``, the answers the model's own. (A model that was never trained on user turns cannot ask itself.)

    python benchmarks/own_text.py MODEL OUTPUT ROWS SEED
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

DATA = Path("examples/tiny/data")
PROMPTS_PER_ROW = 2


def main() -> None:
    """Copy the data, draw questions and let ``slm replay synthesise`` answer them."""
    model, output, rows, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    output.mkdir(parents=True, exist_ok=True)
    for path in DATA.glob("*.parquet"):
        shutil.copy(path, output)
    shutil.copy(DATA / "dataset_info.json", output)
    questions = parquet.read_table(DATA / "text.parquet")["input"].to_pylist()
    drawn = np.random.default_rng(int(seed)).choice(len(questions), PROMPTS_PER_ROW * rows, replace=False)
    prompts = output / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"input": questions[i]}) + "\n" for i in drawn), encoding="utf-8")
    command = [sys.executable, "-m", "slm_plugin", "replay", "synthesise", "--model", model, "--stage", "llm"]
    command += ["--rows", str(rows), "--output", str(output), "--prompts", str(prompts), "--name", "tiny_own_text"]
    # short answers from a closed world are alike by nature: only equal rows are duplicates
    command += ["--engine", "transformers", "--seed", seed, "--temperature", "0", "--max-new-tokens", "40"]
    command += ["--attempts", str(PROMPTS_PER_ROW), "--near-duplicates", "1.0"]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
