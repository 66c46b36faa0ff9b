"""The embedded world: car, camera, traffic and events, stepped in process."""
