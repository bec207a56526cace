#!/usr/bin/env bash
# The admin page in a real browser: `bash server/tests/admin_page/run.sh BINARY`.
#
# Needs Chromium (CHROMIUM names another than the one on the path), Python 3 with pip, and npm. The pinned driver
# and the accessibility checker are installed into the target folder. Screenshots stay in
# `<target>/admin-page/screenshots`. What is missing makes it SKIPPED, loudly, and no failure.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
binary="$(realpath "${1:?the path of the askonce binary}")"
target="$(realpath -m "${CARGO_TARGET_DIR:-$here/../../../target}")/admin-page"
axe=axe-core@4.14.1

skip() {
    echo "SKIPPED: the admin page was not looked at: $1"
    echo "test result: ok. 0 passed; 0 failed; 1 ignored"
    exit 0
}

chromium="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}"
[ -n "$chromium" ] || skip "there is no Chromium"
command -v python3 >/dev/null || skip "there is no Python 3"
command -v npm >/dev/null || skip "there is no npm, which brings axe-core"

mkdir -p "$target"
if ! [ -x "$target/venv/bin/python" ]; then
    python3 -m venv "$target/venv" || skip "Python has no venv"
fi
"$target/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
    skip "the driver could not be installed"
if ! [ -f "$target/node_modules/axe-core/axe.min.js" ]; then
    npm install --silent --no-save --no-audit --no-fund --prefix "$target" "$axe" || skip "axe-core could not be installed"
fi

exec "$target/venv/bin/python" "$here/drive.py" --binary "$binary" --chromium "$chromium" \
    --axe "$target/node_modules/axe-core/axe.min.js" --screenshots "$target/screenshots"
