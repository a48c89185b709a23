//! The metadata memory, dealt out part by part: the one place where raw memory becomes typed.
//!
//! Each part starts at a multiple of 128 bytes (their sizes are added up in `layout`), and
//! lives as long as the memory does. Parts are written when they are dealt, or value by value
//! ([`Part`]), or not at all: leaves and a giant's nodes are [`Unwritten`] until the first holder
//! of the whole block, or giant, writes them (see `tree`), so that starting up costs nothing for
//! each frame and block.
//!
//! Under `cfg(loom)`, whose atomics can't be laid over bytes, the parts come from the heap, and
//! unwritten ones are filled with ones: what is read before it is written gives frames out that
//! do not exist, and models notice.

use core::marker::PhantomData;

/// Each part of the metadata starts at a multiple of this many bytes.
pub const PART_ALIGN: usize = 128;

/// Bytes that `count` values of `T` take, padded to the start of the next part.
pub const fn part<T>(count: usize) -> usize {
    (count * size_of::<T>()).next_multiple_of(PART_ALIGN)
}

/// A piece of memory, dealt out from its start.
#[derive(Debug)]
pub struct Arena<'m> {
    #[cfg_attr(loom, allow(dead_code, reason = "models take their parts from the heap"))]
    next: *mut u8,
    left: usize,
    memory: PhantomData<&'m mut [u64]>,
}

/// Room for values that are written one by one.
#[derive(Debug)]
pub struct Part<'m, T> {
    next: *mut T,
    left: usize,
    memory: PhantomData<&'m [T]>,
}

/// What may be used before it is written: whatever it reads as then, it is a value.
///
/// # Safety
/// Any bytes are a value of the type.
pub unsafe trait Unwritten {
    /// The value that models find before they write one.
    #[cfg(loom)]
    fn ones() -> Self;
}

impl<'m, T> Part<'m, T> {
    /// Writes the next value.
    ///
    /// # Panics
    /// If there is no room left: a bug in `layout`.
    pub fn put(&mut self, value: T) -> &'m T {
        assert!(self.left > 0, "more values than the layout has");
        let at = self.next;
        // SAFETY: `cut` gave room for as many values as are left, aligned, to this part alone.
        unsafe { at.write(value) };
        self.left -= 1;
        // SAFETY: within the part, or right behind it.
        self.next = unsafe { at.add(1) };
        // SAFETY: just written; nobody writes there again, and the memory lives for `'m`.
        unsafe { &*at }
    }
}

impl<'m> Arena<'m> {
    /// An arena over `bytes` bytes at `start`.
    ///
    /// # Safety
    /// For all of `'m` the memory is valid for reads and writes, belongs to the arena alone, and
    /// holds bytes (any, but not uninitialised ones in the sense of the language: memory that
    /// firmware or a bootloader hands over does). `start` is aligned to 128.
    pub unsafe fn new(start: *mut u8, bytes: usize) -> Self {
        debug_assert!(start.addr().is_multiple_of(PART_ALIGN));
        Self { next: start, left: bytes, memory: PhantomData }
    }

    /// An arena of no memory, for parts of nothing.
    pub fn empty() -> Self {
        let nowhere = core::ptr::without_provenance_mut(PART_ALIGN);
        Self { next: nowhere, left: 0, memory: PhantomData }
    }

