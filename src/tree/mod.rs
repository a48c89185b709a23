//! The shared tree: every free frame, recorded exactly once, at the coarsest level at which its
//! whole block is free. No lock; any number of CPUs, and it knows none of them.
//!
//! ```text
//! clusters   1 bit = 1 GiB     free as a whole?   hints: whole blocks inside, crumbs inside
//!    |  split: 1 bit becomes 512           ^  merge: 512 bits become 1
//! giants     1 bit = 2 MiB     free as a whole?   hint: crumbs inside
//!    |  split                              ^  merge
//! leaves     1 bit = 4 KiB     free?
//! ```
//!
//! **Truth and hints.** Clearing a bit of truth by an atomic read-modify-write *is* the
//! allocation, setting it *is* the free. Hints say where to look. A hint may be set over
//! nothing; while a step is under way it may also be clear over something, and the journals
//! tell (see [`crate::journal`]).
//!
//! **Leaves** are meaningful once their block is *ready*, and then hold no bit while the block
//! is free or held as a whole. So a block may be claimed whole and freed frame by frame. The nodes
//! of a giant likewise, one level up.
//!
//! The protocols, a file each: [`levels`] (split, merge, announce, retire), [`search`] (refill
//! and allocation), [`home`] and [`crumbs`] (refills near the last one, and of what is left of used
//! blocks), [`free`] (flush, free, and what is refused), [`runs`] (finding contiguous
//! frames) by a [`walk`], with [`longest`] and [`giants`] to pass crumbs quickly and [`near`] to
//! begin where the last was found, and [`claim`] (taking and giving them, piece by piece);
//! [`blocks`] (2 MiB as a whole). [`init`] and [`grow`] add memory, [`isolate`] takes it away.
//! [`verify`] checks every invariant at rest.
//!
//! The shape is the radix tree of Go's `mpagealloc.go`, with counters and locks replaced by one
//! bit per level and the page tables' radix of 512.

mod blocks;
mod claim;
mod crumbs;
mod free;
mod giants;
mod grow;
mod home;
mod init;
mod isolate;
mod levels;
mod longest;
#[cfg(all(test, loom))]
pub(crate) mod looks;
mod near;
mod runs;
#[cfg(feature = "hardened")]
mod seal;
mod search;
mod verify;
mod walk;

pub use grow::GrowError;
pub use isolate::{InUse, IsolateError, Isolation};
pub use verify::Broken;

pub(crate) use blocks::{BlockHome, finish, give_at_once};
pub(crate) use crumbs::Crumb;
pub(crate) use free::{Gift, Opening, check_above, give_frames, refuse};
pub(crate) use home::HomeCell;
pub(crate) use init::Plan;
pub(crate) use near::RunHints;
pub(crate) use runs::{Looked, Wanted};
#[cfg(feature = "hardened")]
pub(crate) use seal::mix;
pub(crate) use search::Refill;

use crate::cache::{PageCache, fill_holes};
use crate::directory::{Block, Directory, Group};
use crate::error::{AllocError, FreeError, OutOfMemory};
use crate::frame::{Frame, FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FULL, GIANT_BLOCKS};
use crate::journal::{Counter, Journal, Writer};
use crate::request::Request;
use crate::root::Giant;
use crate::sync::{Ordering, Word};

