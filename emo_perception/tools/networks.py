"""The built networks of a profile for ``emo weights``: what is there, and how to get what is not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from emo_models.engines.catalogue import PARTS, weights_file
from emo_models.weights import WeightsError
from emo_perception.config import load_profile
from emo_perception.files import profile_file
from emo_perception.learned import contradictions, describe, licences, missing, needs


def networks(profile: str) -> Iterator[str]:
    """Lines about the built networks of a profile. Raises :class:`emo_perception.config.ConfigError`."""
    configs = load_profile(profile_file(profile))
    wanted = needs(configs)
    if not wanted:
        yield f"profile {profile} runs no built network: emo weights pull fetches all that it needs"
        return
    yield from contradictions(configs)
    lacking, licence = missing(configs), licences(configs)
    for network, preset in dict.fromkeys((n.choice.network, n.preset) for n in wanted):
        if not any((one.network, one.preset) == (network, preset) for one in lacking):
            engines = ", ".join(e for n in wanted if n.choice.network == network for e in n.engines)
            yield f"{network}: ready ({preset}), engines {engines}; licence: {licence.get(f'{network} ({preset})', 'on its card')}"
    for one in lacking:
        yield from describe(one)


def import_release(release: str, file: Path, profile: str) -> int:
    """Turn a public file into the weights of a profile, and say what went where; returns the exit code."""
    if importlib.util.find_spec("torch") is None:
        raise WeightsError("reading a public file needs torch; in the checkout, type: make torch")
    from emo_models.checkpoints import CheckpointError
    from emo_models.checkpoints.adopt import adopt
    from emo_models.releases import releases

    public = releases().files.get(release)
    network = public.fills.network if public is not None and public.fills is not None else release
    target = weights_file(network, profile)
    try:
        _, report = adopt(release, file, target)
    except (CheckpointError, OSError) as error:
        raise WeightsError(str(error)) from None
    print(report)
    print(f"weights of profile {profile}: {target}")
    chosen = " ".join(f"--network {name}" for name, part in PARTS.items() if part.network == network)
    print(f"now type: emo engines build --profile {profile} {chosen}")
    return 0
