# Every target does its own set-up, from a bare clone (see tests/setup.sh).

PG ?= 15
PG_CONFIG ?= pg_config

# The newest major that is tested, and what CI runs on it; all that is neither the app's nor of monitoring, on any but 15.
NEWEST = 18
SHORT = $(addprefix tests/,lint/test_lint.py::test_clippy regress isolation catalogue servers/test_moves.py) \
	tests/package/test_package.py::test_extension_volume
# From which majors `make moves` moves to the newest, by pg_upgrade and by a dump; CI and `make test PG=NN` do it from 15.
OLDER = 15 16
NO_APP = $(addprefix tests/,lint unit regress isolation stress catalogue servers docs package)

.PHONY: help demo test newest moves installcheck bench bench-app install package abi fmt lint

help:
	@echo "make demo                   the extension at work: 100,000 users on a private PostgreSQL"
	@echo "make test                   everything CI runs; less of it: tests/.venv/bin/pytest (tests/conftest.py says how)"
	@echo "make test PG=16             on one PostgreSQL major version, which is downloaded: on 15 all, on others the larger part"
	@echo "make moves                  pg_upgrade, and a dump, from older majors into the newest"
	@echo "make bench [QUICK=1]        the comparison with its peers, into tests/output/bench/report.md"
	@echo "make bench-app [QUICK=1]    the example app's endpoint, four ways, into tests/output/bench-app/report.md"
	@echo "make install PG_CONFIG=...  builds and installs into that PostgreSQL"
	@echo "make package [PG=15]        a Debian package for that major, into target/package"
	@echo "make abi [PG=15]            whether one library does for all minor releases of that major"
	@echo "make installcheck PG_CONFIG=...   tests what is installed in a running server (PGHOST, PGPORT, PGUSER): a"
	@echo "                            superuser's, for tests, with contrib; tests/installcheck.py --help has the rest"
	@echo "make fmt, make lint         formats the code; checks it"

demo:
	@tests/setup.sh prepare $(PG)
	@cd tests && python3 -m demo.demo --pg $(PG)

test:
	@tests/setup.sh prepare $(PG)
	@tests/setup.sh venv
	@tests/.venv/bin/python -m pytest --pg $(PG) $(if $(filter 15,$(PG)),,$(NO_APP))
ifeq ($(origin PG),file)
	@$(MAKE) --no-print-directory newest
endif

newest:
	@tests/setup.sh prepare $(NEWEST)
	@tests/.venv/bin/python -m pytest --pg $(NEWEST) $(SHORT)
	@tests/.venv/bin/python -m pytest --pg $(NEWEST) tests/stress --seconds 20

moves:
	@tests/setup.sh prepare $(NEWEST)
	@tests/setup.sh venv
	@tests/.venv/bin/python -m pytest --pg $(NEWEST) tests/servers/test_moves.py $(addprefix --from ,$(OLDER))

installcheck:
	@python3 tests/installcheck.py --pg-config "$(PG_CONFIG)"

bench:
	@tests/setup.sh prepare $(PG)
	@cd tests && python3 -m bench.bench --pg $(PG) $(if $(QUICK),--quick)

bench-app:
	@tests/setup.sh prepare $(PG)
	@cd tests && python3 -m bench_app.bench_app --pg $(PG) $(if $(QUICK),--quick)

install:
	@tests/setup.sh install "$(PG_CONFIG)"

package:
	@tests/setup.sh package $(PG)

abi:
	@tests/setup.sh prepare $(PG)
	@tests/setup.sh venv
	@tests/setup.sh abi
	@tests/abi.py --pg $(PG)

fmt:
	@cargo fmt

lint:
	@tests/setup.sh prepare $(PG)
	@tests/setup.sh venv
	@tests/.venv/bin/python -m pytest tests/lint --pg $(PG)
