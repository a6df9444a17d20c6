#!/bin/bash
# Makes the Debian package of what `cargo build --release` has built for a PostgreSQL major, with dpkg-dev alone: files
# are laid out below target/package, dpkg-shlibdeps reads from the library which C library it needs, and templates
# are those of packaging/debian. Needs no root. Built twice from one commit, it is the same, byte for byte.
#
#   packaging/deb.sh MAJOR
#
# Whoever maintains a package of their own names themselves in DEBFULLNAME and DEBEMAIL, as for Debian's tools.
set -euo pipefail
cd "$(dirname "$0")/.."
major=$1
name=postgresql-$major-profile-cache

work=target/package/work
root=$work/root
doc=$root/usr/share/doc/$name
rm -rf "$work"
mkdir -p "$work/debian" "$root/DEBIAN" "$doc/docs"

# The time in the package is the commit's, or that of a release's archive, which has no history.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
maintainer="${DEBFULLNAME:-The profile_cache authors} <${DEBEMAIL:-profile-cache@packages.invalid}>"
export SOURCE_DATE_EPOCH

minimum=$(python3 -c 'import sys, tomllib; print(tomllib.load(open("pgrx-test.toml", "rb"))["pg"][sys.argv[1]]["minimum"])' "$major")

python3 packaging/changelog.py "$maintainer" < CHANGELOG.md > "$work/debian/changelog"
sed "s/@PGVERSION@/$major/; s/@MINIMUM@/$minimum/; s/@MAINTAINER@/$maintainer/" packaging/debian/control.in > "$work/debian/control"

packaging/files.sh "$root/usr/lib/postgresql/$major/lib" "$root/usr/share/postgresql/$major/extension"
strip --strip-unneeded --remove-section=.comment "$root/usr/lib/postgresql/$major/lib/profile_cache.so"
install -m 644 README.md SECURITY.md "$doc"
install -m 644 docs/*.md "$doc/docs"
python3 packaging/licenses.py "$major" < packaging/debian/copyright > "$doc/copyright"
gzip -9n < "$work/debian/changelog" > "$doc/changelog.gz"

(
    cd "$work" # both look for debian/ where they are
    dpkg-shlibdeps --warnings=0 -Tdebian/substvars -e"${root#"$work/"}/usr/lib/postgresql/$major/lib/profile_cache.so"
    dpkg-gencontrol -p"$name" -P"${root#"$work/"}" -Tdebian/substvars -fdebian/files
)
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum > DEBIAN/md5sums)
chmod -R u=rwX,go=rX "$root"
dpkg-deb --root-owner-group --build "$root" target/package
