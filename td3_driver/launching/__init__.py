# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What runs with what, for `ros2 launch` and for `td3-driver`."""
