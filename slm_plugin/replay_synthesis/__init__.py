"""Replay sets that the previous-stage model writes itself, where the data it was trained on is not there."""
