"""The node that drives."""
