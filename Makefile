# Needs make and a Python of at least 3.11 (PYTHON=… names one); everything else is installed from the lock files.

.DEFAULT_GOAL := help
.PHONY: help run test fuzz lint types bench clients reset lock

VENV := .venv
PY := $(VENV)/bin/python
# A venv serves one checkout, one set of locked packages; the stamp's name says which.
key = $(shell { cat $(1); pwd; } | cksum | tr -s ' \t' '-')
DEV := $(VENV)/installed-$(call key,requirements-dev.txt)-dev
BENCH := $(VENV)/installed-$(call key,requirements-bench.txt)-bench

help: ## say what can be made
	@sed -n 's/^\([a-z]*\):.* ## \(.*\)/  make \1	\2/p' Makefile | expand -t 15

run: $(DEV) ## the embedded Supabase, the API, the worker, the streams and a demo; PORT, STREAMS_PORT and SUPABASE_PORT move them
	@$(PY) supabase/local/run.py

test: $(DEV) ## all tests, with everything they need; ARGS='-k name' selects
	@$(PY) -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

fuzz: $(DEV) ## more than 10,000 cases of Schemathesis; ARGS=--fuzz-seed=7 makes others
	@$(PY) -m pytest -s tests/stack/test_schemathesis.py --fuzz-examples=150 $(ARGS)

lint: $(DEV) ## ruff and the import contracts
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/lint-imports

types: $(BENCH) ## mypy, strict; the benchmarks too, so their packages are needed
	@$(PY) -m mypy

bench: $(BENCH) ## the benchmarks of docs/decisions.md
	@status=0; for bench in "api $(ARGS)" validators streams checker pings history; do PYTHONPATH=.:supabase/local $(PY) -m benchmarks.$$bench || status=$$?; done; exit $$status

clients: $(DEV) ## the TypeScript client, from the OpenAPI document
	@PYTHONPATH=.:supabase/local $(PY) clients/generate.py

reset: $(DEV) ## drop the embedded data
	@$(PY) supabase/local/stack.py reset

lock: ## pin what pyproject.toml asks for, with hashes
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	uv pip compile --universal --generate-hashes --no-header --quiet pyproject.toml -o requirements.txt
	uv pip compile --universal --generate-hashes --no-header --quiet pyproject.toml --group dev -o requirements-dev.txt
	uv pip compile --universal --generate-hashes --no-header --quiet pyproject.toml --group dev --group bench -o requirements-bench.txt

$(DEV): ; @$(call install,requirements-dev.txt)
$(BENCH): ; @$(call install,requirements-bench.txt)

# 1. Find a Python. 2. Make the venv, anew where it belongs to another folder or has lost its interpreter. 3. Install.
define install
	python=; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Tocsin needs Python 3.11 or newer with its venv module (Debian: python3-venv); PYTHON=/path/to/python names one."; \
	  exit 1; \
	fi; \
	if ! $(PY) -c pass 2>/dev/null || [ "$$(cat $(VENV)/folder 2>/dev/null)" != "$$PWD" ]; then \
	  echo "Making $(VENV) with $$("$$python" --version) ..."; \
	  "$$python" -m venv --clear $(VENV) && pwd > $(VENV)/folder; \
	fi && \
	echo "Installing $(1) ..." && \
	$(PY) -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r $(1) && \
	rm -f $(VENV)/installed-*-$(patsubst requirements-%.txt,%,$(1)) && touch "$@"
endef
