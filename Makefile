# Two commands: `make demo` and `make test`. Everything is installed into .venv; root is not needed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet
# Tried in this order; `make PYTHON=/path/to/python` decides otherwise.
PYTHON ?= python3 python3.12 python3.11 python3.13 python3.10 /usr/bin/python3
OUT ?= demo/out
# Test files that run side by side, each in a ROS domain of its own. Many of them wait for what happens in real time.
JOBS ?= 2
# The build that the tests run with. It is a CPU build only from the publisher's index, else gigabytes of CUDA come along:
# make torch TORCH_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
TORCH ?= torch==2.13.0
TORCH_ARGS ?=
export SOURCE OUT

# The ROS 2 wheels start Python anew with their own library path, unless this says that it was done: a Python of another
# environment that called make would have it set.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# A sourced ROS installation must not mix with the wheels in .venv.
ifdef AMENT_PREFIX_PATH
unexport PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH ROS_DISTRO RMW_IMPLEMENTATION
endif

# What a Python must have; also understood by a Python that is too old. The last line it prints is its verdict.
define PROBE
import os, platform, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("is Python %s: needs 3.10 to 3.13, for which the ROS 2 wheels exist" % version)
if platform.machine() != "x86_64":
    sys.exit("runs on %s: the ROS 2 wheels are for x86_64; use ROS 2 from apt and colcon" % platform.machine())
try:
    import ensurepip, venv
except ImportError:
    sys.exit("cannot make virtual environments: sudo apt install python%s-venv" % version)
if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    sys.exit("has no header files to build the messages: sudo apt install python%s-dev" % version)
endef
export PROBE

MESSAGES := $(wildcard emo_msgs/*.* emo_msgs/msg/* emo_msgs/action/* emo_msgs/cmake/*)

.PHONY: help setup torch train engines gstreamer test test-slow test-engines test-toy lint demo toy bench docs clean

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.installed $(VENV)/.messages gstreamer ## make .venv with everything that is needed (again only what changed)

$(VENV)/.python:
	@command -v c++ >/dev/null || { echo "make: no C++ compiler, which builds the messages: sudo apt install build-essential" >&2; exit 1; }
	@for python in $(PYTHON); do \
	  command -v "$$python" >/dev/null || continue; \
	  if why=$$("$$python" -c "$$PROBE" 2>&1); then found=$$python; break; fi; \
	  echo "make: $$python $${why##*$$'\n'}" >&2; \
	done; \
	if [ -z "$${found:-}" ]; then echo "make: no usable Python found; name one: make setup PYTHON=/path/to/python3" >&2; exit 1; fi; \
	echo "making $(VENV) with $$("$$found" --version)"; \
	rm -rf $(VENV); "$$found" -m venv $(VENV)
	@$(PIP) 'pip>=23.1'
	@touch $@

$(VENV)/.installed: $(VENV)/.python setup.py pyproject.toml
	@echo "installing ROS 2, OpenVINO, OpenCV and the package into $(VENV) (about 330 MB the first time)"
	@$(PIP) --editable '.[ros,start,dev]'
	@touch $@

$(VENV)/.messages: $(VENV)/.python $(MESSAGES) | $(VENV)/.installed
	@echo "building the messages (about a minute)"
	@$(PIP) --force-reinstall --no-deps ./emo_msgs
	@touch $@

torch: $(VENV)/.torch ## add torch and transformers, which the papers' networks need (TORCH_ARGS= goes to pip)

$(VENV)/.torch: $(VENV)/.installed
	@echo "installing $(TORCH) and transformers into $(VENV)"
	@$(PIP) $(TORCH_ARGS) '$(TORCH)'
	@$(PIP) --editable '.[torch]'
	@touch $@

train: $(VENV)/.train ## add what training needs, PyTorch included (TORCH_ARGS= goes to pip)

$(VENV)/.train: $(VENV)/.torch
	@echo "installing accelerate, TensorBoard and the scorers into $(VENV)"
	@$(PIP) --editable '.[train]'
	@touch $@

engines: $(VENV)/.engines ## add what builds engines: ONNX, ONNX Runtime and quantisation (with make torch)

$(VENV)/.engines: $(VENV)/.torch
	@echo "installing what builds engines into $(VENV)"
	@$(PIP) --editable '.[engines]'
	@touch $@

# PyPI has no bindings of GStreamer for Linux. Those of the distribution fit a venv of the same Python version, and
# linking this one package brings in nothing else of the system.
gstreamer: | $(VENV)/.installed
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'); \
	version=$${site%/site-packages}; version=$${version##*/python}; \
	if [ ! -e "$$site/gi" ]; then \
	  rm -f "$$site/gi"; \
	  gi=$$("/usr/bin/python$$version" -c 'import os, gi; print(os.path.dirname(gi.__file__))' 2>/dev/null || true); \
	  [ -z "$$gi" ] || ln -s "$$gi" "$$site/gi"; \
	fi; \
	if ! $(BIN)/python -c 'import gi; gi.require_version("Gst", "1.0"); from gi.repository import Gst; Gst.init(None)' 2>/dev/null; then \
	  echo "GStreamer is not available to Python $$version: PyAV reads videos and cameras instead. To get it:"; \
	  echo "  sudo apt install python3-gi python3-gst-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-{base,good,bad,ugly} gstreamer1.0-libav gstreamer1.0-alsa"; \
	  echo "  and a .venv of the same Python version as /usr/bin/python3: make clean && make setup PYTHON=/usr/bin/python3"; \
	fi

test: setup lint ## check style and types, run all tests
	@$(BIN)/emo weights pull --all
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: setup ## the tests that take minutes, as building messages for them
	@$(BIN)/python -m pytest -m slow

test-engines: setup engines ## build the engines of the papers' sizes and compare them (half an hour, 16 GB of memory)
	@$(BIN)/python -m pytest -m engines

test-toy: toy ## train the toy world's networks, then compare the graph's captions of its test split with the model's own
	@$(BIN)/python -m pytest -m toy -s

lint: setup ## ruff and mypy only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

demo: setup ## run the graph on a video: make demo [SOURCE=/dev/video0|file|picture|rtsp://...] [OUT=folder]
	@$(BIN)/emo demo --out "$$OUT" $${SOURCE:+--source "$$SOURCE"}

toy: train engines ## draw a world, train small versions of all networks on it and build their engines, without any data (a quarter of an hour)
	@$(BIN)/emo toy train

bench: setup ## measure speed (stages alone, through ROS, a naive loop), speech, causes and memory; with make engines the papers' networks, and their streams, too
	@if $(BIN)/python -c 'import torch, transformers' 2>/dev/null; then $(BIN)/python -m benchmarks.networks --out benchmarks/out; \
	else echo "the papers' networks are not measured: they need torch (make torch)"; fi
	@if $(BIN)/python -c 'import torch, onnx' 2>/dev/null; then $(BIN)/python -m benchmarks captions causes streaming --out benchmarks/out/streams; \
	else echo "captions by ECPA, causes by FAME-Net and their streams are not measured: they need engines (make engines)"; fi
	@$(BIN)/python -m benchmarks

docs: $(VENV)/.docs ## make the pages of docs/ into a site, site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict
	@echo "the site is in site/; to look at it: $(BIN)/mkdocs serve"

$(VENV)/.docs: $(VENV)/.installed
	@echo "installing mkdocs into $(VENV)"
	@$(PIP) --editable '.[docs]'
	@touch $@

clean: ## remove .venv, build folders and caches; demo/ stays
	rm -rf $(VENV) site build install log *.egg-info emo_msgs/build .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
