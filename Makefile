# Every command a contributor needs. `make setup` says what is missing; all others run it first.
# One target folder (./target); `make test` and `make demo` share the dev profile, whose own settings
# (Cargo.toml) optimise the crates that do the work, so that no second build is needed for the demo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
STREAMGAUGE := $(CARGO) run --quiet --bin streamgauge --
# Cases of `make property`, from number START on; CI runs the first 2,000 as part of `make test`.
CASES ?= 500000
START ?= 0
# Kills of `make crashloop`; CI runs 12.
CYCLES ?= 1000
# Power cuts of `make powercut`.
CUTS ?= 40
# Faults of `make model`.
BOUND ?= 2
# Seconds of `make fuzz`.
FUZZ ?= 60
# Port of `make kafka`.
PORT ?= 9092
# Where `make kafka` keeps its data.
KAFKA_DIR ?= .cache/kafka/data
# Arguments of `make demo`, e.g. `make demo DEMO="--rate 500 --for 10s"`.
DEMO ?=
# Arguments of the two halves of `make bench`.
BENCH ?=
FRESHNESS ?=

.PHONY: help setup demo test lint fmt contracts bench property model crashloop mistakes powercut fuzz kafka kafka-stop

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: ## Check (as root on Debian: install) what a build needs; silent and quick when all is there
	@scripts/setup

demo: setup ## Run everything on embedded defaults and show what to try
	@$(STREAMGAUGE) demo $(DEMO)

test: setup ## All checks: format, lints, contracts, and every test (the README and real Kafka are among them)
	@CARGO="$(CARGO)" scripts/test.sh

lint: setup ## rustfmt and clippy; a warning is an error
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Format all code
	$(CARGO) fmt --all

contracts: setup ## Check the contracts of the packs and run their own tests
	for pack in commerce delivery delivery-devlake flow platform; do \
	  $(STREAMGAUGE) check pack:$$pack && $(STREAMGAUGE) test pack:$$pack || exit 1; \
	done

bench: setup ## Throughput and freshness, release build (cold: half an hour on 2 cores)
	$(CARGO) build --release --bin streamgauge
	mkdir -p target/bench
	target/release/streamgauge bench throughput --out target/bench/throughput.json $(BENCH)
	target/release/streamgauge bench freshness --out target/bench/freshness.json $(FRESHNESS)

property: setup ## CASES (500000) random contracts from START (0) on against oracle and SQL; ROADS=all: told in all ways
	CASES=$(CASES) START=$(START) $(CARGO) test --package tests --test property -- --nocapture

crashloop: setup ## Kill a server CYCLES times (1000), fed by HTTP and Kafka, and compare everything with what was acknowledged
	CYCLES=$(CYCLES) $(CARGO) test --package server --test crashloop nothing -- --nocapture

mistakes: setup ## Switch on each seeded mistake in turn: kills (and, as root, power cuts) must catch them all
	BUGS=all $(CARGO) test --package server --test crashloop seeded -- --nocapture
	BUGS=all $(CARGO) test --package server --test powercut seeded -- --nocapture

powercut: setup ## Cut the power of a data folder CUTS times (40) on ext4 and xfs; needs root and loop devices
	CUTS=$(CUTS) $(CARGO) test --package server --test powercut nothing -- --nocapture

model: setup ## Every state of the lake's commit protocol with BOUND faults (2); 3 takes hours
	BOUND=$(BOUND) $(CARGO) test --package tests --test commit_model bound_of_your_own -- --nocapture

fuzz: setup ## Fuzz decode for FUZZ seconds (60); needs cargo-fuzz, and says how to get it
	@FUZZ=$(FUZZ) scripts/fuzz.sh

kafka: setup ## Start Apache Kafka (KRaft) on 127.0.0.1:9092 (PORT=) and print the address
	@scripts/kafka.sh start --port $(PORT) --dir $(KAFKA_DIR)

kafka-stop: ## Stop it
	@scripts/kafka.sh stop --dir $(KAFKA_DIR)
