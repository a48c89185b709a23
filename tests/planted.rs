//! Tests of the tests: bugs are planted in the steps of the protocols, in a copy of the sources,
//! and the loom models must find it. A soak of hundreds of millions of operations passes most of
//! these; that is why the models exist. All bugs are in one build, which runs with one of them at a
//! time (`choice`): built one by one they took five minutes, and now ten seconds.
//!
//! Each plant names the text that it replaces, which must occur exactly once: a change of the
//! sources that moves a protocol step makes this test fail until the plant follows it.
#![cfg(not(loom))]

#[path = "planted/choice.rs"]
mod choice;
#[path = "planted/copy.rs"]
mod copy;
#[path = "planted/page.rs"]
mod page;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{env, fs, thread};

use Verdict::{Failed, Passed};
use copy::Copy;

/// A deliberate bug.
struct Plant {
    name: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    /// The model that is asked.
    model: &'static str,
}

/// Where a claim that has failed gives back what it took.
const UNDO: &str = "let _ = self.put_run(&step, NumberRange::trusted(run.start(), at));";

const PLANTS: &[Plant] = &[
    Plant {
        name: "retire without a second look",
        file: "tree/levels.rs",
        right: "if !leaf.is_empty(Ordering::Relaxed) {\n        announce_again(block);",
        wrong: "if false {\n        announce_again(block);",
        model: "hints::a_stale_hint_of_one_giant_does_not_hide_the_other",
    },
    Plant {
        name: "a block that is used up by a refill from crumbs, and not looked at again",
        file: "tree/levels.rs",
        right: "if !leaf.is_empty(Ordering::Relaxed) {\n        announce_again(block);",
        wrong: "if false {\n        announce_again(block);",
        model: "crumbs::a_block_is_retired_while_others_free_there",
    },
    Plant {
        name: "crumbs taken from a block that is free as a whole, and may not be written",
        file: "tree/crumbs.rs",
        right: "is_crumbs.then_some(block)",
        wrong: "(is_crumbs || true).then_some(block)",
        model: "crumbs::crumbs_of_a_block_that_another_cpu_splits",
    },
    Plant {
        name: "crumbs taken by a load and a store",
        file: "tree/crumbs.rs",
        right: "let frames = take_all(leaf.word(word))?;",
        wrong: "let frames = leaf.word(word).load(Ordering::Acquire);\n        \
                leaf.word(word).store(0, Ordering::Release);",
        model: "crumbs::a_block_is_retired_while_others_free_there",
    },
    Plant {
        name: "lower without a second look",
        file: "tree/levels.rs",
        right: "// ORDERING: behind the fence.\n    if !node.all(0, Ordering::Relaxed) {",
        wrong: "if false {",
        model: "hints::a_block_freed_while_the_giants_whole_hint_is_lowered",
    },
    Plant {
        name: "a flush that does not announce",
        file: "tree/free.rs",
        right: "if given.edge == Edge::FromEmpty {\n        announce(block);",
        wrong: "if false {\n        announce(block);",
        model: "words::a_refill_against_a_flush_of_the_same_word",
    },
    Plant {
        name: "a free past the cache that takes every case for the common one",
        file: "tree/free.rs",
        right: "let is_common = overlap == 0 && fill == Fill::Partial;",
        wrong: "let _ = fill;\n        let is_common = overlap == 0;",
        model: "words::two_frees_past_the_caches_complete_one_word_and_its_block",
    },
    Plant {
        name: "a free past the cache to a word that was empty, without an announcement",
        file: "tree/free.rs",
        right: "edge == Edge::FromEmpty && hint_at(self.block(frame))",
        wrong: "edge == Edge::FromEmpty && false && hint_at(self.block(frame))",
        model: "words::a_free_past_the_caches_announces_what_a_search_retires",
    },
    Plant {
        name: "a split that does not announce",
        file: "tree/levels.rs",
        right: "announce(block);\n    widen(block);\n    writer.add(Counter::Splits, 1);",
        wrong: "widen(block);\n    writer.add(Counter::Splits, 1);",
        model: "levels::a_block_claimed_whole_against_the_free_that_completes_it",
    },
    Plant {
        name: "an announcement that skips its read-modify-write when the bit reads set",
        file: "tree/levels.rs",
        right: "    // ORDERING: Release pairs with the Acquire of a retirer's `fetch_and`",
        wrong: "    if word.load(Ordering::Acquire) & mask != 0 {\n        return false;\n    }\n    \
                // ORDERING: Release pairs with the Acquire of a retirer's `fetch_and`",
        model: "hints::a_stale_hint_of_one_giant_does_not_hide_the_other",
    },
    Plant {
        name: "a block freed without raising the giant's hint",
        file: "tree/levels.rs",
        right: "if given.edge == Edge::FromEmpty {\n        raise(block.giant, Hint::Whole);",
        wrong: "if false {\n        raise(block.giant, Hint::Whole);",
        model: "hints::a_block_freed_while_the_giants_whole_hint_is_lowered",
    },
    Plant {
        name: "raise and lower without a fence",
        file: "sync.rs",
        right: "imp::fence(Ordering::SeqCst);",
        wrong: "",
        model: "hints::a_block_freed_while_the_giants_whole_hint_is_lowered",
    },
    Plant {
        name: "frames given with Relaxed",
        file: "node.rs",
        right: "word.fetch_or(mask, Ordering::AcqRel)",
        wrong: "word.fetch_or(mask, Ordering::Relaxed)",
        model: "words::contents_go_with_the_bits_of_a_word",
    },
    Plant {
        name: "frames taken with Relaxed",
        file: "node.rs",
        right: "let bits = word.load(Ordering::Acquire);\n        if bits == 0 {\n            \
                return None;\n        }\n        if exchange(word, bits, 0) {",
        wrong: "let bits = word.load(Ordering::Relaxed);\n        if bits == 0 {\n            \
                return None;\n        }\n        \
                if word.compare_exchange(bits, 0, Ordering::Relaxed).is_ok() {",
        model: "words::contents_go_with_the_bits_of_a_word",
    },
    Plant {
        name: "a load and a store in place of the compare-exchange",
        file: "node.rs",
        right: "word.compare_exchange(found, left, Ordering::AcqRel).is_ok()",
        wrong: "let same = word.load(Ordering::Acquire) == found;\n    \
                word.store(left, Ordering::Release);\n    same",
        model: "words::two_refills_share_nothing_and_miss_nothing",
    },
    Plant {
        name: "a leaf that is read before it is written",
        file: "tree/search.rs",
        right: "if !ready.is_set(block.index, Ordering::Acquire) {",
        wrong: "if false {",
        model: "levels::two_first_splits_of_the_same_blocks",
    },
    Plant {
        name: "a giant's nodes that are read before they are written",
        file: "tree/search.rs",
        right: "    giant.written()\n",
        wrong: "    Some(giant.nodes())\n",
        model: "levels::two_first_splits_of_the_same_giant",
    },
    Plant {
        name: "a giant that is ready before its nodes are written",
        file: "root.rs",
        right: "self.cluster.ready.fetch_or(self.mask, Ordering::Release);",
        wrong: "self.cluster.ready.fetch_or(self.mask, Ordering::Relaxed);",
        model: "levels::two_first_splits_of_the_same_giant",
    },
    Plant {
        name: "a link that shows a part before it is whole",
        file: "sync.rs",
        right: "self.at.store(core::ptr::from_ref(part).cast_mut(), Ordering::Release);",
        wrong: "self.at.store(core::ptr::from_ref(part).cast_mut(), Ordering::Relaxed);",
        model: "words::what_a_link_leads_to_is_whole",
    },
    Plant {
        name: "out of memory after one look at the hints",
        file: "tree/search.rs",
        right: "for _ in 0..LOOKS {",
        wrong: "for _ in 0..0 * LOOKS {",
        model: "evidence::a_merge_hides_nothing",
    },
    Plant {
        name: "out of memory without evidence from the journals",
        file: "tree/search.rs",
        right: "if before.is_some() && before == standstill(self.journals, writer) {",
        wrong: "if before.is_some() || before == standstill(self.journals, writer) {",
        model: "evidence::a_split_hides_nothing",
    },
    Plant {
        name: "a merge that gives up after a conflict",
        file: "tree/levels.rs",
        right: "            Err(_) => announce(),\n        }\n        writer.add(Counter::LostRaces, 1);",
        wrong: "            Err(_) => announce(),\n        }\n        return false;",
        model: "levels::a_merge_that_meets_a_taker_is_tried_again",
    },
    Plant {
        name: "a merge whose undo is not announced",
        file: "tree/levels.rs",
        right: "Err(_) => announce(),",
        wrong: "Err(_) => {}",
        model: "levels::what_a_merge_gives_back_is_announced",
    },
    Plant {
        name: "a failed claim that reports success",
        file: "tree/claim.rs",
        right: "            return Err(at);",
        wrong: "            return Ok(());",
        model: "runs::of_two_claims_that_overlap_one_gets_through",
    },
    Plant {
        name: "an undo that gives back one piece too few",
        file: "tree/claim.rs",
        right: UNDO,
        wrong: r"let start = run.start().get();
            let next = frames_of(Group::of(run.start()), start, at.get()).1;
            let next = FrameNumber::trusted(next);
            let _ = self.put_run(&step, NumberRange::trusted(next, at));",
        model: "runs::a_claim_across_two_words_against_refills_of_both",
    },
    Plant {
        name: "an undo that gives back one piece too many",
        file: "tree/claim.rs",
        right: UNDO,
        wrong: r"let behind = frames_of(Group::of(at), at.get(), run.end().get()).1;
            let behind = FrameNumber::trusted(behind);
            let _ = self.put_run(&step, NumberRange::trusted(run.start(), behind));",
        model: "runs::of_two_claims_that_overlap_one_gets_through",
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
        model: "runs::a_claim_across_two_words_against_refills_of_both",
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
        model: "runs::a_claim_that_is_undone_into_a_leaf_that_a_free_completes",
    },
    Plant {
        name: "blocks given back without a look at their giant",
        file: "tree/claim.rs",
        right: r"if given.fill == Fill::Full {
                        merge_giant(step.writer(), block.giant);",
        wrong: r"if false {
                        merge_giant(step.writer(), block.giant);",
        model: "runs::two_claims_that_split_a_giant",
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
        model: "runs::what_an_undone_claim_gave_back_is_found",
    },
    Plant {
        name: "a claim that reads a leaf before it is written",
        file: "tree/claim.rs",
        right: "if !nodes.ready.is_set(block.index, Ordering::Acquire) {",
        wrong: "if false {",
        model: "runs::two_claims_in_a_block_that_was_never_split",
    },
    Plant {
        name: "a claim that reads a giant's nodes before they are written",
        file: "tree/claim.rs",
        right: "let nodes = giant.written()?;",
        wrong: "let nodes = giant.nodes();",
        model: "runs::two_claims_that_split_a_giant",
    },
    Plant {
        name: "a free that does not widen the bound on runs",
        file: "tree/longest.rs",
        right: "bound.is_wide_with_below(bound.look())",
        wrong: "bound.look() < u64::MAX || bound.is_wide_with_below(0)",
        model: "longest::at_the_end_of_a_giant",
    },
    Plant {
        name: "a free that does not widen the bound of the block below",
        file: "tree/longest.rs",
        right: "Some((below, further)) if further > 0 => {",
        wrong: "Some((below, further)) if further > BLOCK_FRAMES => {",
        model: "longest::from_one_block_into_the_next",
    },
    Plant {
        name: "a block given at once to a word that was empty, without a raise",
        file: "tree/blocks.rs",
        right: "let is_simple = given.edge == Edge::Within && given.fill == Fill::Partial;",
        wrong: "let is_simple = given.fill == Fill::Partial;",
        model: "blocks::a_block_given_while_the_giants_whole_hint_is_lowered",
    },
    Plant {
        name: "a block given at once that completes its giant, without a merge",
        file: "tree/blocks.rs",
        right: "let is_simple = given.edge == Edge::Within && given.fill == Fill::Partial;",
        wrong: "let is_simple = given.edge == Edge::Within;",
        model: "blocks::a_block_taken_at_once_from_a_giant_that_is_merged_and_split",
    },
    Plant {
        name: "a block given at once that was free already",
        file: "tree/blocks.rs",
        right: "if is_simple && given.overlap == 0 && is_wide",
        wrong: "if is_simple && is_wide",
        model: "blocks::of_two_frees_of_one_block_one_is_refused",
    },
    Plant {
        name: "a block taken at once that was never written",
        file: "tree/blocks.rs",
        right: "ready.is_set(index, Ordering::Relaxed)\n",
        wrong: "true\n",
        model: "blocks::a_block_taken_at_once_from_a_giant_that_is_merged_and_split",
    },
    Plant {
        name: "a run near the last one, from a leaf before it is written",
        file: "tree/near.rs",
        right: "        && nodes.ready.is_set(index, Ordering::Acquire)
",
        wrong: "",
        model: "runs::a_run_near_the_last_one_in_a_block_that_was_never_split",
    },
    Plant {
        name: "a bound that is narrowed without a second look",
        file: "tree/longest.rs",
        right: "if longest_from(block, found) > found {",
        wrong: "if false {",
        model: "longest::from_a_block_into_the_next_row",
    },
    Plant {
        name: "a bound of a free that does not look at what is free above its word",
        file: "tree/longest.rs",
        right: "let above = if u64::from(end) < WORD_BITS {",
        wrong: "let above = if end > 0 {",
        model: "longest::at_the_end_of_a_giant",
    },
    Plant {
        name: "a bound of a free that does not look at what is free below its word",
        file: "tree/longest.rs",
        right: "let below = if start > 0 {",
        wrong: "let below = if end > 0 {",
        model: "longest::from_a_block_into_the_next_row",
    },
    Plant {
        name: "bounds of blocks with nothing free, narrowed without a second look",
        file: "tree/longest.rs",
        right: "for block in blocks.filter(|block| longest_from(*block, 0) > 0) {",
        wrong: "for block in blocks.filter(|block| longest_from(*block, 0) > ANY) {",
        model: "longest::a_frame_comes_into_a_block_of_which_it_is_said_that_it_is_empty",
    },
    Plant {
        name: "a bound of a giant that is narrowed without a second look",
        file: "tree/giants.rs",
        right: "    if !is_within(giant, most) {\n        return bound.raise(ANY);",
        wrong: "    if most == ANY {\n        return bound.raise(ANY);",
        model: "longest::from_a_block_into_the_next_row",
    },
    Plant {
        name: "a bound of a giant that is narrowed without a fence",
        file: "tree/giants.rs",
        right: "    // Orders the second look (see `raise_giant`).\n    full_fence();\n",
        wrong: "",
        model: "longest::from_a_block_into_the_next_row",
    },
    Plant {
        name: "a bound of a giant that a free does not raise",
        file: "tree/longest.rs",
        right: "raise_giant(block.giant, if crosses_a_row { ANY } else { length.min(ANY) });",
        wrong: "let _ = crosses_a_row;",
        model: "longest::at_the_end_of_a_giant",
    },
    Plant {
        name: "a bound of a giant whose rows are taken one by one",
        file: "tree/giants.rs",
        right: "if last + (bounds & ANY) > most {",
        wrong: "if last > ANY {",
        model: "longest::from_a_block_into_the_next_row",
    },
    Plant {
        name: "a bound of a giant's end that is narrowed without a second look",
        file: "tree/giants.rs",
        right: "if look(block) > found || bound_on(block) == ANY {",
        wrong: "if bound_on(block) == ANY {",
        model: "longest::at_the_end_of_a_giant",
    },
    Plant {
        name: "a bound of a giant's end that a free does not raise",
        file: "tree/longest.rs",
        right: "goes_up = !crosses_a_row;",
        wrong: "goes_up = false;",
        model: "longest::at_the_end_of_a_giant",
    },
    Plant {
        name: "a bound of a giant's begin that a free does not raise",
        file: "tree/longest.rs",
        right: "None if block.index == 0 => raise_begin(block.giant, length.min(ANY)),",
        wrong: "None if block.index == 0 => {}",
        model: "longest::from_a_giant_into_the_next",
    },
    Plant {
        name: "a budget that is changed by a load and a store",
        file: "budget.rs",
        right: "self.count.word.compare_exchange(look.word, changed, Ordering::AcqRel).is_ok()",
        wrong: "let same = self.count.word.load(Ordering::Acquire) == look.word;\n        \
                self.count.word.store(changed, Ordering::Release);\n        same",
        model: "budget::two_who_ask_at_once_leave_the_reserve",
    },
    Plant {
        name: "a budget that grants more than is left",
        file: "budget.rs",
        right: "if self.rules.reserve == 0 { wanted } else { left.min(wanted) };",
        wrong: "wanted;",
        model: "budget::two_who_ask_at_once_leave_the_reserve",
    },
    Plant {
        name: "a frame taken before it is asked for",
        file: "budget.rs",
        right: "if credit < least { 0 } else { credit.min(most).cast_unsigned() }",
        wrong: "most.cast_unsigned()",
        model: "budget::two_who_ask_at_once_leave_the_reserve",
    },
    Plant {
        name: "a crossing that two CPUs tell",
        file: "budget.rs",
        right: "self.count.told.compare_exchange(told, number, Ordering::AcqRel).is_ok()",
        wrong: "{\n                self.count.told.store(number, Ordering::Release);\n                \
                true\n            }",
        model: "budget::a_crossing_is_told_once",
    },
    Plant {
        name: "a mark that two cross together, without a fence before they look",
        file: "budget.rs",
        right: "            rmw_fence();\n",
        wrong: "            let _ = rmw_fence;\n",
        model: "budget::a_mark_that_two_cross_together_is_crossed",
    },
    Plant {
        name: "a look at the word after what has been returned was counted",
        file: "journal.rs",
        right: "        let read = read();\n        \
                (read, self.count(Counter::Returned).wrapping_sub(taken))",
        wrong: "        let returned = self.count(Counter::Returned);\n        \
                (read(), returned.wrapping_sub(taken))",
        model: "budget::what_is_left_is_never_out_of_sight",
    },
    Plant {
        name: "what has been taken, counted after what has been returned",
        file: "journal.rs",
        right: "(read, self.count(Counter::Returned).wrapping_sub(taken))",
        wrong: "(read, self.count(Counter::Returned).wrapping_sub(self.count(Counter::Taken)))",
        model: "budget::what_is_left_is_never_out_of_sight",
    },
    Plant {
        name: "a free that looks at the bound without a fence",
        file: "tree/longest.rs",
        right: "    rmw_fence();\n    let bound = bound_of(block);",
        wrong: "    let bound = bound_of(block);",
        model: "longest::from_a_block_into_the_next_row",
    },
    Plant {
        name: "a range that is added without a look at those that came meanwhile",
        file: "ranges.rs",
        right: "if let Some(both) = self.overlap(range) {\n                return Err(both);",
        wrong: "if let Some(both) = None {\n                return Err(both);",
        model: "grow::of_two_overlapping_ranges_one_is_added",
    },
    Plant {
        name: "a part that is published over another CPU's",
        file: "sync.rs",
        right: "match self.replace(None, part) {",
        wrong: "self.publish(part);\n        match Ok::<(), Option<&T>>(()) {",
        model: "grow::two_cpus_add_the_same_cluster",
    },
    Plant {
        name: "a section that is published unwritten, of which a part is managed",
        file: "directory.rs",
        right: "section.clear();",
        wrong: "",
        model: "grow::a_whole_giant_comes_while_others_search",
    },
    Plant {
        name: "a giant that is published unwritten, of which a part is managed",
        file: "stock.rs",
        right: "giant.write_nodes();",
        wrong: "",
        model: "grow::a_whole_giant_comes_while_others_search",
    },
    Plant {
        name: "a refill that does not look at what is isolated",
        file: "tree/isolate.rs",
        right: "if self.directory.isolations.is_empty() { Some(refill) } else { self.sift(writer, refill) }",
        wrong: "Some(refill)",
        model: "isolate::a_frame_that_is_freed_while_isolated_is_not_handed_out_again",
    },
    Plant {
        name: "a block that is handed out as a whole, and isolated in part",
        file: "tree/isolate.rs",
        right: "self.directory.isolations.is_empty() || self.admits_all(writer, taken)",
        wrong: "let _ = Self::admits_all;\n        let _ = (writer, taken);\n        true",
        model: "isolate::a_whole_block_is_isolated_in_part",
    },
    Plant {
        name: "frames set aside for an isolation that is left already",
        file: "tree/isolate.rs",
        right: "set_aside(part);\n            self.leave(place);",
        wrong: "self.leave(place);\n            set_aside(part);",
        model: "isolate::what_a_taker_sets_aside_late_comes_back",
    },
    Plant {
        name: "memory that comes without a look at what is isolated meanwhile",
        file: "tree/isolate.rs",
        right: "let open = self.blocks_of(range).filter(|block| !self.directory.is_filled(*block));",
        wrong: "let open = self.blocks_of(range).filter(|block| block.index > 1 << 20);",
        model: "grow::what_is_isolated_while_it_comes_stays_out_of_caches",
    },
    Plant {
        name: "a guest of an isolation that is over",
        file: "isolation.rs",
        right: "while state.is_like(seen) {",
        wrong: "while seen.phase() == Phase::InForce {",
        model: "isolate::what_a_taker_sets_aside_late_comes_back",
    },
    Plant {
        name: "an isolation in force before it is known to be alone",
        file: "isolation.rs",
        right: "self.try_claim(range, Phase::Named)",
        wrong: "self.try_claim(range, Phase::InForce)",
        model: "isolate::a_refused_isolation_sets_nothing_aside",
    },
    Plant {
        name: "an isolation that does not look for others that begin at once",
        file: "isolation.rs",
        right: "match overlap(Some(at)) {",
        wrong: "match None::<(Refused, Phase)> {",
        model: "isolate::of_two_isolations_that_overlap_one_at_most_begins",
    },
    Plant {
        name: "a flush that does not ask what is gone",
        file: "slot/exchange.rs",
        right: "frames & place.block().gone(place.group.word())",
        wrong: "let _ = place;\n    frames & 0",
        model: "isolate::what_is_retired_does_not_come_back_through_a_slot",
    },
    Plant {
        name: "a frame that is retired in a block that has just been said to be full",
        file: "tree/isolate.rs",
        right: "            full_fence();\n            self.directory.open_up(block);\n",
        wrong: "            full_fence();\n",
        model: "isolate::what_is_retired_is_refused_while_its_block_is_filled_for_the_first_time",
    },
    Plant {
        name: "a block that is said to be full while somebody retires some of it",
        file: "directory.rs",
        right: "        if self.is_filled(block) {\n            say();",
        wrong: "        {\n            say();",
        model: "isolate::what_is_retired_is_refused_while_its_block_is_filled",
    },
    Plant {
        name: "a range that is believed without a second look at its place",
        file: "isolation.rs",
        right: "if State(self.state.load(Ordering::Relaxed)).is_like(state) {",
        wrong: "if state.is_like(state) {",
        model: "isolate::a_range_whose_place_is_given_to_another_is_read_as_it_was",
    },
    Plant {
        name: "a cache that is looked at before its owner's flag",
        file: "slot/mod.rs",
        right: "self.is_busy() || self.cached() > 0",
        wrong: "self.cached() > 0 || self.is_busy()",
        model: "slots::who_has_the_last_frames_is_asked_for_them",
    },
    Plant {
        name: "a credit that is passed over while it comes out of a cache",
        file: "slot/mod.rs",
        right: "self.is_busy() || self.credit() > 0",
        wrong: "self.credit() > 0",
        model: "slots::who_has_or_gets_the_last_credit_is_asked_for_it",
    },
    Plant {
        name: "a request to drain inside a use that is not a promise",
        file: "slot/mod.rs",
        right: "self.requests.asked.fetch_or(DRAIN | PROMISED, Ordering::Relaxed);",
        wrong: "self.requests.asked.fetch_or(DRAIN, Ordering::Relaxed);",
        model: "slots::who_was_asked_inside_a_use_is_waited_for",
    },
    Plant {
        name: "a promise to drain that is taken back before it is kept",
        file: "slot/exchange.rs",
        right: "let asked = self.requests.asked.fetch_and(PROMISED, Ordering::Acquire);",
        wrong: "let asked = self.requests.asked.fetch_and(0 & PROMISED, Ordering::Acquire);",
        model: "slots::who_was_asked_inside_a_use_is_waited_for",
    },
    Plant {
        name: "a cache that is emptied before the step begins in which it is given back",
        file: "slot/exchange.rs",
        right: "let step = self.writer().begin();
        let given = [alloc_side, free_side].map(|side| self.flush(&step, side.close()));",
        wrong: "let held = [alloc_side, free_side].map(|side| side.close());
        let step = self.writer().begin();
        let given = held.map(|held| self.flush(&step, held));",
        model: "slots::what_a_cache_gives_back_is_there_or_in_the_tree",
    },
    Plant {
        name: "a block that is taken out of a cache before the step begins in which it is given back",
        file: "slot/blocks.rs",
        right: "let step = self.writer().begin();
        let Requests { parked, block_home, .. } = &self.requests;
        // It lies in the home's word, which changes only while none is parked.
        let Some(block) = parked.take().and_then(|first| block_home.block(first)) else {
            return Ok(());
        };",
        wrong: "let Requests { parked, block_home, .. } = &self.requests;
        let Some(block) = parked.take().and_then(|first| block_home.block(first)) else {
            return Ok(());
        };
        let step = self.writer().begin();",
        model: "slots::a_block_that_waits_is_there_or_in_the_tree",
    },
    Plant {
        name: "a frame of a given number, taken by a load and a store",
        file: "node.rs",
        right: "word.compare_exchange(found, left, Ordering::AcqRel).is_ok()",
        wrong: "let same = word.load(Ordering::Acquire) == found;\n    \
                word.store(left, Ordering::Release);\n    same",
        model: "pairs::exact::exact",
    },
    Plant {
        name: "a drain that does not announce",
        file: "tree/free.rs",
        right: "if given.edge == Edge::FromEmpty {\n        announce(block);",
        wrong: "if false {\n        announce(block);",
        model: "pairs::split::drain",
    },
    Plant {
        name: "a hint that is retired without a second look, while two give",
        file: "tree/levels.rs",
        right: "if !leaf.is_empty(Ordering::Relaxed) {\n        announce_again(block);",
        wrong: "if false {\n        announce_again(block);",
        model: "pairs::a_refill_while_two_give_to_a_word_that_was_empty",
    },
];

