#!/usr/bin/env bash
# Everything that must hold before a change is merged, in one command.
#
#   bash scripts/test.sh            all steps
#   bash scripts/test.sh --quick    leaves out clippy on all features, the engine over FAISS (which is
#                                   compiled from source, in minutes), the second run of the identity tests, and
#                                   the server under a browser and under made-up requests
#
# Every step runs even when an earlier one failed. What a step printed is kept under
# target/test-logs; a failure shows the part that matters. The last line is always
# "N passed, N failed, N skipped": tests and doctests, where a failed step without a failed test of
# its own counts as one failure, and a test that printed `SKIPPED:` counts as skipped, not passed.
#
# Some tests start a real Redis or memcached. When these servers are missing and this script may
# install packages (root, or sudo without a password), it does; ASKONCE_TEST_NO_INSTALL=1 forbids it.
# So it does with what FAISS is compiled by: CMake, a C++ compiler, a BLAS. The library of ONNX Runtime comes out of
# its Python package, by pip, into the target folder, unless ORT_DYLIB_PATH names one. The admin page is driven in
# Chromium, and the native API compared with its OpenAPI document, by tools that pip and npm bring there, too.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

export CARGO_TERM_COLOR=never
export RUST_BACKTRACE="${RUST_BACKTRACE:-1}"

quick=false
for argument in "$@"; do
    case "$argument" in
        --quick) quick=true ;;
        -h | --help)
            sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *)
            echo "unknown option: $argument (known: --quick)" >&2
            exit 2
            ;;
    esac
done

logs="${CARGO_TARGET_DIR:-target}/test-logs"
mkdir -p "$logs"
rm -f "$logs"/*.log

passed=0
failed=0
skipped=0
steps=16
if $quick; then steps=7; fi
step=0
failed_steps=()
notes=()

finish() {
    local status=$?
    trap - EXIT
    echo
    for note in ${notes[@]+"${notes[@]}"}; do
        echo "note: $note"
    done
    for name in ${failed_steps[@]+"${failed_steps[@]}"}; do
        echo "failed: $name"
    done
    # A script that stopped early has not shown that anything works.
    if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=1
    fi
    echo "all steps took ${SECONDS} s; logs in $logs"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ] || exit 1
    exit 0
}
trap finish EXIT
trap 'exit 130' INT TERM

note() {
    notes+=("$1")
    echo "note: $1"
}

banner() {
    step=$((step + 1))
    echo
    echo "==> [$step/$steps] $1"
}

# The part of a log that explains a failure: failed tests with their output, else the first compiler
# errors, else the end.
explain() {
    local log=$1
    if grep -q '^failures:$' "$log"; then
        awk '/^failures:$/ { show = 1 } /^test result:/ { show = 0 } show' "$log" | head -n 200
    elif grep -q '^error' "$log"; then
        { grep -A 14 '^error' "$log" || true; } | head -n 120
    else
        tail -n 60 "$log"
    fi
}

# run_step TITLE SLUG COMMAND...   one step: banner, log, timing, and what went wrong.
run_step() {
    local title=$1 slug=$2 started=$SECONDS
    local log="$logs/$slug.log"
    shift 2
    banner "$title"
    if "$@" >"$log" 2>&1; then
        echo "    ok in $((SECONDS - started)) s"
    else
        echo "    FAILED after $((SECONDS - started)) s (whole log: $log)"
        { explain "$log" || true; } | sed 's/^/    | /'
        failed=$((failed + 1))
        failed_steps+=("$title")
    fi
}

# What the test harness reported: "passed failed skipped". A test that printed `SKIPPED:` ended
# well, so the harness counts it as passed; it is moved to the skipped ones, once per test.
count_tests() {
    awk '
        /^successes:$/ { where = "successes"; next }
        /^failures:$/ { where = "failures"; next }
        /^---- .* stdout ----$/ { name = NR; next }
        /^SKIPPED:/ {
            if (where != "failures" && !(name in seen)) {
                skips++
                if (where == "successes") seen[name] = 1
            }
        }
        /^test result:/ {
            where = ""
            for (i = 1; i < NF; i++) {
                if ($(i + 1) ~ /^passed/) ok += $i
                if ($(i + 1) ~ /^failed/) bad += $i
                if ($(i + 1) ~ /^ignored/) ignored += $i
            }
        }
        END {
            if (skips > ok) skips = ok
            printf "%d %d %d\n", ok - skips, bad, ignored + skips
        }
    ' "$1"
}

# run_tests TITLE SLUG COMMAND...   like run_step, for commands that report test results.
run_tests() {
    local title=$1 slug=$2 started=$SECONDS status=0 ok bad skip
    local log="$logs/$slug.log"
    shift 2
    banner "$title"
    # Shows which test binary ran and how it ended, while it happens.
    "$@" 2>&1 | tee "$log" | { grep --line-buffered -E '^( +Running | +Doc-tests |test result:)' || true; } |
        sed -u 's/^ */    /' || status=$?
    read -r ok bad skip < <(count_tests "$log")
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    skipped=$((skipped + skip))
    if [ "$bad" -eq 0 ]; then
        echo "    ok in $((SECONDS - started)) s: $ok passed, $skip skipped"
    else
        echo "    FAILED after $((SECONDS - started)) s: $ok passed, $bad failed, $skip skipped (whole log: $log)"
        { explain "$log" || true; } | sed 's/^/    | /'
        failed_steps+=("$title")
    fi
    { grep -E '^SKIPPED:' "$log" || true; } | sort -u | sed 's/^/    /'
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

