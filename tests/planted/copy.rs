//! A copy of the package in a folder of its own, with some files replaced, and its models.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the package is, and where its copy.
pub struct Copy {
    root: PathBuf,
    place: PathBuf,
}

impl Copy {
    pub fn of_package() -> Self {
        let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("planted");
        Self { root: PathBuf::from(env!("CARGO_MANIFEST_DIR")), place }
    }

    /// Builds the models of the copy, with these files of `src` replaced or added.
    pub fn build(&self, replaced: &[(PathBuf, String)]) -> PathBuf {
        self.lay_out(replaced);
        let output = Command::new(env!("CARGO"))
            .args(["test", "--lib", "--profile", "models", "--no-run"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(&self.place)
            // As `make test-loom` builds, and where: loom itself is there then.
            .env("CARGO_TARGET_DIR", self.place.ancestors().nth(2).expect("a target").join("loom"))
            .env("RUSTFLAGS", "--cfg loom")
            // Most of a model's time goes into loom, and most bugs are found in a moment.
            .env("CARGO_PROFILE_MODELS_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_MODELS_DEBUG", "0")
            .output()
            .expect("cargo runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no models with bugs:\n{errors}");
        let messages = String::from_utf8(output.stdout).expect("text");
        let executable = |line: &str| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            message["executable"].as_str().map(PathBuf::from)
        };
        messages.lines().find_map(executable).expect("an executable")
    }

    fn lay_out(&self, replaced: &[(PathBuf, String)]) {
        fs::create_dir_all(&self.place).expect("a folder");
        let manifest = fs::read_to_string(self.root.join("Cargo.toml")).expect("the manifest");
        fs::write(self.place.join("Cargo.toml"), alone(&manifest)).expect("a copy");
        for name in ["Cargo.lock", "README.md"] {
            let _ = fs::copy(self.root.join(name), self.place.join(name));
        }
        let [from, to] = [&self.root, &self.place].map(|root| root.join("src"));
        let mut files: BTreeMap<_, _> = files(&from).collect();
        files.extend(replaced.iter().cloned());
        // What was moved away since the last time is not to be compiled.
        for (old, _) in self::files(&to).filter(|(old, _)| !files.contains_key(old)) {
            fs::remove_file(to.join(old)).expect("an old copy");
        }
        for (file, text) in files {
            let path = to.join(file);
            // What has not changed keeps its time, so that cargo builds no more than it must.
            if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
                fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                fs::write(path, text).expect("a copy");
            }
        }
    }
}

/// The text files below a folder, each by its path from there.
fn files(root: &Path) -> impl Iterator<Item = (PathBuf, String)> {
    let mut folders = vec![root.to_path_buf()];
    let mut paths = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() { &mut folders } else { &mut paths }.push(path);
        }
    }
    paths.into_iter().map(move |path| {
        let text = fs::read_to_string(&path).expect("a source file");
        (path.strip_prefix(root).expect("below it").to_path_buf(), text)
    })
}

/// The manifest of the package without its workspace, targets and host-only dependencies.
fn alone(manifest: &str) -> String {
    let kept = |section: &&str| {
        let head = section.lines().next().unwrap_or_default();
        !["[workspace]", "[[bench]]", "[lints", "[target.'cfg(not(loom))'.dev"]
            .iter()
            .any(|dropped| head.starts_with(dropped))
    };
    let sections: Vec<_> = manifest.split("\n\n").filter(kept).collect();
    let mut text = sections.join("\n\n");
    text.insert_str(0, "[workspace]\n\n");
    text
}
