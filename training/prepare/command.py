"""Actions of ``emo data`` that prepare: ``prepare``, ``cumulative``, ``transcribe``, ``split``, ``clear-face``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emo_models.engines import EngineError, catalogue
from emo_models.engines.threads import usable_cores
from emo_models.weights import WeightsError, cache_dir
from training.datasets.record import SPLITS, Dataset, DatasetError, Record

if TYPE_CHECKING:
    from training.prepare.clips import ClipForm
    from training.prepare.faces import FaceFinder, MakeFinder
    from training.prepare.run import Videos

AddSource = Callable[[argparse.ArgumentParser], None]
Read = Callable[[argparse.Namespace], Dataset]

EXIT_INCOMPLETE = 1
#: What each paper's network looks at. ECPA: 8 images; FAME-Net: the grid of the running graph, at CLIP's size.
FORMS: Final[dict[str, dict[str, Any]]] = {
    "ecpa": {},
    "fame": {
        "frames": 100, "image_size": 336, "face_size": 112, "sampling": "dyadic", "kernel": "bicubic",
        "alignment": catalogue.part("ddamfn").alignment,
    },
}  # fmt: skip
NEEDED: Final = ("safetensors", "tqdm", "torch")


def add_actions(actions: Any, add_source: AddSource, read: Read) -> None:
    """Add the subparsers; ``add_source`` adds NAME and PATH, ``read`` reads what they name."""
    for add in (_add_prepare, _add_cumulative, _add_transcribe, _add_split, _add_clear_face):
        parser, run = add(actions, add_source)
        parser.set_defaults(run=partial(_guarded, run, read))


def _guarded(run: Callable[[argparse.Namespace, Read], int], read: Read, arguments: argparse.Namespace) -> int:
    """Whatever the user can mend becomes a :class:`DatasetError`, whose message the command prints."""
    from training.prepare.clear_face import FaceListError
    from training.prepare.errors import StoreError
    from training.prepare.pool import PoolError
    from training.prepare.splits import SplitError
    from training.prepare.video import UnreadableVideo

    try:
        return run(arguments, read)
    except (StoreError, SplitError, FaceListError, UnreadableVideo, PoolError, WeightsError, EngineError) as error:
        raise DatasetError(str(error)) from None
    except OSError as error:
        raise DatasetError(f"{error.filename or arguments.out}: {error.strerror or error}") from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDED:
            raise
        raise DatasetError(f"this needs the package {error.name!r}; in the checkout, type: make train") from None


def _add_prepare(actions: Any, add_source: AddSource) -> tuple[argparse.ArgumentParser, Any]:
    parser = actions.add_parser("prepare", help="clips and faces into a feature store, which training reads")
    add_source(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="folder of feature stores (default: features, beside the weights); each data set and form has its own",
    )  # fmt: skip
    parser.add_argument("--form", choices=sorted(FORMS), default="ecpa", help="whose clips (default: %(default)s)")
    parser.add_argument("--frames", type=int, metavar="T", help="images of a clip")
    parser.add_argument("--image-size", type=int, metavar="PX", help="their short edge")
    parser.add_argument("--face-size", type=int, metavar="PX", help="side of a face")
    parser.add_argument("--sampling", help="uniform, middle or dyadic")
    parser.add_argument("--kernel", help="bilinear or bicubic")
    parser.add_argument("--alignment", help="arcface or poses")
    parser.add_argument(
        "--faces", choices=("stage", "truth"), default="stage", help="found as at run time, or known (a toy world's)"
    )
    parser.add_argument("--whole-width", action="store_true", help="no crop to a square (for random crops in training)")
    parser.add_argument(
        "--cumulative",
        type=Path,
        metavar="MELD",
        help="ECEM: clips from the dialogue's beginning, out of MELD's folder",
    )
    _add_choice(parser)
    _add_workers(parser)
    return parser, _prepare


def _add_cumulative(actions: Any, add_source: AddSource) -> tuple[argparse.ArgumentParser, Any]:
    parser = actions.add_parser("cumulative", help="write ECEM's cumulative clips as videos, out of MELD")
    add_source(parser)
    parser.add_argument("--meld", type=Path, required=True, metavar="DIR", help="MELD's folder, with its clips")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the clips: ECEM's own, videos"
    )
    parser.add_argument("--plan-only", action="store_true", help="only cumulative.jsonl: which part of which file")
    _add_choice(parser)
    _add_workers(parser)
    return parser, _cumulative


def _add_transcribe(actions: Any, add_source: AddSource) -> tuple[argparse.ArgumentParser, Any]:
    parser = actions.add_parser("transcribe", help="what speech recognition hears in each clip, beside the given text")
    add_source(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="transcripts, one JSON object a line")
    parser.add_argument(
        "--model", default="tiny.en", help="as speech.model: tiny.en or a folder (default: %(default)s)"
    )
    parser.add_argument("--language", default="en", metavar="XX", help="ISO 639-1 (default: %(default)s)")
    _add_choice(parser)
    _add_workers(parser)
    return parser, _transcribe


def _add_split(actions: Any, add_source: AddSource) -> tuple[argparse.ArgumentParser, Any]:
    parser = actions.add_parser("split", help="deal records out to train, val and test, by seed, and check for leakage")
    add_source(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the split, ids alone")
    parser.add_argument(
        "--kind", choices=("dialogue_disjoint", "paper_like"), default="dialogue_disjoint", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--shares", type=float, nargs=3, default=(0.8, 0.1, 0.1), metavar="X", help="train, val, test (0.8 0.1 0.1)"
    )
    parser.add_argument("--allow-leakage", action="store_true", help="dialogues may be in training and in test")
    return parser, _split


def _add_clear_face(actions: Any, add_source: AddSource) -> tuple[argparse.ArgumentParser, Any]:
    parser = actions.add_parser("clear-face", help="ids of the clips that show one face clearly (EmVidCap's filter)")
    add_source(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the ids; what was seen goes beside it")
    parser.add_argument("--size", type=float, default=0.15, metavar="X", help="of the shorter edge (%(default)s)")
    parser.add_argument("--share", type=float, default=0.8, metavar="X", help="of the images (%(default)s)")
    _add_choice(parser)
    _add_workers(parser)
    return parser, _clear_face


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", action="append", choices=SPLITS, default=[], help="only this part; repeatable")
    parser.add_argument("--ids", type=Path, metavar="FILE", help="only these clips, one id a line")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N clips, for a trial")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    cores = max(1, int(usable_cores()))
    parser.add_argument("--workers", type=int, default=cores, metavar="N", help="processes (default: %(default)s)")


def _records(arguments: argparse.Namespace, read: Read) -> tuple[Record, ...]:
    """The records that were asked for."""
    records: Sequence[Record] = read(arguments).records
    if arguments.part:
        records = [record for record in records if record.split in arguments.part]
    if arguments.ids:
        from training.prepare.clear_face import only, read_ids

        records = only(records, read_ids(arguments.ids))
    if not records:
        raise DatasetError("nothing to do: there is no such clip; emo data check tells what there is")
    return tuple(records[: arguments.limit])


@contextmanager
def _bar(total: int, what: str, already: int = 0) -> Iterator[Any]:
    """A progress bar; without a terminal, none."""
    from tqdm import tqdm

    with tqdm(total=total, initial=already, desc=what, unit="clip", dynamic_ncols=True, disable=None) as bar:
        yield bar


def _prepare(arguments: argparse.Namespace, read: Read) -> int:
    from training.prepare.clips import ClipForm
    from training.prepare.run import QUARANTINE, OwnVideos, prepare_clips
    from training.prepare.store import FeatureStore, store_folder

    given = {
        name: getattr(arguments, name)
        for name in ("frames", "image_size", "face_size", "sampling", "kernel", "alignment")
        if getattr(arguments, name) is not None
    }
    try:
        form = ClipForm(**{**FORMS[arguments.form], **given, "crop": not arguments.whole_width})
    except ValueError as error:
        raise DatasetError(str(error)) from None
    records = _records(arguments, read)
    videos = OwnVideos() if arguments.cumulative is None else _cumulative_videos(arguments.cumulative)
    make = _faces(arguments)
    producer = _producer(form, make, videos)
    store = FeatureStore(store_folder(_features(arguments), "clips", producer), producer)
    began = time.monotonic()
    wanted = [record.clip_id for record in records if videos.has(record)]
    with _bar(len(wanted), "prepare", len(wanted) - len(store.missing(wanted))) as bar:

        def progress(done: int, quarantined: int) -> None:
            bar.set_postfix(done=done, quarantined=quarantined, refresh=False)
            bar.update()

        found = prepare_clips(records, store, form, make, workers=arguments.workers, videos=videos, progress=progress)
    rate = f" ({found.done / (time.monotonic() - began):.2f} a second)" if found.done else ""
    print(
        f"{store.folder}: {len(store):,} clips; {found.done:,} prepared now{rate}, {found.already:,} before, {len(found.quarantined):,} set aside, {found.without_video:,} without video"
    )
    if found.quarantined:
        print(f"emo data prepare: why clips were set aside: {store.folder / QUARANTINE}", file=sys.stderr)
    return EXIT_INCOMPLETE if found.quarantined or found.without_video else 0


def _features(arguments: argparse.Namespace) -> Path:
    """Where training looks for the features of a data set, too."""
    root: Path = arguments.out or cache_dir() / "features"
    return root.expanduser() / str(arguments.name)


def _faces(arguments: argparse.Namespace) -> MakeFinder:
    if arguments.faces == "stage":
        return partial(_stage_faces, 1 if arguments.workers > 1 else 0)
    from training.prepare.truth import truth_faces

    return truth_faces(arguments.path.expanduser())


def _stage_faces(threads: int) -> FaceFinder:
    from emo_perception.config import FaceConfig
    from training.prepare.faces import StageFaces

    return StageFaces(FaceConfig(threads=threads))


def _producer(form: ClipForm, make: MakeFinder, videos: Videos) -> dict[str, str]:
    """Loads the face stage once: missing weights are told before anything else is done."""
    finder = make()
    try:
        return {**form.producer(finder), **videos.producer}
    finally:
        finder.close()


def _cumulative_videos(folder: Path) -> Any:
    from training.datasets import read_dataset
    from training.prepare.cumulative import CumulativeVideos, pieces

    found = pieces(read_dataset("meld", folder).records)
    if not found:
        raise DatasetError(f"{folder}: MELD's tables name no clip that is there; emo data check meld {folder}")
    return CumulativeVideos(found)


def _cumulative(arguments: argparse.Namespace, read: Read) -> int:
    from training.prepare.rebuild import rebuild

    records = _records(arguments, read)
    videos = _cumulative_videos(arguments.meld)
    wanted = [record for record in records if videos.has(record)]
    with _bar(len(wanted), "cumulative") as bar:
        made, failed = rebuild(
            wanted, videos, arguments.out, write=not arguments.plan_only, workers=arguments.workers, progress=bar.update
        )
    absent = len(records) - len(wanted)
    lacking = sum(bool(plan["lacking"]) for plan in made)
    overlap_s, repeated_s = (sum(plan[name] for plan in made) for name in ("overlap_s", "repeated_s"))
    print(
        f"{arguments.out}: {len(made):,} clips; {overlap_s:.0f} s cut by time stamps, {repeated_s:.0f} s that came again; "
        f"{lacking:,} lack an earlier utterance, {absent:,} have no clip in MELD's folder, {len(failed):,} failed"
    )
    for clip_id, reason in sorted(failed.items())[:5]:
        print(f"emo data cumulative: {clip_id}: {reason}", file=sys.stderr)
    return EXIT_INCOMPLETE if absent or failed else 0


def _transcribe(arguments: argparse.Namespace, read: Read) -> int:
    from training.prepare.transcribe import summary, transcribe

    records = [record for record in _records(arguments, read) if record.source and record.dialogue]
    if not records:
        raise DatasetError(f"{arguments.name}: no clip in which somebody speaks; emo data check tells what is missing")
    with _bar(len(records), "transcribe") as bar:
        found = transcribe(
            records, arguments.out, model=arguments.model, language=arguments.language, workers=arguments.workers,
            progress=bar.update,
        )  # fmt: skip
    print(f"{arguments.out}: {summary(list(found.values()))}")
    return 0


def _split(arguments: argparse.Namespace, read: Read) -> int:
    from training.prepare.splits import KINDS

    records = read(arguments).records
    split = KINDS[arguments.kind](records, arguments.seed, arguments.shares)
    divided = split.apply(records, allow_leakage=arguments.allow_leakage)
    split.write(arguments.out)
    sizes = Counter(record.split for record in divided)
    print(f"{arguments.out}: " + ", ".join(f"{part} {sizes[part]:,}" for part in SPLITS))
    return 0


def _clear_face(arguments: argparse.Namespace, read: Read) -> int:
    from training.prepare.clear_face import PAPER, ClearFace, clear_ids, look, write_ids

    try:
        rule = ClearFace(arguments.size, arguments.share)
    except ValueError as error:
        raise DatasetError(str(error)) from None
    records = _records(arguments, read)
    with _bar(sum(record.source is not None for record in records), "clear-face") as bar:
        seen, failed = look(
            records, arguments.out.with_suffix(".faces.jsonl"), workers=arguments.workers, progress=bar.update
        )
    ids = clear_ids(seen, rule)
    about = {"data set": arguments.name, "size": str(rule.size), "share": str(rule.share), "looked at": str(len(seen))}
    write_ids(ids, arguments.out, about)
    parts = Counter(record.split for record in records if record.clip_id in set(ids))
    told = ", ".join(f"{part} {parts[part]:,}" for part in SPLITS if parts[part])
    print(
        f"{arguments.out}: {len(ids):,} of {len(seen):,} clips are clear ({told or 'none'}); {len(failed):,} unreadable"
    )
    if arguments.name == "emvidcap":
        print(f"ECPA's paper chose {PAPER['train']} to train and {PAPER['test']} to test, by a rule it does not tell")
    return EXIT_INCOMPLETE if failed or len(seen) < len(records) else 0
