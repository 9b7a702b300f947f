"""What every `WorkingSet` must hold: bounded, atomic, and no chain is broken in the middle."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import combinations
from typing import Any

import pytest

from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.key_values import Space
from llm_memory_plugins.ports import WorkingSet
from llm_memory_plugins.testing.message_log import HOSTILE
from llm_memory_plugins.testing.working_history import BRIEF, Make, WorkingHistorySuite, held, rules
from llm_memory_plugins.testing.working_model import SPACE, change, draft
from llm_memory_plugins.working_items import EvictionPolicy, Snapshot

OTHER = Space(user_id="u", namespace="other")


def ids(snapshot: Snapshot) -> list[str]:
    """In the order of storing."""
    return [item.id for item in snapshot.items]


class WorkingSetSuite(WorkingHistorySuite):
    """Writing, using, evicting, expiring, erasing."""

    async def test_items_come_back_as_they_went_in(self, items: WorkingSet) -> None:
        contents: list[Any] = [
            *("", 'te"xt\n日本語 🙂', None, True, 0, -1.5, [], {}, {"a": [1, {"b": None}]}, {"$bytes": "no"}),
            *(b"\x00\xff", datetime(2026, 5, 1, tzinfo=UTC), Decimal("1.10"), (1, (2,)), {1, 2}),
        ]
        for content in contents:
            (stored,) = await items.put(SPACE, [draft("k", content)])
            (used,) = await items.use(SPACE, ["k"])
            (read,) = (await items.read(SPACE)).items
            assert stored.content == used.content == read.content == content
            assert type(read.content) is type(content)
        await items.put(SPACE, [draft("root")])
        for step in (None, "plan\n", 1, 2.5, 10**15):
            fields: dict[str, Any] = {
                "importance": 1e-05, "step": step, "parent_id": "root", "tags": ("a b", "ü\n"),
                "status": "abandoned", "conclusion": "so\nso",
            }  # fmt: skip
            (stored,) = await items.put(SPACE, [draft("full", **fields)])
            (read,) = [item for item in (await items.read(SPACE)).items if item.id == "full"]
            assert read == stored
            assert {name: stored[name] for name in fields} == fields
            assert type(read.step) is type(step)

    async def test_what_is_handed_out_is_a_copy(self, items: WorkingSet) -> None:
        await items.put(SPACE, [draft("k", {"list": [1]})])
        (used,) = await items.use(SPACE, ["k"])
        used.content["list"].append(2)
        assert (await items.read(SPACE)).items[0].content == {"list": [1]}

    async def test_a_known_item_is_replaced_where_it_is(self, items: WorkingSet) -> None:
        await items.put(SPACE, [draft("a"), draft("b", parent_id="a", tags=("x",), step="s"), draft("c")])
        (first,) = await items.use(SPACE, ["b"])
        ((second,), snapshot) = (await items.put(SPACE, [draft("b", "new")]), await items.read(SPACE))
        assert ids(snapshot) == ["a", "b", "c"]
        assert (second.content, second.tags, second.step) == ("new", (), None)
        assert (second.parent_id, second.uses, second.seq) == ("a", 1, first.seq)
        assert second.created_at == first.created_at <= first.used_at <= second.updated_at == second.used_at
        assert second.turn > first.turn

    async def test_a_change_leaves_what_it_does_not_name(self, items: WorkingSet) -> None:
        (first,) = await items.put(SPACE, [draft("a", {"x": 1}, tags=("t",), step=3, importance=0.25)])
        (second,) = await items.put(SPACE, [change("a", conclusion="done so", status="done")])
        assert (second.content, second.tags, second.step, second.importance) == ({"x": 1}, ("t",), 3, 0.25)
        assert (second.status, second.conclusion) == ("done", "done so")
        assert second.expires_at - second.updated_at == first.expires_at - first.updated_at, "its life begins anew"
        (third,) = await items.put(SPACE, [change("a", conclusion=None, step=None, content='"y"')])
        assert (third.status, third.conclusion, third.step, third.content) == ("done", None, None, "y")

    async def test_what_is_not_there_is_not_changed(self, items: WorkingSet) -> None:
        await items.put(SPACE, [draft("a")])
        assert await items.put(SPACE, [change("b", status="done")]) == ()
        assert await items.use(SPACE, ["b", "a", "c"]) == (await items.read(SPACE)).items
        assert await items.use(OTHER, ["a"]) == ()
        assert (await items.read(OTHER)).items == ()
        assert await items.delete(SPACE, "b") == await items.delete(OTHER, "a") == await items.delete(OTHER) == 0
        assert await held(items) == ["a"]

    async def test_use_is_counted_and_reading_is_no_use(self, items: WorkingSet) -> None:
        await items.put(SPACE, [draft("a"), draft("b")])
        for count in range(1, 4):
            assert [item.uses for item in await items.use(SPACE, ["a"])] == [count]
        assert await items.use(SPACE, ["a", "nobody", "b"], quietly=True) == ()
        before = (await items.read(SPACE)).items
        assert (await items.read(SPACE)).items == before
        assert [item.uses for item in before] == [4, 1]
        assert before[0].used_at > before[0].updated_at

    @pytest.mark.parametrize(
        ("policy", "order"),
        [
            ("lru", ["b", "c", "a", "d"]),
            ("lfu", ["b", "d", "c", "a"]),
            ("fifo", ["a", "b", "c", "d"]),
            ("ttl", ["d", "c", "b", "a"]),
            ("importance", ["a", "d", "c", "b"]),
        ],
    )
    async def test_each_policy_has_its_order(self, make: Make, policy: EvictionPolicy, order: list[str]) -> None:
        items = make(rules(4, policy))
        worth = {"a": 0.1, "b": 0.95, "c": 0.5, "d": 0.3}
        for place, (key, importance) in enumerate(worth.items()):
            await items.put(SPACE, [draft(key, importance=importance, ttl=3600.0 - 100 * place)])
        for key in ("a", "c", "a"):  # each twice as much worth, at most
            if policy != "importance":
                await items.use(SPACE, [key])
        if policy in {"lru", "importance"}:
            await items.put(SPACE, [draft("d", importance=0.3, ttl=3300)])
        gone: list[str] = []
        for n in range(4):
            stored = await items.put(SPACE, [draft(f"new {n}", importance=1.0, ttl=3600)])
            await items.use(SPACE, [f"new {n}"] * 3)
            gone += stored.evicted
        assert gone == order
        assert (await items.stats(SPACE)).evicted == {"capacity": 4, "ttl": 0}

    async def test_importance_fades_without_use_and_grows_with_it(self, make: Make, wait: Any) -> None:
        items = make(rules(2, "importance", half_life=0.1))
        await items.put(SPACE, [draft("important", importance=0.8)])
        await wait(0.4)  # worth a sixteenth by now
        await items.put(SPACE, [draft("plain", importance=0.4)])
        assert (await items.put(SPACE, [draft("new", importance=1.0)])).evicted == ("important",)
        items = make(rules(2, "importance", half_life=3600.0))
        await items.put(OTHER, [draft("used", importance=0.3), draft("unused", importance=0.5)])
        await items.use(OTHER, ["used", "used", "used"])
        assert (await items.put(OTHER, [draft("new", importance=1.0)])).evicted == ("unused",)

    async def test_what_is_stored_is_not_evicted_for_itself(self, make: Make) -> None:
        items = make(rules(3, "importance"))
        await items.put(SPACE, [draft("a", importance=0.9), draft("b", importance=1.0), draft("c", importance=1.0)])
        stored = await items.put(SPACE, [draft("x", importance=0.0), draft("y", importance=0.0)])
        assert stored.evicted == ("a", "b")
        assert await held(items) == ["c", "x", "y"]
        assert (await items.put(SPACE, [draft("d")])).evicted == ("x",)

    async def test_what_leads_to_a_step_stays_with_it(self, make: Make) -> None:
        items = make(rules(4, "fifo"))
        await items.put(SPACE, [draft("root")])
        await items.put(SPACE, [draft("middle", parent_id="root")])
        await items.put(SPACE, [draft("note")])
        await items.put(SPACE, [draft("tip", parent_id="middle")])
        assert (await items.put(SPACE, [draft("next", parent_id="tip")])).evicted == ("note",)
        assert await held(items) == ["root", "middle", "tip", "next"]
        assert (await items.put(SPACE, [draft("other")])).evicted == ("next",), "a chain is shortened at its end"
        assert (await items.put(SPACE, [draft("branch", parent_id="root")])).evicted == ("tip",)
        assert (await items.put(SPACE, [draft("leaf", parent_id="branch")])).evicted == ("middle",)
        counts = {item.id: item.children for item in (await items.read(SPACE)).items}
        assert counts == {"root": 1, "other": 0, "branch": 1, "leaf": 0}

    async def test_a_chain_as_long_as_the_capacity_is_refused_and_nothing_changes(self, make: Make) -> None:
        items = make(rules(4, "lru"))
        await items.put(SPACE, [draft("0"), *(draft(str(n), parent_id=str(n - 1)) for n in (1, 2))])
        await items.put(SPACE, [draft("note")])
        await items.put(SPACE, [draft("3", parent_id="2")])
        before = (await items.read(SPACE)).items
        with pytest.raises(InvalidInput, match="capacity_limit") as caught:
            await items.put(SPACE, [draft("4", parent_id="3")])
        assert caught.value.field == "parent_id"
        assert (await items.read(SPACE)).items == before
        assert (await items.put(SPACE, [draft("note")])).evicted == ("3",)
        assert (await items.stats(SPACE)).evicted == {"capacity": 2, "ttl": 0}

    async def test_a_batch_is_written_whole_or_not_at_all(self, items: WorkingSet) -> None:
        await items.put(SPACE, [draft("a"), draft("b", parent_id="a")])
        before = (await items.read(SPACE)).items
        for last, field in (
            (draft("x", parent_id="nobody"), "2.parent_id"),
            (draft("x", parent_id="later"), "2.parent_id"),
            (draft("a", parent_id="b"), "2.parent_id"),
            (draft("b", parent_id="b"), "2.parent_id"),
        ):
            with pytest.raises(InvalidInput) as caught:
                await items.put(SPACE, [draft("n1"), draft("n2", parent_id="n1"), last, draft("later")])
            assert caught.value.field == field
            assert (await items.read(SPACE)).items == before
        chain = [draft("0", parent_id="b"), *(draft(str(n), parent_id=str(n - 1)) for n in range(1, 9))]
        with pytest.raises(InvalidInput, match="capacity_limit"):
            await items.put(SPACE, chain)
        assert (await items.read(SPACE)).items == before
        assert len(await items.put(SPACE, chain[:-1])) == 8

    async def test_moves_that_leave_nothing_to_evict_are_refused(self, make: Make) -> None:
        items = make(rules(3))
        await items.put(SPACE, [draft("x"), draft("p"), draft("q")])
        before = (await items.read(SPACE)).items
        with pytest.raises(InvalidInput, match="capacity_limit"):
            await items.put(SPACE, [draft("x", parent_id="p"), draft("new", parent_id="q")])
        assert (await items.read(SPACE)).items == before
        assert (await items.put(SPACE, [draft("x", parent_id="p"), draft("new")])).evicted == ("q",)

    async def test_a_step_can_be_moved_and_never_below_itself(self, items: WorkingSet) -> None:
        await items.put(SPACE, [draft("a"), draft("b", parent_id="a"), draft("c", parent_id="b"), draft("d")])
        with pytest.raises(InvalidInput, match="follows"):
            await items.put(SPACE, [draft("a", parent_id="c")])
        await items.put(SPACE, [change("b", parent_id="d")])
        counts = {item.id: item.children for item in (await items.read(SPACE)).items}
        assert counts == {"a": 0, "b": 1, "c": 0, "d": 1}
        await items.put(SPACE, [draft("a", parent_id="c")])
        with pytest.raises(InvalidInput) as caught:
            await items.put(SPACE, [draft("e"), draft("e2", parent_id="e"), draft("d", parent_id="e"),
                                    draft("e", parent_id="a")][1:])  # fmt: skip
        assert caught.value.field == "0.parent_id"
        assert await held(items) == ["a", "b", "c", "d"]

    async def test_items_end_and_what_leads_to_a_living_step_waits(self, items: WorkingSet, wait: Any) -> None:
        await items.put(SPACE, [draft("a", ttl=BRIEF), draft("b", parent_id="a", ttl=BRIEF),
                                draft("c", parent_id="b"), draft("brief", ttl=BRIEF)])  # fmt: skip
        await items.use(SPACE, ["brief"])
        await wait(1.5 * BRIEF)
        assert await items.use(SPACE, ["brief"]) == ()
        assert await held(items) == ["a", "b", "c"]
        assert (await items.stats(SPACE)).evicted == {"capacity": 0, "ttl": 1}
        (waiting,) = await items.use(SPACE, ["a"])
        assert waiting.expires_at < waiting.used_at
        await items.put(SPACE, [draft("d", parent_id="b", ttl=BRIEF)])
        assert await items.delete(SPACE, "c") == 1
        assert await held(items) == ["a", "b", "d"]
        await items.put(SPACE, [draft("long")])
        await wait(1.5 * BRIEF)
        assert await held(items) == ["long"]
        stats = await items.stats(SPACE)
        assert (stats.item_count, stats.open_count, stats.evicted) == (1, 1, {"capacity": 0, "ttl": 4})

    async def test_writing_begins_a_life_anew_and_using_does_not(self, items: WorkingSet, wait: Any) -> None:
        await items.put(SPACE, [draft("long"), draft("written", ttl=6 * BRIEF), draft("used", ttl=6 * BRIEF)])
        await wait(4 * BRIEF)
        await items.put(SPACE, [change("written", importance=0.1)])
        await items.use(SPACE, ["used"])
        await wait(4 * BRIEF)
        assert await held(items) == ["long", "written"]

    async def test_a_namespace_ends_with_its_last_item(self, items: WorkingSet, wait: Any) -> None:
        await items.put(SPACE, [draft("a", ttl=BRIEF), draft("b", parent_id="a", ttl=2 * BRIEF)])
        await wait(3 * BRIEF)
        assert (await items.read(SPACE)).items == ()
        stats = await items.stats(SPACE)
        assert (stats.item_count, stats.expires_at, stats.evicted) == (0, None, {"capacity": 0, "ttl": 0})
        (again,) = await items.put(SPACE, [draft("a")])
        assert again.seq == 1

    async def test_deleting(self, items: WorkingSet) -> None:
        await items.put(SPACE, [draft("a"), draft("b", parent_id="a"), draft("c", parent_id="b"),
                                draft("d", parent_id="b"), draft("e")])  # fmt: skip
        with pytest.raises(InvalidInput, match="cascade"):
            await items.delete(SPACE, "b")
        assert len(await held(items)) == 5
        assert await items.delete(SPACE, "d") == 1
        assert await items.delete(SPACE, "b", cascade=True) == 2
        assert await held(items) == ["a", "e"]
        assert await items.delete(SPACE, "a") == 1, "nothing hangs on it any more"
        assert await items.delete(SPACE) == 1
        assert (await items.stats(SPACE)).item_count == 0

    async def test_forgetting_a_user_leaves_the_others(self, items: WorkingSet) -> None:
        spaces = [Space(user_id=user, namespace=name) for user in ("", "a", "b") for name in [*HOSTILE, "x"]]
        for space in spaces:
            await items.put(space, [draft("1"), draft("2")])
        receipt = await items.forget("a")
        assert receipt.removed == {"items": 2 * len(spaces) // 3, "namespaces": len(spaces) // 3}
        for space in spaces:
            assert len(await held(items, space)) == (0 if space.user_id == "a" else 2)
        assert (await items.forget("a")).total == (await items.forget("nobody")).total == 0
        await items.delete(spaces[0])
        assert (await items.forget("")).removed["namespaces"] == len(spaces) // 3 - 1

    async def test_no_two_namespaces_and_no_two_ids_meet(self, items: WorkingSet) -> None:
        texts = [*HOSTILE, "a", "b", "a:b:c", "1:a"]
        spaces = [Space(user_id=user, namespace=name) for user, name in combinations(texts, 2)]
        spaces += [
            Space(user_id="a", namespace="b:c"),
            Space(user_id="a:b", namespace="c"),
            Space("", "a"),
            Space("a", "1"),
        ]
        for n, space in enumerate(spaces):
            key = texts[n % len(texts)]
            await items.put(space, [draft(key, [n, key]), draft("child", parent_id=key, step=key, tags=(key,))])
        for n, space in enumerate(spaces):
            key = texts[n % len(texts)]
            root, child = (await items.read(space)).items
            assert (root.id, root.content, root.namespace, root.user_id) == (
                key,
                [n, key],
                space.namespace,
                space.user_id,
            )
            assert (child.parent_id, child.step, child.tags) == (key, key, (key,))
            assert [item.id for item in await items.use(space, [key])] == [key]
            assert await items.delete(space, key, cascade=True) == 2
