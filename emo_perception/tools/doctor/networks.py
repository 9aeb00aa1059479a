"""Networks that are built: whether those that the profile asks for are here, and what gets what is not."""

from __future__ import annotations

from collections.abc import Iterator

from emo_perception.learned import Missing, contradictions, missing, needs, remedy, sources
from emo_perception.tools.doctor.finding import Context, Finding, Level


def built(context: Context) -> Iterator[Finding]:
    """A finding for each built network of the profile."""
    wanted = needs(context.configs)
    if not wanted:
        yield Finding(Level.OK, f"profile {context.profile} runs no built network")
    for fault in contradictions(context.configs):
        yield Finding(Level.ERROR, fault)
    lacking = {(one.network, one.preset): one for one in missing(context.configs)}
    for key in dict.fromkeys((need.choice.network, need.preset) for need in wanted):
        if key in lacking:
            yield _missing(lacking[key])
        else:
            yield Finding(Level.OK, f"{key[0]}: its engines of profile {key[1]} are built and fit this machine")


def _missing(one: Missing) -> Finding:
    from emo_models.releases import releases

    told = "; ".join(one.why) or "no engine was built"
    if not one.weights:
        origin = releases().origins[one.network]
        told += "; no weights: " + "; ".join(line.strip() for line in sources(origin, one.preset))
    return Finding(Level.ERROR, f"{one.network} of profile {one.preset}: {told}", remedy(one))
