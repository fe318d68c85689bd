//! Names for functions that hold in another process: where its code lies in the program's file.
//!
//! Two processes that run one file have its code at different addresses but at the same distance from
//! where the loader put the file's first byte. "The file" is the one that contains this crate's code:
//! the executable or, in an extension module, that shared library.

use std::ffi::c_void;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use libc::Elf64_Phdr as ProgramHeader;

/// The most bytes of code that a fingerprint reads.
const SAMPLE: usize = 1 << 20;
const SAMPLE_PAGE: usize = 4096;

/// The loaded file that contains this crate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// What the loader added to the addresses in the file.
    base: usize,
    /// Where its code is in this process.
    code: Vec<Range<usize>>,
    fingerprint: u64,
}

impl Program {
    /// Looked up once; it is loaded for as long as this function can be called.
    pub(crate) fn current() -> &'static Program {
        static CURRENT: OnceLock<Program> = OnceLock::new();
        CURRENT.get_or_init(Self::find)
    }

    /// A program without code, so that every function is unknown, if the loader denies knowing us.
    fn find() -> Self {
        let mut program = Program { base: 0, code: Vec::new(), fingerprint: 0 };
        // SAFETY: `visit` gets back the pointer that is given here, while `program` is not used otherwise.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut program).cast()) };
        program
    }

    /// The name of the function at this address. `None` if it is not in this file's code: another
    /// library's functions need not be anywhere near in another process.
    pub(crate) fn offset_of(&self, code: usize) -> Option<u64> {
        self.contains(code).then(|| code.wrapping_sub(self.base) as u64)
    }

    /// The address that has this name here, if it is in this file's code. Whether a function begins
    /// there is not known: only names made from functions of an equal program may be called.
    pub(crate) fn code_at(&self, offset: u64) -> Option<usize> {
        let code = self.base.wrapping_add(usize::try_from(offset).ok()?);
        self.contains(code).then_some(code)
    }

    fn contains(&self, code: usize) -> bool {
        self.code.iter().any(|range| range.contains(&code))
    }

    /// Equal in all processes that run this file, and different in other programs: the linker's build
    /// id if there is one, or else a sample of the code. It is not proof against forgery.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// What to execute to run this very program once more, even if its file has been replaced or removed.
///
/// A link that the kernel resolves for whoever opens it: it has to be opened by a child of this process
/// that has not executed anything else in between.
pub(crate) fn current_exe_path() -> &'static Path {
    Path::new("/proc/self/exe")
}

/// Fills in the program if this is the object that contains us. Does not panic: C calls it.
unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, program: *mut c_void) -> i32 {
    // SAFETY: the loader passes a valid object, for the time of this call.
    let info = unsafe { &*info };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the loader describes that many headers there.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let base = info.dlpi_addr as usize;
    let code: Vec<_> = loaded(headers).filter(|header| header.p_flags & libc::PF_X != 0).collect();
    let here = Program::find as *const () as usize;
    if !code.iter().any(|header| memory_of(base, header).contains(&here)) {
        return 0;
    }
    let fingerprint = fingerprint_of(base, headers, &code);
    let code = code.iter().map(|header| memory_of(base, header)).collect();
    // SAFETY: `find` passed a `Program` that it does not touch before we return.
    unsafe { program.cast::<Program>().write(Program { base, code, fingerprint }) };
    1
}

fn loaded(headers: &[ProgramHeader]) -> impl Iterator<Item = &ProgramHeader> {
    headers.iter().filter(|header| header.p_type == libc::PT_LOAD)
}

fn memory_of(base: usize, header: &ProgramHeader) -> Range<usize> {
    let start = base.wrapping_add(header.p_vaddr as usize);
    start..start.saturating_add(header.p_memsz as usize)
}

