"""Key-value memory does what a dict does: two processes over one store, in any order, whatever Redis loses."""

import asyncio
import base64
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from tests.unit.test_codec import VALUES, same

from llm_memory_plugins import KeyValueStoreMemory
from llm_memory_plugins.errors import Conflict, InvalidInput
from llm_memory_plugins.values import add, merge_patch

KEYS = st.sampled_from(["a", "ab", "b", "a:b", "é", "%", "$set", "'"])
SOME = st.lists(KEYS, max_size=5)
SPACES = st.sampled_from([("", "m"), ("u", "m"), ("u", "n"), ("v:", "m")])
PROCESS = st.sampled_from([0, 1])
TTLS = st.sampled_from([None, 60, 3600])
NUMBERS = st.integers(-(10**12), 10**12) | st.floats(-1e6, 1e6)
MEMBERS = st.none() | st.integers() | st.dictionaries(st.just("d"), st.none() | st.text("q"))
PATCHES = st.dictionaries(st.sampled_from("xyz"), MEMBERS)


class Machine(RuleBasedStateMachine):
    """Two processes beside a dict: space and key -> value and end."""

    def __init__(self, config):
        super().__init__()
        self.time = datetime(2026, 3, 1, tzinfo=UTC)
        self.run = asyncio.Runner().run
        self.life = uuid.uuid4().hex  # of users: what other examples have stored is not these ones'
        self.memories = [KeyValueStoreMemory(config, clock=lambda: self.time) for _ in range(2)]
        self.redis = redis.from_url(config["redis_url"]) if "redis_url" in config else None
        self.model = {}
        self.versions = {}

    def teardown(self):
        for memory in self.memories:
            self.run(memory.close())
        if self.redis:
            self.redis.close()
        self.run.__self__.close()

    def named(self, space):
        return {"user_id": self.life + space[0], "namespace": space[1]}

    def held(self, space, key):
        value, ends = self.model.get((space, key), (None, self.time))
        return None if ends is not None and ends <= self.time else (value,)

    def ends(self, ttl):
        return None if ttl is None else self.time + timedelta(seconds=ttl)

    def keep(self, space, key, entry, ends):
        """What was stored is what was meant, in a version higher than all before."""
        self.model[space, key] = entry.value, ends
        assert entry.expires_at == ends
        assert entry.version > self.versions.get((space, key), 0)
        self.versions[space, key] = entry.version

    @rule(which=PROCESS, space=SPACES, values=st.dictionaries(KEYS, VALUES, max_size=4), ttl=TTLS)
    def store(self, which, space, values, ttl):
        stored = self.run(self.memories[which].mset(values, ttl_seconds=ttl, **self.named(space)))
        for entry in stored:
            assert same(entry.value, values[entry.key])
            self.keep(space, entry.key, entry, self.ends(ttl))

    @rule(which=PROCESS, space=SPACES, key=KEYS, by=NUMBERS, ttl=TTLS)
    def increment(self, which, space, key, by, ttl):
        held = self.held(space, key)
        total = add(held[0], by) if held else by
        work = self.memories[which].increment(key, by, ttl_seconds=ttl, **self.named(space))
        if total is None:
            with pytest.raises(InvalidInput):
                self.run(work)
            return
        entry = self.run(work)
        assert same(entry.value, total)
        self.keep(space, key, entry, self.model[space, key][1] if held else self.ends(ttl))

    @rule(which=PROCESS, space=SPACES, key=KEYS, patch=PATCHES, ttl=TTLS)
    def update(self, which, space, key, patch, ttl):
        held = self.held(space, key)
        entry = self.run(self.memories[which].update(key, patch, ttl_seconds=ttl, **self.named(space)))
        assert same(entry.value, merge_patch(held[0] if held else None, patch))
        self.keep(space, key, entry, self.model[space, key][1] if held else self.ends(ttl))

    @rule(which=PROCESS, space=SPACES, key=KEYS, value=VALUES, off=st.sampled_from([0, 0, 1, -1]))
    def compare_and_set(self, which, space, key, value, off):
        current = self.versions[space, key] if self.held(space, key) else 0
        expected = max(0, current + off)
        work = self.memories[which].compare_and_set(key, value, expected, **self.named(space))
        if expected == current:
            self.keep(space, key, self.run(work), None)
        else:
            with pytest.raises(Conflict):
                self.run(work)

    @rule(which=PROCESS, space=SPACES, keys=SOME)
    def delete(self, which, space, keys):
        there = {key for key in keys if self.held(space, key)}
        assert self.run(self.memories[which].delete(keys, **self.named(space))) == len(there)
        for key in keys:
            self.model.pop((space, key), None)

    @rule(which=PROCESS, space=SPACES)
    def forget(self, which, space):
        there = [key for (where, key) in self.model if where == space and self.held(space, key)]
        assert self.run(self.memories[which].forget(**self.named(space))).total == len(there)
        self.model = {address: kept for address, kept in self.model.items() if address[0] != space}

    @rule(which=PROCESS, space=SPACES, keys=SOME)
    def read(self, which, space, keys):
        found = self.run(self.memories[which].mget(keys, "nothing", **self.named(space)))
        for key, value in zip(keys, found, strict=True):
            held = self.held(space, key)
            assert same(value, held[0] if held else "nothing")

    @rule(which=PROCESS, space=SPACES, prefix=st.sampled_from(["", "a", "a:", "z", "%"]))
    def list_keys(self, which, space, prefix):
        async def listed():
            return [key async for key in self.memories[which].keys(prefix, **self.named(space))]

        there = [key for (where, key) in self.model if where == space and self.held(space, key)]
        assert self.run(listed()) == sorted(key for key in there if key.startswith(prefix))

    @rule(seconds=st.sampled_from([1, 59, 3600]))
    def wait(self, seconds):
        self.time += timedelta(seconds=seconds)

    @rule(which=PROCESS)
    def prune(self, which):
        self.run(self.memories[which].prune())

    @rule(share=st.sampled_from([1, 2, 3]))
    def redis_loses(self, share):
        for key in [] if self.redis is None else self.redis.keys("*:values"):
            fields = self.redis.hkeys(key)
            self.redis.hdel(key, *fields[::share]) if fields else None

    @rule(which=PROCESS, space=SPACES)
    def sync(self, which, space):
        report = self.run(self.memories[which].sync(**self.named(space)))
        expired = [key for (where, key) in self.model if where == space and not self.held(space, key)]
        assert report.stale == 0
        assert report.deleted <= len(expired), "copies end by the clock of Redis, which goes on at its own pace"


