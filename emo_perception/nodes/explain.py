"""Action server ``explain_emotion``: questions are answered one after the other, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node

from emo_msgs.action import ExplainEmotion
from emo_msgs.msg import EmotionCause
from emo_perception import from_msg
from emo_perception.nodes import convert, qos
from emo_perception.stages.cause.case import About, Question
from emo_perception.stages.cause.explainers import Cancelled
from emo_perception.types import Cause


class ExplainServer:
    """Takes questions, refuses those beyond ``most_waiting``, streams the words of each answer as feedback.

    ``explain`` answers one question and is called in a thread of the executor, which must have two at least.
    """

    Heard: ClassVar[TypeAlias] = Callable[[str], None]
    Cancelled: ClassVar[TypeAlias] = Callable[[], bool]

    def __init__(self, node: Node, explain: Callable[[Question, Heard, Cancelled], Cause], most_waiting: int) -> None:
        self._node, self._explain, self._most = node, explain, most_waiting
        self._lock = threading.Lock()
        self._queue: deque[Any] = deque()
        self._busy = False
        self.refused = 0
        self._server = ActionServer(
            node,
            ExplainEmotion,
            "explain_emotion",
            execute_callback=self._answer,
            goal_callback=self._admit,
            handle_accepted_callback=self._enqueue,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            feedback_pub_qos_profile=qos.RESULT,
        )

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._queue)

    def close(self) -> None:
        """Take no more questions."""
        with self._lock:
            self._queue.clear()
            self._most = 0

    def _admit(self, _: ExplainEmotion.Goal) -> GoalResponse:
        with self._lock:
            if len(self._queue) < self._most:
                return GoalResponse.ACCEPT
            self.refused += 1
        self._node.get_logger().warning(
            f"explain_emotion: refused a question, {self._most} are waiting (max_questions)"
        )
        return GoalResponse.REJECT

    def _enqueue(self, goal: Any) -> None:
        with self._lock:
            self._queue.append(goal)
        self._next()

    def _next(self) -> None:
        with self._lock:
            if self._busy or not self._queue:
                return
            self._busy = True
            goal = self._queue.popleft()
        goal.execute()

    def _answer(self, goal: Any) -> ExplainEmotion.Result:
        try:
            return self._result(goal)
        finally:
            with self._lock:
                self._busy = False
            self._next()

    def _result(self, goal: Any) -> ExplainEmotion.Result:
        words = _Words(goal)
        try:
            if goal.is_cancel_requested:
                raise Cancelled
            cause = self._explain(_question(goal.request), words.heard, lambda: goal.is_cancel_requested)
            words.all_of(cause.text)
        except Cancelled:
            goal.canceled()
            return _failed("cancelled")
        except (ValueError, RuntimeError) as error:
            goal.abort()
            return _failed(str(error))
        goal.succeed()
        return ExplainEmotion.Result(cause=convert.cause_msg(cause))


class _Words:
    """Feedback: the text so far, word by word."""

    def __init__(self, goal: Any) -> None:
        self._goal, self._told = goal, ""

    def heard(self, text: str) -> None:
        self._told = text
        self._goal.publish_feedback(ExplainEmotion.Feedback(text=text))

    def all_of(self, text: str) -> None:
        """Tell the rest of the final text; from the start where it is another than was told so far."""
        words = text.split(" ")
        told = len(self._told.split(" ")) if self._told and text.startswith(self._told) else 0
        for count in range(told + 1, len(words) + 1):
            if self._goal.is_cancel_requested:
                raise Cancelled
            self.heard(" ".join(words[:count]))


def _question(request: ExplainEmotion.Goal) -> Question:
    """The question of a goal. Raises ``ValueError`` for a target that is none."""
    known = [about.value for about in About]
    if request.target not in known:
        raise ValueError(f"target: expected 0 (PERSON), 1 (UTTERANCE) or 2 (MOMENT), got {request.target}")
    about = About(request.target)
    if about is About.PERSON:
        return Question(about, track_id=request.track_id)
    if about is About.UTTERANCE:
        return Question(about, utterance_id=request.utterance_id)
    return Question(about, moment_ns=from_msg.stamp_ns(request.moment))


def _failed(reason: str) -> ExplainEmotion.Result:
    return ExplainEmotion.Result(cause=EmotionCause(abstained=True, abstain_reason=reason))
