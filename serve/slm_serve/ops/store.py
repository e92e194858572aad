"""Where spoken answers are kept by id: in this process, in a file, or in a Redis, shared by several servers."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from slm_plugin.errors import ConfigError, Problem

CAPACITY = 1000
"""Most answers kept by one store in this process or in a file.

With one more, the oldest answer of the key that has the most goes: no key can push out the answers of the others.
"""


@dataclass(frozen=True)
class Record:
    """A spoken answer.

    Attributes:
        owner: Whose key asked for it, as a digest.
        expires_at: Unix time in seconds from which on it is forgotten.
        ids: Its token ids.
        replica: The engine that made it, whose cache still knows its beginning.
    """

    owner: str
    expires_at: int
    ids: tuple[int, ...]
    replica: str | None = None

    def text(self) -> str:
        """Write as JSON."""
        return json.dumps([self.owner, self.expires_at, self.ids, self.replica], separators=(",", ":"))

    @classmethod
    def parse(cls, text: str | bytes) -> Record:
        """Read what :meth:`text` wrote."""
        owner, expires_at, ids, replica = json.loads(text)
        return cls(owner, expires_at, tuple(ids), replica)


class Store(Protocol):
    """Keeps records by id."""

    async def put(self, audio_id: str, record: Record) -> None:
        """Keep a record."""
        ...

    async def get(self, audio_id: str) -> Record | None:
        """Return a record; None where there is none. Whether it has expired is the caller's to see."""
        ...

    async def check(self) -> None:
        """Raise whatever keeps records from being kept now."""
        ...

    async def purge(self) -> None:
        """Delete the records that have expired."""
        ...

    async def close(self) -> None:
        """Release files and connections."""
        ...


class MemoryStore:
    """Keeps records in this process.

    Args:
        capacity: Most records.
        clock: Gives Unix time in seconds.
    """

    def __init__(self, capacity: int = CAPACITY, clock: Callable[[], float] = time.time) -> None:
        self._capacity = capacity
        self._clock = clock
        self._records: OrderedDict[str, Record] = OrderedDict()

    async def put(self, audio_id: str, record: Record) -> None:
        """Keep a record."""
        self._records[audio_id] = record
        while len(self._records) > self._capacity:
            counts = Counter(kept.owner for kept in self._records.values())
            most = max(counts.values())
            oldest = next(key for key, kept in self._records.items() if counts[kept.owner] == most)
            del self._records[oldest]

    async def get(self, audio_id: str) -> Record | None:
        """Return a record."""
        return self._records.get(audio_id)

    async def check(self) -> None:
        """Do nothing: memory is there."""

    async def purge(self) -> None:
        """Delete the records that have expired."""
        now = self._clock()
        for key in [key for key, record in self._records.items() if record.expires_at <= now]:
            del self._records[key]

    async def close(self) -> None:
        """Do nothing."""


