# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

HELM := helm.sh/helm/v3/cmd/helm@v3.22.0

.PHONY: install demo docs test lint live helm clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo 'installing into $(VENV), which takes some minutes …'
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]' -c constraints.txt
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m examples.demo.run demo

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open site/index.html"

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

live: $(STAMP)
	$(BIN)/python -m pytest -m live

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.support.house

# For the chart's tests, which are skipped without helm. Takes some minutes, once.
helm: $(STAMP)
	command -v helm || test -x $(BIN)/helm || GOBIN=$(abspath $(BIN)) go install $(HELM)

clean:
	rm -rf $(VENV) demo build dist site