def check(config, examples, steps=30):
    quick = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(lambda: Machine({**config, "tokenizer": "estimate"}), settings=quick)


SEALED = {"encryption_keys": [base64.b64encode(b"k" * 32).decode()], "compression_threshold": 20}


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [{}, SEALED], ids=["plain", "sealed"])
def test_sqlite_does_what_a_dict_does(url, sealed):
    check({"database_url": url, **sealed}, 25)


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [{}, SEALED], ids=["plain", "sealed"])
def test_redis_with_sqlite_does_what_a_dict_does(url, redis_server, sealed):
    check({"database_url": url, "redis_url": redis_server.url, "redis_timeout": 5, **sealed}, 25)


@pytest.mark.slow
def test_postgresql_does_what_a_dict_does(authenticator_url, database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:  # other tests keep copies in Redis
        connection.execute("update llm_memory.store set hot = false")
    check({"database_url": authenticator_url}, 12)


@pytest.mark.slow
def test_redis_with_postgresql_does_what_a_dict_does(authenticator_url, redis_server):
    check({"database_url": authenticator_url, "redis_url": redis_server.url, "redis_timeout": 5}, 12)


@pytest.mark.slow
def test_redis_with_supabase_does_what_a_dict_does(supabase_api, redis_server):
    config = {"supabase_url": supabase_api.url, "supabase_key": supabase_api.service_key}
    check({**config, "redis_url": redis_server.url, "redis_timeout": 5}, 5)
