"""Offline: data readers, training, evaluation. Nothing on the robot imports it."""
