"""The nodes of a Ray cluster, and the workers on them: detached actors, which go on when this process ends."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import ray
import ray.util
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from audiomixer.clock.tasks import blocking
from audiomixer.service.cluster.worker import Worker, worker_settings
from audiomixer.service.settings import Settings

RESOURCE: Final = "audiomixer"
"""Of nodes that are meant to have workers; all are if none has it."""
_ADDRESS: Final = "ray-address"
"""File with the address of the cluster that was started by us."""
_PROBE: Final = 3.0
"""Seconds that a cluster may take to be found."""
_AT_ONCE: Final = 1000
"""Calls to one worker."""
CONFIG: Final = (
    '{"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 4,'
    ' "health_check_timeout_ms": 500}'
)
"""A machine that is lost is known to be after two seconds; Ray's own are fifteen."""

_log = logging.getLogger(__name__)


class GoneError(Exception):
    """A worker does not answer any more."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a worker is, or shall be."""

    name: str
    node: str
    """Ray's ID of it."""
    machine: str
    """The node's address."""
    address: str
    """Where requests are forwarded to."""
    index: int


class Handle:
    """A worker, as others call it.

    Args:
        slot: Which one it is.
        actor: Ray's handle of it.
    """

    def __init__(self, slot: Slot, actor: Any) -> None:
        self.slot = slot
        self._actor = actor

    async def call(self, method: str, *arguments: Any, patience: float, **named: Any) -> Any:
        """Calls a method of `Worker`.

        Raises:
            GoneError: Its process, or its machine, is gone.
            TimeoutError: It has not answered in so many seconds.
            Exception: What the method raised.
        """
        try:
            async with asyncio.timeout(patience):
                return await getattr(self._actor, method).remote(*arguments, **named)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise GoneError("its process, or its machine, has ended") from error

    async def kill(self) -> None:
        """Ends its process, whatever it does; Ray begins another in its place."""
        await blocking(ray.kill, self._actor, no_restart=False)

    async def retire(self) -> None:
        """Ends its process for good."""
        await blocking(ray.kill, self._actor, no_restart=True)


class Nodes:
    """A Ray cluster.

    Args:
        settings: Complete ones.
        host: The address that the service listens on.
    """

    def __init__(self, settings: Settings, host: str) -> None:
        self._settings = settings
        self._host = host
        # Services that share a cluster have workers of their own.
        self._namespace = f"audiomixer-{settings.account_sid}"
        self._is_own = not settings.ray_address
        """Whether the cluster is one of this machine's, which nobody else uses."""

    async def connect(self) -> None:
        """Joins the cluster that the settings name, or one of this machine's own, which is started if need be.

        Raises:
            ValueError: There is none.
        """
        await blocking(self._connect)
        _take_signals_back()

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        given = self._settings.ray_address
        if given and not self._join(given):
            raise ValueError(f"ray_address: expected a Ray cluster at {given}")
        if given:
            return
        file = self._settings.data / _ADDRESS
        if file.exists() and self._join(file.read_text().strip()):
            return
        started = _start_ray()
        file.write_text(started)
        if not self._join(started):
            raise ValueError(f"ray_address: the cluster that was started at {started} cannot be joined")

    def _join(self, address: str) -> bool:
        # Ray itself would try for minutes.
        if not _is_open(address):
            return False
        # Its log is ours: lines of the same kind. That it cannot stop us at SIGTERM need not be told.
        logger = logging.getLogger("ray")
        logger.propagate = True
        logger.setLevel(logging.ERROR)
        try:
            ray.init(address=address, namespace=self._namespace, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            _log.warning("no Ray cluster at %s: %s", address, error)
            return False
        return True

    async def slots(self) -> list[Slot]:
        """Where workers shall be, on the nodes that are alive."""
        return await blocking(self._slots)

    def _slots(self) -> list[Slot]:
        nodes = [node for node in cast(Any, ray).nodes() if node["Alive"]]
        meant = [node for node in nodes if RESOURCE in node["Resources"]]
        slots = []
        for node in meant or nodes:
            resources: Mapping[str, float] = node["Resources"]
            many = resources[RESOURCE] if meant else self._settings.workers or resources.get("CPU", 0)
            slots += [
                Slot(
                    f"{node['NodeID'][:12]}-{index}",
                    node["NodeID"],
                    node["NodeManagerAddress"],
                    "127.0.0.1" if self._is_own else node["NodeManagerAddress"],
                    index,
                )
                for index in range(int(many))
            ]
        return slots

    async def retire_others(self, names: Collection[str]) -> None:
        """Ends workers of ours that have other names than these: there are fewer now."""
        await blocking(self._retire_others, names)

    def _retire_others(self, names: Collection[str]) -> None:
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if actor["namespace"] == self._namespace and actor["name"] not in names:
                _log.warning("worker %s is one too many, and ended", actor["name"])
                ray.kill(ray.get_actor(actor["name"], namespace=self._namespace), no_restart=True)

    async def worker(self, slot: Slot) -> Handle:
        """The worker there, which is started if there is none."""
        return await blocking(self._worker, slot)

    def _worker(self, slot: Slot) -> Handle:
        options = {
            "name": slot.name,
            "namespace": self._namespace,
            "get_if_exists": True,
            "lifetime": "detached",
            "max_restarts": -1,
            "max_task_retries": 0,
            "max_concurrency": _AT_ONCE,
            # How much each has to do is seen by measuring; Ray only knows where it is.
            "num_cpus": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(slot.node, soft=False),
        }
        given = (worker_settings(self._settings, one_machine=self._is_own), self._host, slot.address, slot.index)
        return Handle(slot, ray.remote(Worker).options(**options).remote(*given))


def _is_open(address: str) -> bool:
    """Whether somebody listens there; what is no HOST:PORT is left to Ray."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PROBE).close()
    except OSError:
        return False
    return True


def _take_signals_back() -> None:
    """Ray handles these as if they were crashes, and then calls whoever handled them before."""
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


def _start_ray() -> str:
    """Starts a cluster of one node, which goes on when this process ends; gives its address."""
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--port=0",
        "--include-dashboard=false",
        "--disable-usage-stats",
        f"--system-config={CONFIG}",
    ]
    started = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - all of it is ours
    address = next((word for line in started.stdout.splitlines() for word in _addresses(line)), "")
    if started.returncode or not address:
        raise ValueError(f"engine: Ray cannot be started: {started.stderr or started.stdout}")
    _log.info("Ray has been started at %s; `ray stop` ends it, and all streams", address)
    return address


def _addresses(line: str) -> list[str]:
    """What a line of `ray start` says to join."""
    _, found, rest = line.partition("--address='")
    return [rest.partition("'")[0]] if found else []
