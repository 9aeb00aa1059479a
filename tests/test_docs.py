"""README and docs are held to the code: links, tables, message fields, pages and layouts, and every command in them."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml

from emo_models import weights
from emo_models.blendshapes import ACTION_UNITS
from emo_models.labels import AU_NAMES, rep155_labels
from emo_perception.config import NODE_CONFIGS
from emo_perception.graph import GraphOptions
from emo_perception.images import ENCODINGS
from emo_perception.nodes import caption, cause, perception, source
from emo_perception.tools import cli

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("make_parameters", ROOT / "docs" / "make_parameters.py")
make_parameters = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_parameters)

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
#: Topics of ROS itself, which every node or lifecycle node has.
ROS_TOPICS = {"/rosout", "/parameter_events", "/perception/transition_event"}
TARGET = re.compile(r"^([a-z-]+):.*## ", re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def table(page: Path, first: str) -> dict[str, list[str]]:
    """The rows of the table whose first column is headed ``first``: first cell without backquotes -> other cells."""
    lines = text(page).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        head, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert head not in rows, f"{head} twice"
        rows[head.replace("`", "")] = cells
    return rows


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    outside = re.sub(r"^```.*?^```", "", text(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/\w+\.md)\)", text(README)))
    assert linked == {name_of(page) for page in PAGES if page != README}


def test_every_make_target_is_in_the_table() -> None:
    targets = TARGET.findall(text(ROOT / "Makefile"))
    assert set(table(README, "target")) == {f"make {target}" for target in targets}


def test_every_launch_argument_is_in_the_table_with_its_default() -> None:
    told = {name: cells[0].strip("`") for name, cells in table(README, "argument").items()}
    assert told == {spec.name: make_parameters.literal(spec.default).strip('"') for spec in options()}


def options() -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(GraphOptions)


def test_every_command_is_in_the_table() -> None:
    assert set(table(README, "command")) == {f"emo {name}" for name in cli.BUILT_IN}


def test_every_weight_and_sample_is_in_the_table_with_its_licence() -> None:
    told = {name: cells[1] for name, cells in table(README, "weight or sample").items()}
    assert set(told) == set(weights.cards())
    for name, licence in told.items():
        assert weights.card(name).licence.startswith(licence.partition(":")[0]), name


def published(tmp_path: Path) -> dict[str, str]:
    """Topic -> type of everything that the nodes of the graph publish, asked of the nodes themselves."""
    parameters = tmp_path / "all.yaml"
    parameters.write_text(
        "/**/source: {ros__parameters: {uri: 'test://', encoding: both}}\n"
        "/**/perception: {ros__parameters: {autostart: false}}\n"
        "/**/visual: {ros__parameters: {clips: true}}\n"
        "/**/cause: {ros__parameters: {persist: false}}\n"
    )
    rclpy.init(args=["--ros-args", "--params-file", str(parameters)])
    nodes = []
    try:
        for module in (source, perception, caption, cause):
            nodes += module.make_nodes()
        found = {p.topic_name: p.msg_type for node in nodes for p in node.publishers}
        return {topic: f"{kind.__module__.split('.')[0]}/{kind.__name__}" for topic, kind in found.items()}
    finally:
        for node in nodes:
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
        rclpy.shutdown()
        for thread in threading.enumerate():  # a model that is still being loaded must not outlive Python
            if thread.name.startswith("emo-"):
                thread.join(60)


def test_every_topic_is_in_the_table_with_its_type(tmp_path: Path) -> None:
    told = {f"/{topic.lstrip('/')}": cells[0].strip("`") for topic, cells in table(README, "topic").items()}
    real = {topic: kind for topic, kind in published(tmp_path).items() if topic not in ROS_TOPICS}
    assert told == real


def test_every_published_message_is_described(tmp_path: Path) -> None:
    sections = sections_of(ROOT / "docs" / "topics.md")
    assert {kind for kind in published(tmp_path).values() if kind.startswith("emo_msgs/")} <= set(sections)


def sections_of(page: Path) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def fields_of(message: str) -> set[str]:
    definition = text(ROOT / "emo_msgs" / "msg" / f"{message}.msg")
    lines = (line.partition("#")[0].split() for line in definition.splitlines())
    return {words[1] for words in lines if len(words) == 2 and "=" not in words[1]}


@pytest.mark.parametrize("message", [s for s in sections_of(ROOT / "docs" / "topics.md") if s.startswith("emo_msgs/")])
def test_every_field_of_a_described_message_is_named(message: str) -> None:
    """... and the first column of its table names nothing else."""
    section, fields = sections_of(ROOT / "docs" / "topics.md")[message], fields_of(message.partition("/")[2])
    assert fields <= set(re.findall(r"`(\w+)`", section))
    first_cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    assert {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)} <= fields


def test_every_message_is_mentioned() -> None:
    page = text(ROOT / "docs" / "topics.md")
    definitions = [*(ROOT / "emo_msgs" / "msg").glob("*.msg"), *(ROOT / "emo_msgs" / "action").glob("*.action")]
    assert [d.name for d in definitions if f"/{d.name})" not in page] == []


def test_parameters_page_is_up_to_date() -> None:
    """If not: .venv/bin/python docs/make_parameters.py."""
    assert text(make_parameters.PAGE) == make_parameters.page()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_parameters_that_are_mentioned_exist(page: Path) -> None:
    known = {f"{node}.{spec.name}" for node, kind in NODE_CONFIGS.items() for spec in dataclasses.fields(kind)}
    mentioned = set(re.findall(rf"`((?:{'|'.join(NODE_CONFIGS)})\.\w+)[`:]", text(page)))
    assert mentioned - known - {"overlay.mp4"} == set()


def test_every_encoding_is_listed() -> None:
    (listed,) = re.findall(r"^\* \*\*Encodings\*\*: `([^`]+)`", text(ROOT / "docs" / "own_camera.md"), re.MULTILINE)
    assert set(listed.split()) == {name for name in ENCODINGS if not name.startswith("bayer_")}


#: What ends a command in a shell.
SHELL = {"||", "&&", "|", ";", "&", ">", "<"}


def commands(page: Path) -> Iterator[list[str]]:
    """Every shell command with arguments on a page: in its blocks of shell code, and between backquotes."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`((?:emo|make|ros2 (?:run|launch) emo_perception) [^`]+)`", text(page))
    for line in (*"".join(blocks).splitlines(), *inline):
        words = list(itertools.takewhile(lambda word: word not in SHELL, shlex.split(line, comments=True)))
        if words[:4] == ["ros2", "run", "emo_perception", "emo"]:
            words = words[3:]
        if len(words) > (1 if words[:1] == ["make"] else 2) and "..." not in line:
            yield words


