"""The tasks of the networks for faces, on small data sets in the real layouts; losses and assignment by hand."""

from __future__ import annotations

import csv
import math
from importlib.metadata import EntryPoint

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("accelerate", reason="training needs accelerate")
pytest.importorskip("tensorboard", reason="training logs to TensorBoard")

import emo_models  # noqa: E402
from emo_models.checkpoints import load_weights  # noqa: E402
from emo_models.detection import decode  # noqa: E402
from emo_models.networks.scrfd import SCRFDOutput  # noqa: E402
from emo_models.preprocess import TRANSFORMS, fit_into  # noqa: E402
from emo_models.weights import MissingWeights, toy_path  # noqa: E402
from emo_perception.tools import cli  # noqa: E402
from training.datasets import DatasetError  # noqa: E402
from training.losses.action_units import unit_weights, weighted_asymmetric  # noqa: E402
from training.losses.attention import head_distance  # noqa: E402
from training.losses.detection import anchors_of, assign, detection_loss, distance_iou, overlaps  # noqa: E402
from training.metrics.detection import score_detections  # noqa: E402
from training.tasks.detector import DetectorOptions  # noqa: E402
from training.tasks.face_task import FaceOptions  # noqa: E402
from training.tasks.pictures import Variation, form_of  # noqa: E402
from training.tasks.scenes import Scene, SceneVariation, retinaface  # noqa: E402
from training.trainer import command  # noqa: E402
from training.trainer.log import read_metrics  # noqa: E402
from training.trainer.loop import train  # noqa: E402
from training.trainer.recipe import RecipeError, from_dict, load_recipe, read_options, recipe_names  # noqa: E402
from training.trainer.task import TASKS, create_task  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def recipe(task, data, root, out, **changes):
    networks = {"er": "er_resnet", "detector": "scrfd"}
    values = {
        "task": task, "network": {"name": networks.get(task, task), "preset": "toy"},
        "data": {"name": data, "root": str(root)}, "optimiser": {"lr": 3e-3}, "epochs": 4, "batch": 8,
        "evaluate": {"every": 0, "split": "val"}, "out": str(out), **changes,
    }  # fmt: skip
    return from_dict(values)


