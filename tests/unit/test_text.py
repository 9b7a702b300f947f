import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_memory_plugins import text

HOSTILE = ["a", "1", "(", " ", "A ", ". ", "。", "[ ", "漢", "\n", "'", "a,"]


def test_a_sentence_ends_at_its_full_stop_and_at_a_line_break() -> None:
    assert text.sentences("We moved. Did you?  Yes!\nRent is due") == ["We moved.", "Did you?", "Yes!", "Rent is due"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Ilse Brandt called about J. Smith.",
        "It costs 3.50 at https://shop.example/a.b?c=1 today",
        "Bring fruit, e.g. apples.",
        "1. Boil the water.",
    ],
)
def test_a_full_stop_inside_a_thought_ends_nothing(sentence: str) -> None:
    assert len(text.sentences(sentence)) == 1


def test_scripts_without_spaces_have_sentences_and_words() -> None:
    assert text.sentences("私は東京に住んでいます。猫がいます!") == ["私は東京に住んでいます。", "猫がいます!"]
    assert text.words("東京都") == ["東京", "京都"]
    assert text.content_words("Я живу в Москве")
    assert text.content_words("أعيش في القاهرة")


def test_clauses_joined_are_the_sentence() -> None:
    sentence = "We sold the old boat in May, because the harbour fee went up, and bought bikes."
    assert " ".join(text.clauses(sentence)) == sentence
    assert text.clauses(sentence)[0] == "We sold the old boat in May,"


def test_a_short_list_stays_whole() -> None:
    assert text.clauses("cats, dogs and birds") == ["cats, dogs and birds"]


def test_content_words_are_stems_without_stop_words() -> None:
    assert text.content_words("The gardener's tomatoes were growing") == ["garden", "tomato", "grow"]


@pytest.mark.parametrize(
    ("line", "speaker", "said"),
    [
        ("Ann: I moved", "Ann", "I moved"),
        ("Ann  Lee: at 14:30", "Ann Lee", "at 14:30"),
        ("https://a.example/x", "", "https://a.example/x"),
        ("no speaker", "", "no speaker"),
    ],
)
def test_split_speaker(line: str, speaker: str, said: str) -> None:
    assert text.split_speaker(line) == (speaker, said)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_split_without_losing_a_character(any_text: str) -> None:
    found = text.sentences(any_text)
    assert "".join("".join(found).split()) == "".join(any_text.split())
    for sentence in found:
        assert " ".join(text.clauses(sentence)) == " ".join(sentence.split())
    text.content_words(any_text)
    text.split_speaker(any_text)


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_costs_its_length(unit: str) -> None:
    hostile = unit * (50_000 // len(unit))
    began = time.perf_counter()
    for function in (text.sentences, text.clauses, text.content_words, text.split_speaker):
        function(hostile)
    assert time.perf_counter() - began < 5


def test_words_are_stemmed_alike_in_all_threads_at_once():
    # The stemmer works on a word in place: shared by threads it mixed up their words, or broke.
    endings = ("unning", "elational", "iveness", "ational")
    words = [f"x{number}{end}" for number in range(800) for end in endings]
    expected = {word: text._Snowball().stem(word) for word in words}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: [text._snowball.stem(word) for word in words], range(4)))
    assert all(dict(zip(words, stems, strict=True)) == expected for stems in found)
