"""The only way to the car: what lets a command through, and what stops it."""
