//! The demo kernel where real machines differ from `qemu -kernel`: started by GRUB from the disk
//! image, by BIOS and UEFI, as CD and as USB stick; without COM1, without pages of 1 GiB, on 128
//! CPUs; and its screen. And the script that writes the image to a stick.
#![cfg(not(loom))]

use std::fs::{self, File};
use std::io::{self, BufReader, PipeWriter, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

#[path = "../kernel-demo/src/tco.rs"]
mod tco;
#[path = "../kernel-demo/src/windows.rs"]
mod windows;

use frametree_qemu::{Boot, Control, Firmware, Medium, Memory, Outcome, Report, Screen};
use windows::Windows;

/// A fast exercise that takes all memory there is.
const SHORT: &str = "only=exhaust";

fn kernel() -> &'static Path {
    frametree_qemu::kernel().unwrap_or_else(|error| panic!("{error}"))
}

/// A place for this test run's files.
fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let file = place("short.iso");
        let made = frametree_qemu::image(kernel(), &file, 0, &[("Short", SHORT)]);
        made.unwrap_or_else(|error| panic!("{error}"));
        file
    })
}

fn machine(cpus: u32, memory: Memory) -> Boot {
    let time_limit = Duration::from_secs(90);
    Boot { time_limit, command_line: SHORT.into(), ..Boot::new(cpus, memory) }
}

fn succeeds(report: Result<Report, frametree_qemu::BootError>) -> String {
    let Report { outcome, output, .. } = report.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcome, Outcome::Success, "{outcome}:\n{output}");
    output
}

/// Boots the image, and checks what only this way of booting has.
fn image_boots(firmware: Firmware, medium: Medium) {
    let boot = machine(2, Memory::mebibytes(256));
    let output = succeeds(boot.run_image(image(), firmware, medium, |_| ()));
    assert!(output.contains("booted through multiboot2"), "{output}");
    assert!(output.contains("CPUs: 0 1 up, 2 in all"), "no second CPU, so no MADT:\n{output}");
    assert!(output.contains("only exhaust: "), "not this command line:\n{output}");
    assert!(output.contains("every frame accounted for"), "{output}");
    let information = output.lines().find(|line| line.contains("  boot information: "));
    let information = information.unwrap_or_else(|| panic!("not reserved:\n{output}"));
    // Below 1 MiB all is reserved already; GRUB puts it there on UEFI.
    let is_low = information.trim_start().starts_with("0x0000000");
    assert!(is_low || !information.ends_with(": 0 frames"), "it was not usable: {information}");
    let kinds = ["usable", "reserved"].map(|kind| output.matches(kind).count());
    assert!(kinds.into_iter().all(|count| count > 1), "a memory map:\n{output}");
}

/// The quick start's kernel as its chapter says: GRUB starts it through multiboot2.
#[test]
fn the_small_kernel_for_one_cpu_by_grub() {
    let kernel = frametree_qemu::small_kernel("one_cpu").unwrap_or_else(|error| panic!("{error}"));
    let file = place("small.iso");
    let made = frametree_qemu::image(&kernel, &file, 0, &[("Small", "")]);
    made.unwrap_or_else(|error| panic!("{error}"));
    let boot = Boot::new(1, Memory::mebibytes(128));
    let output = succeeds(boot.run_image(&file, Firmware::Bios, Medium::Cd, |_| ()));
    assert!(output.contains("written there, read here"), "{output}");
}

#[test]
fn the_image_from_cd_by_bios() {
    image_boots(Firmware::Bios, Medium::Cd);
}

#[test]
fn the_image_from_a_stick_by_bios() {
    image_boots(Firmware::Bios, Medium::Usb);
}

#[test]
fn the_image_from_cd_by_uefi() {
    image_boots(Firmware::Uefi, Medium::Cd);
}

#[test]
fn the_image_from_a_stick_by_uefi() {
    image_boots(Firmware::Uefi, Medium::Usb);
}

#[test]
fn without_com1() {
    let boot = Boot { has_com1: false, ..machine(2, Memory::mebibytes(64)) };
    let output = succeeds(boot.run(kernel(), |_| ()));
    assert_eq!(output, "", "somebody was heard");
}

