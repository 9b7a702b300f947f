"""Every block of the README runs as it stands, but for the addresses of servers."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run(block, folder):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        env={"XDG_DATA_HOME": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert '<memory source="' in result.stdout
    return result.stdout


EMBEDDED = [block for block in blocks("python") if "redis_url" not in block]


@pytest.mark.slow
@pytest.mark.parametrize("block", EMBEDDED, ids=range(len(EMBEDDED)))
def test_block(block, tmp_path):
    run(block, tmp_path)


@pytest.mark.slow
def test_production(database_url, redis_server, tmp_path):
    (login,) = blocks("sql")
    (block,) = [block for block in blocks("python") if "redis_url" in block]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("drop role if exists app")
        connection.execute(login.replace("'...'", "'of-the-tests'"))
    server = database_url.rpartition("@")[2]
    for there, here in (
        ("redis://localhost:6379", redis_server.url),
        ("postgresql://app:...@localhost:5432/app", f"postgresql://app:of-the-tests@{server}"),
    ):
        assert there in block
        block = block.replace(there, here)
    assert "healthy" in run(block, tmp_path)


def test_every_setting_is_in_the_table():
    from llm_memory_plugins import config

    engines = (
        config.BufferConfig,
        config.SummaryConfig,
        config.VectorConfig,
        config.WorkingConfig,
        config.KeyValueConfig,
    )
    settings = {name for engine in engines for name in engine.model_fields}
    table = README[README.index("## Configuration") : README.index("## Measured")]
    assert settings <= set(re.findall(r"`(\w+)`", table))
