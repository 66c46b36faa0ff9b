"""A trained policy on its own: one file that says what it is for, and what drives with it."""
