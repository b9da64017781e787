# Needs a Debian machine with Python 3.11 or newer, and root for the lab; everything else is fetched.
# Each target's line of help stands behind its ##.

# Runs a module in the project's own environment, which it makes from uv.lock first (ops/bootstrap.py).
PHOENIX_RUN := python3 -IS ops/bootstrap.py

.DEFAULT_GOAL := help
.PHONY: help up down status deploy test drills lint unit lock upgrade

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo "More: ./phoenix --help, README.md"

up: ## make the lab, deploy everything to it, verify it, print its addresses
	@./phoenix up

down: ## remove the lab, its data and its secrets (asks first; YES=1 does not)
	@./phoenix down $(if $(YES),--yes)

status: ## ask every service whether it is well
	@./phoenix status

deploy: ## bring the lab to what the inventory describes
	@./phoenix deploy

test: ## run every test; makes the lab when it is not up
	@$(PHOENIX_RUN) ops.selftest

drills: ## the long series of faults, restores and losses on the lab (two hours), with the distribution of each
	@$(PHOENIX_RUN) ops.selftest series

lint: ## check style, types and the lock file
	@$(PHOENIX_RUN) ops.selftest lint

unit: ## run the tests that need no machine
	@$(PHOENIX_RUN) ops.selftest unit

lock: ## bring uv.lock up to date with pyproject.toml
	@python3 -m ops.lockfile

upgrade: ## the same, with the newest versions that pyproject.toml allows
	@python3 -m ops.lockfile --upgrade
