# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Road maps read from OpenDRIVE: lanes, spawn poses, routes."""

import os
import tempfile

# The carla library looks for a cache folder while it is imported, and crashes without a HOME.
os.environ.setdefault("HOME", tempfile.gettempdir())
