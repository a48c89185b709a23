//! The program of this package: the kernel on bare metal, a line of advice on the host.
#![cfg_attr(target_os = "none", no_std, no_main)]

/// The first CPU's way into Rust, with what the boot loader left in `eax` and `ebx`.
#[cfg(target_os = "none")]
// SAFETY: boot.s calls it by this name, which nothing else has.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(magic: u32, information: u32) -> ! {
    use kernel_demo::handoff::Handoff;

    // SAFETY: The first call, on the first CPU.
    unsafe { kernel_demo::start() };
    // SAFETY: boot.s hands the registers on, and nothing was written but the kernel's own data.
    let handoff = unsafe { Handoff::receive(magic, information) };
    let handoff = handoff.expect("neither a PVH nor a multiboot2 boot loader started this kernel");
    kernel_demo::demo(&handoff)
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is a kernel. `make run` at the top of the repository boots it in QEMU.");
}
