# The project's commands; `make` alone lists them. Each installs what it needs and lacks, if it
# may (see tools/setup.sh), so that a machine with rustup and make is enough.

# The machine that `make run` boots.
CPUS ?= 4
MEM ?= 512M
# How long `make soak` takes.
MINUTES ?= 30
# More for the runner, for example ARGS='--timeout 300'.
ARGS ?=

# A new shell knows cargo; the one that installed rustup may not yet.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
# Cargo divides its work among the CPUs itself, and would take `make -j` for a limit.
unexport MAKEFLAGS MFLAGS

# CI builds exactly what Cargo.lock says.
LOCKED := $(if $(CI),--locked)
TARGETS := $(or $(CARGO_TARGET_DIR),target)
CLIPPY := cargo clippy --quiet $(LOCKED)
DENY := -- -D warnings
KERNEL_TARGET := x86_64-unknown-none
UEFI_TARGET := x86_64-unknown-uefi
# As in tools/setup.sh.
export NIGHTLY ?= nightly
FEATURES := bootloader_api e820 hardened heap limine log multiboot2 pvh uefi x86_64
OTHER_TARGETS := aarch64-unknown-none riscv64gc-unknown-none-elf
# Everything under loom has flags of its own, so a directory of its own, or each build would
# throw away the other's.
LOOM := CARGO_TARGET_DIR=$(TARGETS)/loom RUSTFLAGS="$(strip $(RUSTFLAGS) --cfg loom)"

.DEFAULT_GOAL := help
# In the order written, also under `make -j`: two cargos would only wait for each other.
.NOTPARALLEL:
.PHONY: help run soak test test-loom test-host lint lint-format lint-host lint-loom lint-kernel
.PHONY: lint-features lint-other lint-doc bench bench-quick bench-charts instructions assembly
.PHONY: clean
.PHONY: book msrv hardened-cost simulate worst proofs spin fuzz miri tsan mutants coverage deny
.PHONY: powerset minimal semver models loom-deep orderings
.PHONY: need-proofs need-spin need-host need-boot need-test need-lint need-count
.PHONY: iso usb screen screenshot need-image test-x2apic test-bootloader need-uefi

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: need-boot ## Boot the demo kernel in QEMU [CPUS=4 MEM=512M]
	@test -d $(TARGETS)/kernel || echo "Building the kernel; the first time takes a minute."
	@cargo run -q $(LOCKED) -p frametree-qemu -- --cpus $(CPUS) --mem $(MEM) $(ARGS)

# Eight CPUs that stamp frames and are interrupted, over and over; a line every 20 seconds. The
# machine may take five minutes more than the kernel is asked to.
soak: CPUS = 8
soak: need-boot ## Have a kernel stamp and check frames for long [MINUTES=30 CPUS=8 MEM=512M]
	@cargo run -q $(LOCKED) -p frametree-qemu -- --cpus $(CPUS) --mem $(MEM) \
		--timeout $$(($(MINUTES) * 60 + 300)) --append soak=$(MINUTES) $(ARGS)

# For machines of metal. `make iso` and `dd`, or `make usb`, which looks and asks before it writes.
ISO := $(TARGETS)/frametree.iso
# The stick, as `lsblk` names it.
DEV ?=

iso: need-image ## Make the disk image: BIOS and UEFI, CD and USB stick
	@mkdir -p $(TARGETS)
	@cargo run -q $(LOCKED) -p frametree-qemu -- --iso $(ISO)

usb: iso ## Write the disk image to a USB stick, after asking [DEV=/dev/sdX]
	@tools/usb.sh $(ISO) "$(DEV)"

screen: need-image ## Boot the disk image in QEMU, memory on its screen [CPUS=4 MEM=512M]
	@cargo run -q $(LOCKED) -p frametree-qemu -- --screen --cpus $(CPUS) --mem $(MEM) $(ARGS)

screenshot: need-image ## Take the README's picture of that screen
	@cargo run -q $(LOCKED) -p frametree-qemu -- --screenshot docs/screen.png

test: test-loom test-host ## Run every test: loom models, host tests, boots in QEMU, doc tests

# The protocols, in every interleaving: src/models/, on the code of src/ itself. One model that takes
# minutes with two preemptions is explored with one here; `make models` explores it in full.
test-loom: need-host
	LOOM_QUICK=1 $(LOOM) cargo test $(LOCKED) -p frametree --lib --profile models

