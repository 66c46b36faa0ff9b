"""Runs the simulator's process: `python -m td3_driver.nodes.simulator`."""

from td3_driver.nodes.simulator.node import main

main()
