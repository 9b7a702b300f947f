"""What a process reads is true and never goes back, whatever the hot tier does, and in whatever order things happen.

A fake log and a hot tier that loses, delays, reorders and forgets at will; every step of theirs waits until the model
lets it go on, several of them at once in some order, as answers of a network come in.
"""

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from llm_memory_plugins.errors import StoreUnavailable
from llm_memory_plugins.stores.cached import CachedMessageLog
from llm_memory_plugins.testing.message_log import ONE, START, say
from llm_memory_plugins.types import Appended, Receipt, SessionStats, Tail, Window

WINDOW = Window("turns", 3)
LENGTH = 4  # messages a read returns
PROCESSES = 2
OVER = 2**63  # of an epoch that is over nothing may be read any more
GOOD = 7  # the chance that lets every call succeed
RUNS, STEPS = 100, 150


class World:
    """Where steps wait for each other's turn."""

    def __init__(self):
        self.waiting = []

    async def step(self):
        """Wait for one's turn; whoever gives it says by a number what happens."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        return await turn

    def let_go(self, place, chance):
        self.waiting = [turn for turn in self.waiting if not turn.done()]
        if self.waiting:
            self.waiting.pop(place % len(self.waiting)).set_result(chance)


class FakeLog:
    """The truth. A call may fail before it does anything or after, and takes its time on the way there and back."""

    def __init__(self, world):
        self._world = world
        self.epoch = 0
        self.messages = []
        self.states = {}  # (epoch, last_seq): the messages there were

    @property
    def stats(self):
        if not self.messages:
            return SessionStats(session_id=ONE.session_id, user_id=ONE.user_id)
        return SessionStats(
            session_id=ONE.session_id,
            user_id=ONE.user_id,
            epoch=self.epoch,
            last_seq=len(self.messages),
            message_count=len(self.messages),
            turn_count=len(self.messages),
        )

    async def _sometimes_fails(self):
        if await self._world.step() % 8 == 0:
            raise StoreUnavailable("the log is down")

    async def append(self, messages):
        await self._sometimes_fails()
        if not self.messages:
            self.epoch += 1
        done = []
        for message in messages:
            held = next((m for m in self.messages if m.id == message.id), None)
            if held is None:
                held = replace(message, seq=len(self.messages) + 1)
                self.messages.append(held)
                self.states[self.epoch, held.seq] = tuple(self.messages)
            done.append(held)
        stats = self.stats
        await self._sometimes_fails()
        return Appended(tuple(done), (stats,))

    async def recent(self, session, window):
        await self._sometimes_fails()
        tail = Tail(stats=self.stats, messages=tuple(self.messages[-LENGTH:]))
        await self._sometimes_fails()
        return tail

    async def sessions(self, **wanted):
        await self._sometimes_fails()
        return (self.stats,) if self.messages and wanted["after"] is None else ()

    async def delete(self, **wanted):
        await self._sometimes_fails()
        gone = (self.stats,) if self.messages else ()
        self.messages = []
        await self._sometimes_fails()
        return Receipt({"messages": 1}, gone)


class UnrulyTier:
    """Shared, and of no use but for what it must hold: each copy was true once. Which one it shows is chance."""

    shared = True

    def __init__(self, world, log):
        self._world = world
        self._log = log
        self.copies = []

    async def read(self, session, window):
        chance = await self._world.step()
        if chance % 8 == 0:
            raise StoreUnavailable("the tier is down")
        if chance % 8 == 1 or not self.copies:
            return None
        # The newest one mostly.
        return self.copies[-1 if chance % 8 < 6 else chance // 8 % len(self.copies)]

    async def push(self, stats, messages):
        await self._lose_or_keep(Tail(stats=stats, messages=self._log.states[stats.epoch, stats.last_seq][-LENGTH:]))

    async def fill(self, tail):
        await self._lose_or_keep(tail)

    async def _lose_or_keep(self, tail):
        chance = await self._world.step() % 8
        if chance > 2:
            self.copies.append(tail)
        if chance in {0, 6}:
            raise StoreUnavailable("the tier is down")

    async def drop(self, sessions):
        if await self._world.step() % 8 == 0:
            raise StoreUnavailable("the tier is down")
        return len(sessions)


@dataclass
class Process:
    """A cache of its own, and what it has been told: each read has to be as new at least."""

    cache: CachedMessageLog
    known: tuple[int, int] = (0, 0)  # epoch and seq

    def learns(self, *state):
        self.known = max(self.known, state)


class Model:
    """Calls begin, things happen, answers arrive; each answer is judged by what its process knew when it asked."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.world = World()
        self.log = FakeLog(self.world)
        self.tier = UnrulyTier(self.world, self.log)
        self.processes = [Process(CachedMessageLog(self.log, self.tier)) for _ in range(PROCESSES)]
        self.calls = []
        self.sent = []
        self.erasures = 0
        self.seen = Counter()

    async def run(self, steps):
        acts = [self.write, self.read, self.cancel, self.erase, self.answers_arrive]
        for act in self.random.choices(acts, [3, 4, 1, 0.1, 12], k=steps):
            act()
            await self.settle()
        while self.world.waiting:
            self.world.let_go(0, GOOD)
            await self.settle()
        assert all(call.done() for call in self.calls)
        await asyncio.gather(*(call for call in self.calls if not call.cancelled()))

    async def settle(self):
        """Until nobody can go on by itself."""
        for _ in range(8):
            await asyncio.sleep(0)

    def call(self, work):
        self.calls.append(asyncio.create_task(self._judged(work)))

    async def _judged(self, work):
        try:
            await work
        except StoreUnavailable:
            self.seen["failed"] += 1

    def write(self):
        again = self.sent and self.random.random() < 0.3
        if not again:
            self.sent.append(say(id=f"m{len(self.sent)}", created_at=START))
        message = self.random.choice(self.sent) if again else self.sent[-1]
        self.call(self._write(self.random.choice(self.processes), message))

    async def _write(self, process, message):
        done = await process.cache.append([message])
        self.seen["written"] += 1
        process.learns(done.stats[0].epoch, done.messages[0].seq)

    def read(self):
        self.call(self._read(self.random.choice(self.processes)))

    async def _read(self, process):
        known = process.known
        tail = await process.cache.recent(ONE, WINDOW)
        self.seen["read"] += 1
        state = (tail.stats.epoch, tail.stats.last_seq)
        if not tail.stats.epoch:
            assert not tail.messages
            assert known == (0, 0) or self.erasures, f"nothing was read, {known} was known"
            return
        assert tail.messages == self.log.states[state][-LENGTH:], f"{state} was not like this"
        assert state >= known, f"{state} was read, {known} was known"
        process.learns(*state)

    def erase(self):
        self.erasures += 1
        self.call(self._erase(self.random.choice(self.processes)))

    async def _erase(self, process):
        receipt = await process.cache.delete(user_id=ONE.user_id, session_id=ONE.session_id)
        self.seen["erased"] += 1
        for gone in receipt.sessions:
            process.learns(gone.epoch, OVER)

    def answers_arrive(self):
        """All of them before anybody goes on."""
        for _ in range(self.random.randint(1, 4)):
            self.world.let_go(self.random.getrandbits(16), self.random.getrandbits(16))

    def cancel(self):
        self.calls = [call for call in self.calls if not (call.done() and call.cancelled())]
        if running := [call for call in self.calls if not call.done()]:
            self.seen["cancelled"] += 1
            self.random.choice(running).cancel()


