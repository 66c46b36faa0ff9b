# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Runs the driver's process: `python -m td3_driver.nodes.driver`."""

from td3_driver.nodes.driver.node import main

main()
