"""Names of keys. They hold no id of the caller's: any ids are allowed, and key lists and logs show none."""

from __future__ import annotations

from hashlib import blake2b

from llm_memory_plugins.types import SessionRef

LAYOUT = 1
"""Goes up with a change of what is kept under a key, so that two versions of this package do not meet."""


def tail_key(prefix: str, session: SessionRef) -> str:
    """The key of a session's hot copy. The braces put all keys of a session into one slot of a Cluster."""
    user = session.user_id or ""
    whose = f"{len(user)}:{user}{session.session_id}"  # the length tells where the user ends: no two pairs meet
    digest = blake2b(whose.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{prefix}:{LAYOUT}:{{{digest}}}:tail"
