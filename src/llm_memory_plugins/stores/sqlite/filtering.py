"""The metadata of the rows of a shelf, and filters over all of it at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_memory_plugins.filters import All, Filter, Not, Some, jsonpath, matcher, plain
from llm_memory_plugins.stores.sqlite.arrays import Column, Flags, Names, Numbers
from llm_memory_plugins.stores.sqlite.rows import decoded

_FILTERS = 16  # whose answers are kept
_NO, _YES, _UNKNOWN = np.array((0, 1, -1), np.int8)
_CHARACTER = 8  # bytes of metadata that is read, for a character of its text, roughly


class Metadata:
    """What filters ask of rows. Equal metadata is kept once, and asked once by each of the filters used last."""

    def __init__(self) -> None:
        self._kinds = Column(np.int64)
        self._texts = Names()
        self._plain: list[Mapping[str, Any]] = []
        self._answers: dict[str, NDArray[np.int8]] = {}  # by filter, for each kind of metadata
        self.nbytes = 0

    @property
    def rows(self) -> int:
        """Of how many rows it is known."""
        return len(self._kinds.values)

    def extend(self, texts: Iterable[str]) -> None:
        """Add the metadata of rows, as it is stored."""
        kinds = self._texts.codes(texts)
        for text in self._texts.names[len(self._plain) :]:
            untagged = '"$' not in text  # so it means what it says
            self._plain.append(plain(json.loads(text) if untagged else decoded(text)))
            self.nbytes += _CHARACTER * len(text)
        self._kinds.extend(kinds)

    def fitting(self, condition: Filter, allowed: Flags) -> Flags:
        """Which of the rows that are allowed a filter fits."""
        name = jsonpath(condition)  # as values, 1 and True would be equal
        known = self._answers.pop(name, np.empty(0, np.int8))
        answers = np.full(len(self._plain), _UNKNOWN)
        answers[: len(known)] = known
        kinds = self._kinds.values
        asked = np.zeros(len(answers), np.bool_)
        asked[kinds[allowed]] = True
        new = np.flatnonzero(asked & (answers == _UNKNOWN))
        answers[new] = _NO
        answers[_fitting(condition, self._plain, new)] = _YES
        self._answers[name] = answers  # now the last one in order
        if len(self._answers) > _FILTERS:
            del self._answers[next(iter(self._answers))]
        return allowed & (answers[kinds] == _YES)


def _fitting(condition: Filter, metadata: Sequence[Mapping[str, Any]], among: Numbers) -> Numbers:
    """At which of some places a filter fits. Each part of it is asked only where that matters, and in one go."""
    if isinstance(condition, All):
        for part in condition.parts:
            among = _fitting(part, metadata, among)
        return among
    if isinstance(condition, Some):
        left = among
        for part in condition.parts:
            left = _without(left, _fitting(part, metadata, left))
        return _without(among, left)
    if isinstance(condition, Not):
        return _without(among, _fitting(condition.part, metadata, among))
    asked = map(matcher(condition), map(metadata.__getitem__, among.tolist()))
    return among[np.fromiter(asked, np.bool_, len(among))]


def _without(places: Numbers, others: Numbers) -> Numbers:
    return np.setdiff1d(places, others, assume_unique=True)
