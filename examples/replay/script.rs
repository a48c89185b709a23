//! A recorded case as a script: the heap and the cache that it starts with, its steps with their
//! answers, and what must be true at the end. Read from JSON by what a case holds, not by which
//! file it is in.
//!
//! Pages are numbered as in the file: from the first page of chunk 0. Recorded allocation bits
//! are 1 for allocated; here, as everywhere in this project, 1 is free.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::case::Number;

/// Pages of a chunk.
pub const CHUNK_PAGES: u64 = 512;

/// One bit for each page of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bits(pub [u64; 8]);

/// Something for each of some chunks, by the number of the chunk.
pub type Chunks<T> = BTreeMap<u64, T>;

/// Why a case did not pass.
pub enum Failure {
    /// The case itself makes no sense to the player.
    Unreadable(String),
    /// It asks for an operation that the library does not have yet.
    NotBuilt(&'static str),
    /// The library answers otherwise.
    Differs(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "the case can't be read: {why}"),
            Self::NotBuilt(what) => write!(f, "not built yet: {what}"),
            Self::Differs(what) => f.write_str(what),
        }
    }
}

/// Fails with the words given.
pub fn differs<T>(what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Differs(what.into()))
}

/// Fails if what was found is not what was expected.
pub fn compare<T: PartialEq + fmt::Debug>(
    what: impl fmt::Display,
    found: &T,
    expected: &T,
) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    differs(format!("{what} is {found:x?}, expected {expected:x?}"))
}

/// One call, with its recorded answer.
#[derive(Debug)]
pub enum Step {
    /// Allocate a run of pages from the heap.
    Alloc { pages: u64, page: Option<u64>, zero_pages: Option<u64> },
    /// Make all that is free known to be zero; so many pages were not.
    Clear { cleared: u64 },
    /// Free a run of pages to the heap.
    Free { page: u64, pages: u64 },
    /// Fill the cache anew; what it held stays allocated.
    Refill(CacheState),
    /// Allocate a run of pages from the cache.
    CacheAlloc { pages: u64, page: Option<u64>, zero_pages: Option<u64> },
    /// Give the cache back, which holds this, where recorded.
    Flush(Option<CacheState>),
    /// The heap is in this state.
    Check { free: Chunks<Bits>, summaries: Chunks<[u64; 3]> },
}

/// A page cache: no base is one that holds nothing. Bits are relative to the base.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheState {
    pub base_page: Option<u64>,
    pub free: u64,
    pub zero: Option<u64>,
}

/// A heap to start with: which pages are free, and which of them are known to be zero.
#[derive(Debug)]
pub struct HeapState {
    pub free: Chunks<Bits>,
    pub zero: Chunks<Bits>,
}

/// What must be true at the end; what a case does not give is not compared.
#[derive(Debug, Default)]
pub struct After {
    pub free: Option<Chunks<Bits>>,
    pub zero: Option<Chunks<Bits>>,
    pub summaries: Option<Chunks<[u64; 3]>>,
    pub cache_empty: Option<bool>,
}

/// A case to play.
#[derive(Debug)]
pub struct Script {
    pub heap: Option<HeapState>,
    pub cache: CacheState,
    pub steps: Vec<Step>,
    pub after: After,
}

type Ranges = Vec<(Number, Number)>;

#[derive(Deserialize)]
struct RawCase {
    /// A chunk alone: what is allocated in it.
    before: Option<Ranges>,
    after: Option<Ranges>,
    /// The same the other way round: what is free.
    before_free: Option<Ranges>,
    after_free: Option<Ranges>,
    before_alloc: Option<BTreeMap<String, Ranges>>,
    #[serde(default)]
    before_scav: BTreeMap<String, Ranges>,
    cache: Option<RawCache>,
    calls: Option<Vec<RawCall>>,
    ops: Option<Vec<Vec<Value>>>,
    hits: Option<Vec<Option<Number>>>,
    frees: Option<Vec<Number>>,
    npages: Option<Number>,
    after_alloc: Option<BTreeMap<String, Ranges>>,
    after_scav: Option<BTreeMap<String, Ranges>>,
    after_sum: Option<BTreeMap<String, [Number; 3]>>,
    after_state: Option<BTreeMap<String, RawState>>,
    after_cache_empty: Option<bool>,
}

#[derive(Deserialize)]
struct RawCache {
    base_page: Number,
    cache: Number,
    #[serde(default)]
    scav: Number,
}

#[derive(Deserialize)]
struct RawState {
    sum: Option<[Number; 3]>,
    alloc: Option<Ranges>,
    scav: Option<Ranges>,
}

/// A call of one of the recorded kinds, told apart by their fields.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawCall {
    Scavenge { request_pages: Value, released_pages: Number },
    Alloc { npages: Number, page: Option<Number>, scav_pages: Option<Number> },
    Refill { base_page: Option<Number>, cache: Number, scav: Option<Number> },
}

