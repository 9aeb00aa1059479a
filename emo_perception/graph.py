"""The processes of the graph as data: what ``emo run`` and the launch file start, and why they start the same.

``processes(options)`` decides everything; the two only turn its table into processes of the system. ROS-free.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from emo_perception.config import (
    NODE_CONFIGS,
    Config,
    ConfigError,
    LearnedConfig,
    PerceptionConfig,
    VisualConfig,
    configurations,
    param,
    read_profile,
)
from emo_perception.files import profile_file, profiles
from emo_perception.learned import needs

#: Nodes of the perception process, which shares the images and opens the source in privacy mode.
PERCEPTION_NODES = ("perception", "face", "action_unit", "emotion", "visual", "speech", "overlay")

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_TOPIC = re.compile(rf"/?{_NAME}(/{_NAME})*")
_COMPRESSED = "/compressed"

#: Parameters that decide which processes exist: only the options set them.
_BY_OPTION = {("source", "uri"): "source", ("perception", "source_inside"): "privacy", ("recorder", "folder"): "record"}


@dataclass(frozen=True)
class GraphOptions(Config):
    """What a user can choose when starting the graph: the launch arguments and the options of ``emo run``."""

    node: ClassVar[str] = "graph"
    profile: str = param("start", "which networks run: the name of a file in config/, or of a profile of your own")
    weights: str = param(
        "trained",
        "random: built networks run with random numbers, to measure time and memory; what they say is marked as invalid",
        choices=("trained", "random"),
    )
    source: str = param(
        "", "what to open: /dev/videoN, a file, rtsp://..., test:// (pattern) or a picture; empty = no source of ours"
    )
    loop: bool = param(False, "play a file again when it ends")
    image_topic: str = param(
        "", "images of another node; a name that ends in /compressed reads JPEG; empty = image_raw and the like"
    )
    audio_topic: str = param("", "sound of another node; empty = audio")
    privacy: bool = param(
        False, "no picture and no sound on any topic: the source is opened inside perception, the overlay is off"
    )
    overlay: bool = param(True, "draw what was perceived on overlay/compressed (while somebody subscribes)")
    record: str = param("", "write a bag (MCAP) of the run into this folder, which must not exist; raw images stay out")
    params_file: str = param("", "a ROS 2 parameter file with your values, on top of the profile")
    namespace: str = param("", "namespace of all nodes and topics, as /robot1")
    use_sim_time: bool = param(False, "take the time from /clock, as when a bag is played with --clock")
    log_level: str = param(
        "info", "least severe log messages that are shown", choices=("debug", "info", "warn", "error", "fatal")
    )

    @classmethod
    def of_text(cls, values: Mapping[str, str]) -> GraphOptions:
        """Build from texts, as launch arguments are. Raises :class:`ConfigError` as :meth:`of`."""
        truths = {"true": True, "false": False}
        kinds = {spec.name: type(spec.default) for spec in dataclasses.fields(cls)}
        parsed = {n: truths.get(v.lower(), v) if kinds.get(n) is bool else v for n, v in values.items()}
        return cls.of(parsed)

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("image_topic", "audio_topic", "namespace"):
            name = getattr(self, option)
            if name and not _TOPIC.fullmatch(name):
                raise ConfigError(
                    f"{option}: expected a ROS name as /camera/image_raw (letters, digits and _ between the /, "
                    f"no digit after a /), got {name!r}; 'ros2 topic list' shows the topics"
                )
        if self.source and self.image_topic:
            raise ConfigError(
                f"source {self.source!r} and image_topic {self.image_topic!r} exclude each other: images come either "
                "from a source of ours or from another node; leave one of the two out"
            )
        if self.source and self.privacy and self.audio_topic:
            raise ConfigError(
                f"privacy keeps sound off the topics, but audio_topic is {self.audio_topic!r}: leave it out (the "
                "microphone of the source is opened inside perception), or privacy"
            )
        if self.record and self.privacy and not self.source:
            raise ConfigError(
                "privacy and record exclude each other when images come from another node: the bag would hold them; "
                "open the camera here (source), or leave one of the two out"
            )
        if self.loop and not self.source:
            raise ConfigError("loop plays a file again, but there is no source: add source, or leave loop out")

    @property
    def external(self) -> tuple[str, ...]:
        """Topics of images and sound that nodes outside this graph publish."""
        images = () if self.source else (self.image_topic or "image_raw",)
        own_sound = bool(self.source) and not self.audio_topic
        return images if own_sound else (*images, self.audio_topic or "audio")


def option_choices(option: dataclasses.Field[Any]) -> tuple[str, ...]:
    """What a field of :class:`GraphOptions` can be, where that is a choice; for the profile, the files that exist."""
    return profiles() if option.name == "profile" else tuple(option.metadata["choices"])


@dataclass(frozen=True)
class Process:
    """One process: ``parameters`` maps its nodes' names to what differs from their defaults.

    A process may hold several nodes, so parameters go to it under the nodes' names and its nodes are never renamed.
    """

    name: str
    parameters: Mapping[str, Mapping[str, Any]]
    remappings: tuple[tuple[str, str], ...] = ()
    namespace: str = ""
    log_level: str = "info"
    use_sim_time: bool = False
    restart: bool = True
    """Whether it is started again after a crash; what it has written may forbid that."""

    @property
    def executable(self) -> str:
        """The installed script, as ``ros2 run emo_perception perception_node`` names it."""
        return f"{self.name}_node"

    def parameter_file(self) -> str:
        """The text of its ROS 2 parameter file, valid in any namespace."""
        blocks: dict[str, Mapping[str, Any]] = {f"/**/{node}": values for node, values in self.parameters.items()}
        if self.use_sim_time:
            blocks["/**"] = {"use_sim_time": True}
        return yaml.safe_dump({key: {"ros__parameters": dict(v)} for key, v in blocks.items()}, sort_keys=False)

    def ros_arguments(self, parameter_file: Path) -> list[str]:
        """What follows the command on its command line."""
        arguments = ["--ros-args", "--params-file", str(parameter_file), "--log-level", self.log_level]
        if self.namespace:
            arguments += ["-r", f"__ns:={self.namespace}"]
        for here, there in self.remappings:
            arguments += ["-r", f"{here}:={there}"]
        return arguments


@dataclass
class Backoff:
    """How long to wait before a process that crashed is started again: doubled each time, until it runs well.

    ``first_s``, ``most_s``: shortest and longest wait; a process that ran for ``healthy_s`` starts anew with the first.
    """

    first_s: float = 1.0
    most_s: float = 30.0
    healthy_s: float = 60.0
    _next_s: float = dataclasses.field(default=0.0, init=False)

    def after(self, ran_s: float) -> float:
        """The wait in seconds after a crash that ended a run of ``ran_s`` seconds."""
        if ran_s >= self.healthy_s or not self._next_s:
            self._next_s = self.first_s
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, self.most_s)
        return wait_s


def processes(options: GraphOptions) -> tuple[Process, ...]:
    """The table: ``source`` (if wanted), ``perception``, ``caption``, ``cause``, ``recorder`` (if wanted), in the order of the data.

    Raises :class:`ConfigError` for an unknown profile and for parameter files that cannot be used.
    """
    values = _parameters(options)
    _fit_together(configurations(values), options)
    inside = bool(options.source) and options.privacy
    namespace = options.namespace and "/" + options.namespace.removeprefix("/")

    def process(name: str, nodes: tuple[str, ...], remappings: tuple[tuple[str, str], ...] = ()) -> Process:
        own = {node: values[node] for node in nodes if values.get(node)}
        return Process(name, own, remappings, namespace, options.log_level, options.use_sim_time)

    table = [process("perception", (*PERCEPTION_NODES, *(("source",) if inside else ())), _inputs(options))]
    table += [process("caption", ("caption",)), process("cause", ("cause",))]
    if options.source and not inside:
        table.insert(0, process("source", ("source",)))
    if options.record:
        recorder = process("recorder", ("recorder",), _inputs(options))
        table.append(dataclasses.replace(recorder, restart=False))
    return tuple(table)


def _fit_together(configs: Mapping[str, Config], options: GraphOptions) -> None:
    """What a node by itself cannot know, or would say only when it is started."""
    visual, perception = configs[VisualConfig.node], configs[PerceptionConfig.node]
    assert isinstance(visual, VisualConfig)
    assert isinstance(perception, PerceptionConfig)
    visual.check(perception, privacy=options.privacy)


def configs_of(options: GraphOptions) -> dict[str, Config]:
    """The configuration that each node would start with. Raises as :func:`processes`."""
    return configurations(_parameters(options))


def notes(options: GraphOptions) -> tuple[str, ...]:
    """What the user should know before it starts: where images and sound come from, and what privacy cannot cover."""
    told = []
    if options.weights == "random":
        told.append(
            "random weights: time and memory are real, sentences and measurements are not, and are marked as invalid"
        )
    if options.external:
        told.append(f"waiting for {' and '.join(options.external)} from other nodes")
    if options.privacy:
        told.append(
            "privacy: no image or sound is published by this graph, the overlay is off, words are kept in no file"
        )
        if options.external:
            told.append(f"privacy does not cover {' and '.join(options.external)}: other nodes publish them")
    return tuple(told)


def _parameters(options: GraphOptions) -> dict[str, dict[str, Any]]:
    """Profile, then the user's file, then the options: node -> parameter -> value."""
    merged: dict[str, dict[str, Any]] = {}
    files = [profile_file(options.profile)]
    if options.params_file:
        files.append(Path(options.params_file).expanduser())
    for file in files:
        given = read_profile(file)
        for (node, name), option in _BY_OPTION.items():
            if name in given.get(node, {}):
                raise ConfigError(
                    f"{file}: {node}.{name} is not set in a file but by the option {option}: move it there"
                )
        _merge(merged, given)
    _merge(merged, _from_options(options))
    if options.weights == "random":
        _merge(merged, _random_weights(options, merged))
    return merged


