//! ipc-channel: workers that connect to a one-shot server, are sent a receiver of requests, and answer by
//! one sender that all of them share.

use super::program::Program;
use super::{Bytes, Numbers, Started};
use crate::tasks::{inc, look, xor};
use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender, IpcSharedMemory,
    bytes_channel, channel,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::error::Error;

/// More than fit into a socket must not be on their way to one worker: it could not be written to any
/// more, while nobody reads its results.
const WINDOW: usize = 200;

/// What a worker is sent first.
#[derive(Serialize, Deserialize)]
struct Ends<Q, S> {
    requests: Q,
    results: S,
}

fn launch<Q, S>(kind: &str, requests: Q, results: S) -> Result<Program, Box<dyn Error>>
where
    Q: Serialize + DeserializeOwned,
    S: Serialize + DeserializeOwned,
{
    let (server, name) = IpcOneShotServer::<IpcSender<Ends<Q, S>>>::new()?;
    let program = Program::start(&["ipc-channel", kind, &name])?;
    let (_, worker) = server.accept()?;
    worker.send(Ends { requests, results })?;
    Ok(program)
}

fn join<Q, S>(server: &str) -> Result<Ends<Q, S>, Box<dyn Error>>
where
    Q: Serialize + DeserializeOwned,
    S: Serialize + DeserializeOwned,
{
    let (sender, receiver) = channel::<Ends<Q, S>>()?;
    IpcSender::connect(server.to_owned())?.send(sender)?;
    Ok(receiver.recv()?)
}

/// A worker of this kind.
pub fn serve(kind: &str, server: &str) -> Result<(), Box<dyn Error>> {
    match kind {
        "numbers" => {
            let ends: Ends<IpcReceiver<u64>, IpcSender<u64>> = join(server)?;
            while let Ok(x) = ends.requests.recv() {
                ends.results.send(inc(x))?;
            }
        }
        "bytes" => {
            let ends: Ends<IpcBytesReceiver, IpcBytesSender> = join(server)?;
            while let Ok(bytes) = ends.requests.recv() {
                ends.results.send(&xor(&bytes))?;
            }
        }
        _ => {
            let ends: Ends<IpcReceiver<IpcSharedMemory>, IpcSender<IpcSharedMemory>> = join(server)?;
            while let Ok(bytes) = ends.requests.recv() {
                ends.results.send(IpcSharedMemory::from_bytes(&xor(&bytes)))?;
            }
        }
    }
    Ok(())
}

struct Workers {
    // Before the programs, which end when these are gone.
    requests: Vec<IpcSender<u64>>,
    results: IpcReceiver<u64>,
    on_their_way: Vec<usize>,
    _programs: Vec<Program>,
}

/// For streams and calls of numbers.
pub fn numbers(workers: usize) -> Started<dyn Numbers> {
    let (sender, results) = channel()?;
    let (mut requests, mut programs) = (Vec::new(), Vec::new());
    for _ in 0..workers {
        let (request, receiver) = channel::<u64>()?;
        programs.push(launch("numbers", receiver, sender.clone())?);
        requests.push(request);
    }
    Ok(Box::new(Workers { requests, results, on_their_way: vec![0; workers], _programs: programs }))
}

impl Workers {
    /// Workers are asked in turns.
    fn worker(&self, x: u64) -> usize {
        (x % self.requests.len() as u64) as usize
    }

    fn submit(&mut self, x: u64) {
        let worker = self.worker(x);
        self.on_their_way[worker] += 1;
        self.requests[worker].send(x).expect("workers live");
    }

    fn next_result(&mut self) -> u64 {
        let result = self.results.recv().expect("workers live");
        let worker = self.worker(result - 1);
        self.on_their_way[worker] -= 1;
        result
    }
}

impl Numbers for Workers {
    fn call(&mut self, x: u64) -> u64 {
        self.submit(x);
        self.next_result()
    }

    fn stream(&mut self, tasks: u64, window: usize) -> u64 {
        let (mut sum, mut outstanding) = (0u64, 0);
        for i in 0..tasks {
            while outstanding == window || self.on_their_way[self.worker(i)] == WINDOW {
                sum = sum.wrapping_add(self.next_result());
                outstanding -= 1;
            }
            self.submit(i);
            outstanding += 1;
        }
        (0..outstanding).fold(sum, |sum, _| sum.wrapping_add(self.next_result()))
    }
}

struct Raw {
    requests: IpcBytesSender,
    results: IpcBytesReceiver,
    next: Vec<u8>,
    _program: Program,
}

/// Bytes through a bytes channel; one worker.
pub fn bytes(_: usize, _: &[u8]) -> Started<dyn Bytes> {
    let (requests, receiver) = bytes_channel()?;
    let (sender, results) = bytes_channel()?;
    let program = launch("bytes", receiver, sender)?;
    Ok(Box::new(Raw { requests, results, next: Vec::new(), _program: program }))
}

impl Bytes for Raw {
    fn load(&mut self, data: &[u8]) {
        self.next = data.to_vec();
    }

    fn echo(&mut self) -> u64 {
        let bytes = std::mem::take(&mut self.next);
        self.requests.send(&bytes).expect("workers live");
        look(&self.results.recv().expect("workers live"))
    }
}

struct Mapped {
    requests: IpcSender<IpcSharedMemory>,
    results: IpcReceiver<IpcSharedMemory>,
    next: Vec<u8>,
    _program: Program,
}

/// Bytes in `IpcSharedMemory`, which is made for each message; one worker.
pub fn shared_memory(_: usize, _: &[u8]) -> Started<dyn Bytes> {
    let (requests, receiver) = channel()?;
    let (sender, results) = channel()?;
    let program = launch("memory", receiver, sender)?;
    Ok(Box::new(Mapped { requests, results, next: Vec::new(), _program: program }))
}

impl Bytes for Mapped {
    fn load(&mut self, data: &[u8]) {
        self.next = data.to_vec();
    }

    fn echo(&mut self) -> u64 {
        let bytes = std::mem::take(&mut self.next);
        self.requests.send(IpcSharedMemory::from_bytes(&bytes)).expect("workers live");
        look(&self.results.recv().expect("workers live"))
    }
}