/// QEMU's socket takes some hundred bytes, and then no more: what a port is like whose other end
/// holds up its hand.
#[test]
fn with_a_com1_whose_text_nobody_takes() {
    let (kernel, socket) = (kernel(), place("stuck.socket"));
    let _ = fs::remove_file(&socket);
    let line = format!("socket,id=line,server=on,wait=on,path={}", socket.display());
    let devices = format!("-chardev {line} -device isa-serial,chardev=line,iobase=0x3f8");
    // It takes a second; with a wait for each byte it was 40.
    let time_limit = Duration::from_secs(20);
    let stuck = Boot { has_com1: false, devices, time_limit, ..machine(2, Memory::mebibytes(64)) };
    let listener = thread::spawn(move || {
        // QEMU waits until somebody is there.
        let connect = || UnixStream::connect(&socket).ok();
        let mut tries = (0..2000).map(|_| thread::sleep(Duration::from_millis(10)));
        tries.find_map(|()| connect()).expect("a socket")
    });
    succeeds(stuck.run(kernel, |_| ()));
    let mut taken = Vec::new();
    let _ = listener.join().expect("a listener").read_to_end(&mut taken);
    let said = String::from_utf8_lossy(&taken);
    assert!(said.contains("frametree's demo kernel"), "it was no COM1: {said}");
    assert!(!said.contains("every frame accounted for"), "all was taken, so nothing was stuck");
}

#[test]
fn without_pages_of_1_gib() {
    let boot = Boot { features: "pdpe1gb=off".into(), ..machine(2, Memory::gibibytes(6)) };
    let output = succeeds(boot.run(kernel(), |_| ()));
    assert!(output.contains("Mapped above 4 GiB: 0 pages of 1 GiB, 1"), "{output}");
}

#[test]
fn with_acpi_tables_above_4_gib_and_across_pages() {
    let command_line = format!("{SHORT} acpi=high");
    let boot = Boot { command_line, ..machine(2, Memory::gibibytes(6)) };
    let output = succeeds(boot.run(kernel(), |_| ()));
    // QEMU has 3 GiB of the 6 above 4 GiB, or a little more: the copies are at the end.
    assert!(output.contains("ACPI tables read at 0x1"), "{output}");
    assert!(output.contains("ACPI tables: 16 frames\n"), "not reserved:\n{output}");
    assert!(output.contains("CPUs: 0 1 up, 2 in all"), "no second CPU, so no MADT:\n{output}");
    assert!(!output.contains("no power management timer"), "no FADT:\n{output}");
    assert!(output.contains("every frame accounted for"), "{output}");
}

#[test]
fn pages_of_tables_are_mapped_once_and_side_by_side() {
    let (mut places, mut mapped) = (Windows::<8>::new(), Vec::new());
    let mut place = |pages| places.place(pages, |place, page| mapped.push((place, page)));
    assert_eq!(place(7..8), Some(0));
    assert_eq!(place(7..9), Some(1), "a header, then the table: not side by side yet");
    assert_eq!(place(7..9), Some(1));
    assert_eq!(place(8..9), Some(2));
    assert_eq!(place(9..9), None, "no bytes");
    assert_eq!(place(20..26), None, "too many");
    assert_eq!(place(20..25), Some(3));
    assert_eq!(place(22..24), Some(5));
    assert_eq!(place(30..31), None, "full");
    let pages = [7, 7, 8, 20, 21, 22, 23, 24];
    assert!(mapped.into_iter().eq(pages.into_iter().enumerate()));
}

/// How many entries a memory map has, as the kernel counts them.
fn entries(output: &str) -> usize {
    let (_, rest) = output.split_once("Memory map as it came: ").expect("a map");
    rest.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a number")
}

/// Pieces of 64 KiB that are left between holes of 64 KiB, above 128 MiB. GRUB's time for them grows
/// with the third power.
const PIECES: u32 = 310;

