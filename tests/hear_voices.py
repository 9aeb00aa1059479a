"""Speaks to the perception process, then lets another recogniser speak; prints as JSON what was heard. Needs ``hri_msgs``.

A program of its own, for ``hri_msgs`` is built by the test and must be on the path when Python starts.
"""

from __future__ import annotations

import json

from graph_peer import Peer, end, start
from hri_msgs import msg as hri
from std_msgs.msg import Bool
from test_speech_node import START_NS, STATUS, Microphone

from emo_msgs.msg import Utterance
from emo_perception import from_msg
from emo_perception.nodes import convert, qos
from emo_perception.types import NS_PER_S

UNKNOWN = "/humans/voices/voice_unknown"
ANOTHER_ROBOT = "/humans/voices/voice_9/speech"
ANNA_NS = START_NS + 3600 * NS_PER_S


def ours(graph: Peer) -> list[str]:
    """Topics of voices that the perception process publishes now."""
    topics = [name for name, _ in graph.node.get_topic_names_and_types() if name.startswith("/humans/voices/voice")]
    topics = [t for t in topics if t != ANOTHER_ROBOT] + ["/humans/voices/tracked"]
    return sorted(t for t in topics if any(e.node_name == "speech" for e in graph.node.get_publishers_info_by_topic(t)))


def own_words(graph: Peer, microphone: Microphone, utterances: list[Utterance]) -> dict[str, object]:
    """Our own recogniser as a voice."""
    tracked = graph.hear(hri.IdsList, "/humans/voices/tracked", 10)
    speaking = graph.hear(Bool, f"{UNKNOWN}/is_speaking", qos.STATE)
    speech = graph.hear(hri.LiveSpeech, f"{UNKNOWN}/speech", 10)
    graph.until(
        lambda: speech and utterances and [m.data for m in speaking][:2] == [True, False],
        "a voice that begins, says something, and ends",
        again=microphone.speak,
    )
    said = speech[-1]
    same = any(u.header == said.header and u.text == said.final for u in utterances)
    return {
        "topics": ours(graph),
        "ids": tracked[-1].ids,
        "spoken": {"text": said.final.rstrip(".!"), "locale": said.locale, "frame": said.header.frame_id},
        "same_as_utterance": same,
    }


def words_of_others(graph: Peer, microphone: Microphone, utterances: list[Utterance]) -> dict[str, object]:
    """Another recogniser comes, our own rests and tells nothing, not even when the other has gone.

    All the while another robot has a voice: that is not another recogniser.
    """
    publisher = graph.node.create_publisher(hri.LiveSpeech, "/humans/voices/anna/speech", 10)
    graph.until(lambda: "rests" in graph.diagnostics[STATUS].message, "our own recogniser rests")
    graph.until(publisher.get_subscription_count, "the other one is heard")
    graph.until(lambda: ours(graph) == ["/humans/voices/tracked"], "the end of our own voices")
    while_resting = [u for u in ours(graph) if "voice_" in u]
    before, began_ns = int(graph.value(STATUS, "chunks")), microphone.speak()
    graph.until(lambda: int(graph.value(STATUS, "chunks")) > before + 30, "sound arrives all the same")
    header = convert.header(ANNA_NS, "other_mic")
    publisher.publish(hri.LiveSpeech(incremental="I am"))
    publisher.publish(hri.LiveSpeech(final="without a stamp"))
    publisher.publish(hri.LiveSpeech(header=header, final="I am here.", confidence=0.5, locale="en_GB"))
    graph.until(lambda: any(u.speaker for u in utterances), "the words of the other")
    graph.until(lambda: graph.value(STATUS, "live_speech_bad") == "1", "the missing stamp")
    bad = graph.value(STATUS, "live_speech_bad")
    (anna,) = [u for u in utterances if u.speaker]
    graph.node.destroy_publisher(publisher)
    graph.until(lambda: "rests" not in graph.diagnostics[STATUS].message, "our own recogniser listens again")
    again_ns = microphone.speak()
    graph.until(
        lambda: any(not u.speaker and from_msg.stamp_ns(u.start) >= again_ns for u in utterances), "our own words"
    )
    late = [u.text for u in utterances if began_ns <= from_msg.stamp_ns(u.start) < again_ns]
    return {
        "while_others_hear": while_resting,
        "anna": {
            "speaker": anna.speaker,
            "track": anna.track_id,
            "text": anna.text,
            "language": anna.language,
            "confidence": anna.confidence,
        },
        "heard_while_resting": late,
        "bad": bad,
    }


def main() -> dict[str, object]:
    """Everything that the test judges."""
    process, graph, robot = start("perception"), Peer(), Peer("speech")
    try:
        robot.node.create_publisher(hri.LiveSpeech, ANOTHER_ROBOT, 10)
        graph.until(lambda: graph.node.count_publishers(ANOTHER_ROBOT), "the other robot")
        utterances = graph.hear(Utterance, "utterances", qos.RESULT)
        microphone = Microphone(graph, "ravdess_angry")
        told = own_words(graph, microphone, utterances)
        return {**told, **words_of_others(graph, microphone, utterances)}
    finally:
        graph.close()
        robot.close()
        log = end(process)
        assert "Traceback" not in log, log


if __name__ == "__main__":
    print(json.dumps(main()))
