"""Lexicon and tokens of captions: phrases, negation, whole words, and the way back to text."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="tokenizers come from transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

from toys import WORDS, byte_level, word_piece  # noqa: E402

from emo_models.labels import OPENGRAPHAU_MAIN  # noqa: E402
from emo_models.networks.ecpa.captions import AuLexicon, CaptionTokenizer  # noqa: E402
from emo_models.networks.ecpa.config import EcpaConfig  # noqa: E402
from emo_models.networks.ecpa.pretrained import load_tokenizer  # noqa: E402

TOY = EcpaConfig.from_preset("toy")


@pytest.mark.parametrize(
    ("text", "aus"),
    [
        ("a deep frown on his face", {4}),
        ("with a marked frown", {4}),
        ("her nose is wrinkled nose", {9}),
        ("a slightly open mouth", {25, 26, 27}),
        ("he has his mouth wide open", {25, 26, 27}),
        ("raised lip corners", {12}),
        ("She Smiles broadly", {12}),
        ("a downward pull on the lip corners", {15}),
        ("the downward pull of the corners of the mouth", {15}),
        ("compressed lips", {24}),
        ("he purses his lips", {24}),
        ("wide eyes", {5}),
        ("eyes wide open", {5}),
        ("raised eyebrows", {1, 2}),
        ("raised inner corners of the eyebrows", {1}),
        ("a curl of the lips", {10}),
        ("a raised chin", {17}),
        ("closed eyes", {43, 45}),
        ("trembling lips", set()),
        ("a man walks", set()),
        ("there is no frown", set()),
        ("she is not really smiling", set()),
        ("he doesn't smile", set()),
        ("he is not happy, with a deep frown", {4}),
        ("a smiley", {12}),
        ("insmiles", set()),
    ],
)
def test_phrases(text, aus):
    found = AuLexicon.load().phrases(text)
    assert {au for phrase in found for au in phrase.aus} == aus
    assert all(0 <= phrase.start < phrase.end <= len(text) for phrase in found)


def test_weak_units_are_an_option():
    assert {au for p in AuLexicon.load(weak=True).phrases("compressed lips") for au in p.aus} == {23, 24}
    with pytest.raises(KeyError, match="no lexicon for language 'xx'; choose one of: en"):
        AuLexicon.load("xx")


def test_content_words_are_without_stop_words_and_punctuation():
    text = "The man, no longer on it, smiles ."
    words = [text[start:end] for start, end in AuLexicon.load().content_words(text)]
    assert words == ["man", "no", "longer", "smiles"]


def test_caption_becomes_ids_words_and_units(tmp_path):
    captions = CaptionTokenizer(word_piece(tmp_path), TOY)(["A man smiles with a deep frown .", "the woman looks sad"])
    names = [WORDS[i] for i in captions.ids[0, : captions.length[0]].tolist()]
    assert names == ["[CLS]", "a", "man", "smil", "##es", "with", "a", "deep", "frown", ".", "[SEP]"]
    assert captions.word[0, :11].tolist() == [-1, -1, 0, 1, 1, -1, -1, 2, 3, -1, -1]
    named = {(j, OPENGRAPHAU_MAIN[i]) for j, i in captions.word_aus[0].nonzero().tolist()}
    assert named == {(1, 12), (2, 4), (3, 4)}
    assert captions.length.tolist() == [11, 6]
    assert set(captions.ids[1, 6:].tolist()) == {0}
    assert not captions.word_aus[1].any()
    assert captions.to("cpu").ids is captions.ids


def test_long_captions_are_cut(tmp_path):
    captions = CaptionTokenizer(word_piece(tmp_path), TOY)(["the man is happy and " * 20])
    assert captions.length.tolist() == [TOY.text_length]
    assert int(captions.ids[0, -1]) == TOY.specials[1]
    assert int(captions.word.max()) < TOY.text_length


def test_decode_gives_text_and_spans(tmp_path):
    tokenizer = CaptionTokenizer(word_piece(tmp_path), TOY)
    ids = tokenizer(["a man smiles"]).ids[0, :6].tolist()
    text, spans = tokenizer.decode(ids)
    assert text == "a man smiles"
    assert [text[start:end].strip() for start, end in spans] == ["", "a", "man", "smil", "es", ""]


def test_bytes_work_as_pieces_too():
    config = EcpaConfig.from_preset("toy", vocab_size=300, special_ids=(0, 1, 2, 4), text_length=24)
    tokenizer = CaptionTokenizer(byte_level(), config)
    captions = tokenizer(["He smiles wide"])
    assert captions.word[0, 1:16].tolist() == [-1, -1, -1, 0, 0, 0, 0, 0, 0, -1, 1, 1, 1, 1, -1]
    assert tokenizer.decode(captions.ids[0, : int(captions.length[0])].tolist())[0] == "He smiles wide"


def test_tokenizer_must_fit_the_network(tmp_path):
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ words, the network 20; create the network with"):
        CaptionTokenizer(word_piece(tmp_path), EcpaConfig.from_preset("toy", vocab_size=20))


def test_missing_tokenizer_names_the_next_step(tmp_path):
    with pytest.raises(OSError, match=r"nothing to load at .*tokenizer.json.*pass its path"):
        load_tokenizer(tmp_path / "nowhere")
    word_piece(tmp_path).save_pretrained(tmp_path / "saved")
    assert len(load_tokenizer(tmp_path / "saved")) == len(WORDS)
