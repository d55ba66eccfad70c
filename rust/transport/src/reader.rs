//! The thread that reads the ports of all hubs.
//!
//! It sleeps until something comes, and then a little more: what comes meanwhile is read in one go. Whoever is about to mix
//! has all ports read at once ([`read_all`]), so that what has come by then is in the mix.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use audiomixer_core::lock;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::hub::{Hub, Other};
use crate::now::now;
use crate::socket::Socket;
use crate::stream::Stream;

/// What comes is read so often at most.
const PAUSE: Duration = Duration::from_millis(2);
/// It is looked so often whether anybody is to be asked for consent, or does not tell whose a TCP connection is…
const ROUND: Duration = Duration::from_millis(250);
/// …for so many seconds.
const PATIENCE: f64 = 10.0;
const EVENTS: usize = 256;
/// TCP connections that are taken before it is others' turn.
const ACCEPTED: usize = 64;
const WAKE: Token = Token(0);

struct Reader {
    registry: Registry,
    waker: Waker,
    sources: Mutex<HashMap<Token, Source>>,
    next: AtomicUsize,
    /// What is to be handed on.
    others: Mutex<Vec<Other>>,
}

#[derive(Clone)]
enum Source {
    Socket(Weak<Hub>, Arc<Socket>),
    Listener(Weak<Hub>, Arc<TcpListener>),
    Stream(Weak<Hub>, Arc<Stream>),
}

impl Source {
    fn hub(&self) -> &Weak<Hub> {
        match self {
            Self::Socket(hub, _) | Self::Listener(hub, _) | Self::Stream(hub, _) => hub,
        }
    }
}

/// Reads a hub's sockets from now on.
pub fn register(
    hub: &Arc<Hub>,
    sockets: &[Arc<Socket>],
    listeners: Vec<TcpListener>,
) -> io::Result<()> {
    let reader = reader()?;
    for socket in sockets {
        reader.add(Source::Socket(Arc::downgrade(hub), Arc::clone(socket)))?;
    }
    for listener in listeners {
        reader.add(Source::Listener(Arc::downgrade(hub), Arc::new(listener)))?;
    }
    Ok(())
}

/// Ceases to read a hub, which is no more.
pub fn forget() {
    if let Ok(reader) = reader() {
        lock(&reader.sources).retain(|_, source| source.hub().strong_count() > 0);
    }
}

/// Reads all UDP ports now.
pub fn read_all() {
    let Some(Ok(reader)) = READER.get() else { return };
    // A hub that ends while it is read must not find the sources locked.
    let sources: Vec<_> = lock(&reader.sources).values().cloned().collect();
    for source in sources {
        if let Source::Socket(hub, socket) = source
            && let Some(hub) = hub.upgrade()
        {
            reader.read(&hub, &socket);
        }
    }
    if !lock(&reader.others).is_empty() {
        let _ = reader.waker.wake();
    }
}

static READER: OnceLock<Result<Arc<Reader>, io::ErrorKind>> = OnceLock::new();

fn reader() -> io::Result<&'static Arc<Reader>> {
    let made = READER.get_or_init(|| Reader::start().map_err(|error| error.kind()));
    made.as_ref().map_err(|kind| (*kind).into())
}

impl Reader {
    fn start() -> io::Result<Arc<Self>> {
        let poll = Poll::new()?;
        let reader = Arc::new(Self {
            registry: poll.registry().try_clone()?,
            waker: Waker::new(poll.registry(), WAKE)?,
            sources: Mutex::default(),
            next: 1.into(),
            others: Mutex::default(),
        });
        let its = Arc::clone(&reader);
        thread::Builder::new().name("hub".into()).spawn(move || its.run(poll))?;
        Ok(reader)
    }

    fn add(&self, source: Source) -> io::Result<()> {
        let token = Token(self.next.fetch_add(1, Ordering::Relaxed));
        let (fd, interest) = match &source {
            Source::Socket(_, socket) => (socket.as_raw_fd(), Interest::READABLE),
            Source::Listener(_, listener) => (listener.as_raw_fd(), Interest::READABLE),
            Source::Stream(_, stream) => {
                (stream.as_raw_fd(), Interest::READABLE | Interest::WRITABLE)
            }
        };
        // It may be ready as soon as it is registered.
        lock(&self.sources).insert(token, source);
        self.registry.register(&mut SourceFd(&fd), token, interest).inspect_err(|_| {
            lock(&self.sources).remove(&token);
        })
    }

