//! Free runs, and the texts of `/proc`, against a set of frames that knows what is free.
#![cfg(not(loom))]

mod support;

use std::collections::BTreeSet;

use frametree::{FramePool, NumberRange, Request};
use proptest::prelude::*;
use support::{BLOCK, GIANT, Threads, pool};

/// The longest runs of a set of frames.
fn naive_runs(free: &BTreeSet<u64>) -> Vec<NumberRange> {
    let begins = free.iter().filter(|&&frame| frame == 0 || !free.contains(&(frame - 1)));
    let end = |begin: u64| (begin..).find(|frame| !free.contains(frame)).expect("an end");
    begins.map(|&begin| NumberRange::from_numbers(begin, end(begin))).collect()
}

/// The columns of a zone's line.
fn columns(text: &str, zone: &str) -> Option<Vec<u64>> {
    let line = text.lines().find(|line| line.split_whitespace().nth(3) == Some(zone))?;
    Some(line.split_whitespace().skip(4).map(|count| count.parse().expect("a count")).collect())
}

fn frames_in(columns: &[u64]) -> u64 {
    columns.iter().zip(0..).map(|(count, order)| count << order).sum()
}

fn take(pool: &FramePool<Threads>, frame: u64, count: u64) {
    let request = Request::new(count).at(frametree::FrameNumber::new(frame));
    // Held until the process ends.
    let _ = pool.alloc_run(&request).expect("these frames").into_numbers();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn free_runs_are_those_of_the_set(
        taken in prop::collection::vec((0u64..6 * BLOCK, 1u64..700), 0..40),
    ) {
        // Blocks 0 and 1, a hole, blocks 3 to 5; parts of blocks at the ends.
        let ranges = [(7, 2 * BLOCK - 7), (3 * BLOCK, 3 * BLOCK - 100)];
        let pool = pool(Threads, 1, &ranges);
        let mut free: BTreeSet<u64> =
            ranges.iter().flat_map(|&(start, count)| start..start + count).collect();
        for (start, count) in taken {
            let frames = start..start + count;
            if frames.clone().all(|frame| free.contains(&frame)) {
                take(pool, start, count);
                free.retain(|frame| !frames.contains(frame));
            }
        }
        pool.drain().expect("a drain");
        let tree = pool.tree().expect("a tree");
        prop_assert_eq!(tree.free_runs().collect::<Vec<_>>(), naive_runs(&free));
        let low = columns(&tree.buddyinfo().to_string(), "DMA").expect("a zone");
        prop_assert_eq!(frames_in(&low), free.len() as u64);
    }
}

#[test]
fn buddyinfo_in_the_form_that_tools_read() {
    // 16 MiB less three frames at the end, then memory on both sides of 4 GiB, aligned to nothing.
    let pool = pool(Threads, 1, &[(1, 4096 - 4), ((4 << 18) - 5, 12)]);
    let text = pool.tree().expect("a tree").buddyinfo().to_string();
    let expected = "\
Node 0, zone      DMA      2      1      2      2      2      2      2      2      2      2      2 
Node 0, zone    DMA32      1      0      1      0      0      0      0      0      0      0      0 
Node 0, zone   Normal      1      1      1      0      0      0      0      0      0      0      0 
";
    assert_eq!(text, expected);
}

#[test]
fn zones_without_memory_are_left_out_and_giants_are_cut_up() {
    let pool = pool(Threads, 1, &[(8 * GIANT, 2 * GIANT)]);
    let text = pool.tree().expect("a tree").buddyinfo().to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(columns(&text, "Normal"), Some(vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 512]));
    assert_eq!(pool.tree().expect("a tree").free_runs().count(), 1);
}

#[test]
fn meminfo_in_kib() {
    let pool = pool(Threads, 1, &[(0, GIANT + BLOCK)]);
    let frame = pool.alloc().expect("a frame");
    let expected = "\
MemTotal:        1050624 kB
MemFree:         1050620 kB
FreePcp:             252 kB
Free2M:          1048576 kB
Free1G:                0 kB
";
    let text = pool.stats().meminfo().to_string();
    pool.free(frame).expect("a frame that was taken");
    assert_eq!(text, expected);
}

#[cfg(feature = "log")]
#[test]
fn a_new_pool_says_so_in_the_log() {
    use std::sync::Mutex;

    struct Kept(Mutex<Vec<String>>);
    impl log::Log for Kept {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let line = format!("{} {}", record.level(), record.args());
            self.0.lock().unwrap().push(line);
        }
        fn flush(&self) {}
    }
    static KEPT: Kept = Kept(Mutex::new(Vec::new()));

    log::set_logger(&KEPT).expect("the only logger");
    log::set_max_level(log::LevelFilter::Debug);
    pool(Threads, 3, &[(77 * GIANT, 4 * BLOCK)]);
    // Other tests make pools too.
    let lines = KEPT.0.lock().unwrap();
    let has = |text: &str| lines.iter().any(|line| line.starts_with(text));
    assert!(has("DEBUG frametree: 0x1340000000..0x1340800000 Usable"), "{lines:?}");
    assert!(has("INFO frametree: 8192 KiB for 3 CPUs, with "), "{lines:?}");
}
