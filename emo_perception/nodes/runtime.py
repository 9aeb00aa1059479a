"""What every node process does at its beginning and at its end: logging, executor, signals, exit code."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.signals import SignalHandlerOptions

from emo_perception.config import EXIT_CONFIG, ConfigError

EXIT_OK = 0
EXIT_CRASH = 1
SHUTDOWN_S = 5.0
"""A process that has not closed its nodes by then is ended the hard way; well-behaved ones need under two seconds."""


class RosLogHandler(logging.Handler):
    """Hands records of the standard library's logging to a ROS logger, so that they reach console and ``/rosout``."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self.logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy binds a severity to the line of the call: one line for each.
        if record.levelno >= logging.CRITICAL:
            self.logger.fatal(text)
        elif record.levelno >= logging.ERROR:
            self.logger.error(text)
        elif record.levelno >= logging.WARNING:
            self.logger.warning(text)
        elif record.levelno >= logging.INFO:
            self.logger.info(text)
        else:
            self.logger.debug(text)


def run(name: str, make_nodes: Callable[[], Sequence[Node]], args: list[str] | None = None) -> int:
    """Run the nodes until SIGINT or SIGTERM and return the exit code of the process ``name``.

    Each node has an executor and a thread of its own, or as many as its ``executor_threads`` asks for. A node that owns workers has ``close()``, called while ROS still
    works; it must return within two seconds. A :class:`ConfigError`, or ROS arguments that cannot be read, end in one
    line and code 78. ``args``: the command line; None = ``sys.argv``.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        return _refused(logging.getLogger(name), error)
    logger = rclpy.logging.get_logger(name)
    with _forwarded_logging(logger) as handler:
        try:
            nodes = list(make_nodes())
            handler.logger = nodes[0].get_logger()
            return _spin(nodes, stop)
        except (ConfigError, ParameterException, InvalidQosOverridesError) as error:
            return _refused(logger, error)
        except RuntimeError as error:
            if "QoS override" not in str(error):  # rclpy has no type of its own for an unknown policy
                raise
            return _refused(logger, error)
        finally:
            rclpy.try_shutdown()


def _refused(logger: logging.Logger | RcutilsLogger, error: Exception) -> int:
    logger.error(" ".join(str(error).split()))
    return EXIT_CONFIG


def _spin(nodes: Sequence[Node], stop: threading.Event) -> int:
    # At every message an executor of rclpy looks at each timer, service and event of all its nodes: one that held them
    # all would spend as much on an image as the image itself costs.
    executors = [_executor(getattr(node, "executor_threads", 1)) for node in nodes]
    crashes: list[BaseException] = []

    def spin(executor: Executor) -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
        except BaseException as error:
            crashes.append(error)
        finally:
            stop.set()

    # Not in the main thread: a Python signal handler only runs there, and not while it waits inside ROS.
    spinners = []
    for node, executor in zip(nodes, executors, strict=True):
        executor.add_node(node)
        name = f"ros-{node.get_name()}"
        spinners.append(threading.Thread(target=spin, args=(executor,), name=name, daemon=True))
    for spinner in spinners:
        spinner.start()
    stop.wait()
    watchdog = threading.Timer(SHUTDOWN_S, _give_up, (nodes[0].get_logger(),))
    watchdog.daemon = True
    watchdog.start()
    for node in reversed(nodes):
        close = getattr(node, "close", None)
        if close is not None:
            close()
    for executor, spinner in zip(executors, spinners, strict=True):
        executor.shutdown()
        spinner.join(SHUTDOWN_S)
    for node in reversed(nodes):
        node.destroy_node()
    watchdog.cancel()
    if crashes:
        raise crashes[0]
    return EXIT_OK


def _executor(threads: int) -> Executor:
    return MultiThreadedExecutor(threads) if threads > 1 else SingleThreadedExecutor()


def _give_up(logger: RcutilsLogger) -> None:
    logger.fatal(f"not closed after {SHUTDOWN_S:.0f} s, ending the process")
    os._exit(EXIT_CRASH)


@contextmanager
def _forwarded_logging(logger: RcutilsLogger) -> Iterator[RosLogHandler]:
    handler = RosLogHandler(logger)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(int(logger.get_effective_level()))  # ROS and Python count severities alike: 10, 20, 30, 40, 50
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        with suppress(ValueError):
            handler.close()
