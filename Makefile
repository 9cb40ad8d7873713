# make demo, test and check need nothing but Linux on x86-64, a Python 3.8-3.12 and a network to
# install from; PYTHON=... chooses the interpreter.

VENV ?= .venv
# Of setup.cfg; kerberos is built at its installation, so it is for machines that can.
EXTRAS ?= cpu,data,s3,kubernetes,benchmarks,docs,test
PYTHON ?= $(shell ./find-python)
BIN = $(VENV)/bin
RUNS = $(VENV)/.runs
STAMP = $(VENV)/.installed
# Test processes side by side: one more than cores, since many tests wait most of their time.
LANES ?= $(shell n=$$(nproc); echo $$((n < 7 ? n + 1 : 8)))
PYTEST = $(BIN)/python -m pytest --numprocesses $(LANES) --dist loadgroup

.PHONY: venv demo test check rest coverage lint docs bench clean

venv: $(STAMP)

# What jobs need, and no more.
$(RUNS): setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { ./find-python --explain; exit 1; }
	$(PYTHON) -m venv $(VENV) || { ./find-python --explain; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cpu]'
	@$(BIN)/python -c 'import baryon.worker.mxnet, mxnet' || { \
	    echo "MXNet cannot be imported. If a library is missing: apt-get install libgomp1 libquadmath0"; \
	    exit 1; }
	@touch $@

$(STAMP): $(RUNS)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(RUNS)
	$(BIN)/launch.py -n 2 -s 2 --launcher local --devices 2 examples/train_digits.py

# Lint, types, all tests without a real cluster or job, and one real job.
test: lint
	$(PYTEST) -m quick

# Everything: what `make test` runs, and then the rest.
check: test
	$(MAKE) rest

rest: $(STAMP)
	$(PYTEST) -m "not quick" --durations 40

# Lines and branches that the quick tests run: of the pure cores, which must be nearly all.
coverage: $(STAMP)
	$(PYTEST) -m quick --cov --cov-report= tests/launcher tests/ps tests/scheduler tests/worker
	$(BIN)/python -m coverage report --include "$$($(BIN)/python -m tests.pure)"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	if $(BIN)/python -c 'import mypy' 2>/dev/null; then $(BIN)/mypy; fi

# The documentation as a site. A warning is an error.
docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q docs site

bench: $(STAMP)
	$(BIN)/python -m benchmarks.pushpull
	$(BIN)/python -m benchmarks.pushpull --link tcp tcp-plain --workers 2 \
	    --output benchmarks/results/pushpull-tcp.json
	$(BIN)/python -m benchmarks.pushpull --model densenet201 mobilenet0_25 --workers 2 \
	    --output benchmarks/results/pushpull-models.json
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.scale

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache
