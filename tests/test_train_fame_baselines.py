"""Table 2's baselines: asked through a real server, good or broken, and through real local models."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from chat_server import chat_server
from media_files import count_of, write_clip

from emo_models.preprocess import middle_frames
from emo_perception.stages.cause.explainers.chat import KEY
from training.datasets.record import Dialogue, Record, Span, Utterance
from training.tables.baselines import (
    MOST_FAILURES,
    Baseline,
    answer_all,
    make_model,
    messages,
    pictures,
    question_text,
    scored,
)
from training.tables.plan import PlanError

HISTORY = (Utterance("Ross", "I bought a boat."), Utterance("Rachel", "You did what?"))
TARGET = Utterance("Ross", "It is huge!", "joy")


def record(number=0, clip=None):
    return Record(
        f"c{number}", "ecem", "test", None if clip is None else Span(clip),
        captions=(f"Ross is glad because of boat {number}.",), emotions=("joy",), vocabulary="ecem7",
        dialogue=Dialogue(f"d{number}", 2, HISTORY, TARGET),
        flags=frozenset({"no-video"} if clip is None else ()),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _without_java(monkeypatch):
    """METEOR takes seconds to start; its own tests run it."""
    monkeypatch.setenv("PATH", "")


def server_model(server, **options):
    return make_model(Baseline(url=server.url, model="tiny", **options))


def test_question_holds_the_dialogue_up_to_the_target():
    assert question_text(record()) == (
        "Ross: I bought a boat.\nRachel: You did what?\nRoss: It is huge!\n\n"
        "Explain why the emotion of the last statement is joy: why does Ross feel so?"
    )


def test_answers_of_a_server_are_scored(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    records = [record(i) for i in range(3)]
    with chat_server(answer=lambda text: "Ross is glad because of boat 1.") as server:
        answers = answer_all(records, server_model(server), tmp_path / "a.jsonl", 0)
    assert answers == dict.fromkeys(("c0", "c1", "c2"), "Ross is glad because of boat 1.")
    assert server.asked[0]["model"] == "tiny"
    assert server.asked[0]["messages"][1]["content"] == question_text(records[0])
    assert server.authorization == ["Bearer secret"] * 3
    scores = scored(records, answers)
    assert scores["answered"] == 1
    assert 0 < scores["BLEU-4"] < 1
    assert scores["CIDEr"] > 0


def test_pictures_go_along(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", frames=9, size=(96, 64), sound_s=None)
    seen = pictures(record(clip=clip), 2)
    assert [count_of(image) for image in seen] == middle_frames(9, 2).tolist()
    *shown, asked = messages("why?", seen)[1]["content"]
    assert asked == {"type": "text", "text": "why?"}
    head, _, data = shown[1]["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (64, 96, 3)
    assert abs(float(decoded.mean()) - float(seen[1].mean())) < 3
    with chat_server(answer=lambda parts: f"{len(parts)} parts") as server:
        assert server_model(server)("why?", seen) == "3 parts"


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        ("slow", "the time was up"),
        ("dies", "the answer broke off"),
        ("nonsense", "no chat completion"),
        ("error", "HTTP 500"),
        ("endless", "more than"),
    ],
)
def test_a_server_that_hangs_dies_or_talks_nonsense_stops_the_row_with_a_reason(tmp_path, behaviour, problem):
    records = [record(i) for i in range(MOST_FAILURES + 3)]
    with chat_server(behaviour, answer=lambda text: "one two three four five six") as server:
        with pytest.raises(PlanError, match=f"{MOST_FAILURES} clips in a row got no answer, the last: .*{problem}"):
            answer_all(
                records, server_model(server, limit_s=0.15 if behaviour == "slow" else 10.0), tmp_path / "a.jsonl", 0
            )
        assert len(server.asked) == MOST_FAILURES


def test_a_row_goes_on_where_it_was_and_counts_what_has_no_answer(tmp_path):
    records = [record(i) for i in range(4)]
    file = tmp_path / "a.jsonl"
    file.write_text(
        '{"clip_id": "c0", "text": "kept"}\n{"clip_id": "c1", "te', encoding="utf-8"
    )  # killed while writing
    asked = []

    def model(text, images):
        asked.append(text)
        return "" if len(asked) == 2 else "Ross is glad."

    answers = answer_all(records, model, file, 0)
    assert answers == {"c0": "kept", "c1": "Ross is glad.", "c3": "Ross is glad."}
    assert [json.loads(line)["clip_id"] for line in file.read_text().splitlines()] == ["c0", "c1", "c3"]
    assert scored(records, answers)["answered"] == 0.75
    answer_all(records, model, file, 0)
    assert len(asked) == 4  # c2 alone was asked for again


def test_a_clip_without_video_has_no_answer_from_pictures(tmp_path):
    with pytest.raises(PlanError, match="none of 1 clips got an answer"):
        answer_all([record()], lambda text, images: "words", tmp_path / "a.jsonl", 2)


def test_where_the_model_is_must_be_said():
    for wrong in (Baseline(), Baseline(url="http://x/v1", folder="y")):
        with pytest.raises(PlanError, match="expected a server or a local model"):
            make_model(wrong)
    with pytest.raises(ValueError, match=r"options.baseline.url: expected a base URL"):
        make_model(Baseline(url="localhost", model="m"))


def chat_template(pictures):
    part = "{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}"
    return f"{{% for m in messages %}}USER: {part if pictures else '{{ m.content }}'}{{% endfor %}} ASSISTANT:"


def save_local(folder: Path, *, pictures: bool, template: bool = True) -> None:
    """A tiny chat model with random weights, saved as published ones are."""
    pytest.importorskip("torch", reason="local models need torch")
    transformers = pytest.importorskip("transformers", reason="local models come from transformers")
    from emo_models.networks.language import train_tokenizer

    tokenizer = train_tokenizer(["why does Ross feel joy"], 300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    llama = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    if not pictures:
        transformers.LlamaForCausalLM(llama).save_pretrained(folder)
        tokenizer.chat_template = chat_template(False) if template else None
        tokenizer.save_pretrained(folder)
        return
    vision = transformers.CLIPVisionConfig(
        image_size=28, patch_size=14, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=llama, image_token_index=tokenizer.convert_tokens_to_ids("<image>")
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = pytest.importorskip("transformers.models.clip.image_processing_pil_clip", reason="needs Pillow")
    transformers.LlavaProcessor(
        images.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=28), tokenizer, patch_size=14,
        vision_feature_select_strategy="default", chat_template=chat_template(True), num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip


@pytest.mark.parametrize("with_pictures", [False, True])
def test_local_models_answer(tmp_path, with_pictures):
    save_local(tmp_path, pictures=with_pictures)
    model = make_model(Baseline(folder=str(tmp_path), frames=2 * with_pictures))
    images = [np.zeros((40, 30, 3), np.uint8)] * (2 * with_pictures)
    answer = model("why does Ross feel joy", images)
    assert answer
    assert "ASSISTANT" not in answer
    assert model("why does Ross feel joy", images) == answer


def test_a_folder_without_a_chat_model_is_refused(tmp_path):
    with pytest.raises(PlanError, match=r"expected a model of transformers with its config.json"):
        make_model(Baseline(folder=str(tmp_path)))
    save_local(tmp_path, pictures=False, template=False)
    with pytest.raises(PlanError, match="no chat template"):
        make_model(Baseline(folder=str(tmp_path)))
