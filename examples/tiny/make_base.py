"""Write the untrained base model of the tiny world: a tokenizer and a random Llama.

Run ``python examples/tiny/make_base.py runs/demo/random_base``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from slm_plugin.weights.staging import staged
from world.model import make_model
from world.tokenizer import make_tokenizer


def main() -> None:
    """Write the folder that the command line names; it appears whole or not at all."""
    parser = argparse.ArgumentParser(description="Write the untrained base model of the tiny world.")
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--seed", type=int, default=1126, help="seed of the random weights")
    options = parser.parse_args()
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, options.seed)
    with staged(options.folder) as partial:
        tokenizer.save_pretrained(partial)
        model.save_pretrained(partial)
    print(f"{options.folder}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
