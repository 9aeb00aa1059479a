"""What a recorded run leaves for people and programs: JSONL files, the overlay video, a page with figures."""

from emo_perception.report.run import Run, load_run
from emo_perception.report.summary import summary
from emo_perception.report.video import write_video

__all__ = ["Run", "load_run", "summary", "write_video"]
