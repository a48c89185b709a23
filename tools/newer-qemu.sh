#!/usr/bin/env bash
# Finds or fetches a QEMU whose TCG has x2APIC (9.0 or newer), and prints its path.
#
#   tools/newer-qemu.sh DIRECTORY
#
# The machine's own is taken if it is new enough, then one that an earlier call has left in the
# directory. On Debian 12 it else downloads what Debian's backports have, 14 MB, checks it as apt
# does, and unpacks it in the directory. The system's packages and lists stay as they are; the
# libraries are those of its own QEMU, so that is to be installed. Removing the directory undoes
# all. Elsewhere it says what is needed, and ends with status 1.
set -euo pipefail

say() { printf 'newer-qemu: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

OLDEST=9.0
PROGRAM=qemu-system-x86_64
PACKAGES=(qemu-system-x86 qemu-system-common qemu-system-data seabios)
SUITE=bookworm-backports

[[ $# == 1 && -n $1 ]] || fail "usage: tools/newer-qemu.sh DIRECTORY"
mkdir -p "$1"
directory=$(cd "$1" && pwd)

# Whether this QEMU starts and is new enough.
is_new() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n '1s/.*version \([0-9.]*\).*/\1/p') || return 1
    [[ -n $version ]] && printf '%s\n' "$OLDEST" "$version" | sort -V -C
}

for program in "$(command -v "$PROGRAM" || true)" "$directory/usr/bin/$PROGRAM"; do
    if [[ -n $program ]] && is_new "$program"; then
        printf '%s\n' "$program"
        exit 0
    fi
done

codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null) || codename=
[[ $codename == bookworm ]] && command -v apt-get >/dev/null ||
    fail "QEMU $OLDEST or newer is needed, whose TCG has x2APIC. Install it as this system does."

keys=/usr/share/keyrings/debian-archive-keyring.gpg
say "downloading QEMU of $SUITE into $directory; the system stays as it is"
rm -rf "$directory/apt"
mkdir -p "$directory/apt/lists/partial" "$directory/apt/cache/archives/partial"
echo "deb [signed-by=$keys] http://deb.debian.org/debian $SUITE main" >"$directory/apt/sources.list"
apt() {
    apt-get -q -o Dir::Etc::SourceList="$directory/apt/sources.list" \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$directory/apt/lists" \
        -o Dir::Cache="$directory/apt/cache" -o APT::Sandbox::User=root \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Languages=none "$@" >&2
}
why="that failed; its own lines above say why"
(cd "$directory/apt" && apt update && apt download "${PACKAGES[@]/%//$SUITE}") || fail "$why"
for package in "$directory"/apt/*.deb; do dpkg -x "$package" "$directory" || fail "$why"; done
rm -rf "$directory/apt"

is_new "$directory/usr/bin/$PROGRAM" ||
    fail "the QEMU that was fetched does not start here: try $directory/usr/bin/$PROGRAM --version"
printf '%s\n' "$directory/usr/bin/$PROGRAM"
