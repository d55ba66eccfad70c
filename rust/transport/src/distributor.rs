//! A fan-out that holds up nobody: packets are sent by threads of its own, each to its share of the outlets.
//!
//! There is one thread for each processor, for all distributors together. Packets wait in a queue for each share; what finds
//! its queue full is dropped, and counted for every outlet of the share. So the packets of one outlet stay in order.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{self, available_parallelism};

use audiomixer_core::lock;

use crate::outlet::{Fanout, Outlet};

/// Packets that may wait for a share, half a second of them.
const LIMIT: usize = 25;

/// Calls with what an outlet has no path to be sent by.
type Unsent<T> = Box<dyn Fn(&T, Vec<u8>) + Send + Sync>;

/// Sends the same packets to many outlets, each with something, `T`, by which the caller knows it.
pub struct Distributor<T> {
    shares: Vec<Arc<Share<T>>>,
    /// Which share the next outlet goes to.
    next: AtomicUsize,
}

struct Share<T> {
    /// Locked for as long as it takes to send a packet to all: not to be waited for by who has something sent.
    fanout: Fanout<T>,
    /// How many outlets there are.
    outlets: AtomicUsize,
    unsent: Arc<Unsent<T>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Packet>,
    /// Those that have been sent, to be used again.
    spare: Vec<Packet>,
    /// How many were dropped since the last one was sent.
    missed: u64,
    /// A thread has been told to look here.
    told: bool,
}

#[derive(Default)]
struct Packet {
    payload: Vec<u8>,
    timestamp: u32,
}

impl<T: Send + Sync + 'static> Distributor<T> {
    /// Calls `unsent`, in one of the threads, with what has no path to be sent by.
    pub fn new(unsent: impl Fn(&T, Vec<u8>) + Send + Sync + 'static) -> Self {
        let unsent: Arc<Unsent<T>> = Arc::new(Box::new(unsent));
        let share = || Share {
            fanout: Fanout::default(),
            outlets: AtomicUsize::new(0),
            unsent: Arc::clone(&unsent),
            queue: Mutex::default(),
        };
        let shares = workers().iter().map(|_| Arc::new(share())).collect();
        Self { shares, next: AtomicUsize::new(0) }
    }

    /// Begins to send to an outlet.
    pub fn add(&self, outlet: Arc<Outlet>, tag: T) {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.shares.len();
        self.shares[place].fanout.add(outlet, tag);
        self.shares[place].outlets.fetch_add(1, Ordering::Relaxed);
    }

    /// Ceases to; what it had. What waits is not sent to it any more.
    pub fn remove(&self, outlet: &Arc<Outlet>) -> Option<T> {
        self.shares.iter().find_map(|share| {
            let tag = share.fanout.remove(outlet)?;
            share.outlets.fetch_sub(1, Ordering::Relaxed);
            Some(tag)
        })
    }

    /// Has `payload` sent to all.
    pub fn send(&self, payload: &[u8], timestamp: u32) {
        for (share, worker) in self.shares.iter().zip(workers()) {
            if share.outlets.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let has_been_told = {
                let mut queue = share.queue();
                queue.add(payload, timestamp);
                std::mem::replace(&mut queue.told, true)
            };
            if !has_been_told {
                let share: Job = Arc::clone(share) as _;
                lock(worker).send(share).expect("the threads do not end");
            }
        }
    }
}

impl Queue {
    /// Adds a packet, unless it is full.
    fn add(&mut self, payload: &[u8], timestamp: u32) {
        if self.waiting.len() == LIMIT {
            self.missed += 1;
            return;
        }
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.payload.clear();
        packet.payload.extend_from_slice(payload);
        packet.timestamp = timestamp;
        self.waiting.push_back(packet);
    }
}

impl<T> Share<T> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// The next packet, and how many were dropped meanwhile; if there is none, it has to be told again.
    fn next(&self) -> Option<(Packet, u64)> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front();
        queue.told = next.is_some();
        Some((next?, std::mem::take(&mut queue.missed)))
    }
}

