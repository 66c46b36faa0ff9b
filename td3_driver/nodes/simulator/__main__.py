# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Runs the simulator's process: `python -m td3_driver.nodes.simulator`."""

from td3_driver.nodes.simulator.node import main

main()
