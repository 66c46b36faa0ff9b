# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Trains Stable-Baselines3's SAC on the driving task, in the embedded simulator, without ROS.

.venv/bin/pip install -c constraints.txt stable-baselines3
.venv/bin/python examples/train_sb3.py --steps 5000
"""

import argparse

from stable_baselines3 import SAC

from td3_driver.config import load
from td3_driver.driving.environment import DrivingEnv
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=5000, help="decisions to train for")
parser.add_argument("--out", default="sac.zip", help="file to save the policy to")
options = parser.parse_args()

config = load("first_drive")
starts = StartSampler(config.training.maps, config.training.route_length_m)
env = DrivingEnv(SimulatedWorld(config.simulator), starts, config.driving)
model = SAC("MultiInputPolicy", env, buffer_size=config.learning.replay_capacity, verbose=1)
model.learn(options.steps, log_interval=1)
model.save(options.out)
print(f"{options.steps} steps trained; the policy is in {options.out}")
