"""The world that is stepped over topics, for training."""
