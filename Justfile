# The one list of commands. `./justw COMMAND` runs them where `just` is not installed.

set shell := ["bash", "-euo", "pipefail", "-c"]

cache := env("XDG_CACHE_HOME", env("HOME", "/tmp") / ".cache") / "weft"
deny := cache / "cargo-deny/bin/cargo-deny"

# Programs are static: they run in an image that holds nothing else. That needs the target to be said.
target := `rustc -vV | sed -n 's/^host: //p'`
static := 'RUSTFLAGS="-C target-feature=+crt-static" cargo'
built := "target" / target / "release"
# The features of the test harness, the same everywhere, so that it is built once.
harness := "weft-e2e/mesh,weft-e2e/cluster"

# List the commands.
default:
    @just --list --unsorted

# Run the mesh on this machine with a live table (try: --for 30s).
demo *ARGS: programs
    @exec {{built}}/weft-demo {{ARGS}}

# Everything that must hold before a change lands.
test: format lint docs deny unit mesh gates cluster-test

# The quick part of `test`: nothing is run.
check: format lint docs

# Compare the proxy with Envoy, HAProxy and nginx on this machine (try: --quick, --list).
bench *ARGS:
    {{static}} build --profile dist --package weft-proxy --package weft-bench --bins --locked --target {{target}}
    @exec target/{{target}}/dist/weft-bench {{ARGS}}

# What a request costs in instructions and allocations, against bench/gates.json (--update writes it).
gates *ARGS: programs
    #!/usr/bin/env bash
    set -euo pipefail
    command -v valgrind >/dev/null || { echo "SKIPPED: the cost of a request, because valgrind is not installed"; exit 0; }
    exec {{built}}/weft-bench gates {{ARGS}}

# Write proxy/layout.txt anew: the functions that stand side by side in the program (needs valgrind).
layout:
    {{static}} build --profile dist --package weft-bench --bins --locked --target {{target}}
    {{static}} rustc --profile dist --package weft-proxy --bin weft-proxy --locked --target {{target}} -- -C strip=none
    @exec target/{{target}}/dist/weft-bench layout

# Format the sources.
fmt:
    cargo fmt --all

# The sources are formatted.
format:
    cargo fmt --all -- --check

# No warning of the compiler or of clippy.
lint:
    cargo clippy --workspace --all-targets --features {{harness}} --locked -- -D warnings

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

# Properties are tried with the same cases each time: new ones, which nobody has seen, are for `cargo test` and the
# fuzzers, not for a verdict on a change.

# The tests of the crates, generated files among them.
unit:
    PROPTEST_RNG_SEED=1 cargo test --workspace --locked

# The mesh as processes: every example, bad input, stock Envoy.
mesh TESTS="mesh_*" *ARGS="": programs
    {{static}} test --release --workspace --locked --target {{target}} --features {{harness}} --test '{{TESTS}}' {{ARGS}}

# Build the programs that demo, tests and images run, into target/programs.
programs:
    {{static}} build --release --workspace --bins --locked --target {{target}}
    @ln -sfn {{target}}/release target/programs

# Make the images' archives in target/images, without Docker.
images: programs
    {{built}}/weft-cluster images

# A real Kubernetes on this machine: up, down, status, load... (try: eval "$(./justw cluster up)").
cluster *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    quiet=--quiet
    case "{{ARGS}}" in up*) quiet= ;; esac
    {{static}} build --release --workspace --bin weft-cluster --locked $quiet --target {{target}} >&2
    case "{{ARGS}}" in
        up*)
            if [ -z "${KUBECONFIG:-}" ]; then
                {{built}}/weft-cluster check >&2
                "{{just_executable()}}" images >&2
            fi
            ;;
    esac
    exec {{built}}/weft-cluster {{ARGS}}

# The mesh in a real Kubernetes: the cluster of KUBECONFIG, or one of its own that ends with the tests.
cluster-test TESTS="cluster_*" *ARGS="":
    #!/usr/bin/env bash
    set -euo pipefail
    weft_cluster={{built}}/weft-cluster
    {{static}} build --release --workspace --bin weft-cluster --locked --target {{target}}
    if [ -z "${KUBECONFIG:-}" ]; then
        # 3 means that no node can run here; anything else that goes wrong is a failure.
        code=0
        reason=$($weft_cluster check) || code=$?
        case $code in
            0) ;;
            3) echo "SKIPPED: the tests in a real Kubernetes, because $reason"; exit 0 ;;
            *) exit $code ;;
        esac
        "{{just_executable()}}" images
        [ -n "${WEFT_KEEP_CLUSTER:-}" ] || trap '$weft_cluster down --name test' EXIT
        exports=$($weft_cluster up --name test)
        eval "$exports"
        export WEFT_CLUSTER=test
    fi
    # An installation from before has the images from before.
    if kubectl --namespace weft-system get deployment weft-operator >/dev/null 2>&1; then
        kubectl --namespace weft-system rollout restart deployment weft-operator
    fi
    tests() {
        {{static}} test --release --workspace --locked --target {{target}} --features {{harness}} --test "$1" -- --test-threads 2 {{ARGS}}
    }
    tests '{{TESTS}}'
    # The same mesh where addresses are IPv6 alone: a cluster of its own, after the first.
    if [ "${WEFT_CLUSTER:-}" = test ] && [ -z "${WEFT_KEEP_CLUSTER:-}" ] && [ '{{TESTS}}' = 'cluster_*' ]; then
        $weft_cluster down --name test
        unset KUBECONFIG
        trap '$weft_cluster down --name test6' EXIT
        exports=$($weft_cluster up --name test6 --ip-family ipv6)
        eval "$exports"
        WEFT_CLUSTER=test6 tests 'ipv6_*'
    fi
