//! Go's search for an address's successor among sorted ranges: the first that begins above it.
//!
//! The library has no list of ranges to search, but the same question has a meaning here: with
//! only the first frame of each range free, the successor is the lowest free frame above a limit,
//! `Request::above`. So each address is played as one frame, and the tree answers; that a frame
//! is the beginning of the i-th range is all that is looked up here.

use frametree::{AllocError, FRAME_SIZE, Frame, FrameNumber, NumberRange, Request, RequestError};
use serde_json::Value;

use crate::case::Number;
use crate::heap::{FRAME_LIMIT, Heap, frame_of};
use crate::script::{Failure, compare, differs, read};

pub fn play(case: &Value) -> Result<(), Failure> {
    let ranges: Vec<(Number, Number)> = read(&case["ranges"])?;
    let (address, index) = (read::<Number>(&case["addr"])?.0, read::<usize>(&case["index"])?);
    let ranges = ranges.iter().map(|(start, limit)| {
        Ok(NumberRange::from_numbers(frame_at(start.0)?.get(), frame_at(limit.0)?.get()))
    });
    let ranges = ranges.collect::<Result<Vec<_>, Failure>>()?;
    let found = match successor(&ranges, frame_at(address)?)? {
        Some(frame) => ranges.iter().position(|range| range.start() == frame),
        None => Some(ranges.len()),
    };
    compare("index", &found, &Some(index))
}

/// The lowest beginning of a range above this frame, as the tree says it.
fn successor(ranges: &[NumberRange], frame: FrameNumber) -> Result<Option<FrameNumber>, Failure> {
    // A heap has some memory, also if there are no ranges: a frame below all of them, never free.
    let page_0 = frame_of(0)?.get();
    let below = NumberRange::from_numbers(page_0 - 1, page_0);
    let heap = Heap::of_ranges(&[&[below], ranges].concat(), 1)?;
    let taken: u32 = heap.take_all().iter().map(|group| group.free().count_ones()).sum();
    compare("frames that were taken", &u64::from(taken), &heap.tree().managed_frames())?;
    for range in ranges {
        // SAFETY: it was taken just now, and these frames are only numbers.
        let freed = heap.tree().free(unsafe { Frame::from_number(range.start()) });
        freed.or_else(|error| differs(error.to_string()))?;
    }
    let above = frame.start_address() + FRAME_SIZE;
    let found = match heap.tree().alloc_run(&Request::new(1).above(above)) {
        Ok(run) => Some(run.numbers().start()),
        Err(AllocError::NoRun(_)) => None,
        // Above the last frame of all there is nothing to ask for.
        Err(AllocError::Request(RequestError::Limits { .. })) => None,
        Err(error) => return differs(error.to_string()),
    };
    heap.check("at the end", None, None, None)?;
    Ok(found)
}

/// The frame that an address is played as. Those at the end of Go's address space lie at the end
/// of physical memory.
fn frame_at(address: u64) -> Result<FrameNumber, Failure> {
    let from_end = address.wrapping_neg();
    if address > 0 && from_end <= FRAME_LIMIT / 2 {
        return Ok(FrameNumber::new(FRAME_LIMIT - from_end));
    }
    frame_of(address)
}
