//! The contestants, one file each, and the list of them.

mod ax;
mod bitmap;
mod buddy_slab;
mod buddy_system;
mod floors;
mod frame_alloc;
mod frametree;
mod free_list;
mod next_fit;
mod sparse;
mod stack;

pub use ax::Ax;
pub use bitmap::Bitmap;
pub use buddy_slab::BuddySlab;
pub use buddy_system::BuddySystem;
pub use floors::{BareWords, NoWork, PrivateStack};
pub use frame_alloc::{Core, Depot};
pub use frametree::{Pool, Tree};
pub use free_list::List;
pub use next_fit::NextFit;
pub use stack::Stack;

/// Calls `$visit::<A>($arguments)` for every allocator, ours first.
macro_rules! each_allocator {
    ($visit:expr) => {
        each_allocator!(
            $visit, Pool, Tree, Core, Depot, BuddySystem, Bitmap, Ax, List, BuddySlab, Stack,
            NextFit
        )
    };
    ($visit:expr, $($allocator:ident),*) => {{
        use $crate::peers::*;
        vec![$($visit.visit::<$allocator>()),*]
    }};
}
pub(crate) use each_allocator;

#[cfg(test)]
mod tests {
    //! Nobody is measured who does not do the work: each adapter hands out every frame once, and
    //! takes all of them back.

    use std::collections::BTreeSet;

    use crate::allocator::{Allocator, BLOCK};
    use crate::support::Threads;

    /// 256 MiB.
    const FRAMES: u64 = 1 << 16;

    struct Honest;

    impl Honest {
        fn visit<A: Allocator>(&self) {
            Threads::become_cpu(0);
            let allocator = A::new(FRAMES).expect("an allocator");
            for round in 0..2 {
                let taken: Vec<_> = std::iter::from_fn(|| allocator.alloc()).collect();
                let different: BTreeSet<_> = taken.iter().copied().collect();
                assert_eq!(different.len(), taken.len(), "{}: a frame twice", A::NAME);
                assert!(different.last() < Some(&FRAMES), "{}: a frame beyond", A::NAME);
                let least = FRAMES - FRAMES / 256;
                assert!(taken.len() as u64 > least, "{}: {} frames", A::NAME, taken.len());
                if let (Some(free), 0) = (allocator.free_frames(), round) {
                    assert_eq!(free, 0, "{}", A::NAME);
                }
                taken.into_iter().for_each(|frame| allocator.free(frame));
                allocator.drain();
            }
            if A::HAS_RUNS {
                Self::runs(&allocator);
            }
        }

        fn runs<A: Allocator>(allocator: &A) {
            let mut taken = Vec::new();
            for count in [2, 3, 17, 64, 100, 512, 1000] {
                let first = allocator.alloc_run(count, 1).expect("a run");
                taken.push((first, count));
            }
            for _ in 0..3 {
                let first = allocator.alloc_block().expect("a block");
                assert_eq!(first % BLOCK, 0, "{}", A::NAME);
                taken.push((first, BLOCK));
            }
            taken.sort_unstable();
            let overlap = taken.windows(2).find(|two| two[0].0 + two[0].1 > two[1].0);
            assert_eq!(overlap, None, "{}: overlap", A::NAME);
            for (first, count) in taken {
                allocator.free_run(first, count);
            }
        }
    }

    #[test]
    fn every_adapter_does_the_work() {
        let honest = Honest;
        each_allocator!(honest);
    }
}
