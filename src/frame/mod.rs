//! Names and owners: [`FrameNumber`] names a frame, [`NumberRange`] names a run of them;
//! [`Frame`] is the right to use one, [`FrameRange`] the right to use a run.
//!
//! A number is not an owner. Names are `Copy` and mean nothing by themselves; a `Frame` comes
//! out of an allocator, moves, and goes back into it. Inventing one from a number is `unsafe`.

mod number;
mod owner;

pub use number::{CpuId, FrameNumber, NumberRange};
pub(crate) use owner::lose;
pub use owner::{Frame, FrameRange, lost_frames};
