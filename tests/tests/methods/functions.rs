//! What can be called, and what comes back from it.

use super::pool;
use libtest_mimic::Trial;
use ringpool::rkyv::string::ArchivedString;
use ringpool::rkyv::{self, Archive, Archived};
use ringpool::{Context, Error, ErrorKind, TaskError, fallible, named, plain};
use ringpool_tests::{in_contexts, test};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("functions of 0 to 8 arguments", owned));
    tests.extend(in_contexts("functions that view their arguments", viewed));
    tests.extend(in_contexts("tasks that return a Result", results));
    tests.extend(in_contexts("panics", panics));
    tests.extend(in_contexts("functions by name", by_name));
    tests.push(test("names that cannot be registered", bad_names));
    tests.extend(in_contexts("values that cannot be archived", unarchivable));
    tests.push(test("generic functions", generic));
    tests
}

/// To be called before `init`.
pub fn register() {
    ringpool::register("double", double).unwrap();
    ringpool::register::<(String, u32), _, _>("join", |a: &ArchivedString, b: u32| format!("{a}{b}"))
        .unwrap();
    ringpool::register("picky", picky).unwrap();
}

fn double(x: u64) -> u64 {
    2 * x
}

fn picky(x: u32) -> Result<u32, TaskError> {
    if x == 3 { Err(TaskError::msg("three")) } else { Ok(x) }
}

type N = u64;

fn owned(context: Context) {
    let pool = pool(context);
    assert_eq!(pool.apply(|| 7_u64, ()).unwrap(), 7);
    assert_eq!(pool.apply(|a: N| a, (1,)).unwrap(), 1);
    assert_eq!(pool.apply(|a: N, b: N| [a, b], (1, 2)).unwrap(), [1, 2]);
    assert_eq!(pool.apply(|a: N, b: N, c: N| [a, b, c], (1, 2, 3)).unwrap(), [1, 2, 3]);
    assert_eq!(pool.apply(|a: N, b: N, c: N, d: N| [a, b, c, d], (1, 2, 3, 4)).unwrap(), [1, 2, 3, 4]);
    let five = |a: N, b: String, c: N, d: N, e: N| format!("{a}{b}{c}{d}{e}");
    assert_eq!(pool.apply(five, (1, "two".into(), 3, 4, 5)).unwrap(), "1two345");
    let six = |a: N, b: String, c: N, d: Option<N>, e: N, f: N| format!("{a}{b}{c}{d:?}{e}{f}");
    assert_eq!(pool.apply(six, (1, "two".into(), 3, Some(4), 5, 6)).unwrap(), "1two3Some(4)56");
    let seven = |a: N, b: N, c: N, d: N, e: N, f: N, g: Vec<N>| a + b + c + d + e + f + g[0];
    assert_eq!(pool.apply(seven, (1, 2, 3, 4, 5, 6, vec![7])).unwrap(), 28);
    let eight = |a: u8, b: i16, c: u32, d: i64, e: f32, f: f64, g: bool, h: char| {
        format!("{a} {b} {c} {d} {e} {f} {g} {h}")
    };
    let arguments = (1, -2, 3, -4, 5.5, 6.5, true, 'é');
    assert_eq!(pool.apply(eight, arguments).unwrap(), "1 -2 3 -4 5.5 6.5 true é");
    assert_eq!(pool.starmap(eight, [arguments; 5]).unwrap(), vec!["1 -2 3 -4 5.5 6.5 true é"; 5]);
}

