"""Losses of the tasks that are not part of a network."""
