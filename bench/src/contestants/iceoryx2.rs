//! iceoryx2: requests and responses. A request goes to every server of a service, so a pool is a service
//! for each worker. Either everybody polls, or each notifies the other and blocks on a listener.

use super::program::Program;
use super::{Bytes, Numbers, Started};
use crate::tasks::{inc, look, payload};
use ::iceoryx2::node::Node;
use ::iceoryx2::pending_response::PendingResponse;
use ::iceoryx2::port::client::Client;
use ::iceoryx2::port::listener::Listener;
use ::iceoryx2::port::notifier::Notifier;
use ::iceoryx2::prelude::*;
use std::collections::VecDeque;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Asks a worker to leave.
const LEAVE: u64 = u64::MAX;

/// How to wait: by polling, by polling that gives the CPU away, or for events.
#[derive(Clone, Copy)]
enum Wait {
    Spin,
    Yield,
    Event,
}

impl Wait {
    fn polling(workers: usize) -> Self {
        // Pollers without a CPU of their own keep others from working.
        if workers < crate::shm::cpus().len() { Wait::Spin } else { Wait::Yield }
    }

    fn name(self) -> &'static str {
        match self {
            Wait::Spin => "spin",
            Wait::Yield => "yield",
            Wait::Event => "event",
        }
    }
}

/// Both directions of events between the client and a worker; nothing if they poll.
struct Events {
    wait: Wait,
    there: Option<(Notifier<ipc::Service>, Listener<ipc::Service>)>,
}

impl Events {
    fn new(node: &Node<ipc::Service>, wait: Wait, to: &str, from: &str) -> Result<Self, Box<dyn Error>> {
        let event = |name: &str| {
            node.service_builder(&name.try_into()?).event().open_or_create().map_err(Box::<dyn Error>::from)
        };
        let there = match wait {
            Wait::Event => {
                let notifier = event(to)?.notifier_builder().create()?;
                Some((notifier, event(from)?.listener_builder().create()?))
            }
            _ => None,
        };
        Ok(Events { wait, there })
    }

    fn notify(&self) {
        if let Some((notifier, _)) = &self.there {
            notifier.notify().expect("a notification");
        }
    }