fn viewed(context: Context) {
    type V = Archived<u64>;
    type Text = ArchivedString;
    fn words(text: &Text) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }
    let pool = pool(context);
    let text = || "some words".to_owned();
    assert_eq!(pool.apply(words, (text(),)).unwrap(), ["some", "words"]);
    assert_eq!(pool.map(words, [text(), text()]).unwrap().len(), 2);
    assert_eq!(pool.imap(words, [text(), text()], 2).unwrap().count(), 2);

    // Both, in each order.
    assert_eq!(pool.apply(|a: &Text, b: u32| format!("{a}{b}"), (text(), 1)).unwrap(), "some words1");
    assert_eq!(pool.apply(|b: u32, a: &Text| format!("{b}{a}"), (1, text())).unwrap(), "1some words");
    assert_eq!(pool.apply(|a: &V, b: &V| a.to_native() + b.to_native(), (1_u64, 2_u64)).unwrap(), 3);
    let three = |a: &V, b: String, c: &Text| format!("{}{b}{c}", a.to_native());
    assert_eq!(pool.apply(three, (1_u64, "b".to_owned(), text())).unwrap(), "1bsome words");
    let four = |a: u8, b: &Archived<Vec<String>>, c: bool, d: &V| {
        u64::from(a) + b.iter().map(|s| s.len() as u64).sum::<u64>() + u64::from(c) + d.to_native()
    };
    assert_eq!(pool.apply(four, (1, vec![text(), text()], true, 100_u64)).unwrap(), 122);
    let items = (0..20_u64).map(|i| (1_u8, vec![text()], false, i));
    assert_eq!(pool.starmap(four, items).unwrap(), (11..31).collect::<Vec<u64>>());

    let five = |a: &V, b: &V, c: &V, d: &V, e: &V| [a, b, c, d, e].map(|x| x.to_native()).iter().sum::<u64>();
    assert_eq!(pool.apply(five, (1_u64, 2_u64, 3_u64, 4_u64, 5_u64)).unwrap(), 15);
    let six = |a: &Text, b: &V, c: &V, d: &V, e: &V, f: &V| {
        a.len() as u64 + [b, c, d, e, f].map(|x| x.to_native()).iter().sum::<u64>()
    };
    assert_eq!(pool.apply(six, (text(), 2_u64, 3_u64, 4_u64, 5_u64, 6_u64)).unwrap(), 30);
    let seven = |a: &V, b: &V, c: &V, d: &V, e: &V, f: &V, g: &V| {
        [a, b, c, d, e, f, g].map(|x| x.to_native()).to_vec()
    };
    assert_eq!(
        pool.apply(seven, (1_u64, 2_u64, 3_u64, 4_u64, 5_u64, 6_u64, 7_u64)).unwrap(),
        [1, 2, 3, 4, 5, 6, 7]
    );
    let eight = |a: &V, b: &V, c: &V, d: &V, e: &V, f: &V, g: &V, h: &Text| {
        format!("{}{h}", [a, b, c, d, e, f, g].map(|x| x.to_native()).iter().sum::<u64>())
    };
    let arguments = (1_u64, 2_u64, 3_u64, 4_u64, 5_u64, 6_u64, 7_u64, text());
    assert_eq!(pool.apply(eight, arguments).unwrap(), "28some words");
}

/// What the task said, if it is its own error.
fn said(error: &Error) -> &str {
    match error.kind() {
        ErrorKind::Failed { message } => message,
        other => panic!("{other:?}"),
    }
}

fn results(context: Context) {
    fn io(x: u32) -> std::io::Result<u32> {
        if x == 0 { Err(std::io::Error::other("zero")) } else { Ok(x) }
    }
    fn task_error(text: String) -> Result<u16, TaskError> {
        let number: u16 = text.parse()?;
        if number == 0 {
            return Err(TaskError::msg("zero"));
        }
        Ok(number)
    }
    fn boxed(x: u32) -> Result<u32, Box<dyn std::error::Error>> {
        if x == 0 { Err("zero".into()) } else { Ok(x) }
    }
    fn boxed_sync(x: u32) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        if x == 0 { Err("zero".into()) } else { Ok(x) }
    }
    fn text(x: u32) -> Result<u32, String> {
        if x == 0 { Err("zero".into()) } else { Ok(x) }
    }
    let pool = pool(context);
    assert_eq!(pool.apply(io, (5,)).unwrap(), 5);
    assert_eq!(said(&pool.apply(io, (0,)).unwrap_err()), "zero");
    assert_eq!(pool.apply(task_error, ("5".into(),)).unwrap(), 5);
    assert_eq!(said(&pool.apply(task_error, ("0".into(),)).unwrap_err()), "zero");
    assert_eq!(said(&pool.apply(task_error, ("five".into(),)).unwrap_err()), "invalid digit found in string");
    assert_eq!(pool.apply(boxed, (5,)).unwrap(), 5);
    assert_eq!(said(&pool.apply(boxed, (0,)).unwrap_err()), "zero");
    assert_eq!(pool.apply(boxed_sync, (5,)).unwrap(), 5);
    assert_eq!(said(&pool.apply(boxed_sync, (0,)).unwrap_err()), "zero");

    // An error that is a payload is part of the value, unless one asks for the other.
    let inside: Result<u32, String> = pool.apply(text, (0,)).unwrap();
    assert_eq!(inside, Err("zero".to_owned()));
    assert_eq!(pool.apply(plain(text), (5,)).unwrap(), Ok(5));
    assert_eq!(pool.apply(fallible(text), (5,)).unwrap(), 5);
    assert_eq!(said(&pool.apply(fallible(text), (0,)).unwrap_err()), "zero");
    assert_eq!(pool.map(text, 0..2).unwrap(), [Err("zero".to_owned()), Ok(1)]);
    let each = pool.map_async(fallible(text), 0..3, Some(3)).unwrap().get_each().unwrap();
    assert_eq!(said(each[0].as_ref().unwrap_err()), "zero");
    assert_eq!((each[1].as_ref().unwrap(), each[2].as_ref().unwrap()), (&1, &2));

    // A text that does not fit into a slot.
    let long = pool
        .apply(|n: u32| -> Result<(), TaskError> { Err(TaskError::msg("x".repeat(n as usize))) }, (100_000,));
    assert_eq!(said(&long.unwrap_err()).len(), 100_000);
    assert_eq!(pool.apply(|x: u32| x.checked_sub(1), (0,)).unwrap(), None);
}

