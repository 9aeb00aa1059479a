"""Vocabularies: their orders, their REP-155 names, the maps between them, and the outputs of the AU networks."""

from __future__ import annotations

import pytest

from emo_models import labels


@pytest.mark.parametrize("name", labels.VOCABULARIES)
def test_vocabularies_have_distinct_known_names(name):
    classes = labels.VOCABULARIES[name]
    assert len(set(classes)) == len(classes) == int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
    for emotion in classes:
        assert (emotion in labels.TO_REP155) != (emotion in labels.WITHOUT_REP155)


def test_rep155_names_exist():
    assert set(labels.TO_REP155.values()) <= set(labels.REP155_EXPRESSIONS)
    assert labels.rep155_labels("fer7") == ("angry", "disgusted", "scared", "happy", "sad", "surprised", "neutral")
    assert labels.rep155_or_none("Joy") == "happy"
    assert labels.rep155_or_none("anxiety") == "scared"
    assert labels.rep155_or_none("helplessness") == "vulnerable"
    assert labels.rep155_or_none("contempt") is None
    for lookup in (labels.rep155, labels.rep155_or_none):
        with pytest.raises(KeyError, match="no REP-155 name for emotion 'hunger'; known: amaze, anger"):
            lookup("hunger")


def test_orders_of_the_data_sets():
    assert labels.VOCABULARIES["mafw11"][1 - 1] == "anger"
    assert labels.VOCABULARIES["mafw11"][11 - 1] == "disappointment"
    assert labels.VOCABULARIES["meld7"].index("joy") == 4
    assert labels.VOCABULARIES["affectnet8"][:7] == labels.VOCABULARIES["affectnet7"]
    assert labels.VOCABULARIES["affectnet8"][7] == "contempt"


def test_class_map_joins_words_not_emotions():
    assert labels.class_map("mafw11", "affectnet8") == (6, 5, 4, 1, 0, 2, 3, 7, None, None, None)
    assert labels.class_map("affectnet7", "meld7") == (0, 4, 3, 1, 2, 5, 6)
    assert labels.class_map("emvidcap34", "mafw11").count(None) == 34 - 8
    assert labels.class_map("fer7", "fer7") == tuple(range(7))
    with pytest.raises(KeyError, match="unknown vocabulary 'mafw'; known: affectnet7"):
        labels.class_map("mafw", "fer7")


def test_opengraphau_outputs():
    outputs = labels.opengraphau_outputs()
    names = [output.name for output in outputs]
    assert len(outputs) == 41
    assert names[:3] == ["AU1", "AU2", "AU4"]
    assert names[24:] == [
        "AU32", "AU38", "AU39", "L1", "R1", "L2", "R2", "L4", "R4", "L6", "R6", "L10", "R10", "L12", "R12", "L14", "R14",
    ]  # fmt: skip
    assert [output.node for output in outputs] == [*range(27), 0, 0, 1, 1, 2, 2, 4, 4, 7, 7, 8, 8, 11, 11]
    assert {o.name for o in outputs if not o.reliable} == {"AU11", "L12", "R12"}
    assert {o.number for o in outputs} <= set(labels.AU_NAMES)
    corrected = labels.opengraphau_outputs(upstream=False)
    assert [o.name for o in corrected] == names
    assert all(o.reliable and labels.OPENGRAPHAU_MAIN[o.node] == o.number for o in corrected)


def test_aus_of_single_data_sets_are_among_the_27():
    assert set(labels.BP4D_AUS) | set(labels.DISFA_AUS) < set(labels.OPENGRAPHAU_MAIN)
    assert (len(labels.BP4D_AUS), len(labels.DISFA_AUS)) == (12, 8)


def test_classes_are_reported_once_under_rep155_names_or_their_own():
    names, places = labels.reported_names(labels.VOCABULARIES["mafw11"])
    assert names == (
        "angry", "disgusted", "scared", "happy", "neutral", "sad", "surprised", "contempt", "vulnerable", "disappointed"
    )  # fmt: skip
    assert [names[place] for place in places] == [*names[:8], "scared", *names[8:]]
    for vocabulary in labels.VOCABULARIES.values():
        names, places = labels.reported_names(vocabulary)
        assert len(places) == len(vocabulary)
        assert set(places) == set(range(len(names)))
    with pytest.raises(KeyError, match="no REP-155 name for emotion 'hungry'"):
        labels.reported_names(("happy", "hungry"))
