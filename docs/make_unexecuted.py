"""Writes ``unexecuted.md`` from the table below: ``.venv/bin/python docs/make_unexecuted.py``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).with_name("unexecuted.md")


class Unexecuted(NamedTuple):
    """A path that nobody ever ran. ``code``: ``file`` or ``file:name`` of it; ``needs``: what would run it."""

    area: str
    what: str
    code: str
    needs: str


ENGINES = "emo_models/engines/backends"
PATHS: tuple[Unexecuted, ...] = (
    Unexecuted("engines", "eager torch on a GPU", f"{ENGINES}/eager.py:EagerCudaBackend", "an NVIDIA GPU"),
    Unexecuted("engines", "CUDA graphs, and stages that share a GPU", "emo_models/engines/cuda.py:CudaEngine", "an NVIDIA GPU"),
    Unexecuted("engines", "torch-tensorrt: build and run", f"{ENGINES}/torch_tensorrt.py", "an NVIDIA GPU and its wheel, from NVIDIA's index"),
    Unexecuted("engines", "plain TensorRT: build and run", f"{ENGINES}/tensorrt.py:TensorRtBackend", "an NVIDIA GPU, TensorRT 10 or later"),
    Unexecuted("engines", "TensorRT for RTX: run (its plans are built in the tests)", f"{ENGINES}/tensorrt.py:TensorRtRtxBackend", "an RTX GPU: compute capability 7.5, 8.0, 8.6, 8.9 or 12"),
    Unexecuted("engines", "everything on Jetson Orin and Thor", f"{ENGINES}/tensorrt.py:TensorRtBackend", "a Jetson with JetPack 6 or 7"),
    Unexecuted("engines", "CPU engines on aarch64, bf16 of Arm among them", f"{ENGINES}/openvino.py:OpenVinoBackend", "an Arm machine, as a Jetson or a Raspberry Pi 5"),
    Unexecuted("weights", "any public checkpoint of the papers' networks, read into them", "emo_models/checkpoints/load.py:load_checkpoint", "the files named in docs/networks.md"),
    Unexecuted("weights", "the language model of FAME-Net at its size", "emo_models/networks/fame/model.py:FAME", "14 GB of weights and memory for them"),
    Unexecuted("profiles", "profile `paper` at its sizes with FAME-Net's language model, and with any trained weights (the rest ran with random ones, docs/benchmarks/2026-11-22-paper-profile.md)", "config/paper.yaml", "a GPU, or 40 GB of memory and patience; its weights"),
    Unexecuted("training", "any recipe of a public data set (MAFW, EmVidCap, MSVD, MSR-VTT, ECEM, ECGF, WIDER FACE, OpenGraphAU, AffectNet, RAF-DB)", "training/recipes/ecpa_mafw.yaml", "the data; docs/datasets.md says whom to ask"),
    Unexecuted("training", "readers on the videos of these sets, and on MAFW's, MSR-VTT's and ECGF's own files", "training/datasets/mafw.py:Mafw", "the data"),
    Unexecuted("training", "a GPU, several machines, DeepSpeed, FSDP", "training/trainer/loop.py:train", "them, and an accelerate config"),
    Unexecuted("training", "FAME-Net around a language model of 7 B, and the baselines of its Table 2 on a real server", "training/tables/baselines.py", "a GPU, or a server that speaks OpenAI's protocol"),
    Unexecuted("evaluation", "BLEURT (only its errors)", "training/metrics/bleurt.py", "Google's package and a checkpoint"),
    Unexecuted("evaluation", "BERTScore with a real model", "training/metrics/bertscore.py", "a local folder with one"),
    Unexecuted("ROS", "ROS 2 from apt: Humble, Jazzy or later (the wheels of Jazzy were used)", "launch/robot.launch.py", "Ubuntu with ROS 2"),
    Unexecuted("ROS", "a real camera and a real microphone", "emo_perception/sources/source.py:Source", "the devices"),
    Unexecuted("ROS", "a robot", "launch/robot.launch.py", "a robot"),
    Unexecuted("system", "macOS and Windows", "emo_models/weights.py:cache_dir", "one of them; the store of engines locks by fcntl, which Windows lacks"),
)  # fmt: skip

HEAD = """\
# Never run anywhere

<!-- Written by docs/make_unexecuted.py: change the table in it, then .venv/bin/python docs/make_unexecuted.py -->

Code that is written to its documentation and was never executed, on no machine. Everything else has run at least in
the tests. Whoever runs one of these: please tell what happened.

| area | what never ran | code | what it needs |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = (f"| {p.area} | {p.what} | [{_shown(p.code)}](../{p.code.partition(':')[0]}) | {p.needs} |\n" for p in PATHS)
    return HEAD + "".join(rows)


def _shown(code: str) -> str:
    file, _, name = code.partition(":")
    return f"`{name or Path(file).name}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
