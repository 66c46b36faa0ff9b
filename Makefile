# make train      set up what is missing, learn to drive, then drive on roads never seen
#                 (TASK=camera_lane: by the camera alone; camera_town: by camera and commands;
#                 obstacles: among standing cars)
# make test       set up what is missing, then every check there is
# make test-fast  only the short tests without a ROS graph, for while you write
#
# In a colcon workspace with a sourced ROS 2 distribution:
#   colcon build --base-paths . interfaces/*
# (leave out what the distribution provides of interfaces/).

PYTHON ?= python3
TASK ?= first_drive
BIN := .venv/bin
# Interfaces built beside a ROS distribution are found by this alone; the ROS wheels add it too.
RUN := LD_LIBRARY_PATH="$(CURDIR)/.venv/lib$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}" $(BIN)

# Set by the ROS wheels of another environment, it would keep this one's from starting.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# Without its caches every process compiles PyTorch's sources anew, which takes longer than all else.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help train test test-fast setup setup-development lint format compiled clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo "make setup    only set up;  make lint, make format, make clean"

setup:
	@$(PYTHON) tools/setup_environment.py

setup-development:
	@$(PYTHON) tools/setup_environment.py --development

train: setup
	$(RUN)/td3-driver train --config $(TASK) --evaluate $(ARGS)

lint: setup-development
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(RUN)/mypy

format: setup-development
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Packages are installed uncompiled: one process compiles what tests import before four would at once.
compiled: setup-development
	@test -e .venv/compiled || { $(RUN)/python -m pytest --collect-only -q > /dev/null 2>&1 \
	  && touch .venv/compiled; } || true

test:
	@$(MAKE) --no-print-directory -j 2 lint compiled
	$(RUN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

test-fast: setup-development
	$(RUN)/python -m pytest -n 2 --dist loadfile -m "not ros and not long and not network" $(ARGS)

clean:
	rm -rf .venv .build build install log .pytest_cache .ruff_cache .mypy_cache .hypothesis
