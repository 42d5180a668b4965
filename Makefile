# make upscale    set everything up and upscale the sample clip (IN=..., OUT=... take any video)
# make test       set everything up and run the tests
# make lint       check style, format and types
# make gpu-check  on a machine with a GPU: build, test and measure the CUDA kernels (docs/cuda.md)
PYTHON ?= python3
export IN ?= data/sample.mp4
export OUT ?=
installed := .venv/installed

.PHONY: setup upscale test lint gpu-check clean
setup: $(installed)

# torch comes first, so that building d3dnet (--no-build-isolation) finds its headers.
$(installed): pyproject.toml setup.py constraints.txt $(wildcard cuda_ops/* cuda_ops/*/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "d3dnet needs Python 3.11 or newer; set PYTHON=")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy setuptools wheel
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[test,train]'
	touch $@

# An OUT that was asked for is never overwritten.
upscale: $(installed)
	@if [ -n "$$OUT" ]; then exec .venv/bin/d3dnet upscale "$$IN" "$$OUT"; fi; \
	name=$$(basename "$$IN"); mkdir -p out; \
	exec .venv/bin/d3dnet upscale --overwrite "$$IN" "out/$${name%.*}_x4.mp4"

# Ray is large, and here for its tests only.
test: $(installed)
	@.venv/bin/python -c 'import ray' 2>/dev/null || .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt ray
	.venv/bin/python -m pytest $(TESTS)

lint: $(installed)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# Uses PYTHON as it is and installs nothing.
gpu-check:
	$(PYTHON) scripts/gpu_day.py check --output out/gpu

clean:
	rm -rf .venv build out *.egg-info d3dnet/_C_*.so