/// GRUB cuts holes out of memory, as one does of a broken module.
fn boots_with_holes(firmware: Firmware) {
    let hole = |hole: u32| (128 << 20) + (hole << 17);
    let cut = |start: u32| format!("cutmem {start} {}\n", start + (64 << 10));
    let commands = (0..=PIECES).map(|piece| cut(hole(piece))).collect::<String>();
    let commands = format!("insmod mmap\n{commands}");
    let file = place(&format!("holes-{firmware:?}.iso"));
    let entry = ("Holes", "only=exhaust,stamp,shapes,remove");
    let made = frametree_qemu::image_with(&commands, kernel(), &file, 0, &[entry]);
    made.unwrap_or_else(|error| panic!("{error}"));
    let boot = machine(2, Memory::mebibytes(512));
    let output = succeeds(boot.run_image(&file, firmware, Medium::Cd, |_| ()));
    assert!((312..=1024).contains(&entries(&output)), "{} entries", entries(&output));
    let (_, normalised) = output.split_once("Normalised").expect("the map that came of it");
    let pieces = normalised.lines().filter(|line| line.ends_with(" 64 KiB  usable")).count();
    assert!(pieces >= PIECES as usize, "{pieces} pieces of 64 KiB:\n{output}");
    assert!(output.contains("every frame accounted for"), "{output}");
}

#[test]
fn with_more_than_312_entries_in_the_map_by_bios() {
    boots_with_holes(Firmware::Bios);
}

#[test]
fn with_more_than_312_entries_in_the_map_by_uefi() {
    boots_with_holes(Firmware::Uefi);
}

#[test]
fn the_image_has_no_debug_information() {
    let size = fs::metadata(image()).expect("the image").len();
    let whole = fs::metadata(kernel()).expect("a kernel").len();
    assert!(size < whole, "{size} bytes, GRUB among them, of a kernel of {whole}");
}

#[test]
fn with_watchdogs_that_nobody_has_armed() {
    let devices = "-device i6300esb -device ib700 -action watchdog=reset".into();
    let boot = Boot { devices, ..machine(2, Memory::mebibytes(64)) };
    let output = succeeds(boot.run(kernel(), |_| ()));
    assert!(output.contains("every frame accounted for"), "{output}");
}

/// GRUB arms the chipset's, as firmware may: eight ticks of 0.6 s, twice, until the reset, which it
/// allows the chipset. Who runs for eleven seconds and is not reset has halted it.
#[test]
fn with_the_watchdog_of_the_chipset_armed() {
    let arm = "insmod memrw\nwrite_dword 0xfed1f410 0\n\
        insmod iorw\noutw 0x672 8\noutw 0x660 1\noutw 0x668 0\n";
    let file = place("watchdog.iso");
    let made = frametree_qemu::image_with(arm, kernel(), &file, 0, &[("Screen", "screen=11")]);
    made.unwrap_or_else(|error| panic!("{error}"));
    let devices = "-machine q35 -global ICH9-LPC.noreboot=off".into();
    let boot = Boot { devices, screen: Screen::Hidden, ..machine(2, Memory::mebibytes(128)) };
    let output = succeeds(boot.run_image(&file, Firmware::Bios, Medium::Cd, |_| ()));
    assert!(output.contains("watchdog: the chipset's timer was running, "), "{output}");
    assert!(output.contains(" ticks to go: halted\n"), "{output}");
    assert!(output.contains("screen: over; every frame accounted for"), "{output}");
}

/// On q35 the chipset has the timer, but nobody has started it.
#[test]
fn with_the_watchdog_of_the_chipset_at_rest() {
    let boot = Boot { devices: "-machine q35".into(), ..machine(2, Memory::mebibytes(64)) };
    let output = succeeds(boot.run(kernel(), |_| ()));
    assert!(!output.contains("watchdog"), "{output}");
}

#[test]
fn the_watchdog_is_where_the_chipset_says() {
    /// A function of device 31: its number, vendor and device, class, and registers in order.
    type Function = (u32, u32, u32, [(u32, u32); 2]);
    let find = |functions: &[Function]| {
        tco::first_port(|number, register| {
            let function = functions.iter().find(|function| function.0 == number);
            function.map_or(!0, |&(_, names, class, registers)| match register {
                0 => names,
                8 => class << 8 | 2,
                _ => registers.into_iter().find(|pair| pair.0 == register).map_or(0, |pair| pair.1),
            })
        })
    };
    let ich9: Function = (0, 0x2918_8086, 0x06_0100, [(0x40, 0x601), (0x44, 0x80)]);
    let later: Function = (4, 0xa123_8086, 0x0c_0500, [(0x50, 0x401), (0x54, 0x100)]);
    assert_eq!(find(&[]), None, "no chipset of Intel's");
    assert_eq!(find(&[ich9]), Some(0x660));
    assert_eq!(find(&[later]), Some(0x400));
    assert_eq!(find(&[ich9, later]), Some(0x400), "the bridge has something else there");
    for (function, changed) in [(ich9, 0), (ich9, 1), (later, 0), (later, 1)] {
        let mut off = function;
        off.3[changed].1 = 0;
        assert_eq!(find(&[off]), None, "{off:x?} is off");
        assert_eq!(find(&[(0, 0x7808_1022, function.2, function.3)]), None, "not Intel's");
        assert_eq!(find(&[(function.0, function.1, 0x04_0300, function.3)]), None, "a sound card");
    }
}

