//! The program of this package: the kernel on bare metal, a line of advice on the host.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use kernel_demo as _;

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is a kernel. `make run` at the top of the repository boots it in QEMU.");
}
