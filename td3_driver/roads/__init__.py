"""Road maps read from OpenDRIVE: lanes, spawn poses, routes."""

import os
import tempfile

# The carla library looks for a cache folder while it is imported, and crashes without a HOME.
os.environ.setdefault("HOME", tempfile.gettempdir())
