//! The corpora of the fuzz targets (`fuzz/`, whose bodies and corpora are here), replayed as
//! ordinary tests. An input that once made a target crash stays in its corpus, under a name that
//! says what it was.
#![cfg(not(loom))]

#[path = "bodies/mod.rs"]
mod bodies;
mod support;

use std::path::Path;

/// Gives each file of a corpus to a body; there must be at least so many, and so much done.
fn replay(name: &str, files: usize, done: usize, body: fn(&[u8]) -> usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let entries = std::fs::read_dir(&folder).expect("a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= files, "{} files in {}", paths.len(), folder.display());
    let mut sum = 0;
    for path in paths {
        println!("{}", path.display());
        sum += body(&std::fs::read(&path).expect("a file"));
    }
    assert!(sum >= done, "the corpus of {name} does {sum}, fewer than {done}");
}

#[test]
fn the_corpus_of_maps_agrees_with_the_rule() {
    replay("map", 1, 1, bodies::map::run);
}

#[test]
fn the_corpus_of_requests_agrees_with_the_naive_search() {
    replay("request", 1, 1, bodies::request::run);
}

#[test]
fn the_corpus_of_operations_agrees_with_the_sets() {
    replay("operations", 1, 1, bodies::operations::run);
}
