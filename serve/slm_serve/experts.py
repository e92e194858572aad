"""Experts from a folder, taken up and exchanged while the server runs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

from slm_plugin.adapters.lora import CONFIG_FILE, load_config
from slm_plugin.adapters.serving import MAX_RANK, refusals
from slm_plugin.errors import EngineError, SlmError
from slm_plugin.generation.chat_form import differing
from slm_serve.backends.experts import SEPARATOR, ExpertBackend
from slm_serve.errors import RefusedError
from slm_serve.ops.metrics import Metrics

POLL_S = 2.0
RANKS = (8, 16, 32, 64, 128, 256, 320, MAX_RANK)
"""Ranks that vLLM's ``--max-lora-rank`` takes."""

_LOG = logging.getLogger("slm_serve.experts")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOAD_S = 60.0


class Door(Protocol):
    """Where adapters enter and leave an engine."""

    async def load(self, version: str, folder: Path) -> None:
        """Take an adapter in.

        Raises:
            EngineError: The engine is away.
            RefusedError: It does not take this adapter.
        """
        ...

    async def unload(self, version: str) -> None:
        """Let an adapter go; what is not there is gone already."""
        ...


class VllmDoor:
    """vLLM's own routes for adapters, open to the gateway alone: behind a loopback address and the engine's key.

    Args:
        url: Address of the engine.
        key: Its key.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {key}"}

    async def load(self, version: str, folder: Path) -> None:
        """Take an adapter in."""
        answer = await self._post("load_lora_adapter", {"lora_name": version, "lora_path": str(folder)})
        if answer.status_code != 200:
            raise RefusedError(f"vLLM does not take it: {answer.text[:500]}")

    async def unload(self, version: str) -> None:
        """Let an adapter go."""
        await self._post("unload_lora_adapter", {"lora_name": version})

    async def _post(self, route: str, body: dict[str, str]) -> httpx.Response:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=_LOAD_S, headers=self._headers) as client:
                return await client.post(f"{self._url}/v1/{route}", json=body)
        except httpx.HTTPError as error:
            raise EngineError(f"the engine does not answer ({type(error).__name__}).") from error


@dataclass(frozen=True)
class Held:
    """An expert in the engine.

    Attributes:
        mark: What its folder looked like.
        version: Its name in the engine.
        copy: What the engine reads: a copy that nobody changes under it.
    """

    mark: str
    version: str
    copy: Path


class Shelf:
    """Keeps the engine's experts those of a folder: each sub-folder with an adapter is one, named as it is.

    A folder that has changed is copied, the copy is checked as ``slm export-check`` does, and only then taken
    in under a new version; requests go to it from the next one on, and the old one leaves when its last
    answer has ended. What is refused changes nothing: the version before goes on answering.

    Args:
        folder: The experts.
        base: The model they are served on.
        scratch: A private folder for the copies.
        door: Leads into the engine.
        backend: Told which version answers.
        reserved: Names that experts may not have: those of the model.
        metrics: Shows how many there are.
    """

    def __init__(
        self,
        folder: Path,
        base: Path,
        scratch: Path,
        door: Door,
        backend: ExpertBackend,
        reserved: frozenset[str],
        metrics: Metrics,
    ) -> None:
        self._folder = folder
        self._base = base
        self._scratch = scratch
        self._door = door
        self._backend = backend
        self._reserved = reserved
        self._metrics = metrics
        self._held: dict[str, Held] = {}
        self._leaving: list[Held] = []
        # folders that were refused, and those that changed a moment ago, as they looked
        self._refused: dict[str, str] = {}
        self._seen: dict[str, str] = {}

    async def run(self) -> None:
        """Look for changes for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            await self._try_scan()

    async def begin(self) -> None:
        """Take in what is there at the start; a failure is logged, and :meth:`run` tries again."""
        await self._try_scan(settled=True)

    async def _try_scan(self, settled: bool = False) -> None:
        try:
            await self.scan(settled)
        except (EngineError, OSError) as error:
            _LOG.warning("experts are looked at again later", extra={"fields": {"why": type(error).__name__}})

    async def scan(self, settled: bool = False) -> None:
        """Take in what is new or changed, and let go of what is gone.

        Args:
            settled: Whether the folders are complete; otherwise one that changed since the last look waits for
                the next.

        Raises:
            EngineError: The engine is away.
        """
        found = await asyncio.to_thread(marks, self._folder)
        for name, mark in found.items():
            known = self._held.get(name)
            if self._refused.get(name) == mark or (known is not None and known.mark == mark):
                continue
            if settled or self._seen.get(name) == mark:
                await self._take(name, mark)
        for name in [name for name in self._held if name not in found]:
            self._backend.withdraw(name)
            self._leaving.append(self._held.pop(name))
            _LOG.info("an expert is gone", extra={"fields": {"expert": name}})
        self._seen = found
        self._metrics.experts.set(len(self._held))
        await self._clear()

    async def reload(self) -> None:
        """Take everything in again: the engine has been started anew.

        Raises:
            EngineError: The engine is away.
        """
        self._leaving = [held for held in self._leaving if self._backend.running(held.version)]
        for name, held in list(self._held.items()):
            try:
                await self._door.load(held.version, held.copy)
            except RefusedError as error:
                # one expert must not keep the engine from answering; the next scan takes its folder in again
                _LOG.error("an expert is refused", extra={"fields": {"expert": name, "why": str(error)}})
                self._backend.withdraw(name)
                del self._held[name]
                _remove(held.copy)

    async def _take(self, name: str, mark: str) -> None:
        reason = self._unfit_name(name)
        version = f"{name}{SEPARATOR}{mark[:12]}"
        copy = self._scratch / version
        if reason is None:
            try:
                reasons = await asyncio.to_thread(self._copy_and_check, self._folder / name, copy)
                reason = "; ".join(reasons) or None
                if reason is None:
                    await self._door.load(version, copy)
            except EngineError:
                _remove(copy)
                raise
            except (SlmError, OSError) as error:
                reason = str(error)
            except Exception as error:
                # its files come from elsewhere: whatever they break is their own refusal
                _LOG.exception("an expert cannot be checked")
                reason = f"its files cannot be read ({type(error).__name__})"
        if reason is not None:
            _remove(copy)
            self._refused[name] = mark
            _LOG.error("an expert is refused", extra={"fields": {"expert": name, "why": reason}})
            return
        before = self._held.get(name)
        self._held[name] = Held(mark, version, copy)
        self._backend.offer(name, version)
        self._refused.pop(name, None)
        if before is not None:
            self._leaving.append(before)
        _LOG.info("an expert is taken in", extra={"fields": {"expert": name, "version": version}})

    def _unfit_name(self, name: str) -> str | None:
        if not _NAME.fullmatch(name):
            return "its name may hold letters, digits, dots, dashes and underscores only, 64 at most"
        return "the model itself has that name" if name in self._reserved else None

    def _copy_and_check(self, folder: Path, copy: Path) -> list[str]:
        _remove(copy)
        shutil.copytree(folder, copy)
        other_form = differing({str(folder): copy, str(self._base): self._base})
        return [*refusals(copy, self._base), *([other_form] if other_form else [])]

    async def _clear(self) -> None:
        """Let go of versions that no answer needs any more."""
        for held in [held for held in self._leaving if not self._backend.running(held.version)]:
            await self._door.unload(held.version)
            self._leaving.remove(held)
            _remove(held.copy)


