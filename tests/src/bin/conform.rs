//! The conformance suite's client in Rust, which is a worker in Rust, too.
//!
//! `conform TABLE LANGUAGE raw|typed|expected [WORKER]` runs the cases of the table whose tasks are in that language, in
//! runs of the program WORKER or else in forks of this one, by `ringpool::raw` or by the methods with types, which do
//! not fit all cases; and prints what `tests/conformance/client.c` prints. Or it prints what the table expects.

use ringpool::raw::{self, Array, Batch, Failure, Name, Order, Source};
use ringpool::{Context, Error, ErrorKind, Exit, Payload, Pool, Result, named};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 256) as u8).collect()
}

fn number(input: &[u8]) -> Result<u64, Failure> {
    Ok(u64::from_ne_bytes(input.try_into()?))
}

/// What the initializer was given.
static REMEMBERED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn trouble(kind: u64) -> Result<u64, Failure> {
    match kind {
        0 => return Err(Failure::new(7, "no such city")),
        1 => std::process::abort(),
        // SAFETY: none: the process is to die of it.
        2 => unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) },
        3 => std::process::exit(3),
        // SAFETY: a signal to ourselves.
        4 => drop(unsafe { libc::kill(libc::getpid(), libc::SIGKILL) }),
        _ => {}
    }
    Ok(kind)
}

fn roots(batch: Batch<'_>) -> Result<(), Failure> {
    for (item, value) in batch.items.chunks_exact(8).zip(batch.values.chunks_exact_mut(8)) {
        let item = f64::from_ne_bytes(item.try_into()?);
        if item < 0.0 {
            return Err(Failure::new(33, "a negative number"));
        }
        value.copy_from_slice(&item.sqrt().to_ne_bytes());
    }
    Ok(())
}

/// The tasks: some by their types, some over bytes.
fn register() -> Result<()> {
    ringpool::register("add", |a: u64, b: u64| a.wrapping_add(b))?;
    ringpool::register("triple", |x: u64| 3 * x)?;
    ringpool::register("panic", |x: u64| -> u64 { panic!("no {x}") })?;
    ringpool::register("nap", |ms: u64| -> u64 {
        std::thread::sleep(Duration::from_millis(ms));
        ms
    })?;
    raw::register("echo", raw::Function::new(|input, output| output.write(input)))?;
    raw::register(
        "double",
        raw::Function::new(|input, output| output.write(&(2 * number(input)?).to_ne_bytes())),
    )?;
    raw::register(
        "total",
        raw::Function::new(|input, output| {
            let sum: u64 = input.iter().map(|&byte| u64::from(byte)).sum();
            output.write(&sum.to_ne_bytes())
        }),
    )?;
    raw::register(
        "sized",
        raw::Function::new(|input, output| output.write(&pattern(number(input)? as usize))),
    )?;
    raw::register(
        "trouble",
        raw::Function::new(|input, output| output.write(&trouble(number(input)?)?.to_ne_bytes())),
    )?;
    raw::register(
        "set_up",
        raw::Function::new(|input, _| {
            if input.is_empty() {
                return Err(Failure::new(9, "nothing to remember"));
            }
            *REMEMBERED.lock()? = input.to_vec();
            Ok(())
        }),
    )?;
    raw::register("recall", raw::Function::new(|_, output| output.write(&REMEMBERED.lock()?)))?;
    raw::register("roots", raw::Function::array(8, 8, roots))
}

fn parse_item(word: &str, items: &mut Vec<Vec<u8>>) {
    let (kind, rest) = word.split_at(1);
    let item = match kind {
        "x" => {
            (0..rest.len()).step_by(2).map(|at| u8::from_str_radix(&rest[at..at + 2], 16).unwrap()).collect()
        }
        "p" => pattern(rest.parse().unwrap()),
        "u" => rest.split(',').flat_map(|word| word.parse::<u64>().unwrap().to_ne_bytes()).collect(),
        "f" => rest.split(',').flat_map(|word| word.parse::<f64>().unwrap().to_ne_bytes()).collect(),
        "n" => {
            let (count, factor) = rest.split_once('*').unwrap();
            let (count, factor): (u64, u64) = (count.parse().unwrap(), factor.parse().unwrap());
            items.extend((0..count).map(|at| (at * factor).to_ne_bytes().to_vec()));
            return;
        }
        _ => panic!("no item: {word}"),
    };
    items.push(item);
}

