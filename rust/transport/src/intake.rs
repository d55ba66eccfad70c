//! Reads the ports of all connections of a room, once per tick.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::batch::Batch;
use crate::inlet::Inlet;
use crate::port::Port;

/// So many ports are asked for at once.
const EVENTS: usize = 256;
/// So many batches are read from one port at a tick: who floods it holds up nobody else's.
const BATCHES: usize = 8;

thread_local! {
    /// One for each of the few threads that read.
    static BATCH: RefCell<Batch> = Batch::new().into();
}

/// The ports that are read together, their inlets, and for each something, `T`, by which the caller knows what else it
/// receives.
pub struct Intake<T>(Mutex<State<T>>);

struct State<T> {
    /// While there is anything to read.
    epoll: Option<Epoll>,
    /// By the number that the kernel knows a port by.
    entries: Vec<Option<Entry<T>>>,
    events: Vec<EpollEvent>,
}

impl<T> Default for Intake<T> {
    fn default() -> Self {
        let events = vec![EpollEvent::empty(); EVENTS];
        Self(Mutex::new(State { epoll: None, entries: Vec::new(), events }))
    }
}

struct Entry<T> {
    port: Arc<Port>,
    inlet: Arc<Inlet>,
    tag: T,
}

impl<T> Intake<T> {
    /// Begins to read `port`, for `inlet`.
    pub fn add(&self, port: Arc<Port>, inlet: Arc<Inlet>, tag: T) -> io::Result<()> {
        let State { epoll, entries, .. } = &mut *self.state();
        let epoll = match epoll {
            Some(epoll) => epoll,
            None => epoll.insert(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?),
        };
        let free = entries.iter().position(Option::is_none).unwrap_or(entries.len());
        epoll.add(&port.0, EpollEvent::new(EpollFlags::EPOLLIN, free as u64))?;
        if free == entries.len() {
            entries.push(None);
        }
        entries[free] = Some(Entry { port, inlet, tag });
        Ok(())
    }

    /// Ceases to read an inlet's port; what it had.
    pub fn remove(&self, inlet: &Arc<Inlet>) -> Option<T> {
        let State { epoll, entries, .. } = &mut *self.state();
        let is_its = |entry: &Entry<T>| Arc::ptr_eq(&entry.inlet, inlet);
        let entry = entries.iter_mut().find(|entry| entry.as_ref().is_some_and(is_its))?.take()?;
        if let Some(epoll) = epoll {
            // Unless somebody else holds it, it is about to be closed.
            let _ = epoll.delete(&entry.port.0);
        }
        if entries.iter().all(Option::is_none) {
            entries.clear();
            *epoll = None;
        }
        Some(entry.tag)
    }

    /// Takes in what has come until `now` (seconds); calls `other` with each datagram that is no RTP.
    ///
    /// After an error there is nothing: the other side's port may be closed, which ICE will notice.
    pub fn poll(&self, now: f64, mut other: impl FnMut(&T, &[u8])) {
        let State { epoll, entries, events } = &mut *self.state();
        let Some(epoll) = epoll else { return };
        // Each port is read once: what is ready after that waits for the next tick.
        for _ in 0..=entries.len() / EVENTS {
            let ready = epoll.wait(events, EpollTimeout::ZERO).unwrap_or(0);
            for event in &events[..ready] {
                if let Some(Some(entry)) = entries.get(event.data() as usize) {
                    BATCH.with_borrow_mut(|batch| entry.read(now, batch, &mut other));
                }
            }
            if ready < EVENTS {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().expect("nothing panics while it reads")
    }
}

impl<T> Entry<T> {
    fn read(&self, now: f64, batch: &mut Batch, other: &mut impl FnMut(&T, &[u8])) {
        for _ in 0..BATCHES {
            let count = batch.read(&self.port.0, now);
            for n in 0..count {
                let (datagram, arrival) = batch.get(n);
                if !self.inlet.take(datagram, arrival) {
                    self.inlet.notice();
                    other(&self.tag, datagram);
                }
            }
            if count < Batch::SIZE {
                return;
            }
        }
    }
}
