//! A kernel's heap on a pool: a `GlobalAlloc` that takes frames when it needs memory and gives them
//! back when nothing is left in them.
//!
//! Small objects lie in *segments*, runs of 64 frames, each with an allocator of bytes of its own:
//! `linked_list_allocator`, or any other that keeps to one piece of memory ([`Bytes`]). A segment
//! that becomes empty goes back to the pool; one is kept, so that a program at the edge does not
//! take and give frames at each step. Objects of more than 32 KiB, or aligned to more than a frame,
//! are runs of frames themselves.
//!
//! **Invariant:** a segment begins, physically and mapped, at a multiple of its size, so an
//! object's address names its segment. The list of segments, and all bytes in them, belong to the
//! lock's holder. The pool is only called outside of the lock: its hooks may do what they like, and
//! allocate here too.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull, with_exposed_provenance_mut};

use linked_list_allocator::Heap;
use spin::Mutex;

use crate::cpu::Cpus;
use crate::cpus::Guard;
use crate::frame::{FrameNumber, FrameRange, NumberRange};
use crate::geometry::{FRAME_SIZE, WORD_BITS};
use crate::pool::FramePool;
use crate::request::Request;

/// Frames of a segment: a group, which is one word of the tree.
const SEGMENT_FRAMES: u64 = WORD_BITS;
const SEGMENT_BYTES: usize = (SEGMENT_FRAMES * FRAME_SIZE) as usize;
/// What is larger does not go into a segment.
const SMALL: usize = SEGMENT_BYTES / 8;
const _: () = assert!(SMALL + FRAME_SIZE as usize + size_of::<Segment<Heap>>() < SEGMENT_BYTES);

/// An allocator of bytes in one piece of memory.
///
/// # Safety
/// What [`allocate`](Bytes::allocate) returns lies in the piece, is as large and aligned as the
/// layout asks, and overlaps nothing that was allocated and not freed since.
///
/// # Examples
/// The simplest of all, which only ever goes up, and has its memory back when nothing is left in
/// it:
///
/// ```
/// use core::alloc::Layout;
/// use core::ptr::NonNull;
/// use frametree::heap::Bytes;
///
/// struct Bump {
///     start: usize,
///     used: usize,
///     length: usize,
///     objects: usize,
/// }
///
/// // SAFETY: what is used only grows while there are objects, and stays within the piece.
/// unsafe impl Bytes for Bump {
///     unsafe fn new(start: *mut u8, length: usize) -> Self {
///         Self { start: start.expose_provenance(), used: 0, length, objects: 0 }
///     }
///
///     fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
///         let at = (self.start + self.used).next_multiple_of(layout.align());
///         let used = at - self.start + layout.size();
///         (used <= self.length).then(|| (self.used, self.objects) = (used, self.objects + 1))?;
///         NonNull::new(core::ptr::with_exposed_provenance_mut(at))
///     }
///
///     unsafe fn free(&mut self, _memory: NonNull<u8>, _layout: Layout) {
///         self.objects -= 1;
///         if self.objects == 0 {
///             self.used = 0;
///         }
///     }
///
///     fn is_empty(&self) -> bool {
///         self.objects == 0
///     }
/// }
/// # // SAFETY: nobody writes there.
/// # let mut bump = unsafe { Bump::new(0x1000 as *mut u8, 64) };
/// # let layout = Layout::new::<[u64; 5]>();
/// # let memory = bump.allocate(layout).expect("40 of 64 bytes");
/// # assert!(bump.allocate(layout).is_none());
/// # // SAFETY: it was allocated there.
/// # unsafe { bump.free(memory, layout) };
/// # assert!(bump.is_empty() && bump.allocate(layout).is_some());
/// ```
pub unsafe trait Bytes: Send {
    /// Takes over a piece of memory.
    ///
    /// # Safety
    /// The memory can be read and written and is nobody else's for as long as this is used.
    ///
    /// # Examples
    /// ```
    /// use frametree::heap::Bytes;
    /// use linked_list_allocator::Heap;
    ///
    /// let mut page = [0u64; 512];
    /// // SAFETY: the page is used by nothing else.
    /// let bytes: Heap = unsafe { Bytes::new(page.as_mut_ptr().cast(), 4096) };
    /// assert!(bytes.is_empty());
    /// ```
    unsafe fn new(start: *mut u8, length: usize) -> Self;

