# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""`td3-driver doctor`: checks that everything needed is there and works."""