fn fingerprint_of(base: usize, headers: &[ProgramHeader], code: &[&ProgramHeader]) -> u64 {
    let mut hash = Hash::new();
    // Also with a build id, which can be set by hand.
    for header in headers {
        hash.word(u64::from(header.p_type) << 32 | u64::from(header.p_flags));
        hash.word(header.p_vaddr);
        hash.word(header.p_filesz);
        hash.word(header.p_memsz);
    }
    let notes = headers.iter().filter(|header| header.p_type == libc::PT_NOTE);
    let build_id = notes.filter_map(|header| build_id(bytes_of(base, headers, header)?)).next();
    if let Some(id) = build_id {
        hash.bytes(id);
        return hash.0;
    }
    let mut left = SAMPLE;
    for header in code {
        if let Some(bytes) = bytes_of(base, headers, header) {
            for part in sample(bytes, left) {
                hash.bytes(part);
                left = left.saturating_sub(part.len());
            }
        }
    }
    hash.0
}

/// The bytes that a header describes, if they are in memory as they are in the file: loaded, readable
/// and not writable.
fn bytes_of(base: usize, headers: &[ProgramHeader], header: &ProgramHeader) -> Option<&'static [u8]> {
    let range = memory_of(base, header);
    let len = usize::try_from(header.p_filesz).ok()?.min(range.len());
    let holder = loaded(headers).find(|load| {
        let memory = memory_of(base, load);
        memory.contains(&range.start) && len <= memory.end - range.start
    })?;
    if len == 0 || holder.p_flags & (libc::PF_R | libc::PF_W) != libc::PF_R {
        return None;
    }
    // SAFETY: it lies in a segment that is mapped readable and that nothing in the program can write;
    // the segment is part of the file that contains this code, so it stays for as long as we run.
    Some(unsafe { std::slice::from_raw_parts(range.start as *const u8, len) })
}

/// All of it if it is not more than `limit` bytes; or else so much, in pages from everywhere.
fn sample(bytes: &[u8], limit: usize) -> impl Iterator<Item = &[u8]> {
    let pages = limit / SAMPLE_PAGE;
    let whole = (bytes.len() <= limit).then_some(bytes);
    let count = if whole.is_some() { 0 } else { pages };
    let spread = (0..count).map(move |index| {
        // Divided first: the product of a length and an index could overflow.
        let start = (bytes.len() - SAMPLE_PAGE) / pages * index;
        &bytes[start..start + SAMPLE_PAGE]
    });
    whole.into_iter().chain(spread)
}

/// The linker's build id in a segment of notes.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    loop {
        let name_len = word(notes, 0)? as usize;
        let value_len = word(notes, 4)? as usize;
        // Segments with larger alignment hold other notes than this one.
        let value_at = 12 + name_len.checked_next_multiple_of(4)?;
        let value = notes.get(value_at..)?.get(..value_len)?;
        if word(notes, 8)? == NT_GNU_BUILD_ID && notes.get(12..12 + name_len)? == b"GNU\0" {
            return (!value.is_empty()).then_some(value);
        }
        notes = notes.get(value_at + value_len.checked_next_multiple_of(4)?..)?;
    }
}

