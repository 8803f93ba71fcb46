# Every target sets up what it needs. PYTHON is any Python 3.11 (the builder runs on 3.10 to 3.13).
PYTHON ?= python3
CONFIG ?=
BENCH ?=
COMPAT ?=
SECONDS ?= 600
MUTANTS ?= 60
LOCKED ?=

# .venv holds TensorFlow and builds; .venv-device holds tflite-runtime and no TensorFlow, as a device does; .venv-cluster
# holds Ray.
BUILDER := .venv/bin
DEVICE := .venv-device/bin
CLUSTER := .venv-cluster/bin
PIP := -m pip --disable-pip-version-check install --quiet

SOURCES := $(shell find builder edge_runtime -name "*.py")
PICTURES := $(shell find calibration_data -name '*.jpg')
SAMPLES := $(sort $(wildcard calibration_data/held_out/*/*/*_1.jpg))
SAMPLES := $(wordlist 1,1,$(SAMPLES)) $(lastword $(SAMPLES))

.DEFAULT_GOAL := help
.PHONY: help setup lock wheel tflite test test-builder device-files test-device test-cluster test-slow test-arm fuzz mutants check lint types docs bench bench-compare compat clean

help:
	@echo 'make setup              the environments: .venv (TensorFlow) and .venv-device (tflite-runtime, no TensorFlow)'
	@echo 'make setup LOCKED=1     the same from requirements/ci.txt, every package by its hash: what CI and a release do'
	@echo 'make lock               writes requirements/ci.txt anew (needs uv)'
	@echo 'make wheel              dist/*.whl, the same bytes from the same commit'
	@echo 'make tflite             the demo: trains three classifiers, builds build/demo.tflite, classifies with it'
	@echo 'make tflite CONFIG=F    builds what the TOML file F says'
	@echo 'make test               the tests, each in its environment'
	@echo 'make test-slow          those that run a whole program or train'
	@echo 'make test-arm           the runtime on emulated Cortex-A processors (Debian 12 as host; up to 40 minutes)'
	@echo 'make fuzz SECONDS=600   damaged inputs for every reader, for as long as you like'
	@echo 'make mutants MUTANTS=60 small changes of the core modules: does a test notice? (about a minute for each)'
	@echo 'make docs               the site, into build/site; every link is checked'
	@echo 'make check              lint, types, docs and tests: what CI runs'
	@echo 'make bench              file size, memory and time against what people do today (about half an hour)'
	@echo 'make bench-compare      time of this commit beside the last that was measured, in turns; exit code 3 where slower'
	@echo 'make compat             every architecture in every kind of file, against the original'
	@echo 'make clean              removes build/ and the environments'

setup: $(BUILDER)/.stamp $(DEVICE)/.stamp

# The stamp is written last: an installation that broke off is done again.
$(BUILDER)/.stamp: pyproject.toml
	$(PYTHON) -m venv --clear .venv
ifneq ($(LOCKED),)
	$(BUILDER)/python $(PIP) --require-hashes -r requirements/ci.txt
	$(BUILDER)/python $(PIP) --no-deps --no-build-isolation -e .
else
	$(BUILDER)/python $(PIP) -e '.[builder,demo,dev,docs]'
endif
	@touch $@

$(DEVICE)/.stamp: pyproject.toml
	$(PYTHON) -m venv --clear .venv-device
	$(DEVICE)/python $(PIP) -e '.[tflite-runtime,device-test]'
	@touch $@

$(CLUSTER)/.stamp: pyproject.toml
	$(PYTHON) -m venv --clear .venv-cluster
	$(CLUSTER)/python $(PIP) -e '.[cluster,beam,device-test]'
	@touch $@

# One lock for Python 3.10 to 3.13 on every platform.
lock:
	uv pip compile pyproject.toml --extra builder --extra demo --extra dev --extra docs --extra web --extra sign --universal --python-version 3.10 \
		--constraint requirements/constraints.txt --generate-hashes --no-header --upgrade --output-file requirements/ci.txt

