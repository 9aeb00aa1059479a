"""Trained weights become a profile that runs: into the weight cache, into engines, and into a parameter file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import yaml

from emo_models.checkpoints import NetworkCard, load_weights, read_card, save_weights, weights_hash
from emo_models.checkpoints.adopt import output_names
from emo_models.engines.catalogue import BUILT_PROFILES, PARTS, PROFILE_NAME, weights_file
from emo_models.networks.anfl import ANFL
from emo_models.networks.base import Network
from emo_models.networks.ddamfn import DDAMFN
from emo_models.networks.ecpa import ECPA
from emo_models.preprocess import TRANSFORMS
from emo_models.weights import cache_dir
from emo_perception.config import load_profile, read_profile
from emo_perception.files import packaged_profiles, profile_file, user_profiles_dir
from emo_perception.learned import CHOICES, needs
from emo_perception.tools import cli
from training.trainer.loop import publish
from training.trainer.recipe import RecipeError
from training.trainer.state import replace_file

#: Command that builds engines.
ENGINES: Final = "engines"
HEAD: Final = """\
# Written by emo train --deploy: what is not named here is as in the profile start. Change it as you like; the next --deploy
# keeps your values, but not your comments.

"""
#: How the engines of face networks scale values, a key of :data:`TRANSFORMS`.
NORMALISATION: Final = {"anfl": "opengraphau224", "er_resnet": "imagenet224", "ddamfn": "ddamfn112"}
#: What else a node must be told where a network runs.
BESIDES: Final[dict[str, dict[str, dict[str, Any]]]] = {"ecpa": {"perception": {"embeddings": True}}}


def check_name(profile: str) -> None:
    """Raise :class:`RecipeError` for a name that no trained network can be deployed to."""
    taken = [name for name in packaged_profiles() if name not in BUILT_PROFILES]
    if not PROFILE_NAME.fullmatch(profile) or profile in taken:
        raise RecipeError(
            f"--deploy {profile}: expected {' or '.join(BUILT_PROFILES)}, or a name of your own in small letters, digits "
            f"and _ that is none of: {', '.join(taken)}"
        )


def deploy(network: str, weights: Path, profile: str) -> int:
    """Put weights into the cache as ``PROFILE/NETWORK.safetensors``, build their engines, and let the profile name them.

    The frozen face networks inside an ECPA come with it, where the profile has none of that kind yet, and the language
    model around which a FAME-Net has learned. Returns the exit code of the build. Raises :class:`training.trainer.state.RunError` where the cache cannot be written.
    """
    file = weights_file(network, profile)
    publish(weights, file)
    print(f"weights of profile {profile}: {file}")
    networks = [network]
    if network == "ecpa":
        networks += face_networks(file, profile)
    values = language_model(file, profile) if network == "fame" else {}
    engines = [name for name, part in PARTS.items() if part.network in networks]
    if not engines:
        print(f"no engine is built of {network}: it serves training alone")
        return 0
    chosen = [argument for name in engines for argument in ("--network", name)]
    code: int = cli.commands()[ENGINES].load()(["build", "--profile", profile, *chosen])
    if not code:
        print(name_networks(networks, profile, values))
    return code


def language_model(file: Path, profile: str) -> dict[str, dict[str, Any]]:
    """Put the language model of a FAME-Net beside it; of a folder of transformers, the parameter that names it."""
    network = read_card(file).notes.get("recipe", {}).get("network", {})
    source = network.get("weights", {}).get("language", "")
    places = [place for place in (Path(source).expanduser(), cache_dir() / source) if source and place.exists()]
    if not places:
        print(f"{file} does not say where its language model is: set cause.language_model to its folder")
        return {}
    if places[0].is_dir():
        return {"cause": {"language_model": str(places[0].resolve())}}
    target = weights_file("language", profile)
    if not (target.is_file() and target.samefile(places[0])):
        publish(places[0], target)
        print(f"weights of profile {profile}: {target}")
    return {}


def face_networks(file: Path, profile: str) -> list[str]:
    """Write the frozen networks inside an ECPA beside it, for its features must be those it has learned with."""
    loaded, card = load_weights(file)
    found = []
    for part in (cast("ECPA", loaded).au_net, cast("ECPA", loaded).er_net):
        if part is None:
            continue
        name = "anfl" if isinstance(part, ANFL) else "ddamfn" if isinstance(part, DDAMFN) else "er_resnet"
        target = weights_file(name, profile)
        own = _card(name, part, card)
        if not target.is_file():
            save_weights(part, target, own)
            print(f"weights of profile {profile}: {target}, as they are inside ECPA")
        elif not same(part, target):
            print(f"{target} is not the {name} that this ECPA has learned with: its captions may be worse with it")
        found.append(name)
    return found


def same(network: Network, file: Path) -> bool:
    """Whether a file holds the very tensors of a network."""
    return bool(read_card(file).sha256 == weights_hash(network.state_dict()))


def _card(name: str, network: Network, whole: NetworkCard) -> NetworkCard:
    """The card of a network inside an ECPA."""
    config, faces = cast("Any", network.config), dict(whole.preprocessing.get("faces", {}))
    given, own = faces.get("transform", ""), NORMALISATION[name]
    if given in TRANSFORMS and _scale(given) == _scale(own):
        given = own  # they differ in how a face is scaled, and these were cut out at their size
    how = {"faces": given, "size": faces.get("px", 224), "alignment": faces.get("alignment", "")}
    return NetworkCard(
        name, config.to_dict(), output_names(config), how, whole.licence, whole.data, notes={"inside": whole.sha256}
    )


def _scale(transform: str) -> tuple[Any, Any]:
    return TRANSFORMS[transform].mean, TRANSFORMS[transform].std


def name_networks(networks: list[str], profile: str, values: Mapping[str, Mapping[str, Any]]) -> str:
    """Let a profile run these networks, with further ``values``, and say how to run it, or why it does not."""
    if profile in packaged_profiles():
        used = {need.choice.network for need in needs(load_profile(profile_file(profile)))}
        if unused := [name for name in networks if name not in used]:
            return (
                f"profile {profile} does not run {', '.join(unused)}: a parameter file on top of it does, or a profile of "
                "your own (--deploy NAME)"
            )
        told = "; ".join(f"{node}.{name}: {value}" for node, own in values.items() for name, value in own.items())
        return f"try it: emo run --profile {profile}" + (f", with a parameter file that sets {told}" if told else "")
    file = user_profiles_dir() / f"{profile}.yaml"
    before = read_profile(file) if file.is_file() else {}
    after = {node: dict(values) for node, values in before.items()}
    for network in networks:
        for choice in (choice for choice in CHOICES if choice.network == network):
            after.setdefault(choice.node, {}).update({choice.parameter: choice.value, "preset": profile})
    for more in (values, *(BESIDES.get(network, {}) for network in networks)):
        for node, own in more.items():
            after.setdefault(node, {}).update(own)
    if after != before:
        file.parent.mkdir(parents=True, exist_ok=True)
        blocks = {f"/**/{node}": {"ros__parameters": values} for node, values in after.items()}
        replace_file(file, HEAD + yaml.safe_dump(blocks, sort_keys=False))
    return f"profile {profile}: {file}; try it: emo run --profile {profile}"
