"""Working memory as its users use it, in process."""

import asyncio

import pytest

from llm_memory_plugins import WorkingMemory
from llm_memory_plugins.errors import AccessDenied, ConfigError, InvalidInput, WrongLoop

TRIP = {"namespace": "trip"}


@pytest.fixture
async def memory(clock):
    async with WorkingMemory({"capacity_limit": 5, "tokenizer": "estimate"}, clock=clock) as opened:
        yield opened


def note(content, namespace="trip", **more):
    return {"namespace": namespace, "content": content, **more}


async def chain(memory, *steps):
    """Steps below each other; returns the last one."""
    last = None
    for step in steps:
        last = await memory.store(note(f"do {step}", key=step, step=step, **({"parent_id": last.id} if last else {})))
    return last


async def test_an_item_is_stored_got_changed_and_deleted(memory, clock):
    stored = await memory.store(note({"price": 220}, importance=0.9, tags=["flight"], step="look"))
    assert (stored.key, stored["content"], stored.status, stored.evicted) == (stored.id, {"price": 220}, "open", ())
    assert (stored.created_at, stored.uses) == (clock.time, 0)
    clock.forward(minutes=5)
    got = await memory.get("trip", stored.key)
    assert (got.uses, got.used_at, got.updated_at) == (1, clock.time, stored.updated_at)
    changed = await memory.update("trip", stored.key, content={"price": 200}, importance=1.0)
    assert (changed.content, changed.importance, changed.tags, changed.uses) == ({"price": 200}, 1.0, ("flight",), 1)
    done = await memory.conclude("trip", stored.key, "book it")
    assert (done.status, done.conclusion, done.content) == ("done", "book it", {"price": 200})
    assert (await memory.conclude("trip", stored.key, "no", status="abandoned")).status == "abandoned"
    assert (await memory.delete("trip", stored.key)).removed == {"items": 1}
    assert await memory.get("trip", stored.key) is None
    assert await memory.update("trip", stored.key, content=1) is None
    assert await memory.conclude("trip", stored.key, "x") is None
    assert (await memory.delete("trip", stored.key)).total == 0


async def test_what_is_evicted_is_told_and_counted(memory):
    for n in range(5):
        assert (await memory.store(note(n, key=f"k{n}", importance=(n + 1) / 10))).evicted == ()
    assert (await memory.store(note("new"))).evicted == ("k0",)
    stored = await memory.store([note("one"), note("two")])
    assert [item.content for item in stored] == ["one", "two"]
    assert stored.evicted == ("k1", "k2")
    stats = await memory.get_namespace_stats("trip")
    assert (stats["item_count"], stats["capacity_limit"], stats["eviction_policy"]) == (5, 5, "importance")
    assert stats.evicted == {"capacity": 3, "ttl": 0}
    with pytest.raises(InvalidInput, match="capacity_limit is 5"):
        await memory.store([note(n) for n in range(6)])


async def test_an_item_that_was_read_goes_back_in(memory):
    stored = await memory.store(note("first", step=1, tags=["a"]))
    again = await memory.store({**stored, "content": "second"})
    assert (again.id, again.content, again.step, again.tags) == (stored.id, "second", 1, ("a",))
    assert (await memory.get_namespace_stats("trip")).item_count == 1


async def test_chains(memory):
    await chain(memory, "plan", "flight", "seat")
    await memory.store(note("do hotel", key="hotel", step="hotel", parent_id="plan"))
    assert [step.id for step in await memory.get_reasoning_chain("trip")] == ["plan", "hotel"]
    assert [step.id for step in await memory.get_reasoning_chain("trip", "seat")] == ["plan", "flight", "seat"]
    await memory.conclude("trip", "hotel", "full", status="abandoned")
    assert [step.id for step in await memory.get_reasoning_chain("trip")] == ["plan", "flight", "seat"]
    assert await memory.get_reasoning_chain("trip", "nobody") == ()
    assert await memory.get_reasoning_chain("elsewhere") == ()
    with pytest.raises(InvalidInput, match="cascade"):
        await memory.delete("trip", "flight")
    assert (await memory.delete("trip", "flight", cascade=True)).total == 2
    with pytest.raises(InvalidInput, match="parent_id"):
        await memory.store(note("x", parent_id="flight"))


