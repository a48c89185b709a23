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
pub use floors::{NoWork, PrivateStack};
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