    /// Memory of that layout, or `None` if there is no place.
    ///
    /// # Examples
    /// ```
    /// # use frametree::heap::Bytes;
    /// # use linked_list_allocator::Heap;
    /// # use std::alloc::Layout;
    /// # let mut page = [0u64; 512];
    /// # // SAFETY: the page is used by nothing else.
    /// # let mut bytes: Heap = unsafe { Bytes::new(page.as_mut_ptr().cast(), 4096) };
    /// assert!(bytes.allocate(Layout::new::<[u8; 3000]>()).is_some());
    /// // No place for it here; a heap asks its next segment.
    /// assert!(bytes.allocate(Layout::new::<[u8; 3000]>()).is_none());
    /// ```
    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// Takes memory back.
    ///
    /// # Safety
    /// It came from [`allocate`](Bytes::allocate) of this value with this layout; it is freed once.
    ///
    /// # Examples
    /// ```
    /// # use frametree::heap::Bytes;
    /// # use linked_list_allocator::Heap;
    /// # use std::alloc::Layout;
    /// # let mut page = [0u64; 512];
    /// # // SAFETY: the page is used by nothing else.
    /// # let mut bytes: Heap = unsafe { Bytes::new(page.as_mut_ptr().cast(), 4096) };
    /// let layout = Layout::new::<[u8; 3000]>();
    /// let memory = bytes.allocate(layout).expect("3000 of 4096 bytes");
    /// // SAFETY: it came from there, with this layout.
    /// unsafe { Bytes::free(&mut bytes, memory, layout) };
    /// assert!(bytes.allocate(layout).is_some()); // there is room again
    /// ```
    unsafe fn free(&mut self, memory: NonNull<u8>, layout: Layout);

    /// Whether all that was allocated is freed.
    ///
    /// # Examples
    /// ```
    /// # use frametree::heap::Bytes;
    /// # use linked_list_allocator::Heap;
    /// # use std::alloc::Layout;
    /// # let mut page = [0u64; 512];
    /// # // SAFETY: the page is used by nothing else.
    /// # let mut bytes: Heap = unsafe { Bytes::new(page.as_mut_ptr().cast(), 4096) };
    /// let layout = Layout::new::<u64>();
    /// let memory = bytes.allocate(layout).expect("8 of 4096 bytes");
    /// assert!(!bytes.is_empty());
    /// // SAFETY: it came from there, with this layout.
    /// unsafe { Bytes::free(&mut bytes, memory, layout) };
    /// assert!(bytes.is_empty()); // so a heap can give the segment back
    /// ```
    fn is_empty(&self) -> bool;
}

// SAFETY: `Heap` promises that much itself.
unsafe impl Bytes for Heap {
    unsafe fn new(start: *mut u8, length: usize) -> Self {
        // SAFETY: by contract.
        unsafe { Self::new(start, length) }
    }

    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.allocate_first_fit(layout).ok()
    }

    unsafe fn free(&mut self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: by contract.
        unsafe { self.deallocate(memory, layout) }
    }

    fn is_empty(&self) -> bool {
        self.used() == 0
    }
}

/// A segment's first bytes; the others are `bytes`'.
struct Segment<B> {
    bytes: B,
    next: *mut Segment<B>,
}

/// All segments.
struct Segments<B> {
    first: *mut Segment<B>,
    /// The empty one that is kept, or null.
    spare: *mut Segment<B>,
    /// All that the heap has of the pool, objects that are runs among it.
    frames: u64,
}

// SAFETY: whoever has this has all segments, which no thread has a claim to.
unsafe impl<B: Send> Send for Segments<B> {}

impl<B: Bytes> Segments<B> {
    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let mut at = self.first;
        // SAFETY: what the list links are segments, and ours.
        while let Some(segment) = unsafe { at.as_mut() } {
            if let Some(memory) = segment.bytes.allocate(layout) {
                if self.spare == at {
                    self.spare = ptr::null_mut();
                }
                return Some(memory);
            }
            at = segment.next;
        }
        None
    }

    fn push(&mut self, segment: NonNull<Segment<B>>) {
        // SAFETY: a new segment is the caller's.
        unsafe { (*segment.as_ptr()).next = self.first };
        self.first = segment.as_ptr();
        self.frames += SEGMENT_FRAMES;
    }

    /// Takes memory back, and returns the segment if it is to go.
    ///
    /// # Safety
    /// The memory is of this segment, and as [`Bytes::free`] asks.
    unsafe fn free(
        &mut self,
        segment: *mut Segment<B>,
        memory: NonNull<u8>,
        layout: Layout,
    ) -> Option<NonNull<Segment<B>>> {
        // SAFETY: by contract.
        let bytes = unsafe { &mut (*segment).bytes };
        // SAFETY: the same.
        unsafe { bytes.free(memory, layout) };
        if !bytes.is_empty() {
            return None;
        }
        if self.spare.is_null() {
            self.spare = segment;
            return None;
        }
        self.unlink(segment)
    }

    /// Takes a segment out of the list.
    fn unlink(&mut self, segment: *mut Segment<B>) -> Option<NonNull<Segment<B>>> {
        let mut link = &raw mut self.first;
        // SAFETY: a link is the list's head or lies in a segment of the list; both are ours.
        unsafe {
            while *link != segment {
                link = &raw mut (**link).next;
            }
            *link = (*segment).next;
        }
        self.frames -= SEGMENT_FRAMES;
        NonNull::new(segment)
    }
}

