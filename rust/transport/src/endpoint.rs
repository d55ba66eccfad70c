//! One connection of those that share a hub: whose datagrams are its own, and what becomes of those that are no media.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use audiomixer_core::lock;

use crate::hub::Other;
use crate::inlet::Inlet;

/// Seconds of a tick.
const TICK: f64 = 0.02;
/// So many packets of media are taken in of a connection in a tick…
const AT_LEAST: usize = 64;
/// …and so many more for each of its streams: packets of 2.5 ms, each of them thrice.
const PER_STREAM: usize = 24;
/// So many datagrams that are no media are handed on in a tick: a peer has few to send, and each takes the event loop's
/// time.
const OTHERS: usize = 8;

/// A datagram that is no media: STUN, DTLS, RTCP. An empty one tells that media comes from a new address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Whether it came by TCP.
    pub tcp: bool,
    /// The address of ours that it came to.
    pub local: IpAddr,
    /// Where from.
    pub remote: SocketAddr,
    /// What it is.
    pub bytes: Vec<u8>,
}

type Deliver = Box<dyn Fn(Vec<Datagram>) + Send + Sync>;

/// A connection.
pub struct Endpoint {
    /// By which checks are known to be for it.
    pub(crate) ufrag: Vec<u8>,
    /// By which they are known to be the other side's.
    pub(crate) password: Vec<u8>,
    pub(crate) inlet: Arc<Inlet>,
    deliver: Mutex<Option<Arc<Deliver>>>,
    budget: Mutex<Budget>,
    known: Mutex<Known>,
}

/// What a hub knows it by.
#[derive(Default)]
pub(crate) struct Known {
    pub addresses: VecDeque<SocketAddr>,
    pub ssrcs: VecDeque<u32>,
}

/// What has come in the current tick.
#[derive(Default)]
struct Budget {
    tick: i64,
    media: usize,
    others: usize,
}

impl Endpoint {
    pub(crate) fn new(ufrag: &str, password: &str, inlet: Arc<Inlet>, deliver: Deliver) -> Self {
        Self {
            ufrag: ufrag.into(),
            password: password.into(),
            inlet,
            deliver: Mutex::new(Some(Arc::new(deliver))),
            budget: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// Hands datagrams on.
    pub(crate) fn deliver(&self, datagrams: Vec<Datagram>) {
        // Nobody is to wait for what that takes.
        let deliver = lock(&self.deliver).clone();
        if let Some(deliver) = deliver {
            deliver(datagrams);
        }
    }

    /// Hands nothing on any more.
    pub(crate) fn fall_silent(&self) {
        lock(&self.deliver).take();
    }

    /// Whether one more packet that came `at` seconds may be taken in.
    pub(crate) fn may_send(&self, at: f64) -> bool {
        let mut budget = lock(&self.budget);
        budget.turn_to(at);
        budget.media < AT_LEAST + PER_STREAM * self.inlet.streams()
    }

    /// One was, and was authentic: what others send in its name does not count.
    pub(crate) fn has_sent(&self) {
        lock(&self.budget).media += 1;
    }

    /// Adds a datagram that is no media to `others`, unless there are too many.
    pub(crate) fn hand_on(
        self: Arc<Self>,
        bytes: &[u8],
        tcp: bool,
        (local, remote): (IpAddr, SocketAddr),
        at: f64,
        others: &mut Vec<Other>,
    ) {
        let is_one_too_many = {
            let mut budget = lock(&self.budget);
            budget.turn_to(at);
            budget.others += 1;
            budget.others > OTHERS
        };
        if is_one_too_many {
            self.inlet.leave_out();
            return;
        }
        self.inlet.notice();
        others.push((self, Datagram { tcp, local, remote, bytes: bytes.to_vec() }));
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

impl Budget {
    fn turn_to(&mut self, at: f64) {
        let tick = (at / TICK) as i64;
        if tick > self.tick {
            *self = Self { tick, ..Self::default() };
        }
    }
}
