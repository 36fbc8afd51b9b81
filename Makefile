# make demo    a synthetic release, built, loaded in every config, drawn on a page
# make test    environments with the newest packages and with the oldest that are supported, then the tests that prove
#              the promises, in minutes; make test-slow runs the rest
# make build RAW=imagenet3d_v1.zip OUT=built    the real thing

PYTHON ?= python3
BIN := .venv/bin
DATASETS3 := .venv-datasets3/bin/python
# $(call install,PYTHON,WHAT): uv resolves in seconds what takes pip minutes; pip heeds a mirror that only it is told of.
install = @$(1) -m uv pip install --quiet --python $(1) $(2) || $(1) -m pip install --quiet $(2)

# What uv installs is compiled when it is imported first. Where nothing may be written, each of the hundreds of
# processes that tests start would compile all that it imports: nine seconds in the place of two.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow build lint screenshot clean

demo: .venv/ready
	rm -rf demo
	$(BIN)/python -m processing sample demo/raw
	$(BIN)/python -m processing build demo/raw demo/ImageNet3D
	$(BIN)/python -c "$$LOAD_EVERY_CONFIG" demo/ImageNet3D
	$(BIN)/python -m processing preview demo/raw demo/preview.html
	@echo "Look at file://$(CURDIR)/demo/preview.html"

define LOAD_EVERY_CONFIG
import sys
from datasets import disable_progress_bars, get_dataset_config_names, load_dataset
disable_progress_bars()
for config in get_dataset_config_names(sys.argv[1]):
    for split, rows in load_dataset(sys.argv[1], config).items():
        seen = f"first picture {rows[0]['image'].size}" if "image" in rows.features else ""
        print(f"{config:20} {split:12} {len(rows):6,} rows   {seen}")
endef
export LOAD_EVERY_CONFIG

test: .venv/ready .venv-datasets3/ready
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(PYTEST_FLAGS)

test-slow: .venv/ready .venv-datasets3/ready
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(PYTEST_FLAGS)

build: .venv/ready
	@test -n "$(RAW)" && test -n "$(OUT)" || { echo "usage: make build RAW=imagenet3d_v1.zip OUT=built"; exit 2; }
	$(BIN)/python -m processing build "$(RAW)" "$(OUT)" $(BUILD_FLAGS)

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The README's picture of the preview page; needs chromium and chromium-driver.
screenshot: .venv/ready
	$(BIN)/python docs/take_screenshot.py

clean:
	rm -rf .venv .venv-datasets3 demo build *.egg-info

.venv/ready: pyproject.toml requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(call install,$(BIN)/python,--editable ".[test]")
	touch $@

# The oldest versions that are supported, datasets 3.6 among them, which still runs loading scripts.
.venv-datasets3/ready: requirements.txt
	$(PYTHON) -m venv .venv-datasets3
	sed 's/^\([a-z0-9_]*\)>=/\1==/' requirements.txt > .venv-datasets3/oldest.txt
	$(DATASETS3) -m pip install --quiet uv
	$(call install,$(DATASETS3),--requirement .venv-datasets3/oldest.txt "s3fs==2024.5.0")
	touch $@
