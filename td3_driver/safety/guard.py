# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The only way to the car: a watchdog and a gate, and what they let through.

Whoever holds a `Guard` can command only through it. Its methods may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from td3_driver.config import DriverConfig, DrivingConfig
from td3_driver.driving.control import Command
from td3_driver.driving.world import Frame
from td3_driver.faults import Fault
from td3_driver.safety.gate import CommandGate
from td3_driver.safety.watchdog import Source, Stop, Watchdog

WATCH_PERIOD_S = 0.05
"""Time between two checks, and between two stop commands while the car is to stand."""
UNWATCHED_S = 0.5
"""Nothing passes when the last check is longer ago."""
KEPT = 200
"""Latest commands whose latency is remembered."""

WATCHDOG_THREAD = "watchdog"

INACTIVE = Stop("the driver is not active")


class Guard:
    """Sends a command where all is well, and stops, again and again, where it is not."""

    def __init__(
        self,
        driving: DrivingConfig,
        driver: DriverConfig,
        fixed_delta_s: float,
        send: Callable[[Command, int | None], None],
        changed: Callable[[Stop | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what sends a command with the stamp (ns) of its image, None for a stop.

        `changed` is called with each new reason to stand, and with None when the car drives; it
        must return at once, as nothing can command or stop the car meanwhile.
        `clock` is a steady one, in seconds.
        """
        self._watchdog = Watchdog(driver)
        self._gate = CommandGate(driving, fixed_delta_s)
        self._policy_timeout_s = driver.policy_timeout_s
        self._send = send
        self._changed = changed
        self.clock = clock
        """A steady clock, s, from which every time here is read."""
        self._lock = threading.RLock()
        self._engaged = False
        self._ending = False
        self._standing: str | None = "it has not begun"
        self._told: Stop | None = INACTIVE
        self._stamp_ns = 0
        self._checked_s = clock()
        self._latencies_s: deque[float] = deque(maxlen=KEPT)

    @property
    def standing(self) -> Stop | None:
        """Why the car stands; None while it drives."""
        return self._told

    @property
    def engaged(self) -> bool:
        """Whether it commands the car."""
        return self._engaged

    @property
    def commands_limited(self) -> int:
        """Commands that were not within the limits."""
        return self._gate.limited

    def fault_counts(self) -> dict[Fault, int]:
        """Return how often each fault has become the reason to stand."""
        with self._lock:
            return dict(self._watchdog.counts)

    def standstills(self) -> tuple[int, float]:
        """Return how often the driver's own threads stood still, and the longest time, s."""
        with self._lock:
            return self._watchdog.own.count, self._watchdog.own.longest_s

    def beat(self, thread: str) -> None:
        """Note that a thread of the driver runs; to be called every `WATCH_PERIOD_S`."""
        with self._lock:
            self._watchdog.own.beat(thread, self.clock(), WATCH_PERIOD_S)

    @property
    def latest_latency_s(self) -> float:
        """Time from the latest command's image to its departure; IndexError before the first."""
        with self._lock:
            return self._latencies_s[-1]

    def latencies_s(self) -> list[float]:
        """Return the times from an image's arrival to its command, of the latest commands."""
        with self._lock:
            return list(self._latencies_s)

    def engage(self) -> None:
        """Take command of the car, which stands until the first command."""
        with self._lock:
            self._engaged, self._ending = True, False
            self._standing = "it has not begun"
            self._checked_s = self.clock()
            self._watchdog.resume()
            self.check()

    def end(self, reason: str) -> None:
        """Stop the car, and do nothing else from now on than to repeat that."""
        with self._lock:
            self._ending = True
            self.stand(reason)

    def disengage(self) -> None:
        """Stop the car for the last time, and be silent from then on."""
        with self._lock:
            if self._engaged:
                self._stop_car()
            self._engaged = False
            self._watchdog.own.rest()
            self._tell(INACTIVE)

    def change_limits(self, driver: DriverConfig) -> None:
        """Have other limits of time apply from now on."""
        with self._lock:
            self._watchdog.change_limits(driver)
            self._policy_timeout_s = driver.policy_timeout_s

    def heard(self, source: Source) -> None:
        """Note that something sound has come."""
        with self._lock:
            self._watchdog.heard(source, self.clock())

    def report(self, fault: Fault, detail: str) -> None:
        """Stop the car for something that has just gone wrong."""
        with self._lock:
            self._watchdog.report(fault, detail, self.clock())
            self.check()

    def set_lasting(self, fault: Fault, detail: str | None) -> None:
        """Stop the car for as long as something is wrong: until it is set to None."""
        with self._lock:
            self._watchdog.set_lasting(fault, detail)
            self.check()

    def resume(self) -> Stop | None:
        """Vouch for what went wrong; return what still keeps the car from driving."""
        with self._lock:
            self._watchdog.resume()
            return self.check()

    def stand(self, reason: str) -> None:
        """Stop the car because there is nowhere to drive, until the next command."""
        with self._lock:
            self._standing = reason
            if self._engaged:
                self._stop_car()
                self.check()

    @property
    def deciding(self) -> AbstractContextManager[None]:
        """A context in which the policy is asked, and not for too long."""
        return self._deciding()

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        with self._lock:
            self._watchdog.deciding(self.clock())
        try:
            yield
        finally:
            with self._lock:
                self._watchdog.decided(self.clock())

    def drive(self, command: Command, frame: Frame, arrived_s: float) -> Command | None:
        """Send a command for a frame, within its limits; return what was sent.

        None where the car has to stand. `arrived_s` is when the frame's image came, on the
        guard's clock.
        """
        with self._lock:
            if not self._engaged or self._ending:
                return None
            now_s = self.clock()
            late_s, unwatched_s = now_s - arrived_s, now_s - self._checked_s
            elapsed_s = 1e-9 * (frame.stamp_ns - self._stamp_ns)
            self._stamp_ns = frame.stamp_ns
            if late_s > self._policy_timeout_s:
                detail = f"the command comes {late_s:.2f} s after its image"
                self._watchdog.report(Fault.POLICY_SLOW, detail, now_s)
            if unwatched_s > UNWATCHED_S:
                detail = f"the watchdog has not run for {unwatched_s:.1f} s"
                self._watchdog.report(Fault.UNWATCHED, detail, now_s)
            self._standing = None
            if self._watchdog.check(now_s) is not None:
                self.check()
                return None
            try:
                admitted = self._gate.admit(command, frame.speed, elapsed_s)
            except ValueError as error:
                self.report(Fault.NOT_FINITE, str(error))
                return None
            # Before: a process that has to wait for a core afterwards is not late.
            self._latencies_s.append(self.clock() - arrived_s)
            self._send(admitted, frame.stamp_ns)
            self._tell(None)
            return admitted

    def check(self) -> Stop | None:
        """Look whether all is well, and repeat the stop where it is not; return why it stands."""
        with self._lock:
            self._checked_s = now_s = self.clock()
            if not self._engaged:
                return INACTIVE
            # In the end nobody may be listening any more.
            stop = None if self._ending else self._watchdog.check(now_s)
            if stop is None and self._standing is not None:
                stop = Stop(self._standing)
            if stop is not None:
                self._stop_car()
                self._tell(stop)
            return stop

    def _stop_car(self) -> None:
        self._send(self._gate.stop(), None)

    def _tell(self, stop: Stop | None) -> None:
        if stop != self._told:
            self._told = stop
            self._changed(stop)


class WatchThread:
    """A thread that has a guard check, whatever the rest of the process is busy with."""

    def __init__(self, guard: Guard, failed: Callable[[BaseException], None]) -> None:
        """Take the guard; `failed` is called where a check itself fails, once."""
        self._guard = guard
        self._failed = failed
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=WATCHDOG_THREAD, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def end(self) -> None:
        """End, and wait for it."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(WATCH_PERIOD_S):
            try:
                self._guard.beat(WATCHDOG_THREAD)
                self._guard.check()
            except Exception as error:
                self._failed(error)
                return
