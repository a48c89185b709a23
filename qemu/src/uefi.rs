//! The way to start a UEFI application: OVMF as the firmware, and a folder that QEMU shows as a
//! FAT disk, with the application where firmware looks for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{Boot, BootError, Report};

/// Where Debian and others put the firmware: its code, and the variables that it begins with.
const FIRMWARE: [(&str, &str); 3] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

impl Boot {
    /// Boots `application` under UEFI and waits for the end, as [`run`](Self::run) does with a
    /// kernel. The command line is not handed on.
    pub fn run_application(
        &self,
        application: &Path,
        live: impl FnMut(&[u8]),
    ) -> Result<Report, BootError> {
        let mut command = self.machine();
        firmware(&mut command)?;
        command
            .args(["-drive", &format!("format=raw,file=fat:rw:{}", disk(application)?.display())]);
        self.watch(command, live)
    }
}

/// Gives the machine the firmware.
pub fn firmware(command: &mut Command) -> Result<(), BootError> {
    let (code, variables) = FIRMWARE
        .into_iter()
        .find(|(code, variables)| Path::new(code).exists() && Path::new(variables).exists())
        .ok_or(BootError::FirmwareMissing)?;
    command
        .args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")])
        // What the firmware writes there is forgotten.
        .args(["-drive", &format!("if=pflash,format=raw,snapshot=on,file={variables}")]);
    Ok(())
}

/// A folder beside the application that has nothing but it.
fn disk(application: &Path) -> Result<PathBuf, BootError> {
    let folder = application.with_extension("disk");
    let place = folder.join("EFI/BOOT");
    fs::create_dir_all(&place)?;
    fs::copy(application, place.join("BOOTX64.EFI"))?;
    Ok(folder)
}
