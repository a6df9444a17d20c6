#!/bin/bash
# Puts what a server needs of the extension, and has been built, into two folders of a PostgreSQL: the one place that
# says which files those are. `make install`, the Debian package and the images all go through it.
#
#   packaging/files.sh LIBRARIES EXTENSION
#
# LIBRARIES is pg_config's --pkglibdir, EXTENSION the folder `extension` below its --sharedir. The library is that of
# target/release, or the file that the environment variable LIBRARY names.
set -euo pipefail
umask 022 # the server's user reads them
cd "$(dirname "$0")/.."
libraries=$1 extension=$2

# put FILE TARGET: a running server finds the old file or the new one, whole, and goes on with an old one that it has
# loaded: the new one is written beside it, and takes its name.
put() {
    install -D -m 644 "$1" "$2.new"
    mv -f "$2.new" "$2"
}

# A released version's install script is the newest; older versions come to it by the upgrade scripts beside it.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)

put "${LIBRARY:-target/release/libprofile_cache.so}" "$libraries/profile_cache.so"
put sql/profile_cache.sql "$extension/profile_cache--$version.sql"
for upgrade in sql/profile_cache--*.sql; do
    [ ! -e "$upgrade" ] || put "$upgrade" "$extension/${upgrade#sql/}"
done
control=$(mktemp)
trap 'rm -f "$control"' EXIT
sed "s/@CARGO_VERSION@/$version/" profile_cache.control > "$control"
put "$control" "$extension/profile_cache.control"
