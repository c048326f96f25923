"""Speaks to Ray, and nothing else does: joins a cluster, asks its machines for versions, runs a Site on each.

Ray (https://docs.ray.io) runs the code of whoever reaches it; docs/scaling-out.md says how to keep others out.
"""

import importlib
import importlib.util
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from edgenet.errors import DeviceError, InputError, MissingDependency, without_exceptions
from edgenet.farm import probe
from edgenet.farm.schedule import MAX_TRIES, Event
from edgenet.farm.site import DeviceTask, Refused, SentFile, Site
from edgenet.results import Failure

FORMS = "auto or ray://HOST:PORT"
_DEVICE = "device:"  # what Ray's resources that are devices begin with
_CLIENT_PORT = 10001  # Ray's own default
_REACH_S, _PROBE_S = 10.0, 120.0
_JOINS = 3  # tries
_LOOK_S = 5.0  # between looks at the cluster's machines
DEVICE_S = 7200.0  # that a bench may take on a device, with the wait for others that have it
_MAX_LOSSES = 3  # of one machine's workers, after which it gets no new one
_REMEDY = "`ray status` on the cluster says which machines are there; docs/scaling-out.md shows how they are set up"


def check(address: str) -> None:
    """Check how a cluster is written, and that Ray is installed. Raises InputError, MissingDependency."""
    _parse(address)
    if importlib.util.find_spec("ray") is None:
        raise MissingDependency("ray", "ray", f"--cluster {address}")


def _parse(address: str) -> tuple[str, int] | None:
    """Return (host, port) of a cluster, None for the one that this machine is part of."""
    if address == "auto":
        return None
    found = re.fullmatch(r"ray://(\[[0-9a-fA-F:]+\]|[^\s/:@\[\]]+)(?::([0-9]{1,5}))?", address)
    if found is None or not 0 < int(found[2] or _CLIENT_PORT) < 65536:
        raise InputError(f"--cluster '{address}' is no cluster: give {FORMS}")
    return found[1].strip("[]"), int(found[2] or _CLIENT_PORT)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    name: str  # its address
    cpus: int
    devices: tuple[str, ...] = ()


def check_present(address: str) -> None:
    """Check that a cluster which is named answers. Raises InputError, MissingDependency, DeviceError."""
    check(address)
    if (place := _parse(address)) is not None:
        try:
            socket.create_connection(place, timeout=_REACH_S).close()
        except OSError as e:
            why = e.strerror or str(e)
            raise DeviceError(f"no Ray cluster answers at {address} ({why}); {_REMEDY}") from None


@contextmanager
def joined(address: str, failures: list[Failure]) -> Iterator["Cluster"]:
    """Join a cluster for the block.

    Args:
        failures: grows by machines that may not take part.

    Raises:
        InputError, MissingDependency: as `check` does.
        DeviceError: there is no cluster, or it cannot be joined.
    """
    check_present(address)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}  # it must not phone home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it prints a warning about GPUs
    import ray

    if ray.is_initialized():
        raise DeviceError("this process has joined a Ray cluster already: leave it by ray.shutdown() first")
    _silence()
    _init(ray, address)
    try:
        yield Cluster(ray, failures)
    finally:
        with suppress(Exception):  # a cluster that is gone
            ray.shutdown()


