#!/bin/bash
# Puts what a server needs of the extension, and has been built, into two folders of a PostgreSQL: the one place that
# says which files those are. `make install`, the Debian package and the images all go through it.
#
#   packaging/files.sh LIBRARIES EXTENSION
#
# LIBRARIES is pg_config's --pkglibdir, EXTENSION the folder `extension` below its --sharedir. The library is that of
# target/release, or the file that the environment variable LIBRARY names.
set -euo pipefail
cd "$(dirname "$0")/.."
libraries=$1 extension=$2

# A released version's install script is the newest; older versions come to it by the upgrade scripts beside it.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)

# install(1) puts a new file in the place of the old one: a server may have that loaded.
install -D -m 644 "${LIBRARY:-target/release/libprofile_cache.so}" "$libraries/profile_cache.so"
install -D -m 644 sql/profile_cache.sql "$extension/profile_cache--$version.sql"
for upgrade in sql/profile_cache--*.sql; do
    [ ! -e "$upgrade" ] || install -D -m 644 "$upgrade" "$extension/${upgrade#sql/}"
done
control=$(mktemp)
trap 'rm -f "$control"' EXIT
sed "s/@CARGO_VERSION@/$version/" profile_cache.control > "$control"
install -D -m 644 "$control" "$extension/profile_cache.control"
