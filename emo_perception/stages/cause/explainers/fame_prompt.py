"""From a case to FAME-Net's question: emotions in the words of its training, and only the evidence that it knows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from emo_models.labels import VOCABULARIES, rep155_or_none
from emo_perception.stages.cause.case import Case, Line

if TYPE_CHECKING:
    from emo_models.networks.fame.prompt import CauseQuery, EncodedPrompt, PromptTokenizer

_PERSON: Final = re.compile(r"\bperson \d+\b")
#: The words that ECEM, and MELD under it, have for the emotion that is explained.
ASKED_IN: Final = "ecem7"


def words_for(vocabulary: str) -> dict[str, str]:
    """REP-155 name -> the word of a vocabulary, of those that have both."""
    return {known: name for name in VOCABULARIES[vocabulary] if (known := rep155_or_none(name)) is not None}


class People:
    """Numbers for the nameless of a case: ``person 143`` of a long day is ``person 1`` of the question, as in training."""

    def __init__(self, names: Iterable[str]) -> None:
        nameless = dict.fromkeys(name for name in names if _PERSON.fullmatch(name))
        self._there = {name: f"person {number}" for number, name in enumerate(nameless, start=1)}
        self._back = {number: name for name, number in self._there.items()}

    @classmethod
    def of(cls, case: Case) -> People:
        """Everybody of a case; who spoke first, so that the numbers are known before the faces are."""
        said = [*case.history, *([case.statement] if case.statement is not None else [])]
        return cls([*(line.who for line in said), *(face.who for face in case.shown)])

    def there(self, name: str) -> str:
        """How the question calls somebody."""
        return self._there.get(name, name)

    def back(self, text: str) -> str:
        """The answer, which calls people as the question does; ``person 0`` is one that the question knows nothing of."""
        return _PERSON.sub(lambda hit: self._back.get(hit.group(), "person 0"), text)


@dataclass(frozen=True)
class FamePrompt:
    """How a network was asked in its training, as the notes of its card say.

    ``inputs``: kinds of evidence, V(ideo), T(ext), E(xpressions); ``instruction``: a key of ``INSTRUCTIONS``;
    ``face_utterances``: the faces of the last so many utterances are told one by one, 0: those of the dialogue as one.
    """

    vocabulary: str
    learned_emotions: bool
    inputs: str = "V+T+E"
    instruction: str = "ecem"
    face_utterances: int = 0

    @classmethod
    def of(cls, config: Any, notes: Mapping[str, Any]) -> FamePrompt:
        """For a network of that config, a ``FameConfig``, and the notes of its card."""
        known = {name: notes[name] for name in ("inputs", "instruction", "face_utterances") if name in notes}
        return cls(config.vocabulary, config.emotion_tokens == "learned", **known)

    @property
    def video(self) -> bool:
        """Whether the network was trained with video."""
        return "V" in self.inputs.split("+")

    def wording(self) -> str:
        """The instruction itself."""
        from emo_models.networks.fame.prompt import INSTRUCTIONS

        return INSTRUCTIONS[self.instruction]

    def __call__(self, case: Case) -> CauseQuery:
        """The question. Raises ``ValueError`` for a case without a statement."""
        from emo_models.networks.fame.prompt import CauseQuery, FaceExpression, Utterance

        if case.statement is None:
            raise ValueError("FAME-Net explains statements, and this is a changed face")
        told = "T" in self.inputs.split("+")
        faces, people = words_for(self.vocabulary), People.of(case)
        return CauseQuery(
            tuple(Utterance(people.there(line.who), line.text) for line in case.history if told),
            Utterance(people.there(case.statement.who), case.statement.text if told else ""),
            words_for(ASKED_IN).get(case.target.emotion, case.target.emotion),
            tuple(
                FaceExpression(people.there(face.who), faces.get(face.emotion, face.emotion), face.confidence)
                for face in case.shown
                if "E" in self.inputs.split("+") and (face.emotion in faces or not self.learned_emotions)
            ),
            self.wording(),
        )

    def encode(self, case: Case, prompts: PromptTokenizer, rows: int, most: int, step_ns: int) -> EncodedPrompt:
        """The question's ids, at most ``most``. Old lines that do not fit go in groups of ``step_ns``, see :func:`cut`.

        Raises ``ValueError`` where it does not fit without any.
        """
        query = self(case)
        prompt = prompts(query, rows, most)
        if not prompt.dropped:
            return prompt
        first = cut(case.history, prompt.dropped, step_ns)
        return prompts(dataclasses.replace(query, history=query.history[first:]), rows, most)

    def ahead(self, dialogue: tuple[Line, ...], prompts: PromptTokenizer, most: int, step_ns: int) -> tuple[int, ...]:
        """Ids that the next question begins with, where its history may take ``most`` of them."""
        from emo_models.networks.fame.prompt import Utterance

        people = People(line.who for line in dialogue)
        lines = [Utterance(people.there(line.who), line.text) for line in dialogue if "T" in self.inputs.split("+")]
        wording = self.wording()
        gone = 0
        while len(ids := prompts.prefix(lines[gone:], wording)) > most and gone < len(lines):
            gone += 1
        return prompts.prefix(lines[cut(dialogue, gone, step_ns) :], wording) if gone else ids


def cut(history: Sequence[Line], gone: int, step_ns: int) -> int:
    """How many of the oldest lines go where at least ``gone`` must: up to the next multiple of ``step_ns``, so that the
    beginning stays the same for a while as the dialogue grows."""
    for first in range(gone, len(history)):
        if first and history[first].start_ns // step_ns != history[first - 1].start_ns // step_ns:
            return first
    return gone
