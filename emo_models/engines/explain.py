"""In words: why an engine is or is not usable here, field by field."""

from __future__ import annotations

from collections.abc import Iterator

from emo_models.engines import catalogue
from emo_models.engines.backends import in_order
from emo_models.engines.backends.base import Backend
from emo_models.engines.manifest import Manifest
from emo_models.engines.protocol import EngineError
from emo_models.engines.select import candidates
from emo_models.engines.store import Artefact

YES, NO = "  ok      ", "  differs "


def explain(name: str, preset: str, precision: str) -> list[str]:
    """Lines about every backend, in the order of preference, and every artefact it has of this engine."""
    precision = catalogue.part(name).precision(precision)
    found = list(candidates(name, preset, precision, "auto"))
    lines = [f"{name} ({preset}, {precision}), in the order of preference:"]
    for one in in_order():
        mine = [artefact for backend, artefact in found if backend is one]
        lines.append(f"{one.name}: {one.runs() or 'can run here'}; {_count(mine)}")
        for artefact in mine:
            lines.append(f" {artefact.folder.name}")
            lines += _fields(one, artefact)
    return lines


def _count(mine: list[Artefact]) -> str:
    return f"{len(mine)} artefact{'' if len(mine) == 1 else 's'} built"


def _fields(backend: Backend, artefact: Artefact) -> Iterator[str]:
    try:
        manifest = artefact.verify()
    except EngineError as error:
        yield f"{NO}{error}"
        if artefact.manifest is None:
            return
        manifest = artefact.manifest
    else:
        yield f"{YES}files: all {len(manifest.files)} are those that the manifest vouches for"
    for comparison in backend.compare(manifest):
        if comparison.fits:
            yield f"{YES}{comparison.name}: {comparison.found}"
        else:
            yield f"{NO}{comparison}"
    yield from _measured(manifest)


def _measured(manifest: Manifest) -> Iterator[str]:
    layers = ", ".join(f"{count} in {dtype}" for dtype, count in manifest.layer_dtypes.items())
    yield f"          precision: asked {manifest.precision}; convolutions and matrix products: {layers}"
    use = ", used only where weights: random asks for such" if manifest.weights.random else ""
    yield f"          weights: {manifest.weights.origin} ({manifest.weights.licence}){use}"
    parity, limit = manifest.parity, manifest.tolerance
    if parity is None:
        yield "          parity with eager fp32: not known, it was built where it cannot run; it is compared when it is loaded"
        return
    labels = "" if parity.label_agreement is None else f", same label {100 * parity.label_agreement:.1f} %"
    yield (
        f"          parity with eager fp32 on {parity.samples} inputs: relative {parity.relative:.2g} (at most "
        f"{limit.relative:g}), cosine {parity.cosine:.6f} (at least {limit.cosine:g}){labels}"
    )
    times = ", ".join(f"{t.p50_ms:.2f} / {t.p95_ms:.2f} at batch {t.batch}" for t in manifest.latency)
    yield f"          milliseconds p50 / p95 when it was built, {manifest.built}: {times}"
