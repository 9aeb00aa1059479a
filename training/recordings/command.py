"""``emo bag export``: cut recordings into clips and dialogues in the layout of MAFW or MELD, with sheets for annotators."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from emo_perception import from_msg
from emo_perception.bag_input import Inputs, bag_items, image_topic, sound_topic
from emo_perception.bags import Bag, BagError, deserialize
from emo_perception.config import EXIT_CONFIG
from emo_perception.types import NS_PER_S, Utterance
from training.datasets.record import DatasetError
from training.recordings.clips import write_clips
from training.recordings.cuts import WAYS, Cut, find_cuts, notes_of_bag, notes_of_results, number_dialogues
from training.recordings.layouts import (
    LIST,
    SHEETS,
    VOCABULARY,
    Item,
    clip_file,
    write_layout,
    write_list,
    write_sheets,
)

EXIT_INCOMPLETE = 1
DEFAULT_STRIDE_S, DEFAULT_MAX_S, DEFAULT_GAP_S = 5.0, 30.0, 20.0


@dataclass
class Export:
    """An export in progress: the clips so far, how many cuts were tried, and what went wrong on the way."""

    arguments: argparse.Namespace
    items: list[Item] = field(default_factory=list)
    cut: int = 0
    troubles: Counter[str] = field(default_factory=Counter)

    def add(self, path: Path, split: str, results: Path | None) -> None:
        """Cut one recording. Raises :class:`BagError`."""
        options = self.arguments
        with Bag(path) as bag:
            inputs = Inputs(image_topic(bag, options.image_topic), sound_topic(bag, options.audio_topic))
            notes = notes_of_results(results) if results else notes_of_bag(bag)
            by = "utterances" if options.to == "meld" else options.by
            if (by == "utterances" and not notes.utterances) or (by == "captions" and not notes.captions):
                raise BagError(
                    f"{path}: expected {by} in it, there are none; type: emo bag process {path} --out results, then "
                    "export again with --results results"
                )
            cuts = find_cuts(
                notes, _image_span(bag, inputs.images), by=by, stride_s=options.stride_s, max_s=options.max_s,
                vocabulary=VOCABULARY[options.to],
            )  # fmt: skip
            first = 1 + max((item.dialogue for item in self.items), default=-1)
            wanted = dict(self._files(number_dialogues(cuts, first, options.gap_s), split))
            refused: Counter[str] = Counter()
            items = bag_items(bag, inputs, lambda error: refused.update([str(error)]))
            made = set(write_clips((item for item in items if not isinstance(item, Utterance)), wanted))
            self.troubles.update({f"{path}: {trouble}": 1 for trouble in bag.troubles})
            self.troubles.update({f"{path}: messages refused: {why}": n for why, n in refused.items()})
        for file, cut in wanted.items():
            if file not in made:
                self.troubles[f"{path}: cuts without a picture"] += 1
            if file in made or options.to == "meld":  # words without a picture still belong to the dialogue
                self.items.append(self._item(path, split, file if file in made else None, cut))

    def _files(self, cuts: Sequence[Cut], split: str) -> Iterator[tuple[Path, Cut]]:
        for cut in cuts:
            self.cut += 1
            name = clip_file(self.arguments.to, split, self.cut, cut.dialogue, cut.index)
            yield self.arguments.out / name, cut

    def _item(self, path: Path, split: str, file: Path | None, cut: Cut) -> Item:
        clip = "" if file is None else file.relative_to(self.arguments.out).as_posix()
        return Item(
            self.arguments.to, clip, split, path.name, cut.start_ns, cut.end_ns, cut.dialogue, cut.index, cut.speaker,
            cut.words, cut.draft_emotion, cut.draft_text,
        )  # fmt: skip


def _image_span(bag: Bag, topic: str) -> tuple[int, int]:
    """Stamps of the first and the last picture; not the times of receipt, which another clock may have given."""
    first = last = None
    for raw in bag.messages({topic}):
        first, last = first or raw, raw
    if first is None or last is None:
        raise BagError(f"{bag.path}: no picture on {topic} can be read")
    return from_msg.stamp_ns(deserialize(first).header.stamp), from_msg.stamp_ns(deserialize(last).header.stamp)


def main(argv: Sequence[str] | None = None) -> int:
    """``emo bag export``; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return _export(arguments)
    except (BagError, DatasetError) as error:
        print(f"emo bag export: {error}", file=sys.stderr)
    except OSError as error:
        print(f"emo bag export: {error.filename or arguments.out}: {error.strerror}", file=sys.stderr)
    return EXIT_CONFIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emo bag export", description=(__doc__ or "").replace("``", ""),
        epilog="exit code: 0 all well, 1 something could not be used, 2 wrong usage, 78 nothing could be done",
    )  # fmt: skip
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="folder, or one .mcap or .db3 file")
    parser.add_argument("--to", choices=tuple(VOCABULARY), required=True, help="mafw: captioned clips; meld: dialogues")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument("--by", choices=WAYS, default="auto", help="where to cut, for mafw (default: what the bag has)")
    parser.add_argument(
        "--results", type=Path, action="append", default=[], metavar="DIR",
        help="utterances and captions of 'emo bag process' instead of the bag's own; one per bag, in their order",
    )  # fmt: skip
    parser.add_argument(
        "--test", type=Path, action="append", default=[], metavar="BAG", help="a recording for the test part"
    )
    parser.add_argument("--draft", action="store_true", help="take what the networks said as annotation, to begin with")
    parser.add_argument("--stride-s", type=_seconds, default=DEFAULT_STRIDE_S, metavar="S", help="step (%(default)s)")
    parser.add_argument("--max-s", type=_seconds, default=DEFAULT_MAX_S, metavar="S", help="longest clip (%(default)s)")
    parser.add_argument(
        "--gap-s", type=_seconds, default=DEFAULT_GAP_S, metavar="S", help="silence that ends a dialogue"
    )
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="needed where a bag has several cameras")
    parser.add_argument("--audio-topic", default="", metavar="TOPIC", help="needed where a bag has several microphones")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the sheets")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text}")
    return value


