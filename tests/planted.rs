//! Tests of the tests: bugs are planted in the steps of the protocols, in a copy of the sources,
//! and the loom models must find it. A soak of hundreds of millions of operations passes most of
//! these; that is why the models exist.
//!
//! Each plant names the text that it replaces, which must occur exactly once: a change of the
//! sources that moves a protocol step makes this test fail until the plant follows it.
#![cfg(not(loom))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A deliberate bug.
struct Plant {
    name: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    /// The models that are asked, by a part of their names.
    models: &'static str,
}

/// Where a claim that has failed gives back what it took.
const UNDO: &str = "let _ = self.put_run(&step, NumberRange::trusted(run.start(), at));";

const PLANTS: &[Plant] = &[
    Plant {
        name: "retire without a second look",
        file: "tree/levels.rs",
        right: "if !leaf.is_empty(Ordering::Relaxed) {\n        announce_again(block);",
        wrong: "if false {\n        announce_again(block);",
        models: "hints",
    },
    Plant {
        name: "a block that is used up by a refill from crumbs, and not looked at again",
        file: "tree/levels.rs",
        right: "if !leaf.is_empty(Ordering::Relaxed) {\n        announce_again(block);",
        wrong: "if false {\n        announce_again(block);",
        models: "crumbs",
    },
    Plant {
        name: "crumbs taken from a block that is free as a whole, and may not be written",
        file: "tree/crumbs.rs",
        right: "return is_crumbs.then_some(",
        wrong: "return (is_crumbs || true).then_some(",
        models: "crumbs",
    },
    Plant {
        name: "crumbs taken by a load and a store",
        file: "tree/crumbs.rs",
        right: "let frames = take_all(leaf.word(word))?;",
        wrong: "let frames = leaf.word(word).load(Ordering::Acquire);\n        \
                leaf.word(word).store(0, Ordering::Release);",
        models: "crumbs",
    },
    Plant {
        name: "lower without a second look",
        file: "tree/levels.rs",
        right: "// ORDERING: behind the fence.\n    if !node.all(0, Ordering::Relaxed) {",
        wrong: "if false {",
        models: "hints",
    },
    Plant {
        name: "a flush that does not announce",
        file: "tree/free.rs",
        right: "if given.edge == Edge::FromEmpty {\n        announce(block);",
        wrong: "if false {\n        announce(block);",
        models: "words",
    },
    Plant {
        name: "a free past the cache that takes every case for the common one",
        file: "tree/free.rs",
        right: "let is_common = overlap == 0 && fill == Fill::Partial;",
        wrong: "let _ = fill;\n        let is_common = overlap == 0;",
        models: "words",
    },
    Plant {
        name: "a free past the cache to a word that was empty, without an announcement",
        file: "tree/free.rs",
        right: "edge == Edge::FromEmpty && hint_at(self.block(frame))",
        wrong: "edge == Edge::FromEmpty && false && hint_at(self.block(frame))",
        models: "words",
    },
    Plant {
        name: "a split that does not announce",
        file: "tree/levels.rs",
        right: "announce(block);\n    widen(block);\n    writer.add(Counter::Splits, 1);",
        wrong: "widen(block);\n    writer.add(Counter::Splits, 1);",
        models: "levels",
    },
    Plant {
        name: "an announcement that skips its read-modify-write when the bit reads set",
        file: "tree/levels.rs",
        right: "    // ORDERING: Release pairs with the Acquire of a retirer's `fetch_and`",
        wrong: "    if word.load(Ordering::Acquire) & mask != 0 {\n        return false;\n    }\n    \
                // ORDERING: Release pairs with the Acquire of a retirer's `fetch_and`",
        models: "hints",
    },
    Plant {
        name: "a block freed without raising the giant's hint",
        file: "tree/levels.rs",
        right: "if given.edge == Edge::FromEmpty {\n        raise(block.giant, Hint::Whole);",
        wrong: "if false {\n        raise(block.giant, Hint::Whole);",
        models: "hints",
    },
    Plant {
        name: "raise and lower without a fence",
        file: "sync.rs",
        right: "imp::fence(Ordering::SeqCst);",
        wrong: "",
        models: "hints",
    },
    Plant {
        name: "frames given with Relaxed",
        file: "node.rs",
        right: "word.fetch_or(mask, Ordering::AcqRel)",
        wrong: "word.fetch_or(mask, Ordering::Relaxed)",
        models: "words",
    },
    Plant {
        name: "frames taken with Relaxed",
        file: "node.rs",
        right: "let bits = word.load(Ordering::Acquire);\n        if bits == 0 {\n            \
                return None;\n        }\n        if exchange(word, bits, 0) {",
        wrong: "let bits = word.load(Ordering::Relaxed);\n        if bits == 0 {\n            \
                return None;\n        }\n        \
                if word.compare_exchange(bits, 0, Ordering::Relaxed).is_ok() {",
        models: "words",
    },
    Plant {
        name: "a load and a store in place of the compare-exchange",
        file: "node.rs",
        right: "word.compare_exchange(found, left, Ordering::AcqRel).is_ok()",
        wrong: "let same = word.load(Ordering::Acquire) == found;\n    \
                word.store(left, Ordering::Release);\n    same",
        models: "words",
    },
    Plant {
        name: "a leaf that is read before it is written",
        file: "tree/search.rs",
        right: "if !ready.is_set(block.index, Ordering::Acquire) {",
        wrong: "if false {",
        models: "two_first_splits",
    },
    Plant {
        name: "a giant's nodes that are read before they are written",
        file: "tree/search.rs",
        right: "    giant.written()\n",
        wrong: "    Some(giant.nodes())\n",
        models: "two_first_splits_of_the_same_giant",
    },
    Plant {
        name: "a giant that is ready before its nodes are written",
        file: "root.rs",
        right: "self.cluster.ready.fetch_or(self.mask, Ordering::Release);",
        wrong: "self.cluster.ready.fetch_or(self.mask, Ordering::Relaxed);",
        models: "two_first_splits_of_the_same_giant",
    },
    Plant {
        name: "a link that shows a part before it is whole",
        file: "sync.rs",
        right: "self.at.store(core::ptr::from_ref(part).cast_mut(), Ordering::Release);",
        wrong: "self.at.store(core::ptr::from_ref(part).cast_mut(), Ordering::Relaxed);",
        models: "what_a_link_leads_to_is_whole",
    },
    Plant {
        name: "out of memory after one look at the hints",
        file: "tree/search.rs",
        right: "for _ in 0..LOOKS {",
        wrong: "for _ in 0..0 * LOOKS {",
        models: "evidence",
    },
    Plant {
        name: "out of memory without evidence from the journals",
        file: "tree/search.rs",
        right: "if before.is_some() && before == standstill(self.journals, writer) {",
        wrong: "if before.is_some() || before == standstill(self.journals, writer) {",
        models: "evidence",
    },
    Plant {
        name: "a merge that gives up after a conflict",
        file: "tree/levels.rs",
        right: r"        writer.add(Counter::LostRaces, 1);
    }
}",
        wrong: r"        return false;
    }
}",
        models: "a_merge_that_meets_a_taker",
    },
    Plant {
        name: "a merge whose undo is not announced",
        file: "tree/levels.rs",
        right: "Err(_) => announce(),",
        wrong: "Err(_) => {}",
        models: "what_a_merge_gives_back",
    },
    Plant {
        name: "a failed claim that reports success",
        file: "tree/claim.rs",
        right: "            return Err(at);",
        wrong: "            return Ok(());",
        models: "of_two_claims_that_overlap",
    },
    Plant {
        name: "an undo that gives back one piece too few",
        file: "tree/claim.rs",
        right: UNDO,
        wrong: r"let start = run.start().get();
            let next = frames_of(Group::of(run.start()), start, at.get()).1;
            let next = FrameNumber::trusted(next);
            let _ = self.put_run(&step, NumberRange::trusted(next, at));",
        models: "a_claim_across_two_words",
    },
    Plant {
        name: "an undo that gives back one piece too many",
        file: "tree/claim.rs",
        right: UNDO,
        wrong: r"let behind = frames_of(Group::of(at), at.get(), run.end().get()).1;
            let behind = FrameNumber::trusted(behind);
            let _ = self.put_run(&step, NumberRange::trusted(run.start(), behind));",
        models: "of_two_claims_that_overlap",
    },
    Plant {
        name: "an undo that is not announced",
        file: "tree/claim.rs",
        right: UNDO,
        wrong: r"let mut back = run.start().get();
            while back < at.get() {
                let group = Group::of(FrameNumber::trusted(back));
                let Some(place) = self.directory.locate(group) else { break };
                let (frames, behind) = frames_of(group, back, at.get());
                if give(place.leaf, frames).fill == Fill::Full {
                    super::levels::merge_block(step.writer(), place.block());
                }
                back = behind;
            }",
        models: "a_claim_across_two_words",
    },
    Plant {
        name: "an undo that is not merged",
        file: "tree/claim.rs",
        right: UNDO,
        wrong: r"let mut back = run.start().get();
            while back < at.get() {
                let group = Group::of(FrameNumber::trusted(back));
                let Some(place) = self.directory.locate(group) else { break };
                let (frames, behind) = frames_of(group, back, at.get());
                let given = give(place.leaf, frames);
                if given.edge == crate::node::Edge::FromEmpty {
                    super::levels::announce(place.block());
                }
                back = behind;
            }
            drop(step);",
        models: "a_claim_that_is_undone_into",
    },
    Plant {
        name: "blocks given back without a look at their giant",
        file: "tree/claim.rs",
        right: r"if given.fill == Fill::Full {
                        merge_giant(step.writer(), block.giant);",
        wrong: r"if false {
                        merge_giant(step.writer(), block.giant);",
        models: "two_claims_that_split_a_giant",
    },
    Plant {
        name: "a claim without its step in the journal",
        file: "tree/claim.rs",
        right: r"        let step = writer.begin();
        let (mut at, end) = (run.start().get(), run.end().get());
        while at < end {
            if let Some(behind) = self.claim_piece(writer, at, end) {
                at = behind;
                continue;
            }
",
        wrong: r"        let (mut at, end) = (run.start().get(), run.end().get());
        while at < end {
            if let Some(behind) = self.claim_piece(writer, at, end) {
                at = behind;
                continue;
            }
            let step = writer.begin();
",
        models: "what_an_undone_claim",
    },
    Plant {
        name: "a claim that reads a leaf before it is written",
        file: "tree/claim.rs",
        right: "if !nodes.ready.is_set(block.index, Ordering::Acquire) {",
        wrong: "if false {",
        models: "two_claims_in_a_block",
    },
    Plant {
        name: "a claim that reads a giant's nodes before they are written",
        file: "tree/claim.rs",
        right: "let nodes = giant.written()?;",
        wrong: "let nodes = giant.nodes();",
        models: "two_claims_that_split_a_giant",
    },
    Plant {
        name: "a free that does not widen the bound on runs",
        file: "bounds.rs",
        right: "!row & (ANY << self.shift | ANY << self.shift >> BYTE) == 0",
        wrong: "row | self.shift as u64 | BYTE as u64 != 0",
        models: "longest",
    },
    Plant {
        name: "a free that does not widen the bound of the block below",
        file: "tree/longest.rs",
        right: "Some((below, further)) if further > 0 => {",
        wrong: "Some((below, further)) if further > BLOCK_FRAMES => {",
        models: "longest",
    },
    Plant {
        name: "a block given at once to a word that was empty, without a raise",
        file: "tree/blocks.rs",
        right: "let is_simple = given.edge == Edge::Within && given.fill == Fill::Partial;",
        wrong: "let is_simple = given.fill == Fill::Partial;",
        models: "blocks",
    },
    Plant {
        name: "a block given at once that completes its giant, without a merge",
        file: "tree/blocks.rs",
        right: "let is_simple = given.edge == Edge::Within && given.fill == Fill::Partial;",
        wrong: "let is_simple = given.edge == Edge::Within;",
        models: "blocks",
    },
    Plant {
        name: "a block taken at once that was never written",
        file: "tree/blocks.rs",
        right: "ready.is_set(index, Ordering::Relaxed)\n",
        wrong: "true\n",
        models: "blocks",
    },
    Plant {
        name: "a run near the last one, from a leaf before it is written",
        file: "tree/near.rs",
        right: "        && nodes.ready.is_set(index, Ordering::Acquire)\n",
        wrong: "",
        models: "a_run_near_the_last_one_in_a_block",
    },
    Plant {
        name: "a bound that is narrowed without a second look",
        file: "tree/longest.rs",
        right: "if longest_from(block) > found {",
        wrong: "if false {",
        models: "longest",
    },
    Plant {
        name: "a bound of a free that does not look at what is free above its word",
        file: "tree/longest.rs",
        right: "let above = if u64::from(end) < WORD_BITS {",
        wrong: "let above = if end > 0 {",
        models: "longest",
    },
    Plant {
        name: "a bound of a free that does not look at what is free below its word",
        file: "tree/longest.rs",
        right: "let below = if start > 0 {",
        wrong: "let below = if end > 0 {",
        models: "longest",
    },
    Plant {
        name: "a bound of a giant that is narrowed without a second look",
        file: "tree/giants.rs",
        right: "    if !is_within(giant, most) {\n        return bound.raise(ANY);",
        wrong: "    if most == ANY {\n        return bound.raise(ANY);",
        models: "longest",
    },
    Plant {
        name: "a bound of a giant that is narrowed without a fence",
        file: "tree/giants.rs",
        right: "    // Orders the second look (see `raise_giant`).\n    full_fence();\n",
        wrong: "",
        models: "longest",
    },
    Plant {
        name: "a bound of a giant that a free does not raise",
        file: "tree/longest.rs",
        right: "raise_giant(block.giant, if crosses_a_row { ANY } else { length.min(ANY) });",
        wrong: "let _ = crosses_a_row;",
        models: "longest",
    },
    Plant {
        name: "a bound of a giant whose rows are taken one by one",
        file: "tree/giants.rs",
        right: "if last + (bounds & ANY) > most {",
        wrong: "if last > ANY {",
        models: "longest",
    },
    Plant {
        name: "a bound of a giant's end that is narrowed without a second look",
        file: "tree/giants.rs",
        right: "if look(block) > found || bound_on(block) == ANY {",
        wrong: "if bound_on(block) == ANY {",
        models: "longest",
    },
    Plant {
        name: "a bound of a giant's end that a free does not raise",
        file: "tree/longest.rs",
        right: "goes_up = !crosses_a_row;",
        wrong: "goes_up = false;",
        models: "longest",
    },
    Plant {
        name: "a bound of a giant's begin that a free does not raise",
        file: "tree/longest.rs",
        right: "None if block.index == 0 => raise_begin(block.giant, length.min(ANY)),",
        wrong: "None if block.index == 0 => {}",
        models: "longest",
    },
    Plant {
        name: "a budget that is changed by a load and a store",
        file: "budget.rs",
        right: "self.count.word.compare_exchange(state, changed, Ordering::AcqRel).is_ok()",
        wrong: "let same = self.count.word.load(Ordering::Acquire) == state;\n        \
                self.count.word.store(changed, Ordering::Release);\n        same",
        models: "budget",
    },
    Plant {
        name: "a budget that grants more than is left",
        file: "budget.rs",
        right: "if self.rules.reserve == 0 { wanted } else { left.min(wanted) };",
        wrong: "wanted;",
        models: "budget",
    },
    Plant {
        name: "a frame taken before it is asked for",
        file: "budget.rs",
        right: "if credit < least { 0 } else { credit.min(most).cast_unsigned() }",
        wrong: "most.cast_unsigned()",
        models: "budget",
    },
    Plant {
        name: "a crossing that two CPUs tell",
        file: "budget.rs",
        right: "self.count.told.compare_exchange(told, number, Ordering::AcqRel).is_ok()",
        wrong: "{\n                self.count.told.store(number, Ordering::Release);\n                \
                true\n            }",
        models: "budget",
    },
    Plant {
        name: "a shared journal that two CPUs settle twice",
        file: "journal.rs",
        right: "            Err(_) => 0,\n",
        wrong: "            Err(_) => cleared.wrapping_sub(repaid).cast_signed(),\n",
        models: "budget",
    },
    Plant {
        name: "a free that looks at the bound without a fence",
        file: "tree/longest.rs",
        right: "    rmw_fence();\n    let bound = bound_of(block);",
        wrong: "    let bound = bound_of(block);",
        models: "longest",
    },
    Plant {
        name: "a range that is added without a look at those that came meanwhile",
        file: "ranges.rs",
        right: "if let Some(both) = self.overlap(range) {\n                return Err(both);",
        wrong: "if let Some(both) = None {\n                return Err(both);",
        models: "grow",
    },
    Plant {
        name: "a part that is published over another CPU's",
        file: "sync.rs",
        right: "match self.replace(None, part) {",
        wrong: "self.publish(part);\n        match Ok::<(), Option<&T>>(()) {",
        models: "grow",
    },
    Plant {
        name: "a section that is published unwritten, of which a part is managed",
        file: "directory.rs",
        right: "section.clear();",
        wrong: "",
        models: "grow",
    },
    Plant {
        name: "a giant that is published unwritten, of which a part is managed",
        file: "stock.rs",
        right: "giant.write_nodes();",
        wrong: "",
        models: "grow",
    },
    Plant {
        name: "a refill that does not look at what is isolated",
        file: "tree/isolate.rs",
        right: "if self.directory.isolations.is_empty() { Some(refill) } else { self.sift(writer, refill) }",
        wrong: "Some(refill)",
        models: "isolate",
    },
    Plant {
        name: "a block that is handed out as a whole, and isolated in part",
        file: "tree/isolate.rs",
        right: "self.directory.isolations.is_empty() || self.admits_all(writer, taken)",
        wrong: "let _ = Self::admits_all;\n        let _ = (writer, taken);\n        true",
        models: "isolate",
    },
    Plant {
        name: "frames set aside for an isolation that is left already",
        file: "tree/isolate.rs",
        right: "set_aside(part);\n            self.leave(place);",
        wrong: "self.leave(place);\n            set_aside(part);",
        models: "isolate::what_a_taker",
    },
    Plant {
        name: "a guest of an isolation that is over",
        file: "isolation.rs",
        right: "while state.is_like(seen) {",
        wrong: "while seen.phase() == Phase::InForce {",
        models: "isolate::what_a_taker",
    },
    Plant {
        name: "an isolation in force before it is known to be alone",
        file: "isolation.rs",
        right: "self.try_claim(range, Phase::Named)",
        wrong: "self.try_claim(range, Phase::InForce)",
        models: "isolate::a_refused",
    },
    Plant {
        name: "an isolation that does not look for others that begin at once",
        file: "isolation.rs",
        right: "match overlap(Some(at)) {",
        wrong: "match None::<(Refused, Phase)> {",
        models: "isolate::of_two",
    },
    Plant {
        name: "a flush that does not ask what is gone",
        file: "slot/exchange.rs",
        right: "frames & place.block().gone(place.group.word())",
        wrong: "let _ = place;\n    frames & 0",
        models: "isolate::what_is_retired",
    },
    Plant {
        name: "a block that is said to be full while somebody retires some of it",
        file: "directory.rs",
        right: "        if self.is_filled(block) {\n            say();",
        wrong: "        {\n            say();",
        models: "isolate::what_is_retired_is_refused",
    },
];

#[test]
fn every_planted_bug_is_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let garden = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("planted");
    // `PLANT=` and a part of a name asks for some of them only.
    let wanted = std::env::var("PLANT").unwrap_or_default();
    let plants = PLANTS.iter().filter(|plant| plant.name.contains(&wanted));
    let missed: Vec<_> =
        plants.filter(|plant| !is_found(root, &garden, plant)).map(|p| p.name).collect();
    assert!(missed.is_empty(), "no model finds: {missed:#?}");
}

