# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The only path to the car: a watchdog and a gate that every command passes.

A `Guard`'s methods may be called from any thread.
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
from td3_driver.workers import Failure, Worker

WATCH_PERIOD_S = 0.05
"""Time between two checks, and between two stop commands while the car must not drive."""
UNWATCHED_S = 0.5
"""No command passes if the last check is longer ago than this."""
KEPT = 200
"""Number of latest commands whose latency is kept."""

WATCHDOG_THREAD = "watchdog"

INACTIVE = Stop("the driver is not active")
NOT_STARTED = "waiting for the first command"


class Guard:
    """Sends commands while all is well, and otherwise repeats the stop."""

    def __init__(
        self,
        driving: DrivingConfig,
        driver: DriverConfig,
        fixed_delta_s: float,
        send: Callable[[Command, int | None], None],
        changed: Callable[[Stop | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`send` publishes a command with the stamp (ns) of its image, None for a stop.

        `changed` is called with each new reason for a stop, and with None when the car drives. It
        must return at once: until then, nothing can command or stop the car.
        `clock` is a steady clock, in seconds.
        """
        self._watchdog = Watchdog(driver)
        self._gate = CommandGate(driving, fixed_delta_s)
        self._policy_timeout_s = driver.policy_timeout_s
        self._send = send
        self._changed = changed
        self.clock = clock
        """The steady clock, s, that all times here are read from."""
        self._lock = threading.RLock()
        self._engaged = False
        self._ending = False
        self._standing: str | None = NOT_STARTED
        self._reported: Stop | None = INACTIVE
        self._stamp_ns = 0
        self._checked_s = clock()
        self._latencies_s: deque[float] = deque(maxlen=KEPT)

    @property
    def standing(self) -> Stop | None:
        """Why the car is stopped; None while it drives."""
        return self._reported

    @property
    def engaged(self) -> bool:
        """Whether the guard commands the car."""
        return self._engaged

    @property
    def commands_limited(self) -> int:
        """Number of commands that exceeded the limits."""
        return self._gate.limited

    def fault_counts(self) -> dict[Fault, int]:
        """Return how often each fault has become the reason for a stop."""
        with self._lock:
            return dict(self._watchdog.counts)

    def standstills(self) -> tuple[int, float]:
        """Return how often the driver's own threads stalled, and for how long at most, s."""
        with self._lock:
            return self._watchdog.own.count, self._watchdog.own.longest_s

    def stood_still_s(self, since_s: float) -> float:
        """Return for how long the driver itself has stalled since a time, s."""
        with self._lock:
            return self._watchdog.own.between(since_s, self.clock())

    def beat(self, thread: str) -> None:
        """Note that a thread of the driver is running; call this every `WATCH_PERIOD_S`."""
        with self._lock:
            self._watchdog.own.beat(thread, self.clock(), WATCH_PERIOD_S)

    @property
    def latest_latency_s(self) -> float:
        """Time from the latest command's image to its sending; IndexError before the first."""
        with self._lock:
            return self._latencies_s[-1]

    def latencies_s(self) -> list[float]:
        """Return the times from an image's arrival to its command, for the latest commands."""
        with self._lock:
            return list(self._latencies_s)

    def engage(self) -> None:
        """Take command of the car, which stays stopped until the first command."""
        with self._lock:
            self._engaged, self._ending = True, False
            self._standing = NOT_STARTED
            self._checked_s = self.clock()
            self._watchdog.resume()
            self.check()

    def end(self, reason: str) -> None:
        """Stop the car, and from now on only repeat that stop."""
        with self._lock:
            self._ending = True
            self.stand(reason)

    def disengage(self) -> None:
        """Stop the car one last time, and send nothing after that."""
        with self._lock:
            if self._engaged:
                self._stop_car()
            self._engaged = False
            self._watchdog.own.rest()
            self._report_standing(INACTIVE)

    def change_limits(self, driver: DriverConfig) -> None:
        """Have other limits of time apply from now on."""
        with self._lock:
            self._watchdog.change_limits(driver)
            self._policy_timeout_s = driver.policy_timeout_s

    def heard(self, source: Source) -> None:
        """Note that valid data has arrived from a source."""
        with self._lock:
            self._watchdog.heard(source, self.clock())

    def report(self, fault: Fault, detail: str) -> None:
        """Stop the car because of a fault that has just occurred."""
        with self._lock:
            self._watchdog.report(fault, detail, self.clock())
            self.check()

    def set_lasting(self, fault: Fault, detail: str | None) -> None:
        """Stop the car for as long as a fault lasts: until its detail is set to None."""
        with self._lock:
            self._watchdog.set_lasting(fault, detail)
            self.check()

    def note_publishers(self, several: str | None) -> None:
        """Note who publishes the same sensor, in words; None for one publisher or none."""
        with self._lock:
            self._watchdog.note_publishers(several, self.clock())
            self.check()

    def resume(self) -> Stop | None:
        """Acknowledge the faults so far; return what still keeps the car from driving."""
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
        """A context for the policy's decision, which is a fault if it takes too long."""
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

        Returns None if the car has to stay stopped. `arrived_s` is when the frame's image
        arrived, on the guard's clock.
        """
        with self._lock:
            if not self._engaged or self._ending:
                return None
            now_s = self.clock()
            late_s, unwatched_s = now_s - arrived_s, now_s - self._checked_s
            elapsed_s = 1e-9 * (frame.stamp_ns - self._stamp_ns)
            self._stamp_ns = frame.stamp_ns
            if late_s > self._policy_timeout_s:
                detail = f"the command came {late_s:.2f} s after its image"
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
            # Measured before sending: a process that waits for a core afterwards is not late.
            self._latencies_s.append(self.clock() - arrived_s)
            self._send(admitted, frame.stamp_ns)
            self._report_standing(None)
            return admitted

    def check(self) -> Stop | None:
        """Check for faults; if the car must not drive, repeat the stop and return why."""
        with self._lock:
            self._checked_s = now_s = self.clock()
            if not self._engaged:
                return INACTIVE
            # At the end the node may no longer receive anything, which is no fault.
            stop = None if self._ending else self._watchdog.check(now_s)
            if stop is None and self._standing is not None:
                stop = Stop(self._standing)
            if stop is not None:
                self._stop_car()
                self._report_standing(stop)
            return stop

    def _stop_car(self) -> None:
        self._send(self._gate.stop(), None)

    def _report_standing(self, stop: Stop | None) -> None:
        if stop != self._reported:
            self._reported = stop
            self._changed(stop)


class WatchThread:
    """A thread that runs a guard's checks, however busy the rest of the process is.

    If a check itself fails, it goes on after a second; until then, the guard lets nothing through.
    """

    def __init__(self, guard: Guard, failed: Callable[[Failure], None]) -> None:
        """Take the guard; `failed` is called with each failure of a check."""
        self._guard = guard
        self._ended = threading.Event()
        self.worker = Worker(WATCHDOG_THREAD, self._run, failed)
        """The thread itself."""

    def start(self) -> None:
        """Start watching."""
        self.worker.start()

    def end(self) -> None:
        """Stop the thread, and wait for it to end."""
        self._ended.set()
        self.worker.join()

    def _run(self) -> None:
        while not self._ended.wait(WATCH_PERIOD_S):
            self._guard.beat(WATCHDOG_THREAD)
            self._guard.check()
