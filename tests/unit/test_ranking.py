"""Ranking a pool and packing it."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_memory_plugins.packing import pack
from llm_memory_plugins.queries import parse
from llm_memory_plugins.ranking import Corpus, Ranked, Row, Weights, bm25, idf, rank

NOW = datetime(2024, 6, 12, tzinfo=UTC)
QUERY = parse("Which violin teacher did Ilse find in May?", NOW, ["Ilse", "Marek"])
CORPUS = Corpus(total=100, average_length=10.0, frequencies=(5, 10, 2, 30)[: len(QUERY.terms)])
NOTHING = (0,) * len(QUERY.terms)


def row(name: str, **fields: object) -> Row:
    base = Row(id=name, text=name, cosine=0.3, counts=NOTHING, length=10, tokens=20)
    return replace(base, **fields)  # type: ignore[arg-type]


def counts(*found: int) -> tuple[int, ...]:
    return tuple(int(i in found) for i in range(len(QUERY.terms)))


def scores(rows: list[Row], weights: Weights | None = None) -> dict[str, float]:
    return {item.row.id: item.score for item in rank(QUERY, rows, CORPUS, weights or Weights())}


rows_strategy = st.lists(
    st.builds(
        Row,
        id=st.uuids().map(str),
        text=st.text(max_size=30),
        cosine=st.floats(-1, 1) | st.just(math.nan),
        counts=st.tuples(*(st.integers(0, 5) for _ in QUERY.terms)),
        length=st.integers(0, 500),
        tokens=st.integers(0, 300),
        session=st.sampled_from(["", "a", "b"]),
        position=st.integers(0, 30),
        speaker=st.sampled_from(["", "Ilse", "Marek", "user", "assistant"]),
        created_at=st.none() | st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.none() | st.just(UTC)),
        telling=st.floats(0, 1),
        importance=st.floats(0, 1),
    ),
    max_size=25,
)
ALL_ON = Weights(recency=0.1, importance=0.1)


def test_an_empty_pool() -> None:
    assert rank(QUERY, [], CORPUS) == []
    assert pack([], 100) == []


@given(rows_strategy, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows: list[Row], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert repr(rank(QUERY, rows, CORPUS, ALL_ON)) == repr(rank(QUERY, shuffled, CORPUS, ALL_ON))


@given(rows_strategy)
def test_scores_are_bounded_sorted_and_explained(rows: list[Row]) -> None:
    ranked = rank(QUERY, rows, CORPUS, ALL_ON, now=NOW)
    assert [item.score for item in ranked] == sorted((item.score for item in ranked), reverse=True)
    for item in ranked:
        assert 0 <= item.score <= 1
        assert item.score == pytest.approx(sum(item.why.values()), abs=1e-6)
        assert all(value > 0 for value in item.why.values())


@given(rows_strategy, st.integers(0, 400), st.integers(0, 9), st.floats(0.1, 2))
def test_a_budget_is_never_exceeded(rows: list[Row], budget: int, heading: int, likeness: float) -> None:
    chosen = pack(rank(QUERY, rows, CORPUS), budget, heading=heading, likeness=likeness)
    headings = heading * len({item.row.session for item in chosen})
    assert sum(item.row.tokens for item in chosen) + headings <= budget
    assert [item.score for item in chosen] == sorted((item.score for item in chosen), reverse=True)


def test_without_terms_the_cosine_decides() -> None:
    rows = [row("a", cosine=0.2, counts=()), row("b", cosine=0.5, counts=())]
    ranked = rank(parse("what is it", NOW), rows, Corpus(2, 3.0, ()))
    assert [item.row.id for item in ranked] == ["b", "a"]


def test_rare_words_count_more() -> None:
    rare, common = idf(Corpus(1000, 10.0, (1, 500)))
    assert rare > common > 0
    assert idf(Corpus(0, 0.0, (3,))) >= 0  # statistics may lag behind


def test_bm25_saturates_and_discounts_length() -> None:
    found = bm25(np.array([[1.0], [2.0], [50.0], [1.0]]), np.array([10.0, 10.0, 10.0, 100.0]), CORPUS)[:, 0]
    assert found[0] < found[1] < found[2] < 1
    assert found[3] < found[0]


def test_words_around_a_text_count_less_than_its_own_and_once() -> None:
    alone = row("alone", counts=counts(0))
    question = row("question", session="s", position=1, counts=counts(0))
    answer = row("answer", session="s", position=2, cosine=0.3)
    stranger = row("stranger", session="t", position=2, cosine=0.3)
    why = {item.row.id: item.why for item in rank(QUERY, [alone, question, answer, stranger], CORPUS)}
    assert why["alone"]["lexical"] == why["question"]["lexical"] > why["answer"]["lexical"] > 0
    assert "lexical" not in why["stranger"]


def test_the_named_speaker_the_asker_and_the_day_lift() -> None:
    found = scores([row("ilse", speaker="Ilse"), row("marek", speaker="Marek")])
    assert found["ilse"] > found["marek"]
    found = scores([row("user", speaker="user"), row("model", speaker="assistant")])
    assert found["user"] > found["model"]
    may, july = datetime(2022, 5, 9, tzinfo=UTC), datetime(2022, 7, 9, tzinfo=UTC)
    found = scores([row("may", created_at=may), row("july", created_at=july)])
    assert found["may"] > found["july"]


def test_documents_are_ranked_by_words_and_meaning_alone() -> None:
    ranked = rank(QUERY, [row("a", counts=counts(0), telling=0.9), row("b", telling=0.1)], CORPUS)
    assert {name for item in ranked for name in item.why} == {"dense", "lexical"}


def test_the_threshold_is_for_the_cosine_alone() -> None:
    rows = [row("meant", cosine=0.8), row("far", cosine=0.2), row("worded", cosine=0.2, counts=counts(1))]
    ranked = rank(QUERY, rows, CORPUS, threshold=0.5)
    assert {item.row.id for item in ranked} == {"meant", "worded"}


def test_recency_and_importance_only_when_asked_for() -> None:
    new, old = row("new", created_at=NOW), row("old", created_at=NOW - timedelta(days=3650), importance=1.0)
    plain = replace(Weights(), dated=0.0)
    assert len(set(scores([new, old], plain).values())) == 1
    assert (
        scores([new, old], replace(plain, recency=0.1))["new"] > scores([new, old], replace(plain, recency=0.1))["old"]
    )
    found = scores([new, old], replace(plain, importance=0.1))
    assert found["old"] > found["new"]


def ranked(*scored: tuple[str, float, int]) -> list[Ranked]:
    return [Ranked(row(text, tokens=tokens), score) for text, score, tokens in scored]


def test_many_short_texts_beat_one_long() -> None:
    items = ranked(("long", 0.60, 400), *((f"short {i}", 0.59, 40) for i in range(10)), ("dull", 0.1, 1))
    items += ranked(*((f"dull {i}", 0.1, 40) for i in range(12)))
    assert [item.row.text for item in pack(items, 400)] == [f"short {i}" for i in range(10)]


def test_what_was_said_is_not_said_again() -> None:
    items = ranked(("the cat sat on the mat", 0.9, 10), ("The  cat sat on the mat", 0.8, 10), ("a dog", 0.5, 10))
    assert [item.row.text for item in pack(items, 100)] == ["the cat sat on the mat", "a dog"]
    assert len(pack(items, 100, likeness=1.1)) == 3


def test_costs_may_be_given() -> None:
    items = ranked(("a", 0.9, 10), ("b", 0.8, 10))
    assert [item.row.text for item in pack(items, 15, [20, 15])] == ["b"]
