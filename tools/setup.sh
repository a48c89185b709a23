#!/usr/bin/env bash
# Installs what the make targets need, and only what is missing.
#
#   tools/setup.sh NEED...
#
#   host     Rust, and a linker for programs of this machine
#   kernel   the library of x86_64-unknown-none, for the demo kernel
#   qemu     QEMU, to boot it
#   uefi     the library of x86_64-unknown-uefi, and the firmware OVMF, for a UEFI application
#   image    GRUB and what it makes a disk image with, for BIOS and UEFI
#   gdb      gdb, which looks into a stopped kernel
#   count    valgrind, to count the instructions of the hot paths
#   solver   z3, to prove the functions on words
#   spin     Spin, to explore the protocol's model
#   lint     rustfmt, clippy, and the library of every bare-metal target
#   miri     a nightly Rust with Miri
#   tsan     a nightly Rust with the source of its library, to build it under ThreadSanitizer
#   loader   a nightly Rust with what building the crate `bootloader` takes
#   msrv     the oldest Rust that Cargo.toml promises
#   fuzz     a nightly Rust, a C++ compiler and cargo-fuzz
#   mutants, coverage, deny, powerset, minimal, semver, book
#            the cargo subcommand that the make target of this name runs, built from crates.io
#
# It first looks, then acts. As root on a machine with apt-get (Debian, Ubuntu) it runs the
# commands that are needed. Anywhere else it changes nothing: it prints them, each with its
# reason, and ends with status 1. It asks nothing and, if nothing is missing, says nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

KERNEL_TARGET=x86_64-unknown-none
UEFI_TARGET=x86_64-unknown-uefi
OTHER_TARGETS=(aarch64-unknown-none riscv64gc-unknown-none-elf)
# The nightly Rust for what the stable one can't do; rustup's name of it.
NIGHTLY=${NIGHTLY:-nightly}

