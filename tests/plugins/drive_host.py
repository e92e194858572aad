"""Run host YAMLs in one process and print, as JSON, which hooks fired on whose objects.

Usage: ``python drive_host.py train.yaml export.yaml`` in the folder that their paths are relative to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml


def main(paths: list[str]) -> None:
    torch.set_num_threads(1)
    from llamafactory.train.tuner import export_model, run_exp

    from slm_plugin.host import runtime

    fired: list[tuple[str, list[str]]] = []
    stock = runtime.stage_manager

    def watched(instances: Any) -> Any:
        manager = stock(instances)

        def before(name: str, implementations: list[Any], arguments: Any) -> None:
            fired.append((name, [type(each.plugin).__name__ for each in reversed(implementations)]))

        manager.add_hookcall_monitoring(before, lambda *_: None)
        return manager

    runtime.stage_manager = watched
    for path in paths:
        arguments = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        (export_model if "export_dir" in arguments else run_exp)(arguments)
    Path("fired.json").write_text(json.dumps(fired), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
