"""Road maps read from OpenDRIVE: lanes, spawn poses, routes."""
