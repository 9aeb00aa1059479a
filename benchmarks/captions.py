"""ECPA's captions: what the cache of keys and values saves, what the writer costs beside its networks, and how long a
caption takes after its clip.

Weights are random where none are trained: speed does not depend on them, but on how many words they write.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.graph import START_S, BenchError
from benchmarks.page import Goal, Part, table
from emo_models.engines import EngineError
from emo_models.labels import OPENGRAPHAU_MAIN
from emo_perception.config import CaptionConfig
from emo_perception.tools.supervisor import Supervisor
from emo_perception.types import (
    NS_PER_S,
    EmotionFeatures,
    FaceActionUnits,
    FaceEmotion,
    FaceFeatures,
    FaceTrack,
    Side,
    VisualContext,
)

if TYPE_CHECKING:
    from emo_models.engines.caption_network import CaptionNetwork

Say = Callable[[str], None]

#: Words of the comparison, and the tokens behind them: those of a clip of eight frames with one face.
WORDS, VISUAL, PROMPTS = 30, 196, 5
#: The cache makes decoding at least so many times cheaper, in networks of the paper's size: in small ones each operation
#: costs about the same, however much there is to compute.
LEAST_RATIO: Final = 5.0
THREADS: Final = 1
TURNS: Final = 5
CLIPS: Final = 20
PEOPLE: Final = (1, 4)
FRAME_NS: Final = NS_PER_S // 8
#: A caption that takes longer than this has not come.
LIMIT_S: Final = 60.0


@dataclass(frozen=True)
class Decoding:
    """CPU-milliseconds of :data:`WORDS` words, the clip's context included; ``difference``: largest of the scores."""

    cached_ms: float
    uncached_ms: float
    difference: float

    @property
    def ratio(self) -> float:
        """How many times cheaper the cache makes it."""
        return self.uncached_ms / self.cached_ms


@dataclass(frozen=True)
class CaptionRun:
    """``bare_ms``, ``writer_ms``: people in the clip -> CPU-milliseconds of the networks alone, and of the whole writer.

    ``words``: tokens written for one person; ``delay_ms``: from publishing a clip to hearing its caption over DDS,
    percentiles 50 and 95; ``heard`` of ``sent`` clips were captioned; ``model``, ``backend``: what wrote.
    """

    preset: str
    decoding: Decoding
    bare_ms: Mapping[int, float]
    writer_ms: Mapping[int, float]
    words: int
    delay_ms: tuple[float, float]
    sent: int
    heard: int
    backend: str


def measure(preset: str, say: Say, clips: int = CLIPS) -> CaptionRun:
    """Build engines that are missing and measure. Raises :class:`EngineError` and :class:`BenchError`."""
    say(f"{WORDS} words with and without the cache")
    decoding = _decoding(preset)
    _build(preset, say)
    network = _network(preset)
    say("the writer beside its networks")
    found = {people: _written(network, people) for people in PEOPLE}
    say("captions over DDS")
    took_ms = _over_dds(network, clips)
    if not took_ms:
        raise BenchError(f"none of {clips} clips was captioned within {LIMIT_S:.0f} s each")
    p50, p95 = np.percentile(took_ms, (50, 95))
    backend = str(network.facts()["backend"])
    network.close()
    return CaptionRun(
        preset, decoding, {n: bare for n, (bare, _, _) in found.items()}, {n: all_ for n, (_, all_, _) in found.items()},
        found[1][2], (float(p50), float(p95)), clips, len(took_ms), backend,
    )  # fmt: skip


def part(run: CaptionRun) -> Part:
    """The figures as a part of the report."""
    decoding, deadline_s = run.decoding, CaptionConfig().deadline_s
    rows = [
        (f"{people}", f"{bare:.1f}", f"{run.writer_ms[people]:.1f}", f"{run.writer_ms[people] / bare - 1:+.0%}")
        for people, bare in run.bare_ms.items()
    ]
    text = "\n\n".join(
        (
            f"## ECPA's captions, networks of preset {run.preset}",
            table(
                (f"{WORDS} words behind {VISUAL + PROMPTS} tokens, eager torch", "CPU-ms"),
                [
                    ("everything again for each word", f"{decoding.uncached_ms:.1f}"),
                    ("cached", f"{decoding.cached_ms:.1f}"),
                ],
            ),
            f"{decoding.ratio:.1f} times cheaper; the scores of both differ by {decoding.difference:.1e} at the most.",
            table(("people in the clip", "networks, CPU-ms", "writer, CPU-ms", "beyond the networks"), rows),
            f"Engines by {run.backend}, {THREADS} thread; {run.words} tokens for one person. The clip's visual tokens come "
            "from the perception process and are not in these figures.",
            table(
                ("from a clip to its caption over DDS, ms", "p50", "p95"), [("", *(f"{ms:.1f}" for ms in run.delay_ms))]
            ),
        )
    )
    goals = [
        Goal("clips captioned over DDS", "all", f"{run.heard} of {run.sent}", run.heard == run.sent),
        Goal("clip to caption, p95", f"< {deadline_s:g} s", f"{run.delay_ms[1] / 1e3:.2f} s",
             run.delay_ms[1] < deadline_s * 1e3),
    ]  # fmt: skip
    if run.preset == "paper":
        goals.append(
            Goal(f"cached decoding of {WORDS} words", f">= {LEAST_RATIO:g}x cheaper", f"{decoding.ratio:.1f}x",
                 decoding.ratio >= LEAST_RATIO)
        )  # fmt: skip
    figures = {**dataclasses.asdict(run), "ratio": decoding.ratio}
    return Part("captions", tuple(goals), text, figures)


