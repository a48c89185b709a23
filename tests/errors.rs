//! What an error says: each carries its numbers, and, where there is one, the next step.
#![cfg(not(loom))]

use frametree::{
    AllocError, Found, FrameNumber, FreeError, GrowError, InTheWay, InitError, IsolateError,
    LayoutError, MapError, NoRun, NumberRange, OutOfMemory, Request, RequestError,
};

/// The error's words, and parts that must be in them.
fn check(cases: &[(String, &[&str])]) {
    for (said, parts) in cases {
        for part in *parts {
            assert!(said.contains(part), "\"{said}\" does not say \"{part}\"");
        }
        assert!(said.len() < 200 && !said.contains("  "), "\"{said}\"");
        assert!(!said.ends_with('.'), "\"{said}\" can't go into a sentence");
    }
}

const FRAME: FrameNumber = FrameNumber::new(0x1234);

fn range() -> NumberRange {
    NumberRange::from_numbers(0x100, 0x200)
}

#[test]
fn a_free_that_is_refused_names_the_frame_and_what_was_found() {
    let said = |found| FreeError { frame: FRAME, found }.to_string();
    check(&[
        (said(Found::Free), &["double free", "0x1234"]),
        (said(Found::FreeBlock), &["double free", "0x1234", "2 MiB"]),
        (said(Found::FreeGiant), &["double free", "0x1234", "GiB"]),
        (said(Found::Cached), &["double free", "0x1234", "cache"]),
        (said(Found::FreeAtFlush), &["double free", "0x1234", "flushed"]),
        (said(Found::Unmanaged), &["foreign", "0x1234", "not managed"]),
        (said(Found::Misaligned { frames: 512 }), &["0x1234", "512"]),
        (said(Found::PartlyFree { free: 17 }), &["double free", "0x1234", "17"]),
        (said(Found::NotInitialised), &["0x1234", "call `init`"]),
    ]);
    #[cfg(feature = "hardened")]
    check(&[(said(Found::NotHandedOut), &["double free", "0x1234"])]);
}

#[test]
fn an_allocation_that_gets_nothing_says_what_there_is() {
    let request =
        Request::new(17).align(1 << 16).above(1 << 20).below(1 << 24).not_crossing(1 << 17);
    let no_run = |cached| AllocError::NoRun(NoRun { request, free: 99, longest: 16, cached });
    let in_the_way = |why| AllocError::InTheWay { frame: FRAME, why };
    let wanted = ["17", "0x10000", "0x100000", "0x1000000", "0x20000", "99 frames", "16 in a row"];
    check(&[
        (AllocError::OutOfMemory { cached_elsewhere: 0 }.to_string(), &["out of memory", "0 free"]),
        (AllocError::OutOfMemory { cached_elsewhere: 5 }.to_string(), &["out of memory", "5 free"]),
        (
            AllocError::NoneWhole { frames: 512, free: 77, longest: 13, cached_elsewhere: 3 }
                .to_string(),
            &["512", "77", "13 in a row", "3 more"],
        ),
        (AllocError::Reserved { free: 64 }.to_string(), &["64", "urgent"]),
        (no_run(0).to_string(), &wanted),
        (no_run(4).to_string(), &["4 more", "caches"]),
        (in_the_way(InTheWay::Taken).to_string(), &["0x1234", "not free"]),
        (in_the_way(InTheWay::Unmanaged).to_string(), &["0x1234", "not managed"]),
        (AllocError::NotInitialised.to_string(), &["call `init`"]),
        (OutOfMemory.to_string(), &["out of memory"]),
    ]);
}

#[test]
fn a_request_without_sense_says_which_argument_and_why() {
    let said = |request: Request| AllocError::Request(request.check().unwrap_err()).to_string();
    check(&[
        (said(Request::new(0)), &["0 frames", "ask for 1"]),
        (said(Request::new(1 << 41)), &["2199023255552", "1099511627776"]),
        (said(Request::new(1).align(3)), &["0x3", "power of two"]),
        (said(Request::new(1).not_crossing(3 << 12)), &["0x3000", "power of two"]),
        (said(Request::new(5).not_crossing(1 << 14)), &["5 frames", "0x4000"]),
        (said(Request::new(5).above(1 << 20).below((1 << 20) + 1)), &["5", "0x100000", "0x100001"]),
        (RequestError::At { address: 0x5000 }.to_string(), &["0x5000"]),
    ]);
}

#[test]
fn a_pool_that_can_not_begin_says_what_it_needs() {
    let layout = |error| InitError::Layout(error).to_string();
    let map = |error| InitError::Map(error).to_string();
    check(&[
        (InitError::AlreadyInitialised.to_string(), &["before"]),
        (InitError::StorageTooSmall { needed: 4096, given: 128 }.to_string(), &["4096", "128"]),
        (InitError::Misaligned { address: 0x1004 }.to_string(), &["0x1004", "128"]),
        (InitError::ReserveTooLarge { reserve: 70, managed: 64 }.to_string(), &["70", "64"]),
        (layout(LayoutError::NothingUsable), &["no usable frame"]),
        (layout(LayoutError::NoCpus), &["0 CPUs", "at least 1"]),
        (layout(LayoutError::TooManyCpus { cpus: 70_000, limit: 65_536 }), &["70000", "65536"]),
        (map(MapError::BufferTooSmall { needed: 800, capacity: 256 }), &["800", "256"]),
        (
            map(MapError::NoRoom { wanted: 9, largest: 7, below: 1 << 32 }),
            &["9", "7", "0x100000000"],
        ),
        (map(MapError::ZeroFrames), &["0 frames", "at least 1"]),
    ]);
}

#[test]
fn memory_that_can_not_come_or_go_says_why() {
    check(&[
        (GrowError::NotInitialised.to_string(), &["call `init`"]),
        (GrowError::Empty.to_string(), &["0 frames"]),
        (GrowError::Overlap { managed: range() }.to_string(), &["0x100..0x200"]),
        (GrowError::StorageTooSmall { needed: 512, given: 64 }.to_string(), &["512", "64"]),
        (GrowError::TooSmall { needed: 3, given: 2 }.to_string(), &["3", "2"]),
        (GrowError::Misaligned { address: 0x204 }.to_string(), &["0x204", "128"]),
        (IsolateError::NotInitialised.to_string(), &["call `init`"]),
        (IsolateError::Empty.to_string(), &["0 frames"]),
        (IsolateError::Unmanaged { frame: FRAME }.to_string(), &["0x1234"]),
        (IsolateError::Free { frame: FRAME }.to_string(), &["0x1234", "isolate it instead"]),
        (IsolateError::Overlap { isolated: range() }.to_string(), &["0x100..0x200"]),
        (IsolateError::TooMany { limit: 16 }.to_string(), &["16", "end one first"]),
        (IsolateError::NoMetadata.to_string(), &["metadata"]),
        (IsolateError::Misaligned { address: 0x204 }.to_string(), &["0x204", "128"]),
    ]);
}
