"""FAME-Net from nothing on a drawn world: its CLIP, its language model, g; questions with and without each evidence."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("accelerate", reason="the trainer runs on accelerate")

from fame_toys import answer, draw, lesson, lessons, recipe, write_ecem  # noqa: E402

import emo_models  # noqa: E402
from emo_models.checkpoints import load_weights, read_card, save_weights  # noqa: E402
from emo_models.networks.fame.prompt import FaceExpression, PromptTokenizer  # noqa: E402
from emo_models.networks.fame.streaming import DyadicVideo, dyadic_frames  # noqa: E402
from emo_models.networks.language import load_language, train_tokenizer  # noqa: E402
from training.datasets import read_dataset  # noqa: E402
from training.datasets.record import DatasetError, Span  # noqa: E402
from training.prepare.video import Video  # noqa: E402
from training.tasks.fame_align import caption_vector  # noqa: E402
from training.tasks.fame_data import grid_images  # noqa: E402
from training.tasks.lessons import LessonEncoder, places, read_lessons, texts, write_lessons  # noqa: E402
from training.tasks.questions import ALL, Inputs, pack_faces, question, unpack_faces  # noqa: E402
from training.trainer.loop import train  # noqa: E402
from training.trainer.recipe import RecipeError  # noqa: E402
from training.trainer.task import DoomedRunError, create_task  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No Java, for METEOR takes seconds, and a cache of this test alone."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """ECEM with clips, lessons, and the two frozen networks as the trainings write them, hardly trained."""
    root = tmp_path_factory.mktemp("world")
    write_ecem(root / "ecem")
    lessons(root / "lessons")
    language = recipe("language", root / "language", ("lessons", root / "lessons"), evaluate={"split": "val"}, epochs=4)
    clip = recipe(
        "clip", root / "clip", ("ecem", root / "ecem"), options={"features": str(root / "features"), "frames": 2}
    )
    results = {r.task: train(r) for r in (language, clip)}
    return root, results


def fame_recipe(world, out, inputs="V", **changes):
    root, results = world
    weights = {name: str(results[name].weights) for name in ("language", "clip")}
    options = {"inputs": inputs, "features": str(root / "features"), **changes.pop("options", {})}
    network = {"weights": weights, "options": {"frames": 4, "max_length": 500, "max_new_tokens": 8}}
    return recipe("fame", out, ("ecem", root / "ecem"), network=network, options=options, **changes)


# -- questions -----------------------------------------------------------------------------------------------------------


def test_inputs_are_parsed_and_wrong_ones_named():
    assert Inputs.parse("E+V") == Inputs(video=True, text=False, faces=True)
    assert str(Inputs.parse("E+V")) == "V+E"
    assert str(Inputs.parse("none")) == "none"
    for wrong in ("", "V+V", "V+X", "vte"):
        with pytest.raises(ValueError, match="expected kinds of evidence out of V, T, E"):
            Inputs.parse(wrong)


def test_a_question_holds_what_its_inputs_allow(world):
    record = read_dataset("ecem", world[0] / "ecem").records[0]
    faces = (FaceExpression("Ann", "fear", 0.5),)
    whole = question(record, faces, ALL)
    assert whole.target.text == "Look at that"
    assert whole.faces == faces
    bare = question(record, faces, Inputs.parse("none"))
    assert (bare.history, bare.target.text, bare.faces) == ((), "", ())
    assert (bare.target.speaker, bare.emotion) == ("Ann", record.emotions[0])
    with pytest.raises(ValueError, match="no dialogue"):
        question(dataclasses.replace(record, dialogue=None), faces)


def test_faces_go_through_the_store():
    labels = ("neutral", "fear")
    faces = (FaceExpression("Zoë B", "fear", 0.5), FaceExpression("person 2", "neutral", 0.25))
    assert unpack_faces(pack_faces(faces, labels), labels) == faces
    assert unpack_faces(pack_faces((), labels), labels) == ()


# -- language ------------------------------------------------------------------------------------------------------------


def test_lessons_go_through_their_file(tmp_path):
    made = [lesson(random.Random(i)) for i in range(3)]
    write_lessons(tmp_path, "train", made)
    assert read_lessons(tmp_path) == {"train": made, "val": [], "test": []}
    (tmp_path / "train.jsonl").write_text('{"query": 1}\n')
    with pytest.raises(DatasetError, match=r"train.jsonl, line 1: no lesson"):
        read_lessons(tmp_path)
    with pytest.raises(DatasetError, match=r"expected lessons in train.jsonl"):
        read_lessons(tmp_path / "nowhere")


def test_places_hold_words_singly_in_pairs_or_all_mixed():
    assert places(("red ball left",), 1) == ["red", "ball", "left"]
    assert places(("red ball left",), 2) == ["red ball", "left"]
    assert places(("red ball left", "dark"), 0) == ["red ball left", "dark"]
    (mixed,) = places(("a b c d e f g h",), 0, np.random.default_rng(0))
    assert sorted(mixed.split()) == list("abcdefgh")
    assert mixed != "a b c d e f g h"


def test_an_exercise_is_the_papers_prompt_with_places_for_the_video():
    one = lesson(random.Random(0))
    tokenizer = train_tokenizer(texts([one]), 400)
    prompts = PromptTokenizer(tokenizer, 400)
    exercise = LessonEncoder(prompts)(one)
    assert len(exercise.bags) == 3
    assert exercise.ids.count(400) == 3
    assert max(exercise.ids) == 400  # no sign of the video
    said = prompts.decode(exercise.ids[exercise.question : -1])
    assert said == " " + one.answer
    assert prompts.decode(exercise.bags[0]) == " " + one.moments[0]
    question_text = prompts.decode([i for i in exercise.ids[: exercise.question] if i < 400])
    assert question_text.startswith("USER: Explain why the emotion of this statement is")
    assert question_text.endswith("Assistant:")


def test_language_loss_is_that_of_the_words_and_never_of_the_places(world, tmp_path):
    task = create_task(recipe("language", tmp_path, ("lessons", world[0] / "lessons"), options={"noise": 0.0}))
    data = task.dataset("train")
    assert data[3] == data[3]  # the same in every process
    batch = task.collate([data[i] for i in range(4)])
    place = batch["ids"] >= task.network.config.words
    assert place.sum() == len(batch["offsets"])
    assert not batch["weight"][place].any()
    assert (batch["weight"][batch["answer"]] == 1).all()
    total, parts = task.loss(batch)
    with torch.no_grad():
        log = task._scores(batch, 0.0).log_softmax(-1)
    sums, weights = 0.0, 0.0
    for b in range(4):
        for i in range(1, batch["ids"].shape[1]):
            weight = float(batch["weight"][b, i])
            if weight:
                sums, weights = sums - weight * float(log[b, i - 1, batch["ids"][b, i]]), weights + weight
    assert total.item() == pytest.approx(sums / weights, rel=1e-4)
    assert set(parts) == {"answer loss"}


def test_language_model_learns_and_is_found_again_with_its_tokenizer(world):
    _, results = world
    result = results["language"]
    assert 0 <= result.metrics["answers exact"] <= 1
    assert result.metrics["answer loss"] < 0.8 * math.log(320)
    llm, tokenizer = load_language(result.weights)
    assert llm.config.vocab_size == 320
    assert tokenizer.decode(tokenizer("Ann feels joy", add_special_tokens=False)["input_ids"]) == "Ann feels joy"
    with pytest.raises(RecipeError, match="this task learns from lessons or toy_scripts"):
        create_task(recipe("language", world[0] / "x", ("ecem", world[0] / "ecem")))


# -- clip ----------------------------------------------------------------------------------------------------------------


def test_clip_batches_know_who_belongs_to_whom(world, tmp_path):
    root, results = world
    options = {"features": str(root / "features"), "frames": 2}
    task = create_task(recipe("clip", tmp_path, ("ecem", root / "ecem"), options=options))
    data = task.dataset("train")
    items = [data[i] for i in (0, 1, 0)]
    batch = task.collate(items)
    assert batch["image"].shape == (3, 3, 56, 56)
    assert (batch["same"].sum(1) == 1).all()
    assert torch.equal(batch["same"][0], batch["same"][2])
    assert batch["ids"].shape[0] == len({item["caption"] for item in items})
    loss, parts = task.loss(batch)
    loss.backward()
    assert 0 <= parts["right caption"] <= 1
    assert all(p.grad is not None for p in task.network.parameters())
    assert 0 <= results["clip"].metrics["right caption"] <= 1


# -- fame ----------------------------------------------------------------------------------------------------------------


def test_frames_are_those_of_the_stream(world):
    """The images of the grid give the same R as a stream that decides frame by frame."""
    root, _ = world
    file = root / "ecem" / "videos" / "0_1.mp4"
    task = create_task(fame_recipe(world, root / "grid"))
    images = grid_images(Video([Span(file)]), 4, 10.0, task._transform())
    assert list(images) == dyadic_frames(range(12), 4) == [0, 4, 8]
    stream = DyadicVideo(4)
    for number, frame in enumerate(Video([Span(file)]).frames()):
        if stream.wants(number):
            stream.push(task.network.frame_features(torch.from_numpy(task._transform()(frame.image))[None])[0], number)
    record = next(r for r in task.records["train"] if r.clip_id == "0_1")
    task.dataset("train")
    assert torch.allclose(task.features(record), stream.current().features(), atol=2e-3)  # kept in half precision


def test_g_can_start_from_words_for_pictures(world, tmp_path):
    """Then a picture's row of R is nearest to its own caption's words; only a linear g can start so."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    captions = {"red": "red ball", "blue": "blue ball"}
    rows = ["image,split,caption"]
    for number in range(12):
        colour = ("red", "blue")[number % 2]
        cv2.imwrite(str(folder / f"{number}.png"), draw(colour, ("left", "right")[number % 3 % 2], number)[..., ::-1])
        rows.append(f"{number}.png,train,{captions[colour]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    task = create_task(fame_recipe(world, tmp_path / "run", options={"align": str(folder)}))
    words = torch.stack([caption_vector(task.network, task.prompts.tokenizer, text) for text in captions.values()])
    for number, colour in enumerate(("red", "blue")):
        image = torch.from_numpy(task._transform()(draw(colour, "left", 1)))
        row = task.network.project(task.network.frame_features(image[None]).mean(1))
        assert int(torch.cdist(row, words).argmin()) == number
    mlp = dataclasses.replace(task.recipe.network, options={**task.recipe.network.options, "projector": "mlp2x_gelu"})
    with pytest.raises(RecipeError, match="a linear g starts so"):
        create_task(dataclasses.replace(task.recipe, network=mlp))


def test_only_g_and_new_tokens_learn_and_the_weights_stand_alone(world, tmp_path):
    result = train(fame_recipe(world, tmp_path / "run"))
    again, card = load_weights(result.weights)
    start = create_task(fame_recipe(world, tmp_path / "start")).network
    assert card.notes["inputs"] == "V"
    changed = {n for n, p in again.named_parameters() if not torch.equal(p, start.get_parameter(n))}
    assert changed == {"new_tokens", "mm_projector.weight", "mm_projector.bias"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions-ecem-test.jsonl").read_text().splitlines()]
    assert [line["clip_id"] for line in lines] == ["1000_1", "1001_1", "1002_1", "1003_1"]
    assert {"BLEU-4", "CIDEr", "ROUGE-L"} <= set(result.metrics)
    assert next(iter(result.metrics)) == "CIDEr"
    assert read_card(result.weights).data == ("ecem",)


@pytest.mark.parametrize("inputs", ["none", "T"])
def test_without_video_there_are_no_tokens_of_it(world, tmp_path, inputs):
    task = create_task(fame_recipe(world, tmp_path, inputs))
    item = task.dataset("train")[0]
    assert item.features.shape == (0, 64)
    assert item.prompt.ids.count(task.network.words) == 0
    task.loss([item])[0].backward()
    assert task.network.new_tokens.grad is not None


def test_an_unloaded_language_model_dooms_the_run(world, tmp_path):
    _, results = world
    card = read_card(results["language"].weights)
    fresh = emo_models.create("language", "toy")
    with torch.no_grad():
        for p in fresh.parameters():
            p.mul_(5.0)
    notes = {"tokenizer": card.notes["tokenizer"]}
    save_weights(fresh, tmp_path / "random.safetensors", dataclasses.replace(card, notes=notes))
    bad = fame_recipe(world, tmp_path / "run")
    weights = {**bad.network.weights, "language": str(tmp_path / "random.safetensors")}
    with pytest.raises(DoomedRunError, match="its weights were not loaded"):
        train(dataclasses.replace(bad, network=dataclasses.replace(bad.network, weights=weights)))


def test_what_a_recipe_gets_wrong_is_named(world, tmp_path):
    good = fame_recipe(world, tmp_path)

    def changed(**weights):
        return dataclasses.replace(good, network=dataclasses.replace(good.network, weights=weights))

    with pytest.raises(RecipeError, match=r"network.weights.language: missing"):
        create_task(changed())
    with pytest.raises(RecipeError, match="no part voice; there are language"):
        create_task(changed(voice="x"))
    with pytest.raises(RecipeError, match=r"network.weights.clip: no file"):
        create_task(changed(language=good.network.weights["language"], clip="nowhere.safetensors"))
    with pytest.raises(RecipeError, match=r"options.inputs: expected kinds of evidence"):
        create_task(fame_recipe(world, tmp_path, "V+A"))
    with pytest.raises(DatasetError, match="truth is for a toy world"):
        create_task(fame_recipe(world, tmp_path, "V+E", options={"faces": "truth"}))


def test_drawn_worlds_look_different():
    assert not np.array_equal(draw("red", "left", 0), draw("blue", "left", 0))
    assert "red" in answer("red", "left", "joy")
