"""The data of `quality.py`: the bundled transcript, and conversations and documents that are made here, seeded.

The shapes are those of the usual measuring scripts: a conversation has turns in order and questions with the ids of the
turns that answer them. Documents are turns without a session, a speaker or a date.

In the made conversations two people talk for weeks. Each fact is said once, often by both with other values, so that
the name in the question decides; some stand in an answer that shares no word with the question; some are told apart
by their day alone. The rest is small talk about the same things. Documents are told apart by the thing and by what
of it is asked, mostly in other words.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files

CONVERSATIONS = 6
SESSIONS = 12
START = datetime(2025, 1, 6, 18, 30)


@dataclass
class Turn:
    """One message, or one document: without a session, a speaker and a day."""

    id: str
    session: int | None
    when: datetime | None
    speaker: str
    text: str
    extra: str = ""

    @property
    def date(self) -> str:
        """The day as it is shown; empty for none."""
        return f"{self.when:%d %B %Y}" if self.when else ""

    @property
    def full(self) -> str:
        """The text with who said it."""
        return f"{self.speaker}: {self.text}" if self.speaker else self.text


@dataclass
class Question:
    """A question and the ids of the turns that answer it."""

    text: str
    gold: list[str]


@dataclass
class Conversation:
    """Turns in order, and what is asked of them."""

    id: str
    turns: list[Turn]
    questions: list[Question] = field(default_factory=list)


def bundled() -> list[Conversation]:
    """The transcript that comes with the package."""
    folder = files("llm_memory_plugins") / "data"
    turns = []
    for line in (folder / "demo.jsonl").read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        turns.append(
            Turn(said["id"], 1, datetime.fromisoformat(said["created_at"]), said.get("name", ""), said["content"])
        )
    asked = json.loads((folder / "demo_questions.json").read_text(encoding="utf-8"))
    return [Conversation("demo", turns, [Question(x["question"], x["ids"]) for x in asked])]


# --- conversations

NAMES = ["Ilse", "Marek", "Petra", "Tomas", "Greta", "Ruben", "Signe", "Pavel", "Edda", "Jonas", "Livia", "Oskar"]
POOLS = {
    "street": ["Mill Lane", "Harbour Street", "Cooper's Row", "Linden Avenue", "Chapel Hill", "Ferry Road"],
    "pet": ["a grey cat", "a lame greyhound", "two ferrets", "an old parrot", "a tortoise", "a blind spaniel"],
    "instrument": ["cello", "accordion", "trumpet", "harp", "banjo", "oboe"],
    "city": ["Lisbon", "Bergen", "Krakow", "Palermo", "Ghent", "Tallinn"],
    "food": ["hazelnuts", "shellfish", "celery", "strawberries", "mustard", "sesame"],
    "job": ["a museum", "a shipping company", "a dental practice", "the city archive", "a radio station", "a vineyard"],
    "sport": ["rowing", "fencing", "bouldering", "archery", "water polo", "badminton"],
    "thing": ["a telescope", "a bread oven", "a sewing machine", "a tandem", "a record player", "a kayak"],
    "sum": ["640", "1,150", "2,300", "480", "3,900", "825"],
    "relative": ["grandmother", "uncle", "godfather", "niece", "stepbrother", "aunt"],
    "town": ["Ostrava", "Trieste", "Uppsala", "Bruges", "Lublin", "Coimbra"],
    "dish": ["lentil soup", "a lemon tart", "dumplings", "fish pie", "a walnut cake", "paella"],
    "subject": ["Japanese", "bookkeeping", "beekeeping", "pottery", "first aid", "astronomy"],
    "weekday": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"],
}

# Which pool, what is said (a line that begins with > is the other's, just before), and what is asked.
FACTS = [
    ("street", "We picked up the keys at last, so from now on you find me on {}.", "On which street do we find {who} now?"),
    ("street", "> And which flat did you take in the end?|The one on {}, it has a balcony.", "Which flat did {who} take?"),
    ("pet", "I could not walk out of the shelter alone, so {} moved in with me.", "Which animal did {who} get from the shelter?"),
    ("instrument", "My teacher says the {} suits my hands, I practise every morning.", "What does {who} practise in the morning?"),
    ("instrument", "> What was in that huge box?|A {}! I have wanted one since I was nine.", "What was in {who}'s box?"),
    ("city", "The flights are booked, I am off to {} for ten days.", "Where is {who} going on holiday?"),
    ("city", "> Where were you born, actually?|In {}, though we left when I was three.", "Where was {who} born?"),
    ("food", "> What did the doctor say?|To keep away from {} for good, it makes my throat swell.", "What food is bad for {who}?"),
    ("job", "I signed the contract this morning: I start at {} next month.", "Where has {who} signed a contract?"),
    ("job", "> How did the interview go?|They want me! It is {}, and they even pay the train.", "Who wants {who} after the interview?"),
    ("sport", "I joined the {} club, my arms hurt in places I did not know.", "Which club did {who} join?"),
    ("sum", "The garage wants {} for the repair, I nearly fell over.", "How much does it cost to mend {who}'s car?"),
    ("relative", "My {} taught me everything about gardens.", "Who taught {who} about plants?"),
    ("town", "> Where did you two meet?|In {}, on a platform, both on the wrong train.", "Where did {who} meet the partner?"),
    ("dish", "For the whole family I made {} and there was nothing left.", "What did {who} make for the family?"),
    ("subject", "I put my name down for evening classes in {}.", "What evening course has {who} chosen?"),
    ("weekday", "The choir rehearses every {}, so that evening is never free.", "On which day does {who} sing in the choir?"),
    ("weekday", "> Can we move our call?|Any evening but {}, that is when the children are here.", "When are the children with {who}?"),
]  # fmt: skip
DATED = ("thing", "I treated myself to {} today, and I regret nothing.", "What did {who} buy on {day}?")

SMALL = [
    "The weather has been strange all week.",
    "My neighbour's cat sat on the roof again.",
    "I slept badly and drank far too much coffee.",
    "Somebody on our street plays the trumpet at night.",
    "The train was late, as always.",
    "I keep meaning to cook something proper.",
    "Work has been one meeting after another.",
    "My sister talks about moving to another city, she never does.",
    "We watched an old film and fell asleep halfway.",
    "The doctor's waiting room was full again.",
    "I should do more sport, I really should.",
    "Prices are ridiculous, even bread costs a fortune.",
    "The children next door are learning the recorder.",
    "A friend of mine has just changed jobs and regrets it.",
    "I found an old holiday photo of us.",
    "The garden is a mess after the storm.",
    "I tried a new recipe and burnt half of it.",
    "The shelter was in the newspaper this week.",
    "My car makes a funny noise when it is cold.",
    "They are tearing up the road to the station.",
    "I would love an evening class, if only I had the evenings.",
    "My cousin wants a dog, the landlord does not.",
]
REPLIES = [
    "Tell me about it!",
    "Same here.",
    "You always make me laugh.",
    "I know exactly what you mean.",
    "That sounds like you.",
    "Oh no, again?",
    "And otherwise?",
    "Give everybody my love.",
    "How have you been?",
    "That is so true.",
]


def conversations() -> list[Conversation]:
    """Two people each, over months."""
    return [_conversation(number) for number in range(CONVERSATIONS)]


def _conversation(number: int) -> Conversation:
    rng = random.Random(number)
    people = rng.sample(NAMES, 2)
    planned: list[list[tuple[str, list[str], str]]] = [[] for _ in range(SESSIONS)]  # who, lines, what is asked
    for pool, said, asked in FACTS:
        values = rng.sample(POOLS[pool], 2)
        told = rng.sample(people, 1 + (rng.random() < 0.6))
        for who, value in zip(told, values, strict=False):
            planned[rng.randrange(SESSIONS)].append((who, said.format(value).split("|"), asked.format(who=who)))
    for who in people:
        pool, said, asked = DATED
        bought = zip(rng.sample(range(SESSIONS), 3), rng.sample(POOLS[pool], 3), strict=True)
        for session, value in bought:
            day = f"{_day(session):%d %B %Y}"
            planned[session].append((who, [said.format(value)], asked.format(who=who, day=day)))
    made = Conversation(f"made-{number}", [])
    for session, facts in enumerate(planned):
        rng.shuffle(facts)
        for who, lines, asked in facts:
            _small_talk(made, session, people, rng)
            for line in lines:
                other = line.startswith("> ")
                speaker = next(name for name in people if (name != who) == other)
                padded = line.removeprefix("> ") if other else " ".join(_padded(line, rng))
                turn = _say(made, session, speaker, padded)
            made.questions.append(Question(asked, [turn]))
        _small_talk(made, session, people, rng)
    return made


def _padded(line: str, rng: random.Random) -> list[str]:
    """The line, mostly with some small talk around it."""
    return [*rng.sample(SMALL, rng.random() < 0.4), line, *rng.sample(SMALL, rng.random() < 0.4)]


def _small_talk(made: Conversation, session: int, people: list[str], rng: random.Random) -> None:
    for place in range(rng.randint(4, 8)):
        said = [rng.choice(REPLIES), *rng.sample(SMALL, rng.randint(1, 2))]
        _say(made, session, people[place % 2], " ".join(said))


def _day(session: int) -> datetime:
    return START + timedelta(days=9 * session)


def _say(made: Conversation, session: int, speaker: str, text: str) -> str:
    when = _day(session) + timedelta(minutes=len(made.turns))
    made.turns.append(Turn(f"D{session}:{len(made.turns)}", session, when, speaker, text))
    return made.turns[-1].id


# --- documents

THINGS = ["kettle", "drill", "lamp", "scooter", "blender", "heater", "printer", "speaker", "router", "vacuum cleaner"]
MODELS = ["Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Hazel", "Larch"]
# What a text says, and how it is asked for.
ASPECTS = [
    ("Faults in material or workmanship are put right free of charge for {n} months after purchase.", "How long is the guarantee on {it}?"),
    ("A full charge takes {n} minutes at the wall and lasts for about a day of use.", "When is the battery of {it} full again?"),
    ("Wipe the housing with a damp cloth, never with solvents; rinse the filter every {n} weeks.", "How often must the filter of {it} be cleaned?"),
    ("With all accessories it weighs {n} hundred grams and fits into a carrying case.", "How heavy is {it}?"),
    ("Parcels leave our warehouse within {n} working days and are insured on the way.", "How soon is {it} shipped?"),
    ("Keep it out of the reach of children below the age of {n}.", "From what age may children use {it}?"),
    ("If the red light blinks {n} times, let it cool down and switch it on again.", "What does a blinking red signal on {it} mean?"),
    ("Spare parts are kept in stock for {n} years after the last one has been sold.", "How long can replacement pieces for {it} be had?"),
]  # fmt: skip
FILLER = [
    "Read this page before you use the appliance for the first time and keep it.",
    "Pictures may differ from the actual product.",
    "Our service team answers questions on all working days.",
    "Do not open the housing yourself.",
    "Changes that serve technical progress are reserved.",
    "The appliance is meant for private households.",
]


def documents() -> list[Conversation]:
    """One corpus of short texts about many things."""
    rng = random.Random(7)
    made = Conversation("documents", [])
    listed = [(f"{model} {thing}", aspect) for thing in THINGS for model in MODELS for aspect in ASPECTS]
    rng.shuffle(listed)
    for number, (it, (said, asked)) in enumerate(listed):
        first, second, last = rng.sample(FILLER, 3)
        others = " and ".join(f"the {name}" for name, _ in rng.sample(listed, 2))
        text = f"{it}. {first} {said.format(n=rng.randint(2, 60))} {second} {last} See also {others}."
        made.turns.append(Turn(f"doc{number}", None, None, "", text))
        if rng.random() < 0.2:
            made.questions.append(Question(asked.format(it=f"the {it}"), [f"doc{number}"]))
    return [made]


DATASETS = {"bundled transcript": bundled, "made conversations": conversations, "made documents": documents}
