"""MAFW, EmVidCap, MSVD, MSR-VTT and SwinBERT's TSV: miniature copies with the traps of the published files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dataset_files import mafw_split, sheet, touch, write, write_json

from emo_models.labels import VOCABULARIES
from training.datasets import DatasetError, Record, RecordError, Span, Utterance, read_dataset
from training.datasets.record import unique
from training.datasets.swinbert import write_swinbert


def refused(dataset):
    return [(q.row, q.reason) for q in dataset.quarantined]


def line(clip: str, label: str, chinese: bytes, english: bytes) -> bytes:
    return b"\t".join([clip.encode(), label.encode(), chinese, english])


@pytest.fixture
def mafw(tmp_path: Path) -> Path:
    zh = "一个人笑。"
    mafw_split(tmp_path, [
        line("00001.mp4", "1", zh.encode(), b"A man frowns."),
        line("00002.mp4", "4", zh.encode("gbk"), "A woman’s smile, wide.".encode("cp1252")),
        line("00003.mp4", "12", zh.encode(), b"Out of range."),
        line("00004.mp4", "2", zh.encode(), b" ... "),
        b"00005.mp4 3 spaces instead of tabs",
        line("clip6.avi", "3", zh.encode(), b"A strange id."),
        line("00001.mp4", "2", zh.encode(), b"The first again."),
        line("00007.mp4", "", zh.encode(), b"No label."),
        line("00008.mp4", "surprise", zh.encode(), "Wide eyes，open mouth.".encode("gbk")),
        line("00009.mp4", "3", zh.encode(), b"Some \x81 rubbish."),
    ])  # fmt: skip
    write(
        tmp_path / "Train & Test Set/single/with_caption/set_1/test.txt",
        line("00010.mp4", "8", zh.encode(), b"A curl of the lips."),
    )
    touch(tmp_path / "data/clips", "00001.mp4", "00002.mp4", "._00001.mp4", "00010.mp4")
    emotions = VOCABULARIES["mafw11"]
    sheet(tmp_path / "Labels/annotation.xlsx", [
        ["clip", "invalid", *emotions], ["00001.mp4", 0, *[0.1] * 11], ["00002.mp4", 0.93, *[0.1] * 11],
        ["00008.mp4", 1, *[0.1] * 11], ["total", None],
    ])  # fmt: skip
    return tmp_path


def test_mafw_split_with_captions(mafw):
    dataset = read_dataset("mafw", mafw)
    found = unique(dataset.records)
    assert list(found) == ["00001", "00002", "00008", "00010"]
    assert found["00001"].emotions == ("anger",)
    assert found["00001"].source == Span(mafw / "data/clips/00001.mp4")
    assert (found["00002"].captions, found["00002"].emotions) == (("A woman’s smile, wide.",), ("happiness",))
    assert (found["00008"].captions, found["00008"].source) == (("Wide eyes，open mouth.",), None)
    assert found["00008"].flags == {"no-video", "uncertain"}
    assert found["00002"].flags == {"uncertain"}
    assert [r.clip_id for r in dataset.split("test")] == ["00010"]
    assert sorted(refused(dataset), key=str) == sorted([
        (3, "bad-number"), (5, "bad-id"), (3, "class-out-of-range"), (4, "no-words"), (5, "wrong-fields"), (6, "bad-id"),
        (7, "duplicate"), (8, "missing-value"), (10, "bad-encoding"),
    ], key=str)  # fmt: skip
    assert "1 of 4 clips, as 00008" in dataset.missing
    assert "train rows: published 6,423, found 10" in dataset.mismatches()


def test_mafw_in_chinese(mafw):
    captions = {r.captions[0] for r in read_dataset("mafw", mafw, lang="zh").records}
    assert captions == {"一个人笑。"}


def test_mafw_without_captions_and_compound(tmp_path):
    mafw_split(tmp_path, [b"00001.mp4 5", b"00002.mp4 happiness", b"00003.mp4"], kind="single/no_caption", fold=3)
    dataset = read_dataset("mafw", tmp_path, captions=False, fold=3)
    assert [r.emotions for r in dataset.records] == [("neutral",), ("happiness",)]
    assert all(r.captions == () for r in dataset.records)
    assert refused(dataset) == [(3, "wrong-fields")]
    mafw_split(
        tmp_path,
        [b"00001.mp4 1,2", b"00002.mp4 17", b"00003.mp4 anger_fear", b"00004.mp4 31"],
        kind="compound/no_caption",
    )
    sheet(tmp_path / "Labels/multi-set.xlsx", [["clip", "label"], ["00002.mp4", "3,9"]])
    dataset = read_dataset("mafw", tmp_path, captions=False, setting="compound")
    assert [r.emotions for r in dataset.records] == [("anger", "disgust"), ("fear", "anxiety"), ("anger", "fear")]
    assert refused(dataset) == [(4, "class-out-of-range")]


def test_mafw_from_the_spreadsheets(tmp_path):
    sheet(tmp_path / "Labels/single-set.xlsx", [["clip", "label"], ["00001.mp4", 1], [2, 4.0], ["00003.mp4", 5]])
    sheet(tmp_path / "Labels/descriptive_text.xlsx", [["00001.mp4", "一", "One."], ["00002.mp4", "二", "Two."]])
    dataset = read_dataset("mafw", tmp_path, fold=0)
    assert [(r.clip_id, r.captions, r.emotions) for r in dataset.records] == [
        ("00001", ("One.",), ("anger",)),
        ("00002", ("Two.",), ("happiness",)),
    ]


def test_a_folder_that_is_not_mafw_says_what_was_expected(tmp_path):
    touch(tmp_path, "something.txt")
    with pytest.raises(DatasetError, match=r"expected the split .*set_2, found something\.txt"):
        read_dataset("mafw", tmp_path, fold=2)
    with pytest.raises(DatasetError, match="lang en or zh, fold 0 to 5; got 'single', 'fr', 1"):
        read_dataset("mafw", tmp_path, lang="fr")


def test_emvidcap_both_parts(tmp_path):
    write(tmp_path / "EmVidCap-L/EmVideo_trainval_captions.csv",
          'VideoID\tEmCaptions\nvid10001\ta happy man, smiling\nvid10001\t"joyful people\nvid10002\t\nvid10003\ta sad and happy man\n')  # fmt: skip
    write(
        tmp_path / "EmVidCap-L/EmVideo_test_captions.csv", "VideoID\tEmCaptions\nvid10001\tsad again\nvid10009\tangry\n"
    )
    write(
        tmp_path / "EmVidCap-S/EmVideo_trainval_captions.csv",
        b"VideoID,EmCaptions\r\nvid1,a squirrel eats, happily\r\n,no id\r\n",
    )
    write(tmp_path / "youtube_mapping.txt", "-4ws_5_15 vid1\r\nbroken\r\n")
    write(tmp_path / "sentiment-words-E/joy.txt", "joy\nhappy\nhappily\njoyful")
    write(tmp_path / "sentiment-words-E/sadness.txt", "sad")
    write(tmp_path / "sentiment-words-E/fury.txt", "angry")
    touch(tmp_path / "videos", "vid10001.mp4", "-4ws_5_15.avi")
    dataset = read_dataset("emvidcap", tmp_path)
    found = unique(dataset.records)
    assert found["vid10001"].captions == ("a happy man, smiling", '"joyful people')
    assert found["vid10001"].emotions == ("joy",)
    assert found["vid10003"].emotions == ()  # a tie is no label
    assert found["vid1"].captions == ("a squirrel eats, happily",)
    assert found["vid1"].source == Span(tmp_path / "videos/-4ws_5_15.avi")
    assert sorted(refused(dataset), key=str) == sorted(
        [("", "class-out-of-range"), (2, "wrong-fields"), (4, "no-words"), (2, "duplicate"), (3, "missing-value")],
        key=str,
    )
    assert any("EmVidCap-S/EmVideo_test_captions.csv" in text for text in dataset.missing)
    assert read_dataset("emvidcap", tmp_path, part="S").expected["train videos"] == 240


def test_emvidcap_without_word_lists_has_no_labels_and_says_so(tmp_path):
    write(tmp_path / "EmVidCap-L/EmVideo_trainval_captions.csv", "VideoID\tEmCaptions\nv\tglad\n")
    dataset = read_dataset("emvidcap", tmp_path, part="L")
    assert dataset.records[0].emotions == ()
    assert any("word lists" in text for text in dataset.missing)


CORPUS = """VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description
aa_b,1,9,7,clean,12,English,"A man, running."
aa_b,1,9,7,clean,12,German,Ein Mann.
aa_b,1,9,7,clean,12,English,
cc,2,4,7,clean,12,English,A dog, barking.
zz,0,4,7,clean,12,English,Not mapped.
zz,0,4,7,clean,12,English,Not mapped either.
dd,x,4,7,clean,12,English,No number.
"""


def test_msvd(tmp_path):
    write(tmp_path / "video_corpus.csv", CORPUS)
    write(tmp_path / "youtube_mapping.txt", "aa_b_1_9 vid1\ncc_2_4 vid1301\n")
    touch(tmp_path / "YouTubeClips", "aa_b_1_9.avi")
    dataset = read_dataset("msvd", tmp_path)
    assert [(r.clip_id, r.split, r.captions) for r in dataset.records] == [
        ("vid1", "train", ("A man, running.",)), ("vid1301", "test", ("A dog, barking.",)),
    ]  # fmt: skip
    assert dataset.records[0].source == Span(tmp_path / "YouTubeClips/aa_b_1_9.avi")
    assert dataset.found["captions in other languages"] == 1
    assert refused(dataset) == [(4, "no-words"), (6, "unknown-clip"), (8, "bad-number")]
    (tmp_path / "youtube_mapping.txt").unlink()
    with pytest.raises(DatasetError, match=r"expected youtube_mapping\.txt"):
        read_dataset("msvd", tmp_path)


def test_msvd_as_json(tmp_path):
    write_json(tmp_path / "msvd.json", {
        "train": [{"video": "a_1_2.avi", "caption": "One."}, {"video": "a_1_2.avi", "caption": ["Two."]}],
        "dev": [{"video": "b", "caption": "x"}], "test": [{"caption": "x"}],
    })  # fmt: skip
    dataset = read_dataset("msvd", tmp_path)
    assert [(r.clip_id, r.captions) for r in dataset.records] == [("a_1_2", ("One.", "Two."))]
    assert refused(dataset) == [("dev 1", "bad-split"), ("test 1", "unknown-form")]


def test_msrvtt(tmp_path):
    write_json(tmp_path / "MSRVTT_data.json", {
        "videos": [{"video_id": "video1", "split": "validate"}, {"video_id": "video7010"}, {"video_id": "movie"},
                   {"video_id": "video3", "split": "demo"}, {"id": 4}],
        "sentences": [{"video_id": "video1", "caption": "a man"}, {"video_id": "video7010", "caption": "a dog"},
                      {"video_id": "video1", "caption": "?!"}, {"video_id": "movie", "caption": "x"}],
    })  # fmt: skip
    dataset = read_dataset("msrvtt", tmp_path)
    assert [(r.clip_id, r.split) for r in dataset.records] == [("video1", "val"), ("video7010", "test")]
    assert refused(dataset) == [
        ("video 3", "bad-id"), ("video 4", "bad-split"), ("video 5", "unknown-form"), ("sentence 3", "no-words"),
        ("sentence 4", "unknown-clip"),
    ]  # fmt: skip
    with pytest.raises(DatasetError, match="expected an object with the lists videos and sentences, got list"):
        read_dataset("msrvtt", write_json(tmp_path / "b/MSRVTT_data.json", []).parent)


def test_msrvtt_in_two_older_files(tmp_path):
    both = {"videos": [{"video_id": "video0"}], "sentences": [{"video_id": "video0", "caption": "a man"}]}
    write_json(tmp_path / "train_val_videodatainfo.json", both)
    dataset = read_dataset("msrvtt", tmp_path)
    assert dataset.records[0].split == "train"
    assert "test_videodatainfo.json" in dataset.missing


def captioned(clip_id: str, file: Path, split: str = "train", **more) -> Record:
    return Record(
        clip_id, "mafw", split, Span(file, **more), ("A man smiles.", "Äpfel, “quoted”."), ("fear",), "mafw11"
    )


def test_what_is_exported_to_swinbert_is_read_back(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    records = [
        captioned("a", tmp_path / "a.mp4"), captioned("b", tmp_path / "b.mp4", start_s=1.5, end_s=2.25),
        captioned("c", tmp_path / "a.mp4", "test"), Record("d", "mafw", "train", None, ("x",), flags=frozenset({"no-video"})),
    ]  # fmt: skip
    assert write_swinbert(records, tmp_path / "out") == {"train": 2, "test": 1}
    back = read_dataset("swinbert", tmp_path / "out")
    assert not back.quarantined
    assert {(r.clip_id, r.split, r.source, r.captions, r.emotions) for r in back.records} == {
        (r.clip_id, r.split, r.source, r.captions, r.emotions) for r in records[:3]
    }
    coco = json.loads((tmp_path / "out/train.caption_coco_format.json").read_text())
    assert [(a["image_id"], a["id"]) for a in coco["annotations"]] == [("a", 0), ("a", 1), ("b", 2), ("b", 3)]
    assert (tmp_path / "out/train.caption.linelist.tsv").read_text() == "0\t0\n0\t1\n1\t0\n1\t1\n"
    with pytest.raises(DatasetError, match="expected records with a caption and a clip"):
        write_swinbert(records[3:], tmp_path / "none")


def test_swinbert_files_with_accidents(tmp_path):
    write(tmp_path / "train_32frames.yaml", "img: i.tsv\ncaption: c.tsv\nlabel: l.tsv\ncaption_linelist: n.tsv\n")
    write(tmp_path / "i.tsv", "a\tnowhere.mp4\nb\tnowhere.mp4\nc\tnowhere.mp4\nlonely\n")
    write(
        tmp_path / "c.tsv",
        'a\t[{"caption": "one"}, {"caption": "two"}]\nb\t[{"caption": "!"}]\nc\t{broken\nq\t[{"caption": "x"}]\n',
    )
    write(tmp_path / "n.tsv", "0\t1\n1\t0\n3\t0\nx\t0\n")
    dataset = read_dataset("swinbert", tmp_path)
    assert [(r.clip_id, r.captions) for r in dataset.records] == [("a", ("two",)), ("b", ())]
    assert sorted(refused(dataset), key=str) == sorted(
        [(4, "wrong-fields"), (2, "no-words"), (3, "unknown-form"), (4, "unknown-clip"), (4, "bad-number")], key=str
    )
    write(tmp_path / "n.tsv", "0\t5\n")
    assert (1, "unknown-clip") in refused(read_dataset("swinbert", tmp_path))
    write(tmp_path / "train_32frames.yaml", "img: i.tsv\n")
    with pytest.raises(DatasetError, match="without caption"):
        read_dataset("swinbert", tmp_path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Span(Path("x"), 2.0, 1.0), "bad-times"),
        (lambda: Utterance("Anna", "!?"), "no-words"),
        (lambda: Record("", "d", "train", Span(Path("x"))), "missing-value"),
        (lambda: Record("a", "d", "dev", Span(Path("x"))), "bad-split"),
        (lambda: Record("a", "d", "train", Span(Path("x")), ("...",)), "no-words"),
        (lambda: Record("a", "d", "train", Span(Path("x")), (), ("rage",), "meld7"), "class-out-of-range"),
    ],
)
def test_a_record_checks_itself(make, reason):
    with pytest.raises(RecordError) as caught:
        make()
    assert caught.value.reason == reason


def test_unknown_readers_and_options_list_the_choices(tmp_path):
    with pytest.raises(DatasetError, match=r"no reader 'mfaw' \(did you mean 'mafw'\?\); there are: ecem, ecf"):
        read_dataset("mfaw", tmp_path)
    with pytest.raises(DatasetError, match="mafw: no option folds; there are: setting, captions, fold, lang, videos"):
        read_dataset("mafw", tmp_path, folds=2)
    with pytest.raises(DatasetError, match="expected a folder, there is none at"):
        read_dataset("mafw", tmp_path / "nowhere")
