# Sourced by the other scripts: makes .venv beside the checkout's sources and installs into it, once.
# Needs Python 3.11 or later with venv, a C compiler and a package registry that pip can reach.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${CYTOMILL_VENV:-$root/.venv}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "cytomill needs Python 3.11 or later; set PYTHON to one" >&2
    return 1
}

# install EXTRA...: the package in editable form with its extras; what is installed as setup.cfg says is left alone.
install() {
    local python checksum extra missing=
    checksum=$(cat "$root/setup.cfg" "$root/pyproject.toml" | cksum | tr -d ' ')
    for extra in "$@"; do
        [ -f "$venv/.installed-$extra-$checksum" ] || missing=1
    done
    [ -n "$missing" ] || return 0
    python=$(find_python) || return 1
    echo "environment in $venv ..."
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable "$root[$(IFS=,; echo "$*")]"
    for extra in "$@"; do
        touch "$venv/.installed-$extra-$checksum"
    done
}
