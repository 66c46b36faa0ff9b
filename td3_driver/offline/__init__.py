"""Bags: read, write, inspect; no ROS needed."""
