"""The conversation buffer as its users use it."""

import asyncio
import json
import sqlite3

import pytest

from llm_memory_plugins import ConversationBufferMemory
from llm_memory_plugins.errors import (
    AccessDenied,
    AmbiguousSession,
    BudgetError,
    ConfigError,
    InvalidInput,
    StoreUnavailable,
    WrongLoop,
)


def turn(n, session="s", **more):
    return [
        {"session_id": session, "role": "user", "content": f"question {n}", **more},
        {"session_id": session, "role": "assistant", "content": f"answer {n}", **more},
    ]


@pytest.fixture
async def memory(config, clock):
    async with ConversationBufferMemory({**config, "window_size": 3}, clock=clock) as opened:
        yield opened


async def fill(memory, turns, **more):
    await memory.store([m for n in range(turns) for m in turn(n, **more)])


async def test_the_last_turns_come_back_as_messages_and_as_text(memory):
    await fill(memory, 10)
    context = await memory.get_context({"session_id": "s"})
    assert [m["content"] for m in context["messages"]] == [
        f"{r} {n}" for n in (7, 8, 9) for r in ("question", "answer")
    ]
    assert context.get("summary", "") == ""
    assert context.text.splitlines()[1:3] == ["user: question 7", "assistant: answer 7"]
    assert context.tokens == sum(p.tokens for p in context.pieces) + 7 + 3
    (older,) = context.dropped
    assert (older.count, older.reason) == (14, "older than the window")
    assert [p.ids for p in context.pieces] == [(m.id,) for m in context.messages]


async def test_store_gives_back_what_it_stored(memory):
    stored = await memory.store({"session_id": "s", "role": "user", "content": "hello", "user_id": "u"})
    assert (stored.seq, stored.user_id, stored.tokens) == (1, "u", 3)
    many = await memory.store(turn(1))
    assert [m.seq for m in many] == [2, 3]
    assert many[0].user_id == "u", "the one session of that name"


@pytest.mark.parametrize(("kind", "size", "expected"), [("turns", 2, 4), ("tokens", 24, 4), ("time", 90, 4)])
async def test_each_kind_of_window(config, clock, kind, size, expected):
    async with ConversationBufferMemory({**config, "window_type": kind, "window_size": size}, clock=clock) as memory:
        for n in range(5):
            await memory.store(turn(n))
            clock.forward(minutes=1)
        clock.forward(seconds=-45)
        context = await memory.get_context("s")
        assert len(context.messages) == expected
        assert context.messages[-1].content == "answer 4"