/// The shared tree of free frames. See the source's header for its structure.
///
/// All methods may be called by any number of CPUs at once, and in interrupts and NMIs, also
/// when those interrupt one of these methods; none ever waits for a lock.
///
/// Atomic read-modify-writes, alone on the tree:
///
/// | operation | tree | and journal |
/// |---|---|---|
/// | [`alloc`](Self::alloc) from a partly used block | 1 | 2 |
/// | [`refill`](Self::refill) from a partly used block | 1 | 3 |
/// | the same after one that used its block up: retire, claim, announce | 3 | 10 |
/// | [`free`](Self::free) | 1 | 4 |
/// | [`flush`](Self::flush) | 1 | 5 |
/// | either to a group without free frames: announce | 1 more | 1 more |
/// | either that completes a block: claim it (8), free it, retire its hint | 10 more | 13 more |
/// | [`alloc_block`](Self::alloc_block) | 1 | 2 |
/// | [`free_block`](Self::free_block) | 1 | 4 |
///
/// The second number is that of all methods here, whose callers have no CPU: they share one
/// journal, at 1 for each counter and 2 around each step that moves frames. A
/// [`FramePool`](crate::FramePool) writes each CPU's own journal without read-modify-writes.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let tree: &FrameTree<'_> = pool.tree().expect("a pool in use");
/// let frame = tree.alloc()?; // past all caches: the lowest free frame
/// assert_eq!(frame.number(), FrameNumber::new(0));
/// let count = tree.count_free();
/// assert_eq!((count.frames, count.blocks), (2047, 3)); // the fourth block of 2 MiB is split
/// tree.free(frame)?;
/// assert_eq!(tree.blocks().map(|block| block.free).collect::<Vec<_>>(), [512; 4]);
/// tree.verify()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FrameTree<'m> {
    directory: Directory<'m>,
    journals: &'m [Journal],
    /// How many frames have ever been managed: written only when some come.
    managed: Word,
    /// How many of these are gone for good: they count as taken.
    gone: Word,
    /// The first frame that is not used last; 0 if none is.
    low_end: u64,
}

/// How full a 2 MiB block is; see [`FrameTree::blocks`].
///
/// # Examples
/// Which blocks of 2 MiB are worth emptying, because little is left in them:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
/// # use frametree::*;
/// let tree = example::tree();
/// let page = tree.alloc()?;
/// let nearly_free = |block: &BlockUse| (1..32).contains(&(block.managed - block.free));
/// assert_eq!(tree.blocks().find(nearly_free).map(|block| block.first), Some(page.number()));
/// # tree.free(page)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockUse {
    /// The block's first frame.
    pub first: FrameNumber,
    /// Frames of it that the tree manages.
    pub managed: u64,
    /// Frames of it that are free in the tree.
    pub free: u64,
}

/// Free memory in the shared tree, by the size that it could be taken in.
///
/// # Examples
/// How much of free memory is in pieces:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
/// # use frametree::*;
/// let tree = example::tree();
/// let page = tree.alloc()?;
/// let FreeCount { frames, blocks, .. } = tree.count_free();
/// assert_eq!(frames - blocks * 512, 511); // too few in each block to be taken as one
/// # tree.free(page)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FreeCount {
    /// Free frames, whatever they are part of.
    pub frames: u64,
    /// Free whole 2 MiB blocks, also those in free giants.
    pub blocks: u64,
    /// Free whole GiBs.
    pub giants: u64,
}

