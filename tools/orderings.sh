#!/usr/bin/env bash
# Weakens each ordering of src/ and leaves out each fence, one at a time, in a copy, and asks the
# loom models whether they notice. Unchanged they must all pass: see `make test-loom` first.
#
#   tools/orderings.sh [REGEX]    only sites whose `file:line: code: what is done` matches
#
# The copy is built once: there each of these places asks, as it runs, whether it is the one to be
# weak (the variable WEAKEN names it). So it can also be seen which places a model comes to while
# more than one of its threads is there, and only models that come to a place are asked about it,
# the fastest first, each with the bound that `make test-loom` has, until one fails.
#
# FASTEST=N asks only models that take so many milliseconds at most: a first pass, in a new RESULTS.
# TOGETHER=1 weakens all sites that match at once, and asks for one verdict: of two that cover for
# each other neither is noticed alone. MODELS=REGEX asks only models whose names match.
#
# A line of the result file (RESULTS, by default target/orderings.txt) has, with tabs between: file,
# function and code, what was done to it, the verdict, seconds. The verdict is
#
#   noticed by MODEL     the first that failed
#   not noticed by N     none of the N models failed that come there
#   stopped in MODEL     it ended otherwise than a test that fails: look yourself
#   timeout in MODELS    these did not end within LIMIT seconds (default 300), all others passed
#
# What stands there with a verdict is not asked again: stop it at any time, and go on with the same
# command. Delete a line to ask anew; a change elsewhere in src/ does not do that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

only=${1:-.}
limit=${LIMIT:-300}
target=${CARGO_TARGET_DIR:-target}
results=${RESULTS:-$target/orderings.txt}
mkdir -p "$target/orderings" "$(dirname "$results")"
touch "$results"
copy=$(cd "$target/orderings" && pwd)/copy
fresh=$copy.new
rm -rf "$fresh"
mkdir "$fresh"
export LOOM_QUICK=1
tab=$'\t'