def _export(arguments: argparse.Namespace) -> int:
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise BagError(f"{arguments.out} is not empty: choose another folder, or move it away")
    recordings = [*((bag, "train") for bag in arguments.bags), *((bag, "test") for bag in arguments.test)]
    if arguments.results and len(arguments.results) != len(recordings):
        raise BagError(
            f"--results: expected one folder per recording ({len(recordings)}), got {len(arguments.results)}"
        )
    export = Export(arguments)
    for number, (bag, split) in enumerate(recordings):
        export.add(bag.expanduser(), split, arguments.results[number] if arguments.results else None)
    items = export.items
    if not any(item.clip for item in items):
        raise BagError(f"no clips: none of {len(recordings)} recordings has a picture where it would be cut")
    drafts = items if arguments.draft else [replace(item, emotion="", text="") for item in items]
    write_list(drafts, arguments.out)
    write_layout(drafts, arguments.out)
    write_sheets(items, arguments.out, arguments.seed)
    print(_summary(items, arguments.out))
    for trouble, number in export.troubles.items():
        print(f"emo bag export: {trouble}" + (f" ({number})" if number > 1 else ""), file=sys.stderr)
    return EXIT_INCOMPLETE if export.troubles else 0


def _summary(items: Sequence[Item], out: Path) -> str:
    clips = [item for item in items if item.clip]
    length_s = sum(item.end_ns - item.start_ns for item in clips) / NS_PER_S
    recordings = len({item.recording for item in items})
    dialogues = len({(item.split, item.dialogue) for item in items})
    what = f"{dialogues} dialogues, " if items[0].layout == "meld" else ""
    return (
        f"{len(clips)} clips ({length_s:.1f} s) of {recordings} recordings, {what}in {out}; listed in {LIST}\n"
        f"sheets for two annotators: {out / SHEETS[0]}, {out / SHEETS[1]}\n"
        f"then: emo data agree SHEET SHEET --model FOLDER --out agreed.csv, and emo data label {out} agreed.csv"
    )


if __name__ == "__main__":
    sys.exit(main())
