"""Profiles: they are whole, the user has some of his own, and what they lack is told before anything starts."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import yaml

from emo_models.engines.catalogue import PARTS, deployed, names
from emo_models.engines.catalogue import profiles as built_profiles
from emo_models.engines.protocol import EngineError
from emo_models.releases import releases
from emo_perception.config import EXIT_CONFIG, NODE_CONFIGS, ConfigError, FaceConfig, LearnedConfig, load_profile
from emo_perception.files import config_dir, profile_file, profiles, user_profiles_dir
from emo_perception.graph import GraphOptions, configs_of, notes, option_choices, processes
from emo_perception.learned import CHOICES, contradictions, missing, needs, require
from emo_perception.tools import run, weights

ROOT = Path(__file__).parents[1]
LEARNED = ("toy", "paper")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMO_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    return tmp_path


def own_profile(name: str, **nodes: dict[str, object]) -> Path:
    file = user_profiles_dir() / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({f"/**/{node}": {"ros__parameters": values} for node, values in nodes.items()}))
    return file


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_profile_runs_every_learned_stage_in_its_own_size_and_the_same_processes(name: str) -> None:
    configs = load_profile(profile_file(name))
    assert list(contradictions(configs)) == []
    wanted = needs(configs)
    assert {need.choice.node for need in wanted} == {
        c.node for c in NODE_CONFIGS.values() if issubclass(c, LearnedConfig)
    }
    assert {need.preset for need in wanted} == {name}
    assert not any(need.random for need in wanted)
    started = [process.name for process in processes(GraphOptions(profile=name, source="a.mp4"))]
    assert started == [process.name for process in processes(GraphOptions(source="a.mp4"))]


def test_every_choice_is_one_of_its_parameter_and_every_built_network_is_chosen_by_one() -> None:
    for choice in CHOICES:
        config = NODE_CONFIGS[choice.node]()
        config.with_values({choice.parameter: choice.value})
        assert getattr(config, choice.parameter) == choice.instead, choice
        assert all(PARTS[engine].network == choice.network for engine in choice.engines)
    chosen = {engine for choice in CHOICES for engine in choice.engines}
    assert chosen == set(PARTS) - {"detector_small", "projector"}  # g runs beside the language model
    assert set(releases().origins) == {entry.network for entry in PARTS.values()}


def test_the_start_profile_needs_no_built_network() -> None:
    configs = load_profile(profile_file("start"))
    assert needs(configs) == ()
    assert missing(configs) == ()
    require(configs)


def test_everything_that_is_missing_is_told_at_once_with_what_gets_it(folders: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        require(configs_of(GraphOptions(profile="paper")))
    told = str(raised.value)
    assert "networks are missing, and no others run in their place: scrfd, anfl, er_resnet, ecpa, fame" in told
    for network, recipe in (
        ("scrfd", "detector_widerface"), ("anfl", "anfl_opengraphau"), ("er_resnet", "er_mafw"),
        ("ecpa", "ecpa_mafw"), ("fame", "fame_ecem"),
    ):  # fmt: skip
        assert f"no weights: expected {folders / 'cache' / 'paper' / network}.safetensors" in told
        assert f"train it: emo train {recipe} --deploy paper" in told
    assert "OpenGprahAU-ResNet50_first_stage.pth, https://github.com/lingjivoo/OpenGraphAU, licence: none seen" in told
    assert "then: emo weights import opengraphau FILE --profile paper" in told
    assert "without it: visual.clips: false, caption.writer: evidence" in told
    assert "profile start; to measure time and memory without weights: weights random" in told
    with pytest.raises(ConfigError, match="train it: make toy"):
        require(configs_of(GraphOptions(profile="toy")))


def test_weights_that_are_there_need_only_be_built(folders: Path) -> None:
    (folders / "cache" / "paper").mkdir(parents=True)
    (folders / "cache" / "paper" / "anfl.safetensors").touch()
    lacking = {one.network: one for one in missing(configs_of(GraphOptions(profile="paper")))}
    assert lacking["anfl"].weights
    assert not lacking["ecpa"].weights
    assert lacking["anfl"].command == "emo engines build --profile paper --network anfl"
    with pytest.raises(ConfigError, match="build it: emo engines build --profile paper --network anfl\n"):
        require(configs_of(GraphOptions(profile="paper")))


def test_the_smaller_detector_is_asked_for_where_the_face_stage_takes_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("face: {ros__parameters: {detect_width: 320}}")
    found = needs(configs_of(GraphOptions(profile="toy", params_file=str(file))))
    assert found[0].engines == ("detector_small",)


def test_random_weights_are_for_every_learned_node_and_then_only_engines_are_missing() -> None:
    options = GraphOptions(profile="paper", weights="random", source="a.mp4")
    by_node = {node: values for p in processes(options) for node, values in p.parameters.items()}
    learned = {name for name, kind in NODE_CONFIGS.items() if issubclass(kind, LearnedConfig)}
    assert {node for node, values in by_node.items() if values.get("weights") == "random"} == learned
    assert "marked as invalid" in notes(options)[0]
    with pytest.raises(ConfigError) as raised:
        require(configs_of(options))
    told = str(raised.value)
    assert (
        "build it: emo engines build --profile paper --network video_swin --network prompt_head --network fusion_prefill "
        "--network fusion_step\n" in told
    )
    assert "train it" not in told
    assert "weights random" not in told


def test_random_weights_are_refused_where_no_network_is_built() -> None:
    with pytest.raises(ConfigError, match=r"profile 'start' runs none: leave it out, or choose .* as toy or paper"):
        processes(GraphOptions(weights="random"))
    with pytest.raises(ConfigError, match="weights: expected one of trained, random; got 'none'"):
        GraphOptions(weights="none")


def test_emo_run_refuses_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    assert run.run(parser.parse_args(["--profile", "toy", "--source", "test://"])) == EXIT_CONFIG
    told = capsys.readouterr()
    assert "networks are missing" in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"visual": {"clips": False}}, "caption.writer is ecpa, which needs visual.clips: true"),
        ({"perception": {"embeddings": False}}, "caption.writer is ecpa, which needs perception.embeddings: true"),
        ({"action_unit": {"network": "blendshapes"}}, "caption.writer is ecpa, which needs action_unit.network: anfl"),
        ({"action_unit": {"network": "blendshapes"}}, "needs a mesh, and face.detector: scrfd gives none"),
        ({"visual": {"frames": False}}, "cause.explainer is fame, which needs visual.frames: true"),
    ],
)
def test_nodes_that_would_wait_in_vain_are_told(
    tmp_path: Path, changed: dict[str, dict[str, object]], told: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({node: {"ros__parameters": values} for node, values in changed.items()}))
    with pytest.raises(ConfigError, match=told):
        require(configs_of(GraphOptions(profile="toy", params_file=str(file))))


# The user's own


def test_a_users_profile_is_found_beside_the_packaged_ones_and_starts() -> None:
    assert profiles() == ("paper", "start", "toy")
    file = own_profile("lab", action_unit={"network": "anfl", "preset": "lab"}, caption={"stride_s": 3.0})
    assert profiles() == ("paper", "start", "toy", "lab")
    assert profile_file("lab") == file
    assert "lab" in option_choices(GraphOptions.__dataclass_fields__["profile"])
    started = {p.name: p for p in processes(GraphOptions(profile="lab"))}
    assert started["caption"].parameters["caption"] == {"stride_s": 3.0}
    (need,) = needs(configs_of(GraphOptions(profile="lab")))
    assert (need.choice.network, need.preset) == ("anfl", "lab")
    with pytest.raises(ConfigError, match=r"emo weights import opengraphau FILE --profile lab"):
        require(configs_of(GraphOptions(profile="lab")))


def test_a_profile_that_is_not_there_or_there_twice_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=rf"paper, start, toy; got 'lab' \(profiles of yours lie in {user_profiles_dir()}"
    ):
        profile_file("lab")
    own = own_profile("toy", caption={"stride_s": 3.0})
    assert profiles() == ("paper", "start", "toy")
    with pytest.raises(
        ConfigError, match=f"two profiles are called 'toy': {config_dir() / 'toy.yaml'} and {own}; give"
    ):
        profile_file("toy")


def test_the_users_folder_follows_the_desktop_standard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMO_CONFIG_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_profiles_dir() == tmp_path / "emo_perception" / "profiles"


def test_a_preset_is_a_plain_name() -> None:
    assert FaceConfig(preset="my_robot2").preset == "my_robot2"
    with pytest.raises(
        ConfigError, match=r"face.preset: expected toy, paper or the name .* got '../x'; 'emo engines list'"
    ):
        FaceConfig(preset="../x")


def test_engines_of_a_deployed_profile_are_those_whose_weights_it_has(folders: Path) -> None:
    assert deployed() == ()
    for preset, network in (("lab", "anfl"), ("lab", "ecpa"), ("toy", "anfl"), ("other", "language")):
        file = folders / "cache" / preset / f"{network}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert deployed() == ("lab",)
    assert built_profiles() == ("start", "toy", "paper", "lab")
    assert names("lab") == ("anfl", "video_swin", "prompt_head", "fusion_prefill", "fusion_step")
    with pytest.raises(EngineError, match="no profile 'other'; choose one of: start, toy, paper, lab"):
        names("other")


# emo weights


def test_the_networks_of_a_profile_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert weights.main(["list", "--profile", "paper"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("scrfd: SCRFD-10G")
    assert "emo train fame_ecem --deploy paper" in told
    assert weights.main(["list", "--profile", "start"]) == 0
    assert "runs no built network" in capsys.readouterr().out


def test_every_public_file_has_a_page_a_licence_and_a_row_in_the_documentation() -> None:
    page = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    recipes = {path.stem for path in (ROOT / "training" / "recipes").glob("*.yaml")}
    for file in releases().files.values():
        assert file.address.startswith("https://"), file.name
        assert file.licence, file.name
        if "github.com" in file.address:
            assert f"({file.address})" in page, file.name
    for origin in releases().origins.values():
        assert origin.recipe in recipes
        assert origin.holds or origin.note, origin.network
