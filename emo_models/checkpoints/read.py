"""Tensors out of a checkpoint file, whatever its kind, without running any code in it.

The kind is told by the first bytes, never by the name: safetensors, a torch archive (zip), an old torch pickle, or the
JSON index of a checkpoint in several files. Pickles go through ``torch.load(weights_only=True)`` and nothing else.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

Kind = Literal["safetensors", "torch archive", "torch pickle", "index"]

#: No published header comes near this; a larger one is not a safetensors file.
_MAX_HEADER: Final = 100_000_000


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says what was expected, what came, and what to do."""


def read_checkpoint(path: str | Path, wrappers: Sequence[str] = ("state_dict",)) -> tuple[dict[str, Tensor], Kind]:
    """All tensors of a checkpoint, by name, and the kind of file.

    Args:
        path: the file, or the JSON index of a checkpoint in several files beside it.
        wrappers: keys under which the tensors may lie in a pickle; the first that is there is taken.

    Raises:
        CheckpointError: no such file, cut short, not a checkpoint, or a pickle that holds more than tensors.

    """
    path = Path(path)
    kind = file_kind(path)
    if kind == "index":
        return _read_shards(path, wrappers), kind
    try:
        if kind == "safetensors":
            return load_file(path), kind
        with warnings.catch_warnings():
            # That an old file has another pickle protocol than today's is no news; what it holds is checked below.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "torch archive" or None)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds Python objects besides tensors, and loading them would run code of its author. Convert it "
            f"on a machine you can lose to a plain dictionary of tensors, saved as safetensors. ({_first_line(error)})"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is a damaged {kind} file: {_first_line(error)}. "
            "Download it again and compare its size and hash with the publisher's"
        ) from error
    return _tensors(content, path, wrappers), kind


def file_kind(path: Path) -> Kind:
    """Tell the kind of file by its first bytes. Raises :class:`CheckpointError` where it is no checkpoint."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; give the path of a file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if head[:2] == b"PK":
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} ({size:,} bytes) is a torch archive that was cut short; download it again")
        return "torch archive"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch pickle"
    if len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MAX_HEADER:
        return "safetensors"
    if head.lstrip()[:1] == b"{":
        return "index"
    raise CheckpointError(f"{path} ({size:,} bytes) is not a checkpoint: {_what_it_is(head)}")


def _what_it_is(head: bytes) -> str:
    if not head:
        return "it is empty; download it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer; run: git lfs pull"
    if head.lstrip()[:1] == b"<":
        return "it is a web page, so the download led to a form or an error; open the link in a browser"
    return f"it starts with {head[:8]!r}; expected safetensors or a file that torch.save wrote"


def _read_shards(path: Path, wrappers: Sequence[str]) -> dict[str, Tensor]:
    try:
        weight_map = json.loads(path.read_text("utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is JSON, but not the index of a checkpoint: it has no 'weight_map'") from error
    state: dict[str, Tensor] = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{path} names the part {shard!r}, which lies outside its folder; refused")
        state.update(read_checkpoint(path.parent / shard, wrappers)[0])
    if absent := sorted(set(weight_map) - set(state)):
        raise CheckpointError(f"{path} lists {len(absent)} tensors that its parts lack, {absent[0]!r} first")
    return state


def _tensors(content: Any, path: Path, wrappers: Sequence[str]) -> dict[str, Tensor]:
    for wrapper in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a dictionary of tensors")
    others = [key for key, value in content.items() if not isinstance(value, Tensor) or not isinstance(key, str)]
    if others or not content:
        raise CheckpointError(
            f"{path} is not a dictionary of tensors: {', '.join(map(repr, others[:5])) or 'it is empty'}. "
            f"The tensors were looked for under: {', '.join(wrappers)}"
        )
    return dict(content)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
