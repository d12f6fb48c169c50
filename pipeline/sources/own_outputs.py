"""What SplatSpace itself wrote into the folder of a data set: stores, reports, samples, trainings. Never a source.

Each is known by what it is called and by what is in it, so that a folder of the user's that merely has such a name
stays one. A folder that is given itself is a source, whatever it holds: samples can be encoded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

_STORE = re.compile(r"(?P<store>.+\.(zarr|h5|hdf5))(?P<beside>\.lock|\.journal|\.[0-9a-f]{12}\.partial)?")
_BESIDE = (".attribution.txt", ".regression.npz", "-features")
_UNFINISHED = re.compile(r".+\.[0-9a-f]{12}\.partial")
_SAMPLED = re.compile(
    r"\d{4,}\.png|(forward|sampling)\.gif"
    r"|(grid|pixels|interpolation|roll-out|seams|table|gram|drift|zoom-\dx|blobs|ellipses)\.png"
)
_FIRST_SAMPLE = re.compile(r"0{4,}\.png")
_PAGES = {"report.html": b": splat report</title>", "evaluation.html": b": evaluation</title>"}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SCHEMA = re.compile(rb"\"schema\"\s*:\s*\"splatspace\"|schema.{0,200}?splatspace", re.DOTALL)


def own_outputs(paths: Iterable[str], head: Callable[[str], bytes]) -> set[str]:
    """Folders and files among some paths that SplatSpace wrote.

    Args:
        paths: of files, relative, with ``/``.
        head: gives the first bytes (a MiB, say) of one of them, b"" where it cannot be read.

    Returns:
        The outermost of them; everything below a folder belongs to it.
    """
    files: defaultdict[str, set[str]] = defaultdict(set)
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        parts = path.split("/")
        files["/".join(parts[:-1])].add(parts[-1])
        for depth in range(1, len(parts)):
            folders["/".join(parts[: depth - 1])].add(parts[depth - 1])
    start = _where_they_part(files)
    found: set[str] = set()
    waiting = [start]
    while waiting:
        at = waiting.pop()
        prefix = f"{at}/" if at else ""
        within = {name for name in folders[at] if _is_own_folder(prefix + name, files, folders, head)}
        within |= {name for name in files[at] if _is_own_store_file(prefix + name, head)}
        stems = {PurePosixPath(name).stem for name in within}
        for name in (*folders[at], *files[at]):
            match = _STORE.fullmatch(name)
            stem = next((name.removesuffix(ending) for ending in _BESIDE if name.endswith(ending)), None)
            if stem in stems or (match is not None and match["beside"] and match["store"] in within):
                within.add(name)
        for name in files[at]:
            if name.endswith(".lock") and name.removesuffix(".lock") in within:  # of a training or an evaluation
                within.add(name)
        found |= {prefix + name for name in within}
        waiting += [prefix + name for name in folders[at] if name not in within]
    return found


def is_within(path: str, own: set[str]) -> bool:
    """Whether a path is one of ``own`` or lies below one."""
    return path in own or any(str(parent) in own for parent in PurePosixPath(path).parents)


def _where_they_part(files: dict[str, set[str]]) -> str:
    """The deepest folder that all files share: what was packed or given as the data set."""
    parts = [folder.split("/") if folder else [] for folder in files]
    first, last = min(parts, default=[]), max(parts, default=[])
    shared = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return "/".join(first[:shared])


def _is_own_folder(
    folder: str, files: dict[str, set[str]], folders: dict[str, set[str]], head: Callable[[str], bytes]
) -> bool:
    names, name = files.get(folder, set()), folder.rpartition("/")[2]
    if _UNFINISHED.fullmatch(name):
        return True
    if name.endswith(".zarr"):
        return "zarr.json" in names and bool(_SCHEMA.search(head(f"{folder}/zarr.json")))
    if any(page in names and title in head(f"{folder}/{page}") for page, title in _PAGES.items()):
        return True
    if {"card.md", "log.jsonl"} <= names or {"state.json", "state.safetensors"} <= names:  # done, or only begun
        return True
    if {"ablation.json", "ablation.md"} <= names:
        return True
    if "grid.png" not in names or not any(map(_FIRST_SAMPLE.fullmatch, names)):
        return False
    others = {name for name in names | folders.get(folder, set()) if not _SAMPLED.fullmatch(name)}
    return all(PurePosixPath(name).name.startswith("samples.") for name in others)


def _is_own_store_file(path: str, head: Callable[[str], bytes]) -> bool:
    if not path.endswith((".h5", ".hdf5")):
        return False
    start = head(path)
    return start.startswith(_HDF5) and bool(_SCHEMA.search(start))