# From the commit alone, under one umask: what lies about and how the checkout was made do not enter.
wheel: $(BUILDER)/.stamp
	rm -rf build/wheel dist
	mkdir -p build/wheel
	umask 022 && git archive HEAD | tar -x -C build/wheel && cd build/wheel && \
		SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(CURDIR)/$(BUILDER)/python -m pip --disable-pip-version-check wheel --quiet \
		--no-deps --no-build-isolation --wheel-dir $(CURDIR)/dist .

ifneq ($(CONFIG),)
tflite: $(BUILDER)/.stamp
	$(BUILDER)/builder build $(CONFIG)
else
tflite: build/demo.tflite
	$(BUILDER)/edge-runtime classify build/demo.tflite $(SAMPLES) --top-k 2 --joint
endif

build/demo.tflite: build/demo/.stamp examples/demo.toml $(SOURCES)
	$(BUILDER)/builder build examples/demo.toml

build/demo/.stamp: $(BUILDER)/.stamp $(wildcard examples/*.py) $(PICTURES)
	$(BUILDER)/python examples/train_demo_heads.py --output build/demo
	@touch $@

# Side by side: one environment's tests fill what another's leave of the processors.
test: setup $(CLUSTER)/.stamp
	@$(MAKE) --no-print-directory --keep-going -j 3 test-builder test-device test-cluster

test-builder:
	$(BUILDER)/python -m pytest tests --ignore tests/device --ignore tests/cluster -n auto --dist loadfile -m 'not slow'

device-files: $(BUILDER)/.stamp
	$(BUILDER)/python -m tests.device_files build/device-files

test-device: device-files
	$(DEVICE)/python -m pytest tests/device

test-cluster: device-files
	$(CLUSTER)/python -m pytest tests/cluster -m 'not slow'

test-slow: $(BUILDER)/.stamp $(CLUSTER)/.stamp device-files
	$(BUILDER)/python -m pytest tests --ignore tests/device --ignore tests/cluster -n auto -m slow
	$(CLUSTER)/python -m pytest tests/cluster -m slow

test-arm: device-files build/demo.tflite
	$(BUILDER)/python -m tests.arm build/arm --demo build/demo.tflite

fuzz: $(BUILDER)/.stamp
	$(BUILDER)/python -m tests.fuzz --seconds $(SECONDS)

mutants: $(BUILDER)/.stamp
	$(BUILDER)/python $(PIP) -e '.[mutants]'
	$(BUILDER)/python -m tests.mutants --count $(MUTANTS)

lint: $(BUILDER)/.stamp
	$(BUILDER)/ruff check .
	$(BUILDER)/ruff format --check .
	$(BUILDER)/vermin --quiet --no-tips --target=3.7- --violations edge_runtime

types: $(BUILDER)/.stamp
	$(BUILDER)/mypy

docs: $(BUILDER)/.stamp
	NO_MKDOCS_2_WARNING=1 $(BUILDER)/python -m mkdocs build --strict --quiet

check: lint types docs test test-slow

bench: $(BUILDER)/.stamp build/demo.tflite
	$(BUILDER)/python -m benchmarks.bench $(BENCH)
	$(BUILDER)/python -m benchmarks.growth
	$(BUILDER)/python -m benchmarks.add_head
	$(BUILDER)/python -m benchmarks.lean build/demo.tflite $(firstword $(SAMPLES)) --output build/bench/lean.json
	$(BUILDER)/python -m benchmarks.camera build/demo.tflite calibration_data/held_out --output build/bench/camera.json
	$(BUILDER)/python -m benchmarks.text
	-$(BUILDER)/python -m benchmarks.compare

bench-compare: $(BUILDER)/.stamp
	$(BUILDER)/python -m benchmarks.compare $(COMPARE)

compat: $(BUILDER)/.stamp
	$(BUILDER)/python -m benchmarks.compat $(COMPAT)

clean:
	rm -rf build .venv .venv-device .venv-cluster
