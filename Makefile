# Everything sets itself up: into .venv (Python) and target (Rust). CI calls only these.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
RUST := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock pyproject.toml
ARGS ?=

.PHONY: demo test test-rust test-python soak lint bench quality fuzz setup build clean

demo: build ## three speakers in a room, mixed and playable: make demo ARGS="--duration 20 --json"
	@$(BIN)/audiomixer demo $(ARGS)

setup: $(VENV)/.demo

build: $(VENV)/.built

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "audiomixer needs Python 3.11 or newer")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --upgrade pip 1>&2

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@$(BIN)/pip install --quiet 'maturin>=1.16,<2' 1>&2
	@touch $@

$(VENV)/.built: $(RUST) $(VENV)/.demo
	@echo 'Building the Rust core…' 1>&2
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) PIP_QUIET=1 $(BIN)/maturin develop --release --quiet 1>&2
	@touch $@

$(VENV)/.%: pyproject.toml | $(BIN)/python
	@$(BIN)/pip install --quiet --group $* 1>&2
	@touch $@

test: test-rust test-python

test-rust:
	cargo test --quiet --workspace --locked
	RUSTFLAGS='--cfg elsewhere' cargo test --quiet --package audiomixer-transport --locked --target-dir target/elsewhere

test-python: build $(VENV)/.test
	@tests/system-packages
	@$(BIN)/python -m tests.rooms.livekit_server
	@$(BIN)/python -m tests.clients.stacks
	@$(BIN)/python -m tests.clients.firefox
	@$(BIN)/python -m tests.s3
	$(BIN)/python -m pytest $(ARGS)
	$(BIN)/python -m pytest --engine ray $(ARGS) tests/service tests/e2e/test_service.py

soak: build $(VENV)/.test ## half an hour of garbage, kills, and MediaProcessors that come and go
	@tests/system-packages
	@$(BIN)/python -m tests.rooms.livekit_server
	@$(BIN)/python -m tests.clients.stacks
	$(BIN)/python -m pytest --timeout 1500 --kills 5 --garbage 10000 --examples 200 --churn 300 --restarts 10 --joins 200 \
	    -s $(ARGS) tests/outputs/test_chaos.py tests/rooms/test_churn.py \
	    tests/service/test_churn.py tests/service/test_robustness.py tests/e2e/test_service.py \
	    tests/clients/test_stacks.py tests/cluster

lint: build $(VENV)/.test $(VENV)/.lint
	cargo fmt --check
	cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m mypy.stubtest audiomixer._core --mypy-config-file pyproject.toml

bench: build $(VENV)/.test ## what it costs, beside others; the machine has to be idle, and Janus needs root
	@benches/system-packages libopus0 nginx-light wrk chromium npm
	cargo bench --quiet --package audiomixer-core --bench kernel
	$(BIN)/python -m benches.mixing
	$(BIN)/python -m benches.receiving
	$(BIN)/python -m benches.rooms
	$(BIN)/python -m benches.density --rooms 60 --speakers 2
	$(BIN)/python -m benches.density --rooms 1 --speakers 200
	$(BIN)/python -m benches.listeners --listeners 400
	$(BIN)/python -m benches.cluster
	$(BIN)/python -m benches.control
	$(BIN)/python -m benches.playback --clicks 100
	$(BIN)/python -m benches.picture

quality: build $(VENV)/.test $(VENV)/.quality ## what is heard over bad networks, beside NetEq: make quality ARGS="--seeds 1"
	@benches/system-packages chromium libopus0 pocketsphinx-testdata
	$(BIN)/python -m benches.quality --plot docs/quality.png $(ARGS)

FUZZ_SECONDS ?= 600
FUZZ := cargo +nightly fuzz run --fuzz-dir rust/fuzz --features libfuzzer

fuzz: ## each target for ten minutes, one after the other: make fuzz FUZZ_SECONDS=60
	@command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz
	@rustup toolchain list | grep -q nightly || rustup toolchain install nightly --profile minimal
	set -e; for target in packets operations payloads datagrams hub; do mkdir -p target/fuzz/$$target; \
	    $(FUZZ) $$target target/fuzz/$$target rust/fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=10; done

clean:
	rm -rf $(VENV) target
