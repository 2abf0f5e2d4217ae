PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test lint docs bench reliability audit clean

install: $(INSTALLED)

# One environment for everything; `constraints.txt` pins the versions the tests pass with.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/medgan demo --output demo-output

test: lint
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/python docs/build.py

bench: $(INSTALLED)
	$(BIN)/python benchmarks/transform.py

# Hours on an idle machine; each program ends with KEPT or BROKEN, and make fails where one is broken.
RELIABILITY := gate_speed damaged_nifti dicom_folders killed killed_generation disk_full same_hash hostile memory \
	"fuzz nifti" "fuzz dicom" "fuzz config" "fuzz cohort"

reliability: $(INSTALLED)
	mkdir -p reliability-results
	status=0; for program in $(RELIABILITY); do set -- $$program; \
		$(BIN)/python -W ignore benchmarks/reliability/$$1.py $$2 > "reliability-results/$$1$${2:+-$$2}.txt" 2>&1 \
			|| status=1; \
		tail -n 1 "reliability-results/$$1$${2:+-$$2}.txt"; done; exit $$status
	$(BIN)/python -m pytest tests/reliability/test_round_trips.py --hypothesis-profile=long

# Strict: without a way to the advisories pip-audit skips every package and calls that "no known vulnerabilities".
audit: $(INSTALLED)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) build dist *.egg-info demo-output
