"""Lua scripts, which lie beside this file."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib import resources


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name a server knows it by."""

    text: str
    sha: str


def load(name: str) -> Script:
    """The script in `<name>.lua`."""
    text = (resources.files(__package__ or "") / f"{name}.lua").read_text(encoding="utf-8")
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
