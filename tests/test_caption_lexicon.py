"""The phrases of the start caption: grammar, coverage and grounding."""

from __future__ import annotations

import itertools
import re

import pytest
from caption_scenes import (
    captions,
    check_evidence,
    face,
    ns,
)

from emo_models.labels import AU_NAMES, REP155_EXPRESSIONS
from emo_perception.stages.caption import lexicon
from emo_perception.stages.caption.content import Account, Action, Feeling, Proof
from emo_perception.stages.caption.realiser import realise
from emo_perception.types import (
    NS_PER_S,
    Side,
)


def action(phrase: lexicon.Phrase, level: int, side: Side = Side.BOTH, onset: float = 0, track: int = 1) -> Action:
    proofs = tuple(Proof(track, 0.6, (ns(onset),), au, side) for au in phrase.aus)
    return Action(phrase, level, side, ns(onset), ns(onset), ns(onset) + NS_PER_S, 0.6, proofs)


FINITE = (
    "smiles|begins|breaks|grimaces|pulls|lifts|draws|raises|frowns|glares|knits|closes|keeps|widens|opens|narrows|wrinkles"
    "|flares|curls|tucks|turns|lowers|stretches|parts|bites|shows|sticks|purses|puckers|pushes|presses|tightens|moves"
)


@pytest.mark.parametrize("phrase", [*lexicon.PHRASES, lexicon.SPEAKING], ids=lambda p: p.key)
def test_every_phrase_is_grammatical_and_found_again(phrase: lexicon.Phrase) -> None:
    frown = next(p for p in lexicon.PHRASES if p.key == "frown")
    for level, side in itertools.product(range(3), Side):
        for before in ((), (action(frown, 1, onset=-2),)):
            said, evidence = realise([Account(1, 1.0, (*before, action(phrase, level, side)))], in_view=1, others=0)
            start = "The person first (frowns|knits the brows), then " if before else "The person "
            assert re.fullmatch(rf"{start}({FINITE})( [a-z]+)*\.", said), said
            assert not re.search(r"[{}]|  | the the ", said)
            assert lexicon.is_grounded(said, evidence)
            rest = tuple(e for e in evidence if e.end != evidence[-1].end)
            assert not lexicon.is_grounded(said, rest)
    two = [Account(i, 1.0, (action(phrase, 1, track=i),)) for i in (1, 2)]
    said, evidence = realise(two, in_view=2, others=0)
    verb = said.split()[2].rstrip(".")
    assert said.startswith("Both people ")
    assert re.fullmatch(FINITE, lexicon.third_person(verb)), said
    assert lexicon.is_grounded(said, evidence)


@pytest.mark.parametrize("name", [n for n in REP155_EXPRESSIONS if n != "neutral"])
def test_every_emotion_in_every_frame(name: str) -> None:
    word = lexicon.emotion_word(name)
    proof = (Proof(1, 0.6, (ns(0),), emotion=name),)
    smile = next(p for p in lexicon.PHRASES if p.key == "smile")
    frown = next(p for p in lexicon.PHRASES if p.key == "frown_squint")
    verbs = r"(clearly |still |now )?(look|seem|grow)(s|ing)"
    for mode, change in itertools.product(("clearly", "look", "seem"), ("", "grow", "now", "still")):
        feeling = Feeling((name,), 0.6, mode, proof, change)
        for actions in (
            (),
            (action(smile, 1),),
            (action(smile, 1), action(frown, 1)),
            (action(frown, 0, onset=-2), action(smile, 2)),
        ):
            said, evidence = realise([Account(1, 1.0, actions, feeling)], in_view=1, others=0)
            assert re.fullmatch(rf"The person .*\b{verbs} {word}\.", said), said
            (felt,) = [e for e in evidence if e.emotion]
            assert said[felt.start : felt.end] == word


def test_two_and_three_phrases_are_joined() -> None:
    by_key = {p.key: p for p in lexicon.PHRASES}
    one, two, three = (action(by_key[k], 1) for k in ("brows_up", "eyes_wide", "mouth_open"))
    said, _ = realise([Account(1, 1.0, (one, two))], in_view=1, others=0)
    assert re.fullmatch(r"The person (raises|lifts) the brows and widens the eyes\.", said)
    said, _ = realise([Account(1, 1.0, (one, two, three))], in_view=1, others=0)
    assert re.fullmatch(r"The person (raises|lifts) the brows, widens the eyes and opens the mouth\.", said)
    steps = tuple(action(by_key[k], 1, onset=i) for i, k in enumerate(("brows_up", "eyes_wide", "smile")))
    said, _ = realise([Account(1, 1.0, steps)], in_view=1, others=0)
    assert re.fullmatch(
        r"The person first (raises|lifts) the brows, then widens the eyes, and finally breaks into a smile\.", said
    )


def test_every_action_unit_has_a_phrase_or_a_reason() -> None:
    spoken = {au for phrase in lexicon.PHRASES for au in phrase.aus}
    assert spoken | lexicon.UNSPOKEN.keys() == AU_NAMES.keys()
    assert not spoken & lexicon.UNSPOKEN.keys()
    alone = {p.aus[0] for p in lexicon.PHRASES if len(p.aus) == 1 and not p.context}
    assert alone == spoken


@pytest.mark.parametrize("au", sorted(set(AU_NAMES) - set(lexicon.UNSPOKEN)))
def test_every_action_unit_is_said(au: int) -> None:
    (caption,) = captions(lambda t: [face({au: 0.8 * (t > 0.5)}, {"neutral": 1.0})], 1.95, stride_s=1.9)
    assert caption.text.startswith("The person ")
    assert {e.au for e in caption.evidence} == {au}
    check_evidence(caption)


def test_text_without_evidence_is_not_grounded() -> None:
    assert not lexicon.is_grounded("The person smiles.", ())
    assert lexicon.is_grounded("The person looks happy.", ())