async def test_a_context_begins_with_the_active_path_and_what_it_shows_was_used(memory, clock):
    await chain(memory, "plan", "flight")
    await memory.conclude("trip", "plan", "two steps")
    await memory.store(note("the budget is 500 EUR", key="budget", importance=0.9))
    await memory.store(note("an aisle seat, please", key="seat", importance=0.2))
    clock.forward(seconds=60)
    context = await memory.get_context({"namespace": "trip", "max_tokens": 100})
    assert context.text == (
        '<memory source="working_memory">\n[reasoning]\n- plan: do plan (done) => two steps\n- flight: do flight\n'
        "[notes]\n- the budget is 500 EUR\n- an aisle seat, please\n</memory>\n"
    )
    assert -(-len(context.text) // 4) <= context.tokens <= 100 == context.max_total_tokens
    assert (context.session_id, context.sources) == (
        "trip", {"working_memory": sum(piece.tokens for piece in context.pieces)}
    )  # fmt: skip
    assert [piece.ids for piece in context.pieces] == [("plan",), ("flight",), ("budget",), ("seat",)]
    assert "importance 0.9, used 0 times, 60 s ago" in context.pieces[2].reason
    small = await memory.get_context({"namespace": "trip", "query": "Which seat?", "max_tokens": 42})
    assert [piece.ids[0] for piece in small.pieces] == ["plan", "flight", "seat"]
    assert small.dropped[0].ids == ("budget",)
    assert [(await memory.get("trip", key)).uses for key in ("budget", "seat")] == [2, 3]
    assert (await memory.get_context("elsewhere")).text == ""
    tiny = await memory.get_context({"namespace": "trip", "max_tokens": 3})
    assert (tiny.text, tiny.tokens, tiny.dropped[0].count) == ("", 0, 4)


async def test_the_engine_s_own_budget(clock):
    config = {"max_total_tokens": 30, "tokenizer": "estimate"}
    async with WorkingMemory(config, clock=clock) as memory:
        await memory.store([note(f"note {n} of many", key=str(n)) for n in range(20)])
        assert 20 < (await memory.get_context("trip")).tokens <= 30
        assert 50 < (await memory.get_context({"namespace": "trip", "max_tokens": 60})).tokens <= 60


async def test_a_large_namespace(clock):
    async with WorkingMemory({"capacity_limit": 3000, "tokenizer": "estimate"}, clock=clock) as memory:
        for start in range(0, 3000, 1000):
            await memory.store([note(f"note {n}", importance=n / 3000) for n in range(start, start + 1000)])
        context = await memory.get_context({"namespace": "trip", "query": "note 77", "max_tokens": 100})
        assert "- note 77\n" in context.text
        assert (await memory.get_namespace_stats("trip")).item_count == 3000


async def test_without_chains_there_are_no_parents(clock):
    async with WorkingMemory({"enable_reasoning_chain": False, "tokenizer": "estimate"}, clock=clock) as memory:
        root = await memory.store(note("a step", step="one"))
        for call in (
            memory.store(note("x", parent_id=root.id)),
            memory.update("trip", root.id, parent_id=root.id),
        ):
            with pytest.raises(InvalidInput, match=r"^parent_id: needs enable_reasoning_chain"):
                await call
        with pytest.raises(InvalidInput, match=r"^1\.parent_id: needs enable_reasoning_chain"):
            await memory.store([note("x"), note("y", parent_id=root.id)])
        with pytest.raises(InvalidInput, match="enable_reasoning_chain"):
            await memory.get_reasoning_chain("trip")
        assert (await memory.get_context("trip")).text == (
            '<memory source="working_memory">\n- one: a step\n</memory>\n'
        )


async def test_items_end(memory, clock):
    await memory.store(note("brief", key="brief", ttl_seconds=60))
    await memory.store(note("usual", key="usual"))
    clock.forward(seconds=61)
    assert await memory.get("trip", "brief") is None
    assert (await memory.get_namespace_stats("trip")).evicted == {"capacity": 0, "ttl": 1}
    clock.forward(minutes=28)
    await memory.update("trip", "usual", importance=0.6)
    clock.forward(minutes=29)
    assert await memory.get("trip", "usual") is not None
    clock.forward(minutes=1)
    assert (await memory.get_context("trip")).text == ""


async def test_importance_fades_by_the_half_life(clock):
    config = {"capacity_limit": 2, "importance_half_life_seconds": 60}
    async with WorkingMemory(config, clock=clock) as memory:
        await memory.store(note("important", key="important", importance=0.8))
        clock.forward(seconds=121)
        await memory.store(note("plain", key="plain", importance=0.2))
        assert (await memory.store(note("new", key="new", importance=1))).evicted == ("important",)
        clock.forward(seconds=59)
        await memory.store(note("plain", key="plain", importance=0.55))
        assert (await memory.store(note("newer"))).evicted == ("new",)


@pytest.mark.parametrize(("policy", "gone"), [("lru", "b"), ("lfu", "b"), ("fifo", "a"), ("ttl", "c")])
async def test_the_other_policies(clock, policy, gone):
    async with WorkingMemory({"capacity_limit": 3, "eviction_policy": policy}, clock=clock) as memory:
        for key, ttl in (("a", 500), ("b", 400), ("c", 300)):
            await memory.store(note(key, key=key, ttl_seconds=ttl))
        for key in "ac":
            await memory.get("trip", key)
        assert (await memory.store(note("new"))).evicted == (gone,)


async def test_clear_and_forget(memory):
    for user in (None, "ann", "bob"):
        for namespace in ("trip", "work"):
            named = {"user_id": user} if user else {}
            await memory.store([note(n, namespace, **named) for n in range(2)])
    assert (await memory.clear("trip", "ann")).removed == {"items": 2}
    assert (await memory.get_namespace_stats("trip", "ann")).item_count == 0
    assert (await memory.get_namespace_stats("trip")).item_count == 2
    assert (await memory.forget(user_id="bob")).removed == {"items": 4, "namespaces": 2}
    assert (await memory.get_namespace_stats("work", "bob")).item_count == 0
    assert (await memory.get_namespace_stats("work", "ann")).item_count == 2
    assert (await memory.forget(user_id="")).removed == {"items": 4, "namespaces": 2}


async def test_users_do_not_meet(memory):
    for user in ("ann", "bob"):
        await memory.store(note(f"{user}'s", key="k", user_id=user))
    assert (await memory.get("trip", "k", user_id="ann")).content == "ann's"
    assert await memory.get("trip", "k") is None
    with pytest.raises(InvalidInput, match="parent_id"):
        await memory.store(note("x", parent_id="k"))
    assert "bob" not in (await memory.get_context({"namespace": "trip", "user_id": "ann"})).text


async def test_an_engine_for_one_user(clock):
    async with WorkingMemory({"user_id": "ann"}, clock=clock) as scoped:
        assert (await scoped.store(note("hers", key="k"))).user_id == "ann"
        for user in ("bob", ""):
            for call in (
                scoped.store(note("x", user_id=user)),
                scoped.get("trip", "k", user_id=user),
                scoped.update("trip", "k", user_id=user, status="done"),
                scoped.conclude("trip", "k", "x", user_id=user),
                scoped.delete("trip", "k", user_id=user),
                scoped.clear("trip", user),
                scoped.forget(user_id=user),
                scoped.get_reasoning_chain("trip", user_id=user),
                scoped.get_namespace_stats("trip", user),
                scoped.get_context({"namespace": "trip", "user_id": user}),
            ):
                with pytest.raises(AccessDenied):
                    await call
        assert (await scoped.get("trip", "k", user_id="ann")).content == "hers"
    async with WorkingMemory({"require_user": True}) as many:
        for call in (many.store(note("x")), many.get("trip", "k"), many.clear("trip"), many.get_context("trip")):
            with pytest.raises(InvalidInput, match="user_id"):
                await call
        await many.store(note("x", user_id="ann"))


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("namespace", lambda memory: memory.get("", "k")),
        ("namespace", lambda memory: memory.clear(None)),
        ("namespace", lambda memory: memory.get_namespace_stats("a\x00b")),
        ("key", lambda memory: memory.get("trip", None)),
        ("key", lambda memory: memory.delete("trip", "")),
        ("from_id", lambda memory: memory.get_reasoning_chain("trip", 5)),
        ("conclusion", lambda memory: memory.conclude("trip", "k", 5)),
        ("status", lambda memory: memory.conclude("trip", "k", "x", status="finished")),
        ("statsu", lambda memory: memory.update("trip", "k", statsu="done")),
        ("content", lambda memory: memory.update("trip", "k", content=float("nan"))),
        ("user_id", lambda memory: memory.forget(user_id=None)),
        ("content", lambda memory: memory.store(note(object()))),
        ("1.content", lambda memory: memory.store([note("fine"), note(b"x" * 300_000)])),
        ("importance", lambda memory: memory.store(note("x", importance=2))),
        ("parent_id", lambda memory: memory.store(note("x", parent_id="nobody"))),
        ("parent_id", lambda memory: memory.store(note("x", key="k", parent_id="k"))),
        ("max_total_tokens", lambda memory: memory.get_context({"namespace": "trip", "max_tokens": -1})),
    ],
)
async def test_bad_input_is_named_and_the_old_item_intact(memory, field, call):
    before = await memory.store(note({"old": True}, key="k", step="s"))
    with pytest.raises(InvalidInput) as caught:
        await call(memory)
    assert caught.value.field == field
    after = await memory.get("trip", "k")
    assert (after.content, after.updated_at, after.status) == (before.content, before.updated_at, "open")
    assert (await memory.get_namespace_stats("trip")).item_count == 1


