"""What a server leaves behind: nothing after its end, and after a kill nothing for longer than to the next start."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from faults.conftest import SPEECH
from slm_plugin.errors import EngineError
from slm_serve import history as history_module
from slm_serve.backends.fake import FakeBackend
from slm_serve.history import History
from slm_serve.ops.limits import Limits
from slm_serve.ops.store import MemoryStore, Record, SqliteStore, open_store
from slm_serve.scratch import LOG, scratch_folder

pytestmark = pytest.mark.anyio

SPOKEN = "the <|3|><|4|>cat<|5|><|eot_id|>"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_of_a_server_goes_with_it(temporary):
    with scratch_folder() as folder:
        (folder / "answers.sqlite").write_bytes(b"x")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_killed_server_goes_with_the_next_start(temporary):
    program = (
        f"import tempfile, time; tempfile.tempdir = {str(temporary)!r}\n"
        "from slm_serve.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'answers.sqlite').write_bytes(b'x'); (folder / 'experts').mkdir()\n"
        "    print(folder, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        folder = Path(server.stdout.readline().strip())
        with scratch_folder():
            # it runs, so its folder is its own
            assert (folder / "answers.sqlite").exists()
        server.send_signal(signal.SIGKILL)
        server.wait()
    with scratch_folder() as mine:
        assert list(temporary.iterdir()) == [mine]


def test_folders_of_others_are_left_alone(temporary):
    for name in ("slm-serve-no-lock", "slm-serving", "other"):
        (temporary / name).mkdir()
    (temporary / "slm-serve-link").symlink_to(temporary / "other")
    (temporary / "slm-serve-file").touch()
    with scratch_folder():
        pass
    assert len(list(temporary.iterdir())) == 5


def test_a_failed_start_keeps_the_log_that_it_names_for_a_day(temporary):
    def fail():
        with scratch_folder() as folder:
            (folder / LOG).write_text("the reason")
            (folder / "answers.sqlite").write_bytes(b"x")
            raise EngineError(str(folder))

    with pytest.raises(EngineError) as told:
        fail()
    folder = Path(str(told.value))
    assert {path.name for path in folder.iterdir()} == {LOG, "lock"}
    with scratch_folder():
        assert (folder / LOG).read_text() == "the reason"
    yesterday = time.time() - 25 * 3600
    os.utime(folder / LOG, (yesterday, yesterday))
    with scratch_folder():
        assert not folder.exists()


def test_a_log_in_use_is_no_failed_start(temporary):
    folder = temporary / "slm-serve-running"
    folder.mkdir()
    (folder / LOG).touch()
    os.utime(folder / LOG, (0, 0))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with scratch_folder():
            assert folder.exists()


def record(owner, expires_at=2**40):
    return Record(owner, expires_at, (1, 2))


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path):
    made = MemoryStore(10) if request.param == "memory" else SqliteStore(tmp_path / "answers.sqlite", 10)
    yield made
    await made.close()


async def test_one_key_cannot_push_out_the_answers_of_another(store):
    await store.put("quiet", record("a"))
    for number in range(50):
        await store.put(f"loud{number}", record("b"))
    assert await store.get("quiet") is not None
    # ten in all: its own latest nine
    kept = [number for number in range(50) if await store.get(f"loud{number}")]
    assert kept == list(range(41, 50))


async def test_expired_answers_go_without_a_further_answer(store):
    await store.put("old", record("a", expires_at=1))
    await store.put("new", record("a"))
    if isinstance(store, SqliteStore):
        # a put deletes too; here it was the last one
        store._clock = lambda: 0.0
        await store.put("old", record("a", expires_at=1))
        store._clock = time.time
    assert await store.get("old") is not None
    await store.purge()
    assert await store.get("old") is None
    assert await store.get("new") is not None


async def test_answers_expire_while_the_server_rests(monkeypatch):
    monkeypatch.setattr(history_module, "EXPIRY_S", 0.01)
    kept = MemoryStore()
    history = History(store=kept)
    await kept.put("old", record("a", expires_at=1))
    running = asyncio.create_task(history.expire())
    while await kept.get("old") is not None:
        await asyncio.sleep(0.001)
    running.cancel()


class Dead:
    """A store whose server has gone, from some moment on."""

    def __init__(self, n_checks):
        self.n_checks = n_checks

    async def check(self):
        self.n_checks -= 1
        if self.n_checks < 0:
            raise ConnectionError("refused")

    async def put(self, *_):
        raise ConnectionError("refused")

    async def purge(self):
        raise ConnectionError("refused")

    async def close(self):
        pass


@pytest.mark.parametrize("n_checks", [0, 1], ids=["before the answer", "during it"])
@pytest.mark.parametrize("stream", [False, True])
async def test_no_id_is_given_out_that_was_never_stored(live, n_checks, stream):
    async with live(SPOKEN) as g:
        g.service.history._store = Dead(n_checks)
        answer = await g.ask(stream=stream, **SPEECH)
        assert "store of spoken answers" in answer.text
        assert answer.status_code == (200 if stream and n_checks else 503)
        assert len(g.backend.calls) == n_checks


async def test_a_server_whose_store_is_dead_is_not_ready(live):
    async with live("a") as g:
        await g.service.check()
        g.service.history._store = Dead(0)
        with pytest.raises(EngineError, match="store of spoken answers"):
            await g.service.check()


async def test_a_dead_redis_is_noticed_before_ready():
    pytest.importorskip("redis")
    # a port that nobody listens on
    history = History(store=open_store("redis://127.0.0.1:1/0"))
    with pytest.raises(EngineError, match="store of spoken answers"):
        await history.check()
    await history.close()


async def test_a_context_too_short_for_any_answer_is_not_ready(live):
    async with live(backend=FakeBackend([[[0]]], context=8)) as g:
        with pytest.raises(EngineError, match=r"context of fake is 8 tokens.*--max-model-len"):
            await g.service.check()


async def test_a_large_upload_stays_in_memory(live, monkeypatch):
    rolled = []
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda self: rolled.append(self))
    # above 50 MiB starlette's parser was left its file
    async with live("a", limits=Limits(body_bytes=2**26)) as g:
        file = b"\0" * 51 * 2**20
        answer = await g.http.post(
            "/v1/audio/transcriptions",
            data={"model": "fake"},
            files={"file": ("a.wav", file)},
            timeout=httpx.Timeout(30),
        )
        assert answer.status_code == 400
    assert rolled == []
