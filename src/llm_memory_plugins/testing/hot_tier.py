"""What every `HotTier` must hold: a copy is a true end of its session, never behind a gap, and may be gone."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import combinations

import pytest

from llm_memory_plugins.ports import HotTier
from llm_memory_plugins.testing.message_log import HOSTILE, ONE, START, contents, say
from llm_memory_plugins.types import Message, Role, SessionRef, SessionStats, Tail, ToolCall, Window
from llm_memory_plugins.windows import covers

ALL = Window("turns", 10_000)


def stats(last_seq: int, *, session: SessionRef = ONE, epoch: int = 1) -> SessionStats:
    """Counters of a session of as many messages."""
    return SessionStats(
        session_id=session.session_id,
        user_id=session.user_id or "",
        epoch=epoch,
        last_seq=last_seq,
        message_count=last_seq,
    )


def numbered(first: int, last: int, session: SessionRef = ONE) -> list[Message]:
    """Stored messages `first..last`."""
    return [replace(say(f"m{n}", session=session, id=f"m{n}"), seq=n) for n in range(first, last + 1)]


def tail(last: int, session: SessionRef = ONE, *, epoch: int = 1) -> Tail:
    """A whole session of `last` messages."""
    return Tail(stats=stats(last, session=session, epoch=epoch), messages=tuple(numbered(1, last, session)))


async def seen(hot: HotTier, session: SessionRef = ONE) -> int | None:
    """The `last_seq` of the copy."""
    copy = await hot.read(session, ALL)
    return copy.stats.last_seq if copy else None


@dataclass
class TrueLog:
    """A session as the durable log has it: what a tier's answers are measured against."""

    epoch: int = 1
    messages: list[Message] = field(default_factory=list[Message])
    states: dict[tuple[int, int], tuple[Message, ...]] = field(
        default_factory=dict[tuple[int, int], tuple[Message, ...]]
    )

    def append(self, role: Role) -> Message:
        seq = len(self.messages) + 1
        self.messages.append(replace(say(f"{self.epoch}.{seq}", id=f"{seq}", role=role), seq=seq))
        self.states[self.epoch, seq] = tuple(self.messages)
        return self.messages[-1]

    def begin_again(self) -> None:
        self.epoch, self.messages = self.epoch + 1, []

    @property
    def stats(self) -> SessionStats:
        return replace(
            stats(len(self.messages), epoch=self.epoch),
            turn_count=sum(m.role == "user" for m in self.messages),
            first_at=START,
            last_at=START,
        )

    def tail(self, length: int) -> Tail:
        start = max(0, len(self.messages) - length)
        before, kept = self.messages[:start], tuple(self.messages[start:])
        return Tail(
            stats=self.stats,
            messages=kept,
            opening=None if kept[0].role == "user" else _newest(before, "user"),
            system=_newest(before, "system"),
        )

    def check(self, copy: Tail) -> None:
        """The copy is a true end of the session as it once was."""
        state = (copy.stats.epoch, copy.stats.last_seq)
        true = self.states[state]
        assert copy.stats.message_count == len(true)
        assert copy.messages == true[len(true) - len(copy.messages) :]
        before = true[: len(true) - len(copy.messages)]
        assert copy.system == _newest(before, "system")
        begins_a_turn = copy.messages and copy.messages[0].role == "user"
        assert copy.opening == (None if begins_a_turn else _newest(before, "user"))


def _newest(messages: list[Message] | tuple[Message, ...], role: Role) -> Message | None:
    return next((m for m in reversed(messages) if m.role == role), None)


