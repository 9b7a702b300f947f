"""Working memory held beside a model by Hypothesis, which looks for the shortest way to make them differ."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pydantic import SecretStr

from llm_memory_plugins.stores.local_working import LocalWorkingSet
from llm_memory_plugins.stores.redis import RedisClient
from llm_memory_plugins.stores.redis.working import RedisWorkingSet
from llm_memory_plugins.testing.working_history import BRIEF, POLICIES
from llm_memory_plugins.testing.working_model import Beside, change, draft
from llm_memory_plugins.working_items import Rules

KEYS = st.sampled_from("abcdefgh")
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "parent_id": KEYS,
        "importance": st.sampled_from((0.0, 0.2, 0.5, 0.9, 1.0)),
        "status": st.sampled_from(("open", "done", "abandoned")),
    },
)


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()

    async def make(self, rules):
        """An empty store, and what lets time go by for it."""
        raise NotImplementedError

    @initialize(
        capacity=st.integers(1, 6), policy=st.sampled_from(POLICIES), half_life=st.sampled_from((0.01, 1.0, 600.0))
    )
    def begin(self, capacity, policy, half_life):
        rules = Rules(capacity, policy, half_life)
        items, wait = self.runner.run(self.make(rules))
        self.beside = Beside(items, rules, wait)
        self.runner.run(self.beside.put(draft("first")))  # the namespace outlives everything that is brief

    @rule(key=KEYS, fields=FIELDS)
    def store(self, key, fields):
        self.runner.run(self.beside.put(draft(key, **fields)))

    @rule(batch=st.dictionaries(KEYS, FIELDS, min_size=2, max_size=5))
    def store_many(self, batch):
        self.runner.run(self.beside.put(*(draft(key, **fields) for key, fields in batch.items())))

    @rule(key=KEYS, fields=FIELDS)
    def update(self, key, fields):
        self.runner.run(self.beside.put(change(key, **fields)))

    @rule(keys=st.lists(KEYS, min_size=1, max_size=4))
    def use(self, keys):
        self.runner.run(self.beside.use(*keys))

    @rule(key=KEYS, cascade=st.booleans())
    def delete(self, key, cascade):
        self.runner.run(self.beside.delete(key, cascade=cascade))

    @rule(keys=st.permutations("abcdefgh"), chained=st.booleans())
    def let_some_end(self, keys, chained):
        below = {"parent_id": keys[0]} if chained else {}
        self.runner.run(self.beside.put(draft(keys[0], ttl=BRIEF), draft(keys[1], **below)))
        self.runner.run(self.beside.wait(1.2 * BRIEF))

    @rule()
    def clear(self):
        self.runner.run(self.beside.clear())
        self.runner.run(self.beside.put(draft("first")))

    def teardown(self):
        self.runner.run(self.close())
        self.runner.close()

    async def close(self):
        pass


class LocalMachine(Machine):
    async def make(self, rules):
        self.time = datetime(2026, 5, 1, tzinfo=UTC)

        def now():
            self.time += timedelta(microseconds=1)
            return self.time

        async def wait(seconds):
            self.time += timedelta(seconds=seconds)

        return LocalWorkingSet(rules, clock=now), wait


def test_in_process():
    run_state_machine_as_test(LocalMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))


@pytest.mark.slow
def test_on_redis(redis_server):
    class RedisMachine(Machine):
        async def make(self, rules):
            self.client = RedisClient(SecretStr(redis_server.url), timeout=5.0)
            return RedisWorkingSet(self.client, rules, prefix=f"test-{uuid.uuid4().hex}"), asyncio.sleep

        async def close(self):
            await self.client.close()

    run_state_machine_as_test(
        RedisMachine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
