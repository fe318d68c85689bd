//! Counts the words of all text files in a directory tree.
//!
//! ```text
//! cargo run --release --example wordfreq -- DIR [--serial] [--processes N] [--top N]
//! ```
//!
//! A word is a run of alphanumeric characters as Unicode has them, in lower case. An apostrophe between
//! two of them belongs to the word, so `don't` is one; `’` counts as `'`. Bytes that are not UTF-8
//! separate words. Files with a NUL byte in their first 8 KiB are skipped as binary, symbolic links below
//! DIR are not followed, and what cannot be read is reported and counted.
//!
//! A task has about 1 MiB to read: many small files, or a part of a large one, so that neither the cost
//! of a task nor one huge file matters. `--serial` reads file by file in this process instead, and prints
//! the same; how long it took goes to standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringpool::Pool;
use ringpool::rkyv::{Archive, Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: wordfreq DIR [--serial] [--processes N] [--top N]";
/// How much a task is to read.
const TASK_BYTES: u64 = 1 << 20;
/// How much of a file must be free of NUL bytes.
const HEAD: usize = 8 << 10;
/// How much is read at once.
const BLOCK: usize = 256 << 10;

/// Words and how often each occurs.
type Counts = HashMap<String, u64>;

/// A part of a file: the words that start in it.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = ringpool::rkyv)]
struct Part {
    path: Vec<u8>,
    start: u64,
    /// `u64::MAX` for the end of the file, wherever that is by then.
    end: u64,
}

/// What came of some parts.
#[derive(Archive, Serialize, Deserialize, Default)]
#[rkyv(crate = ringpool::rkyv)]
struct Tally {
    /// All words, each followed by a line feed: one string costs much less than many.
    words: String,
    /// How often each of them occurs.
    counts: Vec<u64>,
    files: u64,
    binary: u64,
    bytes: u64,
    /// Paths that could not be read, and why.
    failed: Vec<(Vec<u8>, String)>,
}

/// What came of everything.
#[derive(Default)]
struct Totals {
    counts: Counts,
    files: u64,
    binary: u64,
    bytes: u64,
    failed: BTreeSet<(Vec<u8>, String)>,
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '’')
}

/// Hands each word of `text` to `take`, as it is written there.
fn each_word<'a>(text: &'a str, mut take: impl FnMut(&'a str)) {
    let mut rest = text;
    while let Some(start) = rest.find(char::is_alphanumeric) {
        rest = &rest[start..];
        let mut end = rest.len();
        let mut chars = rest.char_indices().peekable();
        while let Some((index, c)) = chars.next() {
            let inside = c.is_alphanumeric()
                || is_apostrophe(c) && chars.peek().is_some_and(|&(_, next)| next.is_alphanumeric());
            if !inside {
                end = index;
                break;
            }
        }
        take(&rest[..end]);
        rest = &rest[end..];
    }
}

fn count_words(bytes: &[u8], counts: &mut Counts) {
    let mut lower = String::new();
    for chunk in bytes.utf8_chunks() {
        each_word(chunk.valid(), |word| {
            lower.clear();
            if word.is_ascii() {
                lower.push_str(word);
                lower.make_ascii_lowercase();
            } else {
                lower.push_str(&word.to_lowercase().replace('’', "'"));
            }
            match counts.get_mut(&lower) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(lower.clone(), 1);
                }
            }
        });
    }
}

/// Whether no word, and no character of several bytes, goes on across this byte.
fn separates(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric() && byte != b'\''
}