fn good(bytes: &[u8]) -> String {
    if bytes.len() <= 40 {
        return bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    format!("{} bytes, {:016x}", bytes.len(), bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash))
}

fn bad(error: &Error) -> String {
    let name = match error.kind() {
        ErrorKind::FailedWith { .. } => return format!("!task_failed {error}"),
        ErrorKind::WorkerDied { end: Exit::Signal(signal), .. } => {
            return format!("!worker_died signal {signal}");
        }
        ErrorKind::WorkerDied { end: Exit::Code(code), .. } => return format!("!worker_died exit {code}"),
        ErrorKind::Panicked { .. } => "task_panicked",
        ErrorKind::Timeout { .. } => "timeout",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::Closed => "closed",
        ErrorKind::Terminated => "terminated",
        ErrorKind::Initializer { .. } => "initializer_failed",
        ErrorKind::Payload { .. } => "bad_payload",
        ErrorKind::Function { .. } => "unknown_task",
        other => return format!("!other {other:?}"),
    };
    format!("!{name}")
}

fn told<B: AsRef<[u8]>, E: std::borrow::Borrow<Error>>(result: Result<B, E>) -> String {
    result.map_or_else(|error| bad(error.borrow()), |bytes| good(bytes.as_ref()))
}

/// One outcome for each item, or one in all.
fn all(outcomes: Result<Vec<String>>) -> Vec<String> {
    outcomes.unwrap_or_else(|error| vec![bad(&error)])
}

struct Case<'a> {
    name: &'a str,
    pool: &'a str,
    workers: &'a str,
    how: &'a str,
    numbers: Vec<&'a str>,
    task: &'a str,
    items: Vec<Vec<u8>>,
    expected: &'a str,
}

