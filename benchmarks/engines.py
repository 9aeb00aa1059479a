"""Compiled networks against eager torch, both in one run and turn by turn, with one thread each.

CPU time is compared, which other load on the machine hardly changes. Weights are random where the cache has none: speed
does not depend on them, what the lower precisions cost does.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.page import Goal, Part, table
from emo_models.engines import EngineError, catalogue
from emo_models.engines.manifest import Parity
from emo_models.engines.store import workspace

if TYPE_CHECKING:
    from emo_models.engines.bench import Row

THREADS: Final = 1
BATCHES: Final = (1, 4)
BUILT: Final = (("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"), ("onnxruntime", "fp32"))
#: Engine -> the most of eager's CPU time that OpenVINO may take in fp32.
FP32: Final[Mapping[str, float]] = {
    "detector": 0.65, "detector_small": 0.65, "anfl": 0.65, "ddamfn": 0.65, "er_resnet": 0.65, "video_swin": 0.65,
    "fusion_step": 0.55,
}  # fmt: skip
#: The same for the better of bf16 and int8, for all engines but the decoder and what is fp32 only.
REDUCED: Final = 0.35
#: What a clip of eight frames with one face costs: engine, batch, calls. 20 words are written.
CLIP: Final = (
    ("detector", 1, 8), ("anfl", 4, 2), ("er_resnet", 4, 2), ("ddamfn", 4, 2), ("clip_frames", 4, 2), ("video_swin", 1, 1),
    ("prompt_head", 1, 1), ("fusion_prefill", 1, 1), ("fusion_step", 1, 20), ("projector", 1, 1),
)  # fmt: skip
TURNS: Final = 3
#: Per engine and batch.
SECONDS: Final = 3.0

Say = Callable[[str], None]
#: Engine, backend, precision.
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Measured:
    """All figures. ``parity``: distance from eager fp32; ``refused``: what was not built.

    ``clip_ms``: precision -> CPU-milliseconds of a clip through the engines, and through eager fp32.
    """

    preset: str
    rows: tuple[Row, ...]
    parity: Mapping[Key, Parity | None]
    refused: Mapping[Key, str]
    clip_ms: Mapping[str, tuple[float, float]]


def measure(preset: str, networks: Sequence[str], say: Say) -> Measured:
    """Build what is missing, then time every engine and the clip. Raises :class:`EngineError`."""
    from emo_models.engines.bench import bench

    built: dict[Key, Parity | str | None] = {}
    rows: list[Row] = []
    with workspace() as work:
        for name in networks:
            built.update(_build(name, preset, work, say))
            say(f"{name}: timing")
            found = bench(
                name,
                preset,
                work,
                precisions=("fp32", "bf16", "int8"),
                batches=BATCHES,
                threads=THREADS,
                budget_s=SECONDS,
            )
            rows += [row for row in found if (row.backend, row.precision) in BUILT]
        whole = {name for name, _, _ in CLIP} <= set(networks)
        clip = dict(_clips(preset, work, say)) if whole else {}
    refused = {key: reason for key, reason in built.items() if isinstance(reason, str)}
    parity = {key: found for key, found in built.items() if not isinstance(found, str)}
    return Measured(preset, tuple(rows), parity, refused, clip)


def _build(name: str, preset: str, work: Path, say: Say) -> Iterator[tuple[Key, Parity | str | None]]:
    """Parity of each engine that is there now, or why it is not."""
    from emo_models.engines.build import Options, build
    from emo_models.engines.source import network

    source = network(name, preset, work)
    for backend, precision in BUILT:
        if source.entry.precision(precision) != precision:
            continue
        say(f"{name}: {backend} {precision}")
        try:
            made = build(source, Options(backend, precision, threads=THREADS, timing_s=0.1), lambda _: None)
            yield (name, backend, precision), made.manifest.parity
        except EngineError as error:
            yield (name, backend, precision), str(error)


def _clips(preset: str, work: Path, say: Say) -> Iterator[tuple[str, tuple[float, float]]]:
    """The networks of a clip one after the other, all loaded at once: through engines and through eager, in turns."""
    from emo_models.engines.backends.eager import EagerEngine
    from emo_models.engines.export import DTYPES, InPrecision
    from emo_models.engines.select import select
    from emo_models.engines.source import network

    eager, inputs = {}, {}
    for name, batch, _ in CLIP:
        source = network(name, preset, work)
        module = InPrecision(source.part.module, DTYPES["fp32"])
        eager[name] = EagerEngine(name, module, source.inputs, source.outputs, precision="fp32", threads=THREADS)
        inputs[name] = source.part.sample(np.random.default_rng(0), batch)
    for precision in ("fp32", "bf16", "int8"):
        say(f"a clip in {precision}")
        engines: dict[str, Any] = {}
        try:
            for name in eager:
                engines[name] = select(
                    name, preset, precision=precision, backend="openvino", threads=THREADS, random=True
                ).engine
        except EngineError as error:
            say(str(error))
            continue
        _clip_ms(engines, inputs), _clip_ms(eager, inputs)
        taken = [(_clip_ms(engines, inputs), _clip_ms(eager, inputs)) for _ in range(TURNS)]
        yield precision, (float(np.median([t[0] for t in taken])), float(np.median([t[1] for t in taken])))


def _clip_ms(engines: Mapping[str, Any], inputs: Mapping[str, Any]) -> float:
    start = time.process_time()
    for name, _, calls in CLIP:
        for _ in range(calls):
            engines[name](inputs[name])
    return (time.process_time() - start) * 1e3


def goals(measured: Measured) -> tuple[Goal, ...]:
    """One for each engine and batch; what could not be built or timed misses its goal."""
    found = []
    for name in dict.fromkeys(row.network for row in measured.rows):
        batches = sorted({row.batch for row in measured.rows if row.network == name})
        for batch in batches:
            if name in FP32:
                found.append(_goal(measured, name, batch, ("fp32",), FP32[name]))
            if name != "fusion_step" and not catalogue.part(name).fp32_only:
                found.append(_goal(measured, name, batch, ("bf16", "int8"), REDUCED))
    return tuple(found)


def _goal(measured: Measured, name: str, batch: int, precisions: Sequence[str], most: float) -> Goal:
    ratios = {
        row.precision: row.ratio
        for row in measured.rows
        if (row.network, row.batch, row.backend) == (name, batch, "openvino") and row.precision in precisions
    }
    best = min(ratios, key=lambda precision: ratios[precision], default="")
    got = f"{ratios[best]:.2f} ({best})" if best else "no such engine"
    met = bool(best) and ratios[best] <= most
    return Goal(f"{name}, batch {batch}, {' or '.join(precisions)}", f"<= {most:.2f} of eager", got, met)


def part(measured: Measured) -> Part:
    """The figures as a part of the report."""
    figures = {
        "preset": measured.preset,
        "rows": [dataclasses.asdict(row) | {"ratio": row.ratio} for row in measured.rows],
        "parity": {" ".join(key): value and dataclasses.asdict(value) for key, value in measured.parity.items()},
        "refused": {" ".join(key): reason for key, reason in measured.refused.items()},
        "clip_ms": dict(measured.clip_ms),
    }
    return Part("engines", goals(measured), _text(measured), figures)


def _text(measured: Measured) -> str:
    parts = [
        f"## Engines of preset {measured.preset}, {THREADS} thread: CPU time of eager fp32 = 1",
        table(("engine", "batch", "eager ms", *(f"{b} {p}" for b, p in BUILT)), list(_speed_rows(measured))),
        "Milliseconds are CPU time of a call with the whole batch; engines without a batch of 4 are those that run once "
        "for an image or a clip. Columns with no figure: not built, see below, or fp32 only because it ranks.",
        "## Distance from eager fp32: largest error relative to the largest output, cosine, same class",
        table(("engine", *(f"{b} {p}" for b, p in BUILT)), list(_parity_rows(measured))),
    ]
    if measured.refused:
        parts += ["## Not installed", "\n".join(f"* {reason}" for reason in measured.refused.values())]
    if measured.clip_ms:
        rows = [(p, f"{ms:.0f}", f"{eager:.0f}", f"{ms / eager:.2f}") for p, (ms, eager) in measured.clip_ms.items()]
        calls = ", ".join(f"{name} {calls} x batch {batch}" for name, batch, calls in CLIP)
        parts += [
            "## All networks of a clip, one after the other",
            table(("", "engines CPU-ms", "eager CPU-ms", "ratio"), rows),
            f"Calls: {calls}. All are loaded at once and fed with random inputs of their shapes: what the caches of the CPU "
            "cost is in it, decoding, cropping and the search for words are not.",
        ]
    return "\n\n".join(parts)


def _speed_rows(measured: Measured) -> Iterator[tuple[str, ...]]:
    for name, batch in dict.fromkeys((row.network, row.batch) for row in measured.rows):
        mine = [row for row in measured.rows if (row.network, row.batch) == (name, batch)]
        ratios = {(row.backend, row.precision): f"{row.ratio:.2f}" for row in mine}
        eager = float(np.median([row.eager_cpu_ms for row in mine]))
        yield name, str(batch), f"{eager:.1f}", *(ratios.get(built, "-") for built in BUILT)


def _parity_rows(measured: Measured) -> Iterator[tuple[str, ...]]:
    for name in dict.fromkeys(name for name, _, _ in measured.parity):
        yield name, *(_distance(measured.parity.get((name, *built))) for built in BUILT)


def _distance(parity: Parity | None) -> str:
    if parity is None:
        return "-"
    same = "" if parity.label_agreement is None else f", {100 * parity.label_agreement:.0f} %"
    return f"{parity.relative:.1g}, {parity.cosine:.5f}{same}"