def grin(mood: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A drawn face: its mouth bends up (1) or down (0)."""
    image = np.full((size, size, 3), rng.integers(60, 120, 3), np.uint8)
    s, (x, y) = size / 64, rng.integers(28, 36, 2) * size / 64
    cv2.circle(image, (int(x), int(y)), int(24 * s), (190, 200, 220), -1)
    for side in (-1, 1):
        cv2.circle(image, (int(x + 9 * side * s), int(y - 8 * s)), int(3 * s), (20, 20, 20), -1)
    cv2.ellipse(
        image,
        (int(x), int(y + 9 * s)),
        (int(12 * s), int(8 * s)),
        0,
        0 if mood else 180,
        180 if mood else 360,
        (30, 30, 150),
        int(4 * s),
    )
    return image


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """``SPLIT/CLASS/*.png``: happy and sad faces."""
    root, rng = tmp_path_factory.mktemp("folders"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for mood, name in enumerate(("sad", "joy")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                cv2.imwrite(str(root / split / name / f"{number}.png"), grin(mood, 64, rng))
    return root


@pytest.fixture(scope="module")
def au_table(folders, tmp_path_factory):
    """``labels.csv`` for action units: AU12 and AU15 are the mouth, AU4 is unknown, others have no column."""
    rows = [
        {"image": p.relative_to(folders).as_posix(), "split": p.parts[-3], "AU12": int(p.parts[-2] == "joy"),
         "AU15": int(p.parts[-2] == "sad"), "AU4": -1 if p.stem == "0" else 0}
        for p in sorted(folders.rglob("*.png"))
    ]  # fmt: skip
    with (folders / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folders


# Networks learn


def test_er_learns_from_folders(folders, tmp_path):
    result = train(
        recipe(
            "er", "folders", folders, tmp_path / "run", options={"size": 64, "variation": {"flip": True, "light": 0.2}}
        )
    )
    assert next(iter(result.metrics)) == "UAR"
    assert result.metrics["UAR"] >= 0.9
    network, card = load_weights(result.weights)
    assert card.labels[3] == "happiness"
    assert card.preprocessing["size"] == 64
    image = cv2.cvtColor(cv2.imread(str(folders / "val" / "joy" / "1.png")), cv2.COLOR_BGR2RGB)
    with torch.no_grad():
        logits = network(torch.from_numpy(form_of("imagenet224", 64)(image))[None]).logits
    assert card.labels[int(logits.argmax())] == "happiness"


def test_ddamfn_learns_and_its_heads_differ(folders, tmp_path):
    result = train(recipe("ddamfn", "folders", folders, tmp_path / "run", options={"size": 112}, epochs=3))
    # Batch norm has seen too few batches for its statistics to serve an evaluation; training tells that it learns.
    epochs = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "epoch"]
    assert epochs[-1]["accuracy"] > 0.9
    assert epochs[-1]["heads"] < epochs[0]["heads"] / 2
    network, card = load_weights(result.weights)
    assert card.labels[:3] == ("neutral", "happy", "sad")
    with torch.no_grad():
        attention = network.attention(network.features(torch.rand(2, 3, 112, 112)))
    assert (attention[:, 0] - attention[:, 1]).abs().max() > 0.05


def test_anfl_learns_from_a_table_with_unknown_labels(au_table, tmp_path):
    result = train(recipe("anfl", "table", au_table, tmp_path / "run", options={"size": 64}))
    assert result.metrics["AU AUC"] >= 0.9
    _, card = load_weights(result.weights)
    assert card.labels[9] == "AU12"


def test_anfl_reads_opengraphaus_lists(au_table, tmp_path):
    (tmp_path / "list").mkdir()
    (tmp_path / "img").symlink_to(au_table)
    for split, names in (("train", ["train/joy/1.png", "train/sad/1.png"]), ("val", ["val/joy/1.png"])):
        (tmp_path / "list" / f"hybrid_{split}_img_path.txt").write_text("\n".join(names) + "\n")
        (tmp_path / "list" / f"hybrid_{split}_label.txt").write_text(
            "\n".join(" ".join(["1", "-1"] + ["0"] * 39) for _ in names)
        )
    task = create_task(recipe("anfl", "opengraphau", tmp_path, tmp_path / "run"))
    assert [len(task.dataset(split)) for split in ("train", "val")] == [2, 1]
    assert task.dataset("train")[0]["label"].tolist() == [1, -1] + [0] * 39
    assert task.dataset("val")[0]["image"].shape == (3, 224, 224)
    (tmp_path / "list" / "hybrid_val_label.txt").write_text("1 0 1\n")
    with pytest.raises(DatasetError, match=r"hybrid_val_label.txt, line 1: expected 41 labels, .* got 3"):
        create_task(recipe("anfl", "opengraphau", tmp_path, tmp_path / "run")).dataset("val")


@pytest.fixture(scope="module")
def wider(tmp_path_factory):
    """WIDER FACE's layout with RetinaFace's points: drawn faces in noise."""
    root, rng = tmp_path_factory.mktemp("wider"), np.random.default_rng(1)
    for split, count in (("train", 40), ("val", 10)):
        (root / split / "images" / "0--Parade").mkdir(parents=True)
        lines = []
        for number in range(count):
            image = rng.integers(0, 90, (96, 128, 3)).astype(np.uint8)
            name = f"0--Parade/{number}.png"
            lines.append(f"# {name} 128 96")
            for left in (4, 68)[: rng.integers(1, 3)]:
                side = int(rng.integers(24, 44))
                x, y = left + int(rng.integers(0, 56 - side)), int(rng.integers(2, 94 - side))
                image[y : y + side, x : x + side] = cv2.resize(
                    grin(1, 64, np.random.default_rng(3))[8:56, 8:56], (side, side)
                )
                at = np.array([[0.31, 0.33], [0.69, 0.33], [0.5, 0.5], [0.3, 0.7], [0.7, 0.7]]) * side + (x, y)
                points = " ".join(f"{px:.1f} {py:.1f} 0.0" for px, py in at)
                lines.append(f"{x} {y} {x + side} {y + side} {points} 0.9")
            lines.append("1 1 9 9")  # a small face without points
            cv2.imwrite(str(root / split / "images" / name), image)
        (root / split / "labelv2.txt").write_text("\n".join(lines) + "\n")
    return root


def test_detector_learns_and_its_engine_side_finds_faces(wider, tmp_path):
    options = {"size": [96, 128], "variation": {"flip": True, "light": 0.2}}
    changes = {"epochs": 11, "optimiser": {"lr": 1e-2, "clip": 10.0}, "options": options}
    result = train(recipe("detector", "retinaface", wider, tmp_path / "run", **changes))
    assert result.metrics["AP"] > 0.5  # the unmarked small faces are half of all
    network, card = load_weights(result.weights)
    assert card.preprocessing == {"image": "fit_into", "size_hw": [96, 128]}
    scene = retinaface(wider, "val")[0]
    big = cv2.resize(scene.load(), None, fx=2, fy=2)
    tensor, factor = fit_into(big, (96, 128))
    with torch.no_grad():
        maps = {name: value.numpy() for name, value in network(torch.from_numpy(tensor)[None])._asdict().items()}
    best = decode(maps, (96, 128), scale=factor, least_score=0.1)
    true = scene.boxes[scene.boxes[:, 2] > 10] * 2
    assert max(float(overlaps(corners(best.boxes[:1, :4]), corners(box[None]))) for box in true) > 0.6
    assert result.metrics["point error"] < 0.25


def corners(boxes):
    boxes = torch.from_numpy(boxes)
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


# Losses by hand


def test_asymmetric_loss_by_hand():
    scores = torch.tensor([[0.8, 0.3, 0.9]])
    labels = torch.tensor([[1, 0, -1]])
    expected = (2.0 * -math.log(0.8) + 1.0 * 0.3 * -math.log(0.7)) / 2
    assert weighted_asymmetric(scores, labels, torch.tensor([2.0, 1.0, 5.0])).item() == pytest.approx(
        expected, rel=1e-5
    )
    x = scores.requires_grad_()
    weighted_asymmetric(x, labels).backward()
    assert x.grad[0].tolist() == pytest.approx([-1 / 0.8 / 2, 0.3 / 0.7 / 2, 0.0], rel=1e-5)  # the factor has none
    assert weighted_asymmetric(scores, torch.full((1, 3), -1)).item() == 0.0


def test_unit_weights_are_inverse_rates_of_mean_one():
    labels = np.array([[1, 0, -1, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 1, -1, 0]])
    assert unit_weights(labels).tolist() == pytest.approx((np.array([4, 2, 1, 4]) / 2.75).tolist())
    assert unit_weights(np.full((2, 3), -1)).tolist() == [1, 1, 1]


def test_distance_of_heads():
    maps = torch.zeros(2, 3, 4, 7, 7)
    maps[:, 1] = 0.5
    maps[:, 2] = 1.0
    assert head_distance(maps).item() == pytest.approx(3 / (0.25 + 1.0 + 0.25))
    assert head_distance(maps[:, :1]).item() == 0.0
    assert math.isfinite(head_distance(maps[:, [0, 0]]).item())


def test_assignment():
    anchors = anchors_of(96, 128)
    faces = torch.tensor([[40.0, 40.0, 72.0, 72.0], [4.0, 4.0, 20.0, 20.0], [100.0, 60.0, 103.0, 63.0]])
    targets = assign(anchors, faces)
    chosen = [anchors.boxes[targets.positive & (targets.face == face)] for face in range(3)]
    assert all(len(boxes) for boxes in chosen)  # even the face that is too small for every anchor
    assert [float(boxes[0][2] - boxes[0][0]) for boxes in chosen] == [32, 16, 16]
    middle = anchors.centres[targets.positive & (targets.face == 0)]
    assert ((middle > 40) & (middle < 72)).all()
    assert not assign(anchors, torch.zeros(0, 4)).positive.any()


def test_distance_iou_by_hand():
    a, b = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[2.0, 0.0, 6.0, 4.0]])
    assert distance_iou(a, b).item() == pytest.approx(1 - 8 / 24 + 4 / (36 + 16))
    assert distance_iou(a, a).item() == pytest.approx(0.0)


def perfect(faces, points, size):
    """Maps that say exactly what is true, with certainty."""
    anchors = anchors_of(*size)
    targets = assign(anchors, faces)
    count = len(anchors.boxes)
    score, box, point = torch.full((count,), -20.0), torch.zeros(count, 4), torch.zeros(count, 10)
    for index in targets.positive.nonzero()[:, 0]:
        face, stride = targets.face[index], anchors.strides[index]
        score[index] = 20.0
        box[index, :2] = (anchors.centres[index] - faces[face, :2]) / stride
        box[index, 2:] = (faces[face, 2:] - anchors.centres[index]) / stride
        point[index] = ((points[face] - anchors.centres[index]) / stride).flatten()
    return SCRFDOutput(*(part[None] for maps in (score, box, point) for part in maps.split(anchors.counts)))


def test_loss_is_zero_for_the_truth_and_decoding_gives_it_back():
    size, faces = (96, 128), torch.tensor([[40.0, 40.0, 72.0, 80.0], [10.0, 8.0, 26.0, 26.0]])
    points = torch.rand(2, 5, 2) * 20 + faces[:, None, :2]
    output = perfect(faces, points, size)
    loss, parts = detection_loss(output, size, [faces], [points])
    assert loss.item() == pytest.approx(0.0, abs=1e-3)
    assert set(parts) == {"score", "box", "points"}
    found = decode({name: value.numpy() for name, value in output._asdict().items()}, size)
    order = np.argsort(found.boxes[:, 0])
    np.testing.assert_allclose(found.boxes[order, :4], [[10, 8, 16, 18], [40, 40, 32, 40]], atol=1e-3)
    np.testing.assert_allclose(found.points[order], points.numpy()[[1, 0]], atol=1e-3)


def test_points_that_are_not_annotated_and_pictures_without_faces_cost_nothing():
    size, faces = (96, 128), torch.tensor([[40.0, 40.0, 72.0, 80.0]])
    output = perfect(faces, torch.zeros(1, 5, 2), size)
    output = SCRFDOutput(*(each.requires_grad_() for each in output))
    loss, parts = detection_loss(output, size, [faces], [torch.full((1, 5, 2), math.nan)])
    assert parts["points"].item() == 0.0
    loss.backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in output)
    quiet = SCRFDOutput(*(torch.full_like(each, -20.0) for each in output))
    empty, _ = detection_loss(quiet, size, [torch.zeros(0, 4)], [torch.zeros(0, 5, 2)])
    assert empty.item() == pytest.approx(0.0, abs=1e-6)


#: Five points of which only the eyes differ, by two pixels.
EYES = np.array([[0, 0], [2, 0], [0, 0], [0, 0], [0, 0]], float)


def test_detection_scores_by_hand():
    true = (
        np.array([[0, 0, 10, 10], [20, 20, 10, 10.0]]),
        np.tile(EYES, (2, 1, 1)),
    )
    boxes = np.array([[0, 0, 10, 10, 0.9], [50, 50, 5, 5, 0.8], [20, 21, 10, 10, 0.7], [0, 0, 10, 10, 0.6]])
    scores = score_detections([(boxes, np.repeat(true[1][:1], 4, 0) + 1)], [true])
    assert scores.ap == pytest.approx((1 + 2 / 3) / 2)
    assert scores.recall == 1.0
    assert scores.points == pytest.approx(math.sqrt(2) / 2)


# Variation


def test_mirrored_scene_keeps_points_on_their_sides():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10, 12] = 255
    points = np.array([[[12, 10], [20, 10], [16, 14], [13, 18], [19, 18]]], np.float32)
    scene = Scene(image, np.array([[8, 6, 16, 16]], np.float32), points)
    mirrored, boxes, moved = SceneVariation(flip=True)(scene, np.random.default_rng(2))
    assert tuple(np.argwhere(mirrored[..., 0])[0][::-1]) == (47, 10) == tuple(moved[0, 1])
    assert moved[0, 0, 0] < moved[0, 1, 0]
    assert boxes[0].tolist() == [36, 6, 16, 16]
    assert scene.points[0, 0].tolist() == [12, 10]


def test_cropped_scene_moves_faces_with_the_picture():
    image = np.zeros((60, 90, 3), np.uint8)
    image[28:33, 43:48] = 255
    scene = Scene(image, np.array([[38, 23, 15, 15], [0, 0, 6, 6]], np.float32), np.full((2, 5, 2), np.nan, np.float32))
    for seed in range(20):
        cut, boxes, _ = SceneVariation(crop=(0.5, 1.5))(scene, np.random.default_rng(seed))
        for box in boxes[boxes[:, 2] > 10]:
            middle = np.argwhere(cut[..., 0] > 128).mean(0)[::-1]
            assert box[:2] + box[2:] / 2 == pytest.approx(middle + 0.5, abs=1)


def test_variation_is_the_same_for_the_same_item_and_epoch(folders, tmp_path):
    everything = {
        "flip": True,
        "turn_deg": 5,
        "shift": 0.1,
        "zoom": 0.1,
        "light": 0.4,
        "erase": 1.0,
        "random_crop": True,
    }
    task = create_task(
        recipe("er", "folders", folders, tmp_path / "run", options={"size": 64, "variation": everything})
    )
    data = task.dataset("train")
    first = data[3]["image"]
    torch.testing.assert_close(data[3]["image"], first, rtol=0, atol=0)
    task.begin_epoch(1)
    assert not torch.equal(data[3]["image"], first)
    plain = task.dataset("val")
    torch.testing.assert_close(plain[3]["image"], plain[3]["image"])


def test_without_variation_training_sees_what_the_run_time_sees(folders):
    image = cv2.imread(str(folders / "val" / "joy" / "1.png"))
    form = TRANSFORMS["opengraphau224"]
    varied = Variation()(image, form, np.random.default_rng(0))
    np.testing.assert_array_equal(form(varied), form(image))


# Bad data


def test_errors_name_place_and_choices(folders, au_table, tmp_path):
    def dataset(*arguments, **options):
        return create_task(recipe(*arguments, tmp_path / "run", **options)).dataset("train")

    with pytest.raises(DatasetError, match=r"train is missing: expected .*CLASS/\*.jpg"):
        dataset("er", "folders", tmp_path)
    with pytest.raises(DatasetError, match=r"train/joy: expected one of anger, .*; got 'grin'"):
        dataset("er", "folders", folders, options={"folders": {"joy": "grin"}})
    with pytest.raises(DatasetError, match=r"labels.csv: column 'emotion' is missing; found image, split, AU12"):
        dataset("er", "table", au_table)
    with pytest.raises(
        DatasetError, match=r"labels.csv is missing: expected a table with the columns image, split, emotion"
    ):
        dataset("er", "table", tmp_path)
    (tmp_path / "labels.csv").write_text("image,split,AU12\na.png,train,0.5\n")
    with pytest.raises(
        DatasetError, match=r"labels.csv, line 2: AU12: expected 0, 1, or -1 or nothing for unknown; got '0.5'"
    ):
        dataset("anfl", "table", tmp_path)
    (tmp_path / "labels.csv").write_text("image,split,emotion\ngone.png,train,joy\n")
    with pytest.raises(DatasetError, match=r"gone.png is missing; take its row out of the list"):
        dataset("er", "table", tmp_path)[0]
    with pytest.raises(RecipeError, match=r"network.weights.start: no file .*toy/none.safetensors.*; type: make toy"):
        dataset(
            "er",
            "folders",
            folders,
            network={"name": "er_resnet", "preset": "toy", "weights": {"start": "toy/none.safetensors"}},
        )
    with pytest.raises(RecipeError, match=r"options.variation.flap: no such field \(did you mean 'flip'\?\)"):
        dataset("er", "folders", folders, options={"variation": {"flap": True}})
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "labelv2.txt").write_text("# a.png 10 10\n5 5 2 9\n")
    with pytest.raises(DatasetError, match=r"labelv2.txt, line 2: expected x1 y1 x2 y2, .*; got '5 5 2 9'"):
        dataset("detector", "retinaface", tmp_path)


# The command


def test_deploy_publishes_weights_and_asks_for_engines(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    told_to_build = EntryPoint("engines", "training_task:engines", cli.GROUP)
    monkeypatch.setattr(cli, "commands", lambda: {"engines": told_to_build})
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"task: er\nnetwork: {{name: er_resnet, preset: toy}}\ndata: {{name: folders, root: {folders}}}\n"
        "optimiser: {lr: 1e-3}\nepochs: 1\nbatch: 8\noptions: {size: 64}\npublish: toy/er_resnet.safetensors\n"
    )
    assert command.main([str(file), "--out", str(tmp_path / "run"), "--deploy", "toy"]) == 0
    told = capsys.readouterr().out
    assert "6 steps in" in told
    assert "UAR" in told
    published = tmp_path / "cache" / "toy" / "er_resnet.safetensors"
    assert "engines: build --profile toy --network er_resnet\n" in told
    assert toy_path("er_resnet") == published
    assert load_weights(published)[1].data == ("folders",)
    with pytest.raises(
        MissingWeights, match=r"the toy weights 'anfl' are missing: expected .*anfl.safetensors; type: make toy"
    ):
        toy_path("anfl")


def test_every_packaged_recipe_is_one_and_builds_its_network():
    for name in recipe_names():
        packaged = load_recipe(name)
        assert packaged.task in TASKS
        with torch.device("meta"):
            emo_models.create(packaged.network.name, packaged.network.preset, **packaged.network.options)


def test_options_of_the_face_recipes_fit():
    kinds = {"er": FaceOptions, "anfl": FaceOptions, "ddamfn": FaceOptions, "detector": DetectorOptions}
    for name in recipe_names():
        packaged = load_recipe(name)
        if packaged.task in kinds:
            read_options(kinds[packaged.task], packaged.options)