/// A heap on a pool: see the module's page. `G` keeps whoever could wait for the lock in vain away
/// while it is held: `InterruptsOff` of [`cpus`](crate::cpus) if handlers allocate too, else
/// [`NotPreempted`](crate::cpus::NotPreempted) or a guard of the kernel's own.
///
/// An allocation looks through the segments one by one, each as `B` does; one that finds no place
/// takes a run from the pool. Under the lock nothing waits but for other CPUs that hold it.
///
/// # Examples
/// ```
/// use frametree::cpus::{NotPreempted, OneCpu, Pinned};
/// use frametree::{FramePool, heap::PoolHeap};
///
/// type Cpus = Pinned<OneCpu, NotPreempted>;
/// // SAFETY: one CPU, and threads are switched only where they wait.
/// static POOL: FramePool<Cpus> =
///     FramePool::new(unsafe { Pinned::new(OneCpu::promised(), NotPreempted::promised()) });
///
/// const DIRECT_MAP: usize = 0xffff_8000_0000_0000;
/// // In a kernel: #[global_allocator]
/// static HEAP: PoolHeap<Cpus, NotPreempted> =
///     // SAFETY: physical memory is mapped there from the first allocation on; as above.
///     unsafe { PoolHeap::new(&POOL, NotPreempted::promised(), DIRECT_MAP) };
/// assert_eq!(HEAP.frames(), 0);
/// ```
pub struct PoolHeap<C: 'static, G, B = Heap> {
    pool: &'static FramePool<C>,
    guard: G,
    direct_map: usize,
    segments: Mutex<Segments<B>>,
}

impl<C: Cpus, G: Guard, B: Bytes> PoolHeap<C, G, B> {
    /// A heap that has nothing yet. Physical address 0 is mapped at `direct_map`.
    ///
    /// # Safety
    /// From the first allocation on, all memory of the pool is mapped there, to be read and
    /// written, for as long as the heap is used. With provenance: the pointers that it was mapped
    /// by are exposed.
    ///
    /// # Panics
    /// If `direct_map` is no multiple of 256 KiB.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// # use frametree::{cpus::NotPreempted, heap::PoolHeap};
    /// use std::alloc::{GlobalAlloc, Layout};
    ///
    /// let pool: &'static _ = Box::leak(Box::new(example::pool(Setup::new(1))));
    /// let direct_map = example::direct_map(0).expose_provenance(); // where physical address 0 is
    /// // SAFETY: all memory of the pool is mapped there; there is one thread.
    /// let heap: PoolHeap<_, _> =
    ///     unsafe { PoolHeap::new(pool, NotPreempted::promised(), direct_map) };
    /// // SAFETY: the size is not 0.
    /// let memory = unsafe { heap.alloc(Layout::new::<[u64; 100]>()) };
    /// assert!(!memory.is_null());
    /// ```
    #[must_use]
    pub const unsafe fn new(pool: &'static FramePool<C>, guard: G, direct_map: usize) -> Self {
        assert!(direct_map.is_multiple_of(SEGMENT_BYTES), "not a multiple of 256 KiB");
        let none = ptr::null_mut();
        let segments = Mutex::new(Segments { first: none, spare: none, frames: 0 });
        Self { pool, guard, direct_map, segments }
    }

    /// How many frames of the pool the heap has.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/heap.rs")); }
    /// # use frametree::*;
    /// use std::alloc::{GlobalAlloc, Layout};
    ///
    /// let (heap, pool) = example::heap();
    /// // SAFETY: the sizes are not 0.
    /// unsafe {
    ///     heap.alloc(Layout::new::<[u64; 100]>()); // in a segment of 64 frames
    ///     heap.alloc(Layout::new::<[u8; 40_000]>()); // a run of its own, of 10
    /// }
    /// assert_eq!((heap.frames(), pool.stats().free_frames), (74, 2048 - 74));
    /// ```
    pub fn frames(&self) -> u64 {
        self.locked(|segments| segments.frames)
    }

