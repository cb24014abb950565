# The words that people and CI type. Each target does its own set-up.
#
#   make test    everything that judges a change; at most 25 minutes on two cores
#   make lint    format, clippy, docs, file sizes, dependency rules
#   make demo    cargo run --release -- demo
#   make loom    the models of what threads share: the cache, orders to workers, counters
#   make test-node  the agent on a whole node, a virtual machine with Debian's kernel, and there from the image to an answer; in make test
#   make worlds  simulated worlds: those that failed before, and 500 that the commit decides
#   make planted deliberately broken cores are seen: by a world for each fault (planted-worlds, in make test), by the fuzz targets;
#                what a failing world leaves behind
#   make marks   which rare branches of the core simulated worlds reach, and which none does
#   make fuzz    SECONDS=60 for each target, or TARGET=name; JOBS=1 at a time; needs nightly and a C++ compiler
#   make mutants is there a test for every rule; by hand, half an hour
#   make soak    longer evidence, run by hand, written down in docs/evidence/
#   make chart   tests of deploy/: the chart with the real Helm engine, manifests, alerts, documents and their commands
#   make manifests      writes what is made from the chart: raw manifests, tables of parameters and metrics
#   make chart-package  target/charts with the chart as a tgz and index.yaml; URL=… is where it will be served
#   make image   target/image: the container images, as OCI layouts and as tars, with SBOMs; root, on Debian. A release build of both programs
#   make image-test     runs them as a container runtime does, with the chart's and the original chart's arguments; needs `make image`
#   make tools   Debian's programs that the tests talk to and run in (nsd, kdig, QEMU, buildah, …); needs root, else it says what is missing

SHELL := /bin/bash
SUITE := .ci/suite

.PHONY: test lint demo loom test-node worlds tools fmt planted planted-worlds marks fuzz mutants soak instructions chart manifests chart-package image image-test

test: tools
	$(SUITE) "unit and integration tests" .ci/tests
	$(SUITE) "a whole node in a virtual machine" .ci/test-node
	$(SUITE) "documentation examples" cargo test --locked --workspace --doc
	$(SUITE) "loom models" $(MAKE) --no-print-directory loom
	$(SUITE) "simulated worlds" $(MAKE) --no-print-directory worlds
	$(SUITE) "planted faults" $(MAKE) --no-print-directory planted-worlds
	$(SUITE) "agent without a runtime is refused" .ci/feature-matrix
	$(SUITE) "chart" $(MAKE) --no-print-directory chart
	$(SUITE) "from an image to an answer" deploy/tests/image/short
	@.ci/suite --summary

lint:
	$(SUITE) "format" cargo fmt --all --check
	$(SUITE) "clippy" cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	$(SUITE) "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	$(SUITE) "file sizes" .ci/file-sizes
	$(SUITE) "dependency rules" .ci/dependency-rules

# A target folder of its own: the cfg changes every crate's fingerprint.
loom:
	RUSTFLAGS="--cfg nodens_loom" cargo test --locked -p nodens-cache -p nodens-runtime --release --test loom --target-dir target/loom

# Skipped, aloud, where QEMU or Debian's packages are not to be had.
test-node: tools
	.ci/test-node

# A re-run of a commit is the same run.
SIM := cargo run --locked --quiet --profile sim -p nodens-sim --
worlds:
	$(SIM) regressions sim/regressions.txt
	$(SIM) run --seeds 500 --derive "$$(git rev-parse HEAD)" --profile all --twice 20 --table

demo:
	cargo run --locked --release -- demo

fmt:
	cargo fmt --all

tools:
	@.ci/tools

# Deliberately broken cores, which exist under this cfg alone: the worlds must see each fault.
PLANTED := --locked --profile sim --target-dir target/planted
planted-worlds:
	RUSTFLAGS="--cfg nodens_sim" cargo run --quiet $(PLANTED) -p nodens-sim -- planted replay sim/planted.txt
	RUSTFLAGS="--cfg nodens_sim" cargo test --quiet $(PLANTED) -p nodens-core --test sim_support

# These build the agent's Corefile reader anew under the cfg, which takes minutes: by hand, and in `make soak`.
planted: planted-worlds
	RUSTFLAGS="--cfg nodens_sim" cargo test $(PLANTED) -p nodens-fuzz --test planted -- --nocapture
	RUSTFLAGS="--cfg nodens_sim" cargo test $(PLANTED) -p nodens-sim --test failing

chart: tools
	.ci/chart-tests

manifests:
	.ci/chart-tests deploy/tools/generate.py

chart-package:
	.ci/chart-tests deploy/tools/package.py target/charts $(URL)

image: tools
	deploy/image/build

image-test: tools
	.ci/chart-tests -m unittest discover --start-directory deploy/tests/image

marks:
	RUSTFLAGS="--cfg nodens_sim" cargo run --quiet $(PLANTED) -p nodens-sim -- marks --seeds $(or $(SEEDS),5000) --profile all

fuzz:
	.ci/fuzz $(or $(TARGET),all) $(or $(SECONDS),60) $(or $(JOBS),1)

# By hand; see .ci/mutants.
mutants:
	.ci/mutants

# Longer evidence, by hand; see docs/evidence/.
soak:
	$(SUITE) "1000 random Corefiles under load, on each runtime" env NODENS_TEST_MUTATIONS=1000 NODENS_TEST_RUNTIME=tokio cargo test --locked --release -p nodens --test e2e_reload random_ -- --nocapture
	$(SUITE) "the same on io_uring" env NODENS_TEST_MUTATIONS=1000 NODENS_TEST_RUNTIME=uring cargo test --locked --release -p nodens --test e2e_reload random_ -- --nocapture
	$(SUITE) "upstreams that fall silent, the long forms" env NODENS_TEST_LONG=1 cargo test --locked --release -p nodens --test e2e_loss -- --nocapture
	$(SUITE) "restarts, upgrades and a node that others change, the long forms" env NODENS_TEST_LONG=1 NODENS_TEST_RUNTIME=tokio cargo test --locked --release -p nodens --test e2e_restart -- --nocapture --test-threads 1
	$(SUITE) "the same on io_uring" env NODENS_TEST_LONG=1 NODENS_TEST_RUNTIME=uring cargo test --locked --release -p nodens --test e2e_restart -- --nocapture --test-threads 1
	$(SUITE) "100 000 simulated worlds" $(SIM) run --seeds 100000 --derive "soak of $$(git rev-parse HEAD)" --profile all --twice 1000 --table
	$(SUITE) "the agent's tests on tokio alone" cargo test --locked -p nodens --no-default-features --features tokio
	$(SUITE) "the agent's tests on io_uring alone" cargo test --locked -p nodens --no-default-features --features uring
	$(SUITE) "ten minutes of each fuzz target" .ci/fuzz all 600 2
	$(SUITE) "fuzz targets see planted faults, a failing world is told whole" $(MAKE) --no-print-directory planted
	$(SUITE) "the webhook's promises under load, a rotation of authorities for five minutes" env NODENS_TEST_LONG=1 cargo test --locked --release -p nodens-admission --test server -- --nocapture --test-threads 1 load:: rotation::
	$(SUITE) "the decision table's whole product, against the oracle" env NODENS_TEST_LONG=1 cargo test --locked --release -p nodens-admission --test product -- --nocapture the_product
	$(SUITE) "every interleaving of two replicas that rotate" env NODENS_TEST_LONG=1 cargo test --locked --release -p nodens-admission --lib interleavings -- --nocapture --test-threads 2
	@.ci/suite --summary

# Instructions per cached answer against the committed figures; needs valgrind.
instructions:
	benches/instructions
