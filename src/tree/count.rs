//! How much is free, and where: sums of what the journals say, and looks at the bits.

use super::FrameTree;
use crate::directory::{Block, Group};
use crate::frame::FrameNumber;
use crate::geometry::{BLOCK_FRAMES, FULL, GIANT_BLOCKS};
use crate::journal::Counter;
use crate::root::Giant;
use crate::sync::Ordering;

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

impl FrameTree<'_> {
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
}

/// Free frames of a block, read level by level.
pub(super) fn free_in(block: Block<'_>) -> u64 {
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
