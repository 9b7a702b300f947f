import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_memory_plugins import anchors
from llm_memory_plugins.types import SummaryLine

AT = datetime(2024, 3, 9, tzinfo=UTC)
HOSTILE = [
    "a",
    "1",
    "(",
    " ",
    "A ",
    "1 ",
    "a@",
    "a/",
    "http://)",
    "1,",
    "Jan ",
    "-",
    "[ ",
    "`",
    "```\n",
    "**A\n",
    "漢字。",
]


def lines(*texts: str) -> list[SummaryLine]:
    return [SummaryLine(text, (seq,), AT) for seq, text in enumerate(texts, start=1)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("See https://example.org/a/b?x=1.", "https://example.org/a/b?x=1"),
        ("(https://example.org/wiki/A_(b))", "https://example.org/wiki/A_(b)"),
        ("Write to ada.b+c@mail-x.co.uk, please", "ada.b+c@mail-x.co.uk"),
        ("it is in /etc/nginx/sites/app.conf now", "/etc/nginx/sites/app.conf"),
        ("open C:\\data\\x.csv first", "C:\\data\\x.csv"),
        ("change src/app/main.py and go on", "src/app/main.py"),
        ("my order ORD-2024-0091 is late", "ORD-2024-0091"),
        ("run 123e4567-e89b-12d3-a456-426614174000 again", "123e4567-e89b-12d3-a456-426614174000"),
        ("the commit is 9f86d081884c", "9f86d081884c"),
        ("due on 2024-03-09T14:30:00Z at last", "2024-03-09T14:30:00Z"),
        ("we met on March 9, 2024 by chance", "March 9, 2024"),
        ("on the 3rd of June 2021 we left", "3rd of June 2021"),
        ("call at 14:30 or so", "14:30"),
        ("be there at 7 p.m. sharp", "7 p.m."),
        ("ring me at +49 30 1234567 now", "+49 30 1234567"),
        ("ring me at (555) 123-4567 now", "(555) 123-4567"),
        ("I paid $1,250.75 for it", "$1,250.75"),
        ("it grew by 12.5% again", "12.5%"),
        ("we own 17 goats by now", "17 goats"),
        ("it runs on version 3.11.2 there", "3.11.2"),
        ("my dentist is Dr. Ilse Brandt, as ever", "Dr. Ilse Brandt"),
        ("she likes Ludwig van Beethoven most", "Ludwig van Beethoven"),
        ("we flew to São Paulo", "São Paulo"),
        ("her sister Petra came", "Petra"),
        ("我的订单是ORD-4412。", "ORD-4412"),
        ("Меня зовут Анна Петрова", "Анна Петрова"),
    ],
)
def test_finds(text: str, wanted: str) -> None:
    assert wanted in [anchor.text for anchor in anchors.find(text)]


@pytest.mark.parametrize(
    "text",
    [
        "Yesterday was lovely. Thanks! Maybe we should go there again, and/or stay.",
        "I think I'm fine, OK?",
        "1. Boil the water\n2. Add the salt\n\n### Step 3: Serve It\n- **Focus on Taste**: Stir gently",
        "```python\nx1 = 5\nprint(Foo)\n```",
        "Ich habe das Haus und den Garten mit der Frau auf dem Berg nicht im Sommer",
        "",
    ],
)
def test_finds_nothing_where_nothing_is(text: str) -> None:
    assert anchors.find(text) == ()


def test_code_gives_up_addresses_and_paths_alone() -> None:
    found = anchors.find("```\nport = 8080\nopen('/opt/a.txt')\n```")
    assert [anchor.text for anchor in found] == ["/opt/a.txt"]


def test_a_number_does_not_stand_in_a_longer_one() -> None:
    source = lines("Ann: the code is 75")
    assert [anchor.text for anchor in anchors.missing(source, lines("Ann: paid 5.75 and 175"))] == ["75"]
    assert anchors.missing(source, lines("Ann: code is 75.")) == ()


def test_case_and_white_space_make_no_difference() -> None:
    assert anchors.missing(lines("Ann: I know Petra  Kowalczyk"), lines("ann: knows petra kowalczyk")) == ()


def test_repair_adds_a_short_line_where_it_belongs() -> None:
    sources = lines(
        "Ann: Hello there, how are you all doing on this lovely morning?",
        "Ben: It rained all day and we stayed in, but in the end the landlord, Petra Kowalczyk, came by with cake.",
        "Ann: The boat is sold.",
    )
    kept = [sources[0], sources[2]]
    repaired = anchors.repair(sources, kept)
    assert [line.seqs for line in repaired] == [(1,), (2,), (3,)]
    assert "Petra Kowalczyk" in repaired[1].text
    assert repaired[1].text.startswith("Ben: ")
    assert len(repaired[1].text) < len(sources[1].text) / 2


def test_a_name_at_the_start_of_a_note_is_not_lost_on_the_way_up() -> None:
    notes = lines("Ann: Petra called", "Ann: sold boat", "Ben: bought bike")
    assert anchors.repair(notes, [])[0].text == "Ann: Petra called"


def test_facts_survive_five_rounds_that_keep_nothing() -> None:
    facts = ["INV-2024-0091", "Petra Kowalczyk", "/opt/app/conf.d/main.yaml", "14:30", "2024-03-09", "$1,250.75"]
    level = lines(*(f"Ann: By the way, you should know that it is all about {fact}, as I said." for fact in facts))
    for _ in range(5):
        level = anchors.repair(level, [])
    assert all(fact in line.text for fact, line in zip(facts, level, strict=True))


@settings(deadline=None)
@given(st.lists(st.text(max_size=80), max_size=6), st.lists(st.text(max_size=40), max_size=3))
def test_repair_leaves_nothing_missing(texts: list[str], kept: list[str]) -> None:
    sources = lines(*texts)
    repaired = anchors.repair(sources, lines(*kept))
    assert anchors.missing(sources, repaired) == ()
    assert [line.seqs for line in repaired] == sorted(line.seqs for line in repaired)
    assert anchors.repair(sources, lines(*kept)) == repaired


@settings(deadline=None)
@given(st.from_regex(r"(?:[A-Za-z]{1,6}|[0-9]{1,5}|[-:/.,+$%@#*_()'` \n]|é|年|Jan ){0,40}", fullmatch=True))
def test_repair_leaves_nothing_missing_where_anchors_are_dense(text: str) -> None:
    sources = lines(text, "Ann: " + text)
    assert anchors.missing(sources, anchors.repair(sources, [])) == ()


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_costs_its_length(unit: str) -> None:
    sources = lines(unit * (50_000 // len(unit)))
    began = time.perf_counter()
    assert anchors.missing(sources, anchors.repair(sources, [])) == ()
    assert time.perf_counter() - began < 5
