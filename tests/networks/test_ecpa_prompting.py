"""VEP and TEP: pooling, ranking and null vectors of the visual prompts, class branch, masking of words."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

from emo_models.labels import OPENGRAPHAU_MAIN  # noqa: E402
from emo_models.networks.ecpa.tep import ClassBranch, WordMasking  # noqa: E402
from emo_models.networks.ecpa.vep import AuLevelPrompting, ErLevelPrompting  # noqa: E402

UNITS = len(OPENGRAPHAU_MAIN)


def scores_and_nodes(frames=6, width=5):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, frames, UNITS, generator=generator) * 0.5
    return scores, torch.rand(2, frames, UNITS, width, generator=generator)


def test_er_prompt_is_the_mlp_of_the_mean_over_valid_frames():
    prompting = ErLevelPrompting(4, 8)
    features = torch.randn(2, 3, 4)
    valid = torch.tensor([[True, False, True], [False, False, False]])
    prompt = prompting(features, valid)
    assert prompt.tokens.shape == (2, 1, 8)
    assert torch.allclose(prompt.tokens[0, 0], prompting.mlp((features[0, 0] + features[0, 2]) / 2), atol=1e-6)
    assert torch.equal(prompt.tokens[1, 0], prompting.null)
    assert prompt.valid.tolist() == [[True], [False]]


def test_au_prompts_rank_the_mean_score_and_weigh_the_nodes():
    scores, nodes = scores_and_nodes()
    valid = torch.tensor([[True] * 6, [True, False, True, True, False, False]])
    scores[1, 1, 20] = 50.0  # in a frame without a face
    prompting = AuLevelPrompting(8, top_k=3, width=5)
    prompts = prompting(nodes, scores, valid)
    for clip in range(2):
        mean = scores[clip, valid[clip]].mean(0)
        assert prompts.index[clip].tolist() == mean.argsort(descending=True)[:3].tolist()
        for k, unit in enumerate(prompts.index[clip].tolist()):
            s, n = scores[clip, valid[clip], unit], nodes[clip, valid[clip], unit]
            f = (s[:, None] * n).sum(0) / (s.sum() + 1e-6)
            assert torch.allclose(prompts.tokens[clip, k], prompting.norm(prompting.fc(f)), atol=1e-5)
    assert bool(prompts.valid.all())


def test_au_prompts_of_a_clip_without_a_face_are_invalid_and_finite():
    scores, nodes = scores_and_nodes()
    prompts = AuLevelPrompting(8, width=5)(nodes, scores, torch.zeros(2, 6, dtype=torch.bool))
    assert not prompts.valid.any()
    assert bool(prompts.tokens.isfinite().all())


def test_excluded_units_are_never_selected():
    scores, nodes = scores_and_nodes()
    eleven = OPENGRAPHAU_MAIN.index(11)
    scores[..., eleven] = 1.0
    valid = torch.ones(2, 6, dtype=torch.bool)
    assert bool((AuLevelPrompting(8, width=5)(nodes, scores, valid).index == eleven).any())
    assert not (AuLevelPrompting(8, width=5, exclude=(11,))(nodes, scores, valid).index == eleven).any()
    with pytest.raises(ValueError, match=r"au_exclude names \[3\], which ANFL does not report"):
        AuLevelPrompting(8, exclude=(3,))


def test_per_frame_pooling_takes_evenly_spaced_valid_frames():
    scores, nodes = scores_and_nodes(frames=9)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[0, 1] = False
    valid[1] = torch.tensor([0, 0, 1, 0, 0, 0, 1, 0, 0]).bool()
    prompting = AuLevelPrompting(8, top_k=3, frames=3, width=5)
    prompts = prompting(nodes, scores, valid)
    assert prompts.tokens.shape == (2, 9, 8)
    used = [[prompts.frames[clip, 3 * slot].nonzero()[:, 0].tolist() for slot in range(3)] for clip in range(2)]
    assert used == [[[0], [4], [8]], [[2], [6], []]]
    assert prompts.valid[1].tolist() == [True] * 6 + [False] * 3
    unit = int(scores[0, 4].argmax())
    assert int(prompts.index[0, 3]) == unit
    assert torch.allclose(prompts.tokens[0, 3], prompting.norm(prompting.fc(nodes[0, 4, unit])), atol=1e-4)


def test_identity_embedding_starts_at_zero_and_tells_units_apart():
    scores, nodes = scores_and_nodes()
    valid = torch.ones(2, 6, dtype=torch.bool)
    torch.manual_seed(0)
    plain = AuLevelPrompting(8, width=5)(nodes, scores, valid)
    torch.manual_seed(0)
    prompting = AuLevelPrompting(8, width=5, identity=True)
    assert torch.equal(prompting(nodes, scores, valid).tokens, plain.tokens)
    torch.nn.init.normal_(prompting.identity.weight)
    moved = prompting(nodes, scores, valid).tokens - plain.tokens
    assert torch.allclose(moved, prompting.identity(plain.index), atol=1e-5)


def test_class_token_is_the_same_in_training_and_inference_and_knows_no_text():
    branch = ClassBranch(5, 8, text_dropout=0.0)
    p_er, h = torch.randn(4, 1, 8), torch.randn(4, 8)
    trained, bare = branch.train()(p_er, h), branch.eval()(p_er)
    assert torch.equal(trained.q, bare.q)
    assert torch.allclose(bare.q[:, 0], bare.z.softmax(1) @ branch.E)
    assert (trained.z - bare.z).abs().max() > 1e-3
    assert torch.allclose(trained.p_vis, bare.p_vis)


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_text_dropout_hides_its_share_of_captions(rate, share):
    torch.manual_seed(0)
    branch = ClassBranch(5, 8, text_dropout=rate).train()
    p_er, h = torch.randn(2000, 1, 8), torch.randn(2000, 8)
    hidden = torch.isclose(branch(p_er, h).z, branch(p_er).z).all(1).float().mean()
    assert float(hidden) == pytest.approx(share, abs=0.05)
    assert not torch.isclose(branch.eval()(p_er, h).z, branch(p_er).z).all(1).any()


@pytest.mark.parametrize("reaches", [False, True])
def test_class_token_grad(reaches):
    branch = ClassBranch(5, 8, class_token_grad=reaches)
    branch(torch.randn(3, 1, 8)).q.square().sum().backward()
    assert branch.E.grad is not None
    assert float(branch.E.grad.abs().sum()) > 0
    grads = [parameter.grad for parameter in branch.classifier.parameters()]
    assert all((grad is not None) is reaches for grad in grads)


def test_class_embeddings_start_at_the_words():
    branch = ClassBranch(2, 3)
    words = torch.arange(12.0).view(4, 3)
    branch.init_class_embeddings(words, [[1], [0, 3]])
    assert branch.E.tolist() == [[3, 4, 5], [4.5, 5.5, 6.5]]
    with pytest.raises(ValueError, match="expected the pieces of 2 class names, got 1"):
        branch.init_class_embeddings(words, [[1]])


@pytest.mark.parametrize("rate", [0.5, 0.15])
def test_masking_selects_and_replaces_as_bert(rate):
    generator = torch.Generator().manual_seed(0)
    ids = torch.full((3000, 20), 7)
    length = torch.full((3000,), 18)
    masked = WordMasking(mask_id=4, words=1000, rate=rate)(ids, length, generator)
    assert not masked.selected[:, 0].any()
    assert not masked.selected[:, 18:].any()
    assert float(masked.selected[:, 1:18].float().mean()) == pytest.approx(rate, abs=0.015)
    chosen = masked.ids[masked.selected]
    assert float((chosen == 4).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((chosen == 7).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert torch.equal(masked.ids[~masked.selected], ids[~masked.selected])


def test_masking_has_bounds():
    ids, length = torch.full((500, 60), 7), torch.full((500,), 60)
    assert int(WordMasking(4, 10, rate=1.0)(ids, length).selected.sum(1).max()) == 45
    short = WordMasking(4, 10, rate=0.01)(ids[:, :4], torch.full((500,), 2))
    assert short.selected.sum(1).tolist() == [1] * 500
    with pytest.raises(ValueError, match=r"mask_rate must be in \(0, 1\], got 0"):
        WordMasking(4, 10, rate=0)
