"""Splits by seed, and the check that nothing of the test is in the training.

``paper_like`` deals out single utterances, as ECEM seems to have been split: its published 80 % hold utterances of
nearly every dialogue. Since its clips are cumulative, most of a test clip is then in training too. ``dialogue_disjoint``
deals out whole dialogues. The order comes from a hash of seed and id, so the same records give the same split on every
machine, in whatever order they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from training.datasets.record import SPLITS, Record, unique

#: Parts of train, val and test. ECEM's published train file is 80 % of what its paper counts.
SHARES: Final = (0.8, 0.1, 0.1)


class SplitError(ValueError):
    """A split that cannot be made or does not fit the records; the message says what to do."""


class LeakageError(SplitError):
    """Training has seen what is to be tested."""


@dataclass(frozen=True)
class Leakage:
    """What two sets share: ids of dialogues, of clips, and how many of the ``tested`` dialogues there are."""

    dialogues: tuple[str, ...]
    clips: tuple[str, ...]
    tested: int

    def __bool__(self) -> bool:
        return bool(self.dialogues or self.clips)

    def __str__(self) -> str:
        part = f" ({len(self.dialogues) / self.tested:.0%})" if self.tested else ""
        told = f"{len(self.dialogues):,} of {self.tested:,} dialogues{part} to be tested are in training too"
        if self.dialogues:
            told += f", as {', '.join(self.dialogues[:3])}"
        return told + (f", and {len(self.clips):,} clips, as {', '.join(self.clips[:3])}" if self.clips else "")


@dataclass(frozen=True)
class Split:
    """Which clip is in which part. ``parts``: train, val, test -> clip ids, sorted."""

    dataset: str
    kind: str
    seed: int
    parts: Mapping[str, tuple[str, ...]]

    def apply(self, records: Iterable[Record], *, allow_leakage: bool = False) -> tuple[Record, ...]:
        """The records with their parts as ``split``; those that the split does not name are left out.

        Raises :class:`SplitError` when it names clips that are not there, and as :func:`check_leakage`.
        """
        known = unique(list(records))
        part_of = {clip_id: part for part, ids in self.parts.items() for clip_id in ids}
        lost = sorted(part_of.keys() - known.keys())
        if lost:
            raise SplitError(
                f"the split names {len(lost):,} clips of {self.dataset} that are not here, as {', '.join(lost[:3])}: was "
                "it made with other options of the reader? make it again with: emo data split"
            )
        divided = tuple(replace(known[clip_id], split=part_of[clip_id]) for clip_id in known if clip_id in part_of)
        check_leakage(divided, allow=allow_leakage)
        return divided

    def write(self, file: Path) -> None:
        """As JSON; :func:`read_split` reads it. It holds ids alone, so it may be published."""
        values = {"dataset": self.dataset, "kind": self.kind, "seed": self.seed, "parts": dict(self.parts)}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_split(file: Path) -> Split:
    """Raises :class:`SplitError` for a file that is none."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        parts = {part: tuple(map(str, values["parts"][part])) for part in SPLITS}
        return Split(str(values["dataset"]), str(values["kind"]), int(values["seed"]), parts)
    except OSError as error:
        raise SplitError(f"{file}: {error.strerror}; make a split with: emo data split") from None
    except (ValueError, KeyError, TypeError):
        raise SplitError(f"{file} is no split file: expected what 'emo data split' writes") from None


def paper_like(records: Sequence[Record], seed: int, shares: Sequence[float] = SHARES) -> Split:
    """Single clips dealt out: dialogues are in several parts at once. Raises :class:`SplitError` for wrong shares."""
    return _dealt(records, "paper_like", seed, shares, lambda record: record.clip_id)


def dialogue_disjoint(records: Sequence[Record], seed: int, shares: Sequence[float] = SHARES) -> Split:
    """Whole dialogues dealt out. Raises :class:`SplitError` for wrong shares and for too few dialogues."""
    return _dealt(records, "dialogue_disjoint", seed, shares, group_of)


#: Name -> how records are divided.
KINDS: Final[dict[str, Callable[[Sequence[Record], int, Sequence[float]], Split]]] = {
    "dialogue_disjoint": dialogue_disjoint,
    "paper_like": paper_like,
}


def group_of(record: Record) -> str:
    """What must not be on both sides: the dialogue, or the clip where there is none."""
    return record.clip_id if record.dialogue is None else record.dialogue.dialogue_id


def leakage(train: Iterable[Record], test: Iterable[Record]) -> Leakage:
    """What of ``test`` is in ``train``; also between data sets, for the dialogues of MELD, ECEM and ECF have one name."""
    seen, tested = list(train), list(test)
    dialogues = {record.dialogue.dialogue_id for record in tested if record.dialogue is not None}
    shared = dialogues & {record.dialogue.dialogue_id for record in seen if record.dialogue is not None}
    clips = {record.clip_id for record in tested} & {record.clip_id for record in seen}
    return Leakage(tuple(sorted(shared)), tuple(sorted(clips)), len(dialogues))


def check_leakage(records: Iterable[Record], *, allow: bool = False) -> Leakage:
    """What the parts val and test share with train. Raises :class:`LeakageError` unless that is nothing, or allowed."""
    records = list(records)
    train = [record for record in records if record.split == "train"]
    found = leakage(train, [record for record in records if record.split != "train"])
    if found and not allow:
        raise LeakageError(
            f"{found}: what is measured would be memory. Use the split dialogue_disjoint, or say that you mean it with "
            "--allow-leakage"
        )
    return found


def _dealt(
    records: Sequence[Record], kind: str, seed: int, shares: Sequence[float], group: Callable[[Record], str]
) -> Split:
    """Deal groups, in the order of their hashes, each to the part that lacks most of its share."""
    if len(shares) != len(SPLITS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise SplitError(f"expected three shares (train, val, test) that sum to 1, got {', '.join(map(str, shares))}")
    groups: dict[str, list[str]] = {}
    for record in unique(records).values():
        groups.setdefault(group(record), []).append(record.clip_id)
    parts: dict[str, list[str]] = {part: [] for part in SPLITS}
    dealt = 0
    for name in sorted(groups, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(), name)):
        dealt += len(groups[name])
        lacking = {part: share * dealt - len(parts[part]) for part, share in zip(SPLITS, shares, strict=True)}
        parts[max(SPLITS, key=lambda part: lacking[part])] += groups[name]
    empty = [part for part, share in zip(SPLITS, shares, strict=True) if share and not parts[part]]
    if empty:
        raise SplitError(
            f"{len(groups)} groups ({kind}) are too few for {', '.join(SPLITS)} with the shares "
            f"{', '.join(map(str, shares))}: {' and '.join(empty)} would be empty"
        )
    names = ", ".join(sorted({record.dataset for record in records}))
    return Split(names, kind, seed, {part: tuple(sorted(ids)) for part, ids in parts.items()})
