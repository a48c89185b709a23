//! What the kernel says about memory before and after the exercises. Every figure is read or
//! measured at that moment.

use core::time::Duration;
use frametree::{FRAME_SIZE, MemoryMap, Metadata, RegionKind};

use crate::exercises::{self, nmi, pages, remove, reserve, shapes, zero};
use crate::handoff::Handoff;
use crate::memory::{self, POOL, Purpose};
use crate::paging::Mapped;
use crate::picture::Scale;
use crate::text::{Bytes, frames};
use crate::{apic, print, println, smp};

/// The loader's map, entry by entry.
pub fn map_as_it_came(handoff: &Handoff) {
    println!("Memory map as it came: {} entries", handoff.memory_map().count());
    for entry in handoff.memory_map() {
        let (start, length) = (entry.start, entry.length);
        let (size, unit) = Bytes(length).parts();
        println!("  {start:#014x} + {length:#014x} {size:>5} {unit:<3}  {}", entry.meaning());
    }
}

/// What became of it.
pub fn normalised(map: &MemoryMap) {
    println!("\nNormalised, in frames of {FRAME_SIZE} bytes");
    for (range, kind) in map.regions() {
        let kind = match kind {
            RegionKind::Usable => "usable",
            _ => "usable once the ACPI tables are read",
        };
        let (start, end) = (range.start().get(), range.end().get());
        let (size, unit) = frames(range.len()).parts();
        println!("  {start:#014x} ..{end:#014x} {size:>5} {unit:<3}  {kind}");
    }
}

/// One reservation, and what it cost.
pub fn reservation(what: &str, start: u64, length: u64, taken: u64) {
    let (size, unit) = Bytes(length).parts();
    println!("  {start:#014x} + {length:#014x} {size:>5} {unit:<3}  {what}: {taken} frames");
}

/// What the pool took for itself.
pub fn metadata(metadata: &Metadata, usable: u64) {
    let start = metadata.frames.start().start_address();
    let (bytes, managed) = (metadata.bytes as u64, metadata.managed_frames);
    let hundredths = bytes * 8 * 100 / managed;
    println!("\nMetadata of the pool");
    let (size, unit) = Bytes(bytes).parts();
    println!(
        "  {start:#014x} + {bytes:#014x} {size:>5} {unit:<3}  {} frames",
        metadata.frames.len()
    );
    println!("  {}.{:02} bits for each managed frame", hundredths / 100, hundredths % 100);
    println!("  frames managed: {managed} of {usable} usable ones, {}", frames(managed));
}

/// How the memory beyond the early map was mapped.
pub fn direct_map(mapped: &Mapped) {
    let Mapped { giant, large, small } = mapped;
    println!("\nMapped above 4 GiB: {giant} pages of 1 GiB, {large} of 2 MiB, {small} of 4 KiB");
    println!("  page tables for it from the pool: {}", memory::kept(Purpose::Table));
}

/// The CPU that booted.
pub fn first_cpu() {
    print!("\nCPUs: 0");
}

/// A CPU that came up.
pub fn next_cpu(index: usize) {
    print!(" {index}");
}

/// That these were all.
pub fn all_cpus() {
    let cpus = smp::online();
    let (mode, highest) = (apic::mode(), apic::highest());
    println!(" up, {cpus} in all; by {mode}, their numbers up to {highest}");
    println!("  stacks take {} frames", memory::kept(Purpose::Stack));
}

/// How to read the pictures that follow.
pub fn picture_legend() {
    if let Some(tree) = POOL.tree() {
        let Scale { blocks, per_cell } = Scale::of(tree);
        println!(
            "\nMemory is {blocks} blocks of 2 MiB. In the pictures a cell is {per_cell} of them,"
        );
        println!("from ' ' (all free) over ░ ▒ ▓ to █ (all in use).\n");
    }
}