#[test]
fn on_128_cpus() {
    let output = succeeds(machine(128, Memory::mebibytes(256)).run(kernel(), |_| ()));
    assert!(output.contains(" 126 127 up, 128 in all"), "{output}");
}

/// A picture of the screen, as QEMU took it.
struct Picture {
    width: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn take(machine: &mut Control, name: &str) -> Self {
        let file = place(name);
        machine.screenshot(&file).expect("a picture");
        let decoder = png::Decoder::new(BufReader::new(File::open(&file).expect("a file")));
        let mut reader = decoder.read_info().expect("a PNG");
        let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut bytes).expect("a picture");
        assert_eq!((info.width, info.height), (1024, 768));
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        let pixels = bytes.chunks_exact(3).map(|part| part.try_into().expect("three"));
        Self { width: info.width as usize, pixels: pixels.collect() }
    }

    /// What lies in memory as a screen of 1024 x 768 pixels: blue, green, red, nothing.
    fn read(machine: &mut Control, address: u64, name: &str) -> Self {
        let file = place(name);
        machine.save_memory(address, 1024 * 768 * 4, &file).expect("memory");
        let bytes = fs::read(&file).expect("a file");
        let pixels = bytes.chunks_exact(4).map(|part| [part[2], part[1], part[0]]);
        Self { width: 1024, pixels: pixels.collect() }
    }

    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        self.pixels[y * self.width + x]
    }

    /// A part of it, line by line.
    fn part(&self, columns: Range<usize>, rows: Range<usize>) -> Vec<[u8; 3]> {
        rows.flat_map(|y| columns.clone().map(move |x| (x, y)))
            .map(|(x, y)| self.at(x, y))
            .collect()
    }

    /// The cells of the map.
    fn map(&self) -> Vec<[u8; 3]> {
        self.part(100..676, 100..372)
    }
}

/// Colours of `kernel-demo/src/screen/palette.rs`, and how much of a cell is in use at least.
const GROUND: [u8; 3] = [0x0e, 0x14, 0x1b];
const PANEL: [u8; 3] = [0x17, 0x20, 0x2a];
const YELLOW: [u8; 3] = [0xff, 0xd7, 0x4a];
const CELLS: [([u8; 3], f64); 7] = [
    ([0x22, 0x2e, 0x3a], 0.0),
    ([0x2f, 0x55, 0x8c], 0.1),
    ([0x4f, 0x72, 0x96], 0.3),
    ([0x7f, 0x8c, 0x8a], 0.5),
    ([0xae, 0xa4, 0x70], 0.7),
    ([0xd8, 0xbd, 0x5c], 0.9),
    (YELLOW, 1.0),
];

/// Looks at a picture of 1 GiB with some 60 % in use, the lowest memory first.
fn looks_right(picture: &Picture) {
    assert_eq!(picture.at(4, 4), GROUND, "around the parts");
    assert_eq!(picture.at(20, 50), PANEL, "the upper left part");
    assert_eq!(picture.at(720, 560), PANEL, "the lower right part");
    let title = picture.part(12..102, 12..32);
    assert!(title.contains(&[0xf2, 0xf5, 0xf7]), "no title");

    // The map has cells and what is between them, and nothing else.
    let fullness = |pixel: &[u8; 3]| {
        let known = CELLS.iter().find(|(color, _)| color == pixel);
        assert!(known.is_some() || *pixel == PANEL, "{pixel:x?} in the map");
        known.map(|(_, fullness)| *fullness)
    };
    let share = |pixels: &[[u8; 3]]| {
        let cells: Vec<f64> = pixels.iter().filter_map(fullness).collect();
        assert!(cells.len() * 3 > pixels.len() * 2, "more gaps than cells");
        cells.iter().sum::<f64>() / cells.len() as f64
    };
    let map = picture.map();
    let (low, high) = map.split_at(map.len() / 2);
    assert!(share(low) > share(high) + 0.1, "{} below, {} above", share(low), share(high));
    assert!(CELLS[1..6].iter().any(|(color, _)| map.contains(color)), "no cell in part");
    // And as much of it is yellow as the bar beside it says.
    let bar = picture.part(724..1000, 96..97);
    let used = bar.iter().filter(|&&pixel| pixel == YELLOW).count() as f64 / bar.len() as f64;
    assert!((0.2..0.95).contains(&used), "{used} in use");
    assert!((share(&map) - used).abs() < 0.1, "{} on the map, {used} at the bar", share(&map));
}

