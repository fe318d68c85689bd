//! Workers die in the middle of chunks: the item that did it fails, and no other is run twice.

use crate::deaths::kill_self;
use crate::{death, expect_full_strength};
use libtest_mimic::Trial;
use ringpool::{Context, Exit, Payload, Pool, Result, Task};
use ringpool_tests::in_contexts;
use ringpool_tests::journal::{Journal, note, notes};

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("chunks_of_numbers", |c| chunks(c, number_of, number));
    tests.extend(in_contexts("chunks_of_strings", |c| chunks(c, text_of, text)));
    tests.extend(in_contexts("chunks_of_vectors", |c| chunks(c, vector_of, vector)));
    tests.extend(in_contexts("every_item_of_a_chunk_dies", every_item_dies));
    tests.extend(in_contexts("imap_keeps_the_order", |c| streams(c, 1)));
    tests.extend(in_contexts("imap_in_chunks_keeps_the_order", |c| streams(c, 7)));
    tests
}

const ITEMS: u64 = 400;
const CHUNK: usize = 50;

/// Items that kill whoever runs them: first and last of chunks, neighbours, several in one chunk.
const POISON: [u64; 9] = [0, 3, 49, 50, 120, 121, 122, 250, 399];
/// Items that kill only the first who runs them.
const FLAKY: [u64; 4] = [7, 48, 200, 349];

/// Notes that it runs `item`, and dies if that is what the item does.
fn run_item(journal: &str, item: u64) {
    note(journal, item);
    let first = || notes(journal).iter().filter(|&&noted| noted == item).count() == 1;
    if POISON.contains(&item) || (FLAKY.contains(&item) && first()) {
        kill_self();
    }
}

fn number(item: u64) -> u64 {
    item * 3
}

fn number_of((journal, item): (String, u64)) -> u64 {
    run_item(&journal, item);
    number(item)
}

/// Texts of up to 20 KB: the block that holds a chunk's results moves several times.
fn text(item: u64) -> String {
    format!("<{item}>").repeat(1 + (item as usize * 37) % 4000)
}

fn text_of((journal, item): (String, u64)) -> String {
    run_item(&journal, item);
    text(item)
}

fn vector(item: u64) -> Vec<u32> {
    vec![item as u32; (item as usize * 13) % 300]
}

fn vector_of((journal, item): (String, u64)) -> Vec<u32> {
    run_item(&journal, item);
    vector(item)
}

fn chunks<R, M, F>(context: Context, f: F, expected: fn(u64) -> R)
where
    R: Payload + PartialEq + std::fmt::Debug,
    F: Task<((String, u64),), M, Value = R>,
{
    for retries in [0, 2] {
        let journal = Journal::default();
        let pool = Pool::builder().processes(2).context(context).retries(retries).start().unwrap();
        let items = (0..ITEMS).map(|item| (journal.path(), item));
        let results = pool.map_async(f, items, Some(CHUNK)).unwrap().get_each().unwrap();
        assert_eq!(results.len(), ITEMS as usize);
        let runs = journal.counts();
        let attempts = 1 + retries as usize;
        for (item, result) in (0..ITEMS).zip(results) {
            let flaky = FLAKY.contains(&item);
            if POISON.contains(&item) || (flaky && retries == 0) {
                let death = death(&result.unwrap_err());
                assert_eq!(death.end, Exit::Signal(libc::SIGKILL));
                assert_eq!(death.attempt as usize, attempts, "item {item}");
                assert_eq!(runs[&item], attempts, "item {item}");
            } else {
                assert_eq!(result.unwrap(), expected(item), "item {item}");
                assert_eq!(runs[&item], if flaky { 2 } else { 1 }, "item {item}");
            }
        }
        expect_full_strength(&pool);
    }
}

fn always_dies(journal: String) -> u64 {
    note(&journal, 0);
    kill_self()
}

fn every_item_dies(context: Context) {
    let journal = Journal::default();
    let pool = Pool::builder().processes(2).context(context).start().unwrap();
    let items = vec![journal.path(); 20];
    let results = pool.map_async(always_dies, items, Some(10)).unwrap().get_each().unwrap();
    assert_eq!(results.len(), 20);
    assert!(results.iter().all(|result| result.as_ref().is_err_and(ringpool::Error::is_worker_died)));
    assert_eq!(journal.notes().len(), 20, "each is tried once");
    expect_full_strength(&pool);
}

fn streams(context: Context, chunksize: usize) {
    let journal = Journal::default();
    let pool = Pool::builder().processes(2).context(context).start().unwrap();
    let items = (0..ITEMS).map(|item| (journal.path(), item));
    let ordered: Vec<Result<u64>> = pool.imap(number_of, items, chunksize).unwrap().collect();
    assert_eq!(ordered.len(), ITEMS as usize);
    let dies = |item: &u64| POISON.contains(item) || FLAKY.contains(item);
    for (item, result) in (0..ITEMS).zip(ordered) {
        match result {
            Ok(value) => assert!(!dies(&item) && value == number(item), "item {item}: {value}"),
            Err(error) => assert!(dies(&item) && error.is_worker_died(), "item {item}: {error}"),
        }
    }
    assert!(journal.counts().into_iter().eq((0..ITEMS).map(|item| (item, 1))), "each is run once");

    let journal = Journal::default();
    let items = (0..ITEMS).map(|item| (journal.path(), item));
    let mut values = Vec::new();
    let mut deaths = 0;
    for result in pool.imap_unordered(number_of, items, chunksize).unwrap() {
        match result {
            Ok(value) => values.push(value),
            Err(error) => {
                death(&error);
                deaths += 1;
            }
        }
    }
    values.sort_unstable();
    assert!(values.into_iter().eq((0..ITEMS).filter(|item| !dies(item)).map(number)));
    assert_eq!(deaths, POISON.len() + FLAKY.len());
    assert!(journal.counts().into_iter().eq((0..ITEMS).map(|item| (item, 1))), "each is run once");
    expect_full_strength(&pool);
}
