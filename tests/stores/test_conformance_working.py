"""The suite of working memory over every store there is, and what is particular to Redis."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import redis.asyncio
from pydantic import SecretStr

from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.stores.local_working import LocalWorkingSet
from llm_memory_plugins.stores.redis import RedisClient
from llm_memory_plugins.stores.redis.working import RedisWorkingSet
from llm_memory_plugins.testing.working_history import held, rules
from llm_memory_plugins.testing.working_model import SPACE, change, draft
from llm_memory_plugins.testing.working_set import OTHER, WorkingSetSuite

PATIENT = 5.0  # seconds: these tests are about what is answered, not how soon, on a machine that does much else


class TestLocalWorkingSet(WorkingSetSuite):
    @pytest.fixture
    def clock(self):
        self.time = datetime(2026, 5, 1, tzinfo=UTC)

        def now():
            self.time += timedelta(microseconds=1)
            return self.time

        return now

    @pytest.fixture
    def make(self, clock):
        return lambda rules: LocalWorkingSet(rules, clock=clock)

    @pytest.fixture
    def wait(self):
        async def wait(seconds):
            self.time += timedelta(seconds=seconds)

        return wait

    async def test_the_namespace_that_was_used_longest_ago_makes_room(self, clock):
        items = LocalWorkingSet(rules(), clock=clock, max_namespaces=2)
        await items.put(SPACE, [draft("a")])
        await items.put(OTHER, [draft("a")])
        await items.use(SPACE, ["a"])
        await items.put(SPACE._replace(namespace="third"), [draft("a")])
        assert await held(items) == ["a"]
        assert await held(items, OTHER) == []


class OnRedis(WorkingSetSuite):
    steps = 60

    @pytest.fixture
    def prefix(self):
        return f"test-{uuid.uuid4().hex}"

    @pytest.fixture
    async def client(self, server):
        opened = RedisClient(SecretStr(server.url), timeout=PATIENT)
        await opened.ping()
        yield opened
        await opened.close()

    @pytest.fixture
    async def make(self, client, prefix):
        return lambda rules: RedisWorkingSet(client, rules, prefix=prefix)


class OnOneServer(OnRedis):
    @pytest.fixture
    async def behind(self, server):
        """redis-py itself, on the same server: what is really there."""
        raw = redis.asyncio.from_url(server.url)
        yield raw
        await raw.aclose()

    async def keys(self, behind, prefix):
        return [key async for key in behind.scan_iter(f"{prefix}:*")]

    async def test_every_key_has_an_end_and_shows_no_name(self, make, behind, prefix):
        items = make(rules(3))
        for n in range(12):
            await items.put(SPACE, [draft("root", ttl=9)])
            await items.put(SPACE, [draft(f"secret-{n % 5}", parent_id="root", ttl=5 + n % 3)])
            await items.use(SPACE, [f"secret-{n % 5}"])
            if n % 4 == 3:
                await items.delete(SPACE, "root", cascade=True)
                await items.put(OTHER, [draft("x", ttl=7)])
            names = await self.keys(behind, prefix)
            lives = [await behind.pttl(name) for name in names]
            assert all(0 < life <= 9_000 for life in lives), dict(zip(names, lives, strict=True))
            assert not any(word in name for name in names for word in (b"secret", b"other", b"root"))

    async def test_keys_made_anew_while_something_else_is_refused_have_an_end(self, make, behind, prefix):
        items = make(rules())
        await items.put(SPACE, [draft("a"), draft("b", parent_id="a", ttl=0.02), draft("c", parent_id="b", ttl=0.02)])
        await asyncio.sleep(0.05)
        with pytest.raises(InvalidInput):
            await items.put(SPACE, [draft("x", parent_id="nobody")])
        names = await self.keys(behind, prefix)
        assert len(names) == 6
        assert all([await behind.pttl(name) > 0 for name in names])

    async def test_no_key_is_left_of_what_was_erased(self, make, behind, prefix):
        items = make(rules())
        for space in (SPACE, OTHER):
            await items.put(space, [draft("a"), draft("b", parent_id="a")])
        assert len(await self.keys(behind, prefix)) >= 11
        await items.delete(SPACE)
        assert len(await self.keys(behind, prefix)) == 6
        await items.forget("u")
        assert await self.keys(behind, prefix) == []

    async def test_the_names_of_ended_namespaces_go(self, make, behind, prefix, monkeypatch):
        monkeypatch.setattr("llm_memory_plugins.stores.redis.working._SLOTS", 1)
        items = make(rules())
        await items.put(OTHER, [draft("a")])
        await items.put(SPACE, [draft("a", ttl=0.02)])
        await asyncio.sleep(0.05)
        (names,) = [key for key in await self.keys(behind, prefix) if key.endswith(b":names")]
        assert await behind.zrange(names, 0, -1) == [b"n", b"other"]
        await items.put(OTHER, [draft("b")])
        assert await behind.zrange(names, 0, -1) == [b"other"]
        assert (await items.forget("u")).removed == {"items": 2, "namespaces": 1}

    async def test_one_round_trip_a_verb(self, make, client):
        items = make(rules(2))
        verbs = {
            "put": lambda: items.put(SPACE, [draft("a"), draft("b", parent_id="a")]),
            "change": lambda: items.put(SPACE, [change("a", status="done")]),
            "use": lambda: items.use(SPACE, ["a", "b"]),
            "read": lambda: items.read(SPACE),
            "stats": lambda: items.stats(SPACE),
            "delete": lambda: items.delete(SPACE, "a", cascade=True),
            "clear": lambda: items.delete(SPACE),
        }
        for verb in verbs.values():
            await verb()  # the server knows the scripts by now
        sent = []
        original = client._found.driver.execute_command
        client._found.driver.execute_command = lambda *words: (sent.append(words[0]), original(*words))[1]
        for name, verb in verbs.items():
            sent.clear()
            await verb()
            assert sent == ["EVALSHA"], name

    async def test_a_server_that_has_forgotten_the_scripts_is_sent_them_again(self, make, behind):
        items = make(rules())
        for n in range(2):
            for verb in (
                items.put(SPACE, [draft(f"{n}")]), items.use(SPACE, [f"{n}"]), items.read(SPACE), items.stats(SPACE),
                items.delete(SPACE, f"{n}"), items.delete(SPACE),
            ):  # fmt: skip
                await behind.script_flush()
                await verb

    async def test_a_smaller_capacity_holds_from_the_next_store_on(self, make):
        await make(rules(9)).put(SPACE, [draft(str(n)) for n in range(8)])
        smaller = make(rules(3))
        stored = await smaller.put(SPACE, [draft("new", parent_id="1")])
        assert stored.evicted == ("0", "2", "3", "4", "5", "6")
        assert await held(smaller) == ["1", "7", "new"]

    async def test_another_policy_orders_what_is_there_anew(self, make):
        by_use = make(rules(3, "lfu"))
        await by_use.put(SPACE, [draft("a", importance=0.1), draft("b", importance=0.9), draft("c", importance=0.8)])
        await by_use.use(SPACE, ["a", "a", "a", "b"])
        assert (await make(rules(3, "fifo")).put(SPACE, [draft("d", importance=0.9)])).evicted == ("a",)
        assert (await make(rules(3, "importance")).put(SPACE, [draft("e")])).evicted == ("c",)
        assert (await make(rules(3, "importance", 5.0)).put(SPACE, [draft("f")])).evicted == ("e",)
        assert (await by_use.put(SPACE, [draft("g")])).evicted == ("d",)

    @pytest.mark.parametrize("lost", ["items", "contents", "leaves", "ends", "counts"])
    async def test_a_namespace_of_which_the_server_has_evicted_a_part_is_gone(self, make, behind, prefix, lost):
        items = make(rules())
        await items.put(SPACE, [draft("a"), draft("b", parent_id="a")])
        (key,) = [key for key in await self.keys(behind, prefix) if key.endswith(lost.encode())]
        await behind.delete(key)
        assert await items.use(SPACE, ["a"]) == ()
        assert (await items.read(SPACE)).items == ()
        assert (await items.stats(SPACE)).item_count == 0
        (again,) = await items.put(SPACE, [draft("a")])
        assert again.seq == 1
        names = await self.keys(behind, prefix)
        assert len(names) == 6
        assert all([await behind.pttl(name) > 0 for name in names])

    async def test_an_emptied_namespace_keeps_its_counts(self, make):
        items = make(rules(2))
        await items.put(SPACE, [draft("a"), draft("b")])
        await items.put(SPACE, [draft("c")])
        await items.delete(SPACE, "b")
        await items.delete(SPACE, "c")
        stats = await items.stats(SPACE)
        assert (stats.item_count, stats.evicted["capacity"]) == (0, 1)
        assert stats.expires_at is not None


@pytest.mark.slow
class TestWorkingSetOnRedis(OnOneServer):
    @pytest.fixture
    def server(self, redis_server):
        return redis_server


@pytest.mark.slow
class TestWorkingSetOnValkey(OnOneServer):
    @pytest.fixture
    def server(self, valkey_server):
        return valkey_server


@pytest.mark.slow
class TestWorkingSetOverACluster(OnRedis):
    @pytest.fixture
    def server(self, redis_cluster):
        return redis_cluster

    async def test_the_namespaces_of_one_user_are_spread(self, make, redis_cluster):
        items = make(rules())
        spaces = [SPACE._replace(namespace=f"spread {n}") for n in range(60)]
        for space in spaces:
            await items.put(space, [draft("a")])
        for node in redis_cluster.nodes:
            assert int(node.call("DBSIZE")) > 0
        assert (await items.forget("u")).removed["namespaces"] >= 60
