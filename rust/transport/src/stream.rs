//! A TCP connection that carries datagrams, each after its length (RFC 4571): what ICE uses where no UDP passes (RFC 6544).

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use audiomixer_core::lock;
use nix::sys::socket::{setsockopt, sockopt};

use crate::datagram::LONGEST;
use crate::endpoint::Endpoint;
use crate::now::now;

/// Pieces of eight such that are read before it is others' turn.
const AT_ONCE: usize = 8;
/// Bytes that the kernel keeps, twice as many with its bookkeeping: two seconds of audio. Left to itself it would keep
/// minutes for who does not get on, to be heard minutes late.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes that wait here because the kernel has no room.
const BACKLOG: usize = 16 << 10;

/// One connection.
pub struct Stream {
    socket: TcpStream,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// When it was accepted.
    pub since: f64,
    /// Whose it is, once a check that came by it has told.
    pub endpoint: Mutex<Option<Arc<Endpoint>>>,
    /// The beginning of a datagram.
    received: Mutex<Vec<u8>>,
    /// What the kernel had no room for.
    unsent: Mutex<Vec<u8>>,
}

impl Stream {
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER);
        Ok(Self {
            local: socket.local_addr()?,
            remote: socket.peer_addr()?,
            socket,
            since: now(),
            endpoint: Mutex::default(),
            received: Mutex::default(),
            unsent: Mutex::default(),
        })
    }

    /// Sends a datagram, or an error of the kind `WouldBlock` if too much waits already.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let mut unsent = lock(&self.unsent);
        if !unsent.is_empty() {
            self.flush_some(&mut unsent)?;
        }
        let length =
            u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidInput)?.to_be_bytes();
        if unsent.len() + datagram.len() > BACKLOG {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        if unsent.is_empty() {
            let whole = [IoSlice::new(&length), IoSlice::new(datagram)];
            written = match (&self.socket).write_vectored(&whole) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                written => written?,
            };
        }
        unsent.extend(length.iter().chain(datagram).skip(written));
        Ok(())
    }

    /// There may be room again.
    pub fn flush(&self) -> io::Result<()> {
        self.flush_some(&mut lock(&self.unsent))
    }

    fn flush_some(&self, unsent: &mut Vec<u8>) -> io::Result<()> {
        let mut written = 0;
        while written < unsent.len() {
            match (&self.socket).write(&unsent[written..]) {
                Ok(some) => written += some,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        unsent.drain(..written);
        Ok(())
    }

    /// Calls `each` with datagrams that have come, which tells whether it is content; whether there may be more.
    ///
    /// # Errors
    /// It has ended, or what comes is no datagrams, or not what `each` wants.
    pub fn read(&self, mut each: impl FnMut(&mut [u8]) -> bool) -> io::Result<bool> {
        let mut received = lock(&self.received);
        let mut some = [0; 8 * LONGEST];
        for _ in 0..AT_ONCE {
            match (&self.socket).read(&mut some) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => take_apart(&mut received, &some[..count], &mut each)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether nobody knows yet whose it is.
    pub fn is_unknown(&self) -> bool {
        lock(&self.endpoint).is_none()
    }

    /// Whether it is the endpoint's.
    pub fn is_of(&self, endpoint: &Arc<Endpoint>) -> bool {
        lock(&self.endpoint).as_ref().is_some_and(|its| Arc::ptr_eq(its, endpoint))
    }

    /// Ends it.
    pub fn shut_down(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Adds `some` to what has been `received`, and calls `each` with the datagrams that are whole, as long as it is content; what
/// has been `received` is then the beginning of the next.
///
/// # Errors
/// It is no sequence of datagrams, or not of those that are wanted.
pub fn take_apart(
    received: &mut Vec<u8>,
    some: &[u8],
    each: &mut impl FnMut(&mut [u8]) -> bool,
) -> io::Result<()> {
    received.extend(some);
    let mut at = 0;
    while let [high, low, after @ ..] = &mut received[at..] {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(datagram) = after.get_mut(..length) else { break };
        if !each(datagram) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        at += 2 + length;
    }
    received.drain(..at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn datagrams_come_whole_however_they_were_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1usize..400, 1..20),
        ) {
            let bytes: Vec<u8> = datagrams
                .iter()
                .flat_map(|one| (one.len() as u16).to_be_bytes().into_iter().chain(one.iter().copied()))
                .collect();
            let (mut received, mut seen, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (some, next) = rest.split_at(rest.len().min(*cut));
                take_apart(&mut received, some, &mut |one| { seen.push(one.to_vec()); true }).unwrap();
                rest = next;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, datagrams);
            prop_assert!(received.is_empty());
        }
    }

    #[test]
    fn what_is_no_datagram_ends_it() {
        assert!(take_apart(&mut Vec::new(), b"GET / HTTP/1.1\r\n\r\n", &mut |_| true).is_err());
    }

    #[test]
    fn who_does_not_read_loses_what_is_sent_then_and_nothing_is_cut() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Stream::new(listener.accept().unwrap().0).unwrap();
        let sent = (0u32..100_000)
            .take_while(|n| stream.send(&[n.to_be_bytes(); 125].concat()).is_ok())
            .count();
        assert!((100..100_000).contains(&sent), "{sent}");
        let (mut received, mut seen) = (Vec::new(), 0u32);
        let mut some = [0; 65536];
        peer.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        while let Ok(count) = peer.read(&mut some) {
            take_apart(&mut received, &some[..count], &mut |one| {
                assert_eq!(one, [seen.to_be_bytes(); 125].concat());
                seen += 1;
                true
            })
            .unwrap();
            stream.flush().unwrap();
        }
        assert_eq!((seen as usize, received.len()), (sent, 0));
        stream.send(b"again").unwrap();
    }
}