/// What the exercises did that the summary tells.
pub struct Done {
    /// Frames that joined late.
    pub joined: u64,
    /// Urgent ones.
    pub reserve: reserve::Counts,
    /// In the storm.
    pub nmi: nmi::Counts,
    /// Of every shape.
    pub shapes: shapes::Counts,
    /// Zeroed ones.
    pub zero: zero::Counts,
    /// Large ones.
    pub pages: pages::Counts,
    /// Some that went.
    pub remove: remove::Counts,
}

/// Where every frame is, and what it took.
pub fn summary(elapsed: Duration, done: &Done) {
    exercises::drain_all();
    let (stats, (taken, given_back)) = (POOL.stats(), exercises::totals());
    let kept = memory::kept_in_all();
    println!("\nSummary after {:.1} s on {} CPUs", elapsed.as_secs_f32(), smp::online());
    println!("  allocations {taken:>12}    frees  {given_back:>12}");
    println!("  refills     {:>12}    flushes{:>12}", stats.refills, stats.flushes);
    println!("  splits      {:>12}    merges {:>12}", stats.splits, stats.merges);
    println!("  lost races  {:>12}    nested {:>12}", stats.lost_races, stats.nested);
    println!(
        "  drains      {:>12}    requested by CPUs that found nothing",
        memory::requested_drains()
    );
    summary_of(&done.shapes);
    summary_of_the_rest(done);
    println!("  free        {:>12}    of them cached {}", stats.free_frames, stats.cached_frames);
    println!(
        "  kept        {kept:>12}    {} page tables, {} stacks, {} heap, {} the pool's",
        memory::kept(Purpose::Table),
        memory::kept(Purpose::Stack),
        crate::heap::frames(),
        memory::kept(Purpose::Pool),
    );
    let accounted = stats.free_frames + kept;
    print!("  frames accounted for: {accounted} of {}", stats.managed_frames);
    assert!(accounted == stats.managed_frames, "frames are missing");
    println!(", all");
    let lost = frametree::lost_frames();
    assert!(lost == 0, "the owners of {lost} frames were dropped");
    assert!(taken == given_back, "{taken} frames were taken and {given_back} given back");
    if let Err(broken) = POOL.verify() {
        panic!("the pool is broken: {broken}");
    }
    println!("  verify: every level of the tree and every cache is sound");
}

/// What memory of every shape was had: one line.
fn summary_of(shapes: &shapes::Counts) {
    let &shapes::Counts { frames, runs, old_buffers, buffers, blocks } = shapes;
    print!("  shapes      {frames:>12}    {runs} runs, ");
    for (count, limit) in [(old_buffers, "16M"), (buffers, "4G")] {
        match count {
            Some(count) => print!("{count} DMA <{limit}, "),
            None => print!("no memory <{limit}, "),
        }
    }
    println!("{blocks} of 2 MiB");
}

/// What came and went, and how: a line each.
fn summary_of_the_rest(done: &Done) {
    let Done { joined, reserve, nmi, zero, pages, remove, .. } = done;
    let reserve::Counts { urgent, refused, above } = reserve;
    println!("  reserve     {urgent:>12}    had in interrupts, {refused} other requests refused");
    println!("  low last    {above:>12}    single frames from above 16 MiB came first");
    println!("  crossings   {:>12}    of the two watermarks", memory::crossings());
    println!("  NMIs        {:>12}    {} hit inside the allocator", nmi.met, nmi.inside);
    println!("  zeroed      {:>12}    {} were known to be zero", zero.checked, zero.known);
    println!("  in runs     {:>12}    frames, all zeros", zero.in_runs);
    println!("  large pages {:>12}    of 2 MiB, and {} of 1 GiB", pages.large, pages.giant);
    println!("  joined late {joined:>12}    frames that the boot had needed");
    let remove::Counts { removed, retired, meanwhile } = remove;
    println!("  removed     {removed:>12}    and back, while others were given {meanwhile}");
    println!("  retired     {retired:>12}    for good");
}