class HotTierSuite:
    """Push, fill, drop, in any order."""

    @pytest.fixture
    async def hot(self) -> AsyncIterator[HotTier]:
        """An empty tier. Override."""
        raise NotImplementedError("give the suite a tier")
        yield

    async def test_nothing_is_there_before_a_fill(self, hot: HotTier) -> None:
        assert await hot.read(ONE, ALL) is None
        await hot.push(stats(1), numbered(1, 1))
        assert await hot.read(ONE, ALL) is None, "a push alone cannot know what came before"

    async def test_a_fill_is_followed_by_pushes(self, hot: HotTier) -> None:
        await hot.fill(tail(3))
        await hot.push(stats(5), numbered(4, 5))
        copy = await hot.read(ONE, ALL)
        assert copy is not None
        assert contents(copy.messages) == [f"m{n}" for n in range(1, 6)]
        assert copy.stats == stats(5)

    async def test_messages_come_back_as_they_went_in(self, hot: HotTier) -> None:
        rich = say(
            'te"xt\n日本語 🙂 [1,{}]',
            role="assistant",
            name="Ada",
            tool_calls=(ToolCall("c1", "add", '{"a": 1}'), ToolCall("c2", "add")),
            metadata={"n": 1, "deep": {"x": [1.5, None, True], "when": START}},
            payload={"framework": "x", "signature": b"\x00\xff", "pair": (1, 2)},
            created_at=START + timedelta(microseconds=123456),
        )
        result = say("", role="tool", tool_call_id="c1", name="add")
        messages = [replace(m, seq=n) for n, m in enumerate((say("rules", role="system"), say("q"), rich, result), 1)]
        full = SessionStats(
            session_id="s", user_id="u", epoch=7, last_seq=3, message_count=3, turn_count=1, tokens=99,
            first_at=START, last_at=START + timedelta(microseconds=1),
        )  # fmt: skip
        filled = Tail(stats=full, messages=(messages[2],), opening=messages[1], system=messages[0])
        await hot.fill(filled)
        assert await hot.read(ONE, ALL) == filled
        after = replace(full, last_seq=4, message_count=4)
        await hot.push(after, messages[3:])
        assert await hot.read(ONE, ALL) == replace(filled, stats=after, messages=tuple(messages[2:]))

    async def test_a_read_gives_at_least_the_window(self, hot: HotTier) -> None:
        log = TrueLog()
        for role in ("system", "user", "assistant", "user", "assistant", "tool", "system", "user", "assistant"):
            log.append(role)
        for length in range(1, 10):
            await hot.drop([stats(9, epoch=log.epoch)])
            log.epoch += 1
            log.states[log.epoch, 9] = tuple(log.messages)
            await hot.fill(log.tail(length))
            filled = log.tail(length)
            for window in (Window("turns", 1), Window("turns", 2), Window("turns", 3), Window("tokens", 3)):
                copy = await hot.read(ONE, window)
                assert copy is not None
                log.check(copy)
                assert covers(copy, window) == covers(filled, window)

    async def test_a_gap_drops_the_copy(self, hot: HotTier) -> None:
        await hot.fill(tail(3))
        await hot.push(stats(5), numbered(5, 5))
        assert await hot.read(ONE, ALL) is None

    async def test_a_commit_of_which_messages_are_missing_drops_the_copy(self, hot: HotTier) -> None:
        await hot.fill(tail(3))
        await hot.push(stats(5), numbered(4, 4))
        assert await hot.read(ONE, ALL) is None

    async def test_what_is_already_there_changes_nothing(self, hot: HotTier) -> None:
        await hot.fill(tail(5))
        await hot.push(stats(5), numbered(3, 4))
        await hot.push(stats(4), numbered(3, 4))
        copy = await hot.read(ONE, ALL)
        assert copy is not None
        assert contents(copy.messages) == [f"m{n}" for n in range(1, 6)]
        assert copy.stats == stats(5)

    async def test_a_push_of_old_and_new_messages_appends_the_new_once(self, hot: HotTier) -> None:
        await hot.fill(tail(3))
        await hot.push(stats(5), [*numbered(2, 4), *numbered(4, 5)])
        assert contents((await hot.read(ONE, ALL) or tail(1)).messages) == [f"m{n}" for n in range(1, 6)]

    async def test_an_older_fill_does_not_replace_a_newer_copy(self, hot: HotTier) -> None:
        await hot.fill(tail(5))
        await hot.fill(tail(3))
        assert await seen(hot) == 5
        await hot.fill(tail(1, epoch=2))
        await hot.fill(tail(9, epoch=1))
        assert await seen(hot) == 1, "a later life is newer, however short"

    async def test_a_push_of_another_life_never_meets_the_copy(self, hot: HotTier) -> None:
        await hot.fill(tail(3, epoch=2))
        await hot.push(stats(4, epoch=1), numbered(4, 4))
        assert await seen(hot) == 3
        await hot.push(stats(4, epoch=3), numbered(4, 4))
        assert await seen(hot) is None

    async def test_a_longer_copy_of_the_same_state_replaces_a_shorter_one(self, hot: HotTier) -> None:
        await hot.fill(replace(tail(5), messages=tuple(numbered(5, 5))))
        await hot.fill(tail(5))
        assert len((await hot.read(ONE, ALL) or tail(1)).messages) == 5

    async def test_what_does_not_exist_is_not_kept(self, hot: HotTier) -> None:
        await hot.fill(Tail(stats=stats(0, epoch=0)))
        assert await hot.read(ONE, ALL) is None

    async def test_long_copies_are_cut_at_the_front_and_stay_contiguous(self, hot: HotTier) -> None:
        await hot.fill(tail(2))
        for n in range(3, 400):
            await hot.push(stats(n), numbered(n, n))
        copy = await hot.read(ONE, ALL)
        assert copy is not None
        seqs = [m.seq for m in copy.messages]
        assert seqs == list(range(seqs[0], 400))
        assert 2 <= len(seqs) < 399

    async def test_what_is_cut_off_leaves_its_system_message_and_the_opening_of_the_turn(self, hot: HotTier) -> None:
        log = TrueLog()
        before: list[Role] = ["system", "user", "assistant"]
        turn: list[Role] = ["assistant", "tool"]
        for role in before:
            log.append(role)
        await hot.fill(log.tail(3))
        copy = None
        for role in (*before[:2], *turn * 150):
            message = log.append(role)
            await hot.push(log.stats, [message])
            copy = await hot.read(ONE, ALL)
            assert copy is not None
            log.check(copy)
        assert copy is not None
        assert copy.messages[0].seq > 5
        assert (copy.system, copy.opening) == (log.messages[3], log.messages[4])

    async def test_dropping_forgets_the_named_sessions_and_no_more(self, hot: HotTier) -> None:
        refs = [SessionRef(s, u) for u in ("a", "b") for s in ("1", "2")]
        for ref in refs:
            await hot.fill(tail(1, ref))
        assert await hot.drop([stats(1, session=refs[0])]) == 1
        assert [await hot.read(r, ALL) is None for r in refs] == [True, False, False, False]
        assert await hot.drop([stats(1, session=ref) for ref in refs[:3]]) == 2, "one was gone already"
        assert [await hot.read(r, ALL) is None for r in refs] == [True, True, True, False]
        assert await hot.drop([]) == 0

    async def test_dropping_thousands_at_once(self, hot: HotTier) -> None:
        refs = [SessionRef(str(n), "u") for n in range(1200)]
        for ref in refs[::100]:
            await hot.fill(tail(1, ref))
        assert await hot.drop([stats(1, session=ref) for ref in refs]) == 12

    async def test_after_a_drop_late_fills_of_that_life_are_refused_and_the_next_life_is_not(
        self, hot: HotTier
    ) -> None:
        await hot.fill(tail(3))
        await hot.drop([stats(3)])
        await hot.fill(tail(3))
        await hot.push(stats(4), numbered(4, 4))
        await hot.fill(tail(4))
        assert await hot.read(ONE, ALL) is None
        await hot.fill(tail(1, epoch=2))
        assert await seen(hot) == 1

    async def test_dropping_a_session_whose_life_is_not_known(self, hot: HotTier) -> None:
        await hot.fill(tail(3, epoch=5))
        assert await hot.drop([stats(0, epoch=0)]) == 1
        await hot.fill(tail(3, epoch=5))
        assert await hot.read(ONE, ALL) is None

    async def test_no_two_sessions_meet_whatever_their_ids(self, hot: HotTier) -> None:
        texts = [*HOSTILE, "", "a", "b", "a:b:c", "1:a"]
        refs = [SessionRef(s, u) for s, u in combinations(texts, 2)] + [SessionRef("b:c", "a"), SessionRef("c", "a:b")]
        for n, ref in enumerate(refs, 1):
            await hot.fill(tail(n % 7 + 1, ref, epoch=n))
        for n, ref in enumerate(refs, 1):
            assert await hot.read(ref, ALL) == tail(n % 7 + 1, ref, epoch=n)

    @pytest.mark.parametrize("seed", range(12))
    async def test_in_any_order_a_copy_is_a_true_end_and_no_older_than_what_the_tier_was_told(
        self, hot: HotTier, seed: int
    ) -> None:
        dice = random.Random(seed)
        log = TrueLog()
        pushes: list[tuple[SessionStats, list[Message]]] = []
        fills: list[Tail] = []
        told, ended = (0, 0), 0
        for _ in range(400):
            act = dice.random()
            if act < 0.35:
                roles: list[Role] = [dice.choice(("system", "user", "assistant", "assistant", "tool"))]
                new = [log.append(role) for role in roles * dice.randint(1, 3)]
                pushes.append((log.stats, new))
            elif act < 0.5 and log.messages:
                fills.append(log.tail(dice.randint(1, 40)))
            elif act < 0.52 and log.messages:
                ended = log.epoch
                await hot.drop([log.stats])
                log.begin_again()
            elif act < 0.8 and pushes:  # mostly in order, now and then lost, late or twice
                pushed = pushes.pop(0 if dice.random() < 0.9 else -1)
                if dice.random() < 0.95:
                    await hot.push(*pushed)
                    told = max(told, (pushed[0].epoch, pushed[0].last_seq))
                if dice.random() < 0.1:
                    pushes.append(pushed)
            elif fills:
                filled = fills.pop(0 if dice.random() < 0.8 else -1)
                await hot.fill(filled)
                if filled.stats.epoch > ended:
                    told = max(told, (filled.stats.epoch, filled.stats.last_seq))
            copy = await hot.read(ONE, ALL if dice.random() < 0.5 else Window("turns", dice.randint(1, 5)))
            if copy is not None:
                log.check(copy)
                assert copy.stats.epoch > ended, "erased"
                if hot.shared:
                    assert (copy.stats.epoch, copy.stats.last_seq) >= told


class SharedHotTierSuite(HotTierSuite):
    """What a tier must hold besides when its copies are believed without asking the log."""

    async def test_a_slow_reader_does_not_fill_in_what_a_push_has_overtaken(self, hot: HotTier) -> None:
        await hot.push(stats(4), numbered(4, 4))
        await hot.fill(tail(3))
        assert await seen(hot) is None
        await hot.fill(tail(4))
        assert await seen(hot) == 4
