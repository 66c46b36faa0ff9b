"""Drives that are examined: rollouts, reports and pictures."""
