"""The endpoint plugin; where the installed vLLM has no place for one, there is nothing to test."""

from importlib.util import find_spec
from pathlib import Path

_VLLM = find_spec("vllm")
_HAS_THE_GROUP = _VLLM is not None and (Path(_VLLM.origin or "").parent / "plugins/endpoint_plugins").is_dir()

collect_ignore_glob = [] if _HAS_THE_GROUP else ["test_*.py"]
