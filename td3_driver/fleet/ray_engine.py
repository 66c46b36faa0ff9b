# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Collectors on a Ray cluster: all that knows Ray.

This process is Ray's driver. A slot is an actor that takes one of a machine's `slot` resources
and looks after a collector's process there; nothing but that process drives. Chunks come back
through Ray's object store, and every version of the policy is put there once.
"""

from __future__ import annotations

import logging
import os
import platform
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from td3_driver.config import ConfigError
from td3_driver.documents import in_short
from td3_driver.fleet.child import Child
from td3_driver.fleet.chunk import Chunk, Grant
from td3_driver.fleet.collector import Ended, Event, Placed, Weights, counted, drained
from td3_driver.fleet.gathering import Brief
from td3_driver.fleet.machines import SAME_REMEDY, Facts, differences, facts_here

# Before Ray reads it: its workers' lines are said by the collectors' care.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SLOT = "slot"
"""The custom resource of `ray start --resources='{"slot": 8}'`: collectors of a machine."""
LISTEN_S = 1.0
"""Longest wait of a slot for an event; then it returns none, and is asked again."""
SPILL_CHECK_S = 10.0
FACTS_TIMEOUT_S = 60.0
KNOCK_TIMEOUT_S = 5.0
ROOM_NOTE_S = 20.0
"""After that long without room a collector is said to wait for it."""
NO_CLUSTER_REMEDY = (
    "start one on this machine with ray start --head --port=6379 "
    "--resources='{\"slot\": 8}' (docs/fleet.md), or leave out the cluster"
)


class Slot:
    """The actor: supervises a collector's process, which is no Ray worker, on its machine."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._child: Child | None = None

    def begin(self, brief: Brief) -> None:
        """Start the process; its place is the first thing that is heard of it."""
        self._child = Child(brief, self._hear)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Placed):
            event = Placed(f"{platform.node()}, {event.place}")
        self._events.put(event)

    def grant(self, grant: Grant, weights: Weights | None) -> None:
        """Pass leave for a chunk on; the weights come out of the object store."""
        if self._child is not None:
            self._child.grant(replace(grant, weights=weights))

    def listen(self) -> list[Event]:
        """Return what the process has said, after a short wait for something."""
        return drained(self._events, LISTEN_S)

    def child_pid(self) -> int:
        """Return the process's number."""
        return 0 if self._child is None else self._child.pid

    def own_pid(self) -> int:
        """Return the actor's own process's number."""
        return os.getpid()

    def stop(self) -> None:
        """Kill the process and all that it has started."""
        if self._child is not None:
            self._child.stop()
            self._child = None


# Ray's own types follow neither actors nor concurrency groups.
_remote: Any = ray.remote


