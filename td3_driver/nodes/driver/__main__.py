"""Runs the driver's process: `python -m td3_driver.nodes.driver`."""

from td3_driver.nodes.driver.node import main

main()
