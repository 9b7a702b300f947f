"""Every Python block of the README runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block(block, tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        env={"XDG_DATA_HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert '<memory source="messages">' in result.stdout


def test_every_setting_is_in_the_table():
    from llm_memory_plugins.config import BufferConfig, SummaryConfig

    table = README[README.index("## Configuration") : README.index("## Measured")]
    missing = {*BufferConfig.model_fields, *SummaryConfig.model_fields} - set(re.findall(r"`(\w+)`", table))
    assert missing == {"redis_url", "supabase_url", "supabase_key"}, "those are not supported yet"
