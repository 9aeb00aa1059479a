"""Trained weights and public files become profiles that run: in the cache, in engines, in a parameter file."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="networks need torch")
pytest.importorskip("accelerate", reason="training needs accelerate")
pytest.importorskip("tensorboard", reason="training logs to TensorBoard")

sys.path.insert(0, str(Path(__file__).parent / "networks"))
import public_files as public  # noqa: E402

import emo_models  # noqa: E402
from emo_models.checkpoints import NetworkCard, load_weights, read_card, save_weights, weights_hash  # noqa: E402
from emo_models.engines.build import Options, build  # noqa: E402
from emo_models.engines.catalogue import weights_file  # noqa: E402
from emo_models.engines.protocol import EngineError  # noqa: E402
from emo_models.engines.select import select  # noqa: E402
from emo_models.engines.source import network as source_of  # noqa: E402
from emo_models.engines.stock import stock  # noqa: E402
from emo_models.releases import releases  # noqa: E402
from emo_perception.config import CaptionConfig, read_profile  # noqa: E402
from emo_perception.files import user_profiles_dir  # noqa: E402
from emo_perception.graph import GraphOptions, configs_of, processes  # noqa: E402
from emo_perception.learned import contradictions, missing, needs, require  # noqa: E402
from emo_perception.tools import cli, weights  # noqa: E402
from training.deploy import check_name, deploy  # noqa: E402
from training.trainer import command  # noqa: E402
from training.trainer.recipe import RecipeError  # noqa: E402


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("EMO_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    builder = EntryPoint("engines", "training_task:engines", cli.GROUP)
    monkeypatch.setattr(cli, "commands", lambda: {"engines": builder})
    return tmp_path


def trained(folder, network, preprocessing, notes=None, **options):
    """Weights as a training leaves them, of a network that has learned nothing."""
    torch.manual_seed(1)
    made = emo_models.create(network, "toy", **options)
    card = NetworkCard(network, made.config.to_dict(), (), preprocessing, "CC0-1.0", ("noise",), notes=notes or {})
    save_weights(made, folder / f"{network}.safetensors", card)
    return folder / f"{network}.safetensors"


FACES = {"faces": "imagenet224", "size": 48, "alignment": "arcface"}
#: As the task of ECPA writes it.
ECPA = {"clip": {"frames": 4, "px": 64}, "faces": {"transform": "imagenet224", "alignment": "arcface", "px": 48}}


def test_a_profile_of_ones_own_is_written_and_grows(folders, capsys):
    assert deploy("er_resnet", trained(folders, "er_resnet", FACES), "lab") == 0
    told = capsys.readouterr().out
    assert "engines: build --profile lab --network er_resnet\n" in told
    assert f"profile lab: {user_profiles_dir() / 'lab.yaml'}; try it: emo run --profile lab" in told
    file = user_profiles_dir() / "lab.yaml"
    assert read_profile(file) == {"emotion": {"network": "er_resnet", "preset": "lab"}}

    mine = yaml.safe_load(file.read_text())
    mine["/**/caption"] = {"ros__parameters": {"stride_s": 3.0}}
    file.write_text(yaml.safe_dump(mine))
    assert deploy("ecpa", trained(folders, "ecpa", ECPA), "lab") == 0
    assert read_profile(file) == {
        "emotion": {"network": "er_resnet", "preset": "lab"},
        "caption": {"stride_s": 3.0, "writer": "ecpa", "preset": "lab"},
        "visual": {"clips": True, "preset": "lab"},
        "perception": {"embeddings": True},
        "action_unit": {"network": "anfl", "preset": "lab"},
    }
    options = GraphOptions(profile="lab", source="a.mp4")
    assert [p.name for p in processes(options)] == ["source", "perception", "caption", "cause"]
    configs = configs_of(options)
    assert configs["caption"] == CaptionConfig(stride_s=3.0, writer="ecpa", preset="lab")
    assert list(contradictions(configs)) == []
    # The command that was told to build them does not, here.
    assert {one.network: one.weights for one in missing(configs)} == {"anfl": True, "er_resnet": True, "ecpa": True}


def test_the_face_networks_inside_an_ecpa_come_with_it(folders, capsys):
    file = trained(folders, "ecpa", ECPA, er_source="er_resnet")
    assert deploy("ecpa", file, "lab") == 0
    capsys.readouterr()
    inside = load_weights(file)[0]
    for name, part in (("anfl", inside.au_net), ("er_resnet", inside.er_net)):
        loaded, card = load_weights(weights_file(name, "lab"))
        assert card.sha256 == weights_hash(part.state_dict())
        assert type(loaded) is type(part)
        assert (card.preprocessing["size"], card.data, card.licence) == (48, ("noise",), "CC0-1.0")
        assert source_of(name, "lab", folders / "work").part.inputs[0].max[-1] == 48  # an engine can be made of it
    before = read_card(weights_file("anfl", "lab"))
    torch.manual_seed(2)
    other = emo_models.create("anfl", "toy")
    save_weights(other, weights_file("anfl", "lab"), NetworkCard("anfl", before.config, (), FACES, "mine", ("noise",)))
    assert deploy("ecpa", file, "lab") == 0
    assert "anfl.safetensors is not the anfl that this ECPA has learned with" in capsys.readouterr().out
    assert read_card(weights_file("anfl", "lab")).licence == "mine"


def test_the_language_model_of_a_fame_net_comes_along_or_is_named(folders, capsys):
    trained(folders, "language", {})
    notes = {"recipe": {"network": {"weights": {"language": str(folders / "language.safetensors")}}}}
    file = trained(folders, "fame", {}, notes=notes)
    assert deploy("fame", file, "lab") == 0
    assert read_card(weights_file("language", "lab")).network == "language"
    assert read_profile(user_profiles_dir() / "lab.yaml") == {
        "visual": {"frames": True, "preset": "lab"},
        "cause": {"explainer": "fame", "preset": "lab"},
    }
    (folders / "llama").mkdir()
    file = trained(
        folders, "fame", {}, notes={"recipe": {"network": {"weights": {"language": str(folders / "llama")}}}}
    )
    assert deploy("fame", file, "lab2") == 0
    assert read_profile(user_profiles_dir() / "lab2.yaml")["cause"]["language_model"] == str(folders / "llama")
    capsys.readouterr()
    assert deploy("fame", file, "paper") == 0
    assert f"with a parameter file that sets cause.language_model: {folders / 'llama'}" in capsys.readouterr().out


def test_a_packaged_profile_is_not_written_but_said_to_run_it_or_not(folders, capsys):
    deploy("anfl", trained(folders, "anfl", FACES), "toy")
    assert "try it: emo run --profile toy" in capsys.readouterr().out
    deploy("er_resnet", trained(folders, "er_resnet", FACES), "toy")
    assert "profile toy does not run er_resnet" in capsys.readouterr().out
    assert deploy("language", trained(folders, "language", {}), "toy") == 0
    assert "no engine is built of language" in capsys.readouterr().out
    assert not user_profiles_dir().exists()


@pytest.mark.parametrize("name", ["start", "My Robot", "../x", ""])
def test_names_that_no_network_can_be_deployed_to_are_refused_before_the_training(name, capsys):
    with pytest.raises(RecipeError, match=r"expected toy or paper, or a name of your own .* none of: start"):
        check_name(name)
    if name:
        assert command.main(["er_toy", "--deploy", name]) == 2
        assert "--deploy" in capsys.readouterr().err


def test_engines_of_a_deployed_profile_have_the_sizes_of_its_cards_and_run_as_it_asks(folders, capsys):
    deploy("anfl", trained(folders, "anfl", {**FACES, "faces": "opengraphau224"}), "lab")
    deploy("scrfd", trained(folders, "scrfd", {"image": "fit_into", "size_hw": [128, 160]}), "lab")
    for name in ("anfl", "detector"):
        build(source_of(name, "lab", folders / "work"), Options("eager", threads=1, timing_s=0.0), lambda _: None)
    chosen = select("anfl", "lab", threads=1)
    assert chosen.engine.inputs[0].shape == (None, 3, 48, 48)
    nodes = chosen.engine({"faces": np.zeros((2, 3, 48, 48), np.float32)})["nodes"]
    assert nodes.shape[:2] == (2, 27)
    assert select("detector", "lab", threads=1).engine.inputs[0].shape == (1, 3, 128, 160)
    require(configs_of(GraphOptions(profile="lab")))  # nothing is missing any more
    capsys.readouterr()
    assert weights.main(["list", "--profile", "lab"]) == 0
    assert "anfl: ready (lab), engines anfl; licence: CC0-1.0\n" in capsys.readouterr().out
    assert [need.preset for need in needs(configs_of(GraphOptions(profile="lab")))] == ["lab", "lab"]
    with pytest.raises(
        EngineError, match=r"profile 'lab' has no weights of 'er_resnet': .*emo train RECIPE --deploy lab"
    ):
        source_of("er_resnet", "lab", folders / "work")


def test_engines_of_random_weights_count_only_where_they_are_asked_for(folders):
    build(source_of("projector", "toy", folders / "work"), Options("eager", threads=1, timing_s=0.0), lambda _: None)
    refused = stock("projector", "toy")
    assert not refused.usable
    assert "its weights are random numbers (random seed 0), not trained" in refused.why[0]
    assert stock("projector", "toy", random=True).usable


def test_a_public_file_becomes_weights_that_engines_are_built_from(folders, capsys):
    torch.save({"model_state_dict": public.ddamfn(7)}, folders / "affectnet7.pth")
    assert weights.main(["import", "ddamfn_affectnet7", str(folders / "affectnet7.pth"), "--profile", "lab"]) == 0
    told = capsys.readouterr().out
    assert "loaded" in told
    assert "now type: emo engines build --profile lab --network ddamfn" in told
    card = read_card(weights_file("ddamfn", "lab"))
    assert card.licence == releases().files["ddamfn_affectnet7"].licence
    assert (card.labels[0], len(card.labels), card.preprocessing["alignment"]) == ("neutral", 7, "poses")
    source = source_of("ddamfn", "lab", folders / "work")
    assert source.weights.data == ("as published: DDAMFN++ on AffectNet's seven expressions",)
    assert weights.main(["import", "ddamfn_affectnet8", str(folders / "affectnet7.pth")]) == 1
    assert "2 of another shape: fc." in capsys.readouterr().err
    assert not weights_file("ddamfn", "paper").exists()
    assert weights.main(["import", "swinbert", str(folders / "affectnet7.pth")]) == 1
    assert "no public file 'swinbert' that is a whole network; there are: opengraphau," in capsys.readouterr().err
    assert weights.main(["import", "opengraphau", "x.pth", "--profile", "start"]) == 1
    assert "not 'start'" in capsys.readouterr().err


def test_every_public_file_that_fills_a_network_names_one_that_is_there():
    from emo_models.checkpoints import LAYOUTS
    from emo_models.preprocess import TRANSFORMS

    for file in releases().files.values():
        if file.fills is not None:
            assert file.fills.layout in LAYOUTS
            assert file.fills.preprocessing["faces"] in TRANSFORMS
            with torch.device("meta"):
                emo_models.create(file.fills.network, file.fills.preset)
