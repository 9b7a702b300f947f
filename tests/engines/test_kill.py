"""Kill -9 in the middle of writing: what was acknowledged is there, nothing twice, and the file opens again."""

import os
import signal
import subprocess
import sys

import pytest

from llm_memory_plugins import ConversationBufferMemory

WRITER = """
import asyncio, sys
from llm_memory_plugins import ConversationBufferMemory

async def main():
    async with ConversationBufferMemory({"database_url": sys.argv[1], "tokenizer": "estimate"}) as memory:
        async def one(n):
            await memory.store({"id": f"m{n}", "session_id": "s", "role": "user", "content": str(n)})
            print(n, flush=True)
        for start in range(0, 1000, 10):
            await asyncio.gather(*(one(n) for n in range(start, start + 10)))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 137, 600])
async def test_killed_while_writing(url, config, after):
    acknowledged = []
    process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        acknowledged.append(int(line))
        if len(acknowledged) == after:
            os.kill(process.pid, signal.SIGKILL)
            break
    acknowledged += [int(line) for line in process.stdout.read().split()]
    process.stdout.close()
    process.wait()
    async with ConversationBufferMemory(config) as memory:
        stored = [m async for m in memory.messages("s")]
        ids = [m.id for m in stored]
        assert len(ids) == len(set(ids))
        assert {f"m{n}" for n in acknowledged} <= set(ids)
        assert [m.seq for m in stored] == list(range(1, len(stored) + 1))
        again = [{"id": f"m{n}", "session_id": "s", "role": "user", "content": str(n)} for n in range(1000)]
        await memory.store(again)
        assert (await memory.get_session_stats("s")).message_count == 1000
