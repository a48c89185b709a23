//! Plays a file of recorded cases: decides by the shape of each case what it asks for, runs it
//! on the real library, and compares.

use std::panic::{AssertUnwindSafe, catch_unwind};

use frametree::{PageCache, bits};
use serde_json::Value;

use crate::case::{self, Number, Outcome};
use crate::heap::{GROUP_PAGES, Heap, frame_of, page_of};
use crate::script::{After, CacheState, Failure, Script, Step, compare, differs, read};
use crate::{growth, invariant, successor};

/// The files that this plays.
const SCHEMA: &str = "go-pagealloc-cases/1";

/// Plays every case of a file; `Err` if it is not of this schema.
pub fn play(file: &Value) -> Result<Vec<Outcome>, String> {
    let schema = file.get("schema").and_then(Value::as_str);
    if schema != Some(SCHEMA) {
        return Err(format!("its `schema` is {schema:?}, and only {SCHEMA:?} can be played"));
    }
    let outcome = |(index, case)| Outcome {
        name: case_name(case, index),
        result: catch_unwind(AssertUnwindSafe(|| play_case(case)))
            .unwrap_or_else(|panic| differs(panic_text(panic.as_ref())))
            .map_err(|failure| failure.to_string()),
    };
    Ok(case::cases(file)?.iter().enumerate().map(outcome).collect())
}

fn case_name(case: &Value, index: usize) -> String {
    let seed = case.get("seed").and_then(Value::as_u64);
    seed.map_or_else(|| case::name(case, index), |seed| format!("seed {seed}"))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a text"))
}

fn play_case(case: &Value) -> Result<(), Failure> {
    let has = |fields: &[&str]| fields.iter().all(|field| case.get(field).is_some());
    if has(&["chunks", "in_use_chunks"]) {
        return growth::play(case);
    }
    if has(&["x", "n", "result"]) {
        return play_lowest_run(case);
    }
    if has(&["ranges", "addr", "index"]) {
        return successor::play(case);
    }
    if has(&["cache", "empty"]) {
        return invariant::play_emptiness(case);
    }
    if let Some(cases) = case.get("cases").and_then(Value::as_array) {
        return cases.iter().try_for_each(play_case);
    }
    if ["calls", "ops", "before_alloc", "before", "before_free"].iter().any(|field| has(&[field])) {
        return Machine::play(&Script::read(case)?);
    }
    if has(&["text"]) {
        return invariant::play(case.get("name").and_then(Value::as_str).unwrap_or_default());
    }
    Err(Failure::Unreadable("there is nothing in it that could be played".to_owned()))
}

fn play_lowest_run(case: &Value) -> Result<(), Failure> {
    let number = |field: &str| read::<Number>(&case[field]);
    let (x, n) = (number("x")?.0, number("n")?.0);
    let expected = read::<Option<Number>>(&case["result"])?.map(|result| result.0);
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    let found = bits::lowest_run(x, n).map(u64::from);
    compare(format!("lowest_run({x:#x}, {n})"), &found, &expected)
}

/// The library, part of the way through a script.
struct Machine {
    heap: Option<Heap>,
    cache: PageCache,
}

impl Machine {
    fn play(script: &Script) -> Result<(), Failure> {
        let heap = script.heap.as_ref().map(Heap::in_state).transpose()?;
        let mut machine = Self { heap, cache: cache_of(&script.cache)? };
        for (index, step) in script.steps.iter().enumerate() {
            machine.step(step).map_err(|failure| match failure {
                Failure::Differs(what) => Failure::Differs(format!("step {index}: {what}")),
                other => other,
            })?;
        }
        machine.check_after(&script.after)
    }

