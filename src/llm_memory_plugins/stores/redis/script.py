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


def load(*names: str) -> Script:
    """The script in `<name>.lua`, or in several files, one behind the other."""
    folder = resources.files(__package__ or "")
    text = "".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
