# The words that people and CI type. Each target does its own set-up.
#
#   make test    everything that judges a change; at most 25 minutes on two cores
#   make lint    format, clippy, docs, file sizes, dependency rules
#   make demo    cargo run --release -- demo
#   make loom    the models of the shared cache
#   make tools   Debian's programs that the tests talk to (nsd, kdig, dig); needs root, else it says what is missing

SHELL := /bin/bash
SUITE := .ci/suite

.PHONY: test lint demo loom tools fmt

test: tools
	$(SUITE) "unit and integration tests" cargo test --locked --workspace --all-targets
	$(SUITE) "documentation examples" cargo test --locked --workspace --doc
	$(SUITE) "loom models" $(MAKE) --no-print-directory loom
	$(SUITE) "agent without a runtime is refused" .ci/feature-matrix
	@.ci/suite --summary

lint:
	$(SUITE) "format" cargo fmt --all --check
	$(SUITE) "clippy" cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	$(SUITE) "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	$(SUITE) "file sizes" .ci/file-sizes
	$(SUITE) "dependency rules" .ci/dependency-rules

# A target folder of its own: the cfg changes every crate's fingerprint.
loom:
	RUSTFLAGS="--cfg nodens_loom" cargo test --locked -p nodens-cache --release --target-dir target/loom

demo:
	cargo run --locked --release -- demo

fmt:
	cargo fmt --all

tools:
	@.ci/tools
