"""CLIP's two towers and the causal language model, which FAME-Net is built on where no published one fits."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
transformers = pytest.importorskip("transformers", reason="the towers come from transformers")

import emo_models  # noqa: E402
from emo_models.checkpoints import CheckpointError, NetworkCard, load_checkpoint, save_weights  # noqa: E402
from emo_models.networks.clip import contrastive_loss  # noqa: E402
from emo_models.networks.language import (  # noqa: E402
    Bags,
    load_language,
    tokenizer_note,
    train_tokenizer,
)

TEXTS = ["Ross feels joy because the boat is here.", "Rachel says that the boat is gone."]


def toy(name, **options):
    torch.manual_seed(0)
    return emo_models.create(name, "toy", **options)


def card(network, name, **notes):
    return NetworkCard(name, network.config.to_dict(), (), {}, "research only", ("toy",), notes=notes)


def test_clip_is_that_of_transformers():
    ours = toy("clip").eval()
    v, c = ours.vision_model.config, ours.config
    text = ours.text_model.config
    theirs = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text.to_dict(), vision_config=v.to_dict(), projection_dim=c.project)
    ).eval()
    assert set(theirs.state_dict()) == set(ours.state_dict())
    theirs.load_state_dict(ours.state_dict())
    ids = torch.tensor([[0, 9, 8, 7, c.stop], [0, 9, c.stop, c.stop, c.stop]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    pictures = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        found = ours(pictures, ids, mask)
        wanted = theirs(pixel_values=pictures, input_ids=ids, attention_mask=mask)
    assert torch.allclose(found.scores, wanted.logits_per_image, atol=1e-5)
    assert torch.allclose(found.image, wanted.image_embeds, atol=1e-6)
    assert torch.allclose(found.text, wanted.text_embeds, atol=1e-6)


def test_contrastive_loss_by_hand():
    scores = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    one = math.log(1 + math.exp(-2))
    assert contrastive_loss(scores, torch.eye(2, dtype=torch.bool)).item() == pytest.approx(one)
    same = torch.ones(2, 2, dtype=torch.bool)
    assert contrastive_loss(torch.zeros(2, 2), same).item() == pytest.approx(math.log(2))
    assert contrastive_loss(torch.tensor([[9.0, 9.0], [-9.0, -9.0]]), same).item() > math.log(2)


def test_trained_tower_goes_into_fame(tmp_path):
    clip, fame = toy("clip"), emo_models.create("fame", "toy")
    save_weights(clip, tmp_path / "clip.safetensors", card(clip, "clip"))
    load_checkpoint(fame.clip, tmp_path / "clip.safetensors", "clip")
    pictures = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        hidden = clip.eval().vision_model(pixel_values=pictures, output_hidden_states=True).hidden_states[-2]
        assert torch.allclose(fame.frame_features(pictures), hidden[:, 1:], atol=1e-6)


def test_tokenizer_spells_everything_and_travels_with_the_weights(tmp_path):
    tokenizer = train_tokenizer(TEXTS, 320)
    assert len(tokenizer) <= 320
    strange = "Zoë: ça va? 日本"
    assert tokenizer.decode(tokenizer(strange, add_special_tokens=False)["input_ids"]) == strange
    assert tokenizer(TEXTS[0])["input_ids"][0] == tokenizer.bos_token_id
    model = toy("language")
    file = tmp_path / "language.safetensors"
    save_weights(model, file, card(model, "language", **tokenizer_note(tokenizer)))
    llm, again = load_language(file)
    assert again(TEXTS[1])["input_ids"] == tokenizer(TEXTS[1])["input_ids"]
    assert all(torch.equal(a, b) for a, b in zip(llm.parameters(), model.llm.parameters(), strict=True))
    llm.save_pretrained(tmp_path / "folder")
    again.save_pretrained(tmp_path / "folder")
    public, third = load_language(tmp_path / "folder")
    assert third(strange)["input_ids"] == tokenizer(strange)["input_ids"]
    assert torch.equal(public.get_input_embeddings().weight, model.llm.get_input_embeddings().weight)
    with pytest.raises(ValueError, match="cannot hold 256 bytes"):
        train_tokenizer(TEXTS, 100)


def test_of_a_llava_the_language_part_is_taken(tmp_path):
    torch.manual_seed(0)
    text = transformers.LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    eyes = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    config = transformers.LlavaConfig(vision_config=eyes.to_dict(), text_config=text.to_dict(), image_token_index=319)
    llava = transformers.LlavaForConditionalGeneration(config).eval()
    llava.save_pretrained(tmp_path)
    train_tokenizer(TEXTS, 300).save_pretrained(tmp_path)
    llm, tokenizer = load_language(tmp_path)
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    assert isinstance(llm, transformers.LlamaForCausalLM)
    assert sum(p.numel() for p in llm.parameters()) < sum(p.numel() for p in llava.parameters())
    with torch.no_grad():
        assert torch.equal(llm(ids).logits, llava(input_ids=ids).logits)


def test_what_is_no_language_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no language model at .*missing"):
        load_language(tmp_path / "missing")
    for network in ("clip", "language"):  # the second without its tokenizer
        model = toy(network)
        save_weights(model, tmp_path / network, card(model, network))
        with pytest.raises(CheckpointError, match="expected a language model with its tokenizer"):
            load_language(tmp_path / network)


def test_a_bag_of_one_word_is_that_word_and_noise_is_measured_in_words():
    model = toy("language").eval()
    words = model.config.words
    ids = torch.tensor([[5, words, 7], [words, words + 1, 9]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        plain = model(torch.tensor([[5, 11, 7], [12, 13, 9]]), mask)
        bags = Bags(torch.tensor([11, 12, 13]), torch.tensor([0, 1, 2]))
        assert torch.allclose(model(ids, mask, bags), plain, atol=1e-6)
        several = model._mixed(Bags(torch.tensor([11, 12, 13, 11]), torch.tensor([0, 3])))
        table = model.llm.get_input_embeddings().weight
        assert torch.allclose(several[0], table[11:14].sum(0) / math.sqrt(3), atol=1e-6)
        many = Bags(torch.full((500,), 11), torch.arange(500), 0.5)
        noise = model._mixed(many) - table[11]
        assert noise.std().item() == pytest.approx(0.5 * table.std().item(), rel=0.05)
