"""The toy world: the same seed draws the same world, readers read it, and its truth is what its pixels show."""

import hashlib
import re

import cv2
import numpy as np
import pytest

pytest.importorskip("openpyxl")
av = pytest.importorskip("av")

from training.datasets.ecem import Ecem  # noqa: E402
from training.datasets.mafw import Mafw  # noqa: E402
from training.datasets.meld import Meld  # noqa: E402
from training.datasets.record import DatasetError  # noqa: E402
from training.toyworld.captions import LONGEST, SHORTEST, wordings  # noqa: E402
from training.toyworld.clips import ClipOptions, make_clip  # noqa: E402
from training.toyworld.command import main  # noqa: E402
from training.toyworld.expressions import EMOTIONS, express, table  # noqa: E402
from training.toyworld.face import MOUTH, TONGUE, WHITE, draw_head  # noqa: E402
from training.toyworld.head import Pose, shape_head  # noqa: E402
from training.toyworld.identity import FIRST_HELD_OUT, make_identity  # noqa: E402
from training.toyworld.truth import CAUSE_KINDS, load_truth  # noqa: E402
from training.toyworld.units import COLUMN, UNITS, at_rest, network_scores  # noqa: E402
from training.toyworld.world import make_world  # noqa: E402

SMALL = ClipOptions(size_wh=(160, 120), fps=5, people=8, held_out_people=4)
WORDS = re.compile(r"\w+")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    make_world(out, seed=3, clips=25, dialogues=12, options=SMALL, utterance_s=1.0)
    return out


