"""What is read from questions and texts."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_memory_plugins.queries import Dates, parse, traits

NOW = datetime(2024, 6, 12, 9, 30, tzinfo=UTC)  # a Wednesday


def spans(text: str) -> list[tuple[date, date]]:
    return [(found.first, found.last) for found in parse(text, NOW).dates]


def test_participants_leave_the_text_and_are_remembered() -> None:
    query = parse("What did Ilse's brother give Marek?", NOW, ["Ilse Brandt", "Marek", "Joan"])
    assert query.bare == "What did brother give ?"
    assert query.speakers == {"ilse brandt", "marek"}
    assert query.terms == ("brother", "give")


def test_a_question_of_names_alone_keeps_them() -> None:
    query = parse("Ilse?", NOW, ["Ilse"])
    assert query.bare == "Ilse?"
    assert query.terms == ("ils",)


def test_roles_are_words_of_the_question() -> None:
    query = parse("How does user registration work?", NOW, ["user", "assistant"])
    assert query.bare == query.text
    assert not query.speakers
    assert query.of_asker


def test_names_in_lower_case_count_where_all_is() -> None:
    assert parse("what does ilse play", NOW, ["Ilse"]).speakers == {"ilse"}
    assert not parse("what will happen", NOW, ["Will"]).speakers  # "will" is no content word
    assert not parse("Can you mark it?", NOW, ["Mark"]).speakers


def test_what_the_model_said_is_not_the_askers() -> None:
    query = parse("Which library did you recommend to me?", NOW, ["user", "assistant"])
    assert "assistant" in query.speakers
    assert not query.of_asker
    assert parse("Can you recommend a library?", NOW).of_asker


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("When did she move?", "time"),
        ("In which year was that?", "time"),
        ("How many cats are there?", "number"),
        ("Who came along?", "person"),
        ("Why?", ""),
    ],
)
def test_answers(text: str, answer: str) -> None:
    assert parse(text, NOW).answer == answer


def test_phrases() -> None:
    assert parse('Who said "Never Again" and “so what”?', NOW).phrases == ("never again", "so what")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("on May 23, 2023", date(2023, 5, 23), date(2023, 5, 23)),
        ("on the 23rd of May 2023", date(2023, 5, 23), date(2023, 5, 23)),
        ("on 2023-05-23", date(2023, 5, 23), date(2023, 5, 23)),
        ("in February 2024", date(2024, 2, 1), date(2024, 2, 29)),
        ("in 2022", date(2022, 1, 1), date(2022, 12, 31)),
        ("yesterday", date(2024, 6, 11), date(2024, 6, 11)),
        ("last Monday", date(2024, 6, 10), date(2024, 6, 10)),
        ("last Wednesday", date(2024, 6, 5), date(2024, 6, 5)),
        ("last week", date(2024, 6, 3), date(2024, 6, 9)),
        ("last weekend", date(2024, 6, 8), date(2024, 6, 9)),
        ("last month", date(2024, 5, 1), date(2024, 5, 31)),
        ("this year", date(2024, 1, 1), date(2024, 6, 12)),
        ("last year", date(2023, 1, 1), date(2023, 12, 31)),
        ("three days ago", date(2024, 6, 9), date(2024, 6, 9)),
        ("two weeks ago", date(2024, 5, 26), date(2024, 6, 1)),
    ],
)
def test_dates(text: str, first: date, last: date) -> None:
    assert spans(f"What happened {text}?") == [(first, last)]


@pytest.mark.parametrize("text", ["You may march on.", "section 1234", "2023-17-01", "a second look"])
def test_no_dates(text: str) -> None:
    assert spans(text) == []


def test_a_date_without_a_year_fits_every_year() -> None:
    (new_year,) = parse("What about January 1?", NOW).dates
    assert new_year.every_year
    assert new_year.closeness(date(2019, 1, 1)) == 1
    assert new_year.closeness(date(2019, 12, 31)) > 0.9  # the next one is a day away
    (leap,) = parse("What about February 29?", NOW).dates
    assert leap.closeness(date(2023, 2, 28)) == 1


def test_a_longer_span_says_less() -> None:
    day, month, year = (parse(text, NOW).dates[0] for text in ("5 May 2023", "May 2023", "in 2023"))
    assert day.closeness(date(2023, 5, 5)) > month.closeness(date(2023, 5, 5)) > year.closeness(date(2023, 5, 5)) > 0


days = st.dates()


@given(days, st.integers(0, 400), days, st.booleans())
def test_closeness_is_bounded_and_whole_inside(first: date, length: int, day: date, every_year: bool) -> None:
    length = min(length, (date.max - first).days)
    span = Dates(first, first + timedelta(days=length), every_year)
    assert 0 < span.closeness(day) <= 1
    assert span.closeness(first) >= span.closeness(day) or every_year


@given(st.text(), st.datetimes(), st.lists(st.text(max_size=12), max_size=4))
def test_any_text_can_be_asked(text: str, now: datetime, speakers: list[str]) -> None:
    query = parse(text, now, speakers)
    assert query == parse(text, now, list(reversed(speakers)))
    assert len(set(query.terms)) == len(query.terms)


@given(
    st.sampled_from(["today", "yesterday", "last week", "last year", "999 years ago", "last Sunday"]), st.datetimes()
)
def test_relative_dates_never_leave_the_calendar(text: str, now: datetime) -> None:
    for span in parse(text, now).dates:
        assert span.first <= span.last


@given(st.text(max_size=400))
def test_any_text_can_be_stored(text: str) -> None:
    found = traits(text)
    assert found.length == sum(found.counts.values())
    assert 0 <= found.telling <= 1


def test_statements_tell_more_than_pleasantries() -> None:
    told = traits("I moved to Graz in March and found a flat by the river.")
    thanks = traits("Thanks, that sounds great!")
    assert told.telling > thanks.telling


def test_texts_and_questions_share_their_stems() -> None:
    assert set(parse("Which instruments were played?", NOW).terms) <= set(traits("playing an instrument").counts)
