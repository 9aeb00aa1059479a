"""Where images and sound come from: GStreamer, PyAV or a still picture.

source = open_source(SourceConfig(uri="clip.mp4"))
for item in source: ...                          # offline: everything, in stamp order
source.start(on_frame, on_audio, on_state)       # live: in real time, the newest frame wins
"""

from emo_perception.sources.base import Item, SourceError, SourceState, SourceStatus
from emo_perception.sources.choose import open_source
from emo_perception.sources.source import Source

__all__ = ["Item", "Source", "SourceError", "SourceState", "SourceStatus", "open_source"]