/// Where a part that should end at `offset` ends: after the next byte that separates words. The part that
/// follows starts there.
fn boundary(file: &File, mut offset: u64) -> io::Result<u64> {
    if offset == 0 || offset == u64::MAX {
        return Ok(offset);
    }
    let mut buffer = [0; 4096];
    loop {
        let read = read_at(file, &mut buffer, offset)?;
        if let Some(index) = buffer[..read].iter().position(|&byte| separates(byte)) {
            return Ok(offset + index as u64 + 1);
        }
        offset += read as u64;
        if read == 0 {
            return Ok(offset);
        }
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Counts the words of a part, block by block; returns how many bytes it has, or `None` if the file is
/// binary.
fn count_part(part: &Part, buffer: &mut Vec<u8>, counts: &mut Counts) -> io::Result<Option<u64>> {
    let file = File::open(OsStr::from_bytes(&part.path))?;
    let mut head = [0; HEAD];
    let read = read_at(&file, &mut head, 0)?;
    if head[..read].contains(&0) {
        return Ok(None);
    }
    let start = boundary(&file, part.start)?;
    let end = boundary(&file, part.end)?;
    let mut offset = start;
    let mut kept = 0; // bytes of a word that goes on in the next block
    loop {
        buffer.resize((kept * 2).max(BLOCK), 0);
        let room = (buffer.len() - kept).min(usize::try_from(end - offset).unwrap_or(usize::MAX));
        let read = read_at(&file, &mut buffer[kept..kept + room], offset)?;
        offset += read as u64;
        let filled = kept + read;
        if read == 0 {
            count_words(&buffer[..filled], counts);
            return Ok(Some(offset - start));
        }
        let whole = buffer[..filled].iter().rposition(|&byte| separates(byte)).map_or(0, |index| index + 1);
        count_words(&buffer[..whole], counts);
        buffer.copy_within(whole..filled, 0);
        kept = filled - whole;
    }
}

/// The task.
fn count(parts: Vec<Part>) -> Tally {
    let mut counts = Counts::new();
    let mut tally = Tally::default();
    let mut buffer = Vec::new();
    for part in parts {
        // A file counts with its first part.
        let first = u64::from(part.start == 0);
        match count_part(&part, &mut buffer, &mut counts) {
            Ok(Some(bytes)) => {
                tally.files += first;
                tally.bytes += bytes;
            }
            Ok(None) => tally.binary += first,
            Err(error) => tally.failed.push((part.path, error.to_string())),
        }
    }
    tally.counts.reserve_exact(counts.len());
    for (word, count) in counts {
        tally.words.push_str(&word);
        tally.words.push('\n');
        tally.counts.push(count);
    }
    tally
}

impl Totals {
    fn add(&mut self, tally: Tally) {
        for (word, count) in tally.words.lines().zip(tally.counts) {
            match self.counts.get_mut(word) {
                Some(total) => *total += count,
                None => {
                    self.counts.insert(word.to_owned(), count);
                }
            }
        }
        self.files += tally.files;
        self.binary += tally.binary;
        self.bytes += tally.bytes;
        self.failed.extend(tally.failed);
    }

    fn report(&self, top: usize) -> String {
        let mut words: Vec<(&str, u64)> = self.counts.iter().map(|(word, &count)| (&**word, count)).collect();
        words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let all: u64 = self.counts.values().sum();
        let mut text = String::new();
        for (what, number) in [
            ("files", self.files),
            ("skipped as binary", self.binary),
            ("unreadable", self.failed.len() as u64),
            ("bytes", self.bytes),
            ("words", all),
            ("distinct words", words.len() as u64),
        ] {
            let _ = writeln!(text, "{number:>14} {what}");
        }
        for (word, count) in words.into_iter().take(top) {
            let _ = writeln!(text, "{count:>14} {word}");
        }
        text
    }
}

/// The regular files at and below `root` with their sizes, in the order of their paths.
fn walk(root: PathBuf, failed: &mut BTreeSet<(Vec<u8>, String)>) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    let mut directories = Vec::new();
    let mut visit = |path: PathBuf, kind: fs::Metadata, directories: &mut Vec<PathBuf>| {
        if kind.is_dir() {
            directories.push(path);
        } else if kind.is_file() {
            files.push((path, kind.len())); // pipes and devices would never end
        }
    };
    let mut fail = |path: &Path, error: &io::Error| {
        failed.insert((path.as_os_str().as_bytes().to_vec(), error.to_string()));
    };
    match fs::metadata(&root) {
        Ok(kind) => visit(root, kind, &mut directories),
        Err(error) => fail(&root, &error),
    }
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                fail(&directory, &error);
                continue;
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) => match entry.metadata() {
                    Ok(kind) => visit(entry.path(), kind, &mut directories),
                    Err(error) => fail(&entry.path(), &error),
                },
                Err(error) => fail(&directory, &error),
            }
        }
    }
    files.sort_unstable();
    files
}

/// Cuts the work into tasks of about [`TASK_BYTES`].
fn plan(files: Vec<(PathBuf, u64)>) -> impl Iterator<Item = Vec<Part>> {
    let parts = files.into_iter().flat_map(|(path, size)| {
        let path = path.into_os_string().into_vec();
        let count = size.div_ceil(TASK_BYTES).max(1);
        (0..count).map(move |index| {
            let last = index + 1 == count;
            let start = index * TASK_BYTES;
            let end = if last { size } else { start + TASK_BYTES };
            // A file that has just grown is read to its end.
            (end - start, Part { path: path.clone(), start, end: if last { u64::MAX } else { end } })
        })
    });
    let mut parts = parts.peekable();
    std::iter::from_fn(move || {
        let (mut bytes, part) = parts.next()?;
        let mut task = vec![part];
        while let Some((more, part)) =
            parts.next_if(|(more, _)| bytes + more <= TASK_BYTES && task.len() < 256)
        {
            bytes += more;
            task.push(part);
        }
        Some(task)
    })
}

fn progress(bytes: u64) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}

struct Options {
    root: PathBuf,
    serial: bool,
    processes: usize,
    top: usize,
}

