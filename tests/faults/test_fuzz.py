"""The fuzzer of ``benchmarks/fuzz.py``: a short run with a fixed seed, and the long one of its page."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    """The script as a module, which imports its neighbours as if it were run."""
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(SCRIPT.parent))


def judge(results, most_growth_bytes: int) -> None:
    for result in results:
        assert result.failures == []
        assert max(result.lost.values()) <= 0, result
        assert result.all_alive, result.probes
        assert result.growth_bytes <= most_growth_bytes, result


@pytest.mark.slow
async def test_damaged_inputs_give_no_500_and_leave_nothing(fuzz):
    results = await fuzz.fuzz(80, seed=3)
    assert [result.kind for result in results] == list(fuzz.KINDS)
    # so few inputs do not fill the allocator's pools and the store of spoken answers
    judge(results, 64 * 2**20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_ten_thousand_damaged_inputs_of_each_kind_leave_the_memory_flat(fuzz):
    judge(await fuzz.fuzz(10_000, seed=1), 16 * 2**20)
