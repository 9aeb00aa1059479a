"""What all tests share: a ROS domain of their own, the transport that the graph uses, and waiting with a deadline."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
from toy_engines import ToyEngines

from emo_perception.transport import fastdds_environment

#: Domains whose ports lie below the range that Linux hands out to others (docs.ros.org, "The ROS_DOMAIN_ID").
DOMAINS = range(1, 102)
FIRST_PORT, PORTS_PER_DOMAIN, OWN_PORTS = 7400, 250, 10  # DDSI-RTPS 2.2, 9.6.1.1; from +10 on: the participants' own


def _claim(domain: int) -> TextIO | None:
    """The lock of a domain, or None when other tests hold it or participants of other programs live in it."""
    file = (Path(tempfile.gettempdir()) / f"emo_perception_tests_domain_{domain}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("", FIRST_PORT + PORTS_PER_DOMAIN * domain + OWN_PORTS))
    except OSError:
        file.close()
        return None
    return file


@pytest.fixture(scope="session", autouse=True)
def ros_domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A free ROS domain, held until the session ends: this process and its children live in it, and nobody else."""
    for domain in random.SystemRandom().sample(DOMAINS, len(DOMAINS)):
        lock = _claim(domain)
        if lock is not None:
            break
    else:
        pytest.fail(f"all ROS domains {DOMAINS[0]} to {DOMAINS[-1]} are taken: end other ROS programs of this machine")
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))  # no test reads or writes the user's memory
    os.environ["EMO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("config"))  # nor profiles of the user's own
    os.environ.update(fastdds_environment(os.environ))
    with lock:
        yield domain


def _wait_for(
    condition: Callable[[], object], what: str, within_s: float = 15.0, step: Callable[[], object] | None = None
) -> None:
    """Return when ``condition()`` is true; fail, naming ``what`` was awaited, when it is not so ``within_s`` seconds.

    ``step`` runs between two looks: give what makes things move (``lambda: rclpy.spin_once(node, timeout_sec=0.05)``),
    else it pauses.
    """
    pause = threading.Event()
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {within_s:g} s in vain for {what}")
        if step is None:
            pause.wait(0.01)
        else:
            step()


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """``wait_for(condition, what, within_s=15.0, step=None)``: see :func:`_wait_for`."""
    return _wait_for


@pytest.fixture(scope="session")
def toy_engines(tmp_path_factory: pytest.TempPathFactory) -> ToyEngines:
    """``toy_engines(*names, backend="eager", weights=None)``: a cache with toy engines, see :class:`ToyEngines`."""
    return ToyEngines(tmp_path_factory.mktemp("toy_engines"))