/// Something to do for one of the threads.
trait Work: Send + Sync {
    fn work(&self);
}

impl<T: Send + Sync> Work for Share<T> {
    fn work(&self) {
        while let Some((packet, missed)) = self.next() {
            if missed > 0 {
                self.fanout.miss(missed);
            }
            self.fanout.send(&packet.payload, packet.timestamp, |tag, unsent| {
                (self.unsent)(tag, unsent);
            });
            self.queue().spare.push(packet);
        }
    }
}

type Job = Arc<dyn Work>;

/// By which each thread is told.
type Worker = Mutex<Sender<Job>>;

fn workers() -> &'static [Worker] {
    static WORKERS: OnceLock<Vec<Worker>> = OnceLock::new();
    WORKERS.get_or_init(|| {
        let count = available_parallelism().map_or(1, usize::from);
        (0..count).map(|_| Mutex::new(worker())).collect()
    })
}

fn worker() -> Sender<Job> {
    let (told, work): (_, Receiver<Job>) = channel();
    let run = move || {
        for share in work {
            // Whoever panics has lost a packet; the others need the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| share.work()));
        }
    };
    thread::Builder::new().name("fan-out".into()).spawn(run).expect("there can be another thread");
    told
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::cipher::MasterKey;
    use crate::outlet::tests::path_to;
    use crate::srtp;

    const KEY: MasterKey = MasterKey::Gcm128([1; 28]);

    fn outlet(receiver: Option<&UdpSocket>) -> Arc<Outlet> {
        let path = receiver.map(path_to);
        let outlet = Arc::new(Outlet::default());
        outlet.open(&KEY, 7, 111, (0, 0), path);
        outlet
    }

    #[test]
    fn everybody_gets_every_packet_in_order_until_removed() {
        let receivers: Vec<_> = (0..5).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let outlets: Vec<_> = receivers.iter().map(|receiver| outlet(Some(receiver))).collect();
        let distributor = Distributor::new(|_: &usize, _| panic!("all have a path"));
        for (n, outlet) in outlets.iter().enumerate() {
            distributor.add(Arc::clone(outlet), n);
        }
        let mut buffer = [0; 1500];
        for n in 0..100u32 {
            if n == 50 {
                assert_eq!(distributor.remove(&outlets[3]), Some(3));
                assert_eq!(distributor.remove(&outlets[3]), None);
            }
            distributor.send(&n.to_be_bytes(), 960 * n);
            for (place, receiver) in receivers.iter().enumerate() {
                if place == 3 && n >= 50 {
                    continue;
                }
                receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let length = receiver.recv(&mut buffer).unwrap();
                let mut srtp = srtp::Receiver::<()>::new(&KEY);
                let (plain, ()) = srtp.unprotect(&mut buffer[..length]).unwrap();
                assert_eq!(plain[12..], n.to_be_bytes());
                assert_eq!(plain[2..4], (n as u16).to_be_bytes());
            }
        }
        receivers[3].set_nonblocking(true).unwrap();
        assert!(receivers[3].recv(&mut buffer).is_err());
    }

    #[test]
    fn who_holds_up_a_thread_costs_its_share_packets_that_are_counted_and_the_caller_no_time() {
        let (go_on, gate) = mpsc::channel();
        let gate = Mutex::new(gate);
        let (handed, unsent) = mpsc::channel();
        let distributor = Distributor::new(move |(): &(), packet: Vec<u8>| {
            // After the test it is for nobody.
            let _ = lock(&gate).recv();
            let _ = handed.send(packet);
        });
        let held = outlet(None);
        distributor.add(Arc::clone(&held), ());
        for n in 0..100u32 {
            distributor.send(&n.to_be_bytes(), 960 * n);
        }
        // As many wait as may, and one may be in the thread's hands.
        let counted = || u64::from(held.counts().packets) + held.counts().dropped;
        while counted() < 100 {
            go_on.send(()).unwrap();
            unsent.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        go_on.send(()).unwrap();
        let sent = held.counts().packets as usize;
        assert!((LIMIT..=LIMIT + 1).contains(&sent), "{sent}");
    }
}
