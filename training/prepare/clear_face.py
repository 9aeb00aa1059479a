"""Which clips show a face clearly: EmVidCap's filter, whose own list of 526 clips was never published.

A clip is *clear* when, of the images looked at (two a second), at least a share shows exactly one face that is at least
so large. Smaller faces, of people far behind, do not count. Faces are found by the run-time detector. What was measured
is kept, so that share and size can be changed without looking again; the list of ids that comes out holds no data of the
data set and may be published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from emo_perception.config import FaceConfig
from emo_perception.sources.shaping import RateLimiter
from emo_perception.stages.detectors import Detector, make_detector
from training.datasets.record import Record
from training.prepare.faces import detector_version
from training.prepare.ledger import Ledger
from training.prepare.pool import Failure, results
from training.prepare.video import Video

#: Images looked at, per second.
RATE_HZ: Final = 2.0
#: ECPA took so many of EmVidCap, 362 to train and 164 to test, by a rule that it does not tell.
PAPER: Final = {"train": 362, "test": 164}


class FaceListError(ValueError):
    """A list of ids that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class ClearFace:
    """The rule. ``size``: least side of a face, of the image's shorter edge; ``share``: least share of such images."""

    size: float = 0.15
    share: float = 0.8

    def __post_init__(self) -> None:
        for name in ("size", "share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a value above 0 and up to 1, got {getattr(self, name)}")

    def measure(self, faces: Iterable[Iterable[float]]) -> float:
        """Share of the images that show exactly one large face; ``faces``: relative sizes in each image."""
        images = [sum(one >= self.size for one in image) for image in faces]
        return sum(count == 1 for count in images) / len(images) if images else 0.0

    def holds(self, faces: Iterable[Iterable[float]]) -> bool:
        """Whether a clip is clear."""
        return self.measure(faces) >= self.share


@dataclass
class LookWork:
    """Record -> relative sizes of the faces in each image looked at."""

    config: FaceConfig = field(default_factory=FaceConfig)
    _detector: Detector | None = field(default=None, init=False)

    def __call__(self, record: Record) -> list[list[float]]:
        if self._detector is None:
            self._detector = make_detector(self.config.detector, self.config.threads)
        limiter = RateLimiter(RATE_HZ)
        seen: list[list[float]] = []
        with closing(Video.of(record).frames()) as frames:
            for frame in frames:
                if limiter.keep(frame.stamp_ns):
                    found = self._detector(frame.image, self.config.detect_width)
                    sure = found[found[:, 4] >= self.config.detect_confidence, 2:4].min(1)
                    seen.append([round(float(side) / min(frame.image.shape[:2]), 4) for side in sure])
        return seen

    def close(self) -> None:
        if self._detector is not None:
            self._detector.close()


def look(
    records: Iterable[Record],
    file: Path,
    *,
    config: FaceConfig | None = None,
    workers: int = 1,
    progress: Callable[[], None] | None = None,
) -> tuple[dict[str, list[list[float]]], dict[str, str]]:
    """Look at every clip that there is, noting each in ``file`` as it is done: clip id -> sizes, and clip id -> failure.

    Run again, it goes on. Raises :class:`training.prepare.store.StoreError` where the file cannot be used or written.
    """
    config = config or FaceConfig()
    wanted = {record.clip_id: record for record in records if record.source is not None}
    with closing(make_detector(config.detector, config.threads)) as detector:
        producer = {
            "detector": detector_version(detector), "width": str(config.detect_width), "rate_hz": str(RATE_HZ),
            "confidence": str(config.detect_confidence),
        }  # fmt: skip
    with Ledger(file, producer) as ledger:
        missing = [wanted[clip_id] for clip_id in ledger.missing(wanted)]
        for record, result in results(missing, partial(LookWork, config), workers):
            ledger.note(
                record.clip_id, {"failure": result.reason} if isinstance(result, Failure) else {"faces": result}
            )
            if progress is not None:
                progress()
        entries = {clip_id: ledger.get(clip_id) for clip_id in wanted}
    seen = {clip_id: entry["faces"] for clip_id, entry in entries.items() if "faces" in entry}
    return seen, {clip_id: entry["failure"] for clip_id, entry in entries.items() if "failure" in entry}


def clear_ids(seen: Mapping[str, list[list[float]]], rule: ClearFace) -> list[str]:
    """The clips that are clear, sorted."""
    return sorted(clip_id for clip_id, faces in seen.items() if rule.holds(faces))


def write_ids(ids: Iterable[str], file: Path, about: Mapping[str, str]) -> None:
    """One id a line, below comments that tell how the list was made."""
    head = [f"# {key}: {value}\n" for key, value in about.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join([*head, *(f"{clip_id}\n" for clip_id in ids)]), encoding="utf-8")


def read_ids(file: Path) -> frozenset[str]:
    """The ids of such a file. Raises :class:`FaceListError` when it is not there or names none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise FaceListError(f"{file}: {error.strerror}; make the list with: emo data clear-face") from None
    ids = frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not ids:
        raise FaceListError(f"{file} names no clip: expected one id a line")
    return ids


def only(records: Iterable[Record], ids: frozenset[str]) -> tuple[Record, ...]:
    """The records of a list. Raises :class:`FaceListError` naming ids that are not there."""
    records = tuple(records)
    lost = sorted(ids - {record.clip_id for record in records})
    if lost:
        raise FaceListError(
            f"{len(lost):,} ids of the list are no clips here, as {', '.join(lost[:3])}: another data set?"
        )
    return tuple(record for record in records if record.clip_id in ids)
