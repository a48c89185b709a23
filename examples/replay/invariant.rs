//! What the recordings state of a page cache in words, checked in code. A statement is known by
//! its name; one that is not known fails, for nobody checked it.

use frametree::{CpuId, FrameNumber, PageCache};
use serde_json::Value;

use crate::case::Number;
use crate::heap::Heap;
use crate::player::cache_of;
use crate::script::{CacheState, Failure, compare, differs, read};

/// CPUs of the machine from which CPUs are removed.
const CPUS: usize = 4;

/// Checks the statement of this name.
pub fn play(name: &str) -> Result<(), Failure> {
    match name {
        "AllocFromEmptyFails" => alloc_from_empty_fails(),
        "FlushEmptyIsNoop" => flush_of_empty_changes_nothing(),
        "FlushEmptiesCache" => flush_empties_the_cache(),
        "NoLeakOnCpuRemoval" => no_leak_on_cpu_removal(),
        _ => Err(Failure::Unreadable("it states in words what no code here checks".to_owned())),
    }
}

/// A cache of these free bits is empty or not, as recorded.
pub fn play_emptiness(case: &Value) -> Result<(), Failure> {
    let free = read::<Number>(&case["cache"])?.0;
    let cache = cache_of(&CacheState { base_page: Some(0), free, zero: None })?;
    let expected = read::<bool>(&case["empty"])?;
    compare(format!("the emptiness of {free:#x}"), &cache.is_empty(), &expected)
}

/// A base that is not 0, but nothing free: what is left of a cache that was used up.
fn used_up() -> Result<PageCache, Failure> {
    let full = CacheState { base_page: Some(64), free: u64::MAX, zero: Some(u64::MAX) };
    let mut cache = cache_of(&full)?;
    while cache.alloc().is_some() {}
    Ok(cache)
}

fn parts(cache: &PageCache) -> (FrameNumber, u64, u64) {
    (cache.base(), cache.free(), cache.known_zero())
}

fn alloc_from_empty_fails() -> Result<(), Failure> {
    for mut cache in [PageCache::EMPTY, used_up()?] {
        let before = parts(&cache);
        for n in 0..=130 {
            compare(format!("alloc_n({n})"), &cache.alloc_n(n), &None)?;
        }
        compare("alloc()", &cache.alloc(), &None)?;
        compare("the cache after all failures", &parts(&cache), &before)?;
    }
    Ok(())
}

fn flush_of_empty_changes_nothing() -> Result<(), Failure> {
    let heap = Heap::all_free(&[0, 1], 1)?;
    let taken = [heap.tree().refill(), heap.tree().refill()];
    compare("refills that failed", &taken.iter().filter(|taken| taken.is_err()).count(), &0)?;
    let before = heap.read_all()?;
    for mut cache in [PageCache::EMPTY, used_up()?] {
        cache.flush(heap.tree()).or_else(|error| differs(error.to_string()))?;
        compare("the heap after an empty flush", &heap.read_all()?, &before)?;
    }
    let mut next = heap.tree().refill().or_else(|error| differs(error.to_string()))?;
    compare("the next refill", &next.base(), &crate::heap::frame_of(128)?)?;
    next.flush(heap.tree()).or_else(|error| differs(error.to_string()))
}

fn flush_empties_the_cache() -> Result<(), Failure> {
    let heap = Heap::all_free(&[0], 1)?;
    let mut cache = heap.tree().refill().or_else(|error| differs(error.to_string()))?;
    compare("frames of a refill", &cache.free(), &u64::MAX)?;
    cache.flush(heap.tree()).or_else(|error| differs(error.to_string()))?;
    compare("emptiness after a flush", &cache.is_empty(), &true)?;
    compare("the cache after a flush", &parts(&cache), &parts(&PageCache::EMPTY))
}

/// Each CPU uses the pool, so that each has a filled cache; all but the first go away.
fn no_leak_on_cpu_removal() -> Result<(), Failure> {
    let heap = Heap::all_free(&[0, 1], CPUS)?;
    let managed = heap.tree().managed_frames();
    for cpu in 0..CPUS {
        heap.become_cpu(cpu);
        let frame = heap.pool().alloc().or_else(|error| differs(error.to_string()))?;
        heap.pool().free(frame).or_else(|error| differs(error.to_string()))?;
    }
    let cached = managed - heap.tree().count_free().frames;
    if cached < CPUS as u64 {
        return differs(format!("{CPUS} CPUs used the pool, and only {cached} frames are cached"));
    }
    heap.become_cpu(0);
    for cpu in 1..CPUS {
        // SAFETY: this CPU is the same thread, which is CPU 0 from here on.
        let drained = unsafe { heap.pool().drain_offline(CpuId::new(cpu)) };
        drained.or_else(|error| differs(error.to_string()))?;
    }
    // What is not back now, after the one CPU left gave back its own, was lost with another.
    heap.pool().drain().or_else(|error| differs(error.to_string()))?;
    compare("free frames in the end", &heap.tree().count_free().frames, &managed)
}
