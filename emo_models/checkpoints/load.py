"""Put a public checkpoint into a network, and say exactly what went where."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from emo_models.checkpoints.layouts import LAYOUTS, RELEASES, Layout
from emo_models.checkpoints.read import CheckpointError, read_checkpoint
from emo_models.networks.base import Network


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave; prints as a table."""

    source: str
    kind: str
    layout: str
    #: Network tensors that were filled.
    loaded: tuple[str, ...]
    #: Network tensors that keep their initial value, by permission of the layout.
    absent: tuple[str, ...]
    #: File tensors without a counterpart, by permission of the layout.
    unused: tuple[str, ...]
    #: Number of the file's tensors that are of other networks.
    elsewhere: int
    #: Data types in the file that were converted, with their number.
    converted: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        rows = [
            ("file", f"{self.source} ({self.kind})"),
            ("layout", self.layout),
            ("loaded", f"{len(self.loaded)} tensors"),
            ("converted", ", ".join(f"{count} from {dtype}" for dtype, count in self.converted) or "none"),
            ("left at start", _summary(self.absent)),
            ("unused", _summary(self.unused)),
            ("of others", f"{self.elsewhere} tensors"),
        ]
        return "\n".join(f"{name:<14} {value}" for name, value in rows)


def load_checkpoint(network: nn.Module, path: str | Path, layout: str) -> LoadReport:
    """Fill a network from a public checkpoint.

    Args:
        network: the network, or the part of one that the layout is for.
        path: the file, or the JSON index of a checkpoint in several files.
        layout: one of :data:`~emo_models.checkpoints.LAYOUTS`.

    Raises:
        CheckpointError: the file is not readable, or its tensors are not those of the network: missing, unknown or of
            another shape. The network is then unchanged.
        KeyError: no such layout; the message lists them.

    """
    return load_parts(path, [(network, layout)])[0]


def load_release(network: nn.Module, path: str | Path, release: str) -> tuple[LoadReport, ...]:
    """Fill the parts of a network that a published model has, one of :data:`~emo_models.checkpoints.RELEASES`.

    SwinBERT's file fills an ECPA's visual encoder, projection and fusion so. Raises as :func:`load_checkpoint`, and
    ``KeyError`` for an unknown release.
    """
    if release not in RELEASES:
        raise KeyError(f"unknown release {release!r}; choose one of: {', '.join(sorted(RELEASES))}")
    return load_parts(path, [(network.get_submodule(part), layout) for part, layout in RELEASES[release].items()])


def load_parts(path: str | Path, parts: Sequence[tuple[nn.Module, str]]) -> tuple[LoadReport, ...]:
    """Fill several networks, each by its layout, from one file that is read once: all of them or, on an error, none.

    Raises as :func:`load_checkpoint`.
    """
    wrappers = dict.fromkeys(wrapper for _, layout in parts for wrapper in _layout(layout).wrappers)
    state, kind = read_checkpoint(path, tuple(wrappers))
    matched = [_match(network, state, layout, source=str(path), kind=kind) for network, layout in parts]
    for (network, _), (fill, _) in zip(parts, matched, strict=True):
        network.load_state_dict(fill, strict=False)
    return tuple(report for _, report in matched)


def load_state(network: nn.Module, state: Mapping[str, Tensor], layout: str) -> LoadReport:
    """As :func:`load_checkpoint`, from tensors that were read already."""
    fill, report = _match(network, state, layout, source="memory", kind="tensors")
    network.load_state_dict(fill, strict=False)
    return report


def _match(
    network: nn.Module, state: Mapping[str, Tensor], layout: str, *, source: str, kind: str
) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors for a network under its own names, all checked, and the report of loading them."""
    found = _layout(layout)
    named = _rename(network, state, found)
    own = network.state_dict()
    left_out = network.left_out() if isinstance(network, Network) else ()
    unused = {name for name in named if found.is_unused(name) or name.startswith(left_out)}
    fill = {name: tensor for name, tensor in named.items() if name in own and name not in unused}
    absent = set(own) - set(fill)
    wrong = [
        f"{name}: network {list(own[name].shape)}, file {list(tensor.shape)}"
        for name, tensor in fill.items()
        if own[name].shape != tensor.shape
    ]
    missing = sorted(name for name in absent if not found.may_be_absent(name))
    _refuse(source, layout, missing, sorted(set(named) - set(own) - unused), wrong)
    converted = Counter(str(t.dtype).removeprefix("torch.") for n, t in fill.items() if t.dtype != own[n].dtype)
    return fill, LoadReport(
        source,
        kind,
        layout,
        loaded=tuple(fill),
        absent=tuple(sorted(absent)),
        unused=tuple(sorted(unused)),
        elsewhere=len(state) - len(found.names(list(state))),
        converted=tuple(sorted(converted.items())),
    )


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise KeyError(f"unknown layout {name!r}; choose one of: {', '.join(sorted(LAYOUTS))}")
    return LAYOUTS[name]


def _rename(network: nn.Module, state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The file's tensors of interest under the network's names, tied ones included."""
    named: dict[str, Tensor] = {}
    for key, name in layout.names(list(state)).items():
        if name in named:
            raise CheckpointError(f"two tensors of the file would become {name!r}, {key!r} the second; wrong layout?")
        named[name] = state[key]
    for name, source in layout.tied.items():
        if name not in named and source in named:
            named[name] = named[source]
    return dict(network.load_key_map(named)) if isinstance(network, Network) else named


def _refuse(source: str, layout: str, missing: Sequence[str], unknown: Sequence[str], wrong: Sequence[str]) -> None:
    faults = [("missing", missing), ("unknown", unknown), ("of another shape", wrong)]
    lines = [
        f"  {len(names)} {what}: {'; '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        for what, names in faults
        if names
    ]
    if lines:
        raise CheckpointError(
            f"{source} does not fit the network in layout {layout!r}:\n" + "\n".join(lines) + "\n"
            f"Check the network's preset and options against the file, or choose another layout: {', '.join(LAYOUTS)}"
        )


def _summary(names: Sequence[str]) -> str:
    """Names with their numbers replaced, and how often each such name occurs."""
    counts = Counter(re.sub(r"\d+", "*", name) for name in names)
    return ", ".join(f"{name} x{count}" if count > 1 else name for name, count in counts.items()) or "none"
