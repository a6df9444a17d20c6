#!/bin/bash
# Prints the mirror of Debian that this machine's apt uses: of what Debian itself has made, and of a release, not its
# updates. Where apt has not looked yet, it cannot tell, so it looks. Called by tests/setup.sh and tests/unpack.sh.
set -euo pipefail

ask() {
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' | awk '$2 !~ /[-\/]/ && !n++ { print $1 }'
}

mirror=$(ask)
if [ -z "$mirror" ]; then
    if [ "$(id -u)" = 0 ]; then apt-get update; else sudo apt-get update; fi >&2
    mirror=$(ask)
fi
[ -n "$mirror" ] || { echo "apt knows of no mirror of Debian: its sources name none whose Origin is Debian" >&2; exit 1; }
echo "$mirror"
