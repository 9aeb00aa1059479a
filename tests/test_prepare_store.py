"""The feature store: nothing half written, nothing of another producer, nothing damaged taken for whole."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the feature store needs it: make torch")

from training.prepare.store import CorruptShard, FeatureStore, NotPrepared, OtherProducer, StoreFull

PRODUCER = {"face_mesh": "abc", "frames": "8"}
KINDS = (np.uint8, np.bool_, np.int64, np.float16, np.float32)


def arrays(seed: int, size: int = 200) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    named = {kind.__name__: (random.random((2, size)) * 100).astype(kind) for kind in KINDS}
    return {**named, "scalar": np.array(seed), "empty": np.zeros((0, 3), np.float32)}


def fill(folder, ids, **options):
    with FeatureStore(folder, PRODUCER, **options) as store:
        for i in ids:
            store.put(f"c{i}", arrays(i))


def assert_has(store, ids):
    for i in ids:
        got, wanted = store.get(f"c{i}"), arrays(i)
        assert got.keys() == wanted.keys()
        for name, array in wanted.items():
            assert got[name].dtype == array.dtype
            np.testing.assert_array_equal(got[name], array)


def test_what_was_put_comes_back_from_this_object_and_the_next(tmp_path):
    store = FeatureStore(tmp_path / "new" / "store", PRODUCER)
    mine = arrays(1)
    store.put("c1", mine)
    mine["uint8"][:] = 0  # the giver's array is no longer the store's
    assert_has(store, [1])
    store.flush()
    store.get("c1")["uint8"][:] = 0  # nor is the taker's
    assert_has(store, [1])
    again = FeatureStore(tmp_path / "new" / "store", PRODUCER)
    assert_has(again, [1])
    assert_has(pickle.loads(pickle.dumps(again)), [1])
    assert again.missing(["c2", "c1", "c0", "c2"]) == ["c2", "c0"]
    assert ("c1" in again, "c2" in again, len(again), list(again)) == (True, False, 1, ["c1"])
    with pytest.raises(NotPrepared, match=r"'c2' is not in .*: prepare it first, with: emo data prepare"):
        again.get("c2")


def test_shards_are_cut_by_size_and_by_time(tmp_path):
    fill(tmp_path / "size", range(5), shard_mb=0.0001)
    fill(tmp_path / "time", range(5), wait_s=0.0)
    fill(tmp_path / "one", range(5))
    assert [len(list((tmp_path / name).iterdir())) for name in ("size", "time", "one")] == [5, 5, 1]


def test_two_writers_and_a_reader(tmp_path):
    first, second = FeatureStore(tmp_path, PRODUCER), FeatureStore(tmp_path, PRODUCER)
    reader = FeatureStore(tmp_path, None)
    for store, ids in ((first, (1, 2)), (second, (2, 3))):
        for i in ids:
            store.put(f"c{i}", arrays(i))
        store.flush()
    reader.refresh()
    assert reader.producer == PRODUCER
    assert list(reader) == ["c1", "c2", "c3"]
    assert_has(reader, [1, 2, 3])
    assert reader.verify() == 3
    with pytest.raises(ValueError, match="opened for reading"):
        reader.put("c4", arrays(4))


def test_another_producer_is_told_what_differs(tmp_path):
    fill(tmp_path, [1])
    with pytest.raises(OtherProducer, match=r"face_mesh: wanted xyz, found abc; size: wanted 2, found none\. Name an"):
        FeatureStore(tmp_path, {**PRODUCER, "face_mesh": "xyz", "size": "2"})


@pytest.mark.parametrize(
    ("clip_id", "given", "told"),
    [
        ("c1", {"a": np.zeros(1)}, "is in .* already"),
        ("", {"a": np.zeros(1)}, "expected a clip id and at least one array"),
        ("c2", {}, "expected a clip id and at least one array"),
        ("c2", {"a": np.array(["words"])}, "expected numbers of at most 8 bytes, got <U5"),
        ("c2", {"a/b": np.zeros(1)}, "expected a name without '/'"),
    ],
)
def test_what_cannot_be_kept(tmp_path, clip_id, given, told):
    fill(tmp_path, [1])
    with pytest.raises(ValueError, match=told):
        FeatureStore(tmp_path, PRODUCER).put(clip_id, given)


def flip(shard, offset):
    data = bytearray(shard.read_bytes())
    data[offset] ^= 1
    shard.write_bytes(data)


def test_a_changed_bit_is_found_and_the_remedy_works(tmp_path):
    fill(tmp_path, range(4), shard_mb=0.0001)
    victim = sorted(tmp_path.iterdir())[2]
    flip(victim, -1)
    store = FeatureStore(tmp_path, PRODUCER)
    assert_has(store, [0, 1, 3])
    with pytest.raises(CorruptShard, match=rf"{victim.name} is damaged: .* of clip 'c2' has changed .*; delete it and"):
        store.get("c2")
    with pytest.raises(CorruptShard):
        store.verify()
    victim.unlink()
    again = FeatureStore(tmp_path, PRODUCER)
    assert again.missing(f"c{i}" for i in range(4)) == ["c2"]


@pytest.mark.parametrize("harm", ["cut", "header", "foreign"])
def test_what_is_no_shard_is_named(tmp_path, harm):
    fill(tmp_path, [1])
    (shard,) = tmp_path.iterdir()
    if harm == "cut":
        shard.write_bytes(shard.read_bytes()[:-7])
    elif harm == "header":
        flip(shard, 8)
    else:
        from safetensors.numpy import save_file

        save_file({"weight": np.zeros(3)}, shard)
    with pytest.raises(CorruptShard, match=rf"{shard.name} is damaged: .*; delete it"):
        FeatureStore(tmp_path, PRODUCER)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_prepare_store import *
from training.prepare import store as module
whole = module._write_whole
def half(path, data):
    path.write_bytes(data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
store = FeatureStore(sys.argv[1], PRODUCER, shard_mb=0.01)
for i in range(20):
    if i == 11:
        module._write_whole = half  # the kill hits a shard in the middle of its writing
    store.put(f"c{i}", arrays(i))
"""


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def test_killed_while_writing_it_goes_on(tmp_path):
    done = python(KILLED, tmp_path, Path(__file__).parent)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (part,) = tmp_path.glob("*.part")
    store = FeatureStore(tmp_path, PRODUCER, shard_mb=0.01)
    missing = store.missing(f"c{i}" for i in range(20))
    assert 0 < len(missing) < 20
    assert part.exists()  # it might be another process's, still at work
    os.utime(part, (0, 0))
    with store:
        for clip_id in missing:
            store.put(clip_id, arrays(int(clip_id[1:])))
    again = FeatureStore(tmp_path, PRODUCER)
    assert_has(again, range(20))
    assert not part.exists()


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from test_prepare_store import *
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
store = FeatureStore(sys.argv[1], PRODUCER)
store.put("c0", arrays(0))
store.flush()
for i in range(1, 12):
    store.put(f"c{i}", arrays(i))
try:
    store.flush()
except StoreFull as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert_has(store, range(12))
store.flush()
"""


def test_no_room_is_said_and_nothing_is_lost(tmp_path):
    done = python(FULL, tmp_path, Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    assert "no room for" in done.stdout
    assert "1 clips are safe. Make room, or allow more, and run the same command again" in done.stdout
    assert not list(tmp_path.glob("*.part"))
    assert_has(FeatureStore(tmp_path, PRODUCER), range(12))


def test_a_full_disk_ends_a_with_block_by_its_own_error(tmp_path, monkeypatch):
    def no_room(path, data):
        path.write_bytes(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.prepare.store._write_whole", no_room)
    with pytest.raises(StoreFull, match="No space left on device"):
        fill(tmp_path, range(3), shard_mb=0.0001)
    assert list(tmp_path.iterdir()) == []
