"""What was said and what could be seen in the last minutes: found in the features, bounded, kept over a restart."""

from emo_perception.memory.dialogue import DialogueMemory, Item
from emo_perception.memory.events import EventFinder, EventKind, VisibleEvent
from emo_perception.memory.store import MemoryFile

__all__ = ["DialogueMemory", "EventFinder", "EventKind", "Item", "MemoryFile", "VisibleEvent"]
