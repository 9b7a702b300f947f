"""The direction of imports is checked by `make check`; here, that the check catches a break."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder):
    return subprocess.run(
        [LINT, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("types.py", "from llm_memory_plugins import engines", "Data flows one way"),
        ("engines/buffer.py", "import llm_memory_plugins.engines.summary", "No engine imports another"),
        ("engines/buffer.py", "import openai", "Model SDKs"),
    ],
)
def test_a_deliberate_break_is_caught(tmp_path, file, line, broken):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    whole = lint(tmp_path)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    path = tmp_path / "src" / "llm_memory_plugins" / file
    path.write_text(f"{path.read_text()}\n{line}  # the break\n")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert f"{broken}" in result.stdout.replace("\n", " ")
    assert "BROKEN" in result.stdout
