//! A UDP socket that many connections share, where datagrams come one at a time, and without the time at which they came: it
//! counts as that of reading. Each address of this machine has a socket of its own.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;

use audiomixer_core::lock;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use crate::datagram::{Came, LONGEST};
use crate::now::now;

/// Whether one socket can have several addresses.
pub const TELLS_ADDRESSES: bool = false;
/// Bytes asked for; the system gives what it may.
const BUFFERS: [usize; 3] = [8 << 20, 2 << 20, 512 << 10];
/// Datagrams that are read before somebody else's turn, however many there are.
const AT_ONCE: usize = 2048;

/// A UDP socket, which never blocks.
pub struct Socket {
    socket: UdpSocket,
    address: IpAddr,
    /// Held by whoever reads: another one who comes meanwhile finds everything taken in.
    reading: Mutex<[u8; LONGEST]>,
}

impl Socket {
    /// Binds to `address`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        // What is too much is refused altogether.
        let _ = BUFFERS.iter().find(|size| setsockopt(&socket, sockopt::RcvBuf, size).is_ok());
        let _ = BUFFERS.iter().find(|size| setsockopt(&socket, sockopt::SndBuf, size).is_ok());
        Ok(Self { socket, address: address.ip(), reading: Mutex::new([0; LONGEST]) })
    }

    /// Whether it sends from `local`.
    pub fn is_at(&self, local: IpAddr) -> bool {
        self.address == local
    }

    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// It need not be said.
    pub fn source(&self, _: IpAddr) -> Option<IpAddr> {
        None
    }

    /// The bytes that the kernel keeps at most while nobody reads, and while nothing can be sent.
    pub fn buffers(&self) -> io::Result<(usize, usize)> {
        Ok((getsockopt(&self.socket, sockopt::RcvBuf)?, getsockopt(&self.socket, sockopt::SndBuf)?))
    }

    /// Calls `each` with what there is; whether there may be more.
    pub fn read(&self, mut each: impl FnMut(Came<'_>)) -> bool {
        let mut buffer = lock(&self.reading);
        for _ in 0..AT_ONCE {
            match self.socket.recv_from(&mut *buffer) {
                Ok((length, remote)) => {
                    let (bytes, local) = (&mut buffer[..length], self.address);
                    each(Came { bytes, remote, local, at: now() });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // It is of something sent earlier (an ICMP message).
                Err(_) => {}
            }
        }
        true
    }

    /// Sends datagrams; calls `lost` with the place of each that the kernel does not take.
    pub fn send(
        &self,
        _: Option<IpAddr>,
        datagrams: &[(&[u8], SocketAddr)],
        mut lost: impl FnMut(usize),
    ) {
        for (place, (datagram, remote)) in datagrams.iter().enumerate() {
            if self.socket.send_to(datagram, remote).is_err() {
                lost(place);
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A socket that takes TCP connections.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
