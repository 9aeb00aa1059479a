"""Text out of bytes in mixed encodings, and broken text mended; tables and JSON with their accidents."""

from __future__ import annotations

import pytest
from dataset_files import write

from training.datasets import DatasetError, RecordError
from training.datasets.encodings import decode, decode_chinese, decode_english, repair
from training.datasets.files import read_json, read_sheet, read_table
from training.datasets.quarantine import Findings


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-8-sig"])
def test_english_in_several_encodings(encoding):
    assert decode_english("He’s pleased — “really”.".encode(encoding)) == "He’s pleased — “really”."


def test_an_apostrophe_of_windows_is_no_ideograph():
    # 0x92 and the letter behind it are a valid character of GBK.
    assert "He’s".encode("cp1252").decode("gbk") != "He’s"
    assert decode_english("He’s happy, I’m not".encode("cp1252")) == "He’s happy, I’m not"
    assert decode_english("A man，smiling".encode("gbk")) == "A man，smiling"


def test_chinese_in_both_encodings():
    text = "一个人笑着说话。"
    assert decode_chinese(text.encode()) == decode_chinese(text.encode("gb18030")) == text


def test_bytes_that_are_no_text_are_named():
    with pytest.raises(RecordError, match="expected utf-8, got bytes") as caught:
        decode(b"abc\xff\xfe", ("utf-8",))
    assert caught.value.reason == "bad-encoding"


@pytest.mark.parametrize(
    ("broken", "right", "how"),
    [
        ("plain", "plain", ""),
        ("she’s fine, café", "she’s fine, café", ""),
        ("she’s fine".encode().decode("latin-1"), "she’s fine", "repaired"),
        ("she’s fine".encode().decode("cp1252"), "she’s fine", "repaired"),
        ("I’m here, you’re not".encode().decode("gbk", "replace").replace("\ufffd", "?"), "I’m here, you’re not", "repaired"),
        ("we waited â\x80?but in vain", "we waited — but in vain", "lossy"),
        ("the word \u00e2\u0080\u009cdate\u00e2\u0080?was said", "the word “date” was said", "lossy"),
        ("the word \u00e2\u0080\u0098date\u00e2\u0080?", "the word ‘date’", "lossy"),
        ("shootinâ\x80?them", "shootin’ them", "lossy"),
        ("I was justâ\x80?Well", "I was just… Well", "lossy"),
        ("left å\x89 over", "left å\x89 over", "lossy"),
    ],
)  # fmt: skip
def test_broken_text_is_mended_and_says_so(broken, right, how):
    assert repair(broken) == (right, how)


def reasons(findings):
    return [(q.row, q.reason) for q in findings.dataset().quarantined]


def test_a_table_reads_every_row_that_can_be_read(tmp_path):
    file = write(
        tmp_path / "t.csv",
        b'\xef\xbb\xbfID,Text\r\n1,plain\r\n2,"a, b"\r\n\r\n3,caf\xe9\r\n4\r\n5,un\x00used\r\n6,x,y,z\r\n7,last\r\n',
    )
    findings = Findings("t", tmp_path)
    rows = list(read_table(file, ("ID", "Text"), findings))
    assert [(n, r["ID"], r["Text"]) for n, r in rows] == [
        (2, "1", "plain"),
        (3, "2", "a, b"),
        (5, "3", "café"),
        (9, "7", "last"),
    ]
    assert reasons(findings) == [(7, "bad-encoding"), (6, "wrong-fields"), (8, "wrong-fields")]
    joined = list(read_table(file, ("ID", "Text"), Findings("t", tmp_path), text="Text"))
    assert joined[-2][1]["Text"] == "x,y,z"


def test_a_quotation_mark_in_a_tab_separated_caption_swallows_nothing(tmp_path):
    file = write(tmp_path / "t.csv", 'ID\tText\n1\t"so he said\n2\tnext, and more\n')
    rows = [row["Text"] for _, row in read_table(file, ("ID", "Text"), Findings("t", tmp_path))]
    assert rows == ['"so he said', "next, and more"]


def test_an_unclosed_quotation_mark_says_which_lines_it_swallowed(tmp_path):
    file = write(tmp_path / "t.csv", 'A,B,C\n1,2,3\n4,"5,6\n7,8,9\n')
    findings = Findings("t", tmp_path)
    assert len(list(read_table(file, ("A",), findings))) == 1
    (row,) = findings.dataset().quarantined
    assert (row.row, row.reason) == (3, "wrong-fields")
    assert "in lines 3 to 4: a quotation mark that is not closed?" in row.detail


def test_a_missing_column_is_named(tmp_path):
    file = write(tmp_path / "t.csv", "ID;Text\n1;x\n")
    with pytest.raises(
        DatasetError, match=r"t\.csv: expected the columns ID, Words; got ID, Text .*semicolons.*without Words"
    ):
        list(read_table(file, ("ID", "Words"), Findings("t", tmp_path)))
    with pytest.raises(DatasetError, match="the file is empty"):
        list(read_table(write(tmp_path / "e.csv", ""), ("ID",), Findings("t", tmp_path)))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b'[{"a": 1}, {"b"', "breaks at line 1, column 16"), (b'["\xff"]', "expected UTF-8, byte 2")],
)
def test_a_truncated_json_file_says_where(tmp_path, content, said):
    with pytest.raises(DatasetError, match=said):
        read_json(write(tmp_path / "x.json", content))


def test_a_file_that_is_no_workbook_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"x\.xlsx: expected an \.xlsx workbook"):
        list(read_sheet(write(tmp_path / "x.xlsx", b"PK no zip")))
