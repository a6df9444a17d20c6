# Every target does its own set-up, from a bare clone (see tests/setup.sh).

PG ?= 15
PG_CONFIG ?= pg_config

.PHONY: help demo test bench bench-app install fmt lint

help:
	@echo "make demo                   the extension at work: 100,000 users on a private PostgreSQL"
	@echo "make test [PG=15]           everything CI runs"
	@echo "make bench [QUICK=1]        the comparison with its peers, into tests/output/bench/report.md"
	@echo "make bench-app [QUICK=1]    the example app's endpoint, four ways, into tests/output/bench-app/report.md"
	@echo "make install PG_CONFIG=...  builds and installs into that PostgreSQL"
	@echo "make fmt, make lint         formats the code; checks it"

demo:
	@tests/setup.sh prepare $(PG)
	@python3 tests/demo/demo.py --pg $(PG)

test:
	@tests/setup.sh prepare $(PG)
	@python3 tests/run.py --pg $(PG)

bench:
	@tests/setup.sh prepare $(PG)
	@python3 tests/bench/bench.py --pg $(PG) $(if $(QUICK),--quick)

bench-app:
	@tests/setup.sh prepare $(PG)
	@python3 tests/bench_app/bench_app.py --pg $(PG) $(if $(QUICK),--quick)

install:
	@tests/setup.sh install $(PG_CONFIG)

fmt:
	@cargo fmt

lint:
	@tests/setup.sh prepare $(PG)
	@python3 tests/run.py --pg $(PG) --only lint
