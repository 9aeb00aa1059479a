"""One recording after the other through the real graph: its processes, the bag played at its own speed, the answers recorded."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from emo_perception.bag_input import COMPRESSED, Inputs, bag_items
from emo_perception.bags import Bag, BagError
from emo_perception.config import CaptionConfig, CauseConfig, Config, load_profile
from emo_perception.files import profile_file
from emo_perception.graph import GraphOptions
from emo_perception.report import Run, load_run
from emo_perception.tools.bag import node_command
from emo_perception.tools.run import supervise
from emo_perception.tools.supervisor import Supervisor
from emo_perception.types import NS_PER_S, Frame
from training.evaluation.bags.gather import Recording
from training.evaluation.bags.runner import BAGS, Outcome, Plan
from training.evaluation.bags.story import Story

#: Loading the networks of the papers takes minutes on small machines.
LOAD_S: Final = 600.0
#: Silence after the end of a recording that counts as nothing more, beside what the slow nodes may take.
QUIET_S: Final = 3.0
CLOCK_HZ: Final = 250.0
#: The nodes whose loading is waited for.
NODES: Final = ("perception", "caption", "cause")
#: What the diagnostics tell of an engine.
ENGINE: Final = ("engine", "backend", "backend_version", "precision", "threads")
#: Of the latency of a stage the diagnostics tell these.
TOLD: Final = {"p50": "latency_p50_ms", "p95": "latency_p95_ms"}


def run_live(found: Sequence[Recording], plan: Plan, out: Path, tell: Callable[[str], None]) -> Outcome:
    """Run the graph once for every recording, and record it into ``out/bags/NAME/bag``.

    Raises :class:`emo_perception.config.ConfigError` when the graph cannot run, :class:`BagError`.
    """
    outcome = Outcome()
    for recording in found:
        folder = out / BAGS / recording.name
        folder.mkdir(parents=True)
        with Bag(recording.path) as bag:
            inputs, configs = plan.fitted(recording, bag, outcome)
            log = _play(_player(recording.path, bag, inputs), plan.profile, configs, folder)
            if not (folder / "bag").is_dir():
                raise BagError(f"{recording.name}: the graph recorded nothing; it said:\n{_tail(log)}")
            run = load_run(folder / "bag")
            run.write_jsonl(folder)
            story = Story(bag.start_ns, bag.end_ns)
            played = sum(topic.count for topic in bag.topics if topic.name == inputs.images)
            outcome.counts[recording.name] = _counts(run, story, played)
            for item in _retold(bag, inputs, run):
                story(item)
            outcome.troubles += [
                f"{recording.name}: {trouble}; what could be read was played" for trouble in bag.troubles
            ]
        outcome.stories[recording.name] = story
        _add_latencies(run, outcome)
        if not run.features:
            outcome.troubles.append(f"{recording.name}: the graph perceived nothing; it said:\n{_tail(log)}")
        tell(f"{recording.name}: {len(run.features)} images, {len(run.captions)} captions, {len(run.causes)} causes")
    return outcome


def _play(command: list[str], profile: str, configs: Mapping[str, Config], folder: Path) -> Path:
    """Graph and player until the recorder has ended; returns the file with what they printed."""
    log = folder / "graph.log"
    with tempfile.TemporaryDirectory(prefix="emo_eval_") as temporary, log.open("w", encoding="utf-8") as file:
        parameters = Path(temporary) / "eval.yaml"
        parameters.write_text(_parameters(profile, configs), encoding="utf-8")
        options = GraphOptions(
            profile=profile, record=str((folder / "bag").absolute()), params_file=str(parameters), use_sim_time=True
        )

        def output(name: str, line: str) -> None:
            print(f"[{name}] {line}", file=file, flush=True)

        with supervise(options, Path(temporary), output) as graph:
            with Supervisor({"player": command}, output, once={"player"}) as player:
                while not (player.wait(0.2) or graph.wait(0)):
                    pass
            while not (player.exit_code or graph.finished("recorder") or graph.wait(0.2)):
                pass
        code = player.exit_code or graph.exit_code
    if code:
        raise BagError(f"{folder.name}: the graph ended with exit code {code}; it said:\n{_tail(log)}")
    return log


def _player(path: Path, bag: Bag, inputs: Inputs) -> list[str]:
    """The command that plays what is processed, under the names that the graph listens to."""
    kinds = {topic.name: topic.kind for topic in bag.topics}
    image = "image_raw/compressed" if kinds[inputs.images] == COMPRESSED else "image_raw"
    there = {inputs.images: image, inputs.sound: "audio", inputs.words: "utterances"}
    there[inputs.sound.rpartition("/")[0] + "/audio_info"] = "audio_info"
    names = {name: other for name, other in there.items() if name in kinds}
    values: dict[str, Any] = {
        "bag": str(path.absolute()), "topics": " ".join(names), "clock_hz": CLOCK_HZ, "wait_s": LOAD_S,
        "wait_for": " ".join(NODES), "state": True,
    }  # fmt: skip
    return node_command("player", values, [f"{name}:={other}" for name, other in names.items() if name != f"/{other}"])


def _parameters(profile: str, configs: Mapping[str, Config]) -> str:
    """A parameter file with what differs from the profile; the dialogue is of this run only, and the end is waited for."""
    plain = load_profile(profile_file(profile))
    blocks: dict[str, dict[str, Any]] = {}
    for name, config in configs.items():
        changed = {
            spec.name: getattr(config, spec.name)
            for spec in dataclasses.fields(config)
            if getattr(config, spec.name) != getattr(plain[name], spec.name)
        }
        if changed:
            blocks[name] = changed
    caption, cause = configs[CaptionConfig.node], configs[CauseConfig.node]
    assert isinstance(caption, CaptionConfig)
    assert isinstance(cause, CauseConfig)
    quiet_s = QUIET_S + (caption.deadline_s if caption.writer != "evidence" else 0.0)
    quiet_s += cause.answer_s if cause.explainer != "ranking" else cause.settle_s
    blocks.setdefault("cause", {})["persist"] = False
    blocks["recorder"] = {"until_end": True, "quiet_s": min(quiet_s, 60.0)}
    return yaml.safe_dump({f"/**/{name}": {"ros__parameters": values} for name, values in blocks.items()})


def _retold(bag: Bag, inputs: Inputs, run: Run) -> Iterator[object]:
    """What was played and what the graph said of it, in the order of their stamps."""
    captions = sorted(run.captions, key=lambda c: c.stamp_ns)
    features = {item.stamp_ns: item for item in run.features}
    yield from run.utterances
    for item in bag_items(bag, dataclasses.replace(inputs, sound="", words=""), lambda _: None):
        while captions and captions[0].stamp_ns <= item.stamp_ns:
            yield captions.pop(0)
        if isinstance(item, Frame) and item.stamp_ns in features:
            yield item
            yield features.pop(item.stamp_ns)
    yield from captions
    yield from run.causes


def _counts(run: Run, story: Story, images: int) -> dict[str, Any]:
    said = [caption for caption in run.captions if not caption.abstained]
    told = run.diagnostics
    return {
        "images": images, "features": len(run.features), "captions": len(said),
        "causes": sum(not cause.abstained for cause in run.causes), "utterances": len(run.utterances),
        "abstentions": len(run.captions) - len(said), "withheld": _sum(told, "withheld"),
        "out of order": _sum(told, "late"), "dropped": _sum(told, "dropped"), "failed": _sum(told, "failed"),
        "seconds": round((story.end_ns - story.start_ns) / NS_PER_S, 3),
    }  # fmt: skip


def _sum(diagnostics: Mapping[str, Mapping[str, str]], key: str) -> int:
    return sum(int(float(values.get(key, 0))) for values in diagnostics.values())


def _add_latencies(run: Run, outcome: Outcome) -> None:
    """From the stamp to the receipt, of everything; of single stages what their nodes reported last."""
    outcome.latency_ms.setdefault("image to features", []).extend(run.features_ms)
    outcome.latency_ms.setdefault("end of window to caption", []).extend(run.captions_ms)
    for name, values in run.diagnostics.items():
        if values.get("engine"):
            outcome.engines[name.rpartition(": ")[2]] = {key: values.get(key, "") for key in ENGINE}
        if "latency_p50_ms" in values:
            outcome.stage_ms.setdefault(name.rpartition(": ")[2], []).append(
                {mark: float(values[key]) for mark, key in TOLD.items() if key in values}
                | {"runs": float(values.get("processed", 0))}
            )


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(encoding="utf-8").splitlines()[-lines:])
