//! Reads the ports of all connections of a room, once per tick.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use audiomixer_core::lock;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::batch::Batch;
use crate::inlet::Inlet;
use crate::port::Port;

/// So many ports are asked for at once.
const EVENTS: usize = 256;
/// So many datagrams are read from one port at a poll, whatever it is for: who floods it holds up nobody else's…
const AT_LEAST: usize = 64;
/// …and so many more for each of its streams and tick since the last poll: packets of 2.5 ms, each of them thrice.
const PER_STREAM: usize = 24;
/// Seconds of a tick.
const TICK: f64 = 0.02;
/// What was held up for longer is not all made up for at once.
const MOST_TICKS: f64 = 100.0;
/// So many datagrams that are no RTP are handed on from one port at a poll: a peer has few to send, and each takes the
/// event loop's time.
const OTHERS: usize = 8;

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
    /// When it was read last.
    polled: f64,
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
        entries[free] = Some(Entry { port, inlet, tag, polled: f64::NEG_INFINITY });
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
                if let Some(Some(entry)) = entries.get_mut(event.data() as usize) {
                    if event.events().contains(EpollFlags::EPOLLERR) {
                        // It is of something sent earlier (an ICMP message), and would be in the way of what came.
                        let _ = entry.port.0.take_error();
                    }
                    BATCH.with_borrow_mut(|batch| entry.read(now, batch, &mut other));
                }
            }
            if ready < EVENTS {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.0)
    }
}

impl<T> Entry<T> {
    fn read(&mut self, now: f64, batch: &mut Batch, other: &mut impl FnMut(&T, &[u8])) {
        let ticks = ((now - self.polled) / TICK).ceil().clamp(1.0, MOST_TICKS) as usize;
        self.polled = now;
        let mut allowed = AT_LEAST + PER_STREAM * self.inlet.streams() * ticks;
        let mut others = 0;
        loop {
            let count = batch.read(&self.port.0, now);
            for n in 0..count {
                let (datagram, arrival) = batch.get(n);
                if self.inlet.take(datagram, arrival) {
                    continue;
                }
                others += 1;
                if others <= OTHERS {
                    self.inlet.notice();
                    other(&self.tag, datagram);
                } else {
                    self.inlet.leave_out();
                }
            }
            allowed = allowed.saturating_sub(count);
            if count < Batch::SIZE || allowed == 0 {
                return;
            }
        }
    }
}
