"""Where spoken answers are kept."""

import asyncio
import shutil
import stat
import subprocess

import pytest

from slm_plugin.errors import ConfigError, EngineError
from slm_serve import context
from slm_serve.errors import RequestError
from slm_serve.history import History, Ticket
from slm_serve.ops.store import Record, RedisStore, SqliteStore, open_store

pytestmark = pytest.mark.anyio

RECORD = Record("owner", 2_000_000_000, (1, 2, 300), "a")


async def test_a_file_is_shared_by_servers_and_read_by_its_owner_alone(tmp_path):
    path = tmp_path / "answers.sqlite"
    first, second = SqliteStore(path), SqliteStore(path)
    await first.put("audio_1", RECORD)
    assert await second.get("audio_1") == RECORD
    assert await second.get("audio_2") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await first.close()
    await second.close()
    third = SqliteStore(path)
    assert await third.get("audio_1") == RECORD
    await third.close()


async def test_a_file_forgets_what_has_expired_and_the_oldest_of_too_many(tmp_path):
    now = [100.0]
    store = SqliteStore(tmp_path / "answers.sqlite", capacity=2, clock=lambda: now[0])
    await store.put("old", Record("o", 150, (1,)))
    now[0] = 151.0
    for name in ("a", "b", "c"):
        await store.put(name, Record("o", 300, (1,)))
    found = [name for name in ("old", "a", "b", "c") if await store.get(name)]
    assert found == ["b", "c"]
    await store.close()


async def test_a_file_takes_many_servers_at_once(tmp_path):
    stores = [SqliteStore(tmp_path / "answers.sqlite") for _ in range(4)]
    await asyncio.gather(*(store.put(f"{n}-{k}", RECORD) for n, store in enumerate(stores) for k in range(20)))
    assert all([await stores[0].get(f"{n}-{k}") == RECORD for n in range(4) for k in range(20)])
    for store in stores:
        await store.close()


@pytest.mark.parametrize("address", ["postgres://x", "sqlite://relative", "nonsense"])
def test_other_stores_are_refused(address):
    with pytest.raises(ConfigError, match="memory, sqlite:///FILE or redis"):
        open_store(address)


def test_a_file_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be used"):
        open_store(f"sqlite:///{tmp_path}/none/answers.sqlite")


class Away:
    """A store that does not answer."""

    async def put(self, *_):
        raise ConnectionError("refused")

    async def get(self, _):
        raise ConnectionError("refused")

    async def check(self):
        raise ConnectionError("refused")

    async def close(self):
        pass


async def test_a_store_that_is_away_gives_out_no_id_that_leads_nowhere():
    history = History(store=Away())
    with pytest.raises(EngineError, match="store of spoken answers"):
        await history.issue()
    with pytest.raises(EngineError, match="store of spoken answers"):
        await history.remember(Ticket("audio_1", 2**40), [1])
    with pytest.raises(EngineError, match="store of spoken answers"):
        await history.recall("audio_1", "p")


async def test_an_answer_leads_back_to_the_engine_that_made_it():
    history = History()
    context.enter(context.RequestContext(owner="o", replica="a"))
    ticket = await history.issue()
    await history.remember(ticket, [1])
    later = context.RequestContext(owner="o")
    context.enter(later)
    await history.recall(ticket.id, "p")
    assert later.replica == "a"
    context.enter(context.RequestContext(owner="other"))
    with pytest.raises(RequestError):
        await history.recall(ticket.id, "p")


REDIS = shutil.which("redis-server")


@pytest.mark.skipif(REDIS is None, reason="redis-server is needed: apt-get install redis-server")
async def test_a_redis_keeps_answers_for_their_time(tmp_path):
    import redis.asyncio

    path = tmp_path / "redis.sock"
    process = subprocess.Popen([REDIS, "--port", "0", "--unixsocket", str(path), "--save", ""], cwd=tmp_path)
    try:
        while not path.exists():
            await asyncio.sleep(0.01)
        store = open_store(f"unix://{path}")
        assert isinstance(store, RedisStore)
        await store.put("audio_1", RECORD)
        assert await store.get("audio_1") == RECORD
        assert await store.get("audio_2") is None
        client = redis.asyncio.from_url(f"unix://{path}")
        assert await client.ttl("slm:audio_1") > 1000
        await client.aclose()
        await store.close()
    finally:
        process.terminate()
        process.wait()
