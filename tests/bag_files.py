"""Bags as other programs leave them, and as accidents do."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emo_perception.bags import BagWriter, typestore
from emo_perception.types import NS_PER_S

START_NS = 1_700_000_000 * NS_PER_S
STEP_NS = NS_PER_S // 10
JPEG, STRING = "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"


def message(kind: str, **fields: Any) -> bytes:
    """CDR bytes of a message of the Humble typestore."""
    store = typestore()
    return bytes(store.serialize_cdr(store.types[kind](**fields), kind))


def header(stamp_ns: int, frame_id: str = "cam") -> Any:
    types = typestore().types
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    stamp = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def jpeg(stamp_ns: int, bgr: np.ndarray) -> bytes:
    data = cv2.imencode(".jpg", bgr)[1].reshape(-1)
    return message(JPEG, header=header(stamp_ns), format="jpeg", data=data)


def raw(stamp_ns: int, bgr: np.ndarray) -> bytes:
    height, width = bgr.shape[:2]
    fields = {"height": height, "width": width, "encoding": "bgr8", "is_bigendian": 0, "step": 3 * width}
    return message("sensor_msgs/msg/Image", header=header(stamp_ns), data=bgr.reshape(-1), **fields)


def text(value: str) -> bytes:
    return message(STRING, data=value)


def write_texts(folder: Path, storage: str, count: int, *, step_ns: int = STEP_NS, size: int = 0) -> Path:
    """Texts "0", "1", ... on /words; ``size`` pads each to so many characters."""
    writer = BagWriter(folder, storage)
    for i in range(count):
        writer.write("/words", STRING, START_NS + i * step_ns, text(str(i).ljust(size)))
    writer.close()
    return folder


def write_images(
    folder: Path, images: Sequence[np.ndarray], stamps_ns: Sequence[int] = (), *, storage: str = "mcap",
    topic: str = "/image_raw/compressed",
) -> Path:  # fmt: skip
    """BGR images as JPEG, received one step after the other, whatever their stamps are."""
    writer = BagWriter(folder, storage)
    for i, image in enumerate(images):
        received_ns = START_NS + i * STEP_NS
        writer.write(topic, JPEG, received_ns, jpeg(stamps_ns[i] if stamps_ns else received_ns, image))
    writer.close()
    return folder


def cut(bag: Path, share: float) -> Path:
    """Cut the storage file of a bag down to a share of its size, as a full disk or a broken copy does."""
    (file,) = (f for f in bag.iterdir() if f.suffix in (".mcap", ".db3"))
    with file.open("r+b") as stream:
        stream.truncate(round(file.stat().st_size * share))
    return bag


def killed(bag: Path) -> Path:
    """What a recorder that was killed leaves: no metadata, no index at the end of an MCAP file."""
    (bag / "metadata.yaml").unlink()
    return cut(bag, 0.97) if list(bag.glob("*.mcap")) else bag


def write_like_humble(folder: Path, texts: Sequence[str]) -> Path:
    """A bag in two files as "ros2 bag record" of Humble writes it: sqlite3 schema and metadata of that time."""
    folder.mkdir()
    for number in (0, 1):
        with sqlite3.connect(folder / f"x_{number}.db3") as file:
            file.executescript(
                "CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);"
                "CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);"
                "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,"
                " serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);"
                "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,"
                " data BLOB NOT NULL);"
                "CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
                "INSERT INTO schema(schema_version, ros_distro) VALUES (3, 'humble');"
            )
            file.execute("INSERT INTO topics VALUES (1, '/words', ?, 'cdr', ?)", (STRING, LATCHED))
            for i in range(number * len(texts) // 2, (number + 1) * len(texts) // 2):
                row = (START_NS + i * STEP_NS, text(texts[i]))
                file.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?, ?)", row)
        file.close()
    length_ns = (len(texts) - 1) * STEP_NS
    (folder / "metadata.yaml").write_text(
        f"""rosbag2_bagfile_information:
  version: 5
  storage_identifier: sqlite3
  duration: {{nanoseconds: {length_ns}}}
  starting_time: {{nanoseconds_since_epoch: {START_NS}}}
  message_count: {len(texts)}
  topics_with_message_count:
    - topic_metadata: {{name: /words, type: {STRING}, serialization_format: cdr, offered_qos_profiles: ""}}
      message_count: {len(texts)}
  compression_format: ""
  compression_mode: ""
  relative_file_paths: [x_0.db3, x_1.db3]
  files: []
"""
    )
    return folder


LATCHED = """\
- history: 1
  depth: 1
  reliability: 1
  durability: 1
  deadline: {sec: 0, nsec: 0}
  lifespan: {sec: 0, nsec: 0}
  liveliness: 1
  liveliness_lease_duration: {sec: 0, nsec: 0}
  avoid_ros_namespace_conventions: false
"""


def copy(bag: Path, to: Path) -> Path:
    return Path(shutil.copytree(bag, to))
