"""The emo command."""
