#!/bin/bash
# Unpacks a PostgreSQL that this Debian does not have into a folder, so that it runs from there: nothing is
# installed, and no rights are needed. Called by tests/setup.sh.
#
#   tests/unpack.sh MAJOR FOLDER SOURCE…
#
# A SOURCE is one of
#   debian:RELEASE         packages of another release, with all that they need, the C library too, which the
#                          programs are told to use
#   pypi:NAME==VERSION     a wheel that has a whole server in it
#   npm:NAME@VERSION       a package of a server, its libraries and contrib, laid over what a wheel has brought
set -euo pipefail
umask 022 # the server's user reads it
cd "$(dirname "$0")/.."
major=$1 folder=$(realpath -ms "$2")
shift 2

rm -rf "$folder"
mkdir -p "$folder"

from_pypi() {
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --no-deps --only-binary :all: --target "$folder" "$1"
    rm -r "$folder/venv"
}

from_npm() {
    local package
    package=$(cd "$folder" && npm pack --silent "$1")
    tar -x -C "$folder" -f "$folder/$package"
    rm "$folder/$package"
    # Links by which libraries are found; npm has none in its packages.
    /sbin/ldconfig -n "$folder/package/native/lib"
    cp -a "$folder"/package/native/{bin,lib,share} "$folder"/*/pginstall/
    rm -r "$folder/package"
}

# An apt of its own, that knows of this release alone and has nothing installed: what it would install is
# the packages and all that they need.
from_debian() {
    local apt=$folder/apt mirror library
    mirror=$(tests/mirror.sh)
    mkdir -p "$apt"/{lists,archives}/partial
    touch "$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" > "$apt/sources.list"
    cat > "$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Debug::NoLocking "true";
CONF
    export APT_CONFIG=$apt/apt.conf
    apt-get update
    apt-get install -y --download-only "postgresql-$major" "postgresql-plperl-$major"
    # Not what it needs: those are compilers.
    (cd "$apt/archives" && apt-get download "postgresql-server-dev-$major")
    for package in "$apt"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$folder" --no-same-owner
    done
    [ ! -d "$folder/lib" ] || cp -a "$folder/lib/." "$folder/usr/lib" # Debian 12 has some libraries outside of usr
    rm -r "$apt"

    # Programs name the C library's loader by its path, and that looks for libraries where the machine has its own.
    library=$folder/usr/lib/x86_64-linux-gnu
    find "$folder/usr/lib/postgresql/$major" -type f -perm /111 | while read -r file; do
        patchelf --print-interpreter "$file" > /dev/null 2>&1 || continue # a script or a library
        patchelf --set-interpreter "$library/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$library" "$file"
    done
}

for source in "$@"; do
    "from_${source%%:*}" "${source#*:}"
done
chmod -R a+rX "$folder"