/// A value whose drop may panic.
struct Grumpy(u32);

impl Drop for Grumpy {
    fn drop(&mut self) {
        assert!(self.0 != 3, "dropped a three");
    }
}

fn panics(context: Context) {
    let pool = pool(context);
    let parts = |error: Error| match error.kind() {
        ErrorKind::Panicked { message, place } => (message.clone(), place.clone()),
        other => panic!("{other:?}"),
    };
    let (message, place) = parts(pool.apply(|x: u32| -> u32 { panic!("number {x}") }, (5,)).unwrap_err());
    assert_eq!(message, "number 5");
    assert!(place.contains("functions.rs:"), "{place}");
    assert_eq!(parts(pool.apply(|| -> u32 { panic!("constant") }, ()).unwrap_err()).0, "constant");
    let (message, place) = parts(pool.apply(|v: Vec<u32>| v[10], (vec![1],)).unwrap_err());
    assert!(message.contains("index out of bounds"), "{message}");
    assert!(place.contains("functions.rs:"), "{place}");
    // A value that is no text, and one that was raised without the hook.
    let (message, _) = parts(pool.apply(|| -> u32 { std::panic::panic_any(5_u32) }, ()).unwrap_err());
    assert!(message.contains("no text"), "{message}");
    let resume = || -> u32 { std::panic::resume_unwind(Box::new("raised")) };
    assert_eq!(parts(pool.apply(resume, ()).unwrap_err()).0, "raised");
    // One that the task caught itself is nobody's business.
    let caught = |x: u32| std::panic::catch_unwind(|| panic!("inner")).is_err().then_some(x);
    assert_eq!(pool.apply(caught, (5,)).unwrap(), Some(5));
    // While a value is dropped.
    assert_eq!(parts(pool.apply(|x: u32| drop(Grumpy(x)), (3,)).unwrap_err()).0, "dropped a three");

    let before = pool.worker_pids();
    for _ in 0..100 {
        assert!(pool.apply(|| -> u32 { panic!("again") }, ()).unwrap_err().is_panic());
    }
    assert_eq!(pool.worker_pids(), before, "workers survive panics");
    let long = pool.apply(|n: u32| -> u32 { panic!("{}", "x".repeat(n as usize)) }, (100_000,)).unwrap_err();
    assert_eq!(parts(long).0.len(), 100_000);
}