# The package alone: without its workspace, its lints and what only host tests need.
{
    printf '[workspace]\n\n[workspace.package]\n'
    sed -n '/^\[workspace.package\]/,/^$/{/^[^[]/p}' Cargo.toml
    printf '\n'
    awk 'BEGIN { RS = ""; ORS = "\n\n" }
        !/^\[workspace/ && !/^\[lints/ && !/^\[target.*dev-dependencies/' Cargo.toml
} >"$fresh/Cargo.toml"
cp Cargo.lock README.md "$fresh"
cp -r src docs "$fresh"

# Sites and what each may be weakened to, as fields with tabs between: its number, what WEAKEN says
# then, file, line, function, code, what is done. And writes the copy, where each asks.
sites() {
    find src -name '*.rs' -not -path 'src/models/*' -print0 | sort -z | xargs -0 awk -v fresh="$fresh" '
    FNR == 1 { tests = 0; of = "-"; split("", seen) }
    function put(line) { print line >(fresh "/" FILENAME) }
    # Unit tests stand at the end of a file.
    /^mod tests/ { tests = 1 }
    tests || /^ *\/\// { put($0); next }
    match($0, /fn [a-z_]+/) { of = substr($0, RSTART + 3, RLENGTH - 3) }
    function site(to, what) {
        printf "%d\t%d:%s\t%s\t%d\t%s\t%s\t%s%s\n", place, place, to, FILENAME, FNR, of, code, what,
            (nth > 1 ? " (no. " nth ")" : "")
    }
    {
        code = $0; gsub(/^ +| +$/, "", code)
        # The same code twice in a function: told apart.
        times = ++seen[of, code]
        if (times > 1) code = code " (" times ")"
        nth = 1; line = $0
        if (match($0, /^ *(full|rmw)_fence\(\);/)) {
            place++; site("left", "left out")
            fence = substr(code, 1, index(code, "(") - 1)
            line = "crate::weak::stays(" place ").then(" fence ");"
        }
        rest = line; line = ""; split("", count)
        while (match(rest, /Ordering::(AcqRel|Acquire|Release)|fence\(Ordering::SeqCst/)) {
            found = substr(rest, RSTART, RLENGTH); before = substr(rest, 1, RSTART - 1)
            rest = substr(rest, RSTART + RLENGTH)
            if (found ~ /^fence/) { found = "Ordering::SeqCst"; before = before "fence(" }
            from = substr(found, 11); nth = ++count[from]
            if (from == "SeqCst" && of != "full_fence") { line = line before found; continue }
            place++
            if (from == "AcqRel") {
                site("Acquire", "AcqRel to Acquire"); site("Release", "AcqRel to Release")
            } else if (from == "SeqCst") site("AcqRel", "SeqCst to AcqRel")
            else site("Relaxed", from " to Relaxed")
            line = line before "crate::weak::ened(" place ", " found ")"
        }
        put(line rest)
    }'
}

# What the places of the copy ask; and what tells which of them a model comes to (the variable
# REACHED names the file), between the start of its first thread and its look at what is at rest.
weak() {
    cat >"$fresh/src/weak.rs" <<'RUST'
extern crate std;

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering as Std};
use std::{env, fs::File, string::String, vec::Vec};

use crate::sync::Ordering;

static WEAK: OnceLock<Vec<(usize, String)>> = OnceLock::new();
static IS_RACE: AtomicBool = AtomicBool::new(false);
static REACHED: [AtomicBool; 1000] = [const { AtomicBool::new(false) }; 1000];

pub fn race(is_race: bool) {
    IS_RACE.store(is_race, Std::Relaxed);
}

fn weakened(place: usize) -> Option<&'static str> {
    if IS_RACE.load(Std::Relaxed) && !REACHED[place].swap(true, Std::Relaxed) {
        if let Ok(name) = env::var("REACHED") {
            let file = File::options().append(true).create(true).open(name);
            std::writeln!(file.expect("a file"), "{place}").expect("written");
        }
    }
    let weak = WEAK.get_or_init(|| {
        let text = env::var("WEAKEN").unwrap_or_default();
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once(':'));
        pairs.map(|(place, to)| (place.parse().expect("a number"), to.into())).collect()
    });
    weak.iter().find(|(number, _)| *number == place).map(|(_, to)| to.as_str())
}

pub fn stays(place: usize) -> bool {
    weakened(place).is_none()
}

pub fn ened(place: usize, strong: Ordering) -> Ordering {
    match weakened(place) {
        None => strong,
        Some("Acquire") => Ordering::Acquire,
        Some("Release") => Ordering::Release,
        Some("AcqRel") => Ordering::AcqRel,
        Some(_) => Ordering::Relaxed,
    }
}
RUST
    echo 'mod weak;' >>"$fresh/src/lib.rs"
    local models=$fresh/src/models/mod.rs
    sed -i -e 's/^ *loom::thread::spawn(work)/crate::weak::race(true); &/' \
        -e 's/^ *SEEN.set((SEEN.get().0 + 1, 1));/crate::weak::race(false); &/' \
        -e 's/^    pub fn check(&self, free: u64) {/& crate::weak::race(false);/' "$models"
    [[ $(grep -c crate::weak "$models") == 3 ]]
}

# Builds the models of the copy and prints where they are.
build() {
    CARGO_TARGET_DIR=$copy.target RUSTFLAGS='--cfg loom' cargo test --manifest-path "$copy/Cargo.toml" \
        --quiet --lib --profile models --no-run --message-format=json 2>"$copy.errors" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

# What each model comes to, unchanged: a file for each, named as the model, with the milliseconds
# that it took, and then the places.
reach() {
    local model began reached
    mkdir -p "$copy.reached"
    "$binary" --list models:: | sed -n 's/^models::\(.*\): test$/\1/p' |
        grep -E "${MODELS:-.}" | while read -r model; do
        reached=$copy.reached/$model
        [[ ! -s $reached || $binary -nt $reached ]] || continue
        echo "unchanged: $model" >&2
        began=$(date +%s%3N)
        rm -f "$reached.new"
        REACHED=$reached.new timeout "$limit" "$binary" --exact "models::$model" \
            >"$copy.output" 2>&1 </dev/null || [[ $? == 124 ]] || { cat "$copy.output" && exit 1; } >&2
        touch "$reached.new"
        { echo "$(($(date +%s%3N) - began)) ms" && sort -n "$reached.new"; } >"$reached"
        rm "$reached.new"
    done
}

# The models that come to one of these places, the fastest first.
models_at() {
    printf '%s\n' "$@" | grep -lxF -f - "$copy.reached"/* | while read -r file; do
        echo "$(head -1 "$file") ${file##*/}"
    done | sort -n | awk -v most="${FASTEST:-1e9}" -v models="${MODELS:-.}" \
        '$1 <= most && $3 ~ models { print $3 }'
}

# Asks the models that come to these places: the verdict. WEAKEN says what is done there.
verdict() {
    local model status late= asked=0
    for model in $(models_at "$@"); do
        status=0
        timeout "$limit" "$binary" --exact "models::$model" >"$copy.output" 2>&1 || status=$?
        case $status in
        0) ;;
        # That says nothing of the ordering: the machine is slow, or the model has no end now.
        124) late+=" $model" ;;
        101) echo "noticed by $model" && return ;;
        *) echo "stopped in $model: status $status" && return ;;
        esac
        asked=$((asked + 1))
    done
    [[ -n $late ]] && echo "timeout in$late" || echo "not noticed by $asked"
}

sites >"$fresh/sites"
weak
# What has not changed keeps its time, so that it is not built anew.
diff -rq "$fresh" "$copy" >/dev/null 2>&1 || { rm -rf "$copy" && cp -r "$fresh" "$copy"; }
binary=$(build) || true
[[ -n $binary ]] || { cat "$copy.errors" && exit 1; } >&2
reach
matching=$(awk -F"$tab" -v only="$only" '$3 ":" $4 ": " $6 ": " $7 ~ only' "$copy/sites")

if [[ -n ${TOGETHER:-} ]]; then
    cut -f3,5-7 <<<"$matching"
    # shellcheck disable=SC2046
    WEAKEN=$(cut -f2 <<<"$matching" | tr '\n' ' ') verdict $(cut -f1 <<<"$matching")
    exit
fi
while IFS=$tab read -r place weaken file _ of code what; do
    said="$file$tab$of$tab$code$tab$what"
    ! grep -qF -- "$said$tab" "$results" || continue
    began=$SECONDS
    found=$(WEAKEN=$weaken verdict "$place" </dev/null)
    echo "$said$tab$found$tab$((SECONDS - began)) s" | tee -a "$results"
done <<<"$matching"