@pytest.mark.parametrize(
    "config",
    [
        {"eviction_policy": "random"},
        {"capacity_limit": 0},
        {"ttl_seconds": 0},
        {"ttl_seconds": 1e12},
        {"importance_half_life_seconds": 0},
        {"eviction_polizy": "lru"},
    ],
)
def test_settings_are_checked(config):
    with pytest.raises(ConfigError, match=next(iter(config))):
        WorkingMemory(config)


async def test_engines_without_redis_have_memories_of_their_own_and_report_health(memory):
    await memory.store(note("x"))
    async with WorkingMemory({}) as other:
        assert (await other.get_namespace_stats("trip")).item_count == 0
    health = await memory.health_check()
    assert (health["status"], health.backends) == ("healthy", {})
    await memory.close()
    await memory.close()
    assert (await memory.get_namespace_stats("trip")).item_count == 1, "an engine can be opened again"


def test_another_event_loop_is_refused():
    memory = WorkingMemory()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(memory.store(note("x")))
        with pytest.raises(WrongLoop):
            second.run(memory.get_context("trip"))
        first.run(memory.close())


async def test_the_example_embedded(monkeypatch):
    monkeypatch.delenv("LLM_MEMORY_REDIS_URL", raising=False)
    working_memory = WorkingMemory(
        {"ttl_seconds": 1800, "capacity_limit": 100, "eviction_policy": "importance", "enable_reasoning_chain": True}
    )
    await example(working_memory)


async def example(working_memory):
    await working_memory.initialize()
    stored = await working_memory.store(
        {"namespace": "reasoning_session", "step": 1, "content": "Split the problem", "importance": 0.9}
    )
    await working_memory.store(
        {"namespace": "reasoning_session", "step": 2, "content": {"parts": 3}, "parent_id": stored["id"]}
    )
    stats = await working_memory.get_namespace_stats("reasoning_session")
    assert (stats["item_count"], stats["open_count"]) == (2, 2)
    context = await working_memory.get_context({"namespace": "reasoning_session", "query": "parts", "max_tokens": 500})
    assert '- step 1: Split the problem\n- step 2: {"parts": 3}\n' in context["text"]
    health = await working_memory.health_check()
    assert health["status"] == "healthy"
    await working_memory.close()