/// Reads a value as a type, with the reason if it can't be.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value).map_err(|error| Failure::Unreadable(error.to_string()))
}

impl Script {
    /// Reads a case.
    pub fn read(case: &Value) -> Result<Self, Failure> {
        let raw: RawCase = read(case)?;
        let free =
            free_pages(raw.before_alloc.as_ref(), raw.before.as_ref(), raw.before_free.as_ref())?;
        let zero = chunks(&raw.before_scav, |ranges| Bits::from_ranges(ranges))?;
        let heap = free.map(|free| HeapState { free, zero });
        let cache = raw.cache.as_ref().map_or_else(CacheState::default, |cache| CacheState {
            base_page: Some(cache.base_page.0),
            free: cache.cache.0,
            zero: Some(cache.scav.0),
        });
        Ok(Self { heap, cache, steps: steps(&raw)?, after: After::read(&raw)? })
    }
}

/// The steps of a case: its calls, its operations, its hits, its frees; or, if it has only a cache
/// and a heap, that the one is flushed into the other.
fn steps(raw: &RawCase) -> Result<Vec<Step>, Failure> {
    if let Some(calls) = &raw.calls {
        return calls.iter().map(|call| step_of_call(call, raw.cache.is_some())).collect();
    }
    if let Some(ops) = &raw.ops {
        return ops.iter().map(|op| step_of_op(op)).collect();
    }
    if let (Some(hits), Some(Number(pages))) = (&raw.hits, raw.npages) {
        let step = |hit: &Option<Number>| {
            let page = hit.map(|page| page.0);
            Step::Alloc { pages, page, zero_pages: None }
        };
        return Ok(hits.iter().map(step).collect());
    }
    if let (Some(frees), Some(Number(pages))) = (&raw.frees, raw.npages) {
        return Ok(frees.iter().map(|page| Step::Free { page: page.0, pages }).collect());
    }
    if raw.cache.is_some() && raw.before_alloc.is_some() {
        return Ok(vec![Step::Flush(None)]);
    }
    Err(Failure::Unreadable("there are no steps in it".to_owned()))
}

/// A call that allocates means the cache, if the case has one.
fn step_of_call(call: &RawCall, has_cache: bool) -> Result<Step, Failure> {
    match call {
        // Go gives pages back to its host, which makes them zero. Here they are cleared where
        // they are: done to all that is free, this leaves the same state. Which of them are the
        // first is Go's choice (the highest, by huge pages of 256); no call here chooses so.
        RawCall::Scavenge { request_pages, released_pages } if request_pages == "all" => {
            Ok(Step::Clear { cleared: released_pages.0 })
        }
        RawCall::Scavenge { .. } => {
            Err(Failure::NotBuilt("clearing some free pages, from the highest address down"))
        }
        RawCall::Refill { base_page, cache, scav } => Ok(Step::Refill(CacheState {
            base_page: base_page.map(|page| page.0),
            free: cache.0,
            zero: scav.map(|zero| zero.0),
        })),
        RawCall::Alloc { npages, page, scav_pages } => {
            let (pages, page) = (npages.0, page.map(|page| page.0));
            let zero_pages = scav_pages.map(|zero_pages| zero_pages.0);
            Ok(if has_cache {
                Step::CacheAlloc { pages, page, zero_pages }
            } else {
                Step::Alloc { pages, page, zero_pages }
            })
        }
    }
}

/// An operation of a trace: a list that starts with its name.
fn step_of_op(op: &[Value]) -> Result<Step, Failure> {
    let number = |value: &Value| read::<Number>(value).map(|number| number.0);
    let optional = |value: &Value| Ok(read::<Option<Number>>(value)?.map(|number| number.0));
    let (name, arguments) = op.split_first().unwrap_or((&Value::Null, &[]));
    match (name.as_str().unwrap_or_default(), arguments) {
        ("alloc", [pages, page]) => {
            let (pages, page) = (number(pages)?, optional(page)?);
            Ok(Step::Alloc { pages, page, zero_pages: None })
        }
        ("cache_alloc", [pages, page]) => {
            let (pages, page) = (number(pages)?, optional(page)?);
            Ok(Step::CacheAlloc { pages, page, zero_pages: None })
        }
        ("free", [page, pages]) => Ok(Step::Free { page: number(page)?, pages: number(pages)? }),
        ("refill", [base, free]) => {
            let (base_page, free) = (optional(base)?, number(free)?);
            Ok(Step::Refill(CacheState { base_page, free, zero: None }))
        }
        ("flush", [base, free]) => {
            let (base_page, free) = (optional(base)?, number(free)?);
            Ok(Step::Flush(Some(CacheState { base_page, free, zero: None })))
        }
        ("check", [state]) => {
            type State = ([Number; 3], [Number; 8]);
            let state: BTreeMap<String, State> = read(state)?;
            let free = chunks(&state, |(_, words)| Ok(Bits(words.map(|word| !word.0))))?;
            let summaries = chunks(&state, |(summary, _)| Ok(summary.map(|part| part.0)))?;
            Ok(Step::Check { free, summaries })
        }
        _ => Err(Failure::Unreadable(format!("no known operation: {op:?}"))),
    }
}

