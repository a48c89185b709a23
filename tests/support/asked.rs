//! A request for a run as somebody who knows nothing of the allocator reads it: by the words of
//! the documentation, byte by byte, in numbers that can't overflow.

use frametree::{FRAME_SIZE, FrameNumber, Request};

/// Physical addresses end here, in bytes.
pub const LIMIT: u64 = 1 << 52;
/// Frame numbers end here.
pub const FRAMES: u64 = LIMIT / FRAME_SIZE;

/// What a request says, in bytes, with nothing ruled out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    pub count: u64,
    pub align: u64,
    pub above: u64,
    pub below: u64,
    pub boundary: u64,
}

impl Asked {
    /// For `count` frames, wherever they lie.
    pub const fn plain(count: u64) -> Self {
        Self { count, align: FRAME_SIZE, above: 0, below: LIMIT, boundary: 0 }
    }

    /// For `count` frames from `first` on.
    pub const fn at(first: u64, count: u64) -> Self {
        let above = first * FRAME_SIZE;
        let below = above.saturating_add(count.saturating_mul(FRAME_SIZE));
        Self { above, below, ..Self::plain(count) }
    }

    pub fn request(self) -> Request {
        let Self { count, align, above, below, boundary } = self;
        Request::new(count).align(align).above(above).below(below).not_crossing(boundary)
    }

    /// The same by [`Request::at`], which must come to the same.
    pub fn request_at(self, first: FrameNumber) -> Request {
        let Self { count, align, boundary, .. } = self;
        Request::new(count).align(align).at(first).not_crossing(boundary)
    }

    /// The first frame in full between the limits, and how many follow.
    pub fn limits(self) -> (u64, u64) {
        let first = self.above.div_ceil(FRAME_SIZE);
        (first, (self.below.min(LIMIT) / FRAME_SIZE).saturating_sub(first))
    }

    /// Whether there is one place only that it can mean, and which.
    pub fn place(self) -> Option<u64> {
        let (first, frames) = self.limits();
        (frames == self.count).then_some(first)
    }

    /// Whether a run from frame `begin` on is what it asks for.
    pub fn allows(self, begin: u64) -> bool {
        let Self { count, align, above, below, boundary } = self;
        let start = u128::from(begin) * u128::from(FRAME_SIZE);
        let end = start + u128::from(count) * u128::from(FRAME_SIZE);
        let crosses = boundary != 0 && {
            let boundary = u128::from(boundary);
            start / boundary != (end - 1) / boundary
        };
        let is_inside = start >= u128::from(above) && end <= u128::from(below.min(LIMIT));
        is_inside && start.is_multiple_of(u128::from(align)) && !crosses
    }

    /// Whether it can be answered at all, by what the documentation demands.
    pub fn makes_sense(self) -> bool {
        let Self { count, align, boundary, .. } = self;
        let is_well_formed = (1..=FRAMES).contains(&count)
            && align.is_power_of_two()
            && align <= 1 << 30
            && (boundary == 0 || boundary.is_power_of_two() && boundary / FRAME_SIZE >= count)
            && self.limits().1 >= count;
        is_well_formed && self.place().is_none_or(|place| self.allows(place))
    }
}
