"""The memory as one small file that survives a restart, readable by its owner only."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from emo_perception.memory.dialogue import Item
from emo_perception.memory.events import EventKind, VisibleEvent
from emo_perception.types import Utterance

log = logging.getLogger(__name__)

FORMAT: Final = 1
#: A file larger than this was not written by us.
MAX_BYTES: Final = 16 << 20


def state_dir() -> Path:
    """Where programs of this user keep their state (XDG base directories; the platform's own folder elsewhere)."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "emo_perception"


class MemoryFile:
    """Saves and loads items. Stored: times, words, names of speakers, numbers of faces, expressions; no picture, no sound.

    Written beside its place and then renamed, so that a crash leaves the old file or the new one, never half of one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, items: Sequence[Item]) -> None:
        """Replace the file. Raises ``OSError`` where it cannot be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = {"format": FORMAT, "items": [_to_json(item) for item in items]}
        descriptor, name = tempfile.mkstemp(prefix=self.path.name, dir=self.path.parent)  # readable by its owner only
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(document, stream, ensure_ascii=False)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def load(self) -> list[Item]:
        """What was saved; nothing where there is no file. One that cannot be read is set aside, with a warning."""
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise ValueError(f"expected format {FORMAT}, got {document['format']!r}")
            return [_from_json(entry) for entry in document["items"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("%s: the memory cannot be read (%s); starting without", self.path, error.strerror)
            return []
        except (ValueError, KeyError, TypeError) as error:
            aside = self.path.with_name(self.path.name + ".broken")
            self.path.replace(aside)
            log.warning("%s is no memory of ours (%s); set aside as %s", self.path, error, aside.name)
            return []


def _to_json(item: Item) -> dict[str, Any]:
    fields = dataclasses.asdict(item)
    fields.pop("words", None)
    return {"is": "event" if isinstance(item, VisibleEvent) else "utterance", **fields}


#: Type of a field -> what JSON makes of it.
_STORED_AS: Final[dict[str, tuple[type, ...]]] = {"int": (int,), "float": (int, float), "str": (str,)}


def _from_json(entry: dict[str, Any]) -> Item:
    fields = dict(entry)
    kind: type[Item] = {"event": VisibleEvent, "utterance": Utterance}[fields.pop("is")]
    for spec in dataclasses.fields(kind):
        wanted = _STORED_AS.get(str(spec.type))
        if wanted is not None and spec.name in fields and not isinstance(fields[spec.name], wanted):
            raise TypeError(f"{spec.name}: expected {spec.type}, got {fields[spec.name]!r}")
    if kind is VisibleEvent:
        fields["kind"] = EventKind(fields["kind"])
    return kind(**fields)
