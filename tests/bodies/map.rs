//! A memory map of any entries, against a normaliser that looks at every byte; what is reserved and
//! carved from it, against the kind of each frame; and, if it is small enough, a pool of it whose
//! metadata was full of garbage, frame by frame.

use frametree::{
    FRAME_SIZE, FrameNumber, FramePool, Layout, MapEntry, MapError, MemoryMap, MemoryRegion,
    RegionKind, Setup,
};

use super::Bytes;
use crate::support::asked::{FRAMES, LIMIT};
use crate::support::rule::{check_against_rule, check_form, kind_in};
use crate::support::{Threads, frames::GROUP};

/// Metadata of pools that are made: enough for a few GiB.
const METADATA: usize = 1 << 20;
const ENTRIES: usize = 64;

/// How many entries there were, and whether a pool was made of them.
pub fn run(data: &[u8]) -> usize {
    let bytes = &mut Bytes::new(data);
    let taken = bytes.u8() % 4;
    let mut takes = Vec::new();
    for _ in 0..taken {
        takes.push((bytes.u8(), address(bytes), address(bytes)));
    }
    let garbage = bytes.u8();
    let mut entries = Vec::new();
    while !bytes.is_empty() && entries.len() < ENTRIES {
        entries.push(entry(bytes));
    }
    let cells = MemoryMap::entries_needed(entries.len() + takes.len() + 1);
    let mut buffer = vec![MapEntry::EMPTY; cells];
    too_small(&entries, &mut buffer);
    let mut map =
        MemoryMap::normalise(entries.iter().copied(), &mut buffer).expect("as many as needed");
    check_against_rule(&entries, &map);
    for (what, start, length) in takes {
        take(&mut map, what, start, length);
    }
    entries.len()
        + usize::from(pool(&mut map, u64::from(garbage).wrapping_mul(0x0101_0101_0101_0101)))
}

fn address(bytes: &mut Bytes<'_>) -> u64 {
    let number = bytes.number(&[0x1000, 0x10_0000, 1 << 30, 1 << 36, LIMIT, u64::MAX, 1 << 22, 0]);
    // Small ones are frames as often as bytes.
    if number < 0x200 { number * FRAME_SIZE } else { number }
}

fn entry(bytes: &mut Bytes<'_>) -> MemoryRegion {
    let kind = match bytes.u8() % 8 {
        0..4 => RegionKind::Usable,
        4 => RegionKind::Reclaimable,
        5 => RegionKind::Bad,
        _ => RegionKind::Reserved,
    };
    MemoryRegion { start: address(bytes), length: address(bytes), kind }
}

/// A buffer with one cell less than is needed is refused, with the number.
fn too_small(entries: &[MemoryRegion], buffer: &mut [MapEntry]) {
    let says = |entry: &&MemoryRegion| entry.length > 0 && entry.start < LIMIT;
    let needed = 2 * entries.iter().filter(says).count();
    if let Some(capacity) = needed.checked_sub(1) {
        let said = MemoryMap::normalise(entries.iter().copied(), &mut buffer[..capacity]);
        assert_eq!(said.map(drop), Err(MapError::BufferTooSmall { needed, capacity }));
    }
}

/// Reserves or carves something.
fn take(map: &mut MemoryMap<'_>, what: u8, start: u64, length: u64) {
    let before: Vec<_> = map.regions().collect();
    let usable = map.usable_frames();
    let end = start.saturating_add(length).min(LIMIT);
    if what.is_multiple_of(2) {
        let gone = map.reserve(start, length).expect("there are cells for it");
        assert_eq!(map.usable_frames() + gone, usable);
        let (first, behind) = (start / FRAME_SIZE, end.div_ceil(FRAME_SIZE));
        for (range, kind) in before {
            for at in around(&[range.start().get(), range.end().get() - 1, first, behind]) {
                if range.contains(FrameNumber::new(at)) {
                    let is_reserved = start < end && (first..behind).contains(&at);
                    let due = if is_reserved { RegionKind::Reserved } else { kind };
                    assert_eq!(
                        kind_in(map, at),
                        due,
                        "frame {at:#x}, reserved {start:#x}..{end:#x}"
                    );
                }
            }
        }
    } else {
        match map.carve(length, start) {
            Ok(run) => {
                assert_eq!((run.len(), map.usable_frames()), (length, usable - length));
                assert!(run.end().start_address() <= start);
                assert!(before.iter().any(|(range, kind)| *kind == RegionKind::Usable
                    && range.start() <= run.start()
                    && run.end() <= range.end()));
            }
            Err(MapError::ZeroFrames) => assert_eq!(length, 0),
            Err(MapError::NoRoom { wanted, largest, below }) => {
                assert!(wanted == length && below == start && largest < wanted);
                assert_eq!(map.regions().collect::<Vec<_>>(), before);
            }
            Err(error) => panic!("{error}"),
        }
    }
    check_form(map);
}

/// These frames, and those beside them.
fn around(frames: &[u64]) -> impl Iterator<Item = u64> {
    let beside = |at: &u64| [at.saturating_sub(1), *at, at + 1];
    frames.iter().flat_map(beside).filter(|at| *at < FRAMES)
}

/// Makes a pool of the map, its metadata inside of it; whether it did.
fn pool(map: &mut MemoryMap<'_>, garbage: u64) -> bool {
    let Ok(layout) = Layout::new(map, 2) else {
        assert_eq!(map.usable_frames(), 0);
        return false;
    };
    assert_eq!(layout.managed_frames(), map.usable_frames());
    if layout.bytes() > METADATA {
        return false;
    }
    let before: Vec<_> = map.usable().collect();
    let words = (layout.bytes() + 2 * 4096) / 8;
    let memory = Box::into_raw(vec![Line([garbage; 16]); words.div_ceil(16)].into_boxed_slice());
    let pool = FramePool::new(Threads);
    // SAFETY: the memory lives until the pool is gone; what the map says is not real.
    let said = unsafe { pool.init(map, Setup::new(2), |_| memory.cast::<u8>()) };
    let is_made = match said {
        Ok(metadata) => {
            assert!(metadata.bytes as u64 <= metadata.frames.len() * FRAME_SIZE);
            let frames =
                before.iter().map(|range| range.len()).sum::<u64>() - metadata.frames.len();
            assert_eq!((metadata.managed_frames, map.usable_frames()), (frames, frames));
            check_pool(&pool, map);
            true
        }
        // As it was: unless that leaves nothing.
        Err(_) => true,
    };
    drop(pool);
    // SAFETY: nobody knows it any more.
    drop(unsafe { Box::from_raw(memory) });
    is_made
}

#[derive(Clone)]
#[repr(C, align(128))]
struct Line([u64; 16]);

/// At first what is usable is free, and nothing else is there.
fn check_pool(pool: &FramePool<Threads>, map: &MemoryMap<'_>) {
    pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    let tree = pool.tree().expect("a tree");
    assert_eq!(tree.count_free().frames, map.usable_frames());
    assert_eq!(tree.managed_frames(), map.usable_frames());
    let edges: Vec<_> =
        map.usable().flat_map(|range| [range.start().get(), range.end().get()]).collect();
    for at in around(&edges) {
        let seen =
            tree.peek(FrameNumber::new(at)).is_some_and(|(free, _)| free >> (at % GROUP) & 1 != 0);
        assert_eq!(seen, kind_in(map, at) == RegionKind::Usable, "frame {at:#x}");
    }
}