# -- decoding ----------------------------------------------------------------------------------------------------------


def _decoding(preset: str) -> Decoding:
    import torch

    import emo_models

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    fusion: Any = emo_models.create("bert_fusion", preset).eval()
    mask = 103 % fusion.config.vocab_size
    ids = torch.randint(fusion.config.vocab_size, (1, WORDS))
    context, valid = fusion.context(
        fusion.embed_visual(torch.randn(1, VISUAL, fusion.config.visual_width)),
        torch.randn(1, PROMPTS, fusion.config.hidden),
    )

    def behind(length: int) -> Any:
        """The first ``length`` words and a [MASK] behind them."""
        return torch.cat((ids[:, :length], torch.tensor([[mask]])), 1)

    def uncached() -> Any:
        texts = (fusion.embeddings(behind(length)) for length in range(1, WORDS + 1))
        return torch.stack([fusion.head(fusion.encode(text, context, valid)[:, -1]) for text in texts])

    def cached() -> Any:
        cache = fusion.prefill(context, valid, WORDS)
        pairs = (fusion.embeddings(behind(length)[:, -2:], length - 1) for length in range(1, WORDS + 1))
        return torch.stack([fusion.step(pair, cache) for pair in pairs])

    with torch.no_grad():
        difference = float((uncached() - cached()).abs().max())
        uncached_ms, cached_ms = _turns(uncached, cached)
    return Decoding(cached_ms, uncached_ms, difference)


