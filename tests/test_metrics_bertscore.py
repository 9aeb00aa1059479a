"""BERTScore with a tiny random model, by its definition written out in loops."""

import sys

import pytest

from training.metrics.base import MetricError, hash_of
from training.metrics.bertscore import BertScorer
from training.metrics.bleurt import BleurtScorer
from training.metrics.captions import score_captions

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "woman", "smiles", "frowns", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of two layers with random weights."""
    place = tmp_path_factory.mktemp("model")
    (place / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(str(place / "vocab.txt")).save_pretrained(place)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(place)
    return place


def by_hand(folder, layer, candidate, reference):
    """Precision and recall, token by token."""
    model = transformers.BertModel.from_pretrained(folder).eval()
    vectors = []
    for text in (candidate, reference):
        ids = [2, *(WORDS.index(word) if word in WORDS else 1 for word in text.split()), 3]
        with torch.no_grad():
            vectors.append(model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0])

    def mean_best(ours, theirs):
        best = [max(torch.cosine_similarity(u, v, dim=0).item() for v in theirs) for u in ours[1:-1]]
        return sum(best) / len(best)

    return mean_best(*vectors), mean_best(*vectors[::-1])


def test_it_is_the_greedy_match_of_its_definition(folder):
    scorer = BertScorer(folder, layer=1, batch=2)
    scores = scorer.score(["a man smiles", "a dog"], [["a woman frowns a dog", "a man"], "a dog"])
    one = by_hand(folder, 1, "a man smiles", "a woman frowns a dog")
    two = by_hand(folder, 1, "a man smiles", "a man")
    assert scores.precision[0] == pytest.approx(max(one[0], two[0]), abs=1e-5)
    assert scores.recall[0] == pytest.approx(max(one[1], two[1]), abs=1e-5)
    assert scores.f1[0] == pytest.approx(max(2 * p * r / (p + r) for p, r in (one, two)), abs=1e-5)
    assert scores.f1[1] == pytest.approx(1, abs=1e-5)
    unknown = scorer.score(["a cat"], ["a zebra smiles"])  # words that are not in the vocabulary count, too
    assert (unknown.precision[0], unknown.recall[0]) == pytest.approx(
        by_hand(folder, 1, "a cat", "a zebra smiles"), abs=1e-5
    )
    assert scorer.score([""], ["a dog"]).f1 == (0.0,)


def test_it_joins_the_other_scores_with_model_and_hash(folder):
    pytest.importorskip("pycocoevalcap.bleu.bleu")
    scores = score_captions({"x": "a man smiles"}, {"x": ["a man"]}, extra=[BertScorer(folder, 2)], meteor=False)
    assert 0 < scores.values["BERTScore"] < 1
    assert "BERTScore" not in scores.absent
    assert hash_of(folder) in scores.versions["BERTScore"]
    assert "bert, layer 2 of 2" in scores.versions["BERTScore"]


def test_another_model_has_another_hash(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert hash_of(tmp_path) == hash_of(folder)
    (tmp_path / "vocab.txt").write_text("x")
    assert hash_of(tmp_path) != hash_of(folder)


def test_what_is_missing_is_said(folder, tmp_path, monkeypatch):
    with pytest.raises(MetricError, match=r"config\.json is missing"):
        BertScorer(tmp_path)
    with pytest.raises(MetricError, match="say which one to compare, 1 to 2"):
        BertScorer(folder)
    with pytest.raises(MetricError, match=r"bleurt_config\.json is missing"):
        BleurtScorer(tmp_path)
    (tmp_path / "bleurt_config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "bleurt", None)
    with pytest.raises(MetricError, match="pip install git"):
        BleurtScorer(tmp_path)
    with pytest.raises(MetricError, match="as many candidates"):
        BertScorer(folder, 1).score(["a"], [])
