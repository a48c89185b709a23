#!/usr/bin/env bash
# Changes the library in all small ways, one at a time, in a copy, and asks its tests whether they
# notice. Prints the share at the end.
#
#   tools/mutants.sh [ARGS...]   what of it: arguments of `cargo mutants` that choose, for example
#                                --file src/bits.rs, or --sharding round-robin --shard 0/10
#
# Round 0 weaves all mutants into one build, and asks each of the tests that come by it: the program
# in tools/mutants, which says how. What can't be woven, and what no test comes by (it may be a
# constant, which the compiler evaluates), cargo-mutants builds one by one and asks in rounds 1
# to 3, the fast tests first; each round is asked about what the one before has let through. No
# round boots anything. A line of the result file (RESULTS, by default target/mutants.txt) has a
# verdict and a mutant, with a tab between. The verdict is
#
#   caught N       by a test of round N
#   timeout N      the same: its tests did not end
#   missed N       all tests of round N passed; of a woven one, 3: no other test comes by it
#   unviable N     does not build, so says nothing, and is left out of the share
#
# What is asked already is not asked again: stop it at any time, and go on with the same command.
# The order is random, so what a round was asked by then is a fair sample. Delete lines to ask anew;
# they have line numbers, so a change of the library makes them stale. A mutant that survives is to
# be killed by a test, or explained in docs/mutants.md.
#
#   SAMPLE=300 SEED=7 tools/mutants.sh [ARGS...]   that many only, which the seed has chosen of those
#                                that are woven; and of the rounds 1 to 3 only what no test comes by
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/mutants/copy"
target=$(cd "$target" && pwd)
results=${RESULTS:-$target/mutants.txt}
explained=$PWD/docs/mutants.md
out=$target/mutants
touch "$results"
export CARGO_TARGET_DIR=$out/target
# Rust's own notion of "too long" is a clock, which a busy machine moves: this counts what a test
# itself uses. And one that allocates without end is not to take the machine with it.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='prlimit --cpu=60 --as=8000000000'
# What a test of a mutant before failed with is not what the tests have.
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=1

# A directory of its own, in which the changes are made in place: so each costs an incremental
# build. Fresh times, for what a stopped run may have left there.
git ls-files -z src tests docs examples benches qemu kernel-demo fuzz .cargo \
    Cargo.toml Cargo.lock README.md rust-toolchain.toml | xargs -0 cp --parents -t "$out/copy"

chosen=$(cargo mutants --list "$@")

# Mutants of those chosen whose line in the results matches: `verdicts 'caught|timeout'`.
verdicts() { awk -F '\t' -v want="^($1)" '$1 ~ want { print $2 }' "$results" | only "$chosen"; }
# Lines of standard input that are among those of $1, each once.
only() { sort -u | comm -12 - <(sort -u <<<"$1"); }
count() { grep -c . || true; }

# Takes the verdicts of a round out of what cargo-mutants has written, be it to its end or not.
collect() {
    local kind file
    for kind in caught missed timeout unviable; do
        file=$out/$1/mutants.out/$kind.txt
        [[ -f $file ]] && sed "s/^/$kind $1\t/" "$file" >>"$results"
    done
    rm -rf "$out/$1"
}

# Asks the tests of a round: its number, and after `--` arguments for the tests.
round() {
    local number=$1 ask asked=() args=()
    shift
    while (($#)) && [[ $1 != -- ]]; do args+=(--cargo-arg="$1") && shift; done
    ask=$(comm -23 <(sort -u <<<"$chosen") <(verdicts "caught|timeout|unviable|missed [$number-9]"))
    [[ -n $ask ]] || return 0
    echo "round $number: $(count <<<"$ask") mutants"
    # By their names, which are to be taken literally. The files too: cargo-mutants 27.1 asks for
    # each deleted field of a file, whatever its name.
    mapfile -t asked < <(sed 's/[][\.|$(){}?+*^]/\\&/g; s/.*/--re=^&$/' <<<"$ask"
        sed 's/:.*//; s/^/--file=/' <<<"$ask" | sort -u)
    rm -rf "${out:?}/$number" && mkdir -p "$out/$number"
    trap 'collect '"$number" EXIT
    # Status 2 and 3: some survived, or did not end.
    (cd "$out/copy" && cargo mutants --in-place --shuffle --baseline skip --build-timeout 600 \
        --timeout 900 --output "$out/$number" --colors never "${args[@]}" "${asked[@]}" "$@") ||
        (($? == 2 || $? == 3)) || exit 1
    trap - EXIT
    collect "$number"
}

tests() { printf -- '--test=%s ' "$@"; }

later="adapters adversarial corpus cpus grow hardened heap homes isolate low observe owners replay
    reserve sequences threads verify watermarks x86"

# A copy of its own: the other one is to stay as it is.
rm -rf "$out/woven" && cp -r "$out/copy" "$out/woven"
cargo mutants --list --json "$@" >"$out/list.json"
# shellcheck disable=SC2046,SC2086
env -u CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER CARGO_TARGET_DIR="$out/woven-target" \
    cargo run -q --locked --manifest-path tools/mutants/Cargo.toml --target-dir "$out/tool" -- \
    "$out/list.json" "$out/woven" "$results" --lib \
    $(tests errors memory_map misuse model pool runs $later)

# Of a sample, the rest of the script is about what has a verdict by now.
[[ -z ${SAMPLE:-} ]] || chosen=$(cut -f 2 "$results" | only "$chosen")

# Unit tests and counts of accesses; then the tests against a model; then all else that runs here.
# shellcheck disable=SC2046
{
    round 1 --lib -- -- --skip deaths:: --skip faults:: --skip nesting:: --skip schedules::
    round 2 $(tests errors memory_map misuse model pool runs)
    # shellcheck disable=SC2086
    round 3 --lib $(tests $later) -- -- --skip deaths:: --skip nesting:: --skip schedules::
}

caught=$(verdicts 'caught|timeout' | count)
all=$(verdicts 'caught|timeout|missed 3' | count)
echo "$caught of $all caught: $(awk "BEGIN { printf \"%.1f\", 100 * $caught / ($all ? $all : 1) }") %" \
    "($(verdicts caught\ 0 | count) woven, $(verdicts caught\ 1 | count) by round 1," \
    "$(verdicts caught\ 2 | count) by round 2, $(verdicts caught\ 3 | count) by round 3," \
    "$(verdicts timeout | count) did not end); $(verdicts unviable | count) more did not build"

# The explained ones are there without line numbers, as code in a table.
unexplained=0
while read -r mutant; do
    name=$(sed -E 's/^([^:]+):[0-9]+:[0-9]+: /\1: /' <<<"$mutant")
    if sed 's/\\|/|/g' "$explained" | grep -F -- "| \`$name\` |" >/dev/null; then
        echo "explained: $mutant"
    else
        echo "SURVIVED: $mutant" && unexplained=$((unexplained + 1))
    fi
done < <(comm -23 <(verdicts 'missed 3') <(verdicts 'caught|timeout'))
echo "survivors without a test or a reason: $unexplained"
((unexplained == 0))