def _random_weights(options: GraphOptions, values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Let every node take engines with random weights. Raises :class:`ConfigError` where none runs a built network."""
    if not needs(configurations(values)):
        raise ConfigError(
            f"weights random is for networks that are built, and profile {options.profile!r} runs none: leave it out, or "
            "choose a profile that does, as toy or paper"
        )
    return {node: {"weights": "random"} for node, kind in NODE_CONFIGS.items() if issubclass(kind, LearnedConfig)}


def _merge(merged: dict[str, dict[str, Any]], given: Mapping[str, Mapping[str, Any]]) -> None:
    for node, values in given.items():
        merged.setdefault(node, {}).update(values)


def _from_options(options: GraphOptions) -> dict[str, dict[str, Any]]:
    source: dict[str, Any] = {}
    perception: dict[str, Any] = {}
    if options.source:
        source["uri"] = options.source
        perception["source_inside"] = options.privacy
        if options.loop:
            source["loop"] = True
        if options.audio_topic:
            source["audio"] = False
    if options.image_topic.endswith(_COMPRESSED):
        perception["image_transport"] = "compressed"
    overlay = {} if options.overlay and not options.privacy else {"enabled": False}
    recorder = {"folder": str(Path(options.record).expanduser().absolute())} if options.record else {}
    cause = {"persist": False} if options.privacy else {}
    return {"source": source, "perception": perception, "overlay": overlay, "cause": cause, "recorder": recorder}


def _inputs(options: GraphOptions) -> tuple[tuple[str, str], ...]:
    remappings = []
    if options.image_topic:
        topic = options.image_topic.removesuffix(_COMPRESSED)
        remappings += [("image_raw", topic), ("image_raw" + _COMPRESSED, topic + _COMPRESSED)]
    if options.audio_topic:
        remappings.append(("audio", options.audio_topic))
    return tuple(remappings)
