"""What of a bag is processed: images, and sound to listen to or words that others have understood already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from emo_perception import from_msg, pcm
from emo_perception.bags import Bag, BagError, Topic, deserialize, differs, learn
from emo_perception.images import BadImage, frame_from_msg
from emo_perception.types import AudioChunk, Frame, Utterance

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
OVERLAY = "overlay/compressed"
#: Sound that :mod:`emo_perception.pcm` understands, and what describes one kind of it.
SOUND = (
    "emo_msgs/msg/AudioChunk",
    "audio_common_msgs/msg/AudioStamped",
    "audio_common_msgs/msg/AudioDataStamped",
    "audio_common_msgs/msg/AudioData",
)
SOUND_INFO = "audio_common_msgs/msg/AudioInfo"
WORDS: Final = "emo_msgs/msg/Utterance"

Item = Frame | AudioChunk | Utterance
Refuse = Callable[[Exception], None]


@dataclass(frozen=True)
class Inputs:
    """Topics of a bag; empty where it has none of the kind, or it is not wanted: words are heard or read, never both."""

    images: str
    sound: str = ""
    words: str = ""

    @property
    def told(self) -> str:
        """Where the words come from."""
        if self.words:
            return f"words of {self.words}"
        return f"words heard in {self.sound}" if self.sound else "no words: it has neither sound nor utterances"


def find_inputs(bag: Bag, *, images: str = "", sound: str = "", words: str = "", listen: bool = True) -> Inputs:
    """The topics that are wanted, or the only ones of their kind.

    ``listen``: the sound, where there is some, rather than utterances in the bag; naming ``words`` takes those anyway.
    Raises :class:`BagError` that names the choices.
    """
    seen = image_topic(bag, images)
    heard = sound_topic(bag, sound) if listen and not words else ""
    return Inputs(seen, heard, "" if heard else words_topic(bag, words))


def image_topic(bag: Bag, wanted: str = "") -> str:
    """The topic of the images: ``wanted``, or the only camera of the bag, raw before compressed.

    Raises :class:`BagError` that names the choices.
    """
    images = [t for t in bag.topics if t.kind in (IMAGE, COMPRESSED) and t.count]
    listed = ", ".join(f"{t.name} ({t.count})" for t in images)
    if wanted:
        wanted = wanted if wanted.startswith("/") else f"/{wanted}"
        if wanted not in {t.name for t in images}:
            raise BagError(f"{bag.path}: no images on {wanted}; images are on: {listed or 'no topic'}")
        return wanted
    cameras: dict[str, Topic] = {}
    for topic in sorted(images, key=lambda t: t.kind == COMPRESSED):
        if not topic.name.endswith(OVERLAY):
            cameras.setdefault(topic.name.removesuffix("/compressed"), topic)
    if not cameras:
        have = ", ".join(t.name for t in bag.topics) or "no topic"
        raise BagError(
            f"{bag.path} has no camera images, so there is nothing to process: expected a topic of type {IMAGE} or "
            f"{COMPRESSED}; it has {have}. Record with 'emo bag record', which takes JPEG images, or --raw-images"
        )
    if len(cameras) > 1:
        raise BagError(f"{bag.path} has several cameras; choose one with --image-topic: {listed}")
    return next(iter(cameras.values())).name


def sound_topic(bag: Bag, wanted: str = "") -> str:
    """The topic of the sound: ``wanted``, or the only one of the bag; empty when there is none.

    Raises :class:`BagError` that names the choices.
    """
    return _one(bag, SOUND, wanted, "sound", "microphones; choose one with --audio-topic")


def words_topic(bag: Bag, wanted: str = "") -> str:
    """The topic of the utterances, as :func:`sound_topic`; one that was recorded with another definition is none."""
    return _one(bag, (WORDS,), wanted, "utterances", "topics of utterances; choose one with --utterance-topic")


def _one(bag: Bag, kinds: tuple[str, ...], wanted: str, what: str, several: str) -> str:
    found = [t.name for t in bag.topics if t.kind in kinds and t.count and not differs(t)]
    listed = ", ".join(found)
    if wanted:
        wanted = wanted if wanted.startswith("/") else f"/{wanted}"
        if wanted not in found:
            raise BagError(f"{bag.path}: no {what} on {wanted}; {what} is on: {listed or 'no topic'}")
        return wanted
    if len(found) > 1:
        raise BagError(f"{bag.path} has several {several}: {listed}")
    return listed


def bag_items(bag: Bag, inputs: Inputs, refuse: Refuse) -> Iterator[Item]:
    """Images, sound and words of a bag, in the order of receipt; ``refuse`` gets the reason for each that is none."""
    described = inputs.sound.rpartition("/")[0] + "/audio_info"
    info = None
    for topic in bag.topics:
        learn(topic.kind, topic.definition)
    for raw in bag.messages({inputs.images, inputs.sound, inputs.words, described} - {""}):
        try:
            message = deserialize(raw)
            if raw.topic == inputs.images:
                yield frame_from_msg(message)
            elif raw.topic == inputs.sound:
                yield pcm.sound(message, info)
            elif raw.topic == inputs.words:
                yield from_msg.utterance(message)
            elif raw.kind == SOUND_INFO:
                info = message
        except (BadImage, pcm.BadSound, BagError) as error:
            refuse(error)
