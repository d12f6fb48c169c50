"""What Prefect costs: how soon it is ready, what its server weighs after many runs, what it adds to an encode.

    python -m benchmarks.prefect_server start
    python -m benchmarks.prefect_server memory --runs 1000
    python -m benchmarks.prefect_server overhead --data-dir ../shared/data/sprites

Each prints a table. All have a server, a home and a port of their own and leave nothing behind. ``start`` types the
commands of the README. ``memory`` makes real runs of the flow ``encode``, of one image that is encoded already:
planning, record, report and artifacts as in every run. ``overhead`` encodes the same images by ``splatspace encode``
and by ``python -m flows --once`` against a server that runs already, in turns: whole processes, imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

SECONDS_TO_START = 300.0
SECONDS_OF_A_RUN = 3600.0
ONE_IMAGE = {"dataset": "demo", "limit": 1, "gaussians": 4, "steps": 1, "workers": 1}

RUNS = """
import sys
from flows.encode import encode

for _ in range(int(sys.argv[2])):
    encode(out=sys.argv[1], **{parameters!r})
"""


def environment(home: Path) -> dict[str, str]:
    """For every command: nothing of the user's Prefect, a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def ask(url: str, body: dict[str, Any]) -> Any:
    """What a POST to the server's API returns."""
    page = url.partition("/api")[0]
    with urllib.request.urlopen(f"{page}/api/csrf-token?client=benchmark", timeout=30) as answer:
        token = json.load(answer)["token"]
    headers = {
        "Content-Type": "application/json", "Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "benchmark",
    }  # fmt: skip
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def typed(command: Sequence[str], given: dict[str, str]) -> tuple[float, str]:
    """Seconds that a command took, and what it printed; it must succeed."""
    began = time.perf_counter()
    finished = subprocess.run(
        command, env=given, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=SECONDS_OF_A_RUN, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{finished.stdout[-4000:]}")
    return seconds, finished.stdout


@contextmanager
def served(given: dict[str, str], log: Path) -> Iterator[tuple[float, subprocess.Popen[bytes]]]:
    """``python -m flows`` until the block is left; yields the seconds until it said that it is ready."""
    began = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows"], env=given, stdin=subprocess.DEVNULL, stdout=stream,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        while not re.search(r"^Stop\s+Ctrl-C", log.read_text(errors="replace"), re.MULTILINE):
            if process.poll() is not None or time.perf_counter() - began > SECONDS_TO_START:
                raise SystemExit(f"`python -m flows` did not get ready:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)
        yield time.perf_counter() - began, process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def compile_engine(folder: Path, given: dict[str, str]) -> None:
    """What the engine compiles once and for all is not Prefect's cost."""
    typed(["splatspace", "encode", "demo", "--out", str(folder / "warm.zarr"), "--limit", "8", "--no-report"], given)


def start_table(folder: Path) -> None:
    """Seconds from typing to being ready, cold and warm, and from ``deployment run`` to the first fitted shard."""
    given = environment(folder / "home")
    compile_engine(folder, given)
    rows: list[tuple[str, float]] = []
    for what in ("cold (empty PREFECT_HOME)", "warm (the second time)"):
        with served(given, folder / "flows.log") as (ready, _):
            rows.append((f"`python -m flows` to ready, {what}", ready))
            if what.startswith("cold"):
                continue
            api = given["PREFECT_API_URL"]
            options = [f"out={folder / 'first.zarr'}", "limit=1000", "images_per_task=128"]
            began = time.perf_counter()
            command = ["prefect", "deployment", "run", "encode/encode-demo"]
            rows.append(
                ("`prefect deployment run` itself",
                 typed([*command, *(word for option in options for word in ("-p", option))], given)[0])
            )  # fmt: skip
            states = {"running": "RUNNING", "first shard": "COMPLETED"}
            for name, state in states.items():
                what = {"state": {"type": {"any_": [state]}}}
                kind = "flow_runs" if name == "running" else "task_runs"
                while not ask(f"{api}/{kind}/filter", {kind: what}):
                    if time.perf_counter() - began > SECONDS_TO_START:
                        raise SystemExit(f"no {name} within {SECONDS_TO_START:.0f} s")
                    time.sleep(0.2)
                rows.append((f"`prefect deployment run` to {name}", time.perf_counter() - began))
            done = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}}
            while not (ended := ask(f"{api}/flow_runs/filter", done)):
                time.sleep(0.2)
            if ended[0]["state"]["type"] != "COMPLETED":
                raise SystemExit(ended[0]["state"]["message"])
            rows.append(("`prefect deployment run` to the end (1,000 images)", time.perf_counter() - began))
    print("| what | seconds |\n|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.1f} |")


