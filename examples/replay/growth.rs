//! Growing: chunks that join a heap one by one, in any order. The recordings come from a loop over
//! a map, whose order is random: so each case is played upwards, downwards, and from the middle.

use frametree::{AllocError, Request};
use serde_json::Value;

use crate::heap::{Heap, page_of};
use crate::script::{CHUNK_PAGES, Chunks, Failure, compare, differs, read};

pub fn play(case: &Value) -> Result<(), Failure> {
    let upwards: Vec<u64> = read(&case["chunks"])?;
    let in_use: Vec<[u64; 2]> = read(&case["in_use_chunks"])?;
    let sums: Chunks<[u64; 3]> = read(&case["after_state_sums"])?;
    let downwards = upwards.iter().rev().copied().collect();
    let (low, high) = upwards.split_at(upwards.len() / 2);
    let from_the_middle = [high, low].concat();
    for order in [upwards, downwards, from_the_middle] {
        play_in_order(&order, &in_use, &sums)?;
    }
    Ok(())
}

fn play_in_order(
    order: &[u64],
    in_use: &[[u64; 2]],
    sums: &Chunks<[u64; 3]>,
) -> Result<(), Failure> {
    let [first, others @ ..] = order else {
        return Err(Failure::Unreadable("it grows by nothing".to_owned()));
    };
    let mut heap = Heap::all_free(&[*first], 1)?;
    for chunk in others {
        heap.grow(*chunk)?;
        heap.check(&format!("after chunk {chunk}"), None, None, None)?;
    }
    let ranges: Vec<_> = heap
        .tree()
        .managed_ranges()
        .map(|range| [range.start(), range.end()].map(|frame| page_of(frame) / CHUNK_PAGES))
        .collect();
    compare("chunks in use", &&*ranges, &in_use)?;
    heap.check("at the end", None, None, Some(sums))?;
    // What has grown together can be had in one piece.
    for [first, end] in in_use {
        let pages = (end - first) * CHUNK_PAGES;
        match heap.tree().alloc_run(&Request::new(pages)) {
            Ok(run) => {
                compare("a run", &page_of(run.into_numbers().start()), &(first * CHUNK_PAGES))?
            }
            Err(AllocError::NoRun(no_run)) => return differs(no_run.to_string()),
            Err(error) => return differs(error.to_string()),
        }
    }
    Ok(())
}
