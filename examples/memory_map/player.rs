//! Plays cases of the shape of `tests/fixtures/memory-maps/cases.json` on the real library.
//!
//! Liberal in how a case is written, strict in its answers: a kind that is not known is
//! reserved, numbers may be strings, and of the three answers only those given are compared, but
//! these exactly.

use frametree::{MapEntry, MemoryMap, MemoryRegion, NumberRange, RegionKind};
use serde::Deserialize;
use serde_json::Value;

use crate::case::{self, Number, Outcome};

#[derive(Deserialize)]
struct Case {
    regions: Vec<Region>,
    usable_frames: Option<Vec<(Number, Number)>>,
    reclaimable_frames: Option<Vec<(Number, Number)>>,
    usable_count: Option<Number>,
}

#[derive(Deserialize)]
struct Region {
    #[serde(alias = "base", alias = "addr", alias = "address")]
    start: Number,
    #[serde(alias = "length", alias = "size")]
    len: Number,
    #[serde(alias = "type", default)]
    kind: Value,
}

impl Region {
    /// Kinds by name, or by the number that BIOS, multiboot2 and PVH give them.
    fn kind(&self) -> RegionKind {
        match (self.kind.as_str(), self.kind.as_u64()) {
            (Some("usable"), _) | (_, Some(1)) => RegionKind::Usable,
            (Some("reclaimable"), _) | (_, Some(3)) => RegionKind::Reclaimable,
            (Some("bad"), _) | (_, Some(5)) => RegionKind::Bad,
            _ => RegionKind::Reserved,
        }
    }
}

/// Plays every case of a file; `Err` if it is not of this shape.
pub fn play(file: &Value) -> Result<Vec<Outcome>, String> {
    let outcome = |(index, case)| Outcome {
        name: case::name(case, index),
        result: Case::deserialize(case)
            .map_err(|error| format!("the case can't be read: {error}"))
            .and_then(|case| play_case(&case)),
    };
    Ok(case::cases(file)?.iter().enumerate().map(outcome).collect())
}

fn play_case(case: &Case) -> Result<(), String> {
    let entries = case.regions.iter().map(|region| MemoryRegion {
        start: region.start.0,
        length: region.len.0,
        kind: region.kind(),
    });
    let mut buffer = vec![MapEntry::EMPTY; MemoryMap::entries_needed(case.regions.len())];
    let map = MemoryMap::normalise(entries, &mut buffer).map_err(|error| error.to_string())?;

    let mut compared = 0;
    if let Some(expected) = &case.usable_frames {
        compare_ranges("usable", expected, map.usable())?;
        compared += 1;
    }
    if let Some(expected) = &case.reclaimable_frames {
        compare_ranges("reclaimable", expected, map.reclaimable())?;
        compared += 1;
    }
    if let Some(Number(expected)) = case.usable_count {
        let found = map.usable_frames();
        if found != expected {
            return Err(format!("{found} usable frames, expected {expected}"));
        }
        compared += 1;
    }
    if compared == 0 { Err("the case gives no answer to compare with".to_owned()) } else { Ok(()) }
}

/// Compares ranges one by one, and names the first that differs.
fn compare_ranges(
    what: &str,
    expected: &[(Number, Number)],
    found: impl Iterator<Item = NumberRange>,
) -> Result<(), String> {
    let found: Vec<_> = found.map(|range| (range.start().get(), range.end().get())).collect();
    for index in 0..expected.len().max(found.len()) {
        let expected = expected.get(index).map(|(start, end)| (start.0, end.0));
        let found = found.get(index).copied();
        if expected != found {
            let show = |range: Option<(u64, u64)>| {
                range.map_or("none".to_owned(), |(start, end)| format!("{start}..{end}"))
            };
            let (found, expected) = (show(found), show(expected));
            return Err(format!("{what} range {index} is {found}, expected {expected}"));
        }
    }
    Ok(())
}
