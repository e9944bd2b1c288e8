# `make demo` and `make test` are all that a fresh machine needs: Python 3.11 or later, make, a C++ compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles what is imported when it is imported; most of what is installed never is.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# Processes that run tests beside each other.
WORKERS := 2
# Each worker takes a run of neighbouring tests, which share fixtures, and later half of what the other has left. Threads
# of torch beside as many workers as cores would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# What the demo page answers.
WEB_TASKS := cola,ewt,mrpc,rte,squad,sst2,stsb
# Installed once for each state of the two files that say what to install.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | tr -d ' ')

.PHONY: demo test quick check docs generate cpp web web-demo install clean

demo: install ## compile the packaged model with five real tasks and run them
	$(BIN)/python examples/demo.py

test: install ## every test, the slow ones and those of the C++ runtime included
	$(PYTEST) $(PYTEST_ARGS)

quick: install ## the unmarked tests: no slow ones, no real data
	$(PYTEST) -m "not slow and not data" $(PYTEST_ARGS)

check: install docs ## what CI runs before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

generate: ## constants and tables from spec/, into the package, the C++ runtime and the documents
	$(PYTHON) spec/generate.py

docs: install ## the documents and the API reference, into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

cpp: install ## the C++ runtime and its programs, into build/cpp/default
	PYTHON=$(BIN)/python runtimes/cpp/tools/build.sh default bitfit_run bitfit_learn bitfit_bench

web: ## the package for browsers and Node, into runtimes/web/dist; needs Node 20 and npm
	cd runtimes/web && npm ci --no-audit --no-fund && npm run build

web-demo: install web ## export the shipped tasks, and serve the demo page with them
	test -d demo/web || $(BIN)/bitfit-export --model minilm-l6 --tasks $(WEB_TASKS) --precision int8 --output demo/web
	node runtimes/web/tools/make_demo.mjs demo/web build/web-demo
	node runtimes/web/tools/serve.mjs build/web-demo

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable '.[export,train,serve,plot,demo,dev,docs]'
	rm -f $(VENV)/.installed-*
	touch $@

clean:
	rm -rf $(VENV) build dist demo
