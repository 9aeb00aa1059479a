"""All clips of a data set into a feature store, in as many processes as asked for; what cannot be read is set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from training.datasets.quarantine import write_quarantine
from training.datasets.record import QuarantinedRow, Record, unique
from training.prepare.clips import ClipForm, prepare_clip
from training.prepare.faces import FaceFinder, MakeFinder
from training.prepare.pool import Failure, results
from training.prepare.store import FeatureStore
from training.prepare.video import Video

QUARANTINE: Final = "quarantine.jsonl"


class Videos(Protocol):
    """What is to be seen of a record: :class:`OwnVideos`, or ``cumulative.CumulativeVideos``. Picklable."""

    @property
    def producer(self) -> Mapping[str, str]:
        """What the feature store must know of it."""

    def has(self, record: Record) -> bool:
        """Whether there is a video at all."""

    def __call__(self, record: Record) -> Video:
        """The video. Raises :class:`training.prepare.video.UnreadableVideo`."""


class OwnVideos:
    """The record's own clip."""

    @property
    def producer(self) -> Mapping[str, str]:
        return {}

    def has(self, record: Record) -> bool:
        return record.source is not None

    def __call__(self, record: Record) -> Video:
        return Video.of(record)


@dataclass(frozen=True)
class Prepared:
    """What came of a run. ``already``: clips that were there before; ``without_video``: records that have no clip."""

    done: int = 0
    already: int = 0
    without_video: int = 0
    quarantined: tuple[QuarantinedRow, ...] = ()


@dataclass
class ClipWork:
    """Prepares one record after another; see :func:`training.prepare.clips.prepare_clip`."""

    form: ClipForm
    make_finder: MakeFinder
    videos: Videos = field(default_factory=OwnVideos)
    _finder: FaceFinder | None = field(default=None, init=False)

    def __call__(self, record: Record) -> Mapping[str, NDArray[Any]]:
        if self._finder is None:
            self._finder = self.make_finder()
        clip = prepare_clip(record, **asdict(self.form), faces=self._finder, video=self.videos(record))
        return clip.arrays()

    def close(self) -> None:
        if self._finder is not None:
            self._finder.close()


def prepare_clips(
    records: Iterable[Record],
    store: FeatureStore,
    form: ClipForm,
    make_finder: MakeFinder,
    *,
    workers: int = 1,
    videos: Videos | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Put every clip that ``store`` does not have yet into it; its producer must be ``form.producer(finder)``.

    Records without video are passed over. A clip that cannot be read goes into ``quarantine.jsonl`` in the store's
    folder with the reason, and is tried again at the next run. ``progress`` gets the counts after each clip.

    Raises:
        ValueError: a clip id that occurs twice.
        StoreFull: no room; all that is done is kept.
        MissingWeights, EngineError: from the face stage.

    """
    records = list(records)
    videos = videos or OwnVideos()
    wanted = {clip_id: record for clip_id, record in unique(records).items() if videos.has(record)}
    missing = store.missing(wanted)
    done, quarantined = 0, []
    with store:
        make = partial(ClipWork, form, make_finder, videos)
        for record, result in results([wanted[clip_id] for clip_id in missing], make, workers):
            if isinstance(result, Failure):
                quarantined.append(_row(record, result))
            else:
                store.put(record.clip_id, result)
                done += 1
            if progress is not None:
                progress(done, len(quarantined))
    quarantined.sort(key=lambda row: (row.file, row.row))
    write_quarantine(quarantined, store.folder / QUARANTINE)
    return Prepared(done, len(wanted) - len(missing), len(records) - len(wanted), tuple(quarantined))


def _row(record: Record, failure: Failure) -> QuarantinedRow:
    return QuarantinedRow(
        "" if record.source is None else record.source.file.name, record.clip_id, "unreadable-video", failure.reason
    )