impl After {
    fn read(raw: &RawCase) -> Result<Self, Failure> {
        let mut after = Self { cache_empty: raw.after_cache_empty, ..Self::default() };
        after.free =
            free_pages(raw.after_alloc.as_ref(), raw.after.as_ref(), raw.after_free.as_ref())?;
        if let Some(scav) = &raw.after_scav {
            after.zero = Some(chunks(scav, |ranges| Bits::from_ranges(ranges))?);
        }
        if let Some(sums) = &raw.after_sum {
            after.summaries = Some(chunks(sums, |sum| Ok(sum.map(|part| part.0)))?);
        }
        if let Some(state) = &raw.after_state {
            after.read_state(state)?;
        }
        Ok(after)
    }

    /// Adds a dumped end state, which goes before the flags that a test table writes down: Go
    /// compares heaps, and building a heap clears the flags of what is allocated.
    fn read_state(&mut self, state: &BTreeMap<String, RawState>) -> Result<(), Failure> {
        let (mut zero, mut summaries) = (Chunks::new(), Chunks::new());
        for (chunk, state) in chunks(state, Ok)? {
            if let Some(alloc) = &state.alloc {
                let free = Bits::from_ranges(alloc)?.inverted();
                let said = self.free.get_or_insert_default().insert(chunk, free);
                if said.is_some_and(|said| said != free) {
                    let why = "`after_alloc` and `after_state` contradict each other";
                    return Err(Failure::Unreadable(why.to_owned()));
                }
            }
            if let Some(scav) = &state.scav {
                zero.insert(chunk, Bits::from_ranges(scav)?);
            }
            if let Some(sum) = state.sum {
                summaries.insert(chunk, sum.map(|part| part.0));
            }
        }
        self.zero = Some(zero);
        self.summaries = Some(summaries);
        Ok(())
    }
}

/// What is free, of what is recorded: as allocated in each chunk, or of a chunk alone as allocated
/// or as free.
fn free_pages(
    alloc: Option<&BTreeMap<String, Ranges>>,
    alone: Option<&Ranges>,
    alone_free: Option<&Ranges>,
) -> Result<Option<Chunks<Bits>>, Failure> {
    if let Some(alloc) = alloc {
        return chunks(alloc, |ranges| Ok(Bits::from_ranges(ranges)?.inverted())).map(Some);
    }
    let free = match (alone, alone_free) {
        (Some(ranges), _) => Bits::from_ranges(ranges)?.inverted(),
        (None, Some(ranges)) => Bits::from_ranges(ranges)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(Chunks::from([(0, free)])))
}

/// Something for each chunk, whose numbers are strings in JSON.
fn chunks<'a, T, U>(
    raw: &'a BTreeMap<String, T>,
    convert: impl Fn(&'a T) -> Result<U, Failure>,
) -> Result<Chunks<U>, Failure> {
    let entry = |(key, value): (&String, &'a T)| {
        let chunk = key.parse().ok().filter(|chunk| *chunk < 1 << 30);
        let why = || Failure::Unreadable(format!("{key:?} is no number of a chunk"));
        Ok((chunk.ok_or_else(why)?, convert(value)?))
    };
    raw.iter().map(entry).collect()
}

impl Bits {
    fn from_ranges(ranges: &[(Number, Number)]) -> Result<Self, Failure> {
        let mut bits = Self::default();
        for (Number(start), Number(len)) in ranges {
            let end = start.checked_add(*len).filter(|end| *end <= CHUNK_PAGES);
            let why = || Failure::Unreadable(format!("no range in a chunk: [{start}, {len}]"));
            for page in *start..end.ok_or_else(why)? {
                bits.0[page as usize / 64] |= 1 << (page % 64);
            }
        }
        Ok(bits)
    }

    fn inverted(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    fn is_set(self, page: u64) -> bool {
        self.0[page as usize / 64] >> (page % 64) & 1 == 1
    }

    /// How many pages in a row are set at the start, at most anywhere, and at the end.
    pub fn summary(self) -> [u64; 3] {
        let is_set = |page: &u64| self.is_set(*page);
        let start = (0..CHUNK_PAGES).take_while(is_set).count() as u64;
        let end = (0..CHUNK_PAGES).rev().take_while(is_set).count() as u64;
        let (mut most, mut row) = (0, 0);
        for page in 0..CHUNK_PAGES {
            row = if self.is_set(page) { row + 1 } else { 0 };
            most = most.max(row);
        }
        [start, most, end]
    }
}
