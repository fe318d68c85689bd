//! How items become tasks.

use super::pieces::MapSink;
use crate::client::{Args, Call, Client, Target, TaskSpec};
use crate::error::{Error, Result};
use crate::payload::{Payload, flat_items_len, is_plain};
use crate::slot::Shape;
use crate::task::Task;
use crate::worker::FuncWord;
use std::collections::VecDeque;
use std::sync::Arc;

/// Whether to wait for memory that others have, or to fail at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    Wait,
    Now,
}

/// The archived item, or why it is none, and the item.
pub(crate) type ArgsOrItem<T> = Result<Args, (Error, T)>;

type Append<T> = fn(&Client, T, Patience, u64, &mut VecDeque<Call>) -> Result<(), (Error, T)>;

/// A function and how items become calls of it: one alone, or a chunk of several as one task.
pub(crate) struct Calls<T> {
    func: FuncWord,
    name: &'static str,
    /// How a chunk of items is to be read.
    chunk: Shape,
    /// Archives the arguments for one item.
    one: fn(&Client, T, Patience) -> ArgsOrItem<T>,
    /// The same, and appends them as a call with this tag.
    append: Append<T>,
}

/// [`Calls::one`] of a task whose one argument is the item.
fn one_item<T: Payload, M, F: Task<(T,), M>>(client: &Client, item: T, patience: Patience) -> ArgsOrItem<T> {
    let args = (item,);
    let archived = archive(client, patience, || Args::of_task::<_, M, F>(&client.arena, &args));
    archived.map_err(|error| (error, args.0))
}

/// [`Calls::one`] of a task whose arguments are the item.
fn one_tuple<T: Payload, M, F: Task<T, M>>(client: &Client, item: T, patience: Patience) -> ArgsOrItem<T> {
    let archived = archive(client, patience, || Args::of_task::<_, M, F>(&client.arena, &item));
    archived.map_err(|error| (error, item))
}

impl<T: Payload> Calls<T> {
    /// Each item is the one argument.
    pub(crate) fn items<M, F: Task<(T,), M>>(f: F) -> Result<Self> {
        let append = |client: &Client, item: T, patience, tag, calls: &mut VecDeque<Call>| {
            let args = (item,);
            if let Some((words, len)) = Args::short::<_, M, F>(&client.arena, &args) {
                calls.push_back(Call::short(tag, words, len));
                return Ok(());
            }
            let args = one_item::<T, M, F>(client, args.0, patience)?;
            calls.push_back(Call::new(tag, args));
            Ok(())
        };
        let (func, name) = (FuncWord::new(f.func())?, f.name());
        Ok(Calls { func, name, chunk: Shape::Items, one: one_item::<T, M, F>, append })
    }

    /// Each item is the tuple of all arguments.
    pub(crate) fn tuples<M, F: Task<T, M>>(f: F) -> Result<Self> {
        let append = |client: &Client, item: T, patience, tag, calls: &mut VecDeque<Call>| {
            if let Some((words, len)) = Args::short::<_, M, F>(&client.arena, &item) {
                calls.push_back(Call::short(tag, words, len));
                return Ok(());
            }
            let args = one_tuple::<T, M, F>(client, item, patience)?;
            calls.push_back(Call::new(tag, args));
            Ok(())
        };
        let (func, name) = (FuncWord::new(f.func())?, f.name());
        Ok(Calls { func, name, chunk: Shape::Tuples, one: one_tuple::<T, M, F>, append })
    }

    /// Submits one item as an ordinary call. If it cannot be archived, it comes back with the error.
    pub(crate) fn submit_one(
        &self,
        client: &Client,
        item: T,
        patience: Patience,
        to: Target,
        tag: u64,
    ) -> Result<(), (Error, Option<T>)> {
        let args = (self.one)(client, item, patience).map_err(|(error, item)| (error, Some(item)))?;
        let shape = args.shape();
        let submitted = client.submit(self.spec(args, shape), None, to, tag);
        submitted.map(drop).map_err(|error| (error, None))
    }

    /// Submits a chunk of items as one task.
    pub(crate) fn submit_chunk(
        &self,
        client: &Client,
        items: &[T],
        patience: Patience,
        to: Target,
        tag: u64,
    ) -> Result<()> {
        let args = archive(client, patience, || Args::archive_items(&client.arena, items))?;
        let range = (0, items.len() as u32);
        client.submit(self.spec(args, self.chunk), Some(range), to, tag).map(drop)
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
        let to = || Target::Sink(sink.clone());
        if most == 1 {
            let Some(item) = items.next() else { return (0, Ok(())) };
            let submitted = self.submit_one(client, item, Patience::Wait, to(), tag);
            return (1, submitted.map_err(|(error, _)| error));
        }
        if !const { is_plain::<T>() } {
            let chunk: Vec<T> = items.take(most).collect();
            if chunk.is_empty() {
                return (0, Ok(()));
            }
            let submitted = self.submit_chunk(client, &chunk, Patience::Wait, to(), tag);
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
                let spec = self.spec(args, self.chunk);
                (count, client.submit(spec, Some(range), to(), tag).map(drop))
            }
            Err(error) => (items.take(most).count(), Err(error)),
        }
    }

    /// Appends the call for one item, with this tag.
    #[inline]
    pub(crate) fn append(
        &self,
        client: &Client,
        item: T,
        patience: Patience,
        tag: u64,
        calls: &mut VecDeque<Call>,
    ) -> Result<(), (Error, T)> {
        (self.append)(client, item, patience, tag, calls)
    }

    /// The call with these arguments.
    pub(crate) fn call(&self, args: Args) -> TaskSpec {
        let shape = args.shape();
        self.spec(args, shape)
    }

    /// The function, and its name for messages.
    pub(crate) fn function(&self) -> (FuncWord, &'static str) {
        (self.func, self.name)
    }

    fn spec(&self, args: Args, shape: Shape) -> TaskSpec {
        TaskSpec { func: self.func, name: self.name, args, shape }
    }
}

fn archive(client: &Client, patience: Patience, archive: impl FnMut() -> Result<Args>) -> Result<Args> {
    match patience {
        Patience::Wait => client.with_memory(archive),
        Patience::Now => client.with_memory_now(archive),
    }
}
