"""The TSV form of SwinBERT, in and out: any captioned set in it can be read, and any of ours can be given to its tools.

``{split}.yaml`` names ``{split}.img.tsv`` (id, file, and for a stretch of a file start and end in seconds),
``{split}.label.tsv`` and ``{split}.caption.tsv`` (id, JSON list of ``{"caption": ...}``; labels may add ``"emotion"``),
``{split}.caption.linelist.tsv`` (number of the clip, number of its caption) and ``{split}.caption_coco_format.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from emo_models.labels import VOCABULARIES
from training.datasets.encodings import decode
from training.datasets.files import NO_VIDEO, lines, needed, read_bytes
from training.datasets.quarantine import Findings
from training.datasets.record import Dataset, DatasetError, Record, RecordError, Span, has_words

KEYS: Final = ("img", "label", "caption", "caption_linelist", "caption_coco_format")
SUFFIXES: Final = {
    "img": "img.tsv", "label": "label.tsv", "caption": "caption.tsv", "caption_linelist": "caption.linelist.tsv",
    "caption_coco_format": "caption_coco_format.json",
}  # fmt: skip
#: Beginning of a yaml file's name -> split.
SPLIT_NAMES: Final = {"train": "train", "training": "train", "val": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True)
class SwinBertTsv:
    """Reader. ``vocabulary``: what the emotions of the labels are called in (default: the export writes it)."""

    vocabulary: str = ""
    name = "swinbert"

    def read(self, root: Path) -> Dataset:
        """Records of every ``train*.yaml``, ``val*.yaml`` and ``test*.yaml``. Raises :class:`DatasetError`."""
        if self.vocabulary and self.vocabulary not in VOCABULARIES:
            known = ", ".join(sorted(VOCABULARIES))
            raise DatasetError(f"vocabulary: expected one of {known}; got {self.vocabulary!r}")
        findings = Findings(self.name, root)
        files = [(file, split) for file in sorted(root.glob("*.yaml")) if (split := _split(file))]
        if not files:
            needed(root, "descriptions of splits", "train.yaml", "val.yaml", "test.yaml")
        for file, split in files:
            self._read_split(file, split, findings)
        return findings.dataset()

    def _read_split(self, file: Path, split: str, findings: Findings) -> None:
        named = _description(file)
        paths = {clip: row for _, clip, row in _rows(file.parent / named["img"], findings, 2)}
        emotions = self._labels(file, named, findings)
        listed = _linelist(file, named, findings)
        for number, clip, row in _rows(file.parent / named["caption"], findings, 2):
            at = file.parent / named["caption"]
            with findings.row(at, number):
                captions = [str(entry.get("caption", "")) for entry in _json_list(row[1])]
                wanted = range(len(captions)) if listed is None else listed.pop(number - 1, [])
                _check_linelist(wanted, captions, clip)
                texts = tuple(captions[i].strip() for i in wanted)
                for text in texts:
                    if not has_words(text):
                        findings.refuse(at, number, "no-words", f"expected a caption with words, got {text!r}")
                if clip not in paths:
                    raise RecordError("unknown-clip", f"expected {clip!r} in {named['img']}, it is not there")
                source = _span(paths[clip], file.parent)
                emotion, vocabulary = emotions.get(clip, ("", ""))
                findings.keep(Record(
                    clip, self.name, split, source, tuple(filter(has_words, texts)), (emotion,) if emotion else (),
                    vocabulary, flags=frozenset() if source else NO_VIDEO,
                ))  # fmt: skip
                findings.count(f"{split} captions", len(texts))

    def _labels(self, file: Path, named: Mapping[str, str], findings: Findings) -> dict[str, tuple[str, str]]:
        if "label" not in named or not (file.parent / named["label"]).is_file():
            findings.lack(f"{named.get('label', 'label')} of {file.name} (emotions)")
            return {}
        labels = {}
        for number, clip, row in _rows(file.parent / named["label"], findings, 2):
            with findings.row(file.parent / named["label"], number):
                for entry in _json_list(row[1]):
                    if entry.get("emotion"):
                        vocabulary = self.vocabulary or str(entry.get("vocabulary", ""))
                        if vocabulary not in VOCABULARIES:
                            detail = f"expected the emotion's vocabulary (option vocabulary), got {vocabulary!r}"
                            raise RecordError("missing-value", detail)
                        labels[clip] = (str(entry["emotion"]), vocabulary)
        return labels


def write_swinbert(records: Sequence[Record], out: Path) -> dict[str, int]:
    """Write records with captions and clips in this form; returns split -> number of clips written.

    Raises :class:`DatasetError` when there are none, and when it cannot be written.
    """
    written = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for split in ("train", "val", "test"):
            usable = [r for r in records if r.split == split and r.captions and r.source is not None]
            if usable:
                _write_split(usable, split, out)
                written[split] = len(usable)
    except OSError as error:
        raise DatasetError(f"{error.filename or out}: cannot be written: {error.strerror}") from None
    if not written:
        raise DatasetError(f"expected records with a caption and a clip, none of {len(records):,} has both")
    return written


def _write_split(records: Sequence[Record], split: str, out: Path) -> None:
    captions = [(r.clip_id, [{"caption": text} for text in r.captions]) for r in records]
    labels = [(r.clip_id, [_label(r)]) for r in records]
    pairs = [(i, j) for i, (_, texts) in enumerate(captions) for j in range(len(texts))]
    coco = {
        "annotations": [
            {"image_id": records[i].clip_id, "caption": records[i].captions[j], "id": n} for n, (i, j) in enumerate(pairs)
        ],
        "images": [{"id": r.clip_id, "file_name": r.clip_id} for r in records],
        "type": "captions", "info": "", "licenses": "",
    }  # fmt: skip
    content = {
        "img": "".join(_tsv(r.clip_id, *_place(r.source)) for r in records if r.source),
        "label": "".join(_tsv(clip, json.dumps(values, ensure_ascii=False)) for clip, values in labels),
        "caption": "".join(_tsv(clip, json.dumps(values, ensure_ascii=False)) for clip, values in captions),
        "caption_linelist": "".join(_tsv(str(i), str(j)) for i, j in pairs),
        "caption_coco_format": json.dumps(coco, ensure_ascii=False),
    }
    named = {key: f"{split}.{SUFFIXES[key]}" for key in KEYS}
    for key, name in named.items():
        (out / name).write_text(content[key], encoding="utf-8")
    (out / f"{split}.yaml").write_text(yaml.safe_dump(named, sort_keys=False), encoding="utf-8")


def _label(record: Record) -> dict[str, str]:
    return {"emotion": record.emotions[0], "vocabulary": record.vocabulary} if len(record.emotions) == 1 else {}


def _place(span: Span) -> list[str]:
    path = str(span.file.expanduser().absolute())
    whole = span.start_s == 0 and span.end_s is None
    return [path] if whole else [path, f"{span.start_s:g}", "" if span.end_s is None else f"{span.end_s:g}"]


def _tsv(*cells: str) -> str:
    broken = [cell for cell in cells if "\t" in cell or "\n" in cell]
    if broken:
        raise DatasetError(f"expected cells without tabs and line ends, got {broken[0]!r}")
    return "\t".join(cells) + "\n"


def _split(file: Path) -> str:
    return SPLIT_NAMES.get(file.stem.partition("_")[0].partition(".")[0], "")


def _description(file: Path) -> dict[str, str]:
    try:
        named = yaml.safe_load(decode(read_bytes(file)))
    except (yaml.YAMLError, RecordError) as error:
        raise DatasetError(f"{file}: expected YAML with the keys {', '.join(KEYS)}: {error}") from None
    missing = [key for key in ("img", "caption") if not isinstance(named, dict) or not named.get(key)]
    if missing:
        raise DatasetError(f"{file}: expected the keys {', '.join(KEYS)}; without {', '.join(missing)}")
    if named.get("preextracted_frames"):
        raise DatasetError(
            f"{file}: holds frames instead of videos; name the videos in its img file and remove that key"
        )
    for key in ("img", "caption"):
        if not (file.parent / named[key]).is_file():
            raise DatasetError(f"{file}: {key}: expected the file {named[key]} beside it, there is none")
    return {str(key): str(value) for key, value in named.items() if value}


def _rows(file: Path, findings: Findings, columns: int) -> Iterator[tuple[int, str, list[str]]]:
    for number, raw in lines(file, findings):
        with findings.row(file, number):
            row = [cell.strip() for cell in decode(raw).split("\t")]
            if len(row) < columns:
                raise RecordError("wrong-fields", f"expected {columns} or more cells, got {len(row)}")
            yield number, row[0], row


def _json_list(text: str) -> list[dict[str, Any]]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError("unknown-form", f"expected a JSON list, got {text[:40]!r} ({error.msg})") from None
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise RecordError("unknown-form", f"expected a list of objects, got {text[:40]!r}")
    return values


def _linelist(file: Path, named: Mapping[str, str], findings: Findings) -> dict[int, list[int]] | None:
    """Number of the clip -> numbers of its captions; None where there is no such file: all captions count."""
    at = file.parent / named.get("caption_linelist", "")
    if "caption_linelist" not in named or not at.is_file():
        return None
    listed: dict[int, list[int]] = {}
    for number, _, row in _rows(at, findings, 2):
        with findings.row(at, number):
            if not (row[0].isdecimal() and row[1].isdecimal()):
                raise RecordError("bad-number", f"expected two numbers, got {row[0]!r} and {row[1]!r}")
            listed.setdefault(int(row[0]), []).append(int(row[1]))
    return listed


def _check_linelist(wanted: Sequence[int], captions: Sequence[str], clip: str) -> None:
    if wanted and max(wanted) >= len(captions):
        raise RecordError("unknown-clip", f"the linelist names caption {max(wanted)} of {clip}, it has {len(captions)}")


def _span(row: Sequence[str], folder: Path) -> Span | None:
    path = Path(row[1])
    tried = [path] if path.is_absolute() else [parent / path for parent in (folder, *folder.absolute().parents)]
    file = next((candidate for candidate in tried if candidate.is_file()), None)
    if file is None:
        return None
    try:
        start_s, end_s = (float(cell) if cell else None for cell in (*row[2:4], "", "")[:2])
    except ValueError:
        raise RecordError("bad-number", f"expected start and end in seconds, got {' and '.join(row[2:4])!r}") from None
    return Span(file, start_s or 0.0, end_s)