fn options(arguments: impl Iterator<Item = OsString>) -> Result<Options, String> {
    let mut root = None;
    let (mut serial, mut processes, mut top) = (false, 0, 20);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut number = |name: &str| {
            let value = arguments.next().and_then(|value| value.to_str()?.parse().ok());
            value.ok_or_else(|| format!("{name} needs a number"))
        };
        match argument.to_str() {
            Some("--serial") => serial = true,
            Some("--processes") => processes = number("--processes")?,
            Some("--top") => top = number("--top")?,
            Some(flag) if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
            _ if root.is_none() => root = Some(PathBuf::from(argument)),
            _ => return Err("more than one DIR".to_owned()),
        }
    }
    let root = root.ok_or("DIR is missing")?;
    Ok(Options { root, serial, processes, top })
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut totals = Totals::default();
    // Before the walk, which may take memory that workers do not need.
    let pool = match options.serial {
        true => None,
        // Counting twice does no harm, so a task whose worker was killed is started again.
        false => Some(Pool::builder().processes(options.processes).retries(2).start()?),
    };
    fs::metadata(&options.root).map_err(|error| format!("{}: {error}", options.root.display()))?;
    let files = walk(options.root, &mut totals.failed);
    let bar = progress(files.iter().map(|&(_, size)| size).sum());
    let how = match &pool {
        None => {
            for (path, size) in files {
                let path = path.into_os_string().into_vec();
                totals.add(count(vec![Part { path, start: 0, end: u64::MAX }]));
                bar.inc(size);
            }
            "serially".to_owned()
        }
        Some(pool) => {
            for tally in pool.imap_unordered(count, plan(files), 1)? {
                let tally = tally?;
                bar.inc(tally.bytes);
                totals.add(tally);
            }
            pool.close();
            pool.join()?;
            format!("with {} processes", pool.processes())
        }
    };
    bar.finish_and_clear();
    for (path, error) in &totals.failed {
        eprintln!("{}: {error}", Path::new(OsStr::from_bytes(path)).display());
    }
    match io::stdout().write_all(totals.report(options.top).as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {} // the reader has seen enough
        result => result?,
    }
    eprintln!("{:.2} s {how}", start.elapsed().as_secs_f64());
    Ok(())
}

fn main() -> ExitCode {
    ringpool::init();
    let options = match options(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wordfreq: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[u8]) -> Vec<(String, u64)> {
        let mut counts = Counts::new();
        count_words(text, &mut counts);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort();
        counts
    }

    fn once(words: &[&str]) -> Vec<(String, u64)> {
        words.iter().map(|&word| (word.to_owned(), 1)).collect()
    }

    #[test]
    fn apostrophes_only_within_words() {
        assert_eq!(
            words("'Tis don’t 'quoted' rock''n a'".as_bytes()),
            once(&["a", "don't", "n", "quoted", "rock", "tis"])
        );
    }

    #[test]
    fn unicode_and_bytes_that_are_not() {
        assert_eq!(words("ÄRGER x86_64 日本".as_bytes()), once(&["64", "x86", "ärger", "日本"]));
        assert_eq!(words(b"caf\xe9s"), once(&["caf", "s"]));
        assert_eq!(words(b"- ' \xff"), once(&[]));
    }

    /// However a file is cut, its words are the same.
    #[test]
    fn cuts_anywhere() {
        let text = "It's Größe, \u{2019}n’est-ce pas? naïve\nend".as_bytes();
        let path = std::env::temp_dir().join(format!("wordfreq-cuts-{}", std::process::id()));
        fs::write(&path, text).unwrap();
        for cut in 1..text.len() as u64 {
            let part = |start, end| Part { path: path.as_os_str().as_bytes().to_vec(), start, end };
            let tally = count(vec![part(0, cut), part(cut, u64::MAX)]);
            let mut found: Vec<_> = tally.words.lines().map(str::to_owned).zip(tally.counts).collect();
            found.sort();
            assert_eq!(found, words(text), "cut at {cut}");
            assert_eq!((tally.bytes, tally.files), (text.len() as u64, 1));
        }
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn tasks_are_of_one_size() {
        let mut files: Vec<(PathBuf, u64)> = (0..1000).map(|i| (format!("{i}").into(), 10_000)).collect();
        files.push(("huge".into(), 10 * TASK_BYTES + 1));
        let tasks: Vec<_> = plan(files).collect();
        assert_eq!(tasks.iter().flatten().filter(|part| part.start == 0).count(), 1001);
        let huge: Vec<_> = tasks.iter().flatten().filter(|part| part.path == b"huge").collect();
        assert_eq!(huge.len(), 11);
        assert!(huge.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(tasks.len() < 30, "{}", tasks.len());
    }
}
