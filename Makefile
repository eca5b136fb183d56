# The commands that people and CI share; .ci/run calls the same scripts.
.PHONY: check test oldest specs
check:
	scripts/check
test:
	pytest
oldest:
	scripts/oldest
specs:
	pytest perf_specs/ -m gpu --atom-backend=sim
