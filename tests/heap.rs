//! The heap on a pool: memory is what was asked for and stays what was written, and the frames go
//! back when nothing is left in them.
#![cfg(all(not(loom), feature = "heap"))]

mod support;

use std::alloc::{GlobalAlloc, Layout, alloc};
use std::cell::Cell;
use std::ptr::NonNull;

use frametree::cpus::Guard;
use frametree::heap::{Bytes, PoolHeap};
use frametree::{CpuId, Cpus, FRAME_SIZE, FramePool};
use proptest::prelude::*;
use support::{BLOCK, Threads, pool};

/// Threads have no interrupts, and no two have the same CPU.
struct Free;
// SAFETY: see `Threads`.
unsafe impl Guard for Free {
    fn hold<R>(&self, work: impl FnOnce() -> R) -> R {
        work()
    }
}

type Heap<B = linked_list_allocator::Heap> = PoolHeap<Threads, Free, B>;

const FRAMES: u64 = 4 * BLOCK;

/// A pool of real memory, and a heap on it. Never freed.
fn heap<B: Bytes>(cpus: usize) -> (Heap<B>, &'static FramePool<Threads>) {
    let pool = pool(Threads, cpus, &[(0, FRAMES)]);
    // SAFETY: see `memory`.
    (unsafe { PoolHeap::new(pool, Free, memory()) }, pool)
}

/// Where physical address 0 is "mapped": all memory of a pool lies behind it.
fn memory() -> usize {
    let layout = Layout::from_size_align((FRAMES * FRAME_SIZE) as usize, 2 << 20).unwrap();
    // SAFETY: its size is not 0.
    let memory = unsafe { alloc(layout) };
    assert!(!memory.is_null());
    memory.expose_provenance()
}

/// Something allocated, full of a byte of its own.
struct Object {
    memory: *mut u8,
    layout: Layout,
    byte: u8,
}

impl Object {
    fn new(heap: &Heap<impl Bytes>, size: usize, align: usize, byte: u8) -> Option<Self> {
        let layout = Layout::from_size_align(size, align).expect("a layout");
        // SAFETY: the size is not 0.
        let memory = unsafe { heap.alloc(layout) };
        assert!(memory.addr().is_multiple_of(align));
        // SAFETY: memory of that size.
        (!memory.is_null()).then(|| unsafe { memory.write_bytes(byte, size) })?;
        Some(Self { memory, layout, byte })
    }

    fn free(self, heap: &Heap<impl Bytes>) {
        // SAFETY: memory of that size, written when it was allocated.
        let bytes = unsafe { std::slice::from_raw_parts(self.memory, self.layout.size()) };
        assert!(bytes.iter().all(|&byte| byte == self.byte), "{:?} was written to", self.layout);
        // SAFETY: allocated here, with this layout, and freed once.
        unsafe { heap.dealloc(self.memory, self.layout) };
    }
}

/// All frames are free, and whole again.
fn all_is_back(heap: &Heap<impl Bytes>, pool: &FramePool<Threads>) {
    assert!(heap.frames() <= 64, "{} frames for an empty heap", heap.frames());
    heap.trim();
    assert_eq!(heap.frames(), 0);
    pool.drain().expect("a drain");
    pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(pool.stats().free_blocks, FRAMES / BLOCK);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn objects_of_all_sizes_keep_what_is_in_them(
        steps in prop::collection::vec((0usize..18, 1usize..200, 0u32..14, any::<usize>()), 1..300),
    ) {
        let (heap, pool) = heap::<linked_list_allocator::Heap>(1);
        let mut objects = Vec::new();
        for (index, (log, size, align, which)) in steps.into_iter().enumerate() {
            if which % 3 == 0 && !objects.is_empty() {
                let object: Object = objects.swap_remove(which % objects.len());
                object.free(&heap);
            } else {
                let size = (size << log) / 128 + 1;
                objects.extend(Object::new(&heap, size, 1 << align, index as u8));
            }
            let held = objects.iter().map(|object| object.layout.size() as u64).sum::<u64>();
            prop_assert!(heap.frames() * FRAME_SIZE >= held);
            prop_assert!(heap.frames() + pool.stats().free_frames == FRAMES);
        }
        objects.into_iter().for_each(|object| object.free(&heap));
        all_is_back(&heap, pool);
    }
}

#[test]
fn it_grows_and_shrinks_by_segments_and_keeps_one() {
    let (heap, pool) = heap::<linked_list_allocator::Heap>(1);
    let one = || Object::new(&heap, 32 << 10, 1, 1).expect("memory");
    let mut objects: Vec<_> = (0..70).map(|_| one()).collect();
    // Seven of them fit beside a segment's header.
    assert_eq!(heap.frames(), 10 * 64);
    objects.drain(..35).for_each(|object| object.free(&heap));
    assert_eq!(heap.frames(), 6 * 64, "five are empty, one of them is kept");
    objects.extend((0..7).map(|_| one()));
    assert_eq!(heap.frames(), 6 * 64, "the one that was kept is used");
    objects.extend((0..1).map(|_| one()));
    assert_eq!(heap.frames(), 7 * 64);
    objects.into_iter().for_each(|object| object.free(&heap));
    assert_eq!(heap.frames(), 64);
    all_is_back(&heap, pool);
}