    /// Deals `count` values, each made by `make` from its index.
    ///
    /// # Panics
    /// If the arena is too small: a bug in `layout`.
    pub fn deal<T>(&mut self, count: usize, mut make: impl FnMut(usize) -> T) -> &'m [T] {
        let part = self.cut::<T>(count);
        for index in 0..count {
            // SAFETY: `cut` gave room for `count` values of `T`, aligned, to this call alone.
            unsafe { part.add(index).write(make(index)) };
        }
        // SAFETY: all `count` values were just written, and nobody else has the part for `'m`.
        unsafe { core::slice::from_raw_parts(part, count) }
    }

    /// Deals the first `count` values of an iterator.
    ///
    /// # Panics
    /// As [`Arena::deal`], and if there are fewer values.
    pub fn deal_all<T>(&mut self, count: usize, values: impl Iterator<Item = T>) -> &'m [T] {
        let mut values = values;
        self.deal(count, |_| values.next().expect("the map changed since its layout was made"))
    }

    /// Deals room for `count` values, which are written one by one.
    ///
    /// # Panics
    /// If the arena is too small: a bug in `layout`.
    pub fn deal_part<T>(&mut self, count: usize) -> Part<'m, T> {
        Part { next: self.cut(count), left: count, memory: PhantomData }
    }

    /// Deals `count` values with whatever the memory holds.
    ///
    /// # Panics
    /// As [`Arena::deal_part`].
    #[cfg(not(loom))]
    pub fn deal_unwritten<T: Unwritten>(&mut self, count: usize) -> &'m [T] {
        let part = self.cut::<T>(count);
        // SAFETY: `cut` gave room for `count` values, aligned, to this call alone; any bytes are
        // a valid `T`, and the memory holds bytes as `new` was promised.
        unsafe { core::slice::from_raw_parts(part, count) }
    }

    /// Deals `count` values full of ones.
    #[cfg(loom)]
    pub fn deal_unwritten<T: Unwritten>(&mut self, count: usize) -> &'m [T] {
        self.deal(count, |_| T::ones())
    }

    #[cfg(not(loom))]
    fn cut<T>(&mut self, count: usize) -> *mut T {
        const { assert!(PART_ALIGN.is_multiple_of(align_of::<T>())) };
        let bytes = part::<T>(count);
        assert!(bytes <= self.left, "the layout is smaller than its parts");
        let part = self.next;
        // SAFETY: within the memory that `new` was given, as just asserted.
        self.next = unsafe { part.add(bytes) };
        self.left -= bytes;
        part.cast()
    }

    #[cfg(loom)]
    fn cut<T>(&mut self, count: usize) -> *mut T {
        extern crate std;
        self.left = self.left.saturating_sub(1);
        let part: std::boxed::Box<[core::mem::MaybeUninit<T>]> =
            std::boxed::Box::new_uninit_slice(count);
        std::boxed::Box::leak(part).as_mut_ptr().cast()
    }
}

#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "memory of its own")]
mod tests {
    extern crate std;

    use super::*;

    fn arena(parts: usize) -> Arena<'static> {
        let memory = std::vec![[0_u8; PART_ALIGN]; parts + 1].leak().as_mut_ptr().cast::<u8>();
        let start = memory.wrapping_add(memory.align_offset(PART_ALIGN));
        // SAFETY: nobody else uses it.
        unsafe { Arena::new(start, parts * PART_ALIGN) }
    }

    #[test]
    fn parts_lie_one_behind_the_other() {
        let mut arena = arena(2);
        let [mut first, mut second] = [arena.deal_part::<u64>(2), arena.deal_part::<u64>(1)];
        let [one, two, three] = [first.put(1), second.put(2), first.put(3)];
        let at = |word: &u64| core::ptr::from_ref(word).addr();
        assert_eq!((at(three) - at(one), at(two) - at(one)), (8, PART_ALIGN));
        assert_eq!([*one, *two, *three], [1, 2, 3]);
    }

    #[test]
    #[should_panic(expected = "more values than the layout has")]
    fn what_a_part_has_no_room_for_is_a_bug() {
        let mut part = arena(1).deal_part::<u64>(2);
        (0..3).for_each(|value| _ = part.put(value));
    }

    #[test]
    #[should_panic(expected = "the layout is smaller than its parts")]
    fn what_an_arena_has_no_room_for_is_a_bug() {
        let mut arena = arena(2);
        let _first = arena.deal_part::<u64>(17);
        let _second = arena.deal_part::<u64>(1);
    }
}
