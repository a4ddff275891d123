# Everything that a person or a machine does with this repository. Needs Python 3.11+, make, a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Whoever calls make here trusts this folder, also when a clone belongs to another user, as in some containers.
export FLUJO_TRUSTED_PROJECTS := $(CURDIR)

# Tests start hundreds of interpreters: each would compile Flujo and the tests anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := .help
.PHONY: .help run test check fix docs dist image soak bench

.help:
	@echo "make <target>:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-9s %s\n", $$1, $$2 }'

run: $(VENV)/.local  ## Run a real blueprint on a real text with the model that runs on this machine
	$(BIN)/flujo run blueprints/ticket_triage.yaml --input-file blueprints/inputs/ticket-001.txt --paused-ok
	@echo 'next: $(BIN)/flujo run researcher --input "Search the help pages: how long does delivery take?"   (an agent with two tools, turn by turn)'
	@echo 'next: $(BIN)/flujo serve   (answer the question in a browser, and look at the runs)'

# Four workers for two cores, because the tests wait for other processes. Each begins with a quarter of the tests, file by
# file, so that the tests of a file share what they need.
test: $(VENV)/.test  ## Run the tests, on SQLite and on a Postgres that the tests start themselves
	$(BIN)/python -m pytest -n 4 --dist worksteal

check: $(VENV)/.dev  ## Check format, lint, prose, types, import contracts, dependencies and the links of the site
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python docs/lint_prose.py
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/python docs/build_site.py

fix: $(VENV)/.dev  ## Format, and apply the linter's safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Where there is no Chromium, pages and site are written all the same, and the tests at the end name the old screenshots.
docs: $(VENV)/.dev  ## Write the generated pages and pictures again, build the site, then test every example
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/pictures.py
	-$(BIN)/python docs/screenshots.py
	$(BIN)/python docs/build_site.py
	$(BIN)/python -m pytest tests/docs

dist: $(VENV)/.dev  ## Build wheel and sdist, and try the wheel in an empty environment elsewhere
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	FLUJO_DIST=dist $(BIN)/python -m pytest tests/docs/test_wheel.py

ENGINE ?= docker
image: $(VENV)/.dev  ## Build the image of a new project with deploy/Dockerfile and this Flujo, and try it
	@$(ENGINE) info >/dev/null 2>&1 || { echo 'no container engine answers `$(ENGINE) info`: start it, or choose another one with `make image ENGINE=podman`'; exit 1; }
	rm -rf build/image
	$(BIN)/flujo init --name demo build/image
	cp deploy/Dockerfile deploy/.dockerignore build/image
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/image .
	cd build/image && printf './%s[serve]\n' flujo-*.whl > requirements.txt
	$(ENGINE) build --tag flujo-demo build/image
	$(ENGINE) run --rm --read-only --tmpfs /tmp flujo-demo validate
	$(ENGINE) run --rm --read-only --tmpfs /tmp --env FLUJO_STATE_URI=sqlite:////tmp/state.db flujo-demo run hello --input Ada

# `make soak SOAK=0.01` takes about twenty minutes on two cores, and `make soak` many hours; tests/soak/run.py has the counts.
SOAK ?= 1
soak: $(VENV)/.test  ## Run every proof for hours, or a proportion of it: make soak SOAK=0.01
	$(BIN)/python tests/soak/run.py --scale $(SOAK)

bench: $(VENV)/.test  ## Measure start-up and the engine, as ratios inside one run
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/engine.py

# A stamp says which extra is installed, so that a second call starts at once.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Flujo needs Python 3.11 or newer; say which one with `make PYTHON=python3.12 ...`")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.local $(VENV)/.test $(VENV)/.dev: $(VENV)/.%: $(VENV)/.created pyproject.toml constraints.txt
	@echo "installing flujo[$(or $(EXTRAS),$*)] into $(VENV) (the first time takes a minute)"
	@$(INSTALL) --editable '.[$(or $(EXTRAS),$*)]'
	@touch $@

# The blueprints of this repository need a model and an MCP server, and their questions a page.
$(VENV)/.local: EXTRAS := local,mcp,serve