impl<'m> FrameTree<'m> {
    /// Takes the lowest free frame.
    ///
    /// # Errors
    /// [`OutOfMemory`] if nothing was free in the tree at some instant during the call. Exact,
    /// unless during each of a thousand looks another CPU was moving frames (a split, merge, free
    /// or flush; at most a GiB each): what was on its way then can be missed.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let frame = tree.alloc()?; // on no CPU in particular, past all caches
    /// tree.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc(&self) -> Result<Frame, OutOfMemory> {
        self.alloc_with(self.shared_writer())
    }

    /// Gives a frame back.
    ///
    /// # Errors
    /// If the frame is free already or was never managed; see [`FreeError`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let frame = tree.alloc()?;
    /// tree.free(frame)?; // at once in everybody's reach
    /// assert_eq!(tree.free_frames(), 2048);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free(&self, frame: Frame) -> Result<(), FreeError> {
        self.free_with(self.shared_writer(), frame.into_number())
    }

    /// Takes the lowest free frame, and has it cleared by `clear` unless its contents are known
    /// to be zero.
    ///
    /// # Errors
    /// As [`FrameTree::alloc`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let clear = |frame: &Frame| {
    ///     // SAFETY: the frame is ours, and mapped.
    ///     unsafe { example::direct_map(frame.start_address()).write_bytes(0, 4096) };
    /// };
    /// let table = tree.alloc_zeroed(clear)?; // a page table: no entry is present
    /// # tree.free(table)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_zeroed(&self, clear: impl FnOnce(&Frame)) -> Result<Frame, OutOfMemory> {
        Ok(self.alloc_known_with(self.shared_writer())?.cleared(clear))
    }

    /// Gives a frame back that holds zeros, and records that.
    ///
    /// # Errors
    /// As [`FrameTree::free`].
    ///
    /// # Safety
    /// Every byte of the frame is 0, and nobody will write to it before it is handed out again:
    /// its next owner gets it as zeroed.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let table = tree.alloc_zeroed(|_frame| { /* a kernel clears it here */ })?;
    /// // SAFETY: the last entry of this page table was taken out, so it holds zeros again.
    /// unsafe { tree.free_zeroed(table) }?;
    /// let next = tree.alloc_zeroed(|_| panic!("it is known to be zero"))?;
    /// # tree.free(next)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[allow(unsafe_code, reason = "the caller vouches for the contents")]
    pub unsafe fn free_zeroed(&self, frame: Frame) -> Result<(), FreeError> {
        self.free_zeroed_with(self.shared_writer(), frame.into_number())
    }

    /// Fills the holes (`None`) of a list, in order, with single frames, the lowest free ones.
    /// Returns how many it has filled: all, unless the tree was out of memory as in
    /// [`FrameTree::alloc`]. One read-modify-write for what it takes of a word, up to 64 frames.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let mut pages = [const { None }; 100]; // of a program that is loaded
    /// if tree.alloc_bulk(&mut pages) < pages.len() {
    ///     tree.free_bulk(&mut pages)?; // not enough memory: give back what there was
    /// }
    /// assert!(pages.iter().all(Option::is_some));
    /// # tree.free_bulk(&mut pages)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_bulk(&self, frames: &mut [Option<Frame>]) -> usize {
        fill_holes(frames, |most| self.alloc_some_with(self.shared_writer(), most).ok())
    }

    /// Takes all frames out of a list and gives them back: with one read-modify-write what lies
    /// in one group of 64 and stands together.
    ///
    /// # Errors
    /// The first that is found, as in [`FrameTree::free`]; all other frames are back.
    ///
    /// # Examples
    /// The pages of a program that has ended:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let mut pages = [const { None }; 100];
    /// tree.alloc_bulk(&mut pages);
    /// tree.free_bulk(&mut pages)?;
    /// assert_eq!((pages.iter().flatten().count(), tree.free_frames()), (0, 2048));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_bulk(&self, frames: &mut [Option<Frame>]) -> Result<(), FreeError> {
        self.free_bulk_with(self.shared_writer(), frames)
    }

    /// Takes all free frames of the lowest group of 64 that has any.
    ///
    /// # Errors
    /// As [`FrameTree::alloc`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let mut cache = tree.refill()?;
    /// let CachedRun { frames, known_zero } = cache.alloc().expect("one of 64");
    /// assert_eq!((frames.len(), known_zero), (1, 0));
    /// tree.free_run(frames)?;
    /// tree.flush(&mut cache)?;
    /// assert!(cache.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refill(&self) -> Result<PageCache, OutOfMemory> {
        self.refill_with(self.shared_writer()).map(PageCache::from)
    }

    /// Gives a cache's frames back and empties it.
    ///
    /// # Errors
    /// If some of them are free already or were never managed; the error names the lowest, all
    /// others are back.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let mut cache = tree.refill()?; // a thread's own, which ends here
    /// tree.flush(&mut cache)?;
    /// assert_eq!(tree.free_frames(), 2048);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush(&self, cache: &mut PageCache) -> Result<(), FreeError> {
        self.flush_with(self.shared_writer(), cache.take())
    }

    /// Takes the lowest 2 MiB block that is free as a whole and returns its first frame.
    ///
    /// # Errors
    /// As [`FrameTree::alloc`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let block = tree.alloc_block()?;
    /// let entry = block.start_address() | 1 << 7 | 1; // of a page directory: one page of 2 MiB
    /// # assert_eq!(entry & 0xfff, 0x81);
    /// # tree.free_block(block)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_block(&self) -> Result<Frame, OutOfMemory> {
        self.alloc_block_with(self.shared_writer())
    }

    /// Gives back a 2 MiB block, named by its first frame, that was taken as a whole.
    ///
    /// The tree knows no caches: that one of the frames sits in a CPU's cache is not noticed here
    /// (`FramePool::free_block` looks into that of its own CPU).
    ///
    /// # Errors
    /// If it is misaligned, free or partly free already, or not managed in full.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let block = tree.alloc_block()?.into_number();
    /// // SAFETY: the block was ours, and its page is unmapped.
    /// tree.free_block(unsafe { Frame::from_number(block) })?;
    /// assert_eq!(tree.count_free().blocks, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_block(&self, first: Frame) -> Result<(), FreeError> {
        self.free_block_with(self.shared_writer(), first.into_number())
    }

    /// Takes the lowest GiB that is free as a whole and returns its first frame.
    ///
    /// The first time for each GiB this writes its 64 KiB of leaves.
    ///
    /// # Errors
    /// As [`FrameTree::alloc`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool_of(2 << 30, Setup::new(1)); // 2 GiB
    /// let tree = pool.tree().expect("a pool in use");
    /// let guest = tree.alloc_giant()?; // all memory of a virtual machine, as one page
    /// assert!(guest.start_address().is_multiple_of(1 << 30));
    /// # tree.free_giant(guest)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_giant(&self) -> Result<Frame, OutOfMemory> {
        self.alloc_giant_with(self.shared_writer())
    }

    /// Gives back a GiB, named by its first frame, that was taken as a whole.
    ///
    /// # Errors
    /// If it is misaligned, free or partly free already, or not managed in full.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool_of(2 << 30, Setup::new(1)); // 2 GiB
    /// let tree = pool.tree().expect("a pool in use");
    /// let guest = tree.alloc_giant()?;
    /// tree.free_giant(guest)?;
    /// assert_eq!(tree.count_free().giants, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_giant(&self, first: Frame) -> Result<(), FreeError> {
        self.free_giant_with(self.shared_writer(), first.into_number())
    }

    /// Takes the lowest run of contiguous frames that meets the request: exactly as many as it
    /// asks for, found whenever there is one at rest.
    ///
    /// One read-modify-write for each word of 64 frames that the run touches, and one for each
    /// 2 MiB block and each GiB that it contains as a whole.
    ///
    /// # Errors
    /// [`AllocError::Request`] if the request makes no sense; [`AllocError::InTheWay`] if it names
    /// its frames and one is not free; else [`AllocError::NoRun`], as exact as
    /// [`FrameTree::alloc`].
    ///
    /// # Examples
    /// A kernel's boot processor sets up a device, before CPUs have numbers:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let ring = tree.alloc_run(&Request::new(16).below(4 << 30).not_crossing(64 << 10))?;
    /// assert_eq!(ring.len(), 16);
    /// # tree.free_run(ring)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_run(&self, request: &Request) -> Result<FrameRange, AllocError> {
        self.alloc_run_with(self.shared_writer(), request, Wanted::Any)
    }

    /// The same, and shows those of the frames to `clear` that are not known to be zero, stretch
    /// by stretch.
    ///
    /// # Errors
    /// As [`FrameTree::alloc_run`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let clear = |dirty: NumberRange| {
    ///     let bytes = (dirty.len() * FRAME_SIZE) as usize;
    ///     // SAFETY: the frames are ours, and mapped side by side.
    ///     unsafe { example::direct_map(dirty.start().start_address()).write_bytes(0, bytes) };
    /// };
    /// let tables = tree.alloc_run_zeroed(&Request::new(3), clear)?;
    /// # tree.free_run(tables)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_run_zeroed(
        &self,
        request: &Request,
        clear: impl FnMut(NumberRange),
    ) -> Result<FrameRange, AllocError> {
        let run = self.alloc_run_with(self.shared_writer(), request, Wanted::Zero)?;
        self.take_contents(run.numbers(), clear);
        Ok(run)
    }

    /// Gives contiguous frames back: a run, a part of one, or neighbours from several
    /// allocations.
    ///
    /// # Errors
    /// If one of them is free already or was never managed; then nothing was freed, and the error
    /// names the lowest such frame.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let (used, unused) = tree.alloc_run(&Request::new(16))?.split_at(9);
    /// tree.free_run(unused)?; // the file was shorter than its buffer
    /// # tree.free_run(used)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_run(&self, run: FrameRange) -> Result<(), FreeError> {
        self.free_run_with(self.shared_writer(), run.into_numbers())
    }

    /// How many frames the tree manages, free or not. What an isolation has set aside is among
    /// them, until it is off line.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let frame = tree.alloc()?;
    /// assert_eq!(tree.managed_frames() * FRAME_SIZE, 8 << 20); // whoever has them
    /// # tree.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn managed_frames(&self) -> u64 {
        // ORDERING: a statistic.
        self.ever_managed().saturating_sub(self.gone.load(Ordering::Relaxed))
    }

    /// The same with those that are gone: a number that only grows.
    pub(crate) fn ever_managed(&self) -> u64 {
        // ORDERING: a statistic.
        self.managed.load(Ordering::Relaxed)
    }

    /// Free frames, by what the journals say was taken and returned: exact at rest, and costs
    /// one line for each CPU. While others work, the sums are of different moments, and the
    /// answer is off by what they moved meanwhile, but never below 0 or above all.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let frame = tree.alloc()?;
    /// println!("{} of {} frames are free", tree.free_frames(), tree.managed_frames());
    /// # assert_eq!(tree.free_frames(), 2047);
    /// # tree.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        let (managed, returned) = (self.ever_managed(), self.sum(Counter::Returned));
        let free = managed.wrapping_add(returned).wrapping_sub(self.sum(Counter::Taken));
        free.cast_signed().clamp(0, managed.cast_signed()).cast_unsigned()
    }

    /// Free frames, blocks and giants, counted bit by bit: costs a look at all leaves.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// println!("{:?}", tree.count_free()); // by the size of what is free as a whole
    /// assert_eq!((tree.free_frames(), tree.managed_frames()), (2048, 2048));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn count_free(&self) -> FreeCount {
        let (blocks, giants) = self.free_whole();
        let frames = self.directory.giants().flat_map(Giant::blocks).map(free_in).sum();
        FreeCount { frames, blocks, giants }
    }

    /// Free whole blocks, also those in free giants, and free giants.
    pub(crate) fn free_whole(&self) -> (u64, u64) {
        self.directory.giants().fold((0, 0), |(blocks, giants), giant| {
            if giant.is_free() {
                (blocks + GIANT_BLOCKS, giants + 1)
            } else {
                (blocks + giant.written().map_or(0, |nodes| nodes.blocks.count()), giants)
            }
        })
    }

    /// Every block with managed frames, ascending, and how full it is: for pictures.
    ///
    /// # Examples
    /// A picture of memory, a letter for each 2 MiB:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let used = tree.alloc_run(&Request::new(700))?;
    /// let letter = |block: BlockUse| match block.free {
    ///     0 => '#',
    ///     free if free == block.managed => '.',
    ///     _ => '+',
    /// };
    /// assert_eq!(tree.blocks().map(letter).collect::<String>(), "#+..");
    /// # tree.free_run(used)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blocks(&self) -> impl Iterator<Item = BlockUse> + '_ {
        self.directory.giants().flat_map(Giant::blocks).filter_map(move |block| {
            let managed = self.directory.managed_frames(block);
            let first = block.first_frame();
            (managed > 0).then(|| BlockUse { first, managed, free: free_in(block) })
        })
    }

    /// The free frames of the 64-frame group that starts at `base`, and which of them are known
    /// to be zero; `None` if the group is not managed. A look: it may have changed by the time
    /// that it is returned.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let block = pool.alloc_block()?;
    /// let tree = pool.tree().expect("it is initialised");
    /// assert_eq!(tree.peek(block.number()), Some((0, 0))); // none of its first 64 is free
    /// # pool.free_block(block)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn peek(&self, base: FrameNumber) -> Option<(u64, u64)> {
        let group = Group::of(base);
        let place = self.directory.locate(group)?;
        let block = place.block();
        if self.directory.managed(group, block) == 0 {
            return None;
        }
        let is_giant_free = block.giant.is_free();
        let Some(nodes) = block.giant.written() else {
            return Some((if is_giant_free { FULL } else { 0 }, 0));
        };
        // ORDERING: a look, as the doc says.
        let relaxed = Ordering::Relaxed;
        let is_whole = is_giant_free || nodes.blocks.is_set(block.index, relaxed);
        // ORDERING: Acquire pairs with the Release in `write_leaf`.
        let is_ready = nodes.ready.is_set(block.index, Ordering::Acquire);
        let free = match (is_whole, is_ready) {
            (true, _) => FULL,
            (false, true) => place.leaf.load(relaxed),
            (false, false) => 0,
        };
        let known_zero = if nodes.zero.is_set(block.index, relaxed) {
            block.zeroes().word(group.word()).load(relaxed)
        } else {
            0
        };
        Some((free, known_zero & free))
    }

    /// The sum of a counter over all journals.
    pub(crate) fn sum(&self, counter: Counter) -> u64 {
        self.journals.iter().fold(0, |sum, journal| sum.wrapping_add(journal.count(counter)))
    }

    /// For callers without a CPU.
    #[inline]
    pub(crate) fn shared_writer(&self) -> Writer<'_> {
        Writer::shared(&self.journals[Journal::SHARED])
    }

    /// The journal that all share.
    pub(crate) fn shared_journal(&self) -> &'m Journal {
        &self.journals[Journal::SHARED]
    }

    /// The journal of the CPU with slot `cpu`.
    pub(crate) fn journal_of(&self, cpu: usize) -> &'m Journal {
        &self.journals[Journal::SHARED + 1 + cpu]
    }

    /// For the one user of slot `cpu`.
    #[cfg(test)]
    pub(crate) fn sole_writer(&self, cpu: usize) -> Writer<'_> {
        Writer::sole(self.journal_of(cpu))
    }

    /// For an interrupt inside an operation of slot `cpu`.
    #[inline]
    pub(crate) fn nested_writer(&self, cpu: usize) -> Writer<'_> {
        Writer::nested(&self.journals[Journal::SHARED], Journal::SHARED + 1 + cpu)
    }
}

/// Free frames of a block, read level by level.
fn free_in(block: Block<'_>) -> u64 {
    if block.giant.is_free() {
        return BLOCK_FRAMES;
    }
    let Some(nodes) = block.giant.written() else { return 0 };
    // ORDERING: a statistic.
    if nodes.blocks.is_set(block.index, Ordering::Relaxed) {
        BLOCK_FRAMES
    // ORDERING: Acquire pairs with the Release in `write_leaf`.
    } else if nodes.ready.is_set(block.index, Ordering::Acquire) {
        block.leaf().count()
    } else {
        0
    }
}

impl PageCache {
    /// Gives the cache's frames back to the tree and empties it: [`FrameTree::flush`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let mut cache = tree.refill()?;
    /// let page = cache.alloc().expect("one of 64").frames;
    /// cache.flush(tree)?; // the other 63
    /// assert_eq!(tree.free_frames(), 2047);
    /// # tree.free_run(page)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush(&mut self, tree: &FrameTree<'_>) -> Result<(), FreeError> {
        tree.flush(self)
    }
}
