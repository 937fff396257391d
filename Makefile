# Every target sets up what it needs in .venv by itself. PYTHON=… picks the interpreter, PYTEST_ARGS=… adds to pytest's.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# The tests start a thousand processes: where bytecode is not kept each compiles the package again, a third of what it computes.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PYTEST := $(PY) -m pytest
INSTALL := bin/python -m pip install --quiet --disable-pip-version-check --no-input
# What nothing but `make lock`, `make sbom` and `make audit` needs.
TOOLS := build/tools
CODE := meshlib $(wildcard adapters) scripts
# Each writes what is made of the code, for docs/reference/ above all; with --check it fails when that is out of date.
GENERATORS := $(wildcard scripts/config_reference.py scripts/config_schema.py scripts/xds_fields.py)
SEEDS ?= 100
RUNS ?= 3
REQUESTS ?= 5000
CALLS ?= 100000
INPUTS ?= 1000000
SUITES ?=
JOBS ?= 2
PYTEST_ARGS ?=
LOCK_ARGS ?=
GRPC_TESTS := $(filter-out %/test_fork_grpc.py,$(wildcard tests/e2e/*grpc*.py))
# With real servers and processes, and of which several may run at once: nothing in them is bounded by a time that another's work could use up.
# The longest first, so that short ones are left for the end.
ABREAST := $(patsubst %,tests/e2e/test_%.py,\
	snippets last_good celery handoff sources fork_table uwsgi outages multiprocessing http2 demo) \
	$(GRPC_TESTS) tests/compat tests/e2e/oracle tests/trust $(patsubst %,tests/e2e/test_%.py,\
	admin adoption aggregates asgi bad_input balancers broken_handshakes cli client connectrpc control_planes csds django docs \
	envoy_file examples extensions fetch first_lines flask guards gunicorn hosts httpx_options httpx_streams identity identity_forks \
	identity_gevent jupyter kato llm_clients load_reports managers mcp_client mcp_sessions metrics out_of_band rate_limits \
	renegotiation requests requests_options requests_paths requests_rows run saved_breakers sds secrets secrets_identity separate \
	sessions shared_limits sidecar_detection sources_processes tcp_listeners testing_kit tls tls_and_proxies tls_envoy \
	tls_envoy_validation tls_through_proxies tracing trust_soak use versions virtual_time words wsgi_asgi_chain wsgi_tracing)
SDIST_TESTS ?= tests/unit tests/machine

# ---------------------------------------------------------------------------------------------- what one asks for

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.stamp-run ## a control plane, three versions of a service and a client, live in this terminal
	@if [ -t 1 ]; then exec $(BIN)/meshlib demo; else exec $(BIN)/meshlib demo --once; fi

.PHONY: story
story: $(VENV)/.stamp-dev ## an old Flask service joins the mesh, gets a sidecar and loses it, without a failed call
	@$(PY) examples/legacy/story.py

.PHONY: test
test: $(VENV)/.stamp-dev ## the tests: units, state machines, real processes on loopback, a real Envoy
	@echo "1 of 4: units and state machines, some 12,000 tests: three minutes or so on two cores"
	@$(PYTEST) tests/unit tests/machine -n 3 $(PYTEST_ARGS)
	@echo "2 of 4: every host library by one table, most of it waiting: two minutes or so"
	@$(PYTEST) tests/hosts -n 6 $(PYTEST_ARGS)
	@echo "3 of 4: gRPC, an Envoy, libraries and their clients, with real servers and processes, four at a time: ten minutes or so"
	@$(PYTEST) $(ABREAST) -n 4 --dist loadfile --no-loadscope-reorder -m "not storm and not fleet" $(PYTEST_ARGS)
	@echo "4 of 4: more of these, one at a time: six minutes or so; the percentage at the right counts tests"
	@$(PYTEST) tests/e2e $(addprefix --ignore=,$(ABREAST)) -m "not storm and not fleet" $(PYTEST_ARGS)

.PHONY: check
check: $(VENV)/.stamp-dev ## style, types, layers, house rules, generated pages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(CODE)
	@$(PY) scripts/check_types.py
	@PYTHONPATH=. $(BIN)/lint-imports --no-cache
	@$(PY) scripts/check_house.py
	@for page in $(GENERATORS); do $(PY) $$page --check; done

.PHONY: docs
docs: $(VENV)/.stamp-dev ## the documentation, built into site/
	@source=$$(git remote get-url origin 2>/dev/null | sed -nE 's#^git@([^:]+):#https://\1/#; s#\.git$$##; /^https:/p' || true); \
	NO_MKDOCS_2_WARNING=1 MESHLIB_SOURCE=$$source MESHLIB_SOURCE_PAGES=$${source:+blob/main/docs/} $(PY) -m mkdocs build --strict

.PHONY: bench
bench: $(VENV)/.stamp-dev ## one table: what meshlib costs beside the bare libraries and beside a sidecar
	@$(PY) -m bench

.PHONY: sim
sim: $(VENV)/.stamp-dev ## balancers and policies in virtual time: a slow server, a retry storm, a cold server
	@$(PY) -m bench.sim

.PHONY: chaos
chaos: $(VENV)/.stamp-dev ## CALLS calls, of threads and of tasks, through a real Envoy and through meshlib, while everything around them breaks
	@$(PY) -m bench.chaos --calls $(CALLS)

.PHONY: oracle
oracle: $(VENV)/.stamp-dev ## meshlib against a real Envoy on SEEDS random route tables
	@MESHLIB_ORACLE_SEEDS=$(SEEDS) $(PYTEST) tests/e2e/oracle --timeout=0 $(PYTEST_ARGS)

.PHONY: storm
storm: $(VENV)/.stamp-dev ## 20,000 calls, of HTTP and of gRPC, while control plane and endpoints die and return; 24,000 that are cancelled
	@$(PYTEST) tests/e2e -m storm --timeout=900 -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: handshakes
handshakes: $(VENV)/.stamp-dev ## 100,000 TLS handshakes that break at random points; 30 rotations of certificates under 120 callers
	@BROKEN_HANDSHAKES=100000 TLS_ROTATIONS=30 $(PYTEST) tests/e2e/test_broken_handshakes.py tests/e2e/test_tls.py --timeout=3600 \
	    -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: soak-trust
soak-trust: $(VENV)/.stamp-dev ## ten minutes of calls over mTLS while certificates live for ten seconds and two roots are replaced
	@MESHLIB_TRUST_SECONDS=600 $(PYTEST) tests/e2e/test_trust_soak.py -s -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: fleet
fleet: $(VENV)/.stamp-dev ## REQUESTS requests through each web server and worker, three services deep, under restarts; each is started RUNS times
	@MESHLIB_FLEET_REQUESTS=$(REQUESTS) MESHLIB_FLEET_RUNS=$(RUNS) $(PYTEST) tests/e2e -m fleet --timeout=900 -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: trust
trust: $(VENV)/.stamp-dev ## the table: whom each client calls over TLS and whom it refuses, by material and by what is wrong
	@$(PYTEST) tests/trust -s $(PYTEST_ARGS)

.PHONY: interop
interop: $(VENV)/.stamp-dev ## against go-control-plane, and as Kato has it in xDS v2 (needs Go)
	@$(PYTEST) tests/interop/go-control-plane tests/interop/kato -n 2 --dist loadfile --timeout=600 -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: interop-istio
interop-istio: $(VENV)/.stamp-dev ## against Istio's discovery server (needs Go; the first build takes minutes)
	@$(PYTEST) tests/interop/istiod --timeout=1800 -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: interop-java
interop-java: $(VENV)/.stamp-dev ## against java-control-plane (needs a JDK and Maven)
	@$(PYTEST) tests/interop/java-control-plane --timeout=600 -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: interop-gateway
interop-gateway: $(VENV)/.stamp-dev ## against Envoy Gateway (needs Go, root, iproute2; the first build takes ten minutes)
	@$(PYTEST) tests/interop/envoy-gateway --timeout=1800 -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: interop-spire
interop-spire: $(VENV)/.stamp-dev ## against SPIRE's server and agent (needs Go; the first build takes ten minutes)
	@$(PYTEST) tests/interop/spire --timeout=1800 -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: interop-sovereign
interop-sovereign: $(VENV)/.stamp-dev ## against sovereign, which is polled by REST (installed in an environment of its own)
	@test build/interop/sovereign/.stamp -nt locks/sovereign.txt || { \
		rm -rf build/interop/sovereign && $(PY) -m venv build/interop/sovereign && \
		build/interop/sovereign/$(INSTALL) --require-hashes -r locks/sovereign.txt && touch build/interop/sovereign/.stamp; }
	@$(PYTEST) tests/interop/sovereign --timeout=300 $(PYTEST_ARGS)

.PHONY: interop-grpcdebug
interop-grpcdebug: $(VENV)/.stamp-dev ## grpcdebug reads the client status service (needs grpcdebug)
	@$(PYTEST) tests/interop/grpcdebug $(PYTEST_ARGS)

.PHONY: conformance
conformance: $(VENV)/.stamp-dev ## each item of the checklist of xDS, and what proves it; gRPC channels against grpcio's own of xds:///
	@$(PYTEST) tests/conformance -n 2 $(PYTEST_ARGS)
	@$(PY) -m tests.conformance.checklist

.PHONY: compat
compat: $(VENV)/.stamp-dev ## other projects' own tests over ours, each package in an environment of its own; SUITES=requests is one
	@$(PY) scripts/compat.py --jobs $(JOBS) $(SUITES)

.PHONY: corpus
corpus: $(VENV)/.stamp-dev ## other projects' Envoy files, to meshlib and a real Envoy side by side (needs Go)
	@$(PYTEST) tests/corpus -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.stamp-dev ## INPUTS hostile inputs each to the HTTP/1.1 connection, to HTTP/2's (a fifth), to all other readers of outside bytes and to the decoders of xDS
	@$(PY) -m tests.fuzz.run --inputs $(INPUTS)

.PHONY: fuzz-long
fuzz-long: $(VENV)/.stamp-dev ## the same with ten million inputs each, some seven hours on two cores
	@$(PY) -m tests.fuzz.run --inputs 10000000

.PHONY: fuzz-xds
fuzz-xds: $(VENV)/.stamp-dev ## INPUTS resources and responses to the decoders of xDS
	@$(PY) -m tests.fuzz.run --inputs $(INPUTS) --of xds

.PHONY: drift
drift: $(VENV)/.stamp-dev ## our wire schema against the published one, in an environment of its own
	@$(PY) tests/compat/drift/run.py

.PHONY: fmt
fmt: $(VENV)/.stamp-dev ## format the code and write the generated pages
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@for page in $(GENERATORS); do $(PY) $$page; done

.PHONY: lock
lock: $(TOOLS)/.stamp ## renew locks/, the exact versions that everything here is installed from; LOCK_ARGS=--keep adds only what is new
	@$(PY) scripts/lock.py $(LOCK_ARGS)

.PHONY: dist
dist: $(VENV)/.stamp-dev ## the wheel and the source distribution, in dist/; each is built twice, in places that differ, to the same bytes
	@$(PY) scripts/dist.py

.PHONY: sbom
sbom: dist $(TOOLS)/.stamp ## what the wheel needs, as a CycloneDX document beside it in dist/
	@$(PY) scripts/sbom.py

.PHONY: audit
audit: $(TOOLS)/.stamp ## known vulnerabilities of every version in locks/; it says so where the database cannot be asked
	@$(PY) scripts/audit.py

.PHONY: supply
supply: sbom ## the tests of what is shipped and of what it is made of
	@$(PYTEST) tests/supply $(PYTEST_ARGS)

.PHONY: sdist
sdist: dist ## the source distribution, and the tests of units in it; SDIST_TESTS=… are others
	@where=$$(mktemp -d) && trap "rm -rf $$where" EXIT && tar --extract --file dist/*.tar.gz --directory $$where --strip-components 1 \
		&& cd $$where && $(abspath $(VENV))/bin/python -m pytest $(SDIST_TESTS) -n 2 $(PYTEST_ARGS)

.PHONY: newest
newest: ## the tests on today's newest versions of everything, in build/newest
	@rm -rf build/newest
	@scripts/make_venv.sh build/newest
	@build/newest/$(INSTALL) -e '.[dev]'
	@touch build/newest/.stamp-run build/newest/.stamp-dev
	@$(MAKE) test VENV=build/newest

.PHONY: lowest
lowest: $(TOOLS)/.stamp ## the tests on the lowest versions that pyproject.toml allows, in build/lowest
	@rm -rf build/lowest
	@scripts/make_venv.sh build/lowest
	@build/lowest/bin/python scripts/lock.py --lowest build/lowest.txt
	@build/lowest/$(INSTALL) -r build/lowest.txt
	@build/lowest/$(INSTALL) --no-deps --no-build-isolation -e .
	@touch build/lowest/.stamp-run build/lowest/.stamp-dev
	@$(MAKE) test VENV=build/lowest

.PHONY: clean
clean: ## remove what was built, .venv too
	rm -rf $(VENV) build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------- the environment

$(PY):
	@scripts/make_venv.sh $(VENV)

# What `make demo` needs, and no more, so that the first look comes soon.
$(VENV)/.stamp-run: pyproject.toml locks/run.txt | $(PY)
	@echo "setting up $(VENV) …"
	@$(VENV)/$(INSTALL) --require-hashes -r locks/run.txt
	@$(VENV)/$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml locks/dev.txt | $(PY)
	@echo "setting up $(VENV) for development …"
	@$(VENV)/$(INSTALL) --require-hashes -r locks/dev.txt
	@$(VENV)/$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.stamp-run

$(TOOLS)/.stamp: locks/tools.txt | $(PY)
	@echo "setting up $(TOOLS) …"
	@$(PY) -m venv --clear $(TOOLS)
	@$(TOOLS)/$(INSTALL) --require-hashes -r locks/tools.txt
	@touch $@
