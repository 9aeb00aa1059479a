"""The networks of emo_perception, their weights, and the engines they become."""

from emo_models.registry import create, list_networks, list_presets

__all__ = ["create", "list_networks", "list_presets"]
