"""The one door: names, presets, options, and no torch before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import emo_models
from emo_models.registry import NETWORKS, UnknownNetworkError

NAMES = ("anfl", "bert_fusion", "clip", "ddamfn", "ecpa", "er_resnet", "fame", "language", "scrfd", "video_swin")


def test_names():
    assert emo_models.list_networks() == NAMES


def test_package_and_list_import_no_torch():
    code = "import emo_models, sys; emo_models.list_networks(); import emo_models.labels; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_missing_torch_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for module in [name for name in sys.modules if name.startswith("emo_models.networks.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=r"needs the package 'torch'.*pip install"):
        emo_models.create("video_swin")


def test_unknown_network_lists_the_choices():
    with pytest.raises(
        UnknownNetworkError, match="unknown network 'swin'; choose one of: anfl, bert_fusion, clip, ddamfn"
    ):
        emo_models.create("swin")


@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_the_common_presets(name):
    pytest.importorskip("torch", reason="the networks need torch")
    assert {"paper", "fast", "toy"} <= set(emo_models.list_presets(name))


def test_unknown_preset_and_option_list_the_choices():
    pytest.importorskip("torch", reason="the networks need torch")
    with pytest.raises(UnknownNetworkError, match=r"unknown preset 'huge'.*base, fast, paper, small, tiny, toy"):
        emo_models.create("video_swin", "huge")
    with pytest.raises(UnknownNetworkError, match=r"unknown option 'depth'.*choose among: depths, drop_path"):
        emo_models.create("video_swin", "toy", depth=3)


def test_config_goes_through_plain_values():
    pytest.importorskip("torch", reason="the networks need torch")
    import json

    for name in ("video_swin", "er_resnet", "anfl", "ddamfn", "scrfd", "clip", "language"):
        network = emo_models.create(name, "toy")
        plain = json.loads(json.dumps(network.config.to_dict()))
        assert type(network.config).from_dict(plain) == network.config


def test_every_registered_class_names_its_config():
    pytest.importorskip("torch", reason="the networks need torch")
    from emo_models.networks.base import Network
    from emo_models.networks.config import NetworkConfig
    from emo_models.registry import config_class, network_class

    for name in NETWORKS:
        assert issubclass(network_class(name), Network)
        assert issubclass(config_class(name), NetworkConfig)