def _silence() -> None:
    """Keep Ray from printing on stdout that a worker died, whatever it is told of logs: we say it where it matters."""
    worker: Any = importlib.import_module("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *args, **options: None


def _init(ray: Any, address: str) -> None:
    """Join; a busy head may take longer to make room for one more than Ray waits, so more than once."""
    for left in reversed(range(_JOINS)):
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            return
        except Exception as e:  # ConnectionError where there is none, RuntimeError where versions differ, gRPC's own
            with suppress(Exception):
                ray.shutdown()
            if address == "auto" and isinstance(e, ConnectionError):
                raise DeviceError(
                    "--cluster auto finds no Ray cluster on this machine: start one with `ray start --head`, name it "
                    "with RAY_ADDRESS, or give --cluster ray://HOST:PORT"
                ) from None
            if not left or isinstance(e, RuntimeError):
                raise DeviceError(f"the Ray cluster {address} cannot be joined: {_line(e)}; {_REMEDY}") from None


class Cluster:
    """A cluster that was joined. `failures` says which machines may not take part, and why."""

    def __init__(self, ray: Any, failures: list[Failure]) -> None:
        self.ray, self.failures = ray, failures
        self._asked: dict[str, str] = {}  # node -> what is wrong with it

    def nodes(self) -> list[Node]:
        """Return the machines that are there and have cores for us."""
        found = []
        for n in self.ray.nodes():
            cpus = int(n.get("Resources", {}).get("CPU", 0))
            if n.get("Alive") and cpus:
                has = n["Resources"]
                devices = tuple(name.removeprefix(_DEVICE) for name in has if name.startswith(_DEVICE))
                found.append(Node(n["NodeID"], f"{n['NodeManagerAddress']} ({n['NodeID'][:6]})", cpus, devices))
        return found

    def nodes_with(self, device: str) -> list[Node]:
        """Return the machines that say that they have a device: {"device:adb:SERIAL": 1} is among their resources."""
        return [n for n in self.nodes() if device in n.devices]

    def on(self, node: Node) -> Any:
        """Return the strategy that puts something on this machine and on no other."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node.id, soft=False)

    def usable(self, packages: Sequence[str]) -> list[Node]:
        """Return the machines that have the versions of these packages that are here; the others become failures."""
        nodes = self.nodes()
        new = [n for n in nodes if n.id not in self._asked]
        if new:
            self.ray.cloudpickle.register_pickle_by_value(probe)  # edgenet may not be there
            ask = self.ray.remote(probe.versions_of)
            here = probe.versions_of(tuple(packages))
            asked = {n: ask.options(num_cpus=0, scheduling_strategy=self.on(n), max_retries=1).remote(tuple(packages))
                     for n in new}  # fmt: skip
            self.ray.wait(list(asked.values()), num_returns=len(asked), timeout=_PROBE_S)
            for node, ref in asked.items():
                try:
                    wrong = differences(here, self.ray.get(ref, timeout=0))
                except self.ray.exceptions.RayError as e:
                    wrong = f"it does not say which versions it has: {_line(e)}"
                self._asked[node.id] = wrong
                if wrong:
                    remedy = "install the same there: pip install 'edgenet[...]==VERSION' with the same extras"
                    self.failures.append(Failure("evaluate", device=f"ray:{node.name}", why=wrong, remedy=remedy))
        return [n for n in nodes if not self._asked[n.id]]


def on_device(
    cluster: Cluster, device: str, sent: Sequence[tuple[str, SentFile]], do: DeviceTask, packages: Sequence[str]
) -> Any:
    """Return do(device, files) from the machine that has the device. Ray gives it to one task at a time.

    Raises:
        InputError: as the task does.
        DeviceError: as the task does; no machine that has it can take part; its worker died each time, or in DEVICE_S
            nothing came back.
    """
    ray = cluster.ray
    usable = {n.id for n in cluster.usable(packages)}
    nodes = [n for n in cluster.nodes_with(device) if n.id in usable]
    if not nodes:
        why = "; ".join(f"{f.device}: {f.why}" for f in cluster.failures) or "it is gone"
        raise DeviceError(f"no machine of the cluster that has {device} can take part ({why})")
    how = {"num_cpus": 0, "resources": {_DEVICE + device: 1}, "scheduling_strategy": cluster.on(nodes[0])}
    ref = ray.remote(_on_device).options(max_retries=MAX_TRIES - 1, **how).remote(device, sent, do)
    done, _ = ray.wait([ref], num_returns=1, timeout=DEVICE_S)
    if not done:
        with suppress(Exception):
            ray.cancel(ref, force=True)
        raise DeviceError(f"in {DEVICE_S:g} s nothing came from {nodes[0].name}; does another bench hold {device}?")
    try:
        answer = ray.get(ref, timeout=_REACH_S)
    except ray.exceptions.RayError as e:
        raise DeviceError(f"{nodes[0].name} was lost {MAX_TRIES} times: {_line(e)}") from None
    if isinstance(answer, Refused):
        raise (InputError if answer.is_input else DeviceError)(answer.why)
    return answer


def _on_device(device: str, sent: Sequence[tuple[str, SentFile]], do: DeviceTask) -> Any:
    site = Site(threads=1)
    try:
        return site.on_device(device, sent, do)
    finally:
        site.close()


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Return in words which versions differ, "" where none does."""
    said = [
        f"{name} is {there.get(name) or 'missing'} there and {version or 'missing'} here"
        for name, version in here.items()
        if there.get(name, "") != version
    ]
    return ", ".join(said)


class Sites:
    """The workers of a cluster as a Crew: one Site on each machine, with all of its cores.

    Args:
        prepare: what each is sent before its first block: (name of a method of Site, arguments).
        method: what a block is given to.
        packages: of which the versions have to be those that are here.
    """

    def __init__(self, cluster: Cluster, prepare: tuple[str, Sequence[Any]], method: str, packages: Sequence[str]):
        self._cluster, self._ray, self._method, self._packages = cluster, cluster.ray, method, packages
        self._prepare, self._arguments = prepare[0], [self._ray.put(a) for a in prepare[1]]
        self._actors: dict[str, Any] = {}  # worker -> its handle
        self._nodes: dict[str, Node] = {}
        self._losses: dict[str, int] = {}
        self._tickets: dict[Any, tuple[str, int | None]] = {}  # what is on its way
        self._looked = -_LOOK_S
        self.refused: Refused | None = None

    def call(self) -> None:
        """Start a worker on each machine that has none; machines may come at any time."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        try:
            nodes = self._cluster.usable(self._packages)
        except Exception as e:  # of a cluster whose head is gone, of many kinds
            raise DeviceError(f"the Ray cluster is gone: {_line(e)}; {_REMEDY}") from None
        self._looked = time.monotonic()
        if not nodes and self._cluster.failures:
            f = self._cluster.failures[0]
            raise DeviceError(f"no machine of the cluster can take part; {f.device}: {f.why}; {f.remedy}")
        busy = {node.id for node in self._nodes.values()}
        for node in nodes:
            losses = self._losses.get(node.id, 0)
            if node.id in busy or losses >= _MAX_LOSSES:
                continue
            worker = f"the worker on {node.name}" + f", number {losses + 1}" * bool(losses)
            kind = self._ray.remote(Site)
            how = {"num_cpus": node.cpus, "scheduling_strategy": self._cluster.on(node), "max_restarts": 0}
            actor = self._actors[worker] = kind.options(**how).remote(node.cpus)
            self._nodes[worker] = node
            ticket = getattr(actor, self._prepare).remote(*self._arguments)
            self._tickets[ticket] = (worker, None)

    def give(self, worker: str, ticket: int, block: Any) -> None:
        """Send a block; see schedule.Crew."""
        self._tickets[getattr(self._actors[worker], self._method).remote(block)] = (worker, ticket)

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened; see schedule.Crew. Raises what a worker refuses on good grounds."""
        if not self._tickets:
            time.sleep(min(timeout_s, 0.2))
            return []
        done, _ = self._ray.wait(list(self._tickets), num_returns=1, timeout=timeout_s)
        events = []
        for ref in done:
            worker, ticket = self._tickets.pop(ref)
            try:
                answer = self._ray.get(ref, timeout=60)
            except self._ray.exceptions.RayError as e:
                if worker in self._actors:
                    self.drop(worker)
                    events.append(Event(worker, lost=f"{worker} was lost: {_line(e)}"))
                continue
            if isinstance(answer, Refused):
                raise (InputError if answer.is_input else DeviceError)(answer.why)
            events.append(Event(worker, ticket, answer))
        return events

    def drop(self, worker: str) -> None:
        """End a worker; see schedule.Crew."""
        node = self._nodes.pop(worker, None)
        if node is not None:
            self._losses[node.id] = self._losses.get(node.id, 0) + 1
        self._tickets = {ref: of for ref, of in self._tickets.items() if of[0] != worker}
        actor = self._actors.pop(worker, None)
        if actor is not None:
            with suppress(Exception):  # it is gone already
                self._ray.kill(actor, no_restart=True)
        self._looked = -_LOOK_S  # look for another one now

    def close(self) -> None:
        """Let all workers tidy up, and end them."""
        ends = []
        with suppress(Exception):  # those that are gone, or hang
            ends = [actor.close.remote() for actor in self._actors.values()]
            self._ray.wait(ends, num_returns=len(ends), timeout=_REACH_S)
        for worker in list(self._actors):
            self.drop(worker)


def _line(e: BaseException) -> str:
    """Return the gist of one of Ray's errors, which come with a traceback, in one line."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()] or [type(e).__name__]
    line = lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
    return without_exceptions(line)[:300].rstrip(".")
