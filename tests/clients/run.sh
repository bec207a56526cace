#!/usr/bin/env bash
# Real clients, unchanged but for their base URL, against `askonce serve` in front of a provider that runs here.
#
#   bash tests/clients/run.sh
#
# Installs the versions that requirements.txt and package.json pin into the target folder, by pip and npm. What
# cannot be installed is skipped, loudly. ASKONCE_BIN names a binary to test; without it one is built.
set -euo pipefail

bin=${ASKONCE_BIN:+$(realpath "$ASKONCE_BIN")}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
tools=$target/clients
mkdir -p "$tools"
cd "$tools"

pids=()
finish() {
    local status=$?
    for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null || true; done
    exit "$status"
}
trap finish EXIT

if [ -z "$bin" ]; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p askonce-server --target-dir "$target"
    bin=$target/debug/askonce
fi

command -v python3 >/dev/null || { echo "SKIPPED: all clients: python3 is not installed"; exit 0; }

# The provider is plain Python.
python3 "$here/upstream.py" >"$tools/upstream.port" &
pids+=($!)
for _ in $(seq 100); do [ -s "$tools/upstream.port" ] && break; sleep 0.1; done
UPSTREAM_URL="http://127.0.0.1:$(cat "$tools/upstream.port")"
export UPSTREAM_URL

# One server for each client: what one stores does not answer another.
passed=0 failed=0 skipped=0
run() {
    local name=$1 status=0 log
    shift
    log=$tools/$name.log
    (cd "$tools" && exec "$bin" serve --listen 127.0.0.1:0 --json --upstream "$UPSTREAM_URL/v1" >"$log" 2>"$log.err") &
    local server=$!
    pids+=("$server")
    for _ in $(seq 300); do grep -q listening "$log" 2>/dev/null && break; sleep 0.1; done
    ASKONCE_URL=$(sed -n 's/.*"listening":"\([^"]*\)".*/\1/p' "$log" | head -n 1)
    export ASKONCE_URL
    if [ -z "$ASKONCE_URL" ]; then
        echo "FAILED  $name: the server did not start"
        tail -n 20 "$log.err"
        failed=$((failed + 1))
        return
    fi
    "$@" >"$log.out" 2>&1 || status=$?
    cat "$log.out"
    passed=$((passed + $(grep -c '^ok ' "$log.out" || true)))
    failed=$((failed + $(grep -c '^FAILED ' "$log.out" || true)))
    if [ "$status" -ne 0 ] && ! grep -q '^FAILED ' "$log.out"; then
        echo "FAILED  $name: it ended with status $status"
        failed=$((failed + 1))
    fi
    kill "$server" 2>/dev/null || true
}
skip() {
    echo "SKIPPED: $1"
    skipped=$((skipped + 1))
}

python=$tools/venv/bin/python
installed() { "$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"; }
if { [ -x "$python" ] || python3 -m venv "$tools/venv"; } >"$tools/venv.log" 2>&1 && installed >>"$tools/venv.log" 2>&1; then
    for client in openai anthropic langchain litellm; do
        run "$client" "$python" "$here/${client}_python.py"
    done
else
    skip "clients in Python: pip cannot install them (log: $tools/venv.log)"
fi

if command -v npm >/dev/null && cp "$here/package.json" "$here/openai_node.mjs" "$tools/" &&
    npm install --silent --no-audit --no-fund --prefix "$tools" >"$tools/npm.log" 2>&1; then
    run openai_node node "$tools/openai_node.mjs"
else
    skip "clients in Node: npm is not there or cannot install them (log: $tools/npm.log)"
fi

echo "test result: $passed passed; $failed failed; $skipped skipped"
[ "$failed" -eq 0 ]
