"""What all unit tests share: an environment without anybody's settings or keys in it."""

import os

import pytest

USUAL = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "GOOGLE_API_KEY", "GEMINI_API_KEY")


@pytest.fixture
def clean_environment(monkeypatch):
    """No setting of ours and no provider's key comes from the machine the test runs on."""
    for name in [name for name in os.environ if name.upper().startswith("LLM_MEMORY_") or name.upper() in USUAL]:
        monkeypatch.delenv(name)
    return monkeypatch
