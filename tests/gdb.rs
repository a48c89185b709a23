//! tools/frametree-gdb.py on a kernel that QEMU has stopped: what it finds in memory is what the
//! kernel says about itself.
#![cfg(not(loom))]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

const POOL: &str = "kernel_demo::memory::POOL";
/// Another one, which is hardened; the kernel's last addresses are of this.
const HARDENED: &str = "stopped::HARDENED";

/// What the script says of each of the addresses that the kernel hands over, and of two of its own.
const STATES: [&str; 14] = [
    "held",
    "held",
    "free, in the cache of CPU 1 (",
    "free, one of ",
    "free, in the free 2 MiB at 0x",
    "free, in the free GiB at 0x100000000",
    "not managed",
    "held by owner 7",
    "held, unnamed",
    "set aside: it was written to while it was free; owner 7 had it last",
    "free, in the cache of CPU 0 (",
    "free, in the cache of CPU 0 (block",
    "not managed",
    "not managed",
];
/// The first address that is of the hardened pool.
const FIRST_HARDENED: usize = 7;

/// gdb starts QEMU itself and talks to it through a pipe, so there is no port to find, and QEMU
/// ends with gdb.
fn commands(kernel: &Path, serial: &Path) -> String {
    let mut commands = format!(
        "set pagination off\n\
         set confirm off\n\
         target remote | exec qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 6G -nodefaults \
         -no-reboot -display none -serial file:{} -S -gdb stdio -kernel {}\n\
         hbreak stopped\n\
         continue\n\
         source {}/tools/frametree-gdb.py\n\
         frametree tree {POOL}\n",
        serial.display(),
        kernel.display(),
        env!("CARGO_MANIFEST_DIR"),
    );
    for place in 0..STATES.len() - 2 {
        let pool = if place < FIRST_HARDENED { POOL } else { HARDENED };
        commands += &format!("frametree find {pool} *(($rdi + {}) as *const u64)\n", 8 * place);
    }
    commands
        + &format!(
            "frametree find {POOL} 0\n\
             frametree find {HARDENED} 0\n\
             frametree owners {HARDENED}\n\
             frametree owners {POOL}\n"
        )
}

/// The number behind `label`.
fn figure(text: &str, label: &str) -> u64 {
    let (_, rest) = text.split_once(label).unwrap_or_else(|| panic!("no {label:?}:\n{text}"));
    let number = rest.split_whitespace().next().unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("{label:?} has {number:?} behind it:\n{text}"))
}

#[test]
fn the_debugger_finds_what_the_kernel_says() {
    let kernel = frametree_qemu::small_kernel("stopped").unwrap_or_else(|error| panic!("{error}"));
    let folder = env::temp_dir().join(format!("frametree-gdb-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the test");
    let (script, serial) = (folder.join("commands"), folder.join("serial"));
    fs::write(&script, commands(&kernel, &serial)).expect("a file");
    // A kernel that never gets there must not hold up all tests.
    let output = Command::new("timeout")
        .args(["--kill-after=5", "120", "gdb", "-nx", "-batch", "-x"])
        .args([&script, &kernel])
        .output()
        .expect("timeout runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let kernel_said = fs::read_to_string(&serial).unwrap_or_default();
    let _ = fs::remove_dir_all(&folder);
    assert!(
        output.status.success() && said.contains("Breakpoint 1, "),
        "is gdb installed? `make test` does that\n{said}{errors}{kernel_said}"
    );

    for (label, theirs) in [
        ("managed  ", "managed: "),
        ("\nfree     ", "free in the tree: "),
        ("frames in the tree, ", "cached: "),
    ] {
        assert_eq!(figure(&said, label), figure(&kernel_said, theirs), "{said}{kernel_said}");
    }
    let found = |line: &str| {
        let (address, state) = line.strip_prefix("0x")?.split_once(": ")?;
        u64::from_str_radix(address, 16).ok()?;
        Some(state.to_owned())
    };
    let states: Vec<_> = said.lines().filter_map(found).collect();
    assert_eq!(states.len(), STATES.len(), "{said}{errors}");
    for (state, expected) in states.iter().zip(STATES) {
        let is_as_expected = state == expected || !expected.ends_with("ed");
        assert!(state.starts_with(expected) && is_as_expected, "{state:?}, not {expected:?}");
    }
    assert!(said.contains("    GiB 4 at 0x100000000: free as a whole\n"), "{said}");
    assert!(states[10].ends_with("; owner 7 had it last"), "{}", states[10]);
    let owners = "unnamed  1\nowner 7  1\nset aside  1\n";
    assert!(said.contains(owners), "{said}{errors}");
    assert!(said.contains("not hardened: this pool has no ledger\n"), "{said}{errors}");
}
