"""Thin executables: simulator, trainer, driver."""