class SqliteStore:
    """Keeps records in a SQLite file that several servers on one machine may share; only its owner can read it.

    Args:
        path: The file, made when absent.
        capacity: Most records.
        clock: Gives Unix time in seconds.
    """

    def __init__(self, path: Path, capacity: int = CAPACITY, clock: Callable[[], float] = time.time) -> None:
        self._capacity = capacity
        self._clock = clock
        # one thread: a connection belongs to one, and the disk must not hold up the loop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slm-store")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = self._thread.submit(_open, path).result()
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            raise ConfigError([Problem("--store", f"{path} cannot be used ({error}).")]) from None

    async def put(self, audio_id: str, record: Record) -> None:
        """Keep a record; what has expired goes, and the oldest when there are too many."""
        await self._run(self._put, audio_id, record)

    async def get(self, audio_id: str) -> Record | None:
        """Return a record."""
        return await self._run(self._get, audio_id)

    async def check(self) -> None:
        """Read from the file."""
        await self._run(self._check)

    async def purge(self) -> None:
        """Delete the records that have expired."""
        await self._run(self._purge)

    async def close(self) -> None:
        """Close the file."""
        await self._run(self._connection.close)
        self._thread.shutdown()

    async def _run(self, call: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    def _put(self, audio_id: str, record: Record) -> None:
        with self._connection as connection:
            values = (audio_id, record.owner, record.expires_at, record.text())
            connection.execute("INSERT OR REPLACE INTO spoken VALUES (?, ?, ?, ?)", values)
            self._delete_expired(connection)
            (n_kept,) = connection.execute("SELECT COUNT(*) FROM spoken").fetchone()
            for _ in range(n_kept - self._capacity):
                connection.execute(_DELETE_ONE)

    def _get(self, audio_id: str) -> Record | None:
        row = self._connection.execute("SELECT record FROM spoken WHERE id = ?", (audio_id,)).fetchone()
        return None if row is None else Record.parse(row[0])

    def _purge(self) -> None:
        with self._connection as connection:
            self._delete_expired(connection)
        # what was deleted stands in the log of writes until it is copied
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _check(self) -> None:
        self._connection.execute("SELECT COUNT(*) FROM spoken").fetchone()

    def _delete_expired(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM spoken WHERE expires_at <= ?", (int(self._clock()),))


_DELETE_ONE = """
DELETE FROM spoken WHERE rowid = (
    SELECT MIN(rowid) FROM spoken WHERE owner = (
        SELECT owner FROM spoken GROUP BY owner ORDER BY COUNT(*) DESC, MIN(rowid) LIMIT 1))
"""
"""Deletes the oldest answer of the key that has the most."""


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5)
    connection.execute("PRAGMA journal_mode=WAL")
    # an answer lost with the power is asked for again
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS spoken (id TEXT PRIMARY KEY, owner TEXT, expires_at INTEGER, record TEXT)"
    )
    # the table of 0.1.0, whose rows had no owner of their own; answers last an hour
    connection.execute("DROP TABLE IF EXISTS answers")
    connection.commit()
    return connection


class RedisStore:
    """Keeps records in a Redis server, which forgets them in time by itself.

    Args:
        client: A ``redis.asyncio.Redis``.
        clock: Gives Unix time in seconds.
    """

    def __init__(self, client: Any, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock

    async def put(self, audio_id: str, record: Record) -> None:
        """Keep a record."""
        lifetime_s = max(1, record.expires_at - int(self._clock()))
        await self._client.set(f"slm:{audio_id}", record.text(), ex=lifetime_s)

    async def get(self, audio_id: str) -> Record | None:
        """Return a record."""
        text = await self._client.get(f"slm:{audio_id}")
        return None if text is None else Record.parse(text)

    async def check(self) -> None:
        """Ask the server for a sign of life."""
        await self._client.ping()

    async def purge(self) -> None:
        """Do nothing: Redis deletes what has expired."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def open_store(address: str) -> Store:
    """Return the store at an address.

    Args:
        address: ``memory``, ``sqlite:///FILE`` (four slashes for an absolute path), or ``redis://...`` as Redis
            writes its addresses (``rediss://`` for TLS).

    Raises:
        ConfigError: There is no such kind of store, or it cannot be opened.
    """
    scheme = urlsplit(address).scheme
    if address == "memory":
        return MemoryStore()
    if scheme == "sqlite" and address.startswith("sqlite:///"):
        return SqliteStore(Path(address.removeprefix("sqlite:///")))
    if scheme in ("redis", "rediss", "unix"):
        try:
            import redis.asyncio
        except ImportError:
            text = "redis is not installed: pip install 'slm-plugin[redis]'."
            raise ConfigError([Problem("--store", text)]) from None
        return RedisStore(redis.asyncio.from_url(address, socket_timeout=2, socket_connect_timeout=2))
    text = f"{address!r} is no store; give memory, sqlite:///FILE or redis://HOST:PORT/0."
    raise ConfigError([Problem("--store", text)])
