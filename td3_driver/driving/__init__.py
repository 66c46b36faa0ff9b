"""The task: observation, route, reward and ends, action to command, the gymnasium environment."""