def _turns(*works: Callable[[], object]) -> list[float]:
    """Median CPU-milliseconds of each, turn by turn, so that other load on the machine meets all of them."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(TURNS):
        for times, work in zip(spent, works, strict=True):
            begin = time.process_time()
            work()
            times.append((time.process_time() - begin) * 1e3)
    return [statistics.median(times) for times in spent]


# -- the writer --------------------------------------------------------------------------------------------------------


def _build(preset: str, say: Say) -> None:
    from emo_models.engines.build import Options, build
    from emo_models.engines.captions import WRITERS
    from emo_models.engines.select import select
    from emo_models.engines.source import network
    from emo_models.engines.store import workspace

    for name in WRITERS:
        try:
            select(name, preset, threads=THREADS, random=True).engine.close()
        except EngineError:
            say(f"building {name}")
            with workspace() as work:
                build(network(name, preset, work), Options(threads=THREADS, timing_s=0.1), lambda _: None)


def _config(preset: str) -> CaptionConfig:
    return CaptionConfig(
        writer="ecpa", preset=preset, weights="random", threads=THREADS, deadline_s=0.0, min_confidence=0.0,
        max_people=max(PEOPLE),
    )  # fmt: skip


def _network(preset: str) -> CaptionNetwork:
    from emo_models.engines.caption_network import CaptionNetwork
    from emo_models.engines.captions import WRITERS
    from emo_perception.stages.learned import engine_of

    made = CaptionNetwork(preset, {name: engine_of(name, _config(preset)) for name in WRITERS})
    made.warmup()
    return made


def _written(network: CaptionNetwork, people: int) -> tuple[float, float, int]:
    """CPU-milliseconds of the networks alone and of the writer over a clip of so many people, and the tokens of one."""
    from emo_models.engines.captions import begin, prompt
    from emo_models.networks.ecpa.decode import greedy
    from emo_perception.stages.caption.ecpa import EcpaWriter
    from emo_perception.stages.caption.ring import Seen, network_inputs

    features, context = _clip(network, people, 0)
    er = "au_pooled" if network.er_source == "au_trunk" else "er"
    inputs = [
        network_inputs(
            [Seen.of(frame.faces[row]) for frame in features],
            er=er, widths=(network.er_width, network.au_width), units=len(OPENGRAPHAU_MAIN),
        )
        for row in range(people)
    ]  # fmt: skip
    tokens = 0

    def bare() -> None:
        nonlocal tokens
        heads = [prompt(network.engines, one) for one in inputs]
        stepper = begin(network.engines, context.tensors["visual"][None], heads, people)
        tokens = len(greedy(stepper, people, network.limits)[0].ids) - 1

    writer = EcpaWriter(_config(network.preset), network, lambda _: None)

    def whole() -> None:
        writer.reset()
        for frame in features:
            writer(frame)
        assert len(writer(context)) == people

    bare_ms, writer_ms = _turns(bare, whole)
    return bare_ms, writer_ms, tokens


def _clip(network: CaptionNetwork, people: int, number: int) -> tuple[list[EmotionFeatures], VisualContext]:
    """A random clip with these people, ten seconds behind the one before."""
    generator = np.random.default_rng(number)
    begin_ns = (1_700_000_000 + 10 * number) * NS_PER_S
    stamps = begin_ns + np.arange(network.frames, dtype=np.int64) * FRAME_NS
    features = [
        EmotionFeatures(
            int(stamp), "camera", (640, 480), tuple(_face(network, n + 1, generator) for n in range(people))
        )
        for stamp in stamps
    ]
    visual = generator.standard_normal(network.visual_shape).astype(np.float32)
    context = VisualContext(
        int(stamps[-1]), "camera", int(stamps[0]), int(stamps[-1]), "random", {"visual": visual, "stamps": stamps}
    )
    return features, context


def _face(network: CaptionNetwork, track: int, generator: np.random.Generator) -> FaceFeatures:
    units = len(OPENGRAPHAU_MAIN)
    scores = generator.random(units, np.float32)
    embeddings = {
        "au_nodes": generator.random((units, network.au_width), np.float32), "au_scores": scores,
        "au_pooled": generator.random(network.au_width, np.float32), "er": generator.random(network.er_width, np.float32),
    }  # fmt: skip
    box = np.array([100 * track, 100, 90, 90], np.float32)
    seen = FaceTrack(track, 1.0, 0, box, np.zeros((5, 2), np.float32), np.zeros(3, np.float32))
    measured = FaceActionUnits(track, "anfl", OPENGRAPHAU_MAIN, (Side.BOTH,) * units, scores)
    return FaceFeatures(seen, measured, FaceEmotion(track, "fer7", ("happy",), np.ones(1, np.float32)), embeddings)


# -- over DDS ----------------------------------------------------------------------------------------------------------


def _over_dds(network: CaptionNetwork, clips: int) -> list[float]:
    """Milliseconds from publishing a clip, whose features were sent before, to its caption; of those that came."""
    config = _config(network.preset)
    names = ("writer", "preset", "weights", "threads", "deadline_s", "min_confidence")
    given = [part for name in names for part in ("-p", f"{name}:={getattr(config, name)}")]
    command = [sys.executable, "-m", "emo_perception.nodes", "caption", "--ros-args", *given]
    printed: deque[str] = deque(maxlen=30)
    with Supervisor({"caption": command}, lambda name, line: printed.append(f"[{name}] {line}")) as process:
        peer = _Peer()
        try:
            if not peer.connect(network, lambda: process.wait(0)):
                raise BenchError(f"no caption within {START_S:.0f} s:\n" + "\n".join(printed))
            return [
                took for number in range(clips) if (took := peer.caption(network, 1000 + number, LIMIT_S)) is not None
            ]
        finally:
            peer.close()


class _Peer:
    """Publishes features and clips, hears captions; in the thread that calls it."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from emo_msgs.msg import EmotionCaption, EmotionFeatures, VisualContext
        from emo_perception import from_msg
        from emo_perception.nodes import convert, qos

        self._convert, self._stamp_ns = convert, from_msg.stamp_ns
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node("benchmark", context=self._context)
        self._features = self._node.create_publisher(EmotionFeatures, "emotion_features", qos.RESULT)
        self._clips = self._node.create_publisher(VisualContext, "visual_context", qos.VISUAL)
        self._node.create_subscription(EmotionCaption, "emotion_caption", self._hear, qos.CAPTION)
        self._heard_ns: dict[int, int] = {}
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def connect(self, network: CaptionNetwork, ended: Callable[[], bool]) -> bool:
        """Send clips until a caption comes, and one more that nothing waits in front of; False when none comes."""
        for number in range(round(START_S)):
            if ended():
                return False
            self.caption(network, number, 1.0)
            if self._heard_ns:  # maybe that of a clip before: a large network needs longer than a second
                return self.caption(network, round(START_S), LIMIT_S) is not None
        return False

    def caption(self, network: CaptionNetwork, number: int, limit_s: float) -> float | None:
        """Milliseconds from a clip to its caption; None where none came in time."""
        features, context = _clip(network, 1, number)
        for frame in features:
            self._features.publish(self._convert.frame_msgs(frame).features)
        message = self._convert.visual_context_msg(replace(context, model="benchmark"))
        begin_ns = time.perf_counter_ns()
        self._clips.publish(message)
        deadline = time.monotonic() + limit_s
        while context.window_end_ns not in self._heard_ns:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._executor.spin_once(timeout_sec=left)
        return (self._heard_ns[context.window_end_ns] - begin_ns) / 1e6

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _hear(self, message: Any) -> None:
        self._heard_ns.setdefault(self._stamp_ns(message.header.stamp), time.perf_counter_ns())
