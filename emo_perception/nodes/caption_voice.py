"""What goes out of the caption node: captions, abstentions, words that are not checked yet, and text to be spoken."""

from __future__ import annotations

from rclpy.node import Node
from std_msgs.msg import String

from emo_msgs.msg import EmotionCaption
from emo_perception.config import CaptionConfig
from emo_perception.nodes import convert, qos
from emo_perception.nodes.parameters import Parameters
from emo_perception.types import Caption

REMEMBERED = 64
"""People whose last sentence is remembered, so that it is not spoken twice in a row."""


class CaptionVoice:
    """Publishes ``emotion_caption`` with ``/text`` and ``/partial`` below it, and counts.

    An abstention goes out on ``emotion_caption`` only, and only where the parameter allows; a text that claims what
    was not measured (``grounded`` false) is withheld. What a network (``learned``) says of the same people twice in a row
    is not repeated as text; other writers have news whenever they say something.
    """

    def __init__(self, node: Node, parameters: Parameters[CaptionConfig], *, learned: bool) -> None:
        self._parameters, self._learned, self._log = parameters, learned, node.get_logger()
        self.counts = dict.fromkeys(("captions", "abstentions", "withheld"), 0)
        self._last: dict[tuple[int, ...], str] = {}
        override = qos.overridable()
        self._captions = node.create_publisher(
            EmotionCaption, "emotion_caption", qos.CAPTION, qos_overriding_options=override
        )
        self._text = node.create_publisher(String, "emotion_caption/text", qos.CAPTION, qos_overriding_options=override)
        self._partial = node.create_publisher(
            EmotionCaption, "emotion_caption/partial", qos.RESULT, qos_overriding_options=override
        )

    def forget(self) -> None:
        """Everything may be said again."""
        self._last.clear()

    def partial(self, caption: Caption) -> None:
        """The words of a caption so far."""
        self._partial.publish(convert.caption_msg(caption))

    def say(self, caption: Caption) -> None:
        """A finished caption or an abstention."""
        if caption.abstained:
            self.counts["abstentions"] += 1
            self._log.info(f"says nothing: {caption.abstain_reason}")
            if self._parameters.current.publish_abstentions:
                self._captions.publish(convert.caption_msg(caption))
        elif not caption.grounded:
            self.counts["withheld"] += 1
            self._log.warning(f"withheld, it claims what was not measured: {caption.text}")
        else:
            self.counts["captions"] += 1
            self._log.info(caption.text)
            self._captions.publish(convert.caption_msg(caption))
            if not self._repeats(caption):
                self._text.publish(String(data=caption.text))

    def _repeats(self, caption: Caption) -> bool:
        before = self._last.pop(caption.track_ids, "")
        self._last[caption.track_ids] = caption.text
        if len(self._last) > REMEMBERED:
            del self._last[next(iter(self._last))]
        return self._learned and before == caption.text
