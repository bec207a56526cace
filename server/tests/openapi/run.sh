#!/usr/bin/env bash
# The native API against its own description: `bash server/tests/openapi/run.sh BINARY`.
#
# Starts a server and has schemathesis ask it all that /openapi.json describes: every example, values at and beyond
# each bound, and random ones; what fits must be answered as described, what does not must be refused, and nothing
# may be a failure of the server. Bounded, some minute. Needs Python 3 with pip; without it SKIPPED, loudly.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
binary="$(realpath "${1:?the path of the askonce binary}")"
target="$(realpath -m "${CARGO_TARGET_DIR:-$here/../../../target}")/openapi"

skip() {
    echo "SKIPPED: the native API was not compared with its description: $1"
    echo "test result: ok. 0 passed; 0 failed; 1 ignored"
    exit 0
}

command -v python3 >/dev/null || skip "there is no Python 3"
mkdir -p "$target"
if ! [ -x "$target/venv/bin/python" ]; then
    python3 -m venv "$target/venv" || skip "Python has no venv"
fi
"$target/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
    skip "schemathesis could not be installed"

folder=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"
"$binary" serve --listen 127.0.0.1:0 --json >ready.json 2>server.log &
server=$!
for _ in $(seq 100); do
    [ -s ready.json ] && break
    sleep 0.1
done
url=$(python3 -c 'import json; print(json.load(open("ready.json"))["listening"])')

# One worker: the parser that Python has for its own source counts its depth for all threads together, and fails
# when two are in it. The stream of events has no end. Keys are asked for by this machine's callers only if they are listed.
status=0
timeout 300 "$target/venv/bin/schemathesis" run "$url/openapi.json" \
    --exclude-path /cache/v1/events --checks all --exclude-checks ignored_auth \
    --phases examples,coverage,fuzzing --max-examples "${EXAMPLES:-60}" --generation-deterministic \
    --continue-on-failure --workers 1 --suppress-health-check all --warnings off --no-color || status=$?
kill -0 "$server" || { echo "the server is gone:" && tail -n 20 server.log && status=1; }
if grep -n panicked server.log; then status=1; fi
if [ "$status" -eq 0 ]; then
    echo "test result: ok. 1 passed; 0 failed; 0 ignored"
else
    echo "test result: FAILED. 0 passed; 1 failed; 0 ignored"
fi
exit "$status"