fn by_name(context: Context) {
    let pool = pool(context);
    let double = named::<(u64,), u64>("double");
    assert_eq!(double.as_str(), "double");
    assert_eq!(pool.apply(double, (21,)).unwrap(), 42);
    assert_eq!(pool.map(double, 0..100).unwrap(), (0..100).map(|x| 2 * x).collect::<Vec<_>>());
    assert_eq!(pool.imap(double, 0.., 3).unwrap().nth(50).unwrap().unwrap(), 100);
    let join = named::<(String, u32), String>("join");
    assert_eq!(pool.apply(join, ("a".into(), 1)).unwrap(), "a1");
    assert_eq!(pool.starmap(join, [("a".into(), 1), ("b".into(), 2)]).unwrap(), ["a1", "b2"]);
    let picky = named::<(u32,), u32>("picky");
    assert_eq!(said(&pool.apply(picky, (3,)).unwrap_err()), "three");

    let unknown = named::<(u32,), u32>("nobody knows this one");
    let single = pool.apply(unknown, (1,)).unwrap_err();
    let several = pool.map_async(unknown, 0..10, Some(5)).unwrap().get_each().unwrap();
    assert_eq!(several.len(), 10);
    for error in several.into_iter().map(Result::unwrap_err).chain([single]) {
        assert!(matches!(error.kind(), ErrorKind::Function { .. }), "{error:?}");
        assert!(error.to_string().contains("nobody knows this one"), "{error}");
    }
    assert_eq!(pool.apply(double, (1,)).unwrap(), 2, "the pool goes on");
}

fn bad_names() {
    ringpool::register("double", double).unwrap(); // the same again changes nothing
    for (name, what) in [("", "1 to 63 bytes"), (&"x".repeat(64)[..], "1 to 63 bytes"), ("picky", "already")]
    {
        let error = ringpool::register(name, double).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid { .. }), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// A payload that can be archived only if its text is UTF-8.
#[derive(Archive, rkyv::Serialize, rkyv::Deserialize, Clone, PartialEq, Debug)]
#[rkyv(crate = ringpool::rkyv)]
struct Place {
    #[rkyv(with = rkyv::with::AsString)]
    path: std::path::PathBuf,
}

impl Place {
    fn good() -> Self {
        Place { path: "/tmp/place".into() }
    }

    fn bad() -> Self {
        use std::os::unix::ffi::OsStringExt;
        Place { path: std::ffi::OsString::from_vec(vec![0xff, 0xfe]).into() }
    }
}

fn unarchivable(context: Context) {
    let pool = pool(context);
    let is_payload = |error: &Error| assert!(matches!(error.kind(), ErrorKind::Payload { .. }), "{error:?}");
    let echo = |place: Place| place;
    let make = |x: u32| if x == 2 { Place::bad() } else { Place::good() };
    assert_eq!(pool.apply(echo, (Place::good(),)).unwrap(), Place::good());
    is_payload(&pool.apply(echo, (Place::bad(),)).unwrap_err());
    is_payload(&pool.apply(make, (2,)).unwrap_err());

    // Of results in a chunk, only the one is lost.
    for chunksize in [1, 5] {
        let each = pool.map_async(make, 0..5, Some(chunksize)).unwrap().get_each().unwrap();
        for (i, result) in each.iter().enumerate() {
            match result {
                Ok(place) => assert!(i != 2 && *place == Place::good()),
                Err(error) => {
                    assert_eq!(i, 2);
                    is_payload(error);
                }
            }
        }
        // Items are archived together, so their chunk is lost, and no other.
        let items = [Place::good(), Place::bad()].into_iter().chain(vec![Place::good(); 8]);
        let each = pool.map_async(echo, items.clone(), Some(chunksize)).unwrap().get_each().unwrap();
        assert_eq!(each.iter().filter(|r| r.is_err()).count(), chunksize);
        assert_eq!(*each[9].as_ref().unwrap(), Place::good());
        let each: Vec<_> = pool.imap(echo, items, chunksize).unwrap().collect();
        assert_eq!(each.iter().filter(|r| r.is_err()).count(), chunksize);
        is_payload(each[1].as_ref().unwrap_err());
    }
    assert_eq!(pool.apply(echo, (Place::good(),)).unwrap(), Place::good());
}

fn generic() {
    fn largest<T: Ord>(items: Vec<T>) -> Option<T> {
        items.into_iter().max()
    }
    let pool = pool(Context::Spawn);
    assert_eq!(pool.apply(largest::<u32>, (vec![1, 3, 2],)).unwrap(), Some(3));
    assert_eq!(pool.apply(largest::<String>, (vec!["a".into(), "c".into()],)).unwrap(), Some("c".into()));
}
