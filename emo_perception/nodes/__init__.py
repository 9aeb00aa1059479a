"""Thin rclpy shells: convert, hand off, publish."""
