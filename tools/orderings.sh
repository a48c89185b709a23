#!/usr/bin/env bash
# Weakens each ordering of src/ and leaves out each fence, one at a time, in a copy, and asks the
# loom models whether they notice. Unchanged they must all pass: see `make test-loom` first.
#
#   tools/orderings.sh [REGEX]    only sites whose `file:line: code` matches
#
# A line of the result file (RESULTS, by default target/orderings.txt) has, with tabs between: file,
# function and code, what was done to it, the verdict, seconds. The verdict is
#
#   noticed by MODEL     the first that failed
#   not noticed          all models passed; those of MODULES, if that is set: then it names them
#   timeout in MODULES   some did not end within LIMIT seconds (default 300), all others passed
#   stopped in MODULE    the process ended without saying which model failed: look yourself
#   does not build       so says nothing
#
# `LOOM_AT_MOST=1 LOOM_QUICK=1` explores no interleaving with more than one preemption: a first pass,
# half a minute for each. What that does not notice can be asked again without, in another RESULTS.
#
# What stands there with a verdict is not asked again: stop it at any time, and go on with the same
# command. Delete a line to ask anew; a change elsewhere in src/ does not do that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

only=${1:-.}
limit=${LIMIT:-300}
target=${CARGO_TARGET_DIR:-target}
# As in src/models/.
modules=${MODULES:-}
results=${RESULTS:-$target/orderings.txt}
mkdir -p "$target/orderings" "$(dirname "$results")"
touch "$results"
copy=$(cd "$target/orderings" && pwd)

# The package alone: without its workspace, its lints and what only host tests need.
{
    printf '[workspace]\n\n[workspace.package]\n'
    sed -n '/^\[workspace.package\]/,/^$/{/^[^[]/p}' Cargo.toml
    printf '\n'
    awk 'BEGIN { RS = ""; ORS = "\n\n" }
        !/^\[workspace/ && !/^\[lints/ && !/^\[target.*dev-dependencies/' Cargo.toml
} >"$copy/Cargo.toml"
cp Cargo.lock README.md "$copy"
rm -rf "$copy/src"
cp -r src docs "$copy"

# Sites and what each may be weakened to, as fields with tabs between:
# file, line, function, code, which of its kind in the line, from, to.
sites() {
    find src -name '*.rs' -not -path 'src/models/*' -print0 | sort -z | xargs -0 awk '
    FNR == 1 { tests = 0; of = "-"; split("", seen) }
    # Unit tests stand at the end of a file.
    /^mod tests/ { tests = 1 }
    tests || /^ *\/\// { next }
    match($0, /fn [a-z_]+/) { of = substr($0, RSTART + 3, RLENGTH - 3) }
    function site(from, to) {
        printf "%s\t%d\t%s\t%s\t%d\t%s\t%s\n", FILENAME, FNR, of, code, nth, from, to
    }
    {
        code = $0; gsub(/^ +| +$/, "", code)
        # The same code twice in a function: told apart.
        times = ++seen[of, code]
        if (times > 1) code = code " (" times ")"
        nth = 1
        if ($0 ~ /^ *(full|rmw)_fence\(\);/) site("[a-z]*_fence();", "")
        if ($0 ~ /imp::fence\(Ordering::SeqCst\)/) site("SeqCst", "AcqRel")
        rest = $0; split("", count)
        while (match(rest, /Ordering::(AcqRel|Acquire|Release)/)) {
            from = substr(rest, RSTART, RLENGTH); nth = ++count[from]
            rest = substr(rest, RSTART + RLENGTH)
            if (from == "Ordering::AcqRel") {
                site(from, "Ordering::Acquire"); site(from, "Ordering::Release")
            } else site(from, "Ordering::Relaxed")
        }
    }'
}

# Builds the models of the copy and prints where they are.
build() {
    CARGO_TARGET_DIR=$copy/target RUSTFLAGS='--cfg loom' cargo test --manifest-path "$copy/Cargo.toml" \
        --quiet --lib --profile models --no-run --message-format=json 2>"$copy/errors" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

# Modules of models: those that know the file best first.
modules_for() {
    local first= all='crumbs hints words blocks longest budget levels evidence grow isolate runs'
    [[ -z $modules ]] || { tr ' ' '\n' <<<"$modules" && return; }
    case $1 in
    */budget.rs) first=budget ;;
    */journal.rs) first=evidence ;;
    */longest.rs | */bounds.rs | */giants.rs | */walk.rs) first=longest ;;
    */crumbs.rs | */home.rs) first=crumbs ;;
    */runs.rs | */claim.rs) first=runs ;;
    */isolate.rs | */isolation.rs) first=isolate ;;
    */grow.rs | */directory.rs) first=grow ;;
    esac
    printf '%s\n' $first $all | awk '!seen[$0]++'
}

# Asks the models of a module: prints the first that fails, without waiting for the others, and
# ends as they do; with 124 if that is not within the limit.
ask() {
    local line asked
    exec {lines}< <(exec timeout "$limit" "$1" "models::$2::" 2>/dev/null)
    asked=$!
    while read -r line <&"$lines"; do
        [[ $line =~ ^test\ models::(.*)\ \.\.\.\ FAILED$ ]] || continue
        echo "${BASH_REMATCH[1]}"
        kill "$asked" || true
    done
    wait "$asked"
}

# Asks all models: the verdict.
verdict() {
    local models module failed status late=
    models=$(build) || true
    [[ -n $models ]] || { echo 'does not build' && return; }
    for module in $(modules_for "$1"); do
        status=0
        failed=$(ask "$models" "$module" | head -1) || status=$?
        if [[ -n $failed ]]; then
            echo "noticed by $failed"
            return
        fi
        case $status in
        0) ;;
        # That says nothing of the ordering: the machine is slow, or the model has no end now.
        124) late+=" $module" ;;
        *) echo "stopped in $module: status $status" && return ;;
        esac
    done
    if [[ -n $late ]]; then
        echo "timeout in$late${modules:+, asked: $modules}"
    else
        echo "not noticed${modules:+ by $modules}"
    fi
}

# What is not weakened must build, or nothing would.
[[ -n $(build) ]] || { cat "$copy/errors" && exit 1; } >&2

while IFS=$'\t' read -r file line of code nth from to; do
    grep -qE -- "$only" <<<"$file:$line: $code" || continue
    what="${from#Ordering::} to ${to#Ordering::}"
    ((nth == 1)) || what+=" (no. $nth)"
    [[ -n $to ]] || what='left out'
    said="$file"$'\t'"$of"$'\t'"$code"$'\t'"$what"
    grep -qF -- "$said"$'\t' "$results" && continue
    began=$SECONDS
    sed -i "${line}s/$from/$to/$nth" "$copy/$file"
    if cmp -s "$file" "$copy/$file"; then
        echo "$said: nothing was changed there" >&2
        exit 1
    fi
    found=$(verdict "$file" </dev/null)
    cp "$file" "$copy/$file"
    echo "$said"$'\t'"$found"$'\t'"$((SECONDS - began)) s" | tee -a "$results"
done < <(sites)
