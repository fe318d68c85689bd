//! Any bytes as messages between the pool and its processes.

use super::{fuzz, mutate};
use crate::error::Exit;
use crate::launch::{FromTemplate, FromWorker, ToChild};
use fastrand::Rng;

#[test]
fn any_bytes_as_messages() {
    let some = [
        ToChild::BeTemplate.to_bytes(),
        ToChild::NoPlace.to_bytes(),
        ToChild::GuardName { nonce: 77, name: "jobs".to_owned() }.to_bytes(),
        ToChild::Worker { index: 3, incarnation: 9 }.to_bytes(),
        FromTemplate::Forked { index: 1, incarnation: 2, pid: 3 }.to_bytes(),
        FromTemplate::Failed { index: 1, incarnation: 2, errno: 3 }.to_bytes(),
        FromTemplate::Ended { pid: 1, exit: Exit::Signal(11) }.to_bytes(),
        FromWorker::Ready.to_bytes(),
        FromWorker::Leaving.to_bytes(),
        FromWorker::InitializerFailed("why".to_owned()).to_bytes(),
        FromWorker::Refused("why not".to_owned()).to_bytes(),
    ];
    fuzz("any bytes as messages", 20_000, |random: &mut Rng| {
        let mut bytes = some[random.usize(..some.len())].clone();
        if random.u32(..4) == 0 {
            bytes = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
        }
        mutate(random, &mut bytes);
        // What is understood means one thing only.
        if let Some(message) = ToChild::from_bytes(&bytes) {
            assert_eq!(ToChild::from_bytes(&message.to_bytes()), Some(message));
        }
        if let Some(message) = FromTemplate::from_bytes(&bytes) {
            assert_eq!(FromTemplate::from_bytes(&message.to_bytes()), Some(message));
        }
        if let Some(message) = FromWorker::from_bytes(&bytes) {
            assert_eq!(FromWorker::from_bytes(&message.to_bytes()), Some(message));
        }
        1
    });
}