    fn heap(&self) -> Result<&Heap, Failure> {
        let why = || Failure::Unreadable("a step needs a heap, and there is none".to_owned());
        self.heap.as_ref().ok_or_else(why)
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Alloc { pages, page, zero_pages } => {
                let run = self.heap()?.alloc(*pages, zero_pages.is_some())?;
                let first = run.map(|(first, _)| first);
                compare(format!("page of a run of {pages}"), &first, page)?;
                // Without a run, what is recorded of its contents says nothing.
                let zero = run.map_or(0, |(_, zero)| zero);
                compare("zero pages", &zero, &zero_pages.filter(|_| run.is_some()).unwrap_or(zero))
            }
            Step::Free { page, pages } => self.heap()?.free(*page, *pages),
            Step::Clear { cleared } => {
                compare("pages cleared", &self.heap()?.clear_all()?, cleared)
            }
            Step::CacheAlloc { pages, page, zero_pages } => {
                self.cache_alloc(*pages, *page, *zero_pages)
            }
            Step::Refill(expected) => {
                let refilled = self.heap()?.tree().refill();
                compare("a cache got", &refilled.is_ok(), &expected.base_page.is_some())?;
                self.cache = refilled.unwrap_or(PageCache::EMPTY);
                self.check_cache(expected)
            }
            Step::Flush(expected) => {
                expected.iter().try_for_each(|expected| self.check_cache(expected))?;
                let mut cache = std::mem::replace(&mut self.cache, PageCache::EMPTY);
                let flushed = cache.flush(self.heap()?.tree());
                self.cache = cache;
                flushed.or_else(|error| differs(format!("flush: {error}")))
            }
            Step::Check { free, summaries } => {
                self.heap()?.check("check", Some(free), None, Some(summaries))
            }
        }
    }

    fn cache_alloc(
        &mut self,
        pages: u64,
        page: Option<u64>,
        zero_pages: Option<u64>,
    ) -> Result<(), Failure> {
        let n = u32::try_from(pages).unwrap_or(u32::MAX);
        let run = self.cache.alloc_n(n);
        // They stay taken, by the case.
        let run = run.map(|run| (run.frames.into_numbers(), run.known_zero));
        let found = run.map(|(frames, _)| page_of(frames.start()));
        compare(format!("page of a run of {pages}"), &found, &page)?;
        if let Some((frames, _)) = run {
            compare("pages of the run", &frames.len(), &pages)?;
        }
        let found = run.map_or(0, |(_, known_zero)| u64::from(known_zero.count_ones()));
        compare("zero pages", &found, &zero_pages.unwrap_or(found))
    }

    /// Compares what the cache holds with the record, which tells its base only if it holds
    /// something.
    fn check_cache(&self, expected: &CacheState) -> Result<(), Failure> {
        compare("cache", &self.cache.free(), &expected.free)?;
        if expected.free != 0 {
            compare("base page", &Some(page_of(self.cache.base())), &expected.base_page)?;
        }
        let zero = self.cache.known_zero();
        compare("known zero in the cache", &zero, &expected.zero.unwrap_or(zero))
    }

    fn check_after(&self, after: &After) -> Result<(), Failure> {
        if let Some(empty) = after.cache_empty {
            compare("the cache's emptiness at the end", &self.cache.is_empty(), &empty)?;
        }
        let Some(heap) = &self.heap else {
            return Ok(());
        };
        let (free, zero, summaries) = (&after.free, &after.zero, &after.summaries);
        heap.check("at the end", free.as_ref(), zero.as_ref(), summaries.as_ref())
    }
}

/// The cache that a case starts with. A flag for a page that is not in the cache says nothing.
pub fn cache_of(state: &CacheState) -> Result<PageCache, Failure> {
    let Some(base_page) = state.base_page else {
        return Ok(PageCache::EMPTY);
    };
    if base_page % GROUP_PAGES != 0 {
        return Err(Failure::Unreadable(format!("page {base_page} is no base of a cache")));
    }
    let zero = state.zero.unwrap_or(0) & state.free;
    // SAFETY: recorded as owned by the cache, and these frames are only numbers.
    Ok(unsafe { PageCache::from_parts(frame_of(base_page)?, state.free, zero) })
}
