//! What the compiler makes of an allocation and a free: `make assembly`.
//!
//! Two functions as a kernel would write them are in this program, and it has `objdump` show them:
//! all that a CPU executes while its cache serves it. The page that it prints is committed
//! (`docs/assembly.md`), and `tests/assembly.rs` compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};

use frametree::{CpuId, Cpus, Frame, FramePool};

static POOL: FramePool<Kernel> = FramePool::new(Kernel);

/// A kernel whose CPUs have their numbers behind `gs`.
struct Kernel;

// SAFETY: nobody uses the pool: this is compiled to be read.
unsafe impl Cpus for Kernel {
    #[inline(always)]
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(number()))
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn number() -> usize {
    let number: usize;
    // SAFETY: as in `Kernel`.
    unsafe {
        std::arch::asm!(
            "mov {}, gs:[8]",
            out(reg) number,
            options(readonly, nostack, preserves_flags),
        );
    }
    number
}

#[cfg(not(target_arch = "x86_64"))]
fn number() -> usize {
    0
}

// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
fn frametree_alloc() -> Option<Frame> {
    POOL.alloc().ok()
}

// SAFETY: as above.
#[unsafe(no_mangle)]
fn frametree_free(frame: Frame) -> bool {
    POOL.free(frame).is_ok()
}

const HEAD: &str = "\
# The hot paths, as compiled

This is all that a CPU executes for an allocation and a free while its cache serves it: what rustc
makes of `POOL.alloc()` and `POOL.free(frame)` in a kernel whose CPUs have their numbers behind `gs`.
No instruction is locked; the lines of memory that are written are this CPU's own, and the one that a
free reads beside them is the frame's word in the tree. What is not as simple leaves by a call of a
function (in angle brackets).

`make assembly` writes this page, and a test compares it (`benches/tests/assembly.rs`); what each path
executes in the common case is counted in `benches/instructions.txt`.
";

fn main() -> ExitCode {
    // So that both are there.
    let _: [*const (); 2] = std::hint::black_box([frametree_alloc as _, frametree_free as _]);
    match page() {
        Ok(page) => {
            print!("{page}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("assembly: {error}");
            ExitCode::FAILURE
        }
    }
}

fn page() -> Result<String, String> {
    let mut page = String::from(HEAD);
    for (symbol, title) in [("frametree_alloc", "An allocation"), ("frametree_free", "A free")] {
        let lines = listing(symbol)?;
        let count = lines.iter().filter(|line| line.starts_with(' ')).count();
        // The page has a line for each, so it is exact.
        let _ = write!(page, "\n## {title}\n\n{count} instructions in all.\n\n```text\n");
        lines.iter().for_each(|line| page.extend([line.as_str(), "\n"]));
        page.push_str("```\n");
    }
    Ok(page)
}

/// A function of this program, with labels for addresses.
fn listing(symbol: &str) -> Result<Vec<String>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("objdump")
        .args(["--demangle", "--no-show-raw-insn", "--disassembler-options=intel"])
        .arg(format!("--disassemble={symbol}"))
        .arg(program)
        .output()
        .map_err(|error| format!("objdump, of Debian's binutils, does not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let instructions = text.lines().filter_map(|line| {
        let (address, instruction) = line.split_once(":\t")?;
        Some((u64::from_str_radix(address.trim(), 16).ok()?, instruction.trim()))
    });
    let instructions = Vec::from_iter(instructions);
    if instructions.is_empty() {
        return Err(format!("objdump does not show {symbol}; it said: {text}"));
    }
    let inside = format!("<{symbol}+0x");
    let target = |instruction: &str| {
        let (before, _) = instruction.split_once(&inside)?;
        u64::from_str_radix(before.split_whitespace().last()?, 16).ok()
    };
    let targets: std::collections::BTreeSet<_> =
        instructions.iter().filter_map(|(_, instruction)| target(instruction)).collect();
    let labels: BTreeMap<_, _> = targets.into_iter().zip(1..).collect();
    let mut lines = Vec::new();
    for (address, instruction) in &instructions {
        if let Some(label) = labels.get(address) {
            lines.push(format!("{label}:"));
        }
        let to = target(instruction).and_then(|address| labels.get(&address));
        lines.push(format!("    {}", shorten(instruction, to.copied())));
    }
    Ok(lines)
}

/// An instruction in columns, without addresses: they change with everything around.
fn shorten(instruction: &str, label: Option<u32>) -> String {
    let instruction = instruction.split(" # ").next().unwrap_or(instruction);
    let (name, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
    let operands = operands.trim();
    if let Some(label) = label {
        return format!("{name:<8}{label}");
    }
    if let Some((_, function)) = operands.split_once(" <") {
        let function = function.trim_end_matches('>');
        // Without the hash.
        let function = function.rsplit_once("::h").map_or(function, |(path, _)| path);
        return format!("{name:<8}<{function}>");
    }
    match operands.split_once("[rip+") {
        Some((before, after)) => {
            let behind = after.split_once(']').map_or("", |(_, behind)| behind);
            format!("{name:<8}{before}[POOL]{behind}")
        }
        None => format!("{name:<8}{operands}").trim_end().to_owned(),
    }
}