/// FNV-1a over words of eight bytes, eight times as fast as over bytes. The rotation is ours: without
/// it, a word's high bits would never reach the low ones.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_ne_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_ne_bytes(last));
        self.word(bytes.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const ASKED: &str = "RINGPOOL_TEST_PROGRAM";

    fn a_function() -> u32 {
        std::hint::black_box(41) + 1
    }

    fn own() -> String {
        let program = Program::current();
        let offset = program.offset_of(a_function as *const () as usize).unwrap();
        format!("{offset:x} {:x}", program.fingerprint())
    }

    /// Not a test by itself: what the copies of this program in the next one do.
    #[test]
    fn tells_a_parent_when_asked() {
        if std::env::var_os(ASKED).is_some() {
            println!("\n<{}>", own());
        }
    }

    #[test]
    fn another_process_has_the_same_names() {
        let copy = std::env::temp_dir().join(format!("ringpool-copy-{}", std::process::id()));
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        // The harness names tests without their crate.
        let name = concat!(module_path!(), "::tells_a_parent_when_asked").split_once("::").unwrap().1;
        let tell = |program: &Path| loop {
            let output = Command::new(program)
                .args(["--exact", "--nocapture", name])
                .env(ASKED, "1")
                .stdin(Stdio::null())
                .output();
            match output {
                // A child that another test forked meanwhile still has the copy open for writing.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                output => return String::from_utf8(output.unwrap().stdout).unwrap(),
            }
        };
        let outputs = [tell(current_exe_path()), tell(current_exe_path()), tell(&copy)];
        std::fs::remove_file(&copy).unwrap();
        for output in &outputs {
            let told = output.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
            assert_eq!(told.map(|(told, _)| told), Some(&*own()), "{output}");
        }
    }

    #[test]
    fn names_lead_back() {
        let program = Program::current();
        let here = a_function as *const () as usize;
        let name = program.offset_of(here).unwrap();
        let code = program.code_at(name).unwrap();
        assert_eq!(code, here);
        // SAFETY: it is the address of this very function.
        let function: fn() -> u32 = unsafe { std::mem::transmute(code) };
        assert_eq!(function(), 42);
    }

    #[test]
    fn only_code_of_this_program_has_a_name() {
        let program = Program::current();
        assert_eq!(program.offset_of(0), None);
        assert_eq!(program.offset_of(usize::MAX), None);
        assert_eq!(program.offset_of(&raw const *program as usize), None, "data");
        assert_eq!(program.offset_of(c"literal".as_ptr() as usize), None, "constants");
        // SAFETY: looks up a name; nothing is called.
        let other = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getenv".as_ptr()) } as usize;
        assert!(other != 0 || cfg!(target_feature = "crt-static"));
        assert!(program.offset_of(other).is_none() || cfg!(target_feature = "crt-static"));
        assert_eq!(program.code_at(u64::MAX), None);
        for range in &program.code {
            let end = (range.end - program.base) as u64;
            assert_eq!(program.code_at(end), None);
            assert_eq!(program.code_at(end - 1), Some(range.end - 1));
        }
    }

    #[test]
    fn build_ids_are_found_among_other_notes() {
        let note = |name: &[u8], kind: u32, value: &[u8]| {
            let mut bytes = Vec::new();
            bytes.extend((name.len() as u32).to_ne_bytes());
            bytes.extend((value.len() as u32).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            for part in [name, value] {
                bytes.extend(part);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        let other = note(b"GNU\0", 1, b"123456");
        let id = note(b"GNU\0", 3, b"abcdefghi");
        assert_eq!(build_id(&id), Some(&b"abcdefghi"[..]));
        assert_eq!(build_id(&[other.clone(), id.clone()].concat()), Some(&b"abcdefghi"[..]));
        assert_eq!(build_id(&other), None);
        assert_eq!(build_id(&note(b"XYZ\0", 3, b"abc")), None);
        for len in 0..id.len() - 4 {
            assert_eq!(build_id(&id[..len]), None, "{len}");
        }
        assert_eq!(build_id(&[0xff; 40]), None);
    }

    #[test]
    fn samples_are_bounded_and_reach_to_the_end() {
        let bytes: Vec<u8> = (0..SAMPLE + 12_345).map(|index| (index / 997) as u8).collect();
        let lengths: Vec<_> = sample(&bytes, SAMPLE).map(<[u8]>::len).collect();
        assert_eq!(lengths, vec![SAMPLE_PAGE; SAMPLE / SAMPLE_PAGE]);
        assert_eq!(sample(&bytes[..SAMPLE], SAMPLE).map(<[u8]>::len).sum::<usize>(), SAMPLE);
        assert_eq!(sample(&bytes, 0).count(), 0);
    }

    #[test]
    fn every_byte_counts() {
        let hash = |bytes: &[u8]| {
            let mut hash = Hash::new();
            hash.bytes(bytes);
            hash.0
        };
        let mut bytes = vec![0_u8; 37];
        let mut seen = std::collections::HashSet::from([hash(&bytes), hash(&bytes[1..])]);
        for index in 0..bytes.len() {
            bytes[index] = 0x80;
            assert!(seen.insert(hash(&bytes)), "{index}");
        }
    }
}
