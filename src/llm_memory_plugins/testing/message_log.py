"""What every `MessageLog` must hold. Subclass, give the fixtures, and pytest runs the whole suite.

```python
class TestMyLog(MessageLogSuite):
    @pytest.fixture
    async def log(self): ...

    async def rows(self, log): ...
```
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llm_memory_plugins.errors import AmbiguousSession, InvalidInput
from llm_memory_plugins.ports import MessageLog
from llm_memory_plugins.types import Message, Role, SessionRef, ToolCall, Window

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
ONE = SessionRef("s", "u")

HOSTILE = [
    "a:b",
    "{tag}",
    "*",
    "a.b@example.org",
    "' or 1=1; drop table messages; --",
    '"; delete from sessions; --',
    "%_",
    "../..",
    "\n\t\r",
    "naïve 日本語 🙂 \u202e",
    "$bytes",
    "x" * 256,
]


def say(
    content: str = "hello", *, session: SessionRef = ONE, role: Role = "user", id: str | None = None, **more: Any
) -> Message:
    """A message as engines hand it to a log."""
    fields: dict[str, Any] = {"tokens": max(1, len(content) // 4), "tokenizer": "estimate", "created_at": START, **more}
    identity = id or f"{random.getrandbits(64):x}"
    return Message(
        id=identity, session_id=session.session_id, user_id=session.user_id, role=role, content=content, **fields
    )


def talk(turns: int, *, session: SessionRef = ONE, tokens: int = 10) -> list[Message]:
    """A conversation of user and assistant in turn, a minute apart, each message of `tokens`."""
    return [
        say(
            f"{role} {turn}",
            session=session,
            role=role,
            id=f"{turn}-{role}",
            tokens=tokens,
            created_at=START + timedelta(minutes=turn),
        )
        for turn in range(turns)
        for role in ("user", "assistant")
    ]


def contents(messages: Sequence[Message]) -> list[str]:
    """Their texts."""
    return [m.content for m in messages]


class MessageLogSuite:
    """Order, identity, ownership, windows, erasure, and hostile input."""

    @pytest.fixture
    async def log(self) -> AsyncIterator[MessageLog]:
        """An empty log. Override."""
        raise NotImplementedError("give the suite a log")
        yield

    async def rows(self, log: MessageLog) -> list[tuple[str, str, int, str, str]]:
        """(user_id, session_id, seq, id, content) of all rows, read behind the store's back. Override."""
        raise NotImplementedError("read the rows without using the log")

    async def test_messages_come_back_as_they_went_in(self, log: MessageLog) -> None:
        message = say(
            "text",
            role="assistant",
            name="Ada",
            tool_calls=(ToolCall("c1", "add", '{"a": 1}'), ToolCall("c2", "add")),
            metadata={"n": 1, "deep": {"x": [1.5, None, True]}},
            payload={"framework": "x", "signature": b"\x00\xff", "at": START},
            created_at=START + timedelta(microseconds=123456),
        )
        result = say("3", role="tool", tool_call_id="c1", name="add")
        done = await log.append([message, result])
        expected = (replace(message, seq=1), replace(result, seq=2))
        assert done.messages == expected
        assert await log.page(ONE) == expected
        assert (await log.recent(ONE, Window("tokens", 1000))).messages == expected

    async def test_order_is_the_order_of_storing_whatever_the_clock_says(self, log: MessageLog) -> None:
        backwards = [say(str(i), created_at=START - timedelta(days=i)) for i in range(5)]
        done = await log.append(backwards)
        assert [m.seq for m in done.messages] == [1, 2, 3, 4, 5]
        assert contents(await log.page(ONE)) == ["0", "1", "2", "3", "4"]
        (stats,) = done.stats
        assert (stats.first_at, stats.last_at) == (START - timedelta(days=4), START)

    async def test_fifty_appenders_at_once_leave_no_gap(self, log: MessageLog) -> None:
        async def write(writer: int) -> None:
            for n in range(4):
                await log.append([say(f"{writer}-{n}-a"), say(f"{writer}-{n}-b")])

        await asyncio.gather(*(write(w) for w in range(50)))
        stored = await log.page(ONE)
        assert [m.seq for m in stored] == list(range(1, 401))
        for writer in range(50):
            own = [c for c in contents(stored) if c.startswith(f"{writer}-")]
            assert own == [f"{writer}-{n}-{half}" for n in range(4) for half in "ab"]
        rows = sorted(await self.rows(log), key=lambda row: row[2])
        assert [(row[2], row[4]) for row in rows] == [(m.seq, m.content) for m in stored]

    async def test_the_same_id_twice_is_one_message(self, log: MessageLog) -> None:
        first = say("first", id="m1")
        done = await log.append([first, replace(first, content="again, in one batch"), say("other", id="m2")])
        assert [m.seq for m in done.messages] == [1, 1, 2]
        retries = await asyncio.gather(*(log.append([replace(first, content=f"retry {i}")]) for i in range(20)))
        assert {(m.seq, m.content) for r in retries for m in r.messages} == {(1, "first")}
        assert retries[0].stats[0].message_count == 2
        assert [row[3] for row in await self.rows(log)] == ["m1", "m2"]

    async def test_the_same_id_in_two_sessions_is_two_messages(self, log: MessageLog) -> None:
        await log.append(
            [say("a", id="m", session=SessionRef("s", "u")), say("b", id="m", session=SessionRef("t", "u"))]
        )
        assert len(await self.rows(log)) == 2

    async def test_a_cancelled_write_is_whole_or_not_there(self, log: MessageLog) -> None:
        acknowledged: list[str] = []

        async def write(n: int) -> None:
            await log.append([say(f"{n}-{part}", id=f"{n}-{part}") for part in range(3)])
            acknowledged.append(str(n))

        for n in range(40):
            task = asyncio.create_task(write(n))
            await asyncio.sleep(random.random() * 0.002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await log.append([say("afterwards")])
        await asyncio.sleep(0.05)
        stored = await log.page(ONE)
        assert [m.seq for m in stored] == list(range(1, len(stored) + 1))
        by_write: dict[str, int] = {}
        for m in stored:
            if m.content == "afterwards":  # what was cancelled may still have come after it
                continue
            by_write[m.id.split("-")[0]] = by_write.get(m.id.split("-")[0], 0) + 1
        assert set(by_write.values()) <= {3}
        assert set(acknowledged) <= set(by_write)

    async def test_all_messages_of_a_call_or_none(self, log: MessageLog) -> None:
        await log.append([say(session=SessionRef("s", "a")), say(session=SessionRef("s", "b"))])
        with pytest.raises(AmbiguousSession):
            await log.append([say("x", session=SessionRef("t", "a")), say("y", session=SessionRef("s"))])
        assert len(await self.rows(log)) == 2

    async def test_two_users_with_a_session_of_one_name_never_meet(self, log: MessageLog) -> None:
        await log.append([say("of a", session=SessionRef("default", "a"))])
        await log.append([say("of b", session=SessionRef("default", "b"))])
        for user in ("a", "b"):
            ref = SessionRef("default", user)
            tail = await log.recent(ref, Window("turns", 5))
            assert contents(tail.messages) == contents(await log.page(ref)) == [f"of {user}"]
            assert tail.stats.user_id == user
        unnamed = SessionRef("default")
        with pytest.raises(AmbiguousSession):
            await log.recent(unnamed, Window("turns", 1))
        with pytest.raises(AmbiguousSession):
            await log.page(unnamed)
        with pytest.raises(AmbiguousSession):
            await log.append([say("whose?", session=unnamed)])
        with pytest.raises(AmbiguousSession):
            await log.delete(session_id="default")
        assert len(await self.rows(log)) == 2

    async def test_without_a_user_the_one_session_of_that_name_is_meant(self, log: MessageLog) -> None:
        await log.append([say("first", session=SessionRef("s", "u"))])
        done = await log.append([say("second", session=SessionRef("s"))])
        assert (done.messages[0].user_id, done.messages[0].seq) == ("u", 2)
        assert contents((await log.recent(SessionRef("s"), Window("turns", 9))).messages) == ["first", "second"]
        fresh = await log.append([say("mine", session=SessionRef("new"))])
        assert fresh.messages[0].user_id == ""

    @pytest.mark.parametrize("users", [(None, "u"), ("u", None), ("u", None, "u"), (None, None, "u")])
    async def test_named_and_unnamed_messages_of_one_batch(
        self, log: MessageLog, users: tuple[str | None, ...]
    ) -> None:
        batch = [say(str(n), session=SessionRef("s", user)) for n, user in enumerate(users)]
        done = await log.append(batch)
        begun = "" if users[0] is None else "u"
        assert [m.user_id for m in done.messages] == [begun if user is None else user for user in users]
        assert sorted((row[0], row[4]) for row in await self.rows(log)) == sorted(
            (m.user_id or "", m.content) for m in done.messages
        )

    @pytest.mark.parametrize("text", HOSTILE)
    async def test_any_id_and_any_text(self, log: MessageLog, text: str) -> None:
        ref = SessionRef(text, text)
        await log.append([say("neighbour", session=SessionRef("s", "u"))])
        await log.append([say(text, session=ref, id=text, name=text, metadata={text: text})])
        (found,) = await log.page(ref)
        assert (found.id, found.content, found.name, dict(found.metadata)) == (text, text, text, {text: text})
        assert (await log.delete(user_id=text)).total > 0
        assert [row[4] for row in await self.rows(log)] == ["neighbour"]

    async def test_pairs_of_ids_that_join_to_the_same_text_do_not_meet(self, log: MessageLog) -> None:
        for user, session in (("a:b", "c"), ("a", "b:c"), ("", "a:b:c")):
            await log.append([say(f"{user}|{session}", session=SessionRef(session, user))])
        for user, session in (("a:b", "c"), ("a", "b:c"), ("", "a:b:c")):
            assert contents(await log.page(SessionRef(session, user))) == [f"{user}|{session}"]

    async def test_large_messages(self, log: MessageLog) -> None:
        text = "".join(chr(random.Random(i).randint(0x21, 0x2FFF)) for i in range(80_000))
        await log.append([say(text)])
        assert (await log.page(ONE))[0].content == text

    async def test_windows_of_turns(self, log: MessageLog) -> None:
        await log.append(talk(20))
        tail = await log.recent(ONE, Window("turns", 3))
        assert contents(tail.messages)[-6:] == [f"{r} {t}" for t in (17, 18, 19) for r in ("user", "assistant")]
        assert (tail.stats.message_count, tail.stats.turn_count, tail.stats.tokens) == (40, 20, 400)
        everything = await log.recent(ONE, Window("turns", 100))
        assert len(everything.messages) == 40

    async def test_windows_of_tokens(self, log: MessageLog) -> None:
        await log.append(talk(20, tokens=10))
        tail = await log.recent(ONE, Window("tokens", 25))
        assert [m.seq for m in tail.messages][-3:] == [38, 39, 40]
        assert sum(m.tokens for m in tail.messages) >= 25
        short = await log.recent(ONE, Window("turns", 10, max_tokens=10))
        assert short.messages[-1].seq == 40
        opened = short.messages[0] if short.messages[0].role == "user" else short.opening
        assert opened is not None
        assert opened.role == "user"

    async def test_a_window_that_would_begin_at_a_result_begins_at_its_call(self, log: MessageLog) -> None:
        calls = tuple(ToolCall(f"c{n}", "add") for n in range(2))
        await log.append(
            [
                *talk(3),
                say("add them", tokens=10),
                say("call", role="assistant", tool_calls=calls, tokens=10),
                *(say(f"result {c.id}", role="tool", tool_call_id=c.id, tokens=10) for c in calls),
                say("done", role="assistant", tokens=10),
            ]
        )
        for tokens in (15, 20, 25, 30):  # would begin at either result
            for window in (Window("tokens", tokens), Window("turns", 1, max_tokens=tokens)):
                tail = await log.recent(ONE, window)
                said = contents(tail.messages)
                assert said[-4:] == ["call", "result c0", "result c1", "done"]
                asked = tail.opening if said[0] == "call" else tail.messages[-5]
                assert asked is not None
                assert asked.content == "add them"

    async def test_windows_of_tokens_count_what_can_be_shown(self, log: MessageLog) -> None:
        for n in range(20):  # an application that stores its long instructions with every turn
            await log.append([say("rules", role="system", tokens=90), say(f"user {n}", tokens=10)])
        tail = await log.recent(ONE, Window("tokens", 50))
        assert [m.content for m in tail.messages if m.role == "user"][-5:] == [f"user {n}" for n in range(15, 20)]

    async def test_windows_as_large_as_can_be(self, log: MessageLog) -> None:
        await log.append(talk(3))
        for window in (Window("turns", 2**40), Window("tokens", 2**40), Window("turns", 2, max_tokens=2**63)):
            assert contents((await log.recent(ONE, window)).messages)[-1] == "assistant 2"
        assert len(await log.page(ONE, limit=2**40)) == 6
        assert len(await log.sessions(limit=2**40)) == 1

    async def test_windows_of_time(self, log: MessageLog) -> None:
        await log.append(talk(20))
        now = START + timedelta(minutes=19)
        tail = await log.recent(ONE, Window("time", 150, now=now))
        assert contents(tail.messages)[-6:] == [f"{r} {t}" for t in (17, 18, 19) for r in ("user", "assistant")]
        later = await log.recent(ONE, Window("time", 60, now=now + timedelta(days=9)))
        assert contents(later.messages)[-2:] == ["user 19", "assistant 19"], "the newest turn is always there"

    async def test_a_system_message_before_the_window_comes_along(self, log: MessageLog) -> None:
        await log.append([say("old rules", role="system"), *talk(5), say("new rules", role="system"), *talk(5)[:0]])
        await log.append([say(f"user {i}") for i in range(9)])
        tail = await log.recent(ONE, Window("turns", 2))
        found = [m.content for m in (tail.system, *tail.messages) if m and m.role == "system"]
        assert found[-1:] == ["new rules"]

    async def test_reads_see_every_earlier_write(self, log: MessageLog) -> None:
        for n in range(30):
            await log.append([say(str(n))])
            tail = await log.recent(ONE, Window("turns", 4))
            assert contents(tail.messages)[-4:] == [str(i) for i in range(max(0, n - 3), n + 1)]
            assert tail.stats.last_seq == n + 1

    async def test_readers_beside_writers_see_a_contiguous_end_that_never_goes_back(self, log: MessageLog) -> None:
        async def write() -> None:
            for n in range(60):
                await log.append([say(str(n))])

        async def read() -> None:
            newest = 0
            while newest < 60:
                tail = await log.recent(ONE, Window("turns", 5))
                seqs = [m.seq for m in tail.messages]
                assert seqs == list(range(seqs[0], seqs[-1] + 1)) if seqs else tail.stats.last_seq == 0
                assert tail.stats.last_seq >= newest
                newest = tail.stats.last_seq
                await asyncio.sleep(0)

        await asyncio.gather(write(), *(read() for _ in range(5)))

    async def test_paging_beyond_a_thousand_rows(self, log: MessageLog) -> None:
        for start in range(0, 2500, 500):
            await log.append([say(str(n), id=str(n)) for n in range(start, start + 500)])
        seen: list[str] = []
        while page := await log.page(ONE, after=len(seen), limit=700):
            assert len(page) <= 700
            seen += contents(page)
        assert seen == [str(n) for n in range(2500)]
        assert len(await log.page(ONE, limit=2500)) == 2500
        assert len((await log.recent(ONE, Window("turns", 1500))).messages) >= 1500

    async def test_a_session_that_is_not_there_is_empty(self, log: MessageLog) -> None:
        tail = await log.recent(SessionRef("nowhere", "u"), Window("turns", 5))
        assert (tail.messages, tail.stats.message_count, tail.stats.epoch) == ((), 0, 0)
        assert await log.page(SessionRef("nowhere")) == ()
        assert await log.sessions(session_id="nowhere") == ()
        assert (await log.delete(session_id="nowhere")).total == 0

    async def test_sessions_are_listed_in_order_and_in_pages(self, log: MessageLog) -> None:
        names = [SessionRef(s, u) for u in ("a", "b") for s in ("1", "2", "3")]
        await log.append([say(session=ref) for ref in reversed(names)])
        assert [(s.user_id, s.session_id) for s in await log.sessions()] == [(r.user_id, r.session_id) for r in names]
        assert len(await log.sessions(user_id="a")) == 3
        assert [s.user_id for s in await log.sessions(session_id="2")] == ["a", "b"]
        rest = await log.sessions(after=names[2], limit=2)
        assert [(s.user_id, s.session_id) for s in rest] == [("b", "1"), ("b", "2")]

    async def test_deleting_a_user_leaves_nothing_of_them_and_all_of_others(self, log: MessageLog) -> None:
        await log.append([say(f"{u}{s}", session=SessionRef(s, u)) for u in ("a", "b") for s in ("1", "2")])
        await log.recent(SessionRef("1", "a"), Window("turns", 1))
        receipt = await log.delete(user_id="a")
        assert receipt.removed["messages"] == 2
        assert receipt.removed["sessions"] == 2
        assert {(s.session_id, s.message_count, s.epoch > 0) for s in receipt.sessions} == {
            ("1", 1, True),
            ("2", 1, True),
        }
        assert {row[0] for row in await self.rows(log)} == {"b"}
        assert (await log.recent(SessionRef("1", "a"), Window("turns", 1))).messages == ()
        assert (await log.append([say(session=SessionRef("1", "a"))])).messages[0].seq == 1

    async def test_deleting_a_session_leaves_the_user_s_others(self, log: MessageLog) -> None:
        await log.append([say(session=SessionRef(s, "a")) for s in ("1", "2")])
        assert (await log.delete(user_id="a", session_id="1")).removed["messages"] == 1
        assert [row[1] for row in await self.rows(log)] == ["2"]

    async def test_a_session_begun_again_shows_nothing_of_its_earlier_life(self, log: MessageLog) -> None:
        for life in ("old", "new"):
            await log.append([say(f"{life} {n}") for n in range(3)])
            tail = await log.recent(ONE, Window("turns", 9))
            assert contents(tail.messages) == [f"{life} {n}" for n in range(3)]
            if life == "old":
                await log.delete(user_id="u", session_id="s")

    async def test_deleting_needs_a_name(self, log: MessageLog) -> None:
        await log.append([say()])
        with pytest.raises(InvalidInput):
            await log.delete()
        assert len(await self.rows(log)) == 1

    async def test_pruning_removes_what_is_older_and_counts_again(self, log: MessageLog) -> None:
        await log.append(talk(10))
        await log.append([say("gone", session=SessionRef("old", "u"), created_at=START - timedelta(days=1))])
        await log.recent(ONE, Window("turns", 20))
        receipt = await log.prune(START + timedelta(minutes=7))
        assert receipt.removed["messages"] == 15
        assert {(s.session_id, s.message_count) for s in receipt.sessions} == {("s", 20), ("old", 1)}
        assert contents(await log.page(ONE)) == [f"{r} {t}" for t in (7, 8, 9) for r in ("user", "assistant")]
        (stats,) = await log.sessions()
        assert (stats.message_count, stats.turn_count, stats.tokens) == (6, 3, 60)
        assert stats.first_at == START + timedelta(minutes=7)
        assert len((await log.recent(ONE, Window("turns", 20))).messages) == 6
        assert (await log.append([say("next")])).messages[0].seq == 21, "a seq is never used again"
