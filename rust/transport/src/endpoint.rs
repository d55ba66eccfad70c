//! One connection of those that share a hub: whose datagrams are its own, and what becomes of those that are no media.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use audiomixer_core::lock;

use crate::consent::Consent;
use crate::hub::Other;
use crate::inlet::Inlet;
use crate::now::now;
use crate::session::Session;
use crate::stun::Role;

/// Seconds of a tick.
const TICK: f64 = 0.02;
/// So many packets of media are taken in of a connection in a tick…
const AT_LEAST: usize = 64;
/// …and so many more for each of its streams: packets of 2.5 ms, each of them thrice.
const PER_STREAM: usize = 24;
/// So many datagrams that are no media are handed on in a tick: a peer has few to send, and each takes the event loop's
/// time.
const OTHERS: usize = 8;
/// Seconds between two moves that are told…
const MOVED: f64 = 0.1;
/// …and until one is told again that nobody has followed.
const MOVED_AGAIN: f64 = 1.0;

/// What happens to a connection beside media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether by TCP.
    pub tcp: bool,
    /// The address of ours.
    pub local: IpAddr,
    /// And theirs.
    pub remote: SocketAddr,
    /// What it is.
    pub what: What,
}

/// What may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A datagram has come: STUN or DTLS.
    Datagram(Vec<u8>),
    /// Media comes from there now.
    Moved,
    /// Nobody is there any more.
    Gone,
}

/// What ICE has agreed on.
pub struct Settled {
    /// Which way it goes.
    pub tcp: bool,
    /// The address of ours.
    pub local: IpAddr,
    /// And theirs.
    pub remote: SocketAddr,
    /// That of checks to the other side: its username fragment, a colon, and ours.
    pub username: String,
    /// What they are made with.
    pub password: String,
    /// Who decides.
    pub role: Role,
}

pub(crate) struct Asking {
    pub settled: Settled,
    pub consent: Consent,
}

type Deliver = Box<dyn Fn(Vec<Event>) + Send + Sync>;

/// A connection.
pub struct Endpoint {
    /// By which checks are known to be for it.
    pub(crate) ufrag: Vec<u8>,
    /// By which they are known to be the other side's.
    pub(crate) password: Vec<u8>,
    pub(crate) inlet: Arc<Inlet>,
    pub(crate) session: Arc<Session>,
    deliver: Mutex<Option<Arc<Deliver>>>,
    budget: Mutex<Budget>,
    known: Mutex<Known>,
    asking: Mutex<Option<Asking>>,
}

/// What a hub knows it by.
#[derive(Default)]
pub(crate) struct Known {
    pub addresses: VecDeque<SocketAddr>,
    /// The oldest first.
    pub ssrcs: VecDeque<u32>,
    /// The same, to be looked up.
    pub is_known: HashSet<u32>,
    /// Where it was last told to have moved to, and when.
    pub moved: Option<(SocketAddr, f64)>,
}

/// What has come in the current tick.
#[derive(Default)]
struct Budget {
    tick: i64,
    media: usize,
    others: usize,
}

impl Endpoint {
    pub(crate) fn new(
        ufrag: &str,
        password: &str,
        session: Arc<Session>,
        deliver: Deliver,
    ) -> Self {
        Self {
            ufrag: ufrag.into(),
            password: password.into(),
            inlet: Arc::clone(&session.inlet),
            session,
            deliver: Mutex::new(Some(Arc::new(deliver))),
            budget: Mutex::default(),
            known: Mutex::default(),
            asking: Mutex::default(),
        }
    }

    /// Tells what has happened.
    pub(crate) fn deliver(&self, events: Vec<Event>) {
        // Nobody is to wait for what that takes.
        let deliver = lock(&self.deliver).clone();
        if let Some(deliver) = deliver {
            deliver(events);
        }
    }

    /// Sees from now on that the other side stays there, and answers its own checks from there; `None`: somebody else does.
    pub fn settle(&self, settled: Option<Settled>) {
        let signs = self.inlet.authentic();
        let seed = getrandom::u32().unwrap_or_default();
        *self.asking() =
            settled.map(|settled| Asking { settled, consent: Consent::new(now(), signs, seed) });
    }

    pub(crate) fn asking(&self) -> MutexGuard<'_, Option<Asking>> {
        lock(&self.asking)
    }

    /// Whether checks of this way have nothing new to say.
    pub(crate) fn is_settled(&self, tcp: bool, local: IpAddr, remote: SocketAddr) -> bool {
        let asking = self.asking();
        asking.as_ref().is_some_and(|Asking { settled: its, .. }| {
            (its.tcp, its.local, its.remote) == (tcp, local, remote)
        })
    }

    /// Whether it is news that media comes from `remote`, which is told a few times a second at most.
    pub(crate) fn moves_to(&self, remote: SocketAddr, at: f64) -> bool {
        let is_elsewhere = self
            .asking()
            .as_ref()
            .is_some_and(|its| its.settled.tcp || its.settled.remote != remote);
        if !is_elsewhere {
            return false;
        }
        let moved = &mut self.known().moved;
        let is_news = moved.is_none_or(|(before, when)| {
            at - when > if before == remote { MOVED_AGAIN } else { MOVED }
        });
        if is_news {
            *moved = Some((remote, at));
        }
        is_news
    }

    /// Tells nothing any more, and asks for nothing.
    pub(crate) fn fall_silent(&self) {
        lock(&self.deliver).take();
        self.asking().take();
    }

    /// Whether it has ended.
    pub(crate) fn is_silent(&self) -> bool {
        lock(&self.deliver).is_none()
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

    /// Adds a datagram to `others`, unless there are too many.
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
        let what = What::Datagram(bytes.to_vec());
        others.push((self, Event { tcp, local, remote, what }));
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
