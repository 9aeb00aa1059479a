"""Which recordings are evaluated, with what is right about them, and how the stages are set for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from emo_perception.bag_input import Inputs, find_inputs
from emo_perception.bags import METADATA, SUFFIXES, Bag, BagError
from emo_perception.config import Config, PerceptionConfig, VisualConfig
from emo_perception.types import NS_PER_S
from training.recordings.references import CAPTION, CAUSE, FILE, Reference, read_references

Stride = Literal["clip", "profile"]
#: Windows and stride that the nodes take, seconds.
SHORTEST_S, LONGEST_S = 0.5, 60.0
LONGEST_STRIDE_S: Final = 3600.0
#: So that the first image of a clip is in the window in spite of rounding.
MARGIN_S: Final = 0.001
MOST_FPS: Final = 120.0


@dataclass(frozen=True)
class Topics:
    """Names of topics in the recordings, where they must be told; see :func:`emo_perception.bag_input.find_inputs`."""

    images: str = ""
    sound: str = ""
    words: str = ""


@dataclass(frozen=True)
class Recording:
    """One bag and its references, in the order of the file."""

    name: str
    path: Path
    references: tuple[Reference, ...] = ()

    def of(self, kind: str) -> tuple[Reference, ...]:
        """References of one kind."""
        return tuple(reference for reference in self.references if reference.kind == kind)

    def inputs(self, bag: Bag, topics: Topics, *, listen: bool) -> Inputs:
        """What of it is processed. Whose utterances are annotated is not listened to: they are known by their ids."""
        annotated = bool(self.of(CAUSE))
        return find_inputs(
            bag, images=topics.images, sound=topics.sound, words=topics.words, listen=listen and not annotated
        )


def recordings(paths: Sequence[Path], references: Path | None = None) -> list[Recording]:
    """The bags of ``paths``: each is a bag, or a folder of bags; ``references``: a file for the only one.

    Raises :class:`BagError` for what is neither and for two of one name, :class:`DatasetError` for broken references.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for bag in _bags(path.expanduser()):
            name = bag.name if bag.is_dir() else bag.stem
            if found.setdefault(name, bag) != bag:
                raise BagError(f"two recordings are called {name!r}: {found[name]} and {bag}; rename one")
    if references is not None and len(found) > 1:
        raise BagError(f"--refs belongs to one bag, here are {len(found)}; put {FILE} into the folder of each instead")
    return [Recording(name, bag, _references(bag, references)) for name, bag in found.items()]


def _bags(path: Path) -> list[Path]:
    if _is_bag(path):
        return [path]
    bags = sorted(entry for entry in path.iterdir() if entry.is_dir() and _is_bag(entry)) if path.is_dir() else []
    if not bags:
        what = (
            "a folder without one" if path.is_dir() else "a file of another kind" if path.exists() else "nothing there"
        )
        raise BagError(
            f"{path}: expected a bag (a folder with {METADATA}, or an .mcap or .db3 file) or a folder of bags, got {what}"
        )
    return bags


def _is_bag(path: Path) -> bool:
    if path.is_file():
        return path.suffix in SUFFIXES
    return (path / METADATA).is_file() or any(file.suffix in SUFFIXES for file in path.glob("*"))


def _references(bag: Path, given: Path | None) -> tuple[Reference, ...]:
    file = given or (bag / FILE if bag.is_dir() else bag.with_name(FILE))
    if given is None and not file.is_file():
        return ()
    return tuple(read_references(file))


def clip_s(found: Sequence[Recording]) -> float:
    """Length of the longest clip with reference captions, seconds; 0 without any."""
    lengths = ((r.end_ns - r.start_ns) / NS_PER_S for recording in found for r in recording.of(CAPTION))
    return max(lengths, default=0.0)


def clip_windows(
    configs: Mapping[str, Config], recording: Recording, longest_s: float, fps: float
) -> tuple[dict[str, Config], str]:
    """Configurations whose captions are about whole reference clips of at most ``longest_s``, and that in words.

    Where the recording is one clip, its only caption comes when it has ended. ``fps``: images per second, all of which
    the window has to hold.
    """
    window_s = min(max(longest_s + MARGIN_S, SHORTEST_S), LONGEST_S)
    visual, perception = configs[VisualConfig.node], configs[PerceptionConfig.node]
    assert isinstance(visual, VisualConfig)
    assert isinstance(perception, PerceptionConfig)
    changed: dict[str, dict[str, object]] = {"caption": {"window_s": window_s}}
    if visual.clips:
        changed["visual"] = {"window_s": window_s}
        changed["perception"] = {
            "window_s": max(perception.window_s, window_s),
            "window_fps": min(max(perception.window_fps, fps), MOST_FPS),
        }
    alone = len(recording.of(CAPTION)) == 1
    if alone:
        changed["caption"]["stride_s"] = LONGEST_S
        changed.setdefault("visual", {})["stride_s"] = LONGEST_STRIDE_S
    told = f"captions of {window_s:.2f} s, " + ("one at the end of each clip" if alone else "at the profile's stride")
    if longest_s > window_s:
        told += f"; the longest clip has {longest_s:.1f} s, of which the last {LONGEST_S:g} s are seen"
    return {name: config.with_values(changed.get(name, {})) for name, config in configs.items()}, told


def image_rate(bag: Bag, topic: str) -> float:
    """Images per second, by the times of receipt; 0 where that cannot be told."""
    count = sum(t.count for t in bag.topics if t.name == topic)
    return (count - 1) * NS_PER_S / (bag.end_ns - bag.start_ns) if count > 1 and bag.end_ns > bag.start_ns else 0.0
