//! How items become tasks.

use super::pieces::MapSink;
use crate::client::{Args, Client, Sink, TaskSpec};
use crate::error::{Error, Result};
use crate::payload::{Payload, flat_items_len, is_plain};
use crate::slot::Shape;
use crate::task::Task;
use crate::worker::FuncWord;
use std::sync::Arc;

/// Whether to wait for memory that others have, or to fail at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    Wait,
    Now,
}

/// The archived item, or why it is none, and the item.
type ArgsOrItem<T> = Result<Args, (Error, T)>;

/// A function and how items become calls of it: one alone, or a chunk of several as one task.
pub(crate) struct Calls<T> {
    func: FuncWord,
    name: &'static str,
    /// How a chunk of items is to be read.
    chunk: Shape,
    /// Archives the arguments for one item.
    one: fn(&Client, T, Patience) -> ArgsOrItem<T>,
}

impl<T: Payload> Calls<T> {
    /// Each item is the one argument.
    pub(crate) fn items<M, F: Task<(T,), M>>(f: F) -> Result<Self> {
        let one = |client: &Client, item: T, patience| {
            let args = (item,);
            archive(client, patience, || Args::archive(&client.arena, &args)).map_err(|error| (error, args.0))
        };
        Ok(Calls { func: FuncWord::new(f.func())?, name: f.name(), chunk: Shape::Items, one })
    }

    /// Each item is the tuple of all arguments.
    pub(crate) fn tuples<M, F: Task<T, M>>(f: F) -> Result<Self> {
        let one = |client: &Client, item: T, patience| {
            archive(client, patience, || Args::archive(&client.arena, &item)).map_err(|error| (error, item))
        };
        Ok(Calls { func: FuncWord::new(f.func())?, name: f.name(), chunk: Shape::Tuples, one })
    }

    /// Submits one item as an ordinary call. If it cannot be archived, it comes back with the error.
    pub(crate) fn submit_one(
        &self,
        client: &Client,
        item: T,
        patience: Patience,
        sink: Arc<dyn Sink>,
        tag: u64,
    ) -> Result<(), (Error, Option<T>)> {
        let args = (self.one)(client, item, patience).map_err(|(error, item)| (error, Some(item)))?;
        let shape = args.shape();
        let submitted = client.submit(self.spec(client, args, shape), None, sink, tag);
        submitted.map(drop).map_err(|error| (error, None))
    }

    /// Submits a chunk of items as one task.
    pub(crate) fn submit_chunk(
        &self,
        client: &Client,
        items: &[T],
        patience: Patience,
        sink: Arc<dyn Sink>,
        tag: u64,
    ) -> Result<()> {
        let args = archive(client, patience, || Args::archive_items(&client.arena, items))?;
        let range = (0, items.len() as u32);
        client.submit(self.spec(client, args, self.chunk), Some(range), sink, tag).map(drop)
    }

    /// Submits the next `most` items as one task, or all if there are fewer; how many they are. Those that
    /// could not be submitted are gone.
    pub(super) fn submit_next(
        &self,
        client: &Client,
        items: &mut impl Iterator<Item = T>,
        most: usize,
        sink: &Arc<MapSink>,
        tag: u64,
    ) -> (usize, Result<()>) {
        if most == 1 {
            let Some(item) = items.next() else { return (0, Ok(())) };
            let submitted = self.submit_one(client, item, Patience::Wait, sink.clone(), tag);
            return (1, submitted.map_err(|(error, _)| error));
        }
        if !const { is_plain::<T>() } {
            let chunk: Vec<T> = items.take(most).collect();
            if chunk.is_empty() {
                return (0, Ok(()));
            }
            let submitted = self.submit_chunk(client, &chunk, Patience::Wait, sink.clone(), tag);
            return (chunk.len(), submitted);
        }
        let block = match client.with_memory(|| client.arena.take(flat_items_len::<T>(most))) {
            Ok(block) => block,
            Err(error) => return (items.take(most).count(), Err(error)),
        };
        match Args::fill_items(block, items, most) {
            Ok((0, _)) => (0, Ok(())),
            Ok((count, args)) => {
                let range = (0, count as u32);
                let spec = self.spec(client, args, self.chunk);
                (count, client.submit(spec, Some(range), sink.clone(), tag).map(drop))
            }
            Err(error) => (items.take(most).count(), Err(error)),
        }
    }

    fn spec(&self, client: &Client, args: Args, shape: Shape) -> TaskSpec {
        TaskSpec { func: self.func, name: self.name, args, shape, max_attempts: client.max_attempts() }
    }
}

fn archive(client: &Client, patience: Patience, archive: impl FnMut() -> Result<Args>) -> Result<Args> {
    match patience {
        Patience::Wait => client.with_memory(archive),
        Patience::Now => client.with_memory_now(archive),
    }
}
