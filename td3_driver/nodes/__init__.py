"""Thin executables: simulator, trainer, driver, ackermann_controller."""
