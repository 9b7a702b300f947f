"""Where a long text is cut: never more than fits, never a word lost, at the best place there is."""

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_memory_plugins.passages import spans
from llm_memory_plugins.tokens import counter

COUNTS = {
    "characters": len,
    "bytes": lambda text: len(text.encode()),
    "words": lambda text: len(text.split()),
    "estimate": counter("estimate").count,
    "tiktoken": counter("o200k_base").count,
}
PIECES = [
    "a",
    "word ",
    "Sentence. ",
    "\n\n",
    "\n",
    " ",
    "\t" * 40,
    "漢字。",
    "漢字" * 9,
    "🙂",
    "x" * 60,
    "\u00a0",
    "e\u0301",
]
SENTENCE = "The ferry to the island leaves at nine from the old pier. "


class Counting:
    """A counter that knows how much it had to count."""

    def __init__(self, count=len):
        self._count = count
        self.characters = 0

    def __call__(self, text):
        self.characters += len(text)
        return self._count(text)


def texts(text, most, count=len):
    return [text[start:stop] for start, stop in spans(text, most, count)]


@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=60).map("".join),
    st.integers(1, 60),
    st.sampled_from(sorted(COUNTS)),
)
def test_every_word_is_in_one_stretch_that_fits(text, most, kind):
    count = COUNTS[kind]
    text = text.encode(errors="replace").decode()
    found = spans(text, most, count)
    assert all(start < stop for start, stop in found)
    assert all(before <= after for (_, before), (after, _) in pairwise(found))
    between = [0, *(at for span in found for at in span), len(text)]
    left_out = "".join(text[start:stop] for start, stop in zip(between[::2], between[1::2], strict=True))
    assert not left_out.strip()
    for start, stop in found:
        assert count(text[start:stop]) <= most or stop - start == 1
        assert text[start:stop].strip()
        assert found == [(0, len(text))] or text[start:stop] == text[start:stop].strip()
    if text.strip() and count(text) <= most:
        assert found == [(0, len(text))]


def test_a_blank_text_has_none():
    assert spans("", 10, len) == spans(" \n\t", 10, len) == spans(" " * 100, 10, len) == []


def test_a_paragraph_ends_a_stretch_before_a_sentence_does_and_that_before_a_word():
    paragraph = "One two three. Four five six."
    assert texts(f"{paragraph}\n\n{paragraph} Seven.\n \n{paragraph}", 45) == [
        paragraph,
        f"{paragraph} Seven.",
        paragraph,
    ]
    assert texts("One two three. Four five six seven. Eight nine.", 20) == [
        "One two three.",
        "Four five six seven.",
        "Eight nine.",
    ]
    assert texts("one two three four five", 9) == ["one two", "three", "four five"]
    assert texts("abcdefghij", 4) == ["abcd", "efg", "hij"]
    assert texts("first line\nsecond line\nthird", 15) == ["first line", "second line", "third"]
    assert texts("私は東京に住む。猫がいる。犬もいる。", 9) == ["私は東京に住む。", "猫がいる。", "犬もいる。"]


def test_a_word_longer_than_a_stretch_leaves_the_words_around_it_whole():
    assert texts(f"see {'x' * 25} for more", 10)[0] == "see"
    assert texts(f"see {'x' * 25} for more", 10)[-1].endswith("for more")


@pytest.mark.parametrize("kind", sorted(COUNTS))
def test_no_stretch_is_tiny(kind):
    count = COUNTS[kind]
    for sentences in range(20, 60):
        text = SENTENCE * sentences
        most = count(SENTENCE * 10)
        found = [count(part) for part in texts(text, most, count)]
        assert min(found) >= 0.35 * most, sentences
        assert len(found) <= sentences / 10 + 2


HUGE = {
    "prose": (SENTENCE * 12 + "\n\n") * 376,
    "one word": "x" * 262_144,
    "no spaces": "漢字仮名" * 65_536,
    "letters": "x " * 131_072,
    "lines": "1,2\n" * 65_536,
    "blank": "a" + " " * 262_144 + "b" * 1000,
    "one kind, then another": SENTENCE * 2_200 + "漢" * 130_000,
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("kind", ["bytes", "estimate", "tiktoken"])
def test_a_text_of_the_largest_size_is_cut_in_linear_time(name, kind):
    count, text = Counting(COUNTS[kind]), HUGE[name]
    begun = time.perf_counter()
    found = spans(text, 500, count)
    assert time.perf_counter() - begun < 5  # 0.2 s on an idle machine
    assert count.characters < 5 * len(text)
    assert all(COUNTS[kind](text[start:stop]) <= 500 for start, stop in found)
    assert sum(stop - start for start, stop in found) >= 0.99 * len(re.sub(r"\s+", "", text))


def test_no_stretch_is_shorter_than_it_has_to_be():
    text = HUGE["prose"]
    for kind, count in COUNTS.items():
        most = count(SENTENCE) * 40
        assert len(spans(text, most, count)) <= 1.4 * count(text) / most, kind