@pytest.mark.parametrize("_", range(4))
async def test_whatever_happens_reads_are_true_and_never_go_back(_):
    complaints, seen = [], Counter()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    for _ in range(RUNS):
        seed = int(os.environ.get("LLM_MEMORY_TEST_SEED") or random.getrandbits(32))
        model = Model(seed)
        try:
            await model.run(STEPS)
        except AssertionError as error:
            raise AssertionError(f"LLM_MEMORY_TEST_SEED={seed}: {error}") from error
        seen += model.seen
    assert not complaints
    assert all(seen[what] > RUNS / 2 for what in ("written", "read", "cancelled", "failed")), seen
    assert seen["erased"]


async def test_nobody_joins_a_read_that_has_just_ended():
    world = World()
    log = FakeLog(world)
    cache = CachedMessageLog(log, UnrulyTier(world, log))

    async def go_on(*turns):
        for place, chance in turns:
            world.let_go(place, chance)
        for _ in range(8):
            await asyncio.sleep(0)

    async def begun(work):
        task = asyncio.create_task(work)
        await go_on()
        return task

    await log_of_one(log, world)
    early = await begun(cache.recent(ONE, WINDOW))
    for _ in range(3):  # the tier, the log there and back: the copy is about to be filled
        await go_on((0, GOOD))
    write = await begun(cache.append([say(id="new", created_at=START)]))
    for _ in range(3):
        await go_on((1, GOOD))
    late = await begun(cache.recent(ONE, WINDOW))
    assert (await write).stats[0].last_seq == 2
    await go_on((0, GOOD), (0, 1))  # in one turn of the loop the early read ends, and the late one finds no copy
    for _ in range(3):
        await go_on((0, GOOD))
    assert (await early).stats.last_seq == 1
    assert (await late).stats.last_seq == 2


async def log_of_one(log, world):
    """Begin the session, past the model."""
    writing = asyncio.create_task(log.append([say(id="old", created_at=START)]))
    while not writing.done():
        world.let_go(0, GOOD)
        await asyncio.sleep(0)