impl<'a> Case<'a> {
    fn parse(line: &'a str) -> Self {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, pool, workers, call, task, inputs, expected] = fields[..] else {
            panic!("not 7 fields: {line}");
        };
        let mut words = call.split_whitespace();
        let how = words.next().unwrap();
        let mut items = Vec::new();
        if inputs != "none" {
            inputs.split(';').for_each(|word| parse_item(word, &mut items));
        }
        Case { name, pool, workers, how, numbers: words.collect(), task, items, expected }
    }

    fn expected(&self) -> Vec<String> {
        let mut outcomes = Vec::new();
        for word in self.expected.split(';').filter(|&word| word != "none") {
            if word.starts_with('!') {
                outcomes.push(word.to_owned());
            } else {
                let mut items = Vec::new();
                parse_item(word, &mut items);
                outcomes.extend(items.iter().map(|item| good(item)));
            }
        }
        if self.how == "unordered" {
            outcomes.sort();
        }
        outcomes
    }

    fn chunk(&self) -> usize {
        self.numbers[0].parse().unwrap()
    }

    fn timeout(&self) -> Option<Duration> {
        (self.how == "timeout").then(|| Duration::from_secs_f64(self.numbers[0].parse().unwrap()))
    }

    fn start(&self, worker: Option<&str>) -> Result<Pool> {
        let mut builder = Pool::builder().processes(if self.pool == "single" { 1 } else { 2 });
        if let Some(worker) = worker {
            builder = builder.context(Context::Spawn).command([worker]);
        }
        builder = match self.pool {
            "hardened" => builder.hardened(true),
            "brief" => builder.max_tasks_per_child(2),
            "set_up" => builder.raw_initializer(Name::new("set_up")?, b"set".to_vec()),
            "broken" => builder.raw_initializer(Name::new("set_up")?, Vec::new()),
            _ => builder,
        };
        let pool = builder.start()?;
        match self.pool {
            "closed" => pool.close(),
            "terminated" => pool.terminate(),
            _ => {}
        }
        Ok(pool)
    }

    /// By `ringpool::raw`.
    fn raw(&self, pool: &Pool) -> Result<Vec<String>> {
        let (caller, name) = (pool.raw(), Name::new(self.task)?);
        let slices: Vec<&[u8]> = self.items.iter().map(Vec::as_slice).collect();
        let chunk = || Some(self.chunk()).filter(|&chunk| chunk != 0);
        let joined = self.items.concat();
        let array = || Array { items: &joined, item_size: self.items[0].len() };
        Ok(match self.how {
            "apply" => vec![told(caller.apply(name, slices[0]).as_deref())],
            "map" | "map_each" => {
                let results = caller.map(name, &slices, chunk())?.get(None)?;
                if let Some(error) = results.first_error().filter(|_| self.how == "map") {
                    return Err(error.clone());
                }
                (0..results.len()).map(|index| told(results.get(index).unwrap())).collect()
            }
            "array_each" => {
                let results = caller.map_array(name, array(), chunk())?.get(None)?;
                (0..results.len()).map(|index| told(results.get(index).unwrap())).collect()
            }
            "array" => {
                let size: usize = self.numbers[1].parse().unwrap();
                let mut values = vec![0; size * slices.len()];
                caller.map_into(name, array(), size, &mut values, chunk())?;
                values.chunks_exact(size).map(good).collect()
            }
            "imap" | "unordered" => {
                let order = if self.how == "imap" { Order::Items } else { Order::Arrival };
                let mut outputs =
                    caller.imap(name, InMemory(slices.into_iter()), self.chunk(), order, None)?;
                std::iter::from_fn(|| outputs.next(None)).map(|output| told(output.as_deref())).collect()
            }
            "queue" => {
                let queue = caller.queue()?;
                let inputs = slices.iter().enumerate().map(|(tag, &item)| (tag as u64, item.into()));
                let (submitted, result) = queue.submit(name, inputs);
                result?;
                assert_eq!(submitted, slices.len());
                let mut outcomes = BTreeMap::new();
                while queue.outstanding() > 0 {
                    let taken = queue.take(16, None)?;
                    outcomes.extend(
                        (0..taken.len())
                            .map(|index| (taken.tag(index).unwrap(), told(taken.get(index).unwrap()))),
                    );
                }
                assert_eq!(outcomes.len(), submitted);
                outcomes.into_values().collect()
            }
            "async" | "timeout" | "cancel" | "terminate" => {
                let before =
                    (self.how == "cancel").then(|| caller.apply_async(name, slices[0])).transpose()?;
                let pending = caller.apply_async(name, slices[0])?;
                match self.how {
                    "cancel" => assert!(pending.cancel()),
                    "terminate" => pool.terminate(),
                    _ => {}
                }
                let outcome = told(pending.get(self.timeout()).as_deref());
                drop(before);
                vec![outcome]
            }
            other => panic!("no call: {other}"),
        })
    }

    /// By the methods with types, if they fit.
    fn typed(&self, pool: &Pool) -> Option<Vec<String>> {
        let u64_of = |item: &Vec<u8>| item.as_slice().try_into().ok().map(u64::from_ne_bytes);
        match self.task {
            "double" | "trouble" | "nap" | "panic" => {
                let items: Vec<u64> = self.items.iter().map(u64_of).collect::<Option<_>>()?;
                self.with_type::<u64, u64>(pool, items, |value| value.to_ne_bytes().to_vec())
            }
            "roots" if self.items.iter().all(|item| item.len() == 8) => {
                let items = self.items.iter().map(u64_of).collect::<Option<Vec<_>>>()?;
                let items = items.into_iter().map(f64::from_bits).collect();
                self.with_type::<f64, f64>(pool, items, |value| value.to_ne_bytes().to_vec())
            }
            "add" if self.how != "async" => {
                let pair = |item: &Vec<u8>| {
                    let (a, b) = item.split_at_checked(8)?;
                    Some((u64_of(&a.to_vec())?, u64_of(&b.to_vec())?))
                };
                let items: Vec<(u64, u64)> = self.items.iter().map(pair).collect::<Option<_>>()?;
                let add = named::<(u64, u64), u64>("add");
                let values = match self.how {
                    "apply" => pool.apply(add, items[0]).map(|value| vec![value]),
                    "map" => pool.starmap(add, items),
                    _ => return None,
                };
                Some(
                    all(values.map(|values| values.iter().map(|value| good(&value.to_ne_bytes())).collect())),
                )
            }
            _ => None,
        }
    }

    fn with_type<T: Payload, R: Payload>(
        &self,
        pool: &Pool,
        items: Vec<T>,
        bytes: impl Fn(&R) -> Vec<u8>,
    ) -> Option<Vec<String>> {
        let task = named::<(T,), R>(self.task);
        let told = |value: Result<R>| told(value.map(|value| bytes(&value)));
        let chunk = || Some(self.chunk()).filter(|&chunk| chunk != 0);
        let outcomes = match self.how {
            "apply" => Ok(vec![told(pool.apply(task, (items.into_iter().next()?,)))]),
            "async" | "timeout" | "terminate" => {
                pool.apply_async(task, (items.into_iter().next()?,)).map(|pending| {
                    if self.how == "terminate" {
                        pool.terminate();
                    }
                    vec![told(match self.timeout() {
                        Some(timeout) => pending.get_timeout(timeout),
                        None => pending.get(),
                    })]
                })
            }
            "map" => {
                let values = pool.map_async(task, items, chunk()).and_then(|pending| pending.get());
                values.map(|values| values.iter().map(|value| good(&bytes(value))).collect())
            }
            "map_each" | "array_each" => {
                let values = pool.map_async(task, items, chunk()).and_then(|pending| pending.get_each());
                values.map(|values| values.into_iter().map(told).collect())
            }
            "imap" => pool.imap(task, items, self.chunk()).map(|values| values.map(told).collect()),
            "unordered" => {
                pool.imap_unordered(task, items, self.chunk()).map(|values| values.map(told).collect())
            }
            _ => return None,
        };
        Some(all(outcomes))
    }
}

