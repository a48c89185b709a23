//! A heap in a recorded state, on the real library: chunks are mapped 2 MiB blocks, first all of
//! it is taken, then what should be free goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use frametree::{
    AllocError, CpuId, Cpus, FRAME_SIZE, Frame, FrameNumber, FramePool, FrameRange, FrameTree,
    Layout, MapEntry, MemoryMap, MemoryRegion, NumberRange, PageCache, RegionKind, Request,
};

use crate::script::{Bits, CHUNK_PAGES, Chunks, Failure, HeapState, compare, differs};

/// Where page 0 of the recordings lies. Not frame 0, so that no answer is right by accident; a
/// multiple of 1 GiB, so that chunks are blocks and lie in giants as they would from 0.
const BASE_FRAME: u64 = 3 << 18;
/// Where physical memory ends.
pub const FRAME_LIMIT: u64 = 1 << 40;
/// Page numbers end there.
const PAGE_LIMIT: u64 = FRAME_LIMIT - BASE_FRAME;
/// Pages of a group, which a page cache is filled from.
pub const GROUP_PAGES: u64 = 64;

/// The frame that a recorded page is played as.
pub fn frame_of(page: u64) -> Result<FrameNumber, Failure> {
    if page >= PAGE_LIMIT {
        return Err(Failure::Unreadable(format!("page {page} is above every address")));
    }
    Ok(FrameNumber::new(BASE_FRAME + page))
}

/// The recorded page that a frame is played as. A frame below page 0 shows up as a huge number,
/// which is no recorded answer.
pub fn page_of(frame: FrameNumber) -> u64 {
    frame.get().wrapping_sub(BASE_FRAME)
}

/// CPUs of a machine with one thread; the number says as which of them it is running.
pub struct OneThread(Arc<AtomicUsize>);

// SAFETY: all CPUs are one thread, for a heap is never shared with another: nobody can use a slot
// while someone else does. (`OneThread` is `Sync` because a pool asks for that; `Heap` is made,
// used and dropped within one call of the player.)
unsafe impl Cpus for OneThread {
    fn with_current<R>(&self, f: impl FnOnce(CpuId) -> R) -> R {
        // ORDERING: one thread only.
        f(CpuId::new(self.0.load(Ordering::Relaxed)))
    }
}

/// A heap of mapped chunks.
pub struct Heap {
    pool: FramePool<OneThread>,
    current: Arc<AtomicUsize>,
    chunks: Vec<u64>,
}

