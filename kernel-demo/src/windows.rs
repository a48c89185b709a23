//! Which page is mapped at which of a few places, side by side and for good.
//!
//! Pure: the mapping itself is the caller's (paging.rs), so that the host's tests can run this.

use core::ops::Range;

/// `N` places for pages, the first `count` of them in use.
pub struct Windows<const N: usize> {
    pages: [u64; N],
    count: usize,
}

impl<const N: usize> Windows<N> {
    /// None is in use.
    pub const fn new() -> Self {
        Self { pages: [0; N], count: 0 }
    }

    /// Where these pages, by their numbers, are one after the other. The same ones are asked for
    /// again and again: only what is new gets places, and `map` is called with each and its page.
    /// `None` if there are too few places.
    pub fn place(&mut self, wanted: Range<u64>, mut map: impl FnMut(usize, u64)) -> Option<usize> {
        let length = usize::try_from(wanted.end - wanted.start).ok().filter(|&l| l > 0)?;
        let used = &self.pages[..self.count];
        let is_there = |run: &[u64]| run.iter().copied().eq(wanted.clone());
        if let Some(place) = used.windows(length).position(is_there) {
            return Some(place);
        }
        let place = self.count;
        let new = self.pages[place..].get_mut(..length)?;
        for (index, page) in wanted.enumerate() {
            new[index] = page;
            map(place + index, page);
        }
        self.count += length;
        Some(place)
    }
}
