"""Kills a writer of a store many times and checks what is left: run by the contract tests, in a process of its own.

The process has one thread until it has forked, so that each writer is a fork: a hundred kills cost no hundred imports.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.records import RowState
from data_schemas.stores.open import create_store, open_store, verify_checksums
from tests.data_schemas.stores.store_examples import assert_same, content_of, example_header, example_rows

BLOCK = 8
CALLS = ("replace", "rename", "fsync", "unlink", "rmdir")


def workload(path: Path) -> None:
    """Creates, grows, writes and rewrites; picks up where a killed run stopped."""
    header = example_header(block_rows=BLOCK)
    store = open_store(path, "a") if path.exists() else create_store(path, header)
    names = [f"image {i}" for i in range(16)]
    for total in (12, 16):
        if len(store) < total:
            store.append(names[len(store) : total])
        for block in range(-(-len(store) // BLOCK)):
            rows = store.read_block(block)
            if (rows.state == RowState.EMPTY).any() and (block + 1) * BLOCK <= total + BLOCK:
                count = len(rows)
                store.write_block(block, example_rows(header, count, block * 100, names[block * BLOCK :][:count]))
        store.commit()
    if store.header.seed == 0:
        store.set_header(header.model_copy(update={"seed": 1}))
    store.close()


def fork(action: Callable[[], None]) -> int:
    """Runs ``action`` in a child; the child never returns."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
        finally:
            os._exit(status)
    return child


def killed_at_call(path: Path, number: int) -> None:
    """Runs the workload and dies by SIGKILL just before system call ``number`` of ``CALLS``."""
    count = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    workload(path)
    path.with_name("calls").write_text(str(count))


def check_torn(path: Path) -> None:
    """What a reader sees after a kill: each block wholly old or wholly new, never a mixture."""
    if not path.exists():
        return
    header = example_header(block_rows=BLOCK)
    with open_store(path) as store:
        if verify_checksums(store):
            raise AssertionError("bad checksums after a kill")
        if len(store) not in (0, 12, 16):
            raise AssertionError(f"{len(store)} rows: a part of an append")
        got = content_of(store)
        for block in range(-(-len(store) // BLOCK)):
            span = slice(block * BLOCK, min((block + 1) * BLOCK, len(store)))
            shown = {name: values[span] for name, values in got.items()}
            done = shown["state"] != RowState.EMPTY
            if not done.any():
                continue
            count = int(np.flatnonzero(done)[-1]) + 1
            if count not in (4, 8):
                raise AssertionError(f"block {block}: {count} rows written")
            names = [f"image {block * BLOCK + i}" for i in range(count)]
            assert_same({name: values[:count] for name, values in shown.items()},
                        vars(example_rows(header, count, block * 100, names)))  # fmt: skip


def main(folder: Path, suffix: str, kills: int) -> dict[str, Any]:
    """Runs all trials, with ``kills`` or a few more of each kind, and tells what went wrong."""
    faults: list[str] = []
    reference = folder / "reference" / f"s{suffix}"
    reference.parent.mkdir()
    child = fork(lambda: killed_at_call(reference, 0))
    if os.waitpid(child, 0)[1] != 0:
        return {"faults": ["the uninterrupted run failed"], "killed_at_call": 0, "killed_at_random": 0}
    calls = int(reference.with_name("calls").read_text())
    # The uninterrupted run is timed in a child that has imported everything, as the killed ones have.
    started = time.perf_counter()
    timed = folder / "timed" / f"s{suffix}"
    timed.parent.mkdir()
    os.waitpid(fork(lambda: workload(timed)), 0)
    length = time.perf_counter() - started
    dice = random.Random(0)
    numbers = sorted({1 + round(i * (calls - 1) / (kills + 3)) for i in range(kills + 4)})
    planned: list[tuple[str, float]] = [("call", number) for number in numbers]
    planned += [("random", dice.uniform(0, 0.9 * length)) for _ in range(40)]
    trials: list[tuple[str, float]] = []
    killed = {"call": 0, "random": 0}
    survivors: list[Path] = []
    for kind, when in planned:
        if kind == "random" and killed["random"] == kills:
            break  # on a busy machine some end before their kill comes; those are tried again
        index = len(trials)
        trials.append((kind, when))
        path = folder / f"trial{index}" / f"s{suffix}"
        path.parent.mkdir()
        if kind == "call":
            child = fork(lambda path=path, when=when: killed_at_call(path, int(when)))
        else:
            child = fork(lambda path=path: workload(path))
            time.sleep(when)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        killed[kind] += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status) and status != 0:
            faults.append(f"trial {index} failed by itself")
        survivors.append(path)
    # Readers start threads, so they come after the last fork of a writer.
    with open_store(reference) as store:
        wanted = content_of(store)
    for index, path in enumerate(survivors):
        try:
            check_torn(path)
            workload(path)
            with open_store(path) as store:
                assert_same(content_of(store), wanted)
                if store.header.seed != 1 or verify_checksums(store):
                    raise AssertionError("the resumed store differs")
            left = sorted(
                p.name for p in path.parent.iterdir() if p.name not in (path.name, f"{path.name}.lock", "calls")
            )
            if left:
                raise AssertionError(f"left behind: {left}")
        except Exception as error:
            faults.append(f"trial {index} {trials[index]}: {error!r}")
    return {"faults": faults, "killed_at_call": killed["call"], "killed_at_random": killed["random"], "calls": calls}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