/// How somebody steers the screen: by a key with that name and the byte that it stands for.
type Press = fn(&mut Hands, key: &str, byte: u8);

/// Both ways to reach a machine that runs.
struct Hands {
    control: Control,
    serial: PipeWriter,
}

/// Where the pixels are.
#[derive(Clone, Copy)]
enum Pixels {
    /// In the graphics card: the screen shows them.
    Shown,
    /// In memory above 4 GiB.
    High,
}

/// Steers the screen with one kind of keys, and looks at it.
fn screen_obeys(name: &str, pixels: Pixels, press: Press) {
    let (file, socket) = (place(&format!("{name}.iso")), place(&format!("{name}.socket")));
    let _ = fs::remove_file(&socket);
    // Half of memory is above 4 GiB where some of it has to be.
    let (command_line, devices) = match pixels {
        Pixels::Shown => ("screen", ""),
        Pixels::High => ("screen screen-at=high", "-machine max-ram-below-4g=512M"),
    };
    let made = frametree_qemu::image(kernel(), &file, 0, &[("Screen", command_line)]);
    made.unwrap_or_else(|error| panic!("{error}"));
    let (typed, serial) = io::pipe().expect("a pipe");
    let (control, typed) = (Some(socket.clone()), Some(Arc::new(typed)));
    let boot = Boot { devices: devices.into(), ..machine(3, Memory::gibibytes(1)) };
    let boot = Boot { screen: Screen::Hidden, control, typed, ..boot };

    // What is waited for in what the kernel says, and the key that is pressed then.
    let steps = [
        ("screen: 5 s", ("spc", b' ')),
        ("screen: paused", ("spc", b' ')),
        ("screen: goes on", ("equal", b'=')),
        ("screen: load 70 %", ("minus", b'-')),
        ("screen: load 60 %", ("9", b'9')),
        ("\nheap: ", ("q", b'q')),
    ];
    let (mut said, mut steps) = (String::new(), steps.into_iter().peekable());
    let (mut hands, mut serial) = (None, Some(serial));
    let report = boot.run_image(&file, Firmware::Bios, Medium::Cd, |bytes| {
        said += &String::from_utf8_lossy(bytes);
        while let Some((sign, (key, byte))) = steps.next_if(|(sign, _)| said.contains(sign)) {
            let hands = hands.get_or_insert_with(|| Hands {
                control: Control::connect(&socket).expect("a socket"),
                serial: serial.take().expect("the one pair of hands"),
            });
            if sign == "screen: paused" {
                let machine = &mut hands.control;
                looks_right_and_stands_still(|| match pixels {
                    Pixels::Shown => Picture::take(machine, &format!("{name}.png")),
                    Pixels::High => Picture::read(machine, high_screen(&said), "pixels"),
                });
            }
            press(hands, key, byte);
        }
    });
    let output = succeeds(report);
    assert!(steps.next().is_none(), "not all was said:\n{output}");
    assert!(output.contains("screen: key 9, heap"), "{output}");
    assert!(output.contains("screen: over; every frame accounted for"), "{output}");
}

/// Where the kernel says that its screen is: above 4 GiB.
fn high_screen(said: &str) -> u64 {
    let address = said.split_once("screen: 1024 x 768 pixels at 0x").expect("a screen").1;
    let address = address.split_whitespace().next().expect("an address");
    let address = u64::from_str_radix(address, 16).expect("a number");
    assert!(address >= 4 << 30, "{address:#x}");
    address
}

fn looks_right_and_stands_still(mut take: impl FnMut() -> Picture) {
    let mut after = || {
        // Pictures are drawn on.
        thread::sleep(Duration::from_millis(1200));
        take()
    };
    let (one, other) = (after(), after());
    looks_right(&one);
    assert!(one.map() == other.map(), "memory moves while all pause");
}

