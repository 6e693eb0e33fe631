# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SOURCES := setup.py pyproject.toml constraints.txt
DEMO_OUT ?= demo-output

.PHONY: demo test test-all lint format bench bench-server bench-slicer bench-contour pictures clean

demo: $(VENV)/.demo
	$(BIN)/aiassist demo --output $(DEMO_OUT)

# In two processes, file by file: much of the time goes into waiting for processes that the tests start.
# One that crashes ends the run; in its place another could wait for ever.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -m "heavy or not heavy"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	$(BIN)/python Testing/benchmarks/bench_core.py
	$(BIN)/python Testing/benchmarks/bench_lungs.py

bench-server: $(VENV)/.test
	$(BIN)/python Testing/benchmarks/bench_server.py
	$(BIN)/python Testing/benchmarks/bench_monailabel.py

bench-slicer: $(VENV)/.test
	$(BIN)/python Testing/benchmarks/bench_slicer.py

bench-contour: $(VENV)/.peers
	$(BIN)/python Testing/benchmarks/bench_contour_speed.py
	$(BIN)/python Testing/benchmarks/bench_contour.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: $(VENV)/bin/python $(SOURCES)
	$(PIP) -e '.[evaluate]'
	touch $@

# MONAI Label's client comes without what its server needs.
$(VENV)/.test: $(VENV)/bin/python $(SOURCES)
	$(PIP) -e '.[test]'
	$(PIP) --no-deps monailabel==0.8.5
	touch $@ $(VENV)/.demo

# Slicer's and OpenCV's own tools, to compare with: large, and no test needs them.
$(VENV)/.peers: $(VENV)/.test
	$(PIP) -e '.[peers]'
	touch $@

pictures: $(VENV)/.test
	$(BIN)/python Testing/slicer/draw_icons.py SlicerAIAssist/Resources/Icons
	$(BIN)/python Testing/slicer/draw_tutorial.py docs/pictures

clean:
	rm -rf $(VENV) $(DEMO_OUT) build backend/aiassist.egg-info .pytest_cache .ruff_cache .hypothesis
