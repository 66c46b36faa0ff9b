# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Whether the critic's dormant share has settled, and more updates for each decision are safe.

After Ma et al. (2024, Revisiting Plasticity in Visual Reinforcement Learning): many updates on few
early transitions can cost a critic its plasticity for good; later they pay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Settling:
    """It has settled once the latest shares differ little, and then stays so."""

    shares: list[float] = field(default_factory=list)
    """The latest ones measured, oldest first."""
    settled: bool = False

    def observe(self, share: float, count: int, spread: float) -> bool:
        """Take a share, and return whether they have settled.

        That is once the `count` latest are at most `spread` apart.
        """
        self.shares = [*self.shares, share][-count:]
        apart = max(self.shares) - min(self.shares)
        self.settled = self.settled or (len(self.shares) == count and apart <= spread)
        return self.settled

    def counters(self) -> dict[str, Any]:
        """Return the state that a resumed run continues from; nothing before the first share."""
        if not self.shares:
            return {}
        return {"settling": {"shares": list(self.shares), "settled": self.settled}}
