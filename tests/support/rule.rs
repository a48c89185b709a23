//! The rule for memory maps by the definition: a normaliser that looks at every byte that matters.

use frametree::{FRAME_SIZE, MemoryMap, MemoryRegion, RegionKind};

use super::asked::LIMIT;

/// The kind of a byte, by the rule.
pub fn byte_kind(entries: &[MemoryRegion], address: u64) -> RegionKind {
    let lists = |entry: &&MemoryRegion| {
        entry.start <= address && u128::from(address) < end_of(entry) && address < LIMIT
    };
    entries.iter().filter(lists).map(|entry| entry.kind).max().unwrap_or(RegionKind::Reserved)
}

pub fn end_of(entry: &MemoryRegion) -> u128 {
    u128::from(entry.start) + u128::from(entry.length)
}

/// The kind of a frame, by the rule: that of all its bytes, of which only those need a look at
/// which some entry begins or ends.
pub fn frame_kind(entries: &[MemoryRegion], frame: u64) -> RegionKind {
    let bytes = u128::from(frame * FRAME_SIZE)..u128::from((frame + 1) * FRAME_SIZE);
    let edges = entries.iter().flat_map(|entry| [u128::from(entry.start), end_of(entry)]);
    edges
        .chain([bytes.start])
        .filter(|edge| bytes.contains(edge))
        .map(|edge| byte_kind(entries, u64::try_from(edge).unwrap()))
        .max()
        .unwrap()
}

/// What the map says of a frame; bad and reserved are one to it.
pub fn kind_in(map: &MemoryMap, frame: u64) -> RegionKind {
    let mut regions = map.regions();
    let region =
        regions.find(|(range, _)| range.start().get() <= frame && frame < range.end().get());
    region.map_or(RegionKind::Reserved, |(_, kind)| kind)
}

pub fn unless_bad(kind: RegionKind) -> RegionKind {
    if kind == RegionKind::Bad { RegionKind::Reserved } else { kind }
}

/// Ranges ascend, none is empty, none touches the next of its kind, and the counts agree.
pub fn check_form(map: &MemoryMap) {
    let regions: Vec<_> = map.regions().collect();
    for (range, kind) in &regions {
        assert!(!range.is_empty() && *kind <= RegionKind::Reclaimable, "{map:?}");
        assert!(range.end().get() * FRAME_SIZE <= LIMIT, "{map:?}");
    }
    for pair in regions.windows(2) {
        let [(low, low_kind), (high, high_kind)] = pair else { unreachable!() };
        assert!(low.end() <= high.start(), "{map:?}");
        assert!(low.end() < high.start() || low_kind != high_kind, "{map:?}");
    }
    let of_kind = |wanted| {
        let regions = regions.iter().filter(move |(_, kind)| *kind == wanted);
        regions.map(|(range, _)| *range).collect::<Vec<_>>()
    };
    let (usable, reclaimable) = (of_kind(RegionKind::Usable), of_kind(RegionKind::Reclaimable));
    assert_eq!(map.usable_frames(), usable.iter().map(|range| range.len()).sum::<u64>());
    assert_eq!(map.usable().collect::<Vec<_>>(), usable);
    assert_eq!(map.reclaimable().collect::<Vec<_>>(), reclaimable);
}

/// Compares a map with the rule on every frame at which an entry or a range begins or ends, and
/// on the two beside it. Between those neither of the two changes.
pub fn check_against_rule(entries: &[MemoryRegion], map: &MemoryMap) {
    check_form(map);
    let mut frames = vec![0, LIMIT / FRAME_SIZE - 1];
    for entry in entries {
        let end = u64::try_from(end_of(entry)).unwrap_or(u64::MAX);
        frames.extend([entry.start / FRAME_SIZE, end / FRAME_SIZE]);
    }
    frames.extend(map.regions().flat_map(|(range, _)| [range.start().get(), range.end().get()]));
    for frame in frames.iter().flat_map(|frame| [frame.saturating_sub(1), *frame, frame + 1]) {
        if frame < LIMIT / FRAME_SIZE {
            let expected = unless_bad(frame_kind(entries, frame));
            assert_eq!(kind_in(map, frame), expected, "frame {frame} of {entries:x?}: {map:?}");
        }
    }
}
