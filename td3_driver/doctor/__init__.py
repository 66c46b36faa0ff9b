# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""`td3-driver doctor`: looks whether everything that is needed is there and works."""