# All the rest. The library comes last, so that the output ends with a count of its tests; a
# failure there does not hide the next one.
test-host: need-test
	cargo test $(LOCKED) --workspace --exclude frametree
	cargo test $(LOCKED) -p frametree --all-features --no-fail-fast

# Its QEMU is Debian's of a later version, unpacked below target/ and nowhere else.
test-x2apic: need-uefi ## Boot the demo on CPUs in x2APIC mode, in a newer QEMU that it fetches
	@qemu=$$(tools/newer-qemu.sh $(TARGETS)/newer-qemu) && FRAMETREE_QEMU="$$qemu" \
	    cargo test $(LOCKED) -p frametree-qemu --features newer-qemu --test x2apic

# The Rust of a day on which that loader's own dependencies build.
LOADER_NIGHTLY ?= nightly-2026-10-29
test-bootloader: need-uefi ## Boot the quick start's lines by the crate `bootloader`, which takes minutes to build
	@NIGHTLY=$(LOADER_NIGHTLY) tools/setup.sh loader
	FRAMETREE_NIGHTLY=$(LOADER_NIGHTLY) \
	    cargo test $(LOCKED) -p frametree-qemu --features nightly --test bootloader

lint: lint-format lint-host lint-loom lint-kernel lint-features lint-other lint-doc ## Check format, clippy on every target, documentation

lint-format: need-lint
	cargo fmt --all --check

lint-host: need-lint
	$(CLIPPY) --workspace --all-targets $(DENY)
	$(CLIPPY) -p frametree-qemu --all-targets --all-features $(DENY)
	$(CLIPPY) -p frametree --all-targets --all-features $(DENY)

# The profile `test` brings the models in.
lint-loom: need-lint
	$(LOOM) $(CLIPPY) -p frametree --lib --profile test $(DENY)

lint-kernel: need-lint
	$(CLIPPY) --target $(KERNEL_TARGET) -p frametree $(DENY)
	$(CLIPPY) --target $(KERNEL_TARGET) -p frametree --all-features $(DENY)
	$(CLIPPY) --target $(KERNEL_TARGET) -p kernel-demo --lib --bins --examples --features small $(DENY)
	$(CLIPPY) --target $(UEFI_TARGET) -p kernel-demo --example uefi --features uefi $(DENY)

# Each feature by itself: none may need another that it does not name.
lint-features: $(addprefix lint-feature-,$(FEATURES))
lint-feature-%: need-lint
	$(CLIPPY) --target $(KERNEL_TARGET) -p frametree --features $* $(DENY)

# Built, not only checked: an atomic that a machine does not have shows in code generation.
lint-other: $(addprefix lint-other-,$(OTHER_TARGETS))
lint-other-%: need-lint
	$(CLIPPY) --target $* -p frametree $(DENY)
	cargo build --quiet $(LOCKED) --target $* -p frametree

# As docs.rs builds it: both targets, all features.
DOCS_TARGETS := $(addprefix --target ,$(KERNEL_TARGET) aarch64-unknown-none)
lint-doc: export RUSTDOCFLAGS := -D warnings
lint-doc: need-lint
	cargo doc --quiet $(LOCKED) --workspace --exclude kernel-demo --no-deps --all-features
	cargo doc --quiet $(LOCKED) -p kernel-demo --lib --no-deps --target $(KERNEL_TARGET)
	cargo doc --quiet $(LOCKED) -p frametree --no-deps --all-features $(DOCS_TARGETS)

BENCH := cargo run --quiet --release $(LOCKED) -p frametree-bench
# Where users and other programs look for them.
FIGURES := target/bench/results.json

bench: need-host ## Measure us and the peers, everything: about an hour
	@$(BENCH) --bin frametree-bench -- --json $(FIGURES) --charts target/bench

bench-quick: need-host ## The same on the main workloads: three minutes
	@$(BENCH) --bin frametree-bench -- --quick --json $(FIGURES) --charts target/bench

bench-charts: need-host ## Draw the README's charts from the last `make bench`
	@$(BENCH) --bin frametree-bench -- --draw $(FIGURES) docs

# The same program twice: once to measure this machine, once on words that are watched.
OBSERVED := CARGO_TARGET_DIR=$(TARGETS)/observed RUSTFLAGS="--cfg observed" $(BENCH)

