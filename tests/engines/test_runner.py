"""Sync callers: plain code, threads, forks, and a running Jupyter kernel."""

import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from jupyter_client.manager import start_new_kernel

from llm_memory_plugins import ConversationBufferMemory
from llm_memory_plugins.runner import run


def say(n):
    return {"session_id": "s", "role": "user", "content": str(n)}


@pytest.fixture
def memory(config):
    made = ConversationBufferMemory({**config, "window_size": 1000})
    yield made
    run(made.close)


def test_plain_code(memory):
    stored = run(memory.store, say("x"))
    assert run(memory.get_context, {"session_id": "s"}).messages == (stored,)


def test_eight_threads_share_one_engine(memory):
    def work(thread):
        for n in range(25):
            run(memory.store, say(f"{thread}-{n}"))
        return len(run(memory.get_context, "s").messages)

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) == 200
    messages = run(memory.get_context, "s").messages
    assert [m.seq for m in messages] == list(range(1, 201))
    for thread in range(8):
        own = [m.content for m in messages if m.content.startswith(f"{thread}-")]
        assert own == [f"{thread}-{n}" for n in range(25)]


def test_errors_come_through(memory):
    with pytest.raises(ValueError, match="session_id"):
        run(memory.get_context, {})


def test_waiting_on_the_loop_itself_is_refused(memory):
    async def nested():
        run(memory.get_context, "s")

    with pytest.raises(RuntimeError):
        run(nested)


def _in_a_fork(url, results):
    memory = ConversationBufferMemory({"database_url": url, "tokenizer": "estimate"})
    run(memory.store, say("child"))
    results.put([m.content for m in run(memory.get_context, "s").messages])
    run(memory.close)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python warns of any fork beside threads; this is that case
def test_a_forked_child_gets_a_loop_of_its_own(memory, url):
    run(memory.store, say("parent"))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_in_a_fork, args=(url, results))
    child.start()
    assert results.get(timeout=30) == ["parent", "child"]
    child.join(30)
    assert child.exitcode == 0


NOTEBOOK_CELL = """
from llm_memory_plugins import ConversationBufferMemory
from llm_memory_plugins.runner import run
import asyncio
assert asyncio.get_running_loop().is_running()
memory = ConversationBufferMemory({{"database_url": {url!r}, "tokenizer": "estimate"}})
for n in range(3):
    run(memory.store, {{"session_id": "s", "role": "user", "content": str(n)}})
sync = [m.content for m in run(memory.get_context, "s").messages]
other = ConversationBufferMemory({{"database_url": {url!r}, "tokenizer": "estimate"}})
awaited = [m.content for m in (await other.get_context("s")).messages]
await other.close()
run(memory.close)
print(sync, awaited)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the kernel's own libraries
def test_inside_a_running_jupyter_kernel(url):
    manager, client = start_new_kernel(kernel_name="python3")
    printed = []
    try:
        reply = client.execute_interactive(
            NOTEBOOK_CELL.format(url=url), timeout=60, output_hook=lambda m: printed.append(m["content"])
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply["content"]
    assert "['0', '1', '2'] ['0', '1', '2']" in "".join(p.get("text", "") for p in printed)
