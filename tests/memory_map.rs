//! The memory map against a model that looks at every byte, and against the recorded cases.
#![cfg(not(loom))]

#[path = "../examples/common/case.rs"]
mod case;
#[path = "../examples/memory_map/player.rs"]
mod player;
mod support;

use frametree::{FRAME_SIZE, MapEntry, MapError, MemoryMap, MemoryRegion, NumberRange, RegionKind};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::asked::LIMIT;
use support::rule::{byte_kind, check_against_rule, check_form, frame_kind, kind_in, unless_bad};

const CASES: &str = include_str!("fixtures/memory-maps/cases.json");

fn buffer(cells: usize) -> Vec<MapEntry> {
    vec![MapEntry::EMPTY; cells]
}

fn check_normalise(entries: &[MemoryRegion]) {
    let mut cells = buffer(MemoryMap::entries_needed(entries.len()));
    let map = MemoryMap::normalise(entries.iter().copied(), &mut cells).unwrap();
    check_against_rule(entries, &map);
}

fn kind() -> impl Strategy<Value = RegionKind> {
    prop_oneof![
        4 => Just(RegionKind::Usable),
        2 => Just(RegionKind::Reclaimable),
        1 => Just(RegionKind::Bad),
        2 => Just(RegionKind::Reserved),
    ]
}

fn region(
    start: impl Strategy<Value = u64>,
    length: impl Strategy<Value = u64>,
) -> impl Strategy<Value = MemoryRegion> {
    (start, length, kind()).prop_map(|(start, length, kind)| MemoryRegion { start, length, kind })
}

/// Addresses of 16 frames, many at a frame's edge or beside it, many alike.
fn small_address() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..0x10000,
        (0u64..16).prop_map(|frame| frame * FRAME_SIZE),
        (1u64..16, 0u64..3).prop_map(|(frame, offset)| frame * FRAME_SIZE + offset - 1),
        (0u64..0x100).prop_map(|granule| granule * 0x100),
    ]
}

fn small_regions(count: usize) -> impl Strategy<Value = Vec<MemoryRegion>> {
    prop::collection::vec(region(small_address(), small_address()), 0..count)
}