    fn run(&self, mut poll: Poll) {
        let mut events = Events::with_capacity(EVENTS);
        let (mut again, mut last_round) = (Vec::new(), now());
        loop {
            let timeout = if again.is_empty() { ROUND } else { Duration::ZERO };
            if poll.poll(&mut events, Some(timeout)).is_err() {
                continue; // It was interrupted.
            }
            // The others need the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let unfinished = std::mem::take(&mut again);
                for token in unfinished.into_iter().chain(events.iter().map(Event::token)) {
                    if self.serve(token) {
                        again.push(token);
                    }
                }
                if now() - last_round > ROUND.as_secs_f64() {
                    last_round = now();
                    self.go_round();
                }
                self.hand_on();
            }));
            thread::sleep(PAUSE);
        }
    }

    /// Reads what there is; whether there may be more.
    fn serve(&self, token: Token) -> bool {
        let Some(source) = lock(&self.sources).get(&token).cloned() else { return false };
        let Some(hub) = source.hub().upgrade() else { return false };
        match source {
            Source::Socket(_, socket) => self.read(&hub, &socket),
            Source::Listener(_, listener) => self.accept(&hub, &listener),
            Source::Stream(_, stream) => {
                let mut others = Vec::new();
                let read = stream.read(|bytes| hub.sort_stream(bytes, &stream, &mut others));
                lock(&self.others).append(&mut others);
                let flushed = stream.flush();
                match read.and_then(|more| flushed.map(|()| more)) {
                    Ok(more) => more,
                    Err(_) => {
                        self.end(token, &hub, &stream);
                        false
                    }
                }
            }
        }
    }

    fn read(&self, hub: &Hub, socket: &Socket) -> bool {
        let mut others = Vec::new();
        let more = socket.read(|came| hub.sort(came, &mut others));
        if !others.is_empty() {
            lock(&self.others).append(&mut others);
        }
        more
    }

    fn accept(&self, hub: &Arc<Hub>, listener: &TcpListener) -> bool {
        for _ in 0..ACCEPTED {
            let (socket, remote) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // As many files are open as may be, say: it is tried again, as nothing tells when there is room.
                Err(_) => return true,
            };
            if !hub.greet(remote.ip()) {
                continue;
            }
            let added = Stream::new(socket)
                .and_then(|stream| self.add(Source::Stream(Arc::downgrade(hub), Arc::new(stream))));
            if added.is_err() {
                hub.dismiss(remote.ip());
            }
        }
        true
    }

    fn end(&self, token: Token, hub: &Hub, stream: &Arc<Stream>) {
        stream.shut_down();
        hub.part(stream);
        lock(&self.sources).remove(&token);
    }

    /// Does what is to be done now and then.
    fn go_round(&self) {
        let hubs: Vec<_> = lock(&self.sources)
            .values()
            .filter_map(|source| match source {
                Source::Socket(hub, _) => hub.upgrade(),
                _ => None,
            })
            .collect();
        let mut others = Vec::new();
        for hub in hubs {
            hub.go_round(&mut others);
        }
        lock(&self.others).append(&mut others);
        self.sweep();
    }

    /// Ends TCP connections that have not told whose they are.
    fn sweep(&self) {
        let late: Vec<_> = lock(&self.sources)
            .iter()
            .filter_map(|(token, source)| match source {
                Source::Stream(hub, stream) => Some((*token, hub.clone(), Arc::clone(stream))),
                _ => None,
            })
            .filter(|(_, _, stream)| stream.is_unknown() && now() - stream.since > PATIENCE)
            .collect();
        for (token, hub, stream) in late {
            // A hub may end here: it must not find the sources locked.
            if let Some(hub) = hub.upgrade() {
                self.end(token, &hub, &stream);
            }
        }
    }

    /// Hands on what is no media, all of an endpoint's at once.
    fn hand_on(&self) {
        let mut others = std::mem::take(&mut *lock(&self.others));
        // The order of an endpoint's own stays.
        others.sort_by_key(|(endpoint, _)| Arc::as_ptr(endpoint) as usize);
        let mut others = others.into_iter().peekable();
        while let Some((endpoint, first)) = others.next() {
            let mut its = vec![first];
            while let Some((_, one)) = others.next_if(|(next, _)| Arc::ptr_eq(next, &endpoint)) {
                its.push(one);
            }
            // Whoever panics has lost a few datagrams; the others have not.
            let _ = catch_unwind(AssertUnwindSafe(|| endpoint.deliver(its)));
        }
    }
}