class Parsed(Exception):  # noqa: N818 - no error: how far the command shall get
    """A command line was understood."""


def check_emo(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command parse its arguments, and go no further."""
    parse = argparse.ArgumentParser.parse_args
    seen: dict[str, Any] = {}

    def parse_only(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        seen.update(vars(parse(self, args, namespace)))
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        with pytest.raises(Parsed):
            cli.main(arguments)
    if arguments[0] == "run":
        GraphOptions.of({spec.name: seen[spec.name] for spec in options()})
    if arguments[0] == "weights":
        names = [*seen.get("names", []), *([seen["name"]] if "name" in seen else [])]
        assert set(names) <= {*weights.cards(), "NAME"}


def check_make(arguments: list[str]) -> None:
    targets = TARGET.findall(text(ROOT / "Makefile"))
    for argument in arguments:
        variable, assigned, _ = argument.partition("=")
        assert (variable in ("SOURCE", "OUT", "PYTHON", "TORCH_ARGS")) if assigned else (argument in targets), argument


def check_launch(arguments: list[str]) -> None:
    assert (ROOT / "launch" / arguments[0]).is_file()
    given = dict(argument.split(":=", 1) for argument in arguments[1:])
    GraphOptions.of_text({name: "/camera/image_raw" if "..." in value else value for name, value in given.items()})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in commands(page):
        if words[0] == "emo":
            check_emo(words[1:], monkeypatch)
        elif words[0] == "make":
            check_make(words[1:])
        elif words[:3] == ["ros2", "launch", "emo_perception"]:
            check_launch(words[3:])


def leaves(node: Any) -> Iterator[str]:
    """Every text in a tree of lists and dictionaries."""
    if isinstance(node, str):
        yield node
    else:
        for child in node.values() if isinstance(node, dict) else node:
            yield from leaves(child)


def test_the_site_has_every_page() -> None:
    # BaseLoader takes mkdocs's tags for functions as plain text.
    site = yaml.load(text(ROOT / "mkdocs.yml"), yaml.BaseLoader)
    shown = {page for page in leaves(site["nav"]) if not page.startswith("benchmarks/")}
    assert shown == {"index.md", *(page.name for page in PAGES if page != README)}


LAYOUT = ROOT / "config" / "foxglove.json"


def panels(node: Any) -> Iterator[str]:
    """The panels of a Foxglove layout, from its tree of splits."""
    if isinstance(node, str):
        yield node
    else:
        assert node["direction"] in ("row", "column")
        assert 0 < node["splitPercentage"] < 100
        yield from itertools.chain(panels(node["first"]), panels(node["second"]))


def test_foxglove_layout_shows_each_of_its_panels_once() -> None:
    layout = json.loads(text(LAYOUT))
    shown = list(panels(layout["layout"]))
    assert sorted(shown) == sorted(layout["configById"])


def test_foxglove_layout_names_topics_that_exist(tmp_path: Path) -> None:
    topics = set(re.findall(r'"(/[a-z_/]+)', text(LAYOUT)))
    assert {"/overlay/compressed", "/emotion_caption", "/utterances", "/emotion_cause"} <= topics
    assert topics <= {*published(tmp_path), *ROS_TOPICS}


@pytest.mark.parametrize(
    ("panel", "message", "field", "labels"),
    [
        ("Plot!emotions", "FaceEmotion", "probabilities", rep155_labels("fer7")),
        ("Plot!action_units", "FaceActionUnits", "intensity", [f"AU {au} {AU_NAMES[au]}" for au in ACTION_UNITS]),
    ],
)
def test_foxglove_plots_call_each_number_by_its_name(panel: str, message: str, field: str, labels: list[str]) -> None:
    topic = f"/{panel.partition('!')[2]}"
    layout = json.loads(text(LAYOUT))
    assert {"track_id", field} <= fields_of(message)
    drawn = [(path["value"], path["label"]) for path in layout["configById"][panel]["paths"]]
    face = f"{topic}.faces[:]{{track_id==$track_id}}"
    assert drawn == [(f"{face}.{field}[{i}]", label) for i, label in enumerate(labels)]
    assert "track_id" in layout["globalVariables"]