if [[ -t 2 && ${TERM:-dumb} != dumb && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' plain=$'\e[0m'
else
    bold='' plain=''
fi

say() { printf '%ssetup:%s %s\n' "$bold" "$plain" "$*" >&2; }
fail() {
    say "$@"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# What is missing: lists, and the reasons for what is in them.
packages=() targets=() components=() nightly=() oldest=() tools=() reasons=()

# A Debian package, and why.
want_package() { packages+=("$1") reasons+=("$2"); }

# Rust's library for a target, unless it is where the compiler looks for it.
need_target() {
    local library
    library=$(rustc --print target-libdir --target "$1" 2>/dev/null) || library=
    [[ -n $library && -d $library ]] && return
    targets+=("$1") reasons+=("Rust's library for $1 is missing: $2")
}

# A tool that comes with the Rust toolchain.
need_component() {
    "cargo-$2" --version >/dev/null 2>&1 && return
    components+=("$1") reasons+=("$1 is missing: the lints run it")
}

# A part of the nightly Rust, recognised by a file below its root; `rustc` is the whole of it.
need_nightly() {
    local root
    root=$(RUSTUP_AUTO_INSTALL=0 rustc "+$NIGHTLY" --print sysroot 2>/dev/null) || root=
    if [[ -z $root ]]; then
        nightly+=(rustc)
        reasons+=("the toolchain $NIGHTLY is missing: $3")
        [[ $1 == rustc ]] && return
    elif [[ -e $root/$2 ]]; then
        return
    fi
    nightly+=("$1") reasons+=("$1 of $NIGHTLY is missing: $3")
}

# The oldest Rust that Cargo.toml promises, with the library for bare metal.
need_oldest() {
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1.0/p' Cargo.toml)
    RUSTUP_AUTO_INSTALL=0 rustc "+$version" --version >/dev/null 2>&1 &&
        [[ -d $(rustc "+$version" --print target-libdir --target "$KERNEL_TARGET") ]] && return
    oldest+=("$version") reasons+=("Rust $version is missing: the library is to build with it")
}

# A cargo subcommand, in exactly this version.
need_tool() {
    cargo install --list | grep -x "$1 v$2:" >/dev/null && return
    tools+=("$1@$2") reasons+=("$1 $2 is missing: $3; building it takes minutes")
}

# Rust itself is the user's to install and to update: this only says how. (Where rustup may, it
# installs a missing toolchain by itself as soon as `rustc` is called.)
need_rust() {
    have rustup || have rustc || fail "Rust is missing. Install rustup as https://rustup.rs says," \
        "open a new shell, and run make again."
    local version wanted
    version=$(rustc --version) || fail "rustc does not start here. If the lines above say that" \
        "the toolchain is not installed, run \`rustup toolchain install stable --profile minimal\`."
    version=${version#rustc } version=${version%%[ -]*}
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    printf '%s\n' "$wanted" "$version" | sort -V -C ||
        fail "Rust $version is too old, $wanted is needed. Run \`rustup update stable\`."
}

# Build scripts, tests and the runner are programs of this machine, linked by `cc`. The trial
# links one: a compiler without the C library's files does not get that far.
need_linker() {
    if ! have cc; then
        want_package gcc "\`cc\` is missing: Rust links programs of this machine with it"
        want_package libc6-dev "the C library's files are missing: so does every such program"
    elif ! printf 'int main(void) { return 0; }' | cc -x c - -o /dev/null 2>/dev/null; then
        want_package libc6-dev "\`cc\` cannot link a program: the C library's files are missing"
    fi
}

# Cargo fetches crates over TLS. Elsewhere than on Debian the certificates may lie anywhere.
need_certificates() {
    [[ -e /etc/debian_version && ! -s /etc/ssl/certs/ca-certificates.crt ]] || return 0
    want_package ca-certificates "the CA certificates are missing: cargo checks downloads with them"
}

need_qemu() {
    have qemu-system-x86_64 && return
    want_package qemu-system-x86 "qemu-system-x86_64 is missing: the demo kernel boots in it"
}

need_ovmf() {
    [[ -e /usr/share/OVMF/OVMF_CODE_4M.fd || -e /usr/share/OVMF/OVMF_CODE.fd ||
        -e /usr/share/edk2/x64/OVMF_CODE.4m.fd ]] && return
    want_package ovmf "OVMF is missing: QEMU boots a UEFI application by it"
}

# One after the other: `grub-mkrescue` says what it lacks only when it runs.
need_image() {
    local why="it makes the disk image that boots real machines"
    have grub-mkrescue || want_package grub-common "grub-mkrescue is missing: $why"
    [[ -d /usr/lib/grub/i386-pc ]] ||
        want_package grub-pc-bin "GRUB for BIOS is missing: the disk image has it"
    [[ -d /usr/lib/grub/x86_64-efi ]] ||
        want_package grub-efi-amd64-bin "GRUB for UEFI is missing: the disk image has it"
    have xorriso || want_package xorriso "xorriso is missing: grub-mkrescue calls it"
    have mformat || want_package mtools "mformat is missing: grub-mkrescue calls it"
}

need_gdb() {
    have gdb && return
    want_package gdb "gdb is missing: a test looks into a stopped kernel with it"
}

need_valgrind() {
    have valgrind && return
    want_package valgrind "valgrind is missing: it counts the instructions of the hot paths"
}

need_z3() {
    have z3 && return
    want_package z3 "z3 is missing: it proves the functions on words"
}

need_spin() {
    have spin && return
    want_package spin "spin is missing: it explores the protocol's model"
}

need() {
    case $1 in
    host) need_rust && need_linker && need_certificates ;;
    kernel) need_target "$KERNEL_TARGET" "the demo kernel is built for it" ;;
    qemu) need_qemu ;;
    uefi)
        need_target "$UEFI_TARGET" "a small kernel is a UEFI application"
        need_ovmf
        ;;
    image) need_image ;;
    gdb) need_gdb ;;
    count) need_valgrind ;;
    solver) need_z3 ;;
    spin) need_spin ;;
    lint)
        need_component rustfmt fmt
        need_component clippy clippy
        local target
        for target in "$KERNEL_TARGET" "$UEFI_TARGET" "${OTHER_TARGETS[@]}"; do
            need_target "$target" "the lints build for it"
        done
        ;;
    miri)
        need_nightly miri bin/miri "it interprets the tests"
        need_nightly rust-src lib/rustlib/src/rust/library "Miri interprets that too"
        ;;
    tsan) need_nightly rust-src lib/rustlib/src/rust/library "ThreadSanitizer has to see all code" ;;
    loader)
        need_nightly rust-src lib/rustlib/src/rust/library "the loader's stages are built with it"
        need_nightly llvm-tools "lib/rustlib/$(host)/bin/llvm-objcopy" "they are cut out with it"
        ;;
    fuzz)
        have c++ || want_package g++ "\`c++\` is missing: libFuzzer is built with it"
        need_nightly rustc bin/rustc "cargo-fuzz instruments with it"
        need_tool cargo-fuzz 0.13.2 "it runs the targets of fuzz/"
        ;;
    mutants) need_tool cargo-mutants 27.1.0 "it makes the mutants" ;;
    coverage)
        need_nightly llvm-tools "lib/rustlib/$(host)/bin/llvm-cov" "it counts; branches are nightly's"
        need_tool cargo-llvm-cov 0.9.1 "it collects what the tests reach"
        ;;
    deny) need_tool cargo-deny 0.20.2 "it reads deny.toml" ;;
    powerset) need_tool cargo-hack 0.6.46 "it builds every set of features" ;;
    minimal)
        need_nightly rustc bin/rustc "it knows \`-Z direct-minimal-versions\`"
        need_tool cargo-hack 0.6.46 "cargo-minimal-versions runs it"
        need_tool cargo-minimal-versions 0.1.38 "it builds with the oldest dependencies"
        ;;
    msrv) need_oldest ;;
    book) need_tool mdbook 0.5.4 "it makes the book of docs/" ;;
    semver) need_tool cargo-semver-checks 0.51.0 "it compares the public API" ;;
    *) fail "\`$1\` is no need that I know; the head of this script lists them" ;;
    esac
}