/// In a moment, and all at once.
#[test]
fn every_plant_has_its_place() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let places = |plant: &Plant| {
        let text = fs::read_to_string(source.join(plant.file)).expect("a source file");
        text.matches(plant.right).count()
    };
    let wrong: Vec<_> = PLANTS.iter().filter(|plant| places(plant) != 1).map(|p| p.name).collect();
    assert!(wrong.is_empty(), "what they replace is not there, or more than once: {wrong:#?}");
}

#[test]
fn without_a_plant_the_models_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let garden = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("unplanted");
    lay_out(root, &garden, &[]);
    let (passed, output) = run_models(&garden, "words::two_");
    assert!(passed, "the copy itself does not pass:\n{output}");
    assert!(output.contains("test result: ok. 4 passed"), "no model ran:\n{output}");
}

/// Plants one bug in a copy of the sources and asks the models.
fn is_found(root: &Path, garden: &Path, plant: &Plant) -> bool {
    let path = root.join("src").join(plant.file);
    let source = fs::read_to_string(&path).expect("a source file");
    let count = source.matches(plant.right).count();
    assert_eq!(count, 1, "\"{}\" must replace one place in {}", plant.name, plant.file);
    lay_out(root, garden, &[(plant.file, source.replace(plant.right, plant.wrong))]);
    let start = Instant::now();
    let (passed, output) = run_models(garden, plant.models);
    assert!(!output.contains("could not compile"), "\"{}\":\n{output}", plant.name);
    let seconds = start.elapsed().as_secs_f32();
    println!("{}: {} in {seconds:.1} s", plant.name, if passed { "MISSED" } else { "found" });
    !passed
}

