//! One port, UDP and TCP, for many connections: sorts what comes by whose it is.
//!
//! A connectivity check is known by the username fragment that it is for and by its integrity, a response by the
//! transaction that it ends. The address of either is the connection's from then on: what else comes from there is its own.
//! Media whose stream is known is believed from any address, as it cannot be forged. All else is of strangers, and dropped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use audiomixer_core::lock;

use crate::consent::Step;
use crate::datagram::Came;
use crate::endpoint::{Asking, Endpoint, Event, What};
use crate::inlet::{Taken, is_rtcp};
use crate::now::now;
use crate::path::Path;
use crate::reader;
use crate::session::Session;
use crate::socket::{Socket, TELLS_ADDRESSES};
use crate::stream::Stream;
use crate::stun::{self, Class, Message, Transaction};
use crate::table::Table;

/// TCP connections of which nobody knows yet whose they are, and of those as many as from one address.
const UNKNOWN: usize = 256;
const UNKNOWN_OF_ONE: usize = 64;
/// Tries to find a number that is free for all protocols.
const TRIES: usize = 16;
/// Bytes of the fixed header of RTP.
const HEADER: usize = 12;
/// A first byte that is of DTLS (RFC 7983).
const DTLS: std::ops::RangeInclusive<u8> = 20..=63;
const MEDIA: std::ops::RangeInclusive<u8> = 128..=191;

/// What has happened beside media, and to whom.
pub(crate) type Other = (Arc<Endpoint>, Event);

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was the other side's.
    Theirs,
    /// Nobody has looked.
    TooMuch,
    /// It was not.
    Not,
}

/// A port.
pub struct Hub {
    sockets: Vec<Arc<Socket>>,
    port: u16,
    table: Mutex<Table>,
    strangers: AtomicU64,
}

impl Hub {
    /// Binds to `addresses`, at `port` or, if that is 0, at any; with TCP if wanted.
    ///
    /// Where there are several addresses of a family, it is bound to every one of this machine, or, where datagrams do not
    /// tell which one they are for, to each.
    pub fn bind(addresses: &[IpAddr], port: u16, tcp: bool) -> io::Result<Arc<Self>> {
        let mut places = Vec::new();
        for (any, is_its) in [
            (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
            (IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::is_ipv6),
        ] {
            let its: Vec<_> = addresses.iter().copied().filter(is_its).collect();
            let one_for_all = its.len() > 1 && TELLS_ADDRESSES;
            places.extend(if one_for_all { vec![any] } else { its });
        }
        let mut bound = Self::bind_all(&places, port, tcp);
        for _ in 1..TRIES {
            if port != 0 || bound.is_ok() {
                break;
            }
            bound = Self::bind_all(&places, port, tcp);
        }
        let (sockets, listeners, port) = bound?;
        let hub = Arc::new(Self { sockets, port, table: Mutex::default(), strangers: 0.into() });
        reader::register(&hub, &hub.sockets, listeners)?;
        Ok(hub)
    }

    fn bind_all(
        places: &[IpAddr],
        mut port: u16,
        tcp: bool,
    ) -> io::Result<(Vec<Arc<Socket>>, Vec<TcpListener>, u16)> {
        let (mut sockets, mut listeners) = (Vec::new(), Vec::new());
        for ip in places {
            let socket = Socket::bind((*ip, port).into())?;
            port = socket.port()?;
            sockets.push(Arc::new(socket));
            if tcp {
                listeners.push(crate::socket::listen((*ip, port).into())?);
            }
        }
        Ok((sockets, listeners, port))
    }

    /// Its number.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Datagrams so far that were nobody's.
    pub fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }

    /// The bytes that the kernel keeps at most of what comes, and of what is sent.
    pub fn buffers(&self) -> io::Result<(usize, usize)> {
        self.sockets.first().map_or(Ok((0, 0)), |socket| socket.buffers())
    }