#[test]
fn the_screen_shows_memory_and_obeys_the_keyboard() {
    screen_obeys("keyboard", Pixels::Shown, |hands, key, _| {
        hands.control.press(key).expect("a key");
    });
}

#[test]
fn the_screen_above_4_gib_obeys_keys_that_come_by_the_serial_line() {
    screen_obeys("line", Pixels::High, |hands, _, byte| {
        hands.serial.write_all(&[byte]).expect("a byte");
    });
}

#[test]
fn the_screen_with_one_cpu_that_draws_too_and_with_two() {
    let file = place("alone.iso");
    let made = frametree_qemu::image(kernel(), &file, 0, &[("Screen", "screen=3")]);
    made.unwrap_or_else(|error| panic!("{error}"));
    for cpus in [1, 2] {
        let boot = Boot { screen: Screen::Hidden, ..machine(cpus, Memory::mebibytes(256)) };
        let output = succeeds(boot.run_image(&file, Firmware::Bios, Medium::Cd, |_| ()));
        assert!(output.contains("screen: over; every frame accounted for"), "{output}");
    }
}

#[test]
fn without_a_screen_there_is_none() {
    let boot = Boot { command_line: "screen".into(), ..machine(1, Memory::mebibytes(64)) };
    let output = succeeds(boot.run(kernel(), |_| ()));
    assert!(output.contains("screen: the loader gave none"), "{output}");
}

/// This card has no pixels in memory, only calls of the firmware to draw; GRUB gives address 0.
#[test]
fn with_a_graphics_card_that_has_no_pixels_in_memory() {
    let file = place("no-pixels.iso");
    let made = frametree_qemu::image(kernel(), &file, 0, &[("Screen", "screen=1")]);
    made.unwrap_or_else(|error| panic!("{error}"));
    let devices = "-device virtio-gpu-pci".into();
    let boot = Boot { devices, ..machine(1, Memory::mebibytes(256)) };
    let output = succeeds(boot.run_image(&file, Firmware::Uefi, Medium::Cd, |_| ()));
    assert!(output.contains("screen: the loader gave none"), "{output}");
}

/// Runs `make usb`'s script, with this answer to its question.
fn write_stick(device: &str, answer: &str) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/usb.sh");
    let mut command = Command::new(script);
    let pipes = [Stdio::piped(), Stdio::piped(), Stdio::piped()];
    let [input, output, errors] = pipes;
    command.args([image(), Path::new(device)]).stdin(input).stdout(output).stderr(errors);
    let mut child = command.spawn().expect("a script");
    // It may have refused before it reads.
    let _ = child.stdin.take().expect("piped").write_all(answer.as_bytes());
    child.wait_with_output().expect("an end")
}

#[test]
fn a_stick_is_written_after_the_right_answer_only() {
    let image = fs::read(image()).expect("the image");
    let stick = place("stick");
    let before = vec![0x5a; image.len() + 4096];
    fs::write(&stick, &before).expect("a file");
    let name = stick.to_str().expect("a plain path");
    for answer in ["", "\n", "yes\n", "/dev/sda\n"] {
        let output = write_stick(name, answer);
        assert!(!output.status.success() && fs::read(&stick).unwrap() == before, "{output:?}");
    }
    let output = write_stick(name, &format!("{name}\n"));
    assert!(output.status.success(), "{output:?}");
    let after = fs::read(&stick).unwrap();
    assert!(after[..image.len()] == image[..], "not the image");
    assert!(after.len() == before.len() && after.ends_with(&[0x5a; 4096]), "more than the image");
}

#[test]
fn what_is_no_stick_is_refused() {
    // This machine's own disk, if it shows one.
    let root = Command::new("findmnt").args(["-no", "SOURCE", "/"]).output();
    let root = root.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let own = root.ok().filter(|root| Path::new(root).exists());
    let cases = [
        (Some(""), "which stick?"),
        (Some("/dev/no-such-disk"), "does not exist"),
        (Some("/dev/null"), "is no disk"),
        (Some("/tmp"), "is no disk"),
        (Some(image().to_str().unwrap()), "is the image itself"),
        (own.as_deref(), ""),
    ];
    for (device, why) in cases.into_iter().filter_map(|(device, why)| Some((device?, why))) {
        let output = write_stick(device, &format!("{device}\n"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{device:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{device:?} was asked about: {output:?}");
    }
}
