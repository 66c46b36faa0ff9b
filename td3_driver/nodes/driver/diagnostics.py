# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The driver's state on /diagnostics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from td3_driver.bridge.driver_topics import FAULT, PROCESS, STANDSTILLS, STOPPED, STOPS, WATCHDOG
from td3_driver.faults import Fault
from td3_driver.nodes.diagnostics import Diagnostics
from td3_driver.nodes.driver.live_frames import Counts
from td3_driver.safety.watchdog import Stop
from td3_driver.workers import Failure


def percentiles_ms(name: str, times_s: Sequence[float]) -> dict[str, float]:
    """Return the median and the 95th percentile, ms, under names that begin with `name`."""
    if not times_s:
        return {}
    p50, p95 = np.percentile(times_s, (50, 95))
    return {f"{name}_p50_ms": 1e3 * float(p50), f"{name}_p95_ms": 1e3 * float(p95)}


class DriverDiagnostics(Diagnostics):
    """Publishes six statuses: watchdog, process, camera, policy, commands and company."""

    _standstills = 0
    """The number in the last message."""

    def publish(
        self,
        *,
        standing: Stop | None,
        fault_counts: dict[Fault, int],
        standstills: tuple[int, float],
        counts: Counts,
        camera_rate_hz: float,
        ages_s: Sequence[float],
        inferences_s: Sequence[float],
        policy: str,
        saturated_share: float,
        commands_limited: int,
        sensors: str,
        commanders: str,
        failures: Sequence[Failure],
    ) -> None:
        """Publish the state.

        `standstills` is how often the driver's own threads stalled, and for how long at most, s;
        `ages_s` are the times from an image to its command; `sensors` and `commanders` say who
        publishes the same sensor, and who else commands the car, empty for nobody; `failures` are
        those of threads.
        """
        fault = standing.fault if standing else None
        if standing is None:
            level, message = DiagnosticStatus.OK, "driving"
        elif fault is None:
            level, message = DiagnosticStatus.WARN, STOPPED + standing.reason
        else:
            level, message = DiagnosticStatus.ERROR, STOPPED + standing.reason
        ok = DiagnosticStatus.OK
        fresh, self._standstills = standstills[0] - self._standstills, standstills[0]
        self.send(
            [
                self.status(
                    WATCHDOG,
                    level,
                    message,
                    {
                        FAULT: fault.value if fault else "none",
                        "needs_resume": bool(standing and standing.needs_resume),
                        "over": bool(standing and standing.over),
                        "first": standing.first if standing else "",
                        **{STOPS + name.value: number for name, number in fault_counts.items()},
                    },
                ),
                self._process(fresh, standstills, failures),
                self.status(
                    "camera",
                    ok if camera_rate_hz else DiagnosticStatus.WARN,
                    f"{camera_rate_hz:.1f} Hz",
                    {"rate_hz": float(camera_rate_hz), **vars(counts)},
                ),
                self.status("policy", ok, policy, percentiles_ms("inference", inferences_s)),
                self.status(
                    "commands",
                    ok,
                    "from image to command",
                    {
                        **percentiles_ms("age", ages_s),
                        "saturated_share": float(saturated_share),
                        "limited": commands_limited,
                    },
                ),
                self.status(
                    "company",
                    DiagnosticStatus.WARN if sensors or commanders else ok,
                    "; ".join(filter(None, (sensors, commanders))) or "alone",
                    {"sensors": sensors, "commanders": commanders},
                ),
            ]
        )

    def _process(
        self, fresh: int, standstills: tuple[int, float], failures: Sequence[Failure]
    ) -> DiagnosticStatus:
        """Return the status of the threads: `fresh` is how often they stalled of late."""
        stalled = [f"stalled {fresh} times"] if fresh else []
        problems = stalled + [str(failure) for failure in failures]
        stood_still, longest_s = standstills
        return self.status(
            PROCESS,
            DiagnosticStatus.WARN if problems else DiagnosticStatus.OK,
            "; ".join(problems) or "running",
            {
                STANDSTILLS: stood_still,
                "longest_standstill_ms": 1e3 * longest_s,
                **{f"failures_{failure.thread}": failure.count for failure in failures},
            },
        )
