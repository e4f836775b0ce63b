# The targets of this repository; `make` lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# Always built with the whole workspace: a choice of packages is a choice of their dependencies'
# features, so a build of testkit alone would compile these dependencies a second time.
TESTKIT := $(TARGET_DIR)/debug/carga-testkit

# Which S3 `make services` starts: s3s-fs, or localstack.
S3 ?= s3s-fs
# How many workers `make run` starts.
WORKERS ?= 2
# Further arguments for `cargo test` or the bench: make test ARGS='--test system -- kills'
ARGS ?=
# The rows of `make test-matrix`: new, testing, postgres, rabbitmq, redis.
ROWS ?= new

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build every binary (debug)
	@cargo build --workspace --bins

.PHONY: services
services: build ## Start Postgres, RabbitMQ, Redis and S3 without Docker, print their variables (S3=localstack)
	@$(TESTKIT) services up --s3 $(S3)

.PHONY: services-stop
services-stop: build ## Stop what `make services` started and delete its data
	@$(TESTKIT) services down

.PHONY: clean-services
clean-services: build ## Also stop and delete what an aborted test run or a debugged test left behind
	@$(TESTKIT) services down
	@$(TESTKIT) services down --dir $(TARGET_DIR)/test-services
	@$(TESTKIT) services down --dir $(TARGET_DIR)/check-api/services
	rm -rf $(TARGET_DIR)/services $(TARGET_DIR)/test-services $(TARGET_DIR)/check-api

# Not .env, which Docker Compose reads: these URLs lead nowhere from inside a container.
.PHONY: env
env: build ## Write the running services' variables to target/services.env, for the debugger
	@mkdir -p target
	@$(TESTKIT) services env | sed 's/^export //' > target/services.env.new
	@mv target/services.env.new target/services.env

.PHONY: run
run: ## Run the API and WORKERS=2 workers on `make services`, until Ctrl-C
	@WORKERS='$(WORKERS)' scripts/run.sh

.PHONY: test
test: ## Run every test on real servers, which are started and stopped for it (ARGS for cargo test)
	@scripts/test.sh $(ARGS)

.PHONY: test-matrix
test-matrix: ## Run the tests of servers on newer PostgreSQL, RabbitMQ and Redis (ROWS, ARGS; up to an hour)
	@ROWS='$(ROWS)' scripts/test-matrix.sh $(ARGS)

.PHONY: check-api
check-api: ## Check the API against its OpenAPI document, in both modes, and with generated clients
	@scripts/check-api.sh

.PHONY: openapi
openapi: ## Renew docs/openapi.json after a change of the API
	@WRITE_OPENAPI=1 cargo test --quiet --lib -p carga-api the_file_of_the_document_is_current

.PHONY: check
check: ## Check formatting, lints, docs, features, dependencies, layers, spelling, images, Compose
	@scripts/check.sh

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: bench
bench: ## Measure imports beside psql, sqlite3 and pgloader (over an hour; ARGS='compare --help')
	@cargo build --release --locked --workspace --bins
	@$(TARGET_DIR)/release/carga-bench $(ARGS)

.PHONY: instructions
instructions: ## Compare the instructions of the pure core with bench/instructions.txt
	@bench/instructions.sh
