"""A GPU as benchmarks name it, and a report that keeps what was measured when a part of it fails."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.encode import markdown


@dataclass(frozen=True)
class Card:
    """What the roofline needs to know of the card.

    Attributes:
        name: of the card.
        multiprocessors: how many.
        clock: greatest clock of a multiprocessor in Hz; None where nvidia-smi does not tell.
        driver: version of the driver.
    """

    name: str
    multiprocessors: int
    clock: float | None
    driver: str


def card() -> Card:
    """The card that torch takes."""
    import torch

    clock, driver = None, "unknown"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=clocks.max.sm,driver_version", "--format=csv,noheader,nounits"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        if answer:
            megahertz, _, driver = (word.strip() for word in answer[0].partition(","))
            clock = 1e6 * float(megahertz) if megahertz.replace(".", "").isdigit() else None
    return Card(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).multi_processor_count, clock, driver)


def heading(here: Card) -> str:
    """The card and the versions."""
    import torch

    found = []
    for package in ("torch", "triton", "gsplat"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    clock = "?" if here.clock is None else f"{here.clock / 1e6:.0f} MHz"
    return (
        f"{here.name}, {here.multiprocessors} multiprocessors, at most {clock}, driver {here.driver}\n\n"
        f"{', '.join(found)}, CUDA {torch.version.cuda}, Python {platform.python_version()}, {time.strftime('%F')}"
    )


class Report:
    """What was measured, printed and written down as it comes.

    Args:
        out: Markdown file that is begun again; None prints only.
        minutes: after which no part is begun.
    """

    def __init__(self, out: Path | None, minutes: float) -> None:
        self._out = out
        self._end = time.monotonic() + 60 * minutes
        self.failures = 0
        if out is not None:
            out.write_text("")

    def say(self, text: str) -> None:
        """A line or a table."""
        print(text, flush=True)
        if self._out is not None:
            with self._out.open("a") as file:
                file.write(f"{text}\n")

    def table(self, title: str, head: list[str], parts: Sequence[Callable[[], list[list[str]]]]) -> None:
        """A table; each part gives some of its rows, or a line that says why there are none."""
        rows, notes = [head], []
        for part in parts:
            if time.monotonic() > self._end:
                notes.append("The rest was left out: the time was up.")
                break
            try:
                rows += part()
            except Exception as error:  # whatever a part fails of, the next may be measured
                self.failures += 1
                message = next(iter(str(error).splitlines()), "no message")
                notes.append(f"Not measured: {type(error).__name__}: {message}")
        self.say(f"\n## {title}\n\n{markdown(rows)}" + "".join(f"\n\n{note}" for note in notes))
