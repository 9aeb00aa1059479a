"""Writes ``parameters.md`` from ``emo_perception/config/``: ``.venv/bin/python docs/make_parameters.py``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from emo_perception.config import NODE_CONFIGS, Config

PAGE = Path(__file__).with_name("parameters.md")

HEAD = """\
# Parameters

<!-- Written by docs/make_parameters.py from emo_perception/config/: change it there, then
     .venv/bin/python docs/make_parameters.py -->

Every parameter of every node, with its default. *live* means that it can be set while the node runs; the others are
read-only after the start. A value of a wrong type or out of range is refused with a message that names the range.

Values come from three places, the later wins: the profile (`config/start.yaml`), your own file
(`emo run --params-file mine.yaml`, `ros2 launch emo_perception robot.launch.py params_file:=mine.yaml`), and the
options of the command. Three parameters are set only by options, never by a file: `source.uri` by `source`,
`perception.source_inside` by `privacy` and `recorder.folder` by `record`.

A file has the form of every ROS 2 parameter file; name only what you change:

```yaml
/**/face:
  ros__parameters:
    detect_width: 640
/**/caption:
  ros__parameters:
    stride_s: 2.0
```

While it runs, with a ROS installation: `ros2 param set /caption stride_s 2.0`.

History, depth and reliability of each image, sound, result and caption topic are parameters too, as in any ROS 2 node:
`qos_overrides./emotion_features.publisher.depth`, set at start.
"""


def literal(value: object) -> str:
    """A default as YAML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if value == "" else str(value)


def row(spec: dataclasses.Field[Any]) -> str:
    """One parameter as a line of a table."""
    meta = spec.metadata
    allowed = ", ".join(meta["choices"])
    if meta["low"] is not None:
        allowed = f"{meta['low']:g} to {meta['high']:g}"
    when = "start" if meta["fixed"] else "live"
    kind = type(spec.default).__name__
    cells = (f"`{spec.name}`", kind, f"`{literal(spec.default)}`", allowed, when, meta["description"])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def section(kind: type[Config]) -> str:
    """The table of one node."""
    head = f"## {kind.node}\n\n{(kind.__doc__ or '').strip()}\n"
    table = ["| parameter | type | default | allowed | when | meaning |", "|---|---|---|---|---|---|"]
    return "\n".join([head, *table, *map(row, dataclasses.fields(kind))]) + "\n"


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(section, NODE_CONFIGS.values())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