    /// Has checks for `ufrag` that are made with `password` begin a connection, whose media is `session`'s; all else is
    /// handed to `deliver`, in a thread of its own. `None` if there is one of this name.
    pub fn open(
        &self,
        ufrag: &str,
        password: &str,
        session: Arc<Session>,
        deliver: impl Fn(Vec<Event>) + Send + Sync + 'static,
    ) -> Option<Arc<Endpoint>> {
        let endpoint = Arc::new(Endpoint::new(ufrag, password, session, Box::new(deliver)));
        let table = &mut *self.table();
        if table.by_ufrag.contains_key(ufrag.as_bytes()) {
            return None;
        }
        table.by_ufrag.insert(ufrag.into(), Arc::clone(&endpoint));
        Some(endpoint)
    }

    /// Ends a connection: what still comes for it is a stranger's.
    pub fn close(&self, endpoint: &Arc<Endpoint>) {
        endpoint.fall_silent();
        let table = &mut *self.table();
        if table.by_ufrag.get(&endpoint.ufrag).is_some_and(|other| Arc::ptr_eq(other, endpoint)) {
            table.by_ufrag.remove(&endpoint.ufrag);
        }
        for address in std::mem::take(&mut endpoint.known().addresses) {
            table.by_address.remove(&address);
        }
        for ssrc in std::mem::take(&mut endpoint.known().ssrcs) {
            table.forget_ssrc(ssrc, endpoint);
        }
        table.requests.retain(|_, request| !Arc::ptr_eq(&request.endpoint, endpoint));
        table.streams.retain(|_, stream| {
            if stream.is_of(endpoint) {
                stream.shut_down();
            }
            !stream.is_of(endpoint)
        });
    }

    /// The way from `local` to `remote`; `None` if there is none, as the TCP connection has ended.
    pub fn path(&self, tcp: bool, local: IpAddr, remote: SocketAddr) -> Option<Path> {
        if tcp {
            return self.table().streams.get(&(local, remote)).cloned().map(Path::Tcp);
        }
        self.udp_path(local, remote)
    }

    fn udp_path(&self, local: IpAddr, remote: SocketAddr) -> Option<Path> {
        let its_own = self.sockets.iter().find(|socket| socket.is_at(local));
        let of_its_family =
            || self.sockets.iter().find(|socket| socket.is_ipv4() == remote.is_ipv4());
        let socket = its_own.or_else(of_its_family)?;
        Some(Path::Udp { socket: Arc::clone(socket), source: socket.source(local), remote })
    }

    /// For how many seconds nothing has come from `remote` that only a connection can have made; for ever, if it is nobody's.
    pub fn silence(&self, remote: SocketAddr) -> f64 {
        self.table().by_address.get(&remote).map_or(f64::INFINITY, |owner| now() - owner.heard)
    }

