"""One process of an application whose stores fail: it writes, repeats itself, gives up waiting, and never gives up.

As a script it is given its settings as JSON, says "ready", works until its standard input ends, and leaves its history
as lines of JSON.
"""

import asyncio
import json
import logging
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr
from tests.faults.history import CANCELLED, Append, Read, dump

from llm_memory_plugins.stores.cached import CachedMessageLog
from llm_memory_plugins.stores.postgres import PostgresTransport
from llm_memory_plugins.stores.redis import RedisClient, RedisHotTier
from llm_memory_plugins.stores.sql_functions import SqlMessageLog
from llm_memory_plugins.types import Message, SessionRef, Window

USER = "u"
START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
PATIENCE = 40.0  # seconds until a message that nobody acknowledges counts as a failure
WINDOWS = [(Window("turns", 5), 5), (Window("turns", 1), 1), (Window("tokens", 8), 8), (Window("turns", 12), 12)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one process does."""

    database_url: str
    redis_url: str
    name: str
    session: str
    seed: int
    writers: list[int]  # whose messages it writes
    others: list[int]  # those of another process, whose messages reach it as well, now and then
    readers: int = 6
    timeout: float = 1.5  # of a call of the database
    ttl: float = 1.0
    duplicates: float = 0.3
    cancelled: float = 0.1
    pause: float = 0.2  # seconds a writer rests at most
    least: int = 250  # appends that are acknowledged before it may end, however slow the machine is


@dataclass
class Report:
    """What came of it."""

    events: list = field(default_factory=list)
    calls: dict = field(default_factory=dict)  # {function of the database: calls}
    duplicates: int = 0
    healed: float = 0.0  # seconds from the end of the work until reads are hot again and without an error
    complaints: list = field(default_factory=list)


class Counting:
    """A transport that counts what is called."""

    def __init__(self, transport):
        self._transport = transport
        self.calls = Counter()

    async def call(self, function, arguments, **options):
        self.calls[function] += 1
        return await self._transport.call(function, arguments, **options)


class Worker:
    """The processes of one run write into the same sessions, each writer into one of them."""

    def __init__(self, settings, stop):
        self.settings = settings
        self.stop = stop
        self.report = Report()
        self.random = random.Random(f"{settings.seed} {settings.name}")
        self._calls = 0
        self._acknowledged = 0

    @property
    def _goes_on(self):
        return not self.stop.is_set() or self._acknowledged < self.settings.least

    async def run(self, ready):
        settings = self.settings
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._complain(str(context)))
        database = PostgresTransport(SecretStr(settings.database_url), timeout=settings.timeout)
        client = RedisClient(SecretStr(settings.redis_url))
        await database.open()
        counting = Counting(database)
        tier = RedisHotTier(client, ttl_seconds=settings.ttl, prefix=settings.session)
        self.log = CachedMessageLog(SqlMessageLog(counting), tier)
        ready()
        try:
            async with asyncio.TaskGroup() as tasks:
                for writer in settings.writers:
                    tasks.create_task(self._write(writer))
                for _ in range(settings.readers):
                    tasks.create_task(self._read())
            await self._heal()
        finally:
            await client.close()
            await database.close()
        self.report.calls = dict(counting.calls)
        return self.report

    async def _write(self, writer):
        number = 0
        await self._rest(self.settings.pause)
        while self._goes_on:
            number += 1
            deliveries = [self._deliver(batch(writer, number))]
            again = self.random.random() < self.settings.duplicates
            how = self.random.choice(["at once", "later", "elsewhere"])
            if again and how != "later":
                # "Elsewhere" it may arrive before, while or after it is written there: writers go at the same pace.
                other = self.random.choice(self.settings.others) if how == "elsewhere" else writer
                deliveries.append(self._deliver(batch(other, number)))
            await asyncio.gather(*deliveries)
            if again and how == "later":
                await self._rest(self.settings.pause)
                await self._deliver(batch(writer, self.random.randint(1, number)))
            self.report.duplicates += again
            await self._rest(self.settings.pause)

    async def _deliver(self, ids):
        """Until it is acknowledged, as an application does that wants to be sure."""
        deadline = time.monotonic() + PATIENCE
        while not await self._append(ids):
            if time.monotonic() > deadline:
                self._complain(f"nobody acknowledged {ids}")
                return
            await self._rest(self.settings.pause)

    async def _append(self, ids):
        session = session_of(self.settings.session, ids[0])
        done, timed = await self._call(self.log.append([message(session, identity) for identity in ids]))
        problem = _problem(done)
        seqs = () if problem else tuple(m.seq for m in done.messages)
        self.report.events.append(Append(**timed, session=session, ids=ids, seqs=seqs, problem=problem))
        self._acknowledged += not problem
        return not problem

    async def _read(self):
        while self._goes_on:
            window, least = self.random.choice(WINDOWS)
            # Most of all the session of the many writers.
            session = self.settings.session + self.random.choice(["", "", "", "/1", "/2"])
            await self._read_once(session, window, least)
            await self._rest(0.02)

    async def _read_once(self, session, window, least):
        tail, timed = await self._call(self.log.recent(SessionRef(session, USER), window))
        if problem := _problem(tail):
            self.report.events.append(Read(**timed, session=session, problem=problem))
            return None
        for each in tail.messages:
            if each.content != message(session, each.id).content:
                self._complain(f"{each.id} of {session} reads {each.content!r}")
        rows = tuple((m.seq, m.id) for m in tail.messages)
        last = tail.stats.last_seq
        self.report.events.append(
            Read(**timed, session=session, rows=rows, last_seq=last, least=least, marked=tail.error)
        )
        return tail

    async def _call(self, work):
        """What came of a call, which is sometimes cancelled, and what to note of it."""
        self._calls += 1
        timed = {"call": f"{self.settings.name}/{self._calls}", "process": self.settings.name}
        limit = self.random.uniform(0, 0.01) if self.random.random() < self.settings.cancelled else None
        timed["start"] = time.monotonic()
        task = asyncio.ensure_future(work)
        if limit is not None:
            await asyncio.wait([task], timeout=limit)
            task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        return result, {**timed, "end": time.monotonic()}

    async def _heal(self):
        """Nobody writes any more: soon reads are served by the copy, and say nothing of a failure."""
        begun = time.monotonic()
        window, least = WINDOWS[0]
        while time.monotonic() - begun < PATIENCE:
            tail = await self._read_once(self.settings.session, window, least)
            if tail is not None and tail.error is None:
                self.report.healed = time.monotonic() - begun
                return
            await asyncio.sleep(0.05)
        self._complain("it did not heal")

    async def _rest(self, most):
        await asyncio.sleep(self.random.uniform(0, most))

    def _complain(self, what):
        self.report.complaints.append(what)


def batch(writer, number):
    """The ids a writer sends in one call: always the same together."""
    return tuple(f"{writer}.{number}.{place}" for place in range(1 + (writer + number) % 2))


def session_of(name, identity):
    """All writers but the last ones write into the same session, so that answers cannot be mixed up unseen."""
    writer = int(identity.partition(".")[0])
    return name if writer < 1000 else f"{name}/{1 + writer % 2}"


def message(session, identity):
    """The message of an id, the same wherever it is sent from."""
    place = int(identity.split(".")[1])
    return Message(
        id=identity,
        session_id=session,
        user_id=USER,
        role="assistant" if place % 3 == 0 else "user",
        content=f"{identity} in {session}",
        created_at=START,
        tokens=1,
        tokenizer="estimate",
    )


def _problem(result):
    if isinstance(result, asyncio.CancelledError):
        return CANCELLED
    return type(result).__name__ if isinstance(result, BaseException) else None


async def main(settings, path):
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait_for_the_end():
        sys.stdin.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    report = await Worker(settings, stop).run(lambda: print("ready", flush=True))
    lines = [dump(event) for event in report.events]
    rest = {key: value for key, value in asdict(report).items() if key != "events"}
    path.write_text("\n".join([json.dumps(rest), *lines]))


if __name__ == "__main__":
    logging.disable()
    asyncio.run(main(Settings(**json.loads(sys.argv[1])), Path(sys.argv[2])))
