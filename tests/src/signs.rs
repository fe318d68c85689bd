//! Files by which tasks and tests tell each other things, whatever process they are in.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A file of notes, one on each line. It is removed when this is dropped.
pub struct Sign(PathBuf);

impl Sign {
    /// A sign with no note on it.
    #[expect(clippy::new_without_default, reason = "it makes a file")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringpool-test-{}-{number}", std::process::id()));
        std::fs::write(&path, "").expect("a temporary file can be written");
        Sign(path)
    }

    /// What tasks need to know to use it.
    pub fn path(&self) -> String {
        self.0.to_str().expect("temporary paths are UTF-8").to_owned()
    }

    /// All notes so far.
    pub fn notes(&self) -> Vec<String> {
        std::fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// How many notes there are.
    pub fn count(&self) -> usize {
        self.notes().len()
    }

    /// Lets all through that wait in [`wait_for_note`].
    pub fn open(&self) {
        note(&self.path(), "open");
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Adds a note: one write, so that notes of several processes do not mix.
pub fn note(path: &str, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).expect("the sign exists");
    file.write_all(format!("{text}\n").as_bytes()).expect("a note can be written");
}

/// Waits until there is a note, or the sign is gone.
pub fn wait_for_note(path: &str) {
    let start = Instant::now();
    while std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        assert!(start.elapsed() < Duration::from_secs(60), "nobody opened the gate");
        std::thread::sleep(Duration::from_millis(1));
    }
}