def marks(folder: Path) -> dict[str, str]:
    """Return how each expert's folder looks: a digest of the names, sizes and times of its files.

    Args:
        folder: Holds one folder per expert; others, and those that begin with a dot, are passed over.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path / CONFIG_FILE).is_file():
            continue
        digest = hashlib.sha256()
        for file in sorted(path.rglob("*")):
            # a file that goes meanwhile is seen next time
            with suppress(OSError):
                stat = file.stat()
                digest.update(f"{file.relative_to(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        found[path.name] = digest.hexdigest()
    return found


def engine_arguments(folder: Path, max_rank: int | None) -> list[str]:
    """Return what vLLM must be told to take experts: their largest rank, and how many to hold.

    Args:
        folder: The experts that are there now.
        max_rank: Largest rank that later ones may have; None for that of those there now, 16 at least.
    """
    ranks = [max_rank or 16]
    if max_rank is None:
        for name in marks(folder):
            with suppress(SlmError, TypeError, ValueError):
                ranks.append(int(load_config(folder / name).get("r") or 0))
    rank = next((rank for rank in RANKS if rank >= max(ranks)), MAX_RANK)
    return ["--enable-lora", "--max-loras", "4", "--max-cpu-loras", "32", "--max-lora-rank", str(rank)]


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
