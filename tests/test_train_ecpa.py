"""Training ECPA: a drawn world of a few clips, from videos to captions, their figures, and a killed run."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")
pytest.importorskip("accelerate", reason="training goes through accelerate")
pytest.importorskip("pycocoevalcap", reason="captions are scored by the field's own code")

from emo_models.checkpoints import load_weights  # noqa: E402
from emo_models.networks.ecpa.eca import NO_EMOTION  # noqa: E402
from emo_models.networks.ecpa.pretrained import load_tokenizer  # noqa: E402
from training.tables.runs import evaluate_weights  # noqa: E402
from training.tasks.actions import ActionTask  # noqa: E402
from training.tasks.ecpa import ECPATask  # noqa: E402
from training.tasks.ecpa_data import clip_tensor, emotion_index  # noqa: E402
from training.tasks.ecpa_measure import emotion_word  # noqa: E402
from training.tasks.ecpa_tokenizer import make_tokenizer  # noqa: E402
from training.toyworld.clips import ClipOptions  # noqa: E402
from training.toyworld.mafw import write_mafw  # noqa: E402
from training.trainer.loop import train  # noqa: E402
from training.trainer.recipe import RecipeError, load_recipe  # noqa: E402
from training.trainer.task import DoomedRunError  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Twenty small clips of drawn people, as MAFW has them."""
    root = tmp_path_factory.mktemp("world") / "mafw"
    options = ClipOptions(size_wh=(160, 120), seconds=0.8, people=6, held_out_people=3, compound=0.0, neutral=0.0)
    for _ in write_mafw(root, 3, 20, options):
        pass
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for the module, so that clips are cut out once."""
    folder = tmp_path_factory.getbasetemp() / "ecpa_cache"
    monkeypatch.setenv("EMO_CACHE", str(folder))
    return folder


def recipe(world, out, *changes):
    # Many prompts, for an AU network that knows nothing rarely chooses the units that a caption names.
    small = [
        f"data.root={world}",
        "network.weights={}",
        "epochs=2",
        "batch=8",
        "publish=''",
        "network.options.top_k=12",
    ]
    return load_recipe("ecpa_toy", [*small, *changes], out=out)


def test_from_clips_to_captions_and_their_figures(world, tmp_path):
    done = train(recipe(world, tmp_path / "run"))
    assert next(iter(done.metrics)) == "CIDEr"
    wanted = {"BLEU-4", "ROUGE-L", "AU-phrase F1", "emotion accuracy", "emotion accuracy of the class branch",
              "grounding precision", "hallucination rate", "AU-word retrieval", "AU-word retrieval, chance"}  # fmt: skip
    assert wanted <= set(done.metrics)
    assert all(np.isfinite(value) for value in done.metrics.values())
    network, card = load_weights(done.weights)
    assert card.network == "ecpa"
    assert card.preprocessing["clip"]["frames"] == network.config.frames == 4
    assert card.labels == network.config.classes
    tokenizer = load_tokenizer(tmp_path / "run" / "tokenizer")
    assert len(tokenizer) == network.config.words
    lines = (tmp_path / "run" / "predictions-mafw-test.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert all(json.loads(line)["references"] for line in lines)
    log = (tmp_path / "run").rglob("*.jsonl")
    assert any("lambda_au" in file.read_text() for file in log)
    again = evaluate_weights(recipe(world, tmp_path / "run"), done.weights, "test")
    assert again == pytest.approx(done.metrics), "the weights and the tokenizer beside them say it all"


def test_training_goes_on_after_a_kill(world, tmp_path, monkeypatch):
    whole = train(recipe(world, tmp_path / "whole"))
    steps, loss = [], ECPATask.loss

    def killed(self, batch):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return loss(self, batch)

    cut = recipe(world, tmp_path / "cut", "checkpoint_steps=1")
    with monkeypatch.context() as patch:
        patch.setattr(ECPATask, "loss", killed)
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    assert train(cut).sha256 == whole.sha256


def test_only_what_the_paper_trains_is_trained(world, tmp_path):
    task = ECPATask(recipe(world, tmp_path, "network.options.freeze_visual=false", "options.visual_lr=0.05"))
    rest, slow = task.parameter_groups()
    ids = {id(p) for p in slow["params"]}
    assert slow["lr_factor"] == 0.05
    assert ids == {id(p) for p in task.network.visual.encoder.parameters()}
    frozen = {id(p) for p in task.network.au_net.parameters()}
    assert not frozen & {id(p) for group in (rest, slow) for p in group["params"]}
    random = [task.dataset("train")[0]["clip"] for _ in range(2)]
    assert torch.equal(*random), "item i of an epoch is always the same"
    task.begin_epoch(1)
    assert task.dataset("train")[0]["clip"].shape == random[0].shape == (3, 4, 64, 64)
    frozen_task = ECPATask(recipe(world, tmp_path / "frozen"))
    assert len(frozen_task.parameter_groups()) == 1
    assert frozen_task.dataset("train")[0]["clip"].shape == (32, 128)


def test_cached_features_are_those_of_the_networks(world, tmp_path):
    task = ECPATask(recipe(world, tmp_path))
    pixels = ECPATask(recipe(world, tmp_path / "p", "network.options.freeze_visual=false", "options.random_crop=false"))
    pixels.network.load_state_dict(task.network.state_dict())
    cached, live = task.dataset("train")[3], pixels.dataset("train")[3]
    with torch.no_grad():
        computed = pixels.network.eval().visual.features(live["clip"][None])[0]
    assert torch.allclose(cached["clip"], computed, atol=2e-2)
    assert torch.equal(cached["caption_ids"], live["caption_ids"])


@pytest.mark.parametrize(
    ("changes", "losses"),
    [
        (["options.losses=[mlm]", "network.options.class_token_grad=true"], {"L_mlm", "L_er", "L_au"}),
        (["options.au_loss=tagger"], {"L_mlm", "L_er", "L_au"}),
        (["options.au_loss=contrast", "options.er_loss=similarity_ce"], {"L_mlm", "L_er", "L_au"}),
        (["options.au_loss=cross_entropy", "options.er_loss=similarity"], {"L_mlm", "L_er", "L_au"}),
        (["network.options.er_prompt=false", "network.options.au_prompt=false", "network.options.class_prompt=false"],
         {"L_mlm"}),
        (["network.options.visual_tokens=false"], {"L_mlm", "L_er", "L_au"}),
    ],
)  # fmt: skip
def test_every_row_of_the_tables_has_a_loss_that_teaches(world, tmp_path, changes, losses):
    task = ECPATask(recipe(world, tmp_path, *changes))
    data = task.dataset("train")
    batch = task.collate([data[index] for index in range(8)])
    task.network.train()
    total, parts = task.loss(batch)
    assert set(parts) == losses
    expected = sum(parts[f"L_{name}"] for name in task.total.dwa.names)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5), "in the first epoch all weights are 1"
    total.backward()
    if task.tagger is not None:
        assert task.tagger.units.weight.grad.abs().sum() > 0
    reached = task.network.trans_encoder.cls.predictions.decoder.weight.grad
    assert reached.abs().sum() > 0
    assert "CIDEr" in _evaluated(task)


def _evaluated(task):
    task.network.eval()
    with torch.no_grad():
        return task.evaluate("test")


def test_self_labels_doom_a_run_unless_it_is_to_be_shown(world, tmp_path):
    changes = ["network.options.pair_labels=self", "network.options.match_threshold=0.99"]
    with pytest.raises(DoomedRunError, match="pair_labels: lexicon"):
        train(recipe(world, tmp_path / "doomed", *changes))
    shown = train(recipe(world, tmp_path / "shown", *changes, "options.allow_collapse=true", "epochs=1"))
    assert "CIDEr" in shown.metrics


def test_a_fusion_that_was_loaded_may_not_guess(world, tmp_path):
    task = ECPATask(recipe(world, tmp_path))
    task.check_first_loss(100.0)  # a fusion that starts at random guesses
    loaded = dataclasses.replace(task.recipe.network, weights={"bert": "some/folder"})
    task.recipe = dataclasses.replace(task.recipe, network=loaded)
    with pytest.raises(DoomedRunError, match="the fusion guesses"):
        task.check_first_loss(100.0)


def test_mistakes_in_a_recipe_are_named(world, tmp_path):
    for changes, message in (
        (["options.losses=[er, au]"], "without mlm no word is learned"),
        (["options.au_loss=x"], "options.au_loss: expected one of pairs, cross_entropy, contrast, tagger"),
        (["network.weights={brain: x}"], "no part brain; there are visual"),
        (["network.weights={au_net: toy/none.safetensors}"], "toy/none.safetensors; type: make toy"),
    ):
        with pytest.raises(RecipeError, match=message):
            ECPATask(recipe(world, tmp_path, *changes))
    task = ECPATask(recipe(world, tmp_path))
    with pytest.raises(RecipeError, match=r"no clip with a caption in the split 'val' of mafw"):
        task.dataset("val")


def test_parts_start_from_weights_that_were_trained_here(world, tmp_path):
    done = train(recipe(world, tmp_path / "first", "epochs=1"))
    task = ECPATask(
        recipe(world, tmp_path / "second", f"network.weights={{visual: {done.weights}, au_net: {done.weights}}}")
    )
    first, _ = load_weights(done.weights)
    for mine, theirs in ((task.network.visual.encoder, first.visual.encoder), (task.network.au_net, first.au_net)):
        assert all(
            torch.equal(a, b) for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True)
        )


def test_the_visual_encoder_learns_actions(world, tmp_path):
    small = [f"data.root={world}", "epochs=2", "batch=8", "publish=''"]
    task = ActionTask(load_recipe("actions_toy", small, out=tmp_path / "x"))
    done = train(load_recipe("actions_toy", small, out=tmp_path / "run"))
    assert set(done.metrics) == {"accuracy", "action accuracy", "thing accuracy", "place accuracy"}
    network, card = load_weights(done.weights)
    assert card.network == "video_swin"
    start = task.network.state_dict()
    assert any(not torch.equal(start[name], value) for name, value in network.state_dict().items())


def test_one_crop_for_all_images_of_a_clip():
    images = np.zeros((3, 20, 30, 3), np.uint8)
    images[:, :, :, 0] = np.arange(30)
    middle = clip_tensor(images, 16)
    assert middle.shape == (3, 3, 16, 16)
    seen = {tuple(clip_tensor(images, 16, np.random.default_rng(seed))[0, :, 0, 0].tolist()) for seed in range(12)}
    assert len(seen) > 3
    assert all(len(set(row)) == 1 for row in seen)


def test_words_of_emotions():
    assert emotion_word("A man frowns, and looks Furious at a happy dog") == "anger"
    assert emotion_word("this happens to a contented saddle maker") == ""
    assert emotion_word("she is unhappy") == "sadness"


def test_labels_of_other_sets_are_understood(world):
    from training.datasets import read_dataset

    record = read_dataset("mafw", world).records[0]
    meld = dataclasses.replace(record, emotions=("joy",), vocabulary="meld7")
    assert emotion_index(meld, ("anger", "happiness")) == 1
    assert emotion_index(meld, ("anger", "sadness")) == NO_EMOTION
    assert emotion_index(dataclasses.replace(record, emotions=("anger", "fear")), ("anger", "fear")) == NO_EMOTION


def test_tokenizers_are_made_of_the_captions(tmp_path):
    texts = ["A man smiles, smiles and smiles.", "the woman frowns"]
    words = make_tokenizer("words", texts)
    assert words.convert_ids_to_tokens([0, 1, 2, 3, 4, 5]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "smiles"]
    assert words("The MAN grins", add_special_tokens=False)["input_ids"].count(1) == 1
    assert len(make_tokenizer("words", texts, size=7)) == 7
    pieces = make_tokenizer("pieces", texts, size=60)
    ids = pieces("smiles", add_special_tokens=False)["input_ids"]
    assert pieces.decode(ids) == "smiles"
    assert 1 not in pieces("mans", add_special_tokens=False)["input_ids"]
    with pytest.raises(OSError, match=r"tokenizer\.json"):
        make_tokenizer(str(tmp_path), texts)