    /// Sends a datagram that is no media. If it is a request, the response will be the endpoint's.
    pub fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        tcp: bool,
        local: IpAddr,
        remote: SocketAddr,
        datagram: &[u8],
    ) -> io::Result<()> {
        let path = self.path(tcp, local, remote).ok_or(io::ErrorKind::NotConnected)?;
        if let Some(request) = Message::parse(datagram).filter(|one| one.class() == Class::Request)
        {
            self.table().expect(request.transaction(), endpoint, remote, false);
        }
        path.send(datagram)
    }

    /// As if a datagram had come by UDP; whom it is handed to, if it is no media. For tests.
    #[doc(hidden)]
    pub fn take_in(
        &self,
        bytes: &mut [u8],
        remote: SocketAddr,
        local: IpAddr,
        at: f64,
    ) -> Vec<(Arc<Endpoint>, Event)> {
        let mut others = Vec::new();
        self.sort(Came { bytes, remote, local, at }, &mut others);
        others
    }

    /// Sorts what has come by UDP.
    pub(crate) fn sort(&self, came: Came<'_>, others: &mut Vec<Other>) {
        let Came { bytes, remote, local, at } = came;
        let is_ours = match bytes.first() {
            Some(0..=3) => self.sort_check(bytes, None, (local, remote), at, others),
            Some(first) if MEDIA.contains(first) => {
                self.sort_media(bytes, (local, remote), at, others)
            }
            Some(first) if DTLS.contains(first) => {
                let owner = self.table().owner(remote);
                owner.is_some_and(|owner| {
                    owner.hand_on(bytes, false, (local, remote), at, others);
                    true
                })
            }
            _ => false,
        };
        if !is_ours {
            self.strangers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sorts what has come by TCP; whether it is somebody's.
    pub(crate) fn sort_stream(
        &self,
        bytes: &mut [u8],
        stream: &Arc<Stream>,
        others: &mut Vec<Other>,
    ) -> bool {
        let (at, addresses) = (now(), (stream.local.ip(), stream.remote));
        let owner = lock(&stream.endpoint).clone();
        match (bytes.first(), owner) {
            (Some(0..=3), owner) => {
                // What is nobody's any more, a response that comes twice say, ends no connection.
                self.sort_check(bytes, Some(stream), addresses, at, others) || owner.is_some()
            }
            (Some(first), Some(owner)) if MEDIA.contains(first) => {
                self.take(&owner, bytes, at);
                true
            }
            (Some(_), Some(owner)) => {
                owner.hand_on(bytes, true, addresses, at, others);
                true
            }
            _ => false,
        }
    }

    /// Whose check it is, or whose response to one.
    fn sort_check(
        &self,
        bytes: &[u8],
        stream: Option<&Arc<Stream>>,
        addresses: (IpAddr, SocketAddr),
        at: f64,
        others: &mut Vec<Other>,
    ) -> bool {
        let Some(message) = Message::parse(bytes) else { return false };
        let (local, remote) = addresses;
        let endpoint = match message.class() {
            Class::Request => {
                let named =
                    message.ufrag().and_then(|ufrag| self.table().by_ufrag.get(ufrag).cloned());
                let Some(endpoint) = named.filter(|its| message.is_authentic(&its.password)) else {
                    return false;
                };
                endpoint.inlet.prove();
                match stream {
                    Some(stream) => self.table().adopt(stream, &endpoint),
                    None => self.table().learn(remote, &endpoint, at),
                }
                if endpoint.is_settled(stream.is_some(), local, remote) {
                    let answer = stun::response(message.transaction(), remote, &endpoint.password);
                    let path = match stream {
                        Some(stream) => Some(Path::Tcp(Arc::clone(stream))),
                        None => self.udp_path(local, remote),
                    };
                    // A lost answer is asked for again.
                    let _ = path.map_or(Ok(()), |path| path.send(&answer));
                    return true;
                }
                endpoint
            }
            Class::Success | Class::Error => {
                // One from elsewhere is no answer, and does not keep the right one away; nor does one that comes again.
                let table = &mut *self.table();
                let transaction = message.transaction();
                let Some(request) =
                    table.requests.get(&transaction).filter(|its| its.remote == remote)
                else {
                    return false;
                };
                let (endpoint, is_ours) = (Arc::clone(&request.endpoint), request.is_ours);
                if is_ours {
                    let mut asking = endpoint.asking();
                    let Some(Asking { settled, consent }) = asking.as_mut() else { return false };
                    // Consent is what only the other side can give.
                    if message.class() != Class::Success
                        || !message.is_authentic(settled.password.as_bytes())
                    {
                        return false;
                    }
                    consent.answer(at);
                    table.requests.remove(&transaction);
                    table.hear(remote, at);
                    return true;
                }
                table.requests.remove(&transaction);
                if message.class() == Class::Success && stream.is_none() {
                    table.learn(remote, &endpoint, at);
                }
                endpoint
            }
            // It keeps a router's table fresh, and asks for nothing.
            Class::Indication => {
                return self.table().by_address.contains_key(&remote) || stream.is_some();
            }
        };
        endpoint.hand_on(bytes, stream.is_some(), addresses, at, others);
        true
    }

    fn sort_media(
        &self,
        bytes: &mut [u8],
        addresses: (IpAddr, SocketAddr),
        at: f64,
        others: &mut Vec<Other>,
    ) -> bool {
        let (local, remote) = addresses;
        let owner = self.table().owner(remote);
        if let Some(owner) = &owner {
            match self.take(owner, bytes, at) {
                Outcome::Theirs => {
                    self.table().hear(remote, at);
                    Self::tell_move(owner, (local, remote), at, others);
                    return true;
                }
                Outcome::TooMuch => return true,
                Outcome::Not => {}
            }
        }
        // Its sender may have moved, or the address be another's by now.
        if bytes.len() < HEADER {
            return false;
        }
        // Of RTCP, it comes earlier.
        let place = if is_rtcp(bytes) { 4 } else { 8 };
        let ssrc = u32::from_be_bytes(bytes[place..place + 4].try_into().expect("four bytes"));
        let namesakes = self.table().by_ssrc.get(&ssrc).cloned().unwrap_or_default();
        for endpoint in namesakes {
            let is_owner = owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, &endpoint));
            if !is_owner && self.take(&endpoint, bytes, at) == Outcome::Theirs {
                self.table().take_over(remote, &endpoint, at);
                Self::tell_move(&endpoint, (local, remote), at, others);
                return true;
            }
        }
        false
    }

    /// Media of an endpoint has come from `remote`: whoever sends to it may have to follow.
    fn tell_move(
        endpoint: &Arc<Endpoint>,
        (local, remote): (IpAddr, SocketAddr),
        at: f64,
        others: &mut Vec<Other>,
    ) {
        if endpoint.moves_to(remote, at) {
            let event = Event { tcp: false, local, remote, what: What::Moved };
            others.push((Arc::clone(endpoint), event));
        }
    }

    /// Takes in a packet, if it is the endpoint's.
    fn take(&self, endpoint: &Arc<Endpoint>, bytes: &mut [u8], at: f64) -> Outcome {
        if !endpoint.may_send(at) {
            endpoint.inlet.leave_out();
            return Outcome::TooMuch;
        }
        match endpoint.inlet.take(bytes, at) {
            Taken::Authentic { ssrc } => {
                endpoint.has_sent();
                if !endpoint.known().is_known.contains(&ssrc) {
                    self.table().know(ssrc, endpoint);
                }
                Outcome::Theirs
            }
            Taken::Refused | Taken::Not => Outcome::Not,
        }
    }

    /// Sends reports to those who have come about, and asks whether they are still there; adds those who are not to `others`.
    pub(crate) fn go_round(&self, others: &mut Vec<Other>) {
        let at = now();
        let mut due = Vec::new();
        for endpoint in self.table().by_ufrag.values() {
            let signs = endpoint.inlet.authentic();
            let mut asking = endpoint.asking();
            let Some(its) = asking.as_mut() else { continue };
            due.push((Arc::clone(endpoint), its.consent.step(at, signs)));
        }
        for (endpoint, step) in due {
            // Without a path, it has just ended.
            endpoint.session.report();
            if step == Step::Nothing {
                continue;
            }
            let asking = endpoint.asking();
            let Some(Asking { settled, .. }) = asking.as_ref() else { continue };
            let (tcp, local, remote) = (settled.tcp, settled.local, settled.remote);
            if step == Step::GiveUp {
                let event = Event { tcp, local, remote, what: What::Gone };
                others.push((Arc::clone(&endpoint), event));
                continue;
            }
            let mut transaction = Transaction::default();
            if getrandom::fill(&mut transaction).is_err() {
                continue;
            }
            let (username, password) = (&settled.username, settled.password.as_bytes());
            let request = stun::request(transaction, username, settled.role, password);
            drop(asking);
            self.table().expect(transaction, &endpoint, remote, true);
            // What cannot be sent is not answered.
            let _ = self.path(tcp, local, remote).map_or(Ok(()), |path| path.send(&request));
        }
    }

    /// A TCP connection has come from there: whether it may stay.
    pub(crate) fn greet(&self, from: IpAddr) -> bool {
        let unknown = &mut self.table().unknown;
        let others: usize = unknown.values().sum();
        let its = unknown.get(&from).copied().unwrap_or(0);
        let may_stay = others < UNKNOWN && its < UNKNOWN_OF_ONE;
        if may_stay {
            unknown.insert(from, its + 1);
        }
        may_stay
    }

    /// It could not, or is known now.
    pub(crate) fn dismiss(&self, from: IpAddr) {
        self.table().dismiss(from);
    }

    /// A TCP connection has ended.
    pub(crate) fn part(&self, stream: &Arc<Stream>) {
        let table = &mut *self.table();
        if stream.is_unknown() {
            table.dismiss(stream.remote.ip());
        }
        let ways = (stream.local.ip(), stream.remote);
        if table.streams.get(&ways).is_some_and(|other| Arc::ptr_eq(other, stream)) {
            table.streams.remove(&ways);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        reader::forget();
    }
}

#[cfg(test)]
mod tests;
