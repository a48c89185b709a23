//! frametree's demo kernel: it boots, gives the machine's real memory map to the allocator, has
//! every CPU allocate and free from it at once, and reports what happened.
//!
//! One idea a file. From the ground up: boot (into 64-bit Rust), console and exit, clock, cpu and
//! interrupts, apic, waiting; watchdog, with tco (where it is); handoff and firmware (what the loader
//! and ACPI say), elsewhere (and where); memory (the pool), paging with its windows and heap on top
//! of it; smp (all CPUs); exercises; steering and screen (for who watches); picture, report and this
//! file.
//!
//! Three programs are made of it: the demo (main.rs) and the small kernels of `examples/`, which
//! have a `kernel_main` of their own and take from here what they need.
//!
//! On the host this crate is empty, so that `cargo test --workspace` works there.
#![cfg(target_os = "none")]
#![no_std]

extern crate alloc;

mod apic;
pub mod boot;
mod clock;
pub mod console;
mod cpu;
mod elsewhere;
mod exercises;
pub mod exit;
mod fault;
mod firmware;
pub mod handoff;
mod heap;
mod interrupts;
mod log;
pub mod memory;
pub mod paging;
mod picture;
mod report;
mod screen;
pub mod smp;
mod steering;
mod tco;
mod text;
mod waiting;
mod watchdog;
mod windows;

use exercises::late::BootMemory;
use exit::Outcome;
use firmware::Firmware;
use frametree::{CpuId, MapEntry, MemoryMap};
use handoff::Handoff;

/// Entries of the loader's map that there is room for; one real board lists 312.
const MAP_ENTRIES: usize = 1024;

/// What every kernel does first: from here on this CPU is number 0, has a console, and an exception
/// ends the kernel with its name.
///
/// # Safety
/// The first call, on the first CPU.
pub unsafe fn start() {
    // SAFETY: By contract.
    unsafe { cpu::enter(0) };
    console::init();
    interrupts::load();
}

/// Brings up all memory and all CPUs: [`memory::POOL`] has the one, [`smp::run`] the other.
/// Returns the memory that only this has needed.
pub fn bring_up(handoff: &Handoff) -> BootMemory {
    println!("frametree's demo kernel, booted through {}\n", handoff.protocol());
    fault::request(handoff.command_line());
    // SAFETY: The other CPUs are started below.
    unsafe { watchdog::halt() };

    // SAFETY: The address comes from the boot loader.
    let firmware = handoff.acpi_root().and_then(|root| unsafe { Firmware::new(root) });
    let firmware = firmware.expect("no ACPI tables");
    let moved = elsewhere::move_tables(handoff, &firmware).and_then(|root| {
        // SAFETY: The copies are complete.
        unsafe { Firmware::new(root) }
    });
    let firmware = moved.unwrap_or(firmware);
    elsewhere::move_screen(handoff);
    if firmware.pm_timer_port().and_then(clock::calibrate).is_none() {
        println!("no power management timer: times are guesses\n");
    }
    let boot_memory = start_memory(handoff, smp::present(&firmware));
    start_cpus(&firmware);
    boot_memory
}

/// The demo: all exercises, or some of them for long, and the end of the machine.
pub fn demo(handoff: &Handoff) -> ! {
    let boot_memory = bring_up(handoff);
    let last = CpuId::new(smp::online() - 1);
    smp::run(|cpu| {
        if cpu == last {
            fault::commit()
        }
    });
    let command_line = handoff.command_line();
    if let Some(time) = exercises::soak::requested(command_line) {
        exercises::soak::run(time);
    } else if let Some(names) = exercises::some::requested(command_line) {
        exercises::some::run(names);
    } else if let Some(wish) = screen::requested(command_line) {
        screen::run(handoff, wish);
    } else {
        exercise(&boot_memory);
    }
    exit::exit(Outcome::Success)
}

/// From the loader's map to a pool that has all memory that is free, and a direct map of it.
fn start_memory(handoff: &Handoff, cpus: usize) -> BootMemory {
    static BUFFER: spin::Mutex<[MapEntry; MemoryMap::entries_needed(MAP_ENTRIES)]> =
        spin::Mutex::new([MapEntry::EMPTY; MemoryMap::entries_needed(MAP_ENTRIES)]);
    let mut buffer = BUFFER.lock();
    report::map_as_it_came(handoff);
    let entries = handoff.memory_map().map(|entry| entry.region());
    let mut map = match MemoryMap::normalise(entries, &mut *buffer) {
        Ok(map) => map,
        Err(error) => panic!("the memory map: {error}"),
    };
    report::normalised(&map);
    let boot_memory = reserve(handoff, &mut map);

    let usable = map.usable_frames();
    // SAFETY: Everything that somebody uses was just reserved.
    match unsafe { memory::init(&mut map, cpus) } {
        Ok(metadata) => report::metadata(&metadata, usable),
        Err(error) => panic!("the pool: {error}"),
    }
    report::direct_map(&paging::map_usable_memory(map.usable()));
    boot_memory
}

/// Takes out of the map what lies in usable memory and is in use. Returns what of it is so only
/// during the boot.
fn reserve(handoff: &Handoff, map: &mut MemoryMap) -> BootMemory {
    println!("\nReserved");
    let mut boot_memory = BootMemory::reclaimable(map);
    let mut take = |what, start, length| {
        if (start, length) != boot::kernel_image() {
            boot_memory.add_usable(map, start, length);
        }
        match map.reserve(start, length) {
            Ok(frames) => report::reservation(what, start, length, frames),
            Err(error) => panic!("cannot reserve the {what}: {error}"),
        }
    };
    handoff.reservations(&mut take);
    for (what, start, length) in elsewhere::reservations() {
        take(what, start, length);
    }
    boot_memory
}

fn start_cpus(firmware: &Firmware) {
    apic::silence_pics();
    // SAFETY: The only call on this CPU, and interrupts are still off.
    unsafe { apic::init() };
    apic::calibrate_timer();
    report::first_cpu();
    smp::start_others(firmware, report::next_cpu);
    report::all_cpus();
    x86_64::instructions::interrupts::enable();
}

fn exercise(boot_memory: &BootMemory) {
    let watch = clock::Stopwatch::start();
    report::picture_legend();
    // SAFETY: All CPUs are up, and from here on nobody reads what the loader left or the tables.
    let joined = unsafe { exercises::late::run(boot_memory) };
    exercises::stamp::run();
    exercises::exhaust::run();
    let reserve = exercises::reserve::run();
    exercises::interrupt::run();
    let done = report::Done {
        joined,
        reserve,
        nmi: exercises::nmi::run(),
        shapes: exercises::shapes::run(),
        zero: exercises::zero::run(),
        pages: exercises::pages::run(),
        remove: exercises::remove::run(),
    };
    exercises::heap::run();
    report::summary(watch.elapsed(), &done);
}
