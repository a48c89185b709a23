//! Numbers about a pool. Each is a sum over counters that only their own CPU writes; nothing is
//! counted on the path of an allocation or free that stays in a cache.

use crate::journal::Counter;
use crate::tree::FrameTree;

/// What a pool has done, and what is free in it. Exact at rest; while others work, each number
/// is a sum of what was so at different moments of the call. Costs one line for each CPU and GiB.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let run = pool.alloc_run(&Request::new(300))?;
/// let stats: Stats = pool.stats();
/// assert_eq!(stats.free_frames, 2048 - 300);
/// assert!(stats.to_string().starts_with("MemTotal:           8192 kB\n"));
/// let tree = pool.tree().expect("a pool in use");
/// assert!(tree.buddyinfo().to_string().starts_with("Node 0, zone      DMA "));
/// let longest = tree.free_runs().map(NumberRange::len).max();
/// assert_eq!(longest, Some(2048 - 300));
/// pool.free_run(run)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Frames that the pool manages, free or not.
    pub managed_frames: u64,
    /// Free frames, in the tree and in all caches.
    pub free_frames: u64,
    /// Of these, frames in the CPUs' page caches.
    pub cached_frames: u64,
    /// 2 MiB blocks that are free as a whole, also those in free GiBs.
    pub free_blocks: u64,
    /// GiBs that are free as a whole.
    pub free_giants: u64,
    /// Refills of a page cache.
    pub refills: u64,
    /// Flushes of a page cache.
    pub flushes: u64,
    /// GiBs split into blocks, and blocks into frames.
    pub splits: u64,
    /// Blocks and GiBs put together again.
    pub merges: u64,
    /// Claims that another CPU was faster at.
    pub lost_races: u64,
    /// Operations of interrupts that came inside an operation of the same CPU.
    pub nested: u64,
    /// Double frees, and frees of what is gone, that only the flush of a cache could see.
    pub late_double_frees: u64,
}

impl Stats {
    pub(crate) fn collect(tree: &FrameTree<'_>, cached_frames: u64) -> Self {
        let (free_blocks, free_giants) = tree.free_whole();
        Self {
            managed_frames: tree.managed_frames(),
            free_frames: (tree.free_frames() + cached_frames).min(tree.managed_frames()),
            cached_frames,
            free_blocks,
            free_giants,
            refills: tree.sum(Counter::Refills),
            flushes: tree.sum(Counter::Flushes),
            splits: tree.sum(Counter::Splits),
            merges: tree.sum(Counter::Merges),
            lost_races: tree.sum(Counter::LostRaces),
            nested: tree.sum(Counter::Nested),
            late_double_frees: tree.sum(Counter::LateDoubleFrees),
        }
    }
}
