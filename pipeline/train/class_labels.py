"""The labels that a generator is conditioned on: those that occur, under numbers of their own.

A data set may count its labels from anywhere: 100 to 102, or one of 2,000,000,000. A network has an entry for each
class, so class c stands for the c-th smallest label that occurs; stores, files and people keep the labels and names
of the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError
from pipeline.format import list_names
from pipeline.options import whole_number

MOST_SHOWN = 20


@dataclass(frozen=True)
class ClassLabels:
    """What each class is called.

    Attributes:
        numbers: label of each class as stores have it, ascending; empty where nothing is conditioned.
        names: of the data set's labels, by label; as many as are known.
    """

    numbers: tuple[int, ...]
    names: tuple[str, ...] = ()

    @classmethod
    def occurring(cls, labels: NDArray[np.integer], names: Sequence[str] = ()) -> ClassLabels:
        """A class for each label that occurs.

        Args:
            labels: [image], negative where there is none.
            names: see :class:`ClassLabels`.
        """
        return cls(tuple(int(label) for label in np.unique(labels[labels >= 0])), tuple(names))

    @property
    def plain(self) -> bool:
        """Whether classes and labels are the same numbers."""
        return self.numbers == tuple(range(len(self.numbers)))

    def unknown(self, labels: NDArray[np.integer]) -> tuple[int, ...]:
        """Labels of some images that no class stands for; "no label" is known.

        Args:
            labels: [image], negative where there is none.
        """
        found = np.unique(labels[labels >= 0])
        return tuple(int(label) for label in found[~np.isin(found, np.array(self.numbers, np.int64))])

    def classes(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """The class of each label.

        Args:
            labels: [image], negative where there is none.

        Returns:
            int64 [image], -1 where there is none.

        Raises:
            JobError: a label that no class stands for.
        """
        unknown = self.unknown(labels)
        if unknown:
            raise JobError(f"Labels {self.words(unknown)}", allowed=f"labels {self.words(self.numbers)}")
        places = np.searchsorted(np.array(self.numbers, np.int64), labels)
        return np.where(labels < 0, -1, places).astype(np.int64)

    def find(self, text: str) -> int | None:
        """The label that somebody names or numbers; None where no class stands for it."""
        number = self.names.index(text) if text in self.names else whole_number(text)
        return number if number in self.numbers else None

    def name(self, label: int) -> str:
        """Of a label; empty where it has none."""
        return self.names[label] if 0 <= label < len(self.names) else ""

    def words(self, labels: Sequence[int]) -> str:
        """Labels with their names, for people: ``0 (cat), 1 (dog)``."""
        return list_names([self._word(label) for label in labels[:MOST_SHOWN]], count=len(labels))

    def choices(self) -> str:
        """What :meth:`find` finds, and ``all`` and ``none``, for people."""
        numbers = f"0 to {len(self.numbers) - 1}" if self.plain else ClassLabels(()).words(self.numbers)
        named = [name for name in map(self.name, self.numbers[:MOST_SHOWN]) if name]
        return ", ".join([numbers, "all", "none", *named])

    def _word(self, label: int) -> str:
        name = self.name(label)
        return f"{label} ({name})" if name and name != str(label) else str(label)
