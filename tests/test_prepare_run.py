"""Whole data sets: several processes, kills, crashes and bad files, and the same arrays in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from media_files import write_clip

pytest.importorskip("safetensors", reason="the feature store needs it: make torch")

from training.datasets.record import Record, Span
from training.prepare.clips import ClipForm
from training.prepare.faces import FaceTrack, KnownFaces
from training.prepare.features import compute_features, network_producer
from training.prepare.pool import PoolError, results
from training.prepare.run import QUARANTINE, prepare_clips
from training.prepare.store import FeatureStore, StoreFull

COUNT = 8
FORM = ClipForm(frames=3, image_size=32, face_size=16)
POINTS = np.array([[8, 8], [16, 8], [12, 12], [9, 16], [15, 16]], np.float32)
TRACKS = {f"c{i}": [FaceTrack(dict.fromkeys(range(0, 12, 2), POINTS + i), 1.0)] for i in range(COUNT)}
finder = partial(KnownFaces, TRACKS, "1")


def records(folder):
    return [Record(f"c{i}", "made", "train", Span(folder / f"c{i}.mp4")) for i in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("videos")
    for i in range(COUNT):
        write_clip(place / f"c{i}.mp4", frames=12 + i, size=(64, 48), sound_s=None)
    return place


def store_of(place, **options):
    return FeatureStore(place, FORM.producer(finder()), **options)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """Prepared in one go by one process."""
    store = store_of(tmp_path_factory.mktemp("whole"))
    assert prepare_clips(records(folder), store, FORM, finder).done == COUNT
    return store


def assert_same(store, other):
    assert list(store) == list(other)
    for clip_id in other:
        mine, wanted = store.get(clip_id), other.get(clip_id)
        assert mine.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(mine[name], array)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_prepare_run as t
if __name__ == "__main__":
    def stop(done, quarantined):
        if done == 4:
            os.kill(os.getpid(), signal.SIGKILL)
    store = t.store_of(sys.argv[2], shard_mb=0.02)
    t.prepare_clips(t.records(Path(sys.argv[1])), store, t.FORM, t.finder, workers=2, progress=stop)
"""


def test_killed_half_way_it_goes_on_to_the_same_end(folder, whole, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, script, folder, out, Path(__file__).parent], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    store = store_of(out)
    had = len(store)
    assert 0 < had < COUNT
    outcome = prepare_clips(records(folder), store, FORM, finder)
    assert (outcome.done, outcome.already, outcome.quarantined) == (COUNT - had, had, ())
    assert_same(store_of(out), whole)


def test_what_cannot_be_read_is_set_aside_and_tried_again(folder, whole, tmp_path):
    place = tmp_path / "videos"
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes() if file.name not in ("c2.mp4", "c5.mp4") else b"\0" * 99)
    text_only = Record("words", "made", "train", None, flags=frozenset({"no-video"}))
    store = store_of(tmp_path / "out")
    outcome = prepare_clips([*records(place), text_only], store, FORM, finder)
    assert (outcome.done, outcome.without_video, len(outcome.quarantined)) == (COUNT - 2, 1, 2)
    rows = [json.loads(line) for line in (tmp_path / "out" / QUARANTINE).read_text().splitlines()]
    assert [(r["file"], r["row"], r["reason"]) for r in rows] == [
        ("c2.mp4", "c2", "unreadable-video"),
        ("c5.mp4", "c5", "unreadable-video"),
    ]
    assert "cannot be opened" in rows[0]["detail"]
    (place / "c2.mp4").write_bytes((folder / "c2.mp4").read_bytes())
    (place / "c5.mp4").write_bytes((folder / "c5.mp4").read_bytes())
    assert prepare_clips(records(place), store, FORM, finder).done == 2
    assert (tmp_path / "out" / QUARANTINE).read_text() == ""
    assert_same(store, whole)
    with pytest.raises(ValueError, match="clip id c0 occurs twice"):
        prepare_clips([*records(place), *records(place)], store, FORM, finder)


@dataclass
class Fragile:
    """Work that dies over 3, as a decoder may over a damaged file, and works on everything else."""

    made_in: int

    def __call__(self, item: int) -> tuple[int, bool]:
        if item == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        return item * item, os.getpid() != self.made_in

    def close(self) -> None: ...


def test_an_item_that_crashes_costs_only_itself():
    found = dict(results(range(8), partial(Fragile, os.getpid()), workers=2))
    failure = found.pop(3)
    assert failure.reason.startswith("the process that worked on it was ended")
    assert found == {i: (i * i, True) for i in range(8) if i != 3}


def dies_at_once() -> Fragile:
    os._exit(7)


def test_processes_that_always_die_are_not_blamed_on_the_items():
    with pytest.raises(PoolError, match="see why with one worker"):
        list(results(range(8), dies_at_once, workers=2))


def impossible() -> Fragile:
    raise RuntimeError("weight 'face_mesh' is missing; type: emo weights pull face_mesh")


def test_what_is_nobodys_fault_ends_the_run():
    with pytest.raises(RuntimeError, match="emo weights pull face_mesh"):
        list(results(range(8), impossible, workers=2))


def test_a_full_disk_keeps_what_is_done(folder, tmp_path, monkeypatch):
    from training.prepare import store as module

    write, shards = module._write_whole, []

    def no_room_after_two(path, data):
        if len(shards) == 2:
            raise OSError(28, "No space left on device")
        shards.append(path)
        write(path, data)

    monkeypatch.setattr(module, "_write_whole", no_room_after_two)
    with pytest.raises(StoreFull, match="2 clips are safe"):
        prepare_clips(records(folder), store_of(tmp_path, shard_mb=0.001), FORM, finder)
    monkeypatch.setattr(module, "_write_whole", write)
    assert prepare_clips(records(folder), store_of(tmp_path), FORM, finder).already == 2


def test_features_are_kept_by_the_hash_of_the_weights(whole, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    asked = []

    def compute(clips):
        asked.append(len(clips))
        means = torch.tensor(np.stack([clip.clip.mean((0, 1, 2)) for clip in clips]), dtype=torch.float32)
        with torch.no_grad():
            return [{"y": row.numpy()} for row in network(means)]

    producer = network_producer(whole, linear=network)
    assert producer["clip_frames"] == "3"
    assert compute_features(whole, FeatureStore(tmp_path, producer), compute, ids=["c0", "c1"]) == 2
    features = FeatureStore(tmp_path, network_producer(whole, linear=network))
    assert compute_features(whole, features, compute, batch=4) == COUNT - 2
    assert asked == [2, 4, 2]
    assert features.get("c3")["y"].shape == (2,)
    with torch.no_grad():
        network.bias += 1
    with pytest.raises(Exception, match="network_linear: wanted"):
        FeatureStore(tmp_path, network_producer(whole, linear=network))
    with pytest.raises(ValueError, match="expected features of 8 clips, got 0"):
        compute_features(whole, FeatureStore(tmp_path / "other", producer), lambda clips: [])
