//! For whom looks at memory from outside: free runs one by one, and the two texts that Linux has
//! taught everybody to read.
//!
//! All of it looks and changes nothing. At rest it is exact; while others work, each part is of the
//! moment at which it was looked at.

use core::fmt;

use crate::bits::runs;
use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_SIZE, GIANT_FRAMES, WORD_BITS};
#[cfg(feature = "log")]
use crate::map::MemoryMap;
use crate::stats::Stats;
use crate::tree::{BlockUse, FrameTree};

/// Columns of `/proc/buddyinfo`: blocks of 1 to 1024 frames.
const ORDERS: usize = 11;

/// Linux' zones on x86-64, each by the frame at which it ends.
const ZONES: [(&str, u64); 3] =
    [("DMA", (16 << 20) / FRAME_SIZE), ("DMA32", (4 << 30) / FRAME_SIZE), ("Normal", u64::MAX)];

/// As `/proc/meminfo` does: the text of [`Stats::meminfo`].
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.meminfo().fmt(f)
    }
}

impl FrameTree<'_> {
    /// The runs of frames that are free in the tree, ascending, each as long as it can be: for
    /// debuggers and maps of fragmentation. Frames in a CPU's cache are not in it. Costs a look at
    /// the bits of all blocks that are not free as a whole, and at a hint for the others.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let hole = pool.alloc_run(&Request::new(8).at(FrameNumber::new(512)))?;
    /// let tree = pool.tree().expect("it is initialised");
    /// let longest = tree.free_runs().max_by_key(|run| run.len());
    /// assert_eq!(longest, Some(NumberRange::from_numbers(520, 2048)));
    /// # pool.free_run(hole)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_runs(&self) -> impl Iterator<Item = NumberRange> + '_ {
        let mut stretches = self.free_stretches().peekable();
        core::iter::from_fn(move || {
            let mut run = stretches.next()?;
            while let Some(next) = stretches.next_if(|next| next.start() == run.end()) {
                run = NumberRange::trusted(run.start(), next.end());
            }
            Some(run)
        })
    }

    /// Free frames, ascending; those that touch across words and blocks may come apart.
    fn free_stretches(&self) -> impl Iterator<Item = NumberRange> + '_ {
        let words = |block: BlockUse| {
            // A block that is free as a whole is one stretch, not eight.
            let is_whole = block.free == BLOCK_FRAMES;
            let step = if is_whole { BLOCK_FRAMES } else { WORD_BITS };
            let words = (0..BLOCK_FRAMES / step).map(move |word| block.first.get() + word * step);
            words.filter(move |_| block.free > 0).map(move |first| (first, is_whole))
        };
        self.blocks().flat_map(words).flat_map(|(first, is_whole)| {
            let whole = is_whole.then(|| stretch(first, 0, BLOCK_FRAMES));
            let peeked = if is_whole { None } else { self.peek(FrameNumber::new(first)) };
            let free = peeked.map_or(0, |(free, _)| free);
            let parts = runs(free).map(move |(at, len)| stretch(first, at.into(), len.into()));
            whole.into_iter().chain(parts)
        })
    }

    /// Free memory as `/proc/buddyinfo` prints it: for each zone how many aligned blocks of 1, 2,
    /// 4 to 1024 frames the free runs come to. A zone without memory has no line. Costs what
    /// [`free_runs`](Self::free_runs) does.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// print!("{}", tree.buddyinfo());
    /// ```
    pub fn buddyinfo(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| {
            let mut below = 0;
            for (zone, end) in ZONES {
                let is_in = |frame: u64| (below..end).contains(&frame);
                let is_there = self.blocks().any(|block| is_in(block.first.get()));
                if is_there {
                    write!(f, "Node 0, zone {zone:>8} ")?;
                    for count in self.buddies(below, end) {
                        write!(f, "{count:>6} ")?;
                    }
                    writeln!(f)?;
                }
                below = end;
            }
            Ok(())
        })
    }

    /// The blocks of each order between two frames.
    fn buddies(&self, from: u64, to: u64) -> [u64; ORDERS] {
        let mut counts = [0; ORDERS];
        for run in self.free_runs() {
            let end = run.end().get().min(to);
            let mut at = run.start().get().max(from);
            while at < end {
                let aligned = at.trailing_zeros().min(ORDERS as u32 - 1);
                let order = aligned.min((end - at).ilog2());
                counts[order as usize] += 1;
                at += 1 << order;
            }
        }
        counts
    }
}

/// `frames` frames from the `skip`th behind `first` on.
fn stretch(first: u64, skip: u64, frames: u64) -> NumberRange {
    NumberRange::from_numbers(first + skip, first + skip + frames)
}

/// What a new pool took over, for the kernel's log: its memory in a line each for `debug`, and one
/// line for `info`.
#[cfg(feature = "log")]
pub(crate) fn log_start(map: &MemoryMap<'_>, metadata_bytes: usize, cpus: usize) {
    for (range, kind) in map.regions() {
        let (start, end) = (range.start().start_address(), range.end().start_address());
        log::debug!("frametree: {start:#x}..{end:#x} {kind:?}");
    }
    let usable = map.usable_frames() * FRAME_SIZE / 1024;
    log::info!(
        "frametree: {usable} KiB for {cpus} CPUs, with {} KiB of metadata beside them",
        metadata_bytes.div_ceil(1024),
    );
}

impl Stats {
    /// The numbers as `/proc/meminfo` prints them, in KiB, under Linux' names where Linux has them:
    /// `FreePcp` is what the CPUs' caches hold, and is part of `MemFree`; `Free2M` and `Free1G` are
    /// in blocks that are free as a whole.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let text = pool.stats().meminfo().to_string();
    /// assert!(text.contains("MemFree:"), "{text}");
    /// ```
    pub fn meminfo(&self) -> impl fmt::Display + '_ {
        const KIB: u64 = FRAME_SIZE / 1024;
        let lines = [
            ("MemTotal:", self.managed_frames),
            ("MemFree:", self.free_frames),
            ("FreePcp:", self.cached_frames),
            ("Free2M:", self.free_blocks * BLOCK_FRAMES),
            ("Free1G:", self.free_giants * GIANT_FRAMES),
        ];
        fmt::from_fn(move |f| {
            lines
                .iter()
                .try_for_each(|(name, frames)| writeln!(f, "{name:<16}{:>8} kB", frames * KIB))
        })
    }
}