    fn wait(&mut self) {
        match (self.wait, &mut self.there) {
            (Wait::Event, Some((_, listener))) => {
                listener.blocking_wait(|_| ()).expect("a listener");
            }
            (Wait::Yield, _) => std::thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
}

fn names(name: &str) -> (String, String) {
    (format!("{name}/requests"), format!("{name}/results"))
}

/// A worker.
pub fn serve(kind: &str, wait: &str, name: &str, window: usize) -> Result<(), Box<dyn Error>> {
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let wait = match wait {
        "spin" => Wait::Spin,
        "yield" => Wait::Yield,
        _ => Wait::Event,
    };
    let (requests, results) = names(name);
    let mut events = Events::new(&node, wait, &results, &requests)?;
    if kind == "numbers" {
        let service = node
            .service_builder(&name.try_into()?)
            .request_response::<u64, u64>()
            .max_active_requests_per_client(window)
            .max_clients(1)
            .max_servers(1)
            .open_or_create()?;
        let server = service.server_builder().create()?;
        loop {
            let mut some = false;
            while let Some(request) = server.receive()? {
                if *request == LEAVE {
                    return Ok(());
                }
                request.loan_uninit()?.write_payload(inc(*request)).send()?;
                some = true;
            }
            if some {
                events.notify();
            } else {
                events.wait();
            }
        }
    }
    let service = node
        .service_builder(&name.try_into()?)
        .request_response::<[u8], [u8]>()
        .max_clients(1)
        .max_servers(1)
        .open_or_create()?;
    // Here the window is the size of a payload.
    let server = service.server_builder().initial_max_slice_len(window).create()?;
    loop {
        let mut some = false;
        while let Some(request) = server.receive()? {
            if request.is_empty() {
                return Ok(());
            }
            let bytes: &[u8] = &request;
            request.loan_slice_uninit(bytes.len())?.write_from_fn(|i| bytes[i] ^ 1).send()?;
            some = true;
        }
        if some {
            events.notify();
        } else {
            events.wait();
        }
    }
}

fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ringpool-bench/{}/{next}", std::process::id())
}

/// A request that is sent before there is a server gets no answer.
fn wait_for(mut there: impl FnMut() -> bool) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !there() {
        if Instant::now() > deadline {
            return Err("a worker did not come".into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

struct Worker {
    // Before the client that it comes from.
    pending: VecDeque<PendingResponse<ipc::Service, u64, (), u64, ()>>,
    client: Client<ipc::Service, u64, (), u64, ()>,
    events: Events,
    program: Program,
}

/// One service for each.
struct Workers {
    workers: Vec<Worker>,
    most: usize,
    _node: Node<ipc::Service>,
}

fn start(workers: usize, wait: Wait) -> Started<dyn Numbers> {
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    // What a request costs grows with the number of those that may be on their way, so each way of waiting
    // has the number that suits it best.
    let most = match wait {
        Wait::Event => 64,
        _ => 4,
    };
    let mut started = Vec::new();
    for _ in 0..workers {
        let name = fresh_name();
        let (requests, results) = names(&name);
        let service = node
            .service_builder(&name.as_str().try_into()?)
            .request_response::<u64, u64>()
            .max_active_requests_per_client(most)
            .max_clients(1)
            .max_servers(1)
            .open_or_create()?;
        let client = service.client_builder().create()?;
        let events = Events::new(&node, wait, &requests, &results)?;
        let program = Program::start(&["iceoryx2", "numbers", wait.name(), &name, &most.to_string()])?;
        wait_for(|| service.dynamic_config().number_of_servers() == 1)?;
        started.push(Worker { pending: VecDeque::new(), client, events, program });
    }
    Ok(Box::new(Workers { workers: started, most, _node: node }))
}

/// Everybody polls.
pub fn poll(workers: usize) -> Started<dyn Numbers> {
    start(workers, Wait::polling(workers))
}

/// Everybody blocks on a listener.
pub fn event(workers: usize) -> Started<dyn Numbers> {
    start(workers, Wait::Event)
}

impl Worker {
    fn submit(&mut self, x: u64) {
        let request = self.client.loan_uninit().expect("memory").write_payload(x);
        self.pending.push_back(request.send().expect("a connected server"));
        self.events.notify();
    }

    fn next_result(&mut self) -> u64 {
        let pending = self.pending.pop_front().expect("something on its way");
        loop {
            if let Some(response) = pending.receive().expect("a connection") {
                return *response;
            }
            self.events.wait();
        }
    }
}

impl Numbers for Workers {
    fn call(&mut self, x: u64) -> u64 {
        let turn = x as usize % self.workers.len();
        let worker = &mut self.workers[turn];
        worker.submit(x);
        worker.next_result()
    }

    fn stream(&mut self, tasks: u64, window: usize) -> u64 {
        let count = self.workers.len();
        let most = self.most.min(window / count).max(1);
        let mut sum = 0u64;
        for i in 0..tasks {
            let worker = &mut self.workers[i as usize % count];
            if worker.pending.len() == most {
                sum = sum.wrapping_add(worker.next_result());
            }
            worker.submit(i);
        }
        for worker in &mut self.workers {
            while !worker.pending.is_empty() {
                sum = sum.wrapping_add(worker.next_result());
            }
        }
        sum
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.submit(LEAVE);
        }
        self.workers.iter_mut().for_each(|worker| worker.program.finish());
    }
}

/// One worker that is sent slices.
struct Slices {
    client: Client<ipc::Service, [u8], (), [u8], ()>,
    events: Events,
    program: Program,
    next: Vec<u8>,
    _node: Node<ipc::Service>,
}

fn start_slices(size: usize, wait: Wait) -> Started<dyn Bytes> {
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let name = fresh_name();
    let (requests, results) = names(&name);
    let service = node
        .service_builder(&name.as_str().try_into()?)
        .request_response::<[u8], [u8]>()
        .max_clients(1)
        .max_servers(1)
        .open_or_create()?;
    let client = service.client_builder().initial_max_slice_len(size).create()?;
    let events = Events::new(&node, wait, &requests, &results)?;
    let program = Program::start(&["iceoryx2", "bytes", wait.name(), &name, &size.to_string()])?;
    wait_for(|| service.dynamic_config().number_of_servers() == 1)?;
    Ok(Box::new(Slices { client, events, program, next: payload(0), _node: node }))
}

/// [`poll`] for bytes; one worker.
pub fn poll_bytes(_: usize, data: &[u8]) -> Started<dyn Bytes> {
    start_slices(data.len(), Wait::polling(1))
}

/// [`event`] for bytes; one worker.
pub fn event_bytes(_: usize, data: &[u8]) -> Started<dyn Bytes> {
    start_slices(data.len(), Wait::Event)
}

impl Bytes for Slices {
    fn load(&mut self, data: &[u8]) {
        self.next = data.to_vec();
    }

    fn echo(&mut self) -> u64 {
        let bytes = std::mem::take(&mut self.next);
        let request = self.client.loan_slice_uninit(bytes.len()).expect("memory").write_from_slice(&bytes);
        let pending = request.send().expect("a connected server");
        self.events.notify();
        loop {
            if let Some(response) = pending.receive().expect("a connection") {
                return look(&response);
            }
            self.events.wait();
        }
    }
}

impl Drop for Slices {
    fn drop(&mut self) {
        let request = self.client.loan_slice_uninit(0).map(|request| request.write_from_slice(&[]));
        if let Ok(request) = request {
            let _pending = request.send();
            self.events.notify();
            self.program.finish();
        }
    }
}
