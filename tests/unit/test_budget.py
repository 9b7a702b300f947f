"""Dividing a budget: nobody gets more than is there or than it needs, and nothing is left while someone needs it."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_memory_plugins.budget import Item, fill, shares

WEIGHTS = st.sampled_from([0.0, 0.1, 0.3, 0.7, 1 / 3, 1.0]) | st.floats(0.001, 1)
SOURCES = st.lists(st.tuples(WEIGHTS, st.integers(0, 3000)), max_size=7)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 9000), SOURCES)
@example(481, [(0.3, 481)])
def test_shares(total, sources):
    weights, needs = [w for w, _ in sources], [n for _, n in sources]
    given_ = shares(total, weights, needs)
    hungry = [i for i in range(len(needs)) if given_[i] < needs[i]]
    assert all(0 <= got <= need for got, need in zip(given_, needs, strict=True))
    assert sum(given_) <= total
    if hungry:
        assert sum(given_) == total
    for i in (i for i in hungry if weights[i] > 0):
        for j in range(len(needs)):
            if weights[j] > 0:  # nobody has more for its weight than one who is still hungry, but for rounding
                assert (given_[j] - 1) * weights[i] <= (given_[i] + 1) * weights[j] + 1e-6
            else:
                assert given_[j] == 0, "who has no weight gets what all others leave"


def test_shares_by_example():
    assert shares(100, [0.3, 0.7], [1000, 1000]) == [30, 70]
    assert shares(100, [0.3, 0.7], [10, 1000]) == [10, 90]
    assert shares(100, [0.3, 0.7], [1000, 10]) == [90, 10]
    assert shares(100, [0.2, 0.2, 0.6], [5, 100, 10]) == [5, 85, 10]
    assert shares(100, [1.0, 0.0], [60, 100]) == [60, 40]
    assert shares(100, [0.0, 0.0], [70, 100]) == [50, 50]
    assert shares(100, [0.5, 0.5], [3, 4]) == [3, 4]
    assert shares(0, [0.5, 0.5], [3, 4]) == [0, 0]
    assert shares(7, [], []) == []


@st.composite
def items(draw):
    days = {None: 0, "monday": draw(st.integers(1, 9)), "tuesday": draw(st.integers(1, 9))}
    drawn = draw(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1), st.sampled_from([*days])), max_size=12))
    return [Item(tokens, value, day, days[day]) for tokens, value, day in drawn]


def price(chosen):
    return sum(i.tokens for i in chosen) + sum({i.heading: i.heading_tokens for i in chosen}.values())


@settings(max_examples=300, deadline=None)
@given(items(), st.integers(0, 200), st.sampled_from([0.0, 0.5, 1.0]))
def test_fill_keeps_to_the_budget_and_leaves_nothing_that_would_fit(offered, budget, exponent):
    chosen = fill(offered, budget, length_exponent=exponent)
    assert chosen == sorted(set(chosen))
    taken = [offered[i] for i in chosen]
    assert price(taken) <= budget
    for i in set(range(len(offered))) - set(chosen):
        assert price([*taken, offered[i]]) > budget


def test_fill_takes_what_is_worth_most_for_its_length():
    long, short, dull = Item(80, 1.0), Item(20, 0.6), Item(20, 0.1)
    assert fill([long, short, dull], 80) == [1, 2]
    assert fill([long, short, dull], 80, length_exponent=0) == [0]
    assert fill([long, short, dull], 100) == [0, 1]
    assert fill([dull, Item(20, 0.1)], 20) == [1], "of two alike the newer one"


def test_the_first_item_under_a_heading_pays_for_it_once():
    day = [Item(5, 0.5, "monday", 5), Item(5, 0.5, "monday", 5)]
    assert fill(day, 14) == [1]
    assert fill(day, 15) == [0, 1]
    assert fill([*day, Item(5, 0.5, "tuesday", 5)], 24) == [1, 2]
    assert fill(day, 9) == []