/// Inputs one after the other.
struct InMemory<'a>(std::vec::IntoIter<&'a [u8]>);

impl Source for InMemory<'_> {
    fn next(&mut self) -> Option<Result<&[u8]>> {
        self.0.next().map(Ok)
    }
}

fn main() -> Result<()> {
    register()?;
    ringpool::init();
    let args: Vec<String> = std::env::args().collect();
    let [_, table, language, api, worker @ ..] = &args[..] else {
        panic!("conform TABLE LANGUAGE raw|typed|expected [WORKER]");
    };
    let worker = worker.first().map(String::as_str);
    let text = std::fs::read_to_string(table).expect("the table");
    let mut shared = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let case = Case::parse(line);
        if case.workers != "any" && case.workers != language {
            continue;
        }
        let mut outcomes = if api == "expected" {
            case.expected()
        } else {
            let own;
            let pool = if case.pool == "shared" {
                if shared.is_none() {
                    shared = Some(case.start(worker)?);
                }
                shared.as_ref().expect("started")
            } else {
                own = case.start(worker)?;
                &own
            };
            match api.as_str() {
                "typed" => match case.typed(pool) {
                    Some(outcomes) => outcomes,
                    None => continue,
                },
                _ => all(case.raw(pool)),
            }
        };
        if case.how == "unordered" {
            outcomes.sort();
        }
        let outcomes = if outcomes.is_empty() { "none".to_owned() } else { outcomes.join(";") };
        println!("{}\t{outcomes}", case.name);
    }
    Ok(())
}