simulate: need-host ## Simulate up to 512 CPUs, and check the simulator on this machine's two
	@$(BENCH) --bin simulator -- --measure $(TARGETS)/measured.json
	@$(OBSERVED) --bin simulator -- --against $(TARGETS)/measured.json

worst: need-host ## Count the accesses to shared words of the worst single operations
	@$(OBSERVED) --bin simulator -- --worst

# In two steps: a count that fails leaves the table as it is.
instructions: need-count ## Count the instructions of the hot paths, rewrite their table
	@$(BENCH) --bin instructions -- --table > $(TARGETS)/instructions.txt
	@cp $(TARGETS)/instructions.txt benches/instructions.txt && cat benches/instructions.txt

assembly: need-host ## Show what the compiler makes of an allocation and a free, rewrite their page
	@$(BENCH) --bin assembly > $(TARGETS)/assembly.md
	@cp $(TARGETS)/assembly.md docs/assembly.md && cat docs/assembly.md

hardened-cost: need-count ## Count the same of a hardened pool, rewrite its table
	@$(BENCH) --features hardened --bin instructions -- --hardened > $(TARGETS)/hardened.txt
	@cp $(TARGETS)/hardened.txt benches/hardened.txt && cat benches/hardened.txt

# The checks that take long, or need tools of their own. docs/verification.md says what each finds.

# Seconds for each target; what is found new joins the corpus.
TIME ?= 120
FUZZ_TARGETS := map request operations

fuzz: need-fuzz ## Fuzz the map, requests and operations for TIME=120 seconds each
	@for target in $(FUZZ_TARGETS); do \
	    echo "$$target, $(TIME) s"; \
	    cargo +$(NIGHTLY) fuzz run --fuzz-dir fuzz $$target tests/corpus/$$target -- \
	        -max_total_time=$(TIME) -print_final_stats=1 2>&1 | grep -E "^stat::|panicked|ERROR|Test unit" ; \
	    test -z "$$(ls fuzz/artifacts/$$target 2>/dev/null)" || exit 1; \
	done

# Tree borrows and strict provenance; seeds choose other interleavings of the threads. Left out is
# what plays whole operations once for each access to a shared word, or on pools of GiBs: `counts`
# alone has no end in half an hour. The property tests that stay have fewer cases there. Pools live
# for ever, as in a kernel: their memory is leaked on purpose.
SEEDS ?= 4
MIRI := MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-strict-provenance -Zmiri-disable-isolation \
    -Zmiri-ignore-leaks -Zmiri-many-seeds=0..$(SEEDS)" CARGO_TARGET_DIR=$(TARGETS)/miri \
    cargo +$(NIGHTLY) miri test $(LOCKED) -p frametree
TOO_LONG := costs:: counts:: deaths:: faults:: nesting:: schedules::

miri: need-miri ## Interpret unit and property tests, SEEDS=4 ways each
	$(MIRI) --lib -- $(addprefix --skip ,$(TOO_LONG))

# Not the tests with interrupts: those are signals at single instructions, also inside of the
# sanitizer's own code, which that does not survive.
tsan: need-tsan ## Run the tests with threads under ThreadSanitizer
	CARGO_TARGET_DIR=$(TARGETS)/tsan RUSTFLAGS=-Zsanitizer=thread cargo +$(NIGHTLY) test $(LOCKED) \
	    -Zbuild-std --target x86_64-unknown-linux-gnu -p frametree \
	    --test threads --test grow --test isolate --test reserve --test watermarks

# As in `make test`; says how long each took. `PROVE=Rule::` for what has that in its name.
proofs: need-proofs ## Prove the functions on words for all words and arguments, by z3
	cargo test $(LOCKED) -p frametree --test proofs -- --nocapture

spin: need-spin ## Explore the protocol's model in Spin, and the bugs planted in it
	cargo test $(LOCKED) -p frametree --test spin -- --nocapture