/// Addresses around everything at which something ends: 0, 2^52, 2^64.
fn wild_address() -> impl Strategy<Value = u64> {
    let near = prop_oneof![Just(0u64), Just(LIMIT), Just(u64::MAX), Just(1 << 40)];
    prop_oneof![
        any::<u64>(),
        small_address(),
        (near, -0x3000i64..0x3000).prop_map(|(near, offset)| near.saturating_add_signed(offset)),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Reserve { start: u64, length: u64 },
    Carve { frames: u64, below: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let reserve =
        (small_address(), 0u64..0x5000).prop_map(|(start, length)| Step::Reserve { start, length });
    let carve = (0u64..6, prop_oneof![small_address(), Just(u64::MAX)])
        .prop_map(|(frames, below)| Step::Carve { frames, below });
    prop::collection::vec(prop_oneof![reserve, carve], 0..8)
}

/// The model of a map that is taken from: the kind of each of the first 64 frames.
struct Model(Vec<RegionKind>);

impl Model {
    fn of(entries: &[MemoryRegion]) -> Self {
        Self((0..64).map(|frame| unless_bad(frame_kind(entries, frame))).collect())
    }

    fn reserve(&mut self, start: u64, length: u64) -> u64 {
        let mut taken = 0;
        for (frame, kind) in self.0.iter_mut().enumerate() {
            let first = frame as u64 * FRAME_SIZE;
            if length > 0 && start < first + FRAME_SIZE && first < start + length {
                taken += u64::from(*kind == RegionKind::Usable);
                *kind = RegionKind::Reserved;
            }
        }
        taken
    }

    /// The highest start of a run of so many usable frames that ends at or below `below`.
    fn room(&self, frames: u64, below: u64) -> Option<u64> {
        (0..64).rev().find(|&start| {
            (start..start + frames).all(|frame| {
                (frame + 1) * FRAME_SIZE <= below
                    && self.0.get(frame as usize) == Some(&RegionKind::Usable)
            })
        })
    }

    fn carve(&mut self, frames: u64, below: u64) -> Result<NumberRange, MapError> {
        if frames == 0 {
            return Err(MapError::ZeroFrames);
        }
        let Some(start) = self.room(frames, below) else {
            let largest = (1..64).rev().find(|&len| self.room(len, below).is_some());
            return Err(MapError::NoRoom { wanted: frames, largest: largest.unwrap_or(0), below });
        };
        self.reserve(start * FRAME_SIZE, frames * FRAME_SIZE);
        Ok(NumberRange::from_numbers(start, start + frames))
    }

    fn check(&self, map: &MemoryMap) {
        check_form(map);
        for (frame, kind) in self.0.iter().enumerate() {
            assert_eq!(kind_in(map, frame as u64), *kind, "frame {frame} of {map:?}");
        }
    }
}

/// Takes a step, and returns a number that says what came of it.
fn take(map: &mut MemoryMap, step: &Step) -> Result<u64, MapError> {
    match *step {
        Step::Reserve { start, length } => map.reserve(start, length),
        Step::Carve { frames, below } => map.carve(frames, below).map(|run| run.start().get()),
    }
}

/// Takes steps in a buffer of that many cells until there is one cell too few: then nothing may
/// have changed, and the number of the error is returned.
fn take_all(entries: &[MemoryRegion], steps: &[Step], cells: usize) -> Result<(), usize> {
    let mut cells = buffer(cells);
    let capacity = cells.len();
    let small = |error| match error {
        MapError::BufferTooSmall { needed, capacity: said } => {
            assert!(said == capacity && needed > capacity);
            needed
        }
        other => panic!("{other}"),
    };
    let mut map = MemoryMap::normalise(entries.iter().copied(), &mut cells).map_err(small)?;
    for step in steps {
        let before: Vec<_> = map.regions().collect();
        match take(&mut map, step) {
            Ok(_) => {}
            Err(MapError::NoRoom { .. } | MapError::ZeroFrames) => {
                assert_eq!(map.regions().collect::<Vec<_>>(), before);
            }
            Err(error) => {
                assert_eq!(map.regions().collect::<Vec<_>>(), before);
                return Err(small(error));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn normalising_obeys_the_rule(entries in small_regions(12)) {
        check_normalise(&entries);
    }

    #[test]
    fn normalising_obeys_the_rule_at_the_ends_of_the_address_space(
        entries in prop::collection::vec(region(wild_address(), wild_address()), 0..12),
    ) {
        check_normalise(&entries);
    }

    #[test]
    fn order_does_not_matter(
        (entries, shuffled) in small_regions(12)
            .prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
    ) {
        let (mut one, mut other) = (buffer(24), buffer(24));
        let one = MemoryMap::normalise(entries, &mut one).unwrap();
        let other = MemoryMap::normalise(shuffled, &mut other).unwrap();
        prop_assert!(one.regions().eq(other.regions()));
    }

    #[test]
    fn taking_out_agrees_with_the_model(entries in small_regions(12), steps in steps()) {
        let mut cells = buffer(MemoryMap::entries_needed(entries.len() + steps.len()));
        let mut map = MemoryMap::normalise(entries.iter().copied(), &mut cells).unwrap();
        let mut model = Model::of(&entries);
        for step in &steps {
            match *step {
                Step::Reserve { start, length } => {
                    prop_assert_eq!(map.reserve(start, length), Ok(model.reserve(start, length)));
                }
                Step::Carve { frames, below } => {
                    prop_assert_eq!(map.carve(frames, below), model.carve(frames, below));
                }
            }
            model.check(&map);
        }
    }

    #[test]
    fn a_buffer_too_small_names_a_number_that_brings_it_further(
        entries in small_regions(8), steps in steps(),
    ) {
        let mut cells = 0;
        while let Err(needed) = take_all(&entries, &steps, cells) {
            prop_assert!(take_all(&entries, &steps, needed - 1).is_err(), "{} is too many", needed);
            cells = needed;
        }
        prop_assert!(cells <= MemoryMap::entries_needed(entries.len() + steps.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The model of the other tests looks at edges only; this one looks at every byte.
    #[test]
    fn the_model_itself_agrees_with_a_look_at_every_byte(entries in small_regions(8)) {
        for frame in 0..34 {
            let bytes = frame * FRAME_SIZE..(frame + 1) * FRAME_SIZE;
            let by_bytes = bytes.map(|address| byte_kind(&entries, address)).max().unwrap();
            prop_assert_eq!(frame_kind(&entries, frame), by_bytes);
        }
    }
}

/// Overlapping entries of a fixed pattern, without an order.
fn many(count: u64) -> Vec<MemoryRegion> {
    let kinds = [RegionKind::Usable, RegionKind::Usable, RegionKind::Reclaimable, RegionKind::Bad];
    let entry = |index: u64| {
        let mixed = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        MemoryRegion {
            start: mixed % (count * 0x2000),
            length: (mixed >> 32) % 0x6000,
            kind: kinds[(mixed >> 50) as usize % kinds.len()],
        }
    };
    (0..count).map(entry).collect()
}

#[test]
fn four_hundred_entries_obey_the_rule() {
    check_normalise(&many(400));
}

#[test]
fn five_thousand_entries_are_no_matter() {
    let entries = many(5000);
    let mut cells = buffer(MemoryMap::entries_needed(entries.len()));
    let map = MemoryMap::normalise(entries.iter().copied(), &mut cells).unwrap();
    check_form(&map);
    assert!(map.regions().count() > 1000);
    for frame in (0..10_000).step_by(7) {
        assert_eq!(kind_in(&map, frame), unless_bad(frame_kind(&entries, frame)), "frame {frame}");
    }
}

#[test]
fn five_thousand_separate_entries_fill_the_buffer_exactly() {
    let usable = RegionKind::Usable;
    let entry = |index: u64| MemoryRegion { start: index * 0x4000, length: 0x2000, kind: usable };
    let mut cells = buffer(10_000);
    let mut map = MemoryMap::normalise((0..5000).rev().map(entry), &mut cells).unwrap();
    assert_eq!((map.usable().count(), map.usable_frames()), (5000, 10_000));
    // From the end of a range or a whole one: no new piece, so no new cell.
    assert_eq!(map.reserve(0x1000, 1), Ok(1));
    assert_eq!(map.reserve(0x4000, 0x2000), Ok(2));
    assert_eq!(map.carve(1, u64::MAX), Ok(NumberRange::from_numbers(19_997, 19_998)));
}

#[test]
fn a_buffer_too_small_counts_the_rest_of_the_iterator() {
    let usable = RegionKind::Usable;
    let entry = |index: u64| MemoryRegion { start: index * 0x4000, length: 0x2000, kind: usable };
    let silent = MemoryRegion { start: 0x1000, length: 0, kind: usable };
    for capacity in [0, 1, 2, 3, 599] {
        let mut cells = buffer(capacity);
        let entries = (0..300).map(entry).chain([silent]);
        let error = MemoryMap::normalise(entries, &mut cells).unwrap_err();
        assert_eq!(error, MapError::BufferTooSmall { needed: 600, capacity });
    }
    assert!(MemoryMap::normalise((0..300).map(entry).chain([silent]), &mut buffer(600)).is_ok());
    assert!(MemoryMap::normalise([silent], &mut []).is_ok());
}

#[test]
fn reserving_rounds_outwards_and_splits() {
    let entry = |kind| MemoryRegion { start: 0, length: 0x10000, kind };
    for kind in [RegionKind::Usable, RegionKind::Reclaimable] {
        let mut cells = buffer(4);
        let mut map = MemoryMap::normalise([entry(kind)], &mut cells).unwrap();
        let usable = u64::from(kind == RegionKind::Usable);
        assert_eq!(map.reserve(0x4fff, 2), Ok(2 * usable));
        let ranges: Vec<_> = map.regions().collect();
        let expected = [(0, 4), (6, 16)].map(|(start, end)| NumberRange::from_numbers(start, end));
        assert_eq!(ranges, expected.map(|range| (range, kind)));
        assert_eq!(
            map.reserve(0x8000, 1),
            Err(MapError::BufferTooSmall { needed: 6, capacity: 4 })
        );
        assert_eq!(map.regions().collect::<Vec<_>>(), ranges);
        assert_eq!(map.reserve(0xf000, u64::MAX), Ok(usable));
        assert_eq!(map.reserve(0, 0), Ok(0));
        assert_eq!(map.reserve(u64::MAX, u64::MAX), Ok(0));
        assert_eq!(map.reserve(0, u64::MAX), Ok(13 * usable));
        assert_eq!(map.regions().count(), 0);
    }
}

#[test]
fn carving_takes_the_highest_run_below_the_limit() {
    let usable = |start, length| MemoryRegion { start, length, kind: RegionKind::Usable };
    let entries = [usable(0, 0x8000), usable(0x10000, 0x4000), usable(LIMIT - 0x1000, 0x5000)];
    let mut cells = buffer(MemoryMap::entries_needed(3 + 4));
    let mut map = MemoryMap::normalise(entries, &mut cells).unwrap();
    assert_eq!(map.carve(1, u64::MAX), Ok(NumberRange::from_numbers((1 << 40) - 1, 1 << 40)));
    assert_eq!(map.carve(2, u64::MAX), Ok(NumberRange::from_numbers(18, 20)));
    assert_eq!(map.carve(3, u64::MAX), Ok(NumberRange::from_numbers(5, 8)));
    assert_eq!(map.carve(1, 0x3fff), Ok(NumberRange::from_numbers(2, 3)));
    let below = 0x11fff;
    let error = map.carve(4, below).unwrap_err();
    assert_eq!(error, MapError::NoRoom { wanted: 4, largest: 2, below });
    assert_eq!(map.carve(0, below), Err(MapError::ZeroFrames));
    assert_eq!(
        map.carve(u64::MAX, 0),
        Err(MapError::NoRoom { wanted: u64::MAX, largest: 0, below: 0 })
    );
}

#[test]
fn errors_say_the_numbers_and_what_to_do() {
    let texts = [
        MapError::BufferTooSmall { needed: 12, capacity: 7 }.to_string(),
        MapError::NoRoom { wanted: 9, largest: 5, below: 0x12000 }.to_string(),
        MapError::ZeroFrames.to_string(),
    ];
    for (text, parts) in texts.iter().zip([["12", "7"], ["9", "0x12000"], ["0", "at least 1"]]) {
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    let _: &dyn core::error::Error = &MapError::ZeroFrames;
}

#[test]
fn recorded_maps_give_their_answers() {
    let outcomes = player::play(&serde_json::from_str(CASES).unwrap()).unwrap();
    assert!(outcomes.len() >= 27, "{} cases", outcomes.len());
    for outcome in outcomes {
        outcome.result.unwrap_or_else(|why| panic!("{}: {why}", outcome.name));
    }
}

/// Plays one case, made of these regions and answers.
fn play_one(case: Value) -> Result<(), String> {
    let mut outcomes = player::play(&json!({ "cases": [case] })).unwrap();
    outcomes.pop().unwrap().result
}

#[test]
fn the_runner_finds_every_wrong_answer() {
    let file: Value = serde_json::from_str(CASES).unwrap();
    let mut changed = 0;
    for case in file["cases"].as_array().unwrap() {
        for (answer, wrong) in [
            ("usable_frames", json!([[1, 2], [7, 9]])),
            ("reclaimable_frames", json!([["0x1", 4]])),
            ("usable_count", json!(case["usable_count"].as_u64().unwrap() + 1)),
        ] {
            let mut case = case.clone();
            case[answer] = wrong;
            assert!(play_one(case.clone()).is_err(), "{case}");
            changed += 1;
        }
    }
    assert!(changed >= 3 * 27);
}

#[test]
fn the_runner_is_liberal_in_the_shape_of_a_case() {
    let regions = json!([
        { "base": 4096, "length": "0x4000", "type": 1 },
        { "start": "0x3000", "size": "4096", "kind": "no such kind" },
        { "start": 0x4000, "len": 4096, "kind": 20 },
    ]);
    assert_eq!(play_one(json!({ "regions": regions, "usable_frames": [["0x1", 3]] })), Ok(()));
    assert!(play_one(json!({ "regions": regions, "usable_count": 3 })).is_err());
    assert!(play_one(json!({ "regions": regions })).unwrap_err().contains("no answer"));
    assert!(play_one(json!({ "usable_count": 0 })).unwrap_err().contains("regions"));
    assert!(player::play(&json!([1, 2])).is_err());
}