may_install() {
    [ -z "${ASKONCE_TEST_NO_INSTALL:-}" ] && command -v apt-get >/dev/null &&
        { [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get -o DPkg::Lock::Timeout=120 update -qq &&
        as_root apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends "$@"
}

# Redis and memcached for the tests that talk to the real thing.
provide_servers() {
    local missing=() server
    banner "servers that some tests start: redis-server, memcached"
    for server in redis-server memcached; do
        command -v "$server" >/dev/null || missing+=("$server")
    done
    if [ "${#missing[@]}" -gt 0 ] && may_install; then
        echo "    installing ${missing[*]}"
        install_packages "${missing[@]}" >"$logs/servers.log" 2>&1 ||
            echo "    the installation failed (log: $logs/servers.log)"
    fi
    hash -r
    for server in redis-server memcached; do
        if command -v "$server" >/dev/null; then
            echo "    found $server"
        else
            note "$server is MISSING: every test that needs it will be SKIPPED"
        fi
    done
}

# The library that models in ONNX files are run by, if it was installed here.
installed_onnxruntime() {
    { find "$onnxruntime" -path '*/onnxruntime/capi/*' -name 'libonnxruntime.*' 2>/dev/null || true; } | head -n 1
}

# ONNX Runtime for the tests that run models in ONNX files.
provide_onnxruntime() {
    local onnxruntime="${CARGO_TARGET_DIR:-$PWD/target}/onnxruntime"
    banner "what runs models in ONNX files: the library of ONNX Runtime"
    if [ -z "${ORT_DYLIB_PATH:-}" ]; then
        if [ -z "$(installed_onnxruntime)" ] && [ -z "${ASKONCE_TEST_NO_INSTALL:-}" ]; then
            if ! python3 -m pip --version >/dev/null 2>&1 && may_install; then
                install_packages python3-pip >"$logs/onnxruntime.log" 2>&1 || true
            fi
            echo "    installing the Python package onnxruntime into the target folder"
            python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$onnxruntime" \
                onnxruntime >>"$logs/onnxruntime.log" 2>&1 ||
                echo "    the installation failed (log: $logs/onnxruntime.log)"
        fi
        ORT_DYLIB_PATH=$(installed_onnxruntime)
        export ORT_DYLIB_PATH
    fi
    if [ -n "$ORT_DYLIB_PATH" ]; then
        echo "    found it"
    else
        note "the library of ONNX Runtime is MISSING: every test that needs it will be SKIPPED"
    fi
}

# Formatter and linter are missing from a minimal toolchain.
provide_components() {
    local component tool
    for component in rustfmt clippy; do
        tool=${component/rustfmt/fmt}
        if ! cargo "$tool" --version >/dev/null 2>&1 && command -v rustup >/dev/null; then
            echo "    adding the toolchain component $component"
            rustup component add "$component" >>"$logs/components.log" 2>&1 || true
        fi
    done
}

# `faiss` compiles a C++ library: without its tools, all the other features are checked one and all.
has_faiss_tools() {
    local libraries
    libraries=$(ldconfig -p 2>/dev/null || true)
    # Those to link with, not only those to run with.
    command -v cmake >/dev/null && command -v c++ >/dev/null &&
        grep -q 'libblas\.so ' <<<"$libraries" && grep -q 'liblapack\.so ' <<<"$libraries"
}

provide_faiss_tools() {
    banner "what FAISS is compiled by: cmake, a C++ compiler, BLAS and LAPACK"
    if ! has_faiss_tools && may_install; then
        echo "    installing cmake, g++ and libopenblas-dev"
        install_packages cmake g++ libopenblas-dev >"$logs/faiss-tools.log" 2>&1 ||
            echo "    the installation failed (log: $logs/faiss-tools.log)"
        hash -r
    fi
    if has_faiss_tools; then
        echo "    found them"
    else
        note "tools to compile FAISS are MISSING: its engine is neither built nor linted nor tested"
    fi
}

test_faiss() {
    if has_faiss_tools; then
        run_tests "tests of the vector indexes with FAISS, compiled from source" tests-faiss \
            cargo test -p askonce-index --all-features --no-fail-fast -- --show-output
    else
        banner "tests of the vector indexes with FAISS"
        echo "    SKIPPED: no tools to compile FAISS"
        skipped=$((skipped + 1))
    fi
}

# A browser for the admin page, and what installs its driver.
provide_browser() {
    banner "what the admin page and the clients of others are run by: Chromium, Python, npm"
    local missing=()
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null || [ -n "${CHROMIUM:-}" ] || missing+=(chromium fonts-dejavu-core)
    command -v npm >/dev/null || missing+=(npm)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv python3-pip)
    if [ "${#missing[@]}" -gt 0 ] && may_install; then
        echo "    installing ${missing[*]}"
        install_packages "${missing[@]}" >"$logs/browser.log" 2>&1 ||
            echo "    the installation failed (log: $logs/browser.log)"
        hash -r
    fi
    if command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null || [ -n "${CHROMIUM:-}" ]; then
        echo "    found a browser"
    else
        note "Chromium is MISSING: the admin page will not be looked at"
    fi
}

# The server's binary, as the tests above have built it.
test_server() {
    local binary="${CARGO_TARGET_DIR:-target}/debug/askonce"
    run_tests "the admin page in a browser" admin-page bash server/tests/admin_page/run.sh "$binary"
    run_tests "the native API against its description" openapi bash server/tests/openapi/run.sh "$binary"
    run_tests "clients of others, unchanged" clients env ASKONCE_BIN="$binary" bash tests/clients/run.sh
}

# Every feature of every member but `faiss`, and but `usearch`, a C++ library that a benchmark compares
# with; as package/feature, separated by commas.
features_without_faiss() {
    local manifests=() member
    for member in $(sed -n 's/^members = \[\(.*\)\]$/\1/p' Cargo.toml | tr -d '",'); do
        manifests+=("$member/Cargo.toml")
    done
    awk '
        FNR == 1 { package = ""; section = "" }
        /^\[/ { section = $0 }
        section == "[package]" && $1 == "name" { package = $3; gsub(/"/, "", package) }
        section == "[features]" && /^[A-Za-z0-9_-]+[ \t]*=/ {
            feature = $0
            sub(/[ \t]*=.*/, "", feature)
            if (feature != "default" && feature != "faiss" && feature != "usearch") {
                printf "%s%s/%s", separator, package, feature
                separator = ","
            }
        }
    ' "${manifests[@]}"
}

lint_all_features() {
    if ! grep -qE '^faiss[ ]*=' Cargo.toml ./*/Cargo.toml || has_faiss_tools; then
        run_step "clippy, all features" clippy-all-features \
            cargo clippy --workspace --all-targets --all-features -- -D warnings
    else
        note "the feature faiss is not linted: it needs cmake, a C++ compiler and a BLAS"
        run_step "clippy, all features but faiss" clippy-all-features \
            cargo clippy --workspace --all-targets --features "$(features_without_faiss)" -- -D warnings
    fi
}

echo "$(rustc --version), $(uname -sm)"
provide_components
provide_servers
provide_onnxruntime
$quick || provide_faiss_tools
$quick || provide_browser
run_step "formatting" fmt cargo fmt --all --check -- --color never
run_step "clippy, default features" clippy cargo clippy --workspace --all-targets -- -D warnings
$quick || lint_all_features
features=$(features_without_faiss)
run_tests "tests" tests cargo test --workspace --tests --features "$features" --no-fail-fast -- --show-output
$quick || test_server
$quick || test_faiss
run_tests "doctests" doctests cargo test --workspace --doc --features "$features" --no-fail-fast
run_step "documentation, broken links denied" doc \
    env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --features "$features"
# JSON objects keep the order of their keys under this feature: identity must not depend on it.
$quick || run_tests "identity, JSON objects in order of arrival" identity \
    cargo test -p askonce --features serde_json/preserve_order --test identity -- --show-output
# Another build of the index, so it has a folder of its own.
$quick || run_tests "the vector index under the scheduler of shuttle" shuttle \
    env RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/shuttle" \
    cargo test -p askonce-index --no-default-features --test shuttle -- --show-output
