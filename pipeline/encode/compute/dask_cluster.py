"""Dask workers: started for a run on this machine, or found behind a scheduler that is there."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

from dask import config
from distributed import Client, Nanny, Scheduler, Security, SpecCluster

from data_schemas.errors import ComputeError
from encoders.engines import GPU_ENGINES
from pipeline.encode.compute import dask_signals
from pipeline.encode.records import EncodePlan

logger = logging.getLogger("splatspace.compute")

LOOPBACK = "127.0.0.1"

WORKERS_WAITED_FOR = 60.0
"""Seconds until a scheduler without workers is an error."""

PROFILER = "distributed.worker.profile.enabled"
"""Setting of Dask's profiler, which looks into all threads a hundred times a second. Before ``PROFILER_SAFE`` Python
can freeze for good when it does so while threads start and end (its issue 106883), and each shard starts two."""

PROFILER_SAFE = (3, 11, 9)

_CONNECT_SECONDS = 10

_CONFIG: dict[str, Any] = {
    # Nothing is served over HTTP.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    PROFILER: False,
    "distributed.admin.system-monitor.gil.enabled": False,
    # A worker that says nothing for so long is replaced (looked at once in the same time).
    "distributed.scheduler.worker-ttl": "2 minutes",
    "distributed.admin.large-graph-warning-threshold": "100MB",
}


def scheduler_spec(security: Security | None = None) -> dict[str, Any]:
    """A scheduler for ``SpecCluster``: on loopback, without a dashboard.

    Args:
        security: of the cluster.
    """
    options: dict[str, Any] = {"host": LOOPBACK, "port": 0, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    if security is not None:
        options |= {"security": security, "protocol": "tls://"}
    return {"cls": Scheduler, "options": options}


def worker_specs(workers: int, devices: Sequence[str] = (), *, security: Security | None = None) -> dict[int, Any]:
    """Worker processes for ``SpecCluster``: one thread each, on loopback, without a dashboard.

    Args:
        workers: how many; where devices are given, one for each of them instead.
        devices: GPUs as ``CUDA_VISIBLE_DEVICES`` names them: each worker sees one and no other.
        security: of the cluster.
    """
    options: dict[str, Any] = {
        "host": LOOPBACK,
        "nthreads": 1,
        "memory_limit": 0,  # a session bounds its memory itself; Dask would only pause or kill the worker
        "dashboard": False,
        "dashboard_address": f"{LOOPBACK}:0",
        "silence_logs": logging.WARNING,
        "preload": [dask_signals.__name__],
    }
    if security is not None:
        options |= {"security": security, "protocol": "tls://"}
    environments = [{"CUDA_VISIBLE_DEVICES": device} for device in devices] or [{} for _ in range(workers)]
    return {
        number: {"cls": Nanny, "options": {**options, "env": environment}}
        for number, environment in enumerate(environments)
    }


def graphics_cards(engine: str) -> list[str]:
    """The GPUs that worker processes are to share out: none unless the engine runs on them and there are several."""
    if engine not in GPU_ENGINES:
        return []
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    cards = named[:count] or [str(number) for number in range(count)]
    return cards if len(cards) > 1 else []


@contextmanager
def local_workers(plan: EncodePlan) -> Iterator[Client]:
    """Worker processes of this machine for one run; nobody else can reach them.

    They listen on loopback only and speak TLS with keys that exist in memory alone: a Dask scheduler runs whatever
    code it is handed, so other users of the machine must not be able to talk to it.

    Args:
        plan: ``job.workers`` is the number of processes, or there is one for each GPU.

    Raises:
        ComputeError: the processes cannot be started.
    """
    security = Security.temporary()
    cards = graphics_cards(plan.header.engine)
    count = 1 if plan.header.engine in GPU_ENGINES else max(1, min(plan.job.workers, len(plan.blocks)))
    with config.set(_CONFIG):
        _quiet()
        logging.getLogger("distributed.nanny").setLevel(logging.WARNING)
        try:
            cluster = SpecCluster(
                scheduler=scheduler_spec(security),
                workers=worker_specs(count, cards, security=security),
                security=security,
                silence_logs=cast(bool, logging.WARNING),  # a level, whatever its annotation says
            )
        except RuntimeError as error:
            raise ComputeError(
                f"Dask's worker processes did not start: {error}",
                allowed="a script whose work is under: if __name__ == '__main__'",
                next_step="guard the script that way, or compute locally",
            ) from error
        with cluster, Client(cluster, set_as_default=False, name="splatspace") as client:
            try:
                client.wait_for_workers(len(cluster.worker_spec), timeout=WORKERS_WAITED_FOR)
            except TimeoutError as error:
                raise ComputeError(
                    f"Dask's worker processes did not all start within {WORKERS_WAITED_FOR:.0f} seconds",
                    next_step="give fewer --workers, or compute locally",
                ) from error
            try:
                yield client
            finally:
                # Whoever is slow to leave on a busy machine is killed, which is what was asked for, and a heartbeat
                # that a worker sends while it leaves finds nobody.
                logging.getLogger("distributed.nanny").setLevel(logging.ERROR)
                with suppress(OSError, TimeoutError, RuntimeError):
                    client.run(_quiet, logging.CRITICAL, on_error="ignore")


def connect(address: str) -> Client:
    """A client of a scheduler that is there.

    Args:
        address: ``tcp://HOST:PORT``, or ``tls://HOST:PORT`` with the certificates of Dask's own configuration.

    Raises:
        ComputeError: nobody answers, there are no workers, or one has another version of this program, or none.
    """
    _quiet()
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, name="splatspace")
    except (OSError, TimeoutError, ValueError) as error:
        raise ComputeError(
            f"No Dask scheduler answers at {address}: {str(error) or type(error).__name__}",
            allowed="the address that 'dask scheduler' prints",
            next_step="start one, or give --compute dask for worker processes of this machine",
        ) from error
    try:
        client.wait_for_workers(1, timeout=WORKERS_WAITED_FOR)
        require_version(client)
        warn_of_profiler(client)
    except TimeoutError as error:
        client.close(timeout=_CONNECT_SECONDS)
        raise ComputeError(
            f"The Dask scheduler at {address} has no workers after {WORKERS_WAITED_FOR:.0f} seconds",
            next_step=f"start some: dask worker {address} --nthreads 1 --nworkers 4",
        ) from error
    except BaseException:
        client.close(timeout=_CONNECT_SECONDS)
        raise
    return client


def require_version(client: Client) -> None:
    """Makes sure that every worker has this version of the program.

    Raises:
        ComputeError: one has another version, or none; it is named.
    """
    ours = importlib.metadata.version("splatspace")
    # A function of the standard library: a worker without this package could not load one of ours.
    answers = cast(dict[str, Any], client.run(importlib.metadata.version, "splatspace", on_error="return"))
    for worker, answer in answers.items():
        if answer != ours:
            found = answer if isinstance(answer, str) else "none"
            raise ComputeError(
                f"The Dask worker {worker} has splatspace {found}",
                allowed=ours,
                next_step=f"install splatspace {ours} where the workers run and start them again",
            )


def warn_of_profiler(client: Client) -> None:
    """Says which workers may freeze; see ``PROFILER``. Such a worker is replaced after Dask's ``worker-ttl``."""
    versions = cast(dict[str, str], client.run(platform.python_version))
    profiled = cast(dict[str, bool], client.run(config.get, PROFILER, False))
    for worker, version in versions.items():
        numbers = tuple(int(number) for number in re.findall("[0-9]+", version)[:3])
        if numbers < PROFILER_SAFE and profiled.get(worker):
            logger.warning(
                "the Dask worker %s runs Python %s with Dask's profiler, which can freeze it: "
                "start it with DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False",
                worker,
                version,
            )


def count_workers(client: Client) -> int:
    """Worker processes that the scheduler has now."""
    return len(cast(dict[str, int], client.nthreads()))


def _quiet(level: int = logging.WARNING) -> None:
    """Dask's own words are for those who run clusters; those of ``level`` and above stay."""
    for name in ("distributed", *(name for name in logging.root.manager.loggerDict if name.startswith("distributed."))):
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() < level:
            logger.setLevel(level)
