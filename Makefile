# What a person does here: make install, demo, test, check, bench, docs, clean.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := core engine $(wildcard plugins/*/*)
STAMP := $(VENV)/.installed
PROJECTS := $(PACKAGES:%=%/pyproject.toml) pyproject.toml
# Host packages: what the engine needs, then what tests and benchmarks talk to.
HOST_PACKAGES := crun runc iproute2 nftables libnftables1 busybox-static ca-certificates
TEST_PACKAGES := docker.io podman debootstrap iptables e2fsprogs xfsprogs attr libcap2-bin \
  procps docker-compose docker-registry skopeo umoci socat rsyslog rsyslog-openssl systemd openssl \
  etcd-server etcd-client btrfs-progs sshfs openssh-server linux-image-amd64 \
  qemu-system-x86 user-mode-linux gcc libc6-dev kmod lvm2 thin-provisioning-tools fuse-overlayfs \
  nfs-kernel-server rpcbind samba
T ?=

.PHONY: install host demo test check bench docs clean
.DEFAULT_GOAL := install

install: $(STAMP)

$(STAMP): $(PROJECTS) Makefile tools/constraints.txt
	@tools/host-packages $(HOST_PACKAGES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/pip --quiet --disable-pip-version-check install -c tools/constraints.txt uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c tools/constraints.txt --group dev $(PACKAGES:%=-e ./%)
	@$(BIN)/python -m compileall -q core/src engine/src plugins
	@touch $@

demo: install
	@tools/demo

test: install
	@tools/host-packages $(HOST_PACKAGES) $(TEST_PACKAGES)
	@test -d tests/receivers/node_modules || (cd tests/receivers && npm install --silent --no-audit --no-fund --no-package-lock)
	@$(MAKE) --no-print-directory check
	@tools/run-tests $(T)

check: install
	@$(BIN)/ruff check .
	@$(BIN)/mypy -p drivetrain -p drivetrain_engine
	@$(BIN)/lint-imports --no-cache

bench: install
	@tools/host-packages $(HOST_PACKAGES) $(TEST_PACKAGES)
	@$(BIN)/python -m benchmarks $(T)

docs: install
	@$(BIN)/python tools/make_docs.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