def decoded(file):
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def hashes(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".xlsx")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_seed_is_a_world(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_world(tmp_path / name, seed=seed, clips=2, dialogues=1, options=SMALL, utterance_s=0.8)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    clip = "data/clips/00001.mp4"
    assert (tmp_path / "a/mafw" / clip).read_bytes() != (tmp_path / "c/mafw" / clip).read_bytes()


def test_a_clip_does_not_depend_on_the_others(world):
    images, truth = make_clip(3, 7, "train", SMALL)
    stored = load_truth(world / "mafw")["00007"]
    assert stored.captions == truth.captions
    assert stored.emotions == truth.emotions
    # What the file holds is what was drawn, but for the loss of its encoding.
    assert np.mean(np.abs(np.stack(images).astype(int) - np.stack(decoded(world / "mafw/data/clips/00007.mp4")))) < 6


@pytest.mark.parametrize(("name", "reader"), [("mafw", Mafw()), ("meld", Meld()), ("ecem", Ecem())])
def test_readers_read_it_like_a_real_one(world, name, reader):
    found, truth = reader.read(world / name), load_truth(world / name)
    assert found.quarantined == ()
    assert found.missing == ()
    assert {record.split for record in found.records} == {"train", "test"} | ({"val"} if name != "mafw" else set())
    for record in found.records:
        known = truth[record.clip_id]
        assert known.split == record.split
        assert known.emotions == record.emotions
        assert record.source is not None
        if record.captions:
            assert record.captions[0] == known.captions[0].text
        assert len(decoded(record.source.file)) == known.frames
        if record.dialogue is not None:
            assert record.dialogue.target.speaker == known.faces[known.speaking[-1]].name
            assert record.dialogue.target.end_s > record.dialogue.target.start_s


def test_compound_and_neutral_clips_are_where_mafw_has_them(world):
    truth = load_truth(world / "mafw")
    plain = Mafw(captions=False).read(world / "mafw")
    assert {r.clip_id for r in plain.records} == {c for c, t in truth.items() if len(t.emotions) == 1}
    compound = Mafw(setting="compound").read(world / "mafw")
    assert {r.clip_id: r.emotions for r in compound.records} == {
        c: t.emotions for c, t in truth.items() if len(t.emotions) > 1
    }
    assert all("neutral" not in r.emotions for r in Mafw().read(world / "mafw").records)


def test_people_of_the_tests_are_never_in_training(world):
    for name in ("mafw", "meld", "ecem"):
        for clip in load_truth(world / name).values():
            for face in clip.faces:
                assert (int(face.person[1:]) >= FIRST_HELD_OUT) == (clip.split == "test")


def test_landmarks_lie_on_the_face(world):
    seen = 0
    for clip in load_truth(world / "mafw").values():
        for face in clip.faces:
            for box, points in zip(face.boxes_xywh[face.visible], face.points[face.visible], strict=True):
                low, high = box[:2], box[:2] + box[2:]
                assert (points >= 0).all()
                assert (points < clip.size_wh).all()
                assert ((points > low - 2) & (points < high + 2)).all()
                assert points[:2, 1].max() < points[3:, 1].min()
                assert points[0, 0] < points[1, 0]
                seen += 1
    assert seen > 100


def crop(number, strengths, yaw=0.0):
    """A face in 64 x 64, the half width of its head 26 px."""
    activation = at_rest()
    for unit, value in strengths.items():
        activation[:, COLUMN[unit]] = value
    image = np.full((72, 64, 3), 150, np.uint8)
    who, pose = make_identity(1, number), Pose(32, 36, 26, yaw=yaw)
    head = shape_head(who, activation, pose)
    draw_head(image, who, head, activation)
    return image, head


def test_a_dropping_jaw_opens_the_mouth():
    """Pixels that have the colours of the inside of a mouth, of people whose lips and skin have others."""
    inside = np.array([MOUTH, WHITE, TONGUE])
    known = {number: make_identity(1, number) for number in range(40)}
    people = [n for n, who in known.items() if who.skin[1] > 170 and not who.beard and not who.woman]
    assert len(people) > 3
    for number in people:
        seen = []
        for strength in (0.0, 0.3, 0.6, 1.0):
            lower = crop(number, {26: strength})[0][44:, 28:36].astype(int)
            seen.append(int((np.abs(lower[..., None, :] - inside).max(-1) < 25).any(-1).sum()))
        assert seen[0] <= seen[1] < seen[2] < seen[3], (number, seen)


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_seen_in_a_crop_and_grows(unit):
    for number in (1, 4):
        rest = crop(number, {})[0].astype(int)
        change = [np.abs(crop(number, {unit: s})[0] - rest).sum() for s in (0.5, 1.0)]
        assert 0 < change[0] < change[1]
        assert change[1] > 3_000


def test_scores_are_in_the_order_of_the_network():
    activation = at_rest()[None]
    activation[0, 1, COLUMN[12]] = 0.8
    scores = network_scores(activation)[0]
    assert scores[9] == np.float32(0.8)  # AU12
    assert (scores[27:][[10, 11]] == np.array([0.8, 0], np.float32)).all()  # L12, R12
    assert np.count_nonzero(scores) == 2


def test_captions_tell_what_is_so(world):
    clips = load_truth(world / "mafw")
    for clip in clips.values():
        assert bool(clip.captions) == (clip.emotions != ("neutral",))
        assert len(clip.captions) <= (1 if clip.split == "train" else 3)
        apex = clip.faces[0].activations.max((0, 1)) if clip.faces else at_rest()
        for caption in clip.captions:
            assert SHORTEST <= len(caption.text.replace(",", " ,").split()) <= LONGEST
            if clip.thing and clip.action in ("show", "drop"):
                assert clip.thing in caption.text
            groups = wordings()["units"].values()
            for phrase in caption.phrases:
                text = caption.text[phrase.start : phrase.end]
                kind = "held_out" if phrase.held_out else "train"
                assert any(text in group[kind] and tuple(group["aus"]) == phrase.aus for group in groups)
                assert all(apex[COLUMN[au]] > 0.25 for au in phrase.aus)


def test_wordings_of_the_tests_are_new_but_their_words_are_not(world):
    units = wordings()["units"].values()
    train = [text for group in units for text in group["train"]]
    held_out = [text for group in units for text in group["held_out"]]
    assert len({*train, *held_out}) == len(train) + len(held_out)
    assert {w for text in held_out for w in WORDS.findall(text)} <= {w for text in train for w in WORDS.findall(text)}
    for clip in load_truth(world / "mafw").values():
        kinds = [{phrase.held_out for phrase in caption.phrases} for caption in clip.captions]
        assert all(
            kind <= ({False} if clip.split == "train" or not place else {True}) for place, kind in enumerate(kinds)
        )
    assert {au for group in units for au in group["aus"]} == set(UNITS) - {45}


def test_the_vocabulary_fits_the_toy_network():
    told = wordings()
    texts = [t for g in told["units"].values() for t in (*g["train"], *g["held_out"])]
    for section in ("people", "actions", "places"):
        texts += [t for choices in told[section].values() for t in choices]
    texts += [w for e in told["emotions"].values() for w in (*e["adjectives"], *e["nouns"])]
    texts += [*told["emotion_adjective"], *told["emotion_noun"], *told["beside"]]
    words = {w for t in texts for w in WORDS.findall(t)} | {"man", "woman", "ball", "cake", "flower", "gift", "fish"}
    assert len(words) < 240


def test_the_lexicon_of_the_losses_is_another_table():
    captions = pytest.importorskip("emo_models.networks.ecpa.captions", reason="needs torch")
    lexicon = captions.AuLexicon.load()
    for kind, least in (("train", 0.2), ("held_out", 0.1)):
        known = [
            any(set(hit.aus) & set(group["aus"]) for hit in lexicon.phrases(text))
            for group in wordings()["units"].values()
            for text in group[kind]
        ]
        assert least < np.mean(known) < 0.7


def test_an_emotion_is_no_single_face():
    rng = np.random.default_rng(0)
    shown = {e: np.array([express(rng, e).max(0) > 0.3 for _ in range(60)]) for e in EMOTIONS if e != "neutral"}
    for faces in shown.values():
        assert len(np.unique(faces, axis=0)) > 5
    assert len(table("prototypes")) == len(EMOTIONS)


def test_causes_are_named_and_only_where_they_can_be_known(world):
    kinds = set()
    dialogues = {r.clip_id: r for r in Ecem().read(world / "ecem").records}
    for clip_id, clip in load_truth(world / "ecem").items():
        cause, record = clip.cause, dialogues[clip_id]
        kinds.add(cause.kind)
        assert cause.utterance == record.dialogue.history[-1].clip_id
        for explanation in clip.captions:
            assert any(phrase in explanation.text for phrase in cause.evidence)
            assert not any(phrase in explanation.text for phrase in cause.others)
        said = " ".join(u.text for u in record.dialogue.history)
        assert (cause.kind == "words") == any(phrase in said for phrase in cause.evidence)
        if cause.kind == "face":
            name = cause.evidence[0].split()[0]
            assert name != record.subject
            assert next(f for f in clip.faces if f.name == name).activations[: clip.frames].max() > 0.3
    assert kinds == set(CAUSE_KINDS)


def test_the_one_who_is_heard_moves_the_mouth(world):
    clip = next(c for c in load_truth(world / "meld").values() if c.split == "train")
    split, stem = clip.clip_id.split("_", 1)
    assert split == "train"
    with av.open(str(world / "meld/train_splits" / f"{stem}.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(sound) / 16_000 == pytest.approx(clip.frames / clip.fps, abs=0.15)
    spectrum = np.abs(np.fft.rfft(sound))
    loudest = np.fft.rfftfreq(len(sound), 1 / 16_000)[spectrum.argmax()]
    assert loudest == pytest.approx(110 + 55 * clip.speaking[0], abs=12)


def test_what_cannot_be_made_is_refused_with_the_remedy(world, tmp_path, capsys):
    with pytest.raises(ValueError, match="even numbers of at least 96 pixels"):
        ClipOptions(size_wh=(161, 120))
    with pytest.raises(ValueError, match="at least 4 frames"):
        ClipOptions(fps=1)
    with pytest.raises(ValueError, match="up to 99999 clips"):
        make_world(tmp_path, seed=0, clips=0, dialogues=0)
    with pytest.raises(DatasetError, match="emo toy world"):
        load_truth(tmp_path)
    (tmp_path / "truth.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"truth.jsonl:1: .*make it again"):
        load_truth(tmp_path)
    assert main(["world", "--out", str(world)]) == 2
    assert "is not empty; delete it" in capsys.readouterr().err
    assert main(["world", "--out", str(tmp_path / "w"), "--size", "big"]) == 2
    assert "expected WIDTHxHEIGHT" in capsys.readouterr().err


def test_the_command_makes_a_world(tmp_path, capsys):
    arguments = ["--clips", "1", "--dialogues", "0", "--size", "160x120", "--fps", "4", "--seconds", "1"]
    threads = cv2.getNumThreads()
    assert main(["world", "--out", str(tmp_path / "w"), *arguments]) == 0
    assert cv2.getNumThreads() == threads
    assert "emo data check mafw" in capsys.readouterr().out
    assert list(load_truth(tmp_path / "w/mafw")) == ["00001"]
