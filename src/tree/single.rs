//! Single frames without a CPU: one, one of zeros, a list of them, and up to 64 of a group for a
//! cache. Each takes the lowest there are, past all caches, in the journal that all share.

use super::FrameTree;
use crate::cache::{PageCache, fill_holes};
use crate::error::{FreeError, OutOfMemory};
use crate::frame::Frame;

impl FrameTree<'_> {
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