async def test_a_request_may_set_its_own_budget_and_the_context_keeps_it(memory):
    await fill(memory, 3)
    for budget in (20, 30, 50, 80):
        context = await memory.get_context({"session_id": "s", "max_total_tokens": budget})
        assert -(-len(context.text) // 4) <= context.tokens <= budget == context.max_total_tokens
        assert context.messages[0].role == "user"
    with pytest.raises(BudgetError, match="max_total_tokens"):
        await memory.get_context({"session_id": "s", "max_total_tokens": 10})


async def test_an_unknown_session_is_an_empty_context(memory):
    context = await memory.get_context({"session_id": "nobody"})
    assert (context.text, context.messages, context.tokens) == ("", (), 0)
    assert (await memory.get_session_stats("nobody")).message_count == 0


async def test_stats_and_sessions(memory, clock):
    await fill(memory, 4, user_id="u")
    await fill(memory, 1, user_id="v", session="t")
    stats = await memory.get_session_stats("s")
    assert (stats["message_count"], stats["turn_count"], stats["user_id"]) == (8, 4, "u")
    assert stats.last_at == clock.time
    assert [s.session_id for s in await memory.list_sessions()] == ["s", "t"]
    assert [s.session_id for s in await memory.list_sessions("v")] == ["t"]


async def test_users_with_a_session_of_one_name(memory):
    await memory.store({"session_id": "default", "user_id": "a", "role": "user", "content": "a's"})
    await memory.store({"session_id": "default", "user_id": "b", "role": "user", "content": "b's"})
    assert (await memory.get_context({"session_id": "default", "user_id": "a"})).messages[0].content == "a's"
    for call in (memory.get_context, memory.get_session_stats, memory.clear):
        with pytest.raises(AmbiguousSession):
            await call("default")


async def test_an_engine_for_one_user_sees_nobody_else(config, memory):
    await memory.store({"session_id": "s", "user_id": "b", "role": "user", "content": "secret"})
    async with ConversationBufferMemory({**config, "user_id": "a"}) as scoped:
        for call in (
            lambda user: scoped.get_context({"session_id": "s", "user_id": user}),
            lambda user: scoped.get_session_stats("s", user),
            lambda user: scoped.clear("s", user),
            lambda user: scoped.forget(user_id=user),
            scoped.list_sessions,
            lambda user: scoped.store({"session_id": "s", "user_id": user, "role": "user", "content": "x"}),
        ):
            told = []
            for user in ("b", "never heard of"):
                with pytest.raises(AccessDenied) as caught:
                    await call(user)
                told.append(str(caught.value))
            assert told[0] == told[1], "it does not say who exists"
        assert (await scoped.get_context("s")).messages == ()
        assert await scoped.list_sessions() == ()
        mine = await scoped.store({"session_id": "s", "role": "user", "content": "mine"})
        assert mine.user_id == "a"
        assert [json.loads(line)["content"] async for line in scoped.export_lines()] == ["mine"]


async def test_clear_and_forget_leave_no_trace(memory, tmp_path):
    await fill(memory, 5, user_id="u")
    await fill(memory, 1, user_id="u", session="t")
    await memory.get_context("s")
    assert (await memory.clear("s")).removed["messages"] == 10
    assert (await memory.get_context("s")).messages == ()
    assert (await memory.forget(user_id="u")).total == 3
    connection = sqlite3.connect(tmp_path / "memory.sqlite3")
    for table in ("messages", "sessions", "summaries"):
        assert connection.execute(f"select count(*) from {table}").fetchone() == (0,)
    connection.close()


async def test_bad_input_stores_nothing(memory):
    with pytest.raises(InvalidInput, match=r"1\.role"):
        await memory.store([*turn(1)[:1], {"session_id": "s", "role": "usr", "content": "x"}])
    with pytest.raises(InvalidInput, match=r"sesion_id.*did you mean 'session_id'"):
        await memory.get_context({"sesion_id": "s"})
    assert (await memory.get_session_stats("s")).message_count == 0


async def test_export_and_import_are_lossless_and_can_be_repeated(memory, config, tmp_path):
    await memory.store(
        [
            {"session_id": "s", "user_id": "u", "role": "user", "content": "x\n\u2028y", "payload": {"b": b"\x00"}},
            {
                "session_id": "s",
                "user_id": "u",
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c", "name": "f", "arguments": {"a": 1}}],
                "metadata": {"$bytes": "no"},
            },
            {"session_id": "s", "user_id": "u", "role": "tool", "content": "3", "tool_call_id": "c", "name": "f"},
        ]
    )
    path = tmp_path / "out.jsonl"
    assert await memory.export(path, session_id="s") == 3
    before = [m async for m in memory.messages("s")]
    async with ConversationBufferMemory({**config, "database_url": f"sqlite:///{tmp_path}/other.db"}) as other:
        assert await other.import_(path) == await other.import_(path) == 3
        assert [m async for m in other.messages("s")] == before


async def test_lines_without_ids_are_stored_once_and_a_bad_line_stores_nothing(memory, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"role": "user", "content": "same"}\n\n{"role": "user", "content": "same"}\n')
    for _ in range(2):
        assert await memory.import_(path, session_id="s", user_id="u") == 2
    assert (await memory.get_session_stats("s")).message_count == 2
    path.write_text('{"role": "user", "content": "good", "session_id": "new"}\n{"role": "user"}\n')
    with pytest.raises(InvalidInput, match="line 2"):
        await memory.import_(path)
    path.write_text("[1]\n")
    with pytest.raises(InvalidInput, match="line 1"):
        await memory.import_(path)
    assert (await memory.get_session_stats("new")).message_count == 0


async def test_retention_hides_at_once_and_removes_soon(config, clock):
    async with ConversationBufferMemory({**config, "retention_seconds": 3600}, clock=clock) as memory:
        await fill(memory, 2)
        clock.forward(minutes=59)
        await memory.store(turn(2))
        clock.forward(minutes=2)
        context = await memory.get_context("s")
        assert [m.content for m in context.messages] == ["question 2", "answer 2"]
        await memory.store(turn(3))
        await memory.drain()
        assert [m.content async for m in memory.messages("s")] == [
            f"{r} {n}" for n in (2, 3) for r in ("question", "answer")
        ]


async def test_two_engines_on_one_file_see_each_other_s_writes_at_once(config):
    async with ConversationBufferMemory(config) as one, ConversationBufferMemory(config) as two:
        for n in range(4):
            await (one, two)[n % 2].store({"session_id": "s", "role": "user", "content": str(n)})
            for engine in (one, two):
                assert [m.content for m in (await engine.get_context("s")).messages] == [str(i) for i in range(n + 1)]
        await one.clear("s")
        await two.store({"session_id": "s", "role": "user", "content": "new"})
        for engine in (one, two):
            assert [m.content for m in (await engine.get_context("s")).messages] == ["new"]


async def test_it_initialises_itself_can_be_closed_twice_and_opened_again(config):
    memory = ConversationBufferMemory(config)
    await memory.store({"session_id": "s", "role": "user", "content": "x"})
    await memory.close()
    await memory.close()
    assert len((await memory.get_context("s")).messages) == 1
    await memory.close()


def test_another_event_loop_is_refused_at_once(config):
    memory = ConversationBufferMemory(config)

    async def use():
        await memory.get_context("s")

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(use())
        with pytest.raises(WrongLoop, match="runner"):
            second.run(use())
        first.run(memory.close())


async def test_health_says_what_is_wrong_and_never_raises(config, tmp_path):
    async with ConversationBufferMemory(config) as memory:
        health = await memory.health_check()
        assert health["status"] == "healthy"
        assert "T" in health["timestamp"]
        assert health.backends["sqlite"].latency_ms > 0
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database" * 100)
    memory = ConversationBufferMemory({"database_url": f"sqlite:///{broken}"})
    health = await memory.health_check()
    assert health.status == "unhealthy"
    assert "not a database" in health.backends["sqlite"].detail
    with pytest.raises(StoreUnavailable, match="not a database"):
        await memory.store({"session_id": "s", "role": "user", "content": "x"})


async def test_a_file_of_a_newer_version_is_left_alone(config, tmp_path):
    connection = sqlite3.connect(tmp_path / "memory.sqlite3")
    connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(StoreUnavailable, match="upgrade the package"):
        await ConversationBufferMemory(config).initialize()


@pytest.mark.parametrize("url", ["mysql://x", "sqlite:/x", "sqlite://x", "x"])
def test_other_urls_are_refused_without_being_shown(url):
    with pytest.raises(ConfigError, match="database_url"):
        ConversationBufferMemory({"database_url": url + "?password=canary"})


async def test_in_memory_databases_are_their_own(clock):
    url = "sqlite:///:memory:"
    async with (
        ConversationBufferMemory({"database_url": url}) as a,
        ConversationBufferMemory({"database_url": url}) as b,
    ):
        await a.store({"session_id": "s", "role": "user", "content": "x"})
        assert len((await a.get_context("s")).messages) == 1
        assert (await b.get_context("s")).messages == ()


async def test_chat_goes_back_in(memory):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "c"},
        {"role": "assistant", "content": "three"},
    ]
    await memory.store([{"session_id": "s", **m} for m in said])
    chat = (await memory.get_context("s")).chat()
    await memory.store([{"session_id": "t", **m} for m in chat])
    assert (await memory.get_context("t")).chat() == chat


async def test_another_program_s_file_is_left_as_it_is(tmp_path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("create table sessions (a)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="another program"):
        await ConversationBufferMemory({"database_url": f"sqlite:///{path}"}).initialize()
    assert path.read_bytes() == before


async def test_where_a_user_is_required_a_call_without_one_is_refused(config):
    async with ConversationBufferMemory({**config, "require_user": True}) as memory:
        said = {"session_id": "s", "role": "user", "content": "hi"}
        await memory.store({**said, "user_id": "ada"})
        refused = (
            memory.store(said),
            memory.get_context({"session_id": "s"}),
            memory.clear("s"),
            memory.list_sessions(),
        )
        for call in refused:
            with pytest.raises(InvalidInput, match="user_id"):
                await call
        assert len((await memory.get_context({"session_id": "s", "user_id": "ada"})).messages) == 1
    async with ConversationBufferMemory({**config, "require_user": True, "user_id": "ada"}) as hers:
        assert len((await hers.get_context({"session_id": "s"})).messages) == 1
