//! Loom's atomics and fences, of which a test may weaken single accesses: that shows whether a model would
//! notice.
//!
//! The code under test knows nothing of this. A test names a [`Site`] by what stands in the source, and the
//! wrappers compare the place that they are called from.

use std::cell::RefCell;
use std::panic::Location;

pub(crate) use loom::sync::atomic::Ordering;

/// An access in the engine's source: the first line of function `function` of `file` that contains `code`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Site {
    /// Below `src/`.
    pub file: &'static str,
    pub function: &'static str,
    pub code: &'static str,
}

impl Site {
    /// Its line.
    ///
    /// # Panics
    ///
    /// If there is no such place, or more than one function of that name.
    pub(crate) fn line(self) -> u32 {
        let text = source(self.file);
        let (head, braced) = (format!("fn {}(", self.function), format!("fn {}<", self.function));
        let starts: Vec<usize> = (text.lines().enumerate())
            .filter(|(_, line)| line.contains(&head) || line.contains(&braced))
            .map(|(number, _)| number)
            .collect();
        let [start] = starts[..] else { panic!("no site: {self:?} names {} functions", starts.len()) };
        let body = text.lines().enumerate().skip(start + 1).take_while(|(_, line)| !line.contains("fn "));
        let found = body
            .into_iter()
            .find(|(_, line)| line.contains(self.code) && !line.trim_start().starts_with("//"));
        found.unwrap_or_else(|| panic!("no site: {self:?}")).0 as u32 + 1
    }
}

/// The text of one of the engine's files, tests cut off.
pub(crate) fn source(file: &str) -> String {
    let path = format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("no site: {path}: {e}"))
}

struct Weakened {
    file: &'static str,
    line: u32,
    to: Ordering,
    passed: bool,
}

thread_local! {
    /// Loom runs all threads of a model on the one that called it.
    static WEAKENED: RefCell<Vec<Weakened>> = const { RefCell::new(Vec::new()) };
}

/// While this lives, on this thread, accesses are weaker than they are written.
pub(crate) struct Weakening(());

impl Weakening {
    /// Accesses at these sites have the given ordering; fences are left out.
    pub(crate) fn begin(sites: &[(Site, Ordering)]) -> Self {
        let weakened = sites.iter().map(|&(site, to)| Weakened {
            file: site.file,
            line: site.line(),
            to,
            passed: false,
        });
        WEAKENED.set(weakened.collect());
        Weakening(())
    }

    /// Whether all of the sites were passed.
    pub(crate) fn was_met(&self) -> bool {
        WEAKENED.with_borrow(|all| all.iter().all(|one| one.passed))
    }
}

impl Drop for Weakening {
    fn drop(&mut self) {
        WEAKENED.set(Vec::new());
    }
}

/// What the access at `place` is weakened to, if it is.
fn weakened(place: &Location<'_>) -> Option<Ordering> {
    WEAKENED.with_borrow_mut(|all| {
        let mut theirs = all.iter_mut();
        let one = theirs.find(|one| one.line == place.line() && place.file().ends_with(one.file))?;
        one.passed = true;
        Some(one.to)
    })
}

#[track_caller]
fn order(written: Ordering) -> Ordering {
    weakened(Location::caller()).unwrap_or(written)
}

#[track_caller]
pub(crate) fn fence(order: Ordering) {
    if weakened(Location::caller()).is_none() {
        loom::sync::atomic::fence(order);
    }
}

/// Taken before each load, it makes loom try the loads of a word in every order.
///
/// By itself loom (0.7.3) takes loads for independent of each other, and compares a write only with the
/// last access. So of a thread that loads a word and then changes it, the change may never be tried before
/// an earlier load of another thread: the thread's own load hides that.
#[derive(Debug, Default)]
struct Turn(loom::sync::atomic::AtomicU32);

impl Turn {
    fn take(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

macro_rules! word {
    ($name:ident, $value:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name, Turn);

        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value), Turn::default())
            }

            #[track_caller]
            pub(crate) fn load(&self, written: Ordering) -> $value {
                self.1.take();
                self.0.load(order(written))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, written: Ordering) {
                self.0.store(value, order(written));
            }

            #[track_caller]
            pub(crate) fn swap(&self, value: $value, written: Ordering) -> $value {
                self.0.swap(value, order(written))
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let success = order(success);
                let failure = match success {
                    Ordering::Relaxed | Ordering::Release => Ordering::Relaxed,
                    _ => failure,
                };
                self.0.compare_exchange(current, new, success, failure)
            }

            #[track_caller]
            pub(crate) fn fetch_or(&self, value: $value, written: Ordering) -> $value {
                self.0.fetch_or(value, order(written))
            }

            #[track_caller]
            pub(crate) fn fetch_and(&self, value: $value, written: Ordering) -> $value {
                self.0.fetch_and(value, order(written))
            }

            #[track_caller]
            pub(crate) fn fetch_max(&self, value: $value, written: Ordering) -> $value {
                self.0.fetch_max(value, order(written))
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicU64, u64);