# A part of their names.
MODELS ?=
# Seconds for each, after which it ends where it is, and the table says so. 0: to the end.
LIMIT ?= 0
LOOM_TABLE := $(abspath $(TARGETS))/models.txt
explore-models = @rm -f $(LOOM_TABLE) && LOOM_TABLE=$(LOOM_TABLE) \
    $(if $(filter-out 0,$(LIMIT)),LOOM_MAX_DURATION=$(LIMIT) LOOM_CHECKPOINT_INTERVAL=100) $(LOOM) \
    cargo test --quiet $(LOCKED) -p frametree --lib --profile models -- models::$(MODELS) && \
    (echo model threads preemptions executions seconds end && sort $(LOOM_TABLE)) | \
    awk '{ printf "%-75s %8s %12s %12s %8s %s\n", $$1, $$2, $$3, $$4, $$5, $$6 }'

# The page lists what was run; a model that was not keeps its line.
models: need-host ## Run the loom models in full, list how far each went, also in docs/models.md [MODELS= LIMIT=]
	$(explore-models)
	@MODELS_TABLE=$(LOOM_TABLE) cargo test --quiet $(LOCKED) -p frametree --test planted the_page

# Preemptions more than `make models` allows, in models that have a bound.
DEEPER ?= 1
loom-deep: export LOOM_DEEPER := $(DEEPER)
loom-deep: need-host ## The same with larger bounds on preemptions: hours [DEEPER=1 MODELS= LIMIT=]
	$(explore-models)

# Can be stopped and goes on where it was; tools/orderings.sh says how to read target/orderings.txt.
orderings: need-host ## Weaken each ordering in turn and see whether a loom model notices: hours [ONLY=regex]
	@tools/orderings.sh $(if $(ONLY),'$(ONLY)')

# Can be stopped and goes on where it was; tools/mutants.sh says how to read target/mutants.txt.
mutants: need-mutants ## Change the library in all small ways, print the share that tests notice: hours [ARGS=]
	@tools/mutants.sh $(ARGS)

# Those that run the library here, not in a kernel, and not step by step.
COVERING := adapters adversarial corpus cpus errors grow hardened heap homes isolate low memory_map misuse \
    model observe owners pool replay reserve runs sequences threads verify watermarks x86
coverage: need-coverage ## Which lines and branches of src/ the host tests reach
	CARGO_TARGET_DIR=$(TARGETS)/coverage cargo +$(NIGHTLY) llvm-cov --branch --package frametree \
	    --all-features --ignore-filename-regex '(tests|qemu|models|costs|counts|deaths|faults|nesting|schedules)' \
	    test --lib $(addprefix --test ,$(COVERING))

deny: need-deny ## Licences, sources and duplicates of what the library depends on
	cargo deny --offline check licenses bans sources

# The rest of the project is built by the Rust that rust-toolchain.toml names.
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1.0/p' Cargo.toml)
msrv: need-msrv ## Build the library with the oldest Rust that it promises
	cargo +$(MSRV) check $(LOCKED) -p frametree --all-features
	cargo +$(MSRV) check $(LOCKED) -p frametree --all-features --target $(KERNEL_TARGET)

powerset: need-powerset ## Build the library with every set of features
	cargo hack check --feature-powerset --depth 3 -p frametree --no-dev-deps

minimal: need-minimal ## Build the library with the oldest dependencies that it allows
	cargo +$(NIGHTLY) minimal-versions check --direct -p frametree --all-features

book: need-book ## Make the book of docs/, in target/book
	mdbook build docs
# What the public API is compared with: the last tag; before there is one, any commit.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null)
semver: ## Compare the public API with that of the last tag, for breaks [BASE=commit]
	@test -n "$(BASE)" || { echo "There is no tag yet to compare the public API with." \
	    "Name a commit: make semver BASE=..." >&2; exit 1; }
	@tools/setup.sh host semver
	cargo semver-checks -p frametree --all-features --baseline-rev "$(BASE)"

clean: ## Remove everything that was built
	cargo clean

need-host:
	@tools/setup.sh host
need-boot:
	@tools/setup.sh host kernel qemu
need-image:
	@tools/setup.sh host kernel qemu image
need-uefi:
	@tools/setup.sh host kernel qemu uefi image
need-test:
	@tools/setup.sh host kernel qemu uefi image gdb count solver spin
need-proofs:
	@tools/setup.sh host solver
need-spin:
	@tools/setup.sh host spin
need-count:
	@tools/setup.sh host count
need-lint:
	@tools/setup.sh host lint
need-fuzz need-miri need-tsan need-mutants need-coverage need-deny need-powerset need-minimal need-book need-msrv:
	@tools/setup.sh host $(@:need-%=%)
