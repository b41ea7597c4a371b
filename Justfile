# The one list of commands. `./justw COMMAND` runs them where `just` is not installed.

set shell := ["bash", "-euo", "pipefail", "-c"]

cache := env("XDG_CACHE_HOME", env("HOME", "/tmp") / ".cache") / "weft"
deny := cache / "cargo-deny/bin/cargo-deny"

# List the commands.
default:
    @just --list --unsorted

# Run the mesh on this machine with a live table (try: --for 30s).
demo *ARGS: programs
    @exec target/release/weft-demo {{ARGS}}

# Everything that must hold before a change lands.
test: format lint docs deny unit mesh

# The quick part of `test`: nothing is run.
check: format lint docs

# Measure the proxy: time to ready, memory, size of the binary.
bench *ARGS:
    cargo build --profile dist --workspace --bins --locked
    @exec target/dist/weft-bench {{ARGS}}

# Format the sources.
fmt:
    cargo fmt --all

# The sources are formatted.
format:
    cargo fmt --all -- --check

# No warning of the compiler or of clippy.
lint:
    cargo clippy --workspace --all-targets --features weft-e2e/mesh --locked -- -D warnings

# The documentation builds without a warning.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

# Dependencies: licences, bans, sources; advisories where their database can be reached.
deny:
    #!/usr/bin/env bash
    set -euo pipefail
    deny=$(command -v cargo-deny || true)
    if [ -z "$deny" ]; then
        deny={{deny}}
        [ -x "$deny" ] || {
            echo "cargo-deny is not installed: building it once into {{cache}} (some minutes)"
            cargo install cargo-deny --locked --quiet --root {{cache}}/cargo-deny
        }
    fi
    "$deny" --workspace --locked check bans licenses sources
    if GIT_TERMINAL_PROMPT=0 timeout 20 git ls-remote -q https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then
        "$deny" --workspace --locked check advisories
    else
        echo "SKIPPED: advisories (the RustSec database cannot be reached from here)"
    fi

# The tests of the crates, generated files among them.
unit:
    cargo test --workspace --locked

# The mesh as processes: every example, bad input, stock Envoy.
mesh TESTS="mesh_*" *ARGS="": programs
    cargo test --release --workspace --locked --features weft-e2e/mesh --test '{{TESTS}}' {{ARGS}}

# Build the programs that demo and tests run.
programs:
    cargo build --release --workspace --bins --locked