def resident(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Memory in MB: of the server and of the process that serves the deployments."""
    serving = psutil.Process(process.pid)
    servers = [
        child for child in serving.children(recursive=True) if "server_process" in " ".join(child.cmdline())
    ]  # fmt: skip
    server = sum(one.memory_info().rss for top in servers for one in (top, *top.children(recursive=True)))
    return server / 1e6, serving.memory_info().rss / 1e6


def memory_table(folder: Path, runs: int, processes: int) -> None:
    """Memory and database of the server, before, between and after."""
    given = environment(folder / "home")
    stores = [folder / f"one-{number}.zarr" for number in range(processes)]
    script = RUNS.format(parameters=ONE_IMAGE)
    print("| runs | server, MB | `python -m flows`, MB | database, MB | seconds per run |\n|---|---|---|---|---|")
    with served(given, folder / "flows.log") as (_, process):
        done, steps = 0, 10
        quiet = {**given, "PREFECT_LOGGING_LEVEL": "WARNING"}
        for step in range(steps + 1):
            began = time.perf_counter()
            target = runs * step // steps
            share = [len(range(done + number, target, processes)) for number in range(processes)]
            workers = [
                subprocess.Popen([sys.executable, "-c", script, str(store), str(count)], env=quiet)
                for store, count in zip(stores, share, strict=True)
                if count
            ]
            if any(worker.wait() for worker in workers):
                raise SystemExit("a run failed")
            seconds = (time.perf_counter() - began) / max(target - done, 1)
            done = target
            server, serving = resident(process)
            database = sum(path.stat().st_size for path in Path(given["PREFECT_HOME"]).glob("prefect.db*")) / 1e6
            print(
                f"| {done:,} | {server:.0f} | {serving:.0f} | {database:.1f} | {seconds if done else 0:.2f} |",
                flush=True,
            )
        found = ask(f"{given['PREFECT_API_URL']}/flow_runs/count", {})
        if found != runs:
            raise SystemExit(f"the server knows {found} runs, not {runs}")


def overhead_table(folder: Path, data_dir: Path | None, limit: int | None, repeats: int, dataset: str) -> None:
    """Seconds of the same encode with and without Prefect, in turns."""
    given = environment(folder / "home")
    compile_engine(folder, given)
    where = [("data_dir", data_dir), ("limit", limit)]
    flow_options = [word for name, value in where if value for word in ("-p", f"{name}={value}")]
    plain_options = [word for name, value in where if value for word in (f"--{name.replace('_', '-')}", str(value))]
    seconds: dict[str, list[float]] = {"splatspace encode": [], "python -m flows --once": []}
    with served(given, folder / "flows.log"):
        for turn in range(repeats):
            plain, flow = folder / f"plain-{turn}.zarr", folder / f"flow-{turn}.zarr"
            pairs = [
                ("splatspace encode", ["splatspace", "encode", dataset, "--out", str(plain), *plain_options]),
                ("python -m flows --once",
                 [sys.executable, "-m", "flows", "--once", f"encode-{dataset}", "-p", f"out={flow}", *flow_options]),
            ]  # fmt: skip
            # Who comes first has the colder disk.
            for name, command in pairs if turn % 2 == 0 else reversed(pairs):
                seconds[name].append(typed(command, given)[0])
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    plain, flow = (statistics.median(values) for values in seconds.values())
    print("| way | seconds, median | all |\n|---|---|---|")
    for name, values in seconds.items():
        print(f"| `{name}` | {statistics.median(values):.1f} | {', '.join(f'{value:.1f}' for value in values)} |")
    print(f"\nPrefect adds {flow - plain:.1f} s, {100 * (flow / plain - 1):.1f} % of the wall time.")


def main() -> None:
    """Prints the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = parser.add_subparsers(dest="table", required=True)
    tables.add_parser("start", help="seconds to ready and to the first shard")
    memory = tables.add_parser("memory", help="memory of the server after many runs")
    memory.add_argument("--runs", type=int, default=1000)
    memory.add_argument("--processes", type=int, default=2, help="how many make runs at once")
    overhead = tables.add_parser("overhead", help="an encode with and without Prefect")
    overhead.add_argument("--dataset", default="sprites")
    overhead.add_argument("--data-dir", type=Path)
    overhead.add_argument("--limit", type=int, help="only the first images")
    overhead.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="splatspace-prefect-") as name:
        folder = Path(name)
        if options.table == "start":
            start_table(folder)
        elif options.table == "memory":
            memory_table(folder, options.runs, options.processes)
        else:
            data_dir = options.data_dir.absolute() if options.data_dir else None
            overhead_table(folder, data_dir, options.limit, options.repeats, options.dataset)


if __name__ == "__main__":
    main()