def connect(address: str) -> None:
    """Join a cluster as its driver: "auto", or host:port. Raises ConfigError."""
    try:
        if address != "auto":
            _knock(address)
        ray.init(
            address=address,
            log_to_driver=True,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = in_short(" ".join(str(error).split()))
        raise ConfigError(
            f"no Ray cluster at {address!r}: {reason}. {NO_CLUSTER_REMEDY}"
        ) from None


def _knock(address: str) -> None:
    """Raise OSError or ValueError where nobody listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError("an address is host:port, or auto")
    with socket.create_connection((host, int(port)), timeout=KNOCK_TIMEOUT_S):
        pass


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Belong to a cluster meanwhile; raises ConfigError."""
    connect(address)
    try:
        yield
    finally:
        ray.shutdown()


def gather_facts() -> list[Facts]:
    """Return what each machine of the cluster has, this one first; raises ConfigError."""
    here = ray.get_runtime_context().get_node_id()
    nodes = sorted(
        (node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here
    )
    # Imported there from the package, like everything that runs there.
    ask = _remote(num_cpus=0)(facts_here)
    answers = []
    for node in nodes:
        resources = node["Resources"]
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        slots, store = resources.get(SLOT, 0), resources.get("object_store_memory", 0)
        answers.append(ask.options(scheduling_strategy=there).remote(int(slots), int(store)))
    found = []
    for node, answer in zip(nodes, answers, strict=True):
        try:
            found.append(ray.get(answer, timeout=FACTS_TIMEOUT_S))
        except RayError as error:
            name = node.get("NodeManagerHostname", node["NodeID"])
            raise ConfigError(
                f"machine {name} of the cluster cannot run td3_driver: {in_short(error)}. Install "
                "the same environment there, and start Ray from it"
            ) from None
    return found


def spilled_bytes() -> int:
    """Return what all object stores of the cluster have written to disk."""
    from ray._private.internal_api import node_stats

    return sum(
        node_stats(
            node["NodeManagerAddress"], node["NodeManagerPort"], False
        ).store_stats.spilled_bytes_total
        for node in ray.nodes()
        if node["Alive"]
    )


def _spilled_or(otherwise: int) -> int:
    """Return `spilled_bytes`, or something else where Ray does not report it."""
    try:
        return spilled_bytes()
    except Exception:  # No figure is worth a run, and this is no public interface of Ray's.
        return otherwise


class RayEngine:
    """Places a slot for each collector on a cluster, wherever there is room."""

    name = "ray"

    def __init__(self, address: str, slots: int) -> None:
        """Join the cluster, and see that it fits; raises ConfigError."""
        connect(address)
        try:
            self.facts = gather_facts()
            if wrong := differences(self.facts):
                raise ConfigError(
                    f"the machines of the cluster differ: {'; '.join(wrong)}: {SAME_REMEDY}"
                )
        except BaseException:
            ray.shutdown()
            raise
        self._wanted = slots
        self._collectors: dict[int, RayCollector] = {}
        self._weights: tuple[int, Any] | None = None
        self._told: set[str] = set()
        self.spilled = 0
        """Bytes that object stores have written to disk since the run began."""
        self._ending = threading.Event()
        self._watch = threading.Thread(target=self._watch_spilling, name="spilling", daemon=True)
        self._watch.start()

    def _watch_spilling(self) -> None:
        """Look now and then, in a thread: a machine that has gone is slow to answer."""
        before = _spilled_or(0)
        while not self._ending.wait(SPILL_CHECK_S):
            self.spilled = max(_spilled_or(before) - before, self.spilled)

    def describe(self) -> str:
        """Return a line on the cluster."""
        total = sum(facts.slots for facts in self.facts)
        machines = ", ".join(
            f"{facts.machine} ({facts.slots} slots)" for facts in self.facts if facts.slots
        )
        return f"{counted(self._wanted)} on a Ray cluster with {total} slots: {machines or 'none'}"

    def collector(self, number: int) -> RayCollector:
        """Return the collector of a number, which has not begun."""
        self._collectors[number] = RayCollector(self)
        return self._collectors[number]

    def weights(self, version: int, weights: Weights) -> Any:
        """Return a version of the policy in the object store; only the newest is kept there."""
        if self._weights is None or self._weights[0] != version:
            self._weights = (version, ray.put(weights))
        return self._weights[1]

    def receive(self, timeout_s: float) -> list[tuple[int, Event]]:
        """Return what collectors have said since, by number; wait for something that long."""
        waiting = {
            collector.listening: number
            for number, collector in self._collectors.items()
            if collector.listening is not None
        }
        if not waiting:
            time.sleep(timeout_s)
            return []
        asked = list(waiting)
        ready, _ = ray.wait(asked, num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
        found = []
        for reference in ready:
            number = waiting[reference]
            found += [(number, event) for event in self._collectors[number].heard()]
        return found

    def warnings(self) -> list[str]:
        """Return what is wrong with the cluster, said once each."""
        lines = []
        for number, collector in self._collectors.items():
            waited_s = collector.waits_for_room_s()
            if waited_s > ROOM_NOTE_S:
                lines.append(
                    f"collector {number} waits for a slot: the cluster has no free one; start "
                    "another machine, or Ray there with more slots"
                )
        if self.spilled:
            lines.append(
                f"Ray's object stores have been written to disk ({self.spilled / 1e6:.0f} MB): "
                "start Ray with a larger --object-store-memory, or ask for smaller chunks"
            )
        fresh = [line for line in lines if line.split(" (")[0] not in self._told]
        self._told |= {line.split(" (")[0] for line in fresh}
        return fresh

    def close(self) -> None:
        """End all collectors, and leave the cluster."""
        if not ray.is_initialized():
            return
        self._ending.set()
        for collector in self._collectors.values():
            collector.stop()
        ray.shutdown()


class RayCollector:
    """A collector in a slot of the cluster."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine
        self.slot: Any = None
        self.listening: Any = None
        """What the slot is to answer next."""
        self._version = -1
        self._asked_s = 0.0
        self._placed = False

    def start(self, brief: Brief) -> None:
        """Ask for a slot, and begin there; anew where it has ended."""
        self.stop()
        self._version, self._placed, self._asked_s = -1, False, time.monotonic()
        # Slots are started again by the fleet, which knows what they had leave for.
        actor = _remote(
            num_cpus=0,
            num_gpus=0,
            resources={SLOT: 1},
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"talk": 1, "listen": 1},
        )(Slot)
        self.slot = actor.remote()
        self.slot.begin.options(concurrency_group="talk").remote(brief)
        self._listen()

    def _listen(self) -> None:
        self.listening = self.slot.listen.options(concurrency_group="listen").remote()

    def heard(self) -> list[Event]:
        """Return what the slot has answered, and ask it again."""
        reference, self.listening = self.listening, None
        try:
            events: list[Event] = [_copied(event) for event in ray.get(reference)]
        except RayError as error:  # the actor, or what it said, has gone with its machine
            self.stop()
            return [Ended(_reason(error))]
        finally:
            del reference
        if any(isinstance(event, Placed) for event in events):
            self._placed = True
        if any(isinstance(event, Ended) for event in events):
            self.stop()
        else:
            self._listen()
        return events

    def waits_for_room_s(self) -> float:
        """Return how long the slot has been waited for; 0 where there is one."""
        waits = self.slot is not None and not self._placed
        return time.monotonic() - self._asked_s if waits else 0.0

    def grant(self, grant: Grant, weights: Weights) -> None:
        """Give leave for a chunk, with the policy where it does not have it yet."""
        if self.slot is None:
            return  # It has ended, as will be heard.
        sent = None
        if grant.version != self._version:
            self._version = grant.version
            sent = self._engine.weights(grant.version, weights)
        self.slot.grant.options(concurrency_group="talk").remote(grant, sent)

    def stop(self) -> None:
        """End it now; it says no more."""
        slot, self.slot, self.listening = self.slot, None, None
        if slot is not None:
            # The process sees its socket closed, and takes its group with it.
            ray.kill(slot, no_restart=True)


def _reason(error: RayError) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return f"its slot has gone: {in_short(lines[0].partition(': ')[0])}"


def _copied(event: Event) -> Event:
    """Return an event that holds on to nothing in the object store."""
    if not isinstance(event, Chunk):
        return event
    arrays = {
        name: value.copy() for name, value in vars(event).items() if isinstance(value, np.ndarray)
    }
    return replace(event, **arrays)  # type: ignore[arg-type]
