//! Pure functions on one 64-bit word. The ground floor: nothing here knows a frame, an atomic or
//! another word.
//!
//! A set bit stands for something free, as everywhere in this crate, and bit 0 for the lowest.
//! A *run* is a stretch of set bits without a gap. Every function is total: an argument that
//! makes no sense has an answer that says so (`None`, an empty mask), not a panic.

use bit_field::BitField;

/// The lowest bit at which `n` set bits in a row begin; `None` if there is no such run, and for
/// an `n` of 0 or above 64. At most six steps, whatever the word.
#[inline]
#[must_use]
pub const fn lowest_run(word: u64, n: u32) -> Option<u32> {
    match starts_of_runs(word, n) {
        0 => None,
        starts => Some(starts.trailing_zeros()),
    }
}

/// The bits at which `n` set bits in a row begin; none for an `n` of 0 or above 64.
///
/// Each step thins every run of the word by cutting bits off its upper end; what is left after
/// `n - 1` cuts are exactly the bits at which a run of `n` begins. The cuts double from step to
/// step: after a cut of `k` in all, each bit left vouches for the `k` bits above it too, so that
/// one shift can cut up to `k + 1` more.
#[inline]
#[must_use]
pub const fn starts_of_runs(word: u64, n: u32) -> u64 {
    let mut left = n.wrapping_sub(1);
    if left >= u64::BITS {
        return 0;
    }
    let (mut starts, mut step) = (word, 1);
    while left > step {
        starts &= starts >> step;
        left -= step;
        step *= 2;
    }
    starts & (starts >> left)
}

/// The length of the longest run. At most twelve steps.
///
/// First where runs of 1, 2, 4, 8.. begin, as long as there are any; then back, adding each of
/// these lengths to what has been found if a run goes on so far.
#[inline]
#[must_use]
pub const fn longest_run(word: u64) -> u32 {
    let mut starts = [word, 0, 0, 0, 0, 0];
    let mut step = 0;
    while step < 5 && starts[step] != 0 {
        starts[step + 1] = starts[step] & (starts[step] >> (1 << step));
        step += 1;
    }
    let (mut found, mut length) = (u64::MAX, 0);
    loop {
        // A run of `length` is followed by one of `1 << step` more.
        let longer = found & (starts[step] >> length);
        if longer != 0 {
            found = longer;
            length += 1 << step;
        }
        if step == 0 {
            return if word == u64::MAX { u64::BITS } else { length };
        }
        step -= 1;
    }
}

/// A word with the `len` bits from bit `start` on set. Bits that would lie above bit 63 are cut.
#[inline]
#[must_use]
pub const fn mask(start: u32, len: u32) -> u64 {
    if len == 0 || start >= u64::BITS {
        return 0;
    }
    let len = if len < u64::BITS { len } else { u64::BITS };
    (u64::MAX >> (u64::BITS - len)) << start
}

/// The `len` bits of `word` from bit `start` on, moved down to bit 0. Bits above bit 63 read 0.
#[inline]
#[must_use]
pub fn extract(word: u64, start: u32, len: u32) -> u64 {
    let end = start.saturating_add(len).min(u64::BITS);
    if start >= end { 0 } else { word.get_bits(start as usize..end as usize) }
}

