"""The command line, from the arguments to what stands on the terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from llm_memory_plugins import cli, demo
from llm_memory_plugins.types import Message

HOSTILE = "[red]x[/red] \x1b[31mred\x1b[0m \x9b2J \x7f \x07 \u202eabc"
RAW = {"\x1b", "\x9b", "\x7f", "\x07", "\u202e"}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("LLM_MEMORY_") or name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        code = exit_.value.code
        out, err = capsys.readouterr()
        if isinstance(code, str):  # what the interpreter does with it
            code, err = 1, f"{err}{code}\n"
        return Outcome(code or 0, out, err)

    return call


@pytest.fixture
def db(call: Call, tmp_path: Path) -> Call:
    return lambda *arguments: call("--database", tmp_path / "memory.db", *arguments)


def line(number: int, content: str, **fields: Any) -> dict[str, Any]:
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=number)
    role = "user" if number % 2 == 0 else "assistant"
    made = {"id": f"m{number}", "session_id": "s1", "user_id": "ann", "role": role, "content": content}
    return {**made, "created_at": at.isoformat().replace("+00:00", "Z"), **fields}


def written(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    return path


@pytest.fixture
def transcript(tmp_path: Path) -> Path:
    return written(
        tmp_path / "in.jsonl",
        [
            line(0, "Where is Lisbon?", name="Ann"),
            line(1, "", tool_calls=[{"id": "c1", "name": "look", "arguments": '{"q":"Lisbon"}'}]),
            line(2, "Portugal", role="tool", tool_call_id="c1"),
            line(3, "In Portugal. 日本 é", metadata={"lang": "en"}),
            line(4, HOSTILE, name="E\x1b[31mve"),
            line(5, "bob's", session_id="s2", user_id="bob"),
        ],
    )


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(x) for x in text.split("\n") if x]


def test_import_then_export_is_the_same(db: Call, transcript: Path, tmp_path: Path) -> None:
    assert db("import", transcript).out == "messages imported: 6\n"
    assert db("import", transcript).code == 0  # the same again is stored once
    to = tmp_path / "out.jsonl"
    assert db("export", to).out == "messages exported: 6\n"
    given = read(transcript.read_text())
    assert read(to.read_text()) == given
    dashed = db("export", "-")
    assert read(dashed.out) == given
    assert not RAW & set(dashed.out)
    assert [x["id"] for x in read(db("export", "-", "--user", "bob").out)] == ["m5"]
    assert [x["id"] for x in read(db("export", "-", "--session", "s2").out)] == ["m5"]


def test_import_names_the_session_of_lines_that_name_none(db: Call, tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    path.write_text('{"role": "user", "content": "hi"}\n')
    assert db("import", path, "--session", "s9", "--user", "u9").out == "messages imported: 1\n"
    assert read(db("export", "-").out)[0]["user_id"] == "u9"


def test_show_prints_the_newest_and_nothing_raw(db: Call, transcript: Path) -> None:
    db("import", transcript)
    shown = db("show", "s1", "--last", "2")
    assert shown.code == 0
    assert "In Portugal. 日本 é" in shown.out
    assert "Lisbon" not in shown.out
    assert "[red]x[/red]" in shown.out
    assert r"\x1b[31mred" in shown.out
    assert not RAW & set(shown.out)
    assert '[calls look({"q":"Lisbon"})]' in db("show", "s1").out


def test_context_as_a_table_and_as_json(db: Call, transcript: Path) -> None:
    db("import", transcript)
    shown = db("context", "s1", "Where?", "--budget", 300)
    assert "/ 300 tokens" in shown.out
    assert "[red]x[/red]" in shown.out
    assert not RAW & set(shown.out)
    asked = db("context", "s1", "Where?", "--budget", 300, "--json")
    assert not RAW & set(asked.out)
    context = json.loads(asked.out)
    assert context["tokens"] <= context["max_total_tokens"] == 300
    assert context["messages"][-1]["content"] == HOSTILE
    assert HOSTILE in context["text"]
    assert set(context) >= {"pieces", "dropped", "errors", "summary", "sources"}


def test_context_summarises_first_unless_told_not_to(db: Call, tmp_path: Path) -> None:
    said = [line(i, f"My sister Clara moved to Lisbon in week {i} with {i + 3} boxes.") for i in range(60)]
    db("import", written(tmp_path / "long.jsonl", said))
    plain = json.loads(db("context", "s1", "Lisbon", "--budget", 300, "--json", "--no-summarise").out)
    assert not plain["summary"]
    assert json.loads(db("context", "s1", "Lisbon", "--budget", 300, "--json").out)["summary"]


def test_stats_of_all_and_of_one(db: Call, transcript: Path) -> None:
    assert db("stats").code == 0
    db("import", transcript)
    rows = [x.split() for x in db("stats").out.splitlines()]
    assert [row[:3] for row in rows] == [["user", "session", "messages"], ["ann", "s1", "5"], ["bob", "s2", "1"]]
    assert len(db("stats", "s1").out.splitlines()) == 2
    assert "ann" not in db("stats", "--user", "bob").out


def test_forget_erases_what_is_named(db: Call, transcript: Path) -> None:
    db("import", transcript)
    assert "5 messages" in db("forget", "--session", "s1", "--yes").out
    assert [x["id"] for x in read(db("export", "-").out)] == ["m5"]
    assert "1 messages" in db("forget", "--user", "bob", "--yes").out
    assert db("forget", "--user", "bob", "--yes").out == "removed: nothing\n"
    assert db("export", "-").out == ""


@pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("n\n", 6), ("", 6)])
def test_forget_asks_first(db: Call, transcript: Path, tmp_path: Path, answer: str, left: int) -> None:
    db("import", transcript)
    arguments = ["--database", str(tmp_path / "memory.db"), "forget", "--session", "s1", "--user", "ann"]
    done = CliRunner().invoke(cli.build(), arguments, input=answer)
    assert "Erase session 's1' of user 'ann' for ever?" in done.output
    assert done.exit_code == (0 if left == 1 else 1)
    assert len(read(db("export", "-").out)) == left


def test_forget_wants_something_named(db: Call) -> None:
    assert db("forget", "--yes").code == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "nobody"), "`llm-memory stats` lists them"),
        (("context", "nobody", "q"), "`llm-memory stats` lists them"),
        (("stats", "nobody"), "`llm-memory stats` lists them"),
        (("export", "-", "--session", "nobody"), "`llm-memory stats` lists them"),
        (("show", ""), "must not be empty"),
        (("context", "s1", "q", "--budget", "3"), "raise max_total_tokens"),
        (("export", "/nowhere/at/all.jsonl"), "No such file"),
    ],
)
def test_errors_are_one_line(db: Call, transcript: Path, arguments: tuple[str, ...], says: str) -> None:
    db("import", transcript)
    failed = db(*arguments)
    assert failed.code == 1
    assert failed.out == ""
    assert failed.err.startswith("error: ")
    assert failed.err.count("\n") == 1
    assert says in failed.err


@pytest.mark.parametrize(
    "content", [b"{no json", b'{"role": "user", "content": "x", "\\u001b[31mk": 1}', b"\xff\xfe", b'{"role": "king"}']
)
def test_a_bad_file_is_refused_whole(db: Call, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json.dumps(line(0, "fine")).encode() + b"\n" + content + b"\n")
    failed = db("import", path, "--session", "s1")
    assert failed.code == 1
    assert failed.err.count("\n") == 1
    assert "\x1b" not in failed.err
    assert db("export", "-").out == ""


def test_an_ambiguous_session_asks_for_the_user(db: Call, tmp_path: Path) -> None:
    db("import", written(tmp_path / "two.jsonl", [line(0, "a"), line(1, "b", user_id="bob")]))
    assert "say which user" in db("show", "s1").err
    assert "b" in db("show", "s1", "--user", "bob").out


def test_debug_shows_the_traceback(call: Call, tmp_path: Path) -> None:
    assert "Traceback" in call("--debug", "--database", tmp_path / "x.db", "show", "nobody").err


def test_a_url_is_taken_as_it_is_and_the_environment_works(
    call: Call, transcript: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'by_url.db'}"
    call("--database", url, "import", transcript)
    monkeypatch.setenv("LLM_MEMORY_DATABASE_URL", url)
    assert len(read(call("export", "-").out)) == 6
    assert "error: database_url" in call("--database", "mysql://x", "stats").err


@pytest.mark.parametrize("package", ["typer", "rich.console"])
def test_without_the_extra_one_line_says_what_to_install(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from llm_memory_plugins.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "llm-memory needs typer and rich; pip install 'llm-memory-plugins[cli]'\n"


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from llm_memory_plugins.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_broken_pipe_is_no_traceback(db: Call, tmp_path: Path) -> None:
    path = written(tmp_path / "long.jsonl", [line(i, "x" * 1000) for i in range(300)])
    db("import", path)
    with started("--database", tmp_path / "memory.db", "export", "-") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_ctrl_c_exits_130(tmp_path: Path) -> None:
    path = written(tmp_path / "long.jsonl", [line(i, f"Clara {i} went to Lisbon. " * 40) for i in range(3000)])
    with started("demo", "--transcript", path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()  # imported; summarising takes a while
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
        assert "Traceback" not in process.stderr.read()


def test_demo_of_an_own_transcript(call: Call, tmp_path: Path) -> None:
    said = [line(i, f"My sister Clara moved to Lisbon in week {i}. {HOSTILE}", name="Ann") for i in range(80)]
    path = written(tmp_path / "own.jsonl", [*said, line(99, "short", session_id="other")])
    shown = call("demo", "--transcript", path)
    assert shown.code == 0
    assert "80 messages in 40 turns" in shown.out
    assert "the longest of 2" in shown.out
    assert shown.out.count("Question: What did Ann say about ") >= 2
    assert "Clara?" in shown.out
    for budget in (500, 1000, 4000):
        assert f" / {budget} tokens" in shown.out
    assert not RAW & set(shown.out)
    assert "evidence" not in shown.out


def test_demo_ignores_the_environment(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"REDIS_URL": "redis://nowhere", "USER_ID": "zoe", "SUMMARIZATION_MODEL": "gpt-x"}
    for name, value in {**settings, "RETENTION_SECONDS": "1", "SUPABASE_URL": "https://nowhere"}.items():
        monkeypatch.setenv(f"LLM_MEMORY_{name}", value)
    monkeypatch.setenv("OPENAI_API_KEY", "no key")
    path = written(tmp_path / "own.jsonl", [line(0, "Hello")])
    shown = call("demo", "--transcript", path, "--question", "What?", "--budget", "200")
    assert shown.code == 0
    assert "Question: What?" in shown.out
    assert " / 200 tokens" in shown.out
    assert " / 500 tokens" not in shown.out


def test_demo_of_nothing_says_so(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    assert call("demo", "--transcript", path).err == "error: transcript: holds no messages\n"


def test_bundled_demo_tells_whether_the_evidence_is_there(call: Call) -> None:
    shown = call("demo")
    assert shown.code == 0
    assert shown.out.count("Question: ") == 8
    yes, no = (shown.out.count(f"evidence in the context: {word}") for word in ("yes", "no"))
    assert yes + no == 24
    totals = next(x for x in shown.out.splitlines() if x.startswith("Questions whose evidence"))
    assert sum(int(x.split()[0]) for x in totals.split(": ")[1].split(", ")) == yes


def test_questions_are_made_of_names_then_topics() -> None:
    def spoken(number: int, content: str, name: str | None) -> Message:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        return Message(id=str(number), session_id="s", role="user", name=name, content=content, created_at=at)

    said = ["I met Clara at the harbour.", "Then Clara left the harbour, Anna said.", "Hi!"]
    texts = [q.text for q in demo.made_from([spoken(i, x, "Annabel") for i, x in enumerate(said)])]
    assert texts[:2] == ["What did Annabel say about Clara?", "What did Annabel say about harbour?"]
    assert not any("Anna?" in text for text in texts)  # a short form of the speaker's own name
    assert demo.made_from([]) == [demo.Question(text="What was this about?")]
