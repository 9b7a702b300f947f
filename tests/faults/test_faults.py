"""Several processes write, repeat themselves and read, while one server after the other fails: nothing is lost.

Each run's history is checked as a whole, against the rows the database holds in the end. A run that fails names its
seed; the environment variable `LLM_MEMORY_TEST_SEED` repeats its choices, though not its timing.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg
import pytest
from tests.faults.history import CANCELLED, UNAVAILABLE, Append, Down, Read, check, parse
from tests.faults.worker import Report, Settings, Worker
from tests.servers import Proxy

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FROZEN = 2.0  # seconds; the database is given up after less, Redis long before
TTL = 1.0
HEALED = 12.0  # seconds: the breaker's delay and the pool's, on a machine that does much else
ROWS = """select seq, id from llm_memory.messages m
          join llm_memory.sessions s on s.user_id = m.user_id and s.pk = m.session_pk
          where session_id = %s order by seq"""
SIDE = [1000, 1001]  # a writer of each process that writes into the sessions beside


@dataclass
class Outage:
    """The servers of one run, and the times at which one of them answered nobody."""

    stores: object
    database: Proxy
    hot: Proxy
    random: random.Random
    times: list[Down] = field(default_factory=list)
    up: float = 0.0  # when all stood again

    def during_work(self, fault):
        """Let it be while all is well, while the fault is, and when it is over."""

        def happen():
            time.sleep(0.7)
            fault(self)
            self.up = time.monotonic()
            time.sleep(0.7)

        return happen

    @contextmanager
    def down(self, what):
        start = time.monotonic()
        yield
        self.times.append(Down(what=what, start=start, end=time.monotonic()))

    def flush(self):
        self.stores.redis.call("FLUSHALL")

    def kill_redis(self, seconds=0.7):
        self.stores.redis.kill()
        with self.down("hot"):
            time.sleep(seconds)
        self.stores.redis.restart()

    def freeze_redis(self, seconds=FROZEN):
        self.stores.redis.stop()
        with self.down("hot"):
            time.sleep(seconds)
        self.stores.redis.cont()

    def kill_postgres(self, seconds=0.7):
        self.stores.postgres.kill()
        with self.down("database"):
            time.sleep(seconds)
        self.stores.postgres.restart()

    def freeze_postgres(self, seconds=FROZEN):
        self.stores.postgres.stop()
        with self.down("database"):
            time.sleep(seconds)
        self.stores.postgres.cont()

    def cut(self, proxy, what, seconds=0.7):
        proxy.cut()
        with self.down(what):
            time.sleep(seconds)
        proxy.heal()

    def cut_both_lines(self):
        self.cut(self.hot, "hot")
        time.sleep(0.3)
        self.cut(self.database, "database")

    def kill_both(self, seconds=1.0):
        self.stores.redis.kill()
        with self.down("hot"):
            self.kill_postgres(seconds)
        self.stores.redis.restart()

    def flush_often(self):
        for _ in range(8):
            self.flush()
            time.sleep(0.15)

    def anything(self):
        """All of them, in some order, the pauses between them short or none."""
        faults = [
            *(self.flush, self.kill_redis, self.freeze_redis, self.kill_postgres, self.freeze_postgres),
            *(self.kill_both, self.cut_both_lines, self.flush),
        ]
        self.random.shuffle(faults)
        for fault in faults:
            fault()
            time.sleep(self.random.choice([0, 0.2, 0.6]))


@dataclass
class Run:
    """What came of a run."""

    history: list
    reports: list[Report]
    up: float  # when all servers stood again

    def outcomes(self, kind):
        return Counter(event.problem for event in self.history if isinstance(event, kind))

    @property
    def marked(self):
        return sum(isinstance(event, Read) and event.marked is not None for event in self.history)

    @property
    def cold(self):
        return sum(report.calls["recent_messages"] for report in self.reports)

    @property
    def recovered(self):
        """Seconds until each process was served again after the last outage."""
        done = [e for e in self.history if isinstance(e, Append) and not e.problem and e.end > self.up]
        firsts = [min(e.end for e in done if e.process == process) for process in {e.process for e in done}]
        assert len(firsts) == len(self.reports)
        return max(firsts) - self.up

    def __str__(self):
        healed = max(report.healed for report in self.reports)
        duplicates = sum(report.duplicates for report in self.reports)
        appends, reads = dict(self.outcomes(Append)), dict(self.outcomes(Read))
        seconds = f"healed={healed:.2f} recovered={self.recovered:.2f}"
        return f"{appends=} {reads=} marked={self.marked} cold={self.cold} {duplicates=} {seconds}"


@pytest.fixture
def seed():
    return int(os.environ.get("LLM_MEMORY_TEST_SEED") or random.getrandbits(32))


@pytest.fixture
def outage(stores, seed):
    with Proxy(stores.url) as database, Proxy(stores.redis.url) as hot:
        yield Outage(stores, database, hot, random.Random(seed))
        for proxy in (database, hot):
            proxy.cut()
        time.sleep(0.1)  # what they had just accepted is served by now, so that closing them finds it


def settings(outage, seed, *, writers, pause, proxied):
    """Of two processes, which share the writers between them."""
    first, second = [*range(writers // 2), SIDE[0]], [*range(writers // 2, writers), SIDE[1]]
    database_url = outage.database.url if proxied else outage.stores.url
    redis_url = outage.hot.url if proxied else outage.stores.redis.url
    shared = {"database_url": database_url, "redis_url": redis_url, "session": f"s{seed}", "seed": seed, "ttl": TTL}
    shared["pause"] = pause
    return [
        Settings(**shared, name="p", writers=first, others=second),
        Settings(**shared, name="q", writers=second, others=first),
    ]


def in_processes(tmp_path, both, happen):
    """Let two processes work while something happens."""
    with ExitStack() as stack:
        processes, paths = [], []
        for each in both:
            paths.append(tmp_path / each.name)
            command = [sys.executable, "-W", "error", "-m", "tests.faults.worker", json.dumps(asdict(each)), paths[-1]]
            errors = stack.enter_context((tmp_path / f"{each.name}.errors").open("w"))
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        for process, path in zip(processes, paths, strict=True):
            assert process.stdout.readline() == "ready\n", path.with_suffix(".errors").read_text()
        happen()
        for process in processes:
            process.stdin.close()
        for process, path in zip(processes, paths, strict=True):
            process.wait(90)
            assert process.returncode == 0, path.with_suffix(".errors").read_text()
    reports = []
    for path in paths:
        first, *lines = path.read_text().splitlines()
        reports.append(Report(**{**json.loads(first), "events": [parse(line) for line in lines]}))
    return reports


async def in_one_process(both, happen):
    """Let two stacks of objects, as of two processes, work on one loop while something happens."""
    stop, ready = asyncio.Event(), asyncio.Semaphore(0)
    work = [asyncio.create_task(Worker(each, stop).run(ready.release)) for each in both]
    for _ in both:
        await ready.acquire()
    await asyncio.to_thread(happen)
    stop.set()
    return await asyncio.gather(*work)


def judged(outage, both, reports):
    """The run, found to be without fault."""
    history = [event for report in reports for event in report.events] + outage.times
    session = both[0].session
    with psycopg.connect(outage.stores.behind) as connection:
        names = [session, f"{session}/1", f"{session}/2"]
        rows = {name: connection.execute(ROWS, [name]).fetchall() for name in names}
    run = Run(history, reports, outage.up)
    print(f"seed={both[0].seed} rows={[len(of) for of in rows.values()]} {run}")
    # While Redis is frozen no copy grows older; and a slow reader may fill in what was true when it asked the log.
    frozen = max((time.end - time.start for time in outage.times if time.what == "hot"), default=0.0)
    check(history, rows, ttl=TTL + frozen + both[0].timeout)
    assert [report.complaints for report in reports] == [[], []]
    assert max(report.healed for report in reports) < HEALED
    assert run.recovered < HEALED
    # It was no walk in the park.
    assert all(report.duplicates > 20 for report in reports)
    assert run.outcomes(Append)[CANCELLED] > 20
    assert run.outcomes(Read)[CANCELLED] > 5
    assert all(rows.values())
    return run


def stored_in_vain(run):
    """Appends that were committed, though nobody was told so at first."""
    unsure = {i for event in run.history if isinstance(event, Append) and event.problem for i in event.ids}
    sure = {i for event in run.history if isinstance(event, Append) and not event.problem for i in event.ids}
    return unsure & sure


def colder(run):
    return run.cold


def databases_failed(run):
    return run.outcomes(Append)[UNAVAILABLE]


def tier_failed(run):
    return run.marked


def both_failed(run):
    return min(run.outcomes(Read)[UNAVAILABLE], run.outcomes(Append)[UNAVAILABLE])


def everything_failed(run):
    return min(both_failed(run), run.marked, run.cold)


FAULTS = {
    "flush": (Outage.flush_often, colder, 8),
    "redis is killed": (Outage.kill_redis, tier_failed, 10),
    "redis hangs": (Outage.freeze_redis, tier_failed, 10),
    "postgres is killed": (Outage.kill_postgres, databases_failed, 10),
    "postgres hangs": (Outage.freeze_postgres, databases_failed, 10),
    "lines are cut": (Outage.cut_both_lines, tier_failed, 10),
    "both are killed": (Outage.kill_both, both_failed, 5),
}


@pytest.mark.parametrize(("fault", "seen", "least"), FAULTS.values(), ids=FAULTS)
async def test_nothing_is_lost_doubled_or_reordered(outage, seed, fault, seen, least):
    both = settings(outage, seed, writers=60, pause=0.3, proxied=fault is Outage.cut_both_lines)
    reports = await in_one_process(both, outage.during_work(fault))
    run = judged(outage, both, reports)
    assert seen(run) >= least
    assert stored_in_vain(run)


def test_two_hundred_writers_in_two_processes_while_everything_fails(outage, seed, tmp_path):
    both = settings(outage, seed, writers=200, pause=1.5, proxied=True)
    reports = in_processes(tmp_path, both, outage.during_work(Outage.anything))
    run = judged(outage, both, reports)
    assert everything_failed(run) >= 10
    assert stored_in_vain(run)