impl Heap {
    /// A heap of these chunks, all free, for so many CPUs.
    pub fn all_free(chunks: &[u64], cpus: usize) -> Result<Self, Failure> {
        let ranges = chunks.iter().copied().map(frames_of);
        let ranges = ranges.collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self { chunks: chunks.to_vec(), ..Self::of_ranges(&ranges, cpus)? })
    }

    /// A heap of these frames, all free, for so many CPUs; it has no chunks to look at.
    pub fn of_ranges(ranges: &[NumberRange], cpus: usize) -> Result<Self, Failure> {
        let region = |range: &NumberRange| {
            let (start, length) = (range.start().start_address(), range.len() * FRAME_SIZE);
            MemoryRegion { start, length, kind: RegionKind::Usable }
        };
        let regions: Vec<_> = ranges.iter().map(region).collect();
        let mut buffer = vec![MapEntry::EMPTY; MemoryMap::entries_needed(regions.len())];
        let map = MemoryMap::normalise(regions, &mut buffer).map_err(unusable)?;
        let layout = Layout::new(&map, cpus).map_err(unusable)?;
        let storage = vec![0; (layout.bytes() + 127) / 8].leak();
        let current = Arc::new(AtomicUsize::new(0));
        let pool = FramePool::new(OneThread(Arc::clone(&current)));
        // SAFETY: the frames of this heap are only numbers: nobody uses the memory behind them.
        unsafe { pool.init_in(&map, cpus, storage) }.map_err(unusable)?;
        Ok(Self { pool, current, chunks: Vec::new() })
    }

    /// A heap in a recorded state.
    pub fn in_state(state: &HeapState) -> Result<Self, Failure> {
        let chunks: Vec<u64> = state.free.keys().copied().collect();
        let heap = Self::all_free(&chunks, 1)?;
        for group in heap.take_all() {
            let (base, free, _) = group.into_parts();
            let page = page_of(base);
            let (chunk, word) = (page / CHUNK_PAGES, (page % CHUNK_PAGES / GROUP_PAGES) as usize);
            let bits = |of: &Chunks<Bits>| of.get(&chunk).map_or(0, |bits| bits.0[word]);
            let free = free & bits(&state.free);
            // SAFETY: these frames are a part of what was given up; the others stay taken.
            let mut back = unsafe { PageCache::from_parts(base, free, bits(&state.zero) & free) };
            back.flush(heap.tree()).map_err(unusable)?;
        }
        heap.check("the heap to start with", Some(&state.free), None, None)?;
        Ok(heap)
    }

    /// Maps one more chunk, all free.
    pub fn grow(&mut self, chunk: u64) -> Result<(), Failure> {
        let frames = frames_of(chunk)?;
        let storage = vec![0; (self.pool.bytes_to_grow(frames) + 127) / 8].leak();
        // SAFETY: as in `of_ranges`.
        let grown = unsafe { self.pool.grow_in(frames, storage) };
        self.chunks.push(chunk);
        grown.or_else(|error| differs(format!("chunk {chunk}: {error}")))
    }

    pub fn pool(&self) -> &FramePool<OneThread> {
        &self.pool
    }

    /// From now on this thread is that CPU.
    pub fn become_cpu(&self, cpu: usize) {
        // ORDERING: one thread only.
        self.current.store(cpu, Ordering::Relaxed);
    }

    pub fn tree(&self) -> &FrameTree<'static> {
        self.pool.tree().expect("initialised in the constructor")
    }

    /// Takes all that is free.
    pub fn take_all(&self) -> Vec<PageCache> {
        std::iter::from_fn(|| self.tree().refill().ok()).collect()
    }

    /// Takes the lowest run of so many pages: its first one, if there is one, and how many of
    /// them are known to be zero, if that is asked.
    pub fn alloc(&self, pages: u64, with_zero: bool) -> Result<Option<(u64, u64)>, Failure> {
        let (tree, request) = (self.tree(), Request::new(pages));
        let mut dirty = 0;
        let run = match (pages, with_zero) {
            (_, true) => tree.alloc_run_zeroed(&request, |run| dirty += run.len()),
            (1, false) => match tree.alloc() {
                Ok(frame) => Ok(frame.into()),
                Err(_) => return Ok(None),
            },
            (_, false) => tree.alloc_run(&request),
        };
        match run {
            Ok(run) => {
                let run = run.into_numbers();
                compare("pages of the run", &run.len(), &pages)?;
                let Some(zero) = pages.checked_sub(dirty) else {
                    return differs(format!("{dirty} of {pages} pages are to be cleared"));
                };
                Ok(Some((page_of(run.start()), zero)))
            }
            Err(AllocError::NoRun(_)) => Ok(None),
            Err(error) => differs(format!("alloc({pages}): {error}")),
        }
    }

    /// Gives a run of pages back.
    pub fn free(&self, page: u64, pages: u64) -> Result<(), Failure> {
        let last = page.checked_add(pages).filter(|end| *end > page).map(|end| end - 1);
        let why = || Failure::Unreadable(format!("{pages} pages at {page} are no run"));
        let (first, last) = (frame_of(page)?, frame_of(last.ok_or_else(why)?)?);
        let freed = if pages == 1 {
            // SAFETY: recorded as allocated, and these frames are only numbers. A wrong record
            // gives an error.
            self.tree().free(unsafe { Frame::from_number(first) })
        } else {
            let run = NumberRange::from_numbers(first.get(), last.get() + 1);
            // SAFETY: as above.
            self.tree().free_run(unsafe { FrameRange::from_numbers(run) })
        };
        freed.or_else(|error| differs(format!("free({page}, {pages}): {error}")))
    }

    /// Makes all that is free known to be zero, as an idle kernel would: takes it, and gives it
    /// back as cleared. How many pages were not known to be before.
    pub fn clear_all(&self) -> Result<u64, Failure> {
        let free = |state: Vec<(Bits, Bits)>| -> Vec<_> {
            state.into_iter().map(|(free, _)| free).collect()
        };
        let before = free(self.read_all()?);
        let mut cleared = 0;
        for group in self.take_all() {
            let (base, free, known_zero) = group.into_parts();
            cleared += u64::from((free & !known_zero).count_ones());
            // SAFETY: these frames were just given up.
            let mut back = unsafe { PageCache::from_parts(base, free, free) };
            back.flush(self.tree()).or_else(|error| differs(format!("flush: {error}")))?;
        }
        compare("free pages after clearing", &free(self.read_all()?), &before)?;
        Ok(cleared)
    }

    /// What is free in a chunk, and what of it is known to be zero, as the tree says it.
    pub fn read(&self, chunk: u64) -> Result<(Bits, Bits), Failure> {
        let (mut free, mut zero) = (Bits::default(), Bits::default());
        for word in 0..8 {
            let page = chunk * CHUNK_PAGES + word * GROUP_PAGES;
            let group = self.tree().peek(frame_of(page)?);
            let Some(group) = group else {
                return differs(format!("chunk {chunk} is not mapped"));
            };
            (free.0[word as usize], zero.0[word as usize]) = group;
        }
        Ok((free, zero))
    }

    /// The state of every chunk, to compare with another time.
    pub fn read_all(&self) -> Result<Vec<(Bits, Bits)>, Failure> {
        self.chunks.iter().map(|chunk| self.read(*chunk)).collect()
    }

    /// Compares with a recorded state, as far as it is given, and with the tree's own rules.
    pub fn check(
        &self,
        when: &str,
        free: Option<&Chunks<Bits>>,
        zero: Option<&Chunks<Bits>>,
        summaries: Option<&Chunks<[u64; 3]>>,
    ) -> Result<(), Failure> {
        for (chunk, expected) in free.into_iter().flatten() {
            compare(format!("{when}: free in chunk {chunk}"), &self.read(*chunk)?.0, expected)?;
        }
        for (chunk, expected) in zero.into_iter().flatten() {
            compare(format!("{when}: zero in chunk {chunk}"), &self.read(*chunk)?.1, expected)?;
        }
        for (chunk, expected) in summaries.into_iter().flatten() {
            let summary = self.read(*chunk)?.0.summary();
            compare(format!("{when}: free runs of chunk {chunk}"), &summary, expected)?;
        }
        self.pool.verify().or_else(|broken| differs(format!("{when}: {broken}")))
    }
}

fn frames_of(chunk: u64) -> Result<NumberRange, Failure> {
    let first = chunk.saturating_mul(CHUNK_PAGES);
    let start = frame_of(first)?.get();
    Ok(NumberRange::from_numbers(start, start + CHUNK_PAGES))
}

fn unusable(error: impl std::fmt::Display) -> Failure {
    Failure::Unreadable(format!("no heap can be built of it: {error}"))
}
