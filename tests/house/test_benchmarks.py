"""The benchmarks run: in their quickest form each ends well and prints its tables. What they measure is not judged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def printed(script, *options, **environment):
    """What a benchmark prints, run by itself and with no settings but these."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("LLM_MEMORY_", "OPENAI_", "GOOGLE_"))
    }
    result = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "benchmarks" / script, *options],
        env={**own, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def figures(text, title, row):
    """The cells of a row in the table of that title."""
    lines = text[text.index(f"\n{title}") :].splitlines()
    found = next(line for line in lines if line.startswith(row))
    return found.removeprefix(row).split()


def test_growth():
    text = printed("growth.py", "--quick")
    assert "worst ratio" in text
    assert len([line for line in text.splitlines() if line.count("x") >= 2]) >= 6


def test_working():
    assert "worst ratio" in printed("working.py", "--quick")


def test_probe_survival():
    assert "context of 8000 tokens" in printed("probe_survival.py")


def test_chat_turn(postgres):
    only = "raw psycopg + redis-py,this project"
    options = ["--histories", "100", "--rounds", "3", "--seconds", "0", "--only", only]
    text = printed("chat_turn.py", *options, LLM_MEMORY_TEST_DATABASE_URL=postgres.url)
    for title in ("durable turn", "store, ms", "hot read", "servers 20 ms away"):
        assert figures(text, title, "this project")


STORES = ["sqlite", "postgresql"]


@pytest.mark.parametrize("store", STORES)
def test_vector(store, request):
    database = {}
    if store == "postgresql":
        database["LLM_MEMORY_TEST_DATABASE_URL"] = request.getfixturevalue("postgres").url
    text = printed("vector.py", "--quick", "--stores", store, **database)
    for title in (f"{store}: question", f"{store}: filtered question"):
        ratios = figures(text, title, "this project, search")
        assert ratios[1].endswith("x")
        assert len(figures(text, title, "this project, match of the store")) == len(ratios)
    assert figures(text, f"{store}: embed and store", "this project, search")[-1].endswith("x")
    assert figures(text, f"{store}: candidates", "1,000") == ["1.000"] * 4
    assert f"{store}: storing costs" in text
    for peer in ("LangChain", "LlamaIndex"):  # measured, or named as missing
        assert figures(text, f"{store}: question", peer)


SCRIPT = """
import os, sys
assert sys.argv[1:] == ["--dataset", "theirs", "--plugin", "benchmarks.plugins:memory"]
print("asked on", os.environ.get("LLM_MEMORY_DATABASE_URL", "sqlite").partition(":")[0])
"""


def test_quality(postgres, tmp_path):
    script = tmp_path / "measures.py"
    script.write_text(SCRIPT)
    urls = {"LLM_MEMORY_TEST_DATABASE_URL": postgres.url, "LLM_MEMORY_BENCH_SCRIPT": str(script)}
    text = printed("quality.py", "--quick", "--postgres", "--datasets", "theirs", **urls)
    for title in ("bundled transcript", "made conversations", "made documents"):
        ours = figures(text, title, "(e) this package, SQLite")
        assert len(ours) == 7
        assert figures(text, title, "(e) this package, PostgreSQL") == ours
        assert max(map(float, ours)) > max(map(float, figures(text, title, "(a) last texts only")))
    assert text.index("--dataset theirs, SQLite\nasked on sqlite") < text.index("PostgreSQL\nasked on postgresql")


def test_key_value():
    text = printed("key_value.py", "--quick")
    for name in ("floor: redis-py, HGET and json.loads", "KeyValueStoreMemory, Redis + PostgreSQL"):
        assert len(figures(text, "microseconds", name)) >= 6
    assert figures(text, "round trips", "KeyValueStoreMemory, Redis + PostgreSQL") == ["0+1", "1+1", "0+1", "1+1"]
    assert "hot get against bare redis-py" in text
    for peer in ("LangGraph InMemoryStore", "LangGraph AsyncPostgresStore", "LlamaIndex RedisKVStore"):
        assert peer in text, "measured, or named as missing"
