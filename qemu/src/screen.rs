//! The demo's screen: shown in a window, or in one picture.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use frametree_qemu::{Boot, Control, Firmware, Medium, Memory, Report, Screen};

/// The kernel's command line for a picture: it shows itself at work for so many seconds.
const FOR_A_PICTURE: &str = "screen=40";
/// What the kernel says when the picture is to be taken.
const NOW: &str = "screen: 30 s";

/// Boots the image with the screen in a window, until the kernel is told to end.
pub fn show(boot: &Boot, live: impl FnMut(&[u8])) -> Result<Report, Box<dyn Error>> {
    let image = temporary("iso");
    let command_line = format!("screen {}", boot.command_line);
    frametree_qemu::image(frametree_qemu::kernel()?, &image, 0, &[("Screen", &command_line)])?;
    let report = boot.run_image(&image, Firmware::Bios, Medium::Cd, live);
    fs::remove_file(&image)?;
    Ok(report?)
}

/// Boots the image unseen, and writes a picture of its screen to `file`.
pub fn shoot(file: &Path) -> Result<Report, Box<dyn Error>> {
    let (image, socket) = (temporary("iso"), temporary("socket"));
    frametree_qemu::image(frametree_qemu::kernel()?, &image, 0, &[("Screen", FOR_A_PICTURE)])?;
    let boot = Boot {
        screen: Screen::Hidden,
        control: Some(socket.clone()),
        time_limit: Duration::from_secs(180),
        ..Boot::new(4, Memory::mebibytes(1024))
    };
    let file = std::path::absolute(file)?;
    let (mut said, mut picture) = (String::new(), None);
    let report = boot.run_image(&image, Firmware::Bios, Medium::Cd, |bytes| {
        said += &String::from_utf8_lossy(bytes);
        if picture.is_none() && said.contains(NOW) {
            let taken = Control::connect(&socket).and_then(|mut machine| machine.screenshot(&file));
            picture = Some(taken);
        }
    });
    fs::remove_file(&image)?;
    let _ = fs::remove_file(&socket);
    let report = report?;
    match picture {
        Some(taken) => taken?,
        None => return Err(format!("the kernel never said {NOW:?}:\n{said}").into()),
    }
    Ok(report)
}

/// A file of this process.
fn temporary(ending: &str) -> PathBuf {
    std::env::temp_dir().join(format!("frametree-{}.{ending}", process::id()))
}