#[test]
fn large_objects_are_just_their_frames() {
    let (heap, pool) = heap::<linked_list_allocator::Heap>(1);
    let long = Object::new(&heap, 100 << 10, 8, 1).expect("memory");
    assert_eq!(heap.frames(), 25);
    let aligned = Object::new(&heap, 5000, 2 << 20, 2).expect("memory");
    assert_eq!(heap.frames(), 27);
    [long, aligned].into_iter().for_each(|object| object.free(&heap));
    all_is_back(&heap, pool);
}

#[test]
fn a_full_pool_is_null_and_nothing_is_lost() {
    let (heap, pool) = heap::<linked_list_allocator::Heap>(1);
    let objects: Vec<_> = std::iter::from_fn(|| Object::new(&heap, 20_000, 16, 3)).collect();
    assert_eq!(pool.stats().free_frames, 0);
    assert!(Object::new(&heap, 1 << 20, 1, 4).is_none());
    objects.into_iter().for_each(|object| object.free(&heap));
    all_is_back(&heap, pool);
}

#[test]
fn all_cpus_at_once() {
    let (heap, pool) = heap::<linked_list_allocator::Heap>(4);
    std::thread::scope(|scope| {
        for cpu in 0..4 {
            let (heap, pool) = (&heap, pool);
            scope.spawn(move || {
                Threads::become_cpu(cpu);
                let mut objects = Vec::new();
                for round in 0..3000usize {
                    let size = (round * 7919) % 40_000 + 1;
                    objects.extend(Object::new(heap, size, 8, (round * 4 + cpu) as u8));
                    if objects.len() > 20 {
                        objects.swap_remove(round % 20).free(heap);
                    }
                }
                objects.into_iter().for_each(|object| object.free(heap));
                pool.drain().expect("a drain");
            });
        }
    });
    all_is_back(&heap, pool);
}

std::thread_local! {
    static LOCKED: Cell<bool> = const { Cell::new(false) };
}

/// Says so while it is held.
struct Noted;
// SAFETY: as `Free`.
unsafe impl Guard for Noted {
    fn hold<R>(&self, work: impl FnOnce() -> R) -> R {
        LOCKED.set(true);
        let result = work();
        LOCKED.set(false);
        result
    }
}

/// A kernel whose hooks wait for other CPUs, which may wait for the heap's lock.
struct Outside;
// SAFETY: one thread.
unsafe impl Cpus for Outside {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        assert!(!LOCKED.get(), "the pool is used under the heap's lock");
        work(CpuId::new(0))
    }
}

#[test]
fn the_pool_is_used_outside_of_the_lock() {
    let pool = pool(Outside, 1, &[(0, FRAMES)]);
    // SAFETY: see `memory`.
    let heap: PoolHeap<_, _> = unsafe { PoolHeap::new(pool, Noted, memory()) };
    for size in [100, 30 << 10, 300 << 10] {
        let layout = Layout::from_size_align(size, 8).unwrap();
        // SAFETY: the size is not 0, and what was allocated is freed once.
        unsafe {
            let objects: [_; 20] = std::array::from_fn(|_| heap.alloc(layout));
            assert!(objects.iter().all(|object| !object.is_null()));
            objects.into_iter().for_each(|object| heap.dealloc(object, layout));
        }
    }
    heap.trim();
    assert_eq!((heap.frames(), pool.stats().free_frames), (0, FRAMES));
}

/// The simplest allocator of bytes there is: it takes memory back only when it has got all of it.
struct Bump {
    next: usize,
    end: usize,
    used: usize,
}

// SAFETY: `next` only grows while something is allocated.
unsafe impl Bytes for Bump {
    unsafe fn new(start: *mut u8, length: usize) -> Self {
        let next = start.expose_provenance();
        Self { next, end: next + length, used: 0 }
    }

    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let start = self.next.next_multiple_of(layout.align());
        let end = start.checked_add(layout.size()).filter(|&end| end <= self.end)?;
        (self.next, self.used) = (end, self.used + 1);
        NonNull::new(std::ptr::with_exposed_provenance_mut(start))
    }

    unsafe fn free(&mut self, _: NonNull<u8>, _: Layout) {
        self.used -= 1;
    }

    fn is_empty(&self) -> bool {
        self.used == 0
    }
}

#[test]
fn another_allocator_of_bytes() {
    let (heap, pool) = heap::<Bump>(1);
    let objects: Vec<_> =
        (1..1000).filter_map(|size| Object::new(&heap, size * 3, 8, size as u8)).collect();
    assert_eq!(objects.len(), 999);
    objects.into_iter().for_each(|object| object.free(&heap));
    all_is_back(&heap, pool);
}
