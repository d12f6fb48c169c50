"""What is pushed: files by their path in the repository, and what a card says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_schemas.hub import RepositoryKind
from pipeline.hub.cards import CARD_FILE


@dataclass(frozen=True)
class Parcel:
    """The content of one commit.

    Attributes:
        title: what is pushed, as in "store sprites.zarr".
        kind: of the repository that it belongs into.
        files: file on this machine, or bytes, by path in the repository; the card among them.
        replaced: of what an earlier push has left in the repository everything that is, or is below, one of these goes.
        licence: of the source, as it is stated.
        source: name of the source.
        notes: what the user should know.
    """

    title: str
    kind: RepositoryKind
    files: dict[str, Path | bytes]
    replaced: tuple[str, ...]
    licence: str
    source: str
    notes: tuple[str, ...] = ()

    @property
    def card(self) -> str:
        """The text of ``README.md``."""
        content = self.files[CARD_FILE]
        assert isinstance(content, bytes)
        return content.decode()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }

    def stale(self, present: list[str]) -> list[str]:
        """Files of an earlier push that are not among those of this one.

        Args:
            present: paths in the repository.
        """
        old = [path for path in present if any(path == name or path.startswith(f"{name}/") for name in self.replaced)]
        return sorted(set(old) - set(self.files))