host() { rustc -vV | sed -n 's/^host: //p'; }

run() {
    say "$*"
    "$@" </dev/null >&2 || fail "that failed (status $?). Its own lines above say why; when the" \
        "cause is gone, run make again."
}

# The commands that bring what comes by rustup and cargo, one a line.
rust_steps() {
    local part tool
    ((${#targets[@]} == 0)) || echo "rustup target add ${targets[*]}"
    ((${#components[@]} == 0)) || echo "rustup component add ${components[*]}"
    for part in "${nightly[@]}"; do
        case $part in
        rustc) echo "rustup toolchain install $NIGHTLY --profile minimal" ;;
        *) echo "rustup component add --toolchain $NIGHTLY $part" ;;
        esac
    done
    for part in "${oldest[@]}"; do
        echo "rustup toolchain install $part --profile minimal --target $KERNEL_TARGET"
    done
    for tool in "${tools[@]}"; do echo "cargo install --quiet --locked $tool"; done
}

install() {
    if ((${#packages[@]})); then
        export DEBIAN_FRONTEND=noninteractive
        # A fresh machine's own updates may hold the lock for a while.
        run apt-get -q -o DPkg::Lock::Timeout=300 update
        run apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends \
            "${packages[@]}"
    fi
    local step
    while read -r -u 3 -a step; do
        # Built apart from the project, whose own flags are not meant for tools.
        run env -u CARGO_TARGET_DIR -u RUSTFLAGS "${step[@]}"
    done 3< <(rust_steps)
}

# What to run where this script may not.
advise() {
    local as_root=''
    if ((EUID != 0)); then
        as_root='sudo '
        have sudo || as_root='(as root) '
    fi
    say "$1, so nothing was changed. Run"
    if ((${#packages[@]})); then
        if have apt-get; then
            printf '    %sapt-get update\n' "$as_root"
            printf '    %sapt-get install --no-install-recommends %s\n' "$as_root" "${packages[*]}"
        else
            printf '    your package manager, for what Debian calls %s\n' "${packages[*]}"
        fi
    fi
    rust_steps | sed 's/^/    /'
    say "in this directory, then make again."
    exit 1
} >&2

for what in "$@"; do need "$what"; done
((${#reasons[@]})) || exit 0
for reason in "${reasons[@]}"; do say "$reason"; done

((${#targets[@]} + ${#components[@]} + ${#nightly[@]} + ${#oldest[@]} == 0)) || have rustup ||
    fail "this Rust did not come with rustup, which adds them. Install them the way Rust was" \
        "installed, or use rustup: https://rustup.rs"
((EUID == 0)) || advise "This is not root"
have apt-get || advise "There is no apt-get here"
install
