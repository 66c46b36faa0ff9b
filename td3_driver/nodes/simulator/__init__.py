"""The node of the embedded simulator."""