/// The bytes of `word` that are at least `least`, 1 to 255: bit `i` for byte `i`.
#[inline]
#[must_use]
pub const fn bytes_at_least(word: u64, least: u8) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let (low, high) = (word & !HIGH, word & HIGH);
    // The sum has a byte's high bit set where the byte without its own is large enough.
    let marks = if least <= 0x80 {
        (low + (0x80 - least as u64) * LOW) | high
    } else {
        (low + (0x100 - least as u64) * LOW) & high
    };
    // Gathers the high bits: each product term lands in a place of its own.
    ((marks & HIGH) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// The `n` lowest set bits of `word`, as a mask; all of them if there are no more than that. As
/// many steps as bits, unless that is all of them.
#[inline]
#[must_use]
pub const fn lowest_ones(word: u64, n: u32) -> u64 {
    if word.count_ones() <= n {
        return word;
    }
    let mut rest = word;
    let mut left = n;
    while left > 0 {
        rest &= rest - 1;
        left -= 1;
    }
    word & !rest
}

/// The numbers of the set bits of `word`, lowest first.
#[inline]
pub fn ones(word: u64) -> impl Iterator<Item = u32> + Clone {
    let mut rest = word;
    core::iter::from_fn(move || {
        let lowest = (rest != 0).then(|| rest.trailing_zeros())?;
        rest &= rest - 1;
        Some(lowest)
    })
}

/// The longest possible runs of set bits of `word` as (first bit, length), lowest first.
#[inline]
pub fn runs(word: u64) -> impl Iterator<Item = (u32, u32)> + Clone {
    let mut rest = word;
    core::iter::from_fn(move || {
        let start = (rest != 0).then(|| rest.trailing_zeros())?;
        let len = (rest >> start).trailing_ones();
        rest &= !mask(start, len);
        Some((start, len))
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn bit(word: u64, index: u32) -> bool {
        index < 64 && word >> index & 1 == 1
    }

    fn naive_lowest_run(word: u64, n: u32) -> Option<u32> {
        (0..64).find(|&start| n > 0 && (0..n).all(|i| bit(word, start + i)))
    }

    fn naive_mask(start: u32, len: u32) -> u64 {
        (0..64).filter(|&i| i >= start && i - start < len).map(|i| 1 << i).sum()
    }

    /// Words made of a few intervals, set or cut out: random words have no run above some
    /// twenty bits.
    fn interval_word() -> impl Strategy<Value = u64> {
        prop::collection::vec((0u32..64, 1u32..=64, any::<bool>()), 1..5).prop_map(|parts| {
            parts.into_iter().fold(0, |word, (start, len, set)| {
                let part = naive_mask(start, len);
                if set { word | part } else { word & !part }
            })
        })
    }

    fn any_word() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), interval_word(), interval_word().prop_map(|word| !word)]
    }

    #[test]
    fn every_interval_is_found_at_its_own_length_and_not_one_longer() {
        for start in 0..64 {
            for len in 1..=64 - start {
                let word = naive_mask(start, len);
                assert_eq!(mask(start, len), word);
                assert_eq!(runs(word).collect::<Vec<_>>(), [(start, len)]);
                for n in 0..=66 {
                    let expected = (1..=len).contains(&n).then_some(start);
                    assert_eq!(lowest_run(word, n), expected, "{n} in {word:#x}");
                }
            }
        }
    }

    #[test]
    fn arguments_without_sense_have_an_answer() {
        assert_eq!(lowest_run(u64::MAX, 0), None);
        assert_eq!(lowest_run(u64::MAX, 65), None);
        assert_eq!(lowest_run(u64::MAX, u32::MAX), None);
        assert_eq!(mask(64, 1), 0);
        assert_eq!(mask(3, u32::MAX), u64::MAX << 3);
        assert_eq!(extract(u64::MAX, 64, 1), 0);
        assert_eq!(extract(u64::MAX, 60, u32::MAX), 0xf);
        assert_eq!(extract(u64::MAX, u32::MAX, u32::MAX), 0);
    }

    proptest! {
        // Miri interprets each of them.
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 4096 }))]

        #[test]
        fn lowest_run_is_the_first_place_that_fits(word in any_word(), n in 0u32..=66) {
            prop_assert_eq!(lowest_run(word, n), naive_lowest_run(word, n));
            let fits = |n| naive_lowest_run(word, n).is_some();
            prop_assert_eq!(longest_run(word), (1..=64).take_while(|n| fits(*n)).count() as u32);
        }

        #[test]
        fn mask_and_extract_agree_with_single_bits(
            word in any_word(), start in 0u32..=66, len in 0u32..=66,
        ) {
            prop_assert_eq!(mask(start, len), naive_mask(start, len));
            let bits = (0..len.min(64)).filter(|&i| bit(word, start + i));
            prop_assert_eq!(extract(word, start, len), bits.map(|i| 1u64 << i).sum::<u64>());
        }

        #[test]
        fn bytes_are_compared_one_by_one(word in any::<u64>(), least in 1..=255u8) {
            let naive = word.to_le_bytes().into_iter().enumerate();
            let due = naive.filter(|(_, byte)| *byte >= least).map(|(i, _)| 1 << i).sum::<u64>();
            prop_assert_eq!(bytes_at_least(word, least), due);
        }

        #[test]
        fn lowest_ones_are_the_first_so_many(word in any_word(), n in 0u32..=66) {
            let bits = (0..64).filter(|&i| bit(word, i)).take(n as usize);
            prop_assert_eq!(lowest_ones(word, n), bits.map(|i| 1u64 << i).sum::<u64>());
        }

        #[test]
        fn ones_and_runs_name_every_set_bit_once(word in any_word()) {
            let expected: Vec<u32> = (0..64).filter(|&i| bit(word, i)).collect();
            prop_assert_eq!(&ones(word).collect::<Vec<_>>(), &expected);
            let from_runs = runs(word).flat_map(|(start, len)| start..start + len);
            prop_assert_eq!(&from_runs.collect::<Vec<_>>(), &expected);
            for (start, len) in runs(word) {
                prop_assert!(!bit(word, start + len) && (start == 0 || !bit(word, start - 1)));
            }
        }
    }
}