    /// Gives the empty segment back that is kept, if there is one.
    ///
    /// # Panics
    /// As freeing does: if the pool says that somebody has freed a frame of the heap.
    ///
    /// # Examples
    /// When memory is low:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/heap.rs")); }
    /// # use frametree::*;
    /// # use std::alloc::{GlobalAlloc, Layout};
    /// # let (heap, pool) = example::heap();
    /// # let layout = Layout::new::<[u64; 100]>();
    /// # // SAFETY: the size is not 0; it is freed once.
    /// # unsafe { heap.dealloc(heap.alloc(layout), layout) };
    /// assert_eq!(heap.frames(), 64); // all objects are freed, but a segment is kept
    /// heap.trim();
    /// assert_eq!((heap.frames(), pool.stats().free_frames), (0, 2048));
    /// ```
    pub fn trim(&self) {
        let spare = self.locked(|segments| {
            let spare = core::mem::replace(&mut segments.spare, ptr::null_mut());
            if spare.is_null() { None } else { segments.unlink(spare) }
        });
        if let Some(segment) = spare {
            self.give_segment(segment);
        }
    }

    fn locked<R>(&self, work: impl FnOnce(&mut Segments<B>) -> R) -> R {
        self.guard.hold(|| work(&mut self.segments.lock()))
    }

    fn take(&self, frames: u64, align: usize) -> Option<*mut u8> {
        let request = Request::new(frames).align(FRAME_SIZE.max(align as u64));
        let run = self.pool.alloc_run(&request).ok()?.into_numbers();
        Some(with_exposed_provenance_mut(self.direct_map + run.start().start_address() as usize))
    }

    /// Gives frames back. That it may panic is no more than a global allocator may in a kernel,
    /// where nothing unwinds.
    fn give(&self, start: usize, frames: u64) {
        let first = (start - self.direct_map) as u64 / FRAME_SIZE;
        let (first, end) = (FrameNumber::new(first), FrameNumber::new(first + frames));
        // SAFETY: `take` has given up the ownership of just these frames, and they were unlinked
        // or are the memory of an object that is freed.
        let run = unsafe { FrameRange::from_numbers(NumberRange::new(first, end)) };
        if let Err(error) = self.pool.free_run(run) {
            panic!("the heap: {error}");
        }
    }

    fn take_segment(&self) -> Option<NonNull<Segment<B>>> {
        let start = self.take(SEGMENT_FRAMES, SEGMENT_BYTES)?;
        let header = size_of::<Segment<B>>();
        // SAFETY: these frames are ours and mapped, and aligned to more than any type; `header` is
        // less than they have.
        unsafe {
            let bytes = B::new(start.add(header), SEGMENT_BYTES - header);
            let segment = start.cast::<Segment<B>>();
            segment.write(Segment { bytes, next: ptr::null_mut() });
            NonNull::new(segment)
        }
    }

    fn give_segment(&self, segment: NonNull<Segment<B>>) {
        // SAFETY: it is empty and was unlinked, so nobody else has it.
        unsafe { segment.drop_in_place() };
        self.give(segment.addr().get(), SEGMENT_FRAMES);
    }
}

/// The frames of an object that is a run by itself, or `None` if it goes into a segment.
fn frames_of(layout: Layout) -> Option<u64> {
    let is_small = layout.size() <= SMALL && layout.align() as u64 <= FRAME_SIZE;
    (!is_small).then(|| (layout.size() as u64).div_ceil(FRAME_SIZE))
}

// SAFETY: objects lie in segments, whose allocators promise what is asked for here, or are runs of
// frames of their own. Either is mapped and nobody else's until it is freed.
unsafe impl<C: Cpus, G: Guard, B: Bytes> GlobalAlloc for PoolHeap<C, G, B> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(frames) = frames_of(layout) {
            let run = self.take(frames, layout.align());
            return run.map_or(ptr::null_mut(), |start| {
                self.locked(|segments| segments.frames += frames);
                start
            });
        }
        let memory = self.locked(|segments| segments.allocate(layout)).or_else(|| {
            let segment = self.take_segment()?;
            self.locked(|segments| {
                segments.push(segment);
                segments.allocate(layout)
            })
        });
        memory.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(frames) = frames_of(layout) {
            self.locked(|segments| segments.frames -= frames);
            return self.give(memory.addr(), frames);
        }
        let address = memory.addr() / SEGMENT_BYTES * SEGMENT_BYTES;
        let segment = with_exposed_provenance_mut(address);
        let empty = NonNull::new(memory).and_then(|memory| {
            // SAFETY: by this trait's contract the memory came from `alloc` with this layout, so
            // from the segment that begins there.
            self.locked(|segments| unsafe { segments.free(segment, memory, layout) })
        });
        if let Some(segment) = empty {
            self.give_segment(segment);
        }
    }
}
