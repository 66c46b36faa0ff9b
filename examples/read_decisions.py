# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Prints what a bag's driver saw, did and earned: a line for every tenth decision.

.venv/bin/python examples/read_decisions.py bags/drive --config runs/latest/config.yaml
"""

import argparse

from td3_driver.config import load
from td3_driver.offline.bag import Bag
from td3_driver.offline.decisions import decisions
from td3_driver.offline.frames import BagFrames, bag_names

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("bag", help="a folder, or a file .mcap, .db3 or .bag")
parser.add_argument("--config", default="first_drive", help="configuration of the driving task")
parser.add_argument("--every", type=int, default=10, help="decisions from one line to the next")
options = parser.parse_args()

config = load(options.config)
print(f"{'time/s':>8}{'speed/(m/s)':>13}{'lateral/m':>11}{'steering':>10}{'reward':>8}  end")
with Bag(options.bag) as bag:
    frames = BagFrames(bag, bag_names(bag, config.carla))
    for index, decision in enumerate(decisions(frames, config.driving, frames.fixed_delta_s)):
        if index % options.every and not decision.end:
            continue
        frame, action, reward = decision.source.frame, decision.action, decision.reward
        steering = "-" if action is None else f"{action[0]:.3f}"
        earned = "-" if reward is None else f"{reward.total:.3f}"
        end = decision.end.value if decision.end else ""
        moved = (
            f"{frame.stamp_ns * 1e-9:8.2f}{frame.speed:13.2f}{decision.projection.lateral_m:11.2f}"
        )
        print(f"{moved}{steering:>10}{earned:>8}  {end}".rstrip())
