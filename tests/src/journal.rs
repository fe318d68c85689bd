//! A file in which tasks of all processes note what they did, whatever happens to them afterwards.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The test's side of a journal; the file goes when it is dropped.
pub struct Journal(PathBuf);

impl Default for Journal {
    fn default() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringpool-journal-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "").expect("a new file");
        Journal(path)
    }
}

impl Journal {
    /// For tasks: what [`note`] needs to find it.
    pub fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    /// All notes, in the order in which they were made.
    pub fn notes(&self) -> Vec<u64> {
        notes(&self.path())
    }

    /// How often each number was noted.
    pub fn counts(&self) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        for note in self.notes() {
            *counts.entry(note).or_default() += 1;
        }
        counts
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Adds a number to the journal at `path`: one append, which another process cannot cut in two and a
/// SIGKILL cannot take back.
pub fn note(path: &str, number: u64) {
    let mut file = OpenOptions::new().append(true).open(path).expect("the journal");
    file.write_all(format!("{number}\n").as_bytes()).expect("room for a line");
}

/// All numbers in the journal at `path`.
pub fn notes(path: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(path).expect("the journal");
    text.lines().map(|line| line.parse().expect("a number")).collect()
}