#[test]
fn every_planted_bug_is_found() {
    let start = Instant::now();
    let models = Copy::of_package().build(&choice::with_all(PLANTS));
    println!("built with {} bugs in {:.1} s", PLANTS.len(), start.elapsed().as_secs_f32());
    // With none of the bugs chosen, the copy itself must pass.
    let sound = "words::two_flushes_complete_two_words_of_a_block";
    assert_eq!(ask(&models, sound, None, None), Passed);
    // `PLANT=` and a part of a name asks for some of them only.
    let wanted = env::var("PLANT").unwrap_or_default();
    let next = AtomicUsize::new(0);
    // What is left of the list, one at a time, on each of the machine's CPUs.
    let ask_in_turn = || {
        let mut missed = Vec::new();
        while let bug = next.fetch_add(1, Ordering::Relaxed)
            && let Some(plant) = PLANTS.get(bug)
        {
            if plant.name.contains(&wanted) && is_missed(&models, bug, plant) {
                missed.push(plant.name);
            }
        }
        missed
    };
    let missed: Vec<_> = thread::scope(|scope| {
        let askers = thread::available_parallelism().map_or(1, usize::from);
        let askers: Vec<_> = (0..askers).map(|_| scope.spawn(ask_in_turn)).collect();
        askers.into_iter().flat_map(|asker| asker.join().expect("all were asked")).collect()
    });
    assert!(missed.is_empty(), "not found by their models: {missed:#?}");
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

/// Asks the model of a planted bug, with few preemptions first, which most bugs need; and says how
/// long it took.
fn is_missed(models: &Path, bug: usize, plant: &Plant) -> bool {
    let start = Instant::now();
    let few = [Some("1"), Some("2"), None];
    let found = few.into_iter().find(|few| ask(models, plant.model, Some(bug), *few) == Failed);
    let (name, model, seconds) = (plant.name, plant.model, start.elapsed().as_secs_f32());
    match found {
        Some(few) => {
            let many = few.map_or("more".into(), |few| format!("at most {few}"));
            println!("{name}: found by {model}, with {many} preemptions, in {seconds:.1} s");
        }
        None => println!("{name}: MISSED by {model}, in {seconds:.1} s"),
    }
    found.is_none()
}

#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    Passed,
    Failed,
}

/// Runs a model as `make test` does, with one of the bugs, and with so many preemptions at most.
fn ask(models: &Path, model: &str, bug: Option<usize>, preemptions: Option<&str>) -> Verdict {
    let mut command = Command::new(models);
    let name = format!("models::{model}");
    command.args(["--exact", &name]).env("LOOM_QUICK", "1").env("RUST_BACKTRACE", "0");
    for variable in ["MAX_PREEMPTIONS", "DEEPER", "AT_MOST", "MAX_DURATION", "TABLE"] {
        command.env_remove(format!("LOOM_{variable}"));
    }
    command.env_remove(choice::VARIABLE);
    command.envs(bug.map(|bug| (choice::VARIABLE, bug.to_string())));
    command.envs(preemptions.map(|most| ("LOOM_AT_MOST", most)));
    let output = command.output().expect("the models run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let says = |end| text.contains(&format!("test {name} ... {end}\n"));
    match (says("ok"), says("FAILED")) {
        (true, false) => Passed,
        (false, true) => Failed,
        _ => panic!("{model} says nothing: {}\n{text}", output.status),
    }
}