/// A copy of the package, with some files replaced.
fn lay_out(root: &Path, garden: &Path, replaced: &[(&str, String)]) {
    fs::create_dir_all(garden).expect("a folder");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    fs::write(garden.join("Cargo.toml"), alone(&manifest)).expect("a copy");
    for name in ["Cargo.lock", "README.md"] {
        let _ = fs::copy(root.join(name), garden.join(name));
    }
    copy(&root.join("src"), &garden.join("src"), Path::new(""), replaced);
}

/// The manifest of the package without its workspace, targets and host-only dependencies.
fn alone(manifest: &str) -> String {
    let kept = |section: &&str| {
        let head = section.lines().next().unwrap_or_default();
        !["[workspace]", "[[bench]]", "[lints", "[target.'cfg(not(loom))'.dev"]
            .iter()
            .any(|dropped| head.starts_with(dropped))
    };
    let sections: Vec<_> = manifest.split("\n\n").filter(kept).collect();
    let mut text = sections.join("\n\n");
    text.insert_str(0, "[workspace]\n\n");
    text
}

fn copy(from: &Path, to: &Path, inside: &Path, replaced: &[(&str, String)]) {
    fs::create_dir_all(to).expect("a folder");
    // What was moved away since the last time is not to be compiled.
    for entry in fs::read_dir(to).expect("a folder").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if from.join(entry.file_name()).exists() {
            continue;
        }
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            .expect("an old copy");
    }
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name();
        let (path, inside) = (to.join(&name), inside.join(&name));
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &path, &inside, replaced);
            continue;
        }
        let text = match replaced.iter().find(|(file, _)| Path::new(file) == inside) {
            Some((_, text)) => text.clone(),
            None => fs::read_to_string(entry.path()).expect("a source file"),
        };
        // What has not changed keeps its time, so that cargo builds no more than it must.
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            fs::write(path, text).expect("a copy");
        }
    }
}

/// Runs the models whose names contain `filter`; whether all passed, and what was printed.
fn run_models(garden: &Path, filter: &str) -> (bool, String) {
    // Of its own: two copies that build into one folder at once run each other's models.
    let target = garden.join("target");
    let output = Command::new(env!("CARGO"))
        .args(["test", "--lib", "--profile", "models", "--", filter])
        .current_dir(garden)
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTFLAGS", "--cfg loom")
        .env("RUST_BACKTRACE", "0")
        .env_remove("LOOM_MAX_PREEMPTIONS")
        .output()
        .expect("cargo runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
