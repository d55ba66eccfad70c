//! A UDP socket that many connections share: reads several datagrams in one system call, with the addresses that they are
//! from and for, and with the times at which the kernel got them.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;

use audiomixer_core::lock;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockFlag,
    SockType, SockaddrStorage, bind, recvmmsg, sendmmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::datagram::{Came, LONGEST};
use crate::now::now;

/// Whether one socket can have several addresses.
pub const TELLS_ADDRESSES: bool = true;
/// Bytes asked for: a second of two hundred streams comes in, and a packet for each of thousands of listeners goes out.
const BUFFER: usize = 8 << 20;
/// Datagrams that are read, or sent, at once.
const BATCH: usize = 32;
/// …and before somebody else's turn, however many there are.
const AT_ONCE: usize = 64 * BATCH;
/// TCP connections that wait to be taken.
const WAITING: i32 = 256;

/// A UDP socket, which never blocks.
pub struct Socket {
    socket: UdpSocket,
    is_ipv4: bool,
    /// What it is bound to; `None` if that is every address of its family.
    address: Option<IpAddr>,
    /// Held by whoever reads: another one who comes meanwhile finds everything taken in.
    reading: Mutex<()>,
}

impl Socket {
    /// Binds to `address`, or to every one of its family.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Datagram, flags, None)?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        if address.is_ipv4() {
            setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        // The first of each needs a privilege, and is not bounded by `net.core.rmem_max` and `wmem_max`.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &BUFFER)
            .or_else(|_| setsockopt(&fd, sockopt::RcvBuf, &BUFFER));
        let _ = setsockopt(&fd, sockopt::SndBufForce, &BUFFER)
            .or_else(|_| setsockopt(&fd, sockopt::SndBuf, &BUFFER));
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        let socket = UdpSocket::from(fd);
        let is_ipv4 = address.is_ipv4();
        let address = Some(address.ip()).filter(|ip| !ip.is_unspecified());
        Ok(Self { socket, is_ipv4, address, reading: Mutex::default() })
    }

    /// Whether it sends from `local`.
    pub fn is_at(&self, local: IpAddr) -> bool {
        self.is_ipv4 == local.is_ipv4() && self.address.is_none_or(|its| its == local)
    }

    pub fn is_ipv4(&self) -> bool {
        self.is_ipv4
    }

    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// The address of ours that datagrams are from, where it has to be said: by a socket that has several.
    pub fn source(&self, local: IpAddr) -> Option<IpAddr> {
        if self.address.is_some() { None } else { Some(local) }
    }

    /// The bytes that the kernel keeps at most while nobody reads, and while nothing can be sent; of its own bookkeeping as
    /// well, some 800 for a packet of audio.
    pub fn buffers(&self) -> io::Result<(usize, usize)> {
        use nix::sys::socket::getsockopt;
        Ok((getsockopt(&self.socket, sockopt::RcvBuf)?, getsockopt(&self.socket, sockopt::SndBuf)?))
    }

    /// Calls `each` with what there is; whether there may be more.
    pub fn read(&self, mut each: impl FnMut(Came<'_>)) -> bool {
        thread_local! {
            /// For each of the few threads that read: the kernel notes how much there was to say of a datagram, which is not
            /// the same for both families, and nix would leave no room for more.
            static ROOMS: RefCell<[Batch; 2]> = [
                Batch::new(cmsg_space!(TimeSpec, in_pktinfo)),
                Batch::new(cmsg_space!(TimeSpec, in6_pktinfo)),
            ].into();
        }
        let _reading = lock(&self.reading);
        ROOMS.with_borrow_mut(|[v4, v6]| {
            let batch = if self.is_ipv4 { v4 } else { v6 };
            for _ in 0..AT_ONCE / BATCH {
                let count = batch.read(self);
                for n in 0..count {
                    batch.get(n).map(&mut each);
                }
                if count < BATCH {
                    return false;
                }
            }
            true
        })
    }
}

impl Socket {
    /// Sends datagrams from one address of ours; calls `lost` with the place of each that the kernel does not take.
    pub fn send(
        &self,
        source: Option<IpAddr>,
        datagrams: &[(&[u8], SocketAddr)],
        mut lost: impl FnMut(usize),
    ) {
        thread_local! {
            /// For datagrams without a source, with one of IPv4, and with one of IPv6.
            static HEADERS: RefCell<[MultiHeaders<SockaddrStorage>; 3]> = [
                MultiHeaders::preallocate(BATCH, None),
                MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in_pktinfo))),
                MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in6_pktinfo))),
            ].into();
        }
        HEADERS.with_borrow_mut(|[plain, v4, v6]| {
            let mut first = 0;
            while first < datagrams.len() {
                let rest = &datagrams[first..];
                let sent = match source {
                    None => self.send_some(plain, &[], rest),
                    Some(IpAddr::V4(ip)) => {
                        let info = in_pktinfo {
                            ipi_ifindex: 0,
                            ipi_spec_dst: in_addr { s_addr: u32::from(ip).to_be() },
                            ipi_addr: in_addr { s_addr: 0 },
                        };
                        self.send_some(v4, &[ControlMessage::Ipv4PacketInfo(&info)], rest)
                    }
                    Some(IpAddr::V6(ip)) => {
                        let ipi6_addr = in6_addr { s6_addr: ip.octets() };
                        let info = in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                        self.send_some(v6, &[ControlMessage::Ipv6PacketInfo(&info)], rest)
                    }
                };
                match sent {
                    Ok(sent) => first += sent,
                    Err(Errno::EAGAIN) => {
                        // As much waits to be sent as may.
                        (first..datagrams.len()).for_each(&mut lost);
                        return;
                    }
                    Err(_) => {
                        // This one cannot be sent: there is no way to its address, say.
                        lost(first);
                        first += 1;
                    }
                }
            }
        });
    }

    /// How many of the datagrams, at least one, were sent.
    fn send_some(
        &self,
        headers: &mut MultiHeaders<SockaddrStorage>,
        source: &[ControlMessage<'_>],
        datagrams: &[(&[u8], SocketAddr)],
    ) -> nix::Result<usize> {
        let count = datagrams.len().min(BATCH);
        let slices: [_; BATCH] =
            std::array::from_fn(|n| [IoSlice::new(datagrams.get(n).map_or(&[], |one| one.0))]);
        let remotes: [_; BATCH] =
            std::array::from_fn(|n| datagrams.get(n).map(|one| SockaddrStorage::from(one.1)));
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.as_raw_fd();
        Ok(sendmmsg(fd, headers, &slices[..count], remotes, source, flags)?.count())
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A socket that takes TCP connections.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&fd, Backlog::new(WAITING)?)?;
    Ok(TcpListener::from(fd))
}

/// Room for datagrams, to be used again and again.
struct Batch {
    headers: MultiHeaders<SockaddrStorage>,
    /// What the kernel says of a datagram takes so much room.
    said: Vec<u8>,
    buffers: Vec<Vec<u8>>,
    read: Vec<Read>,
}

#[derive(Clone, Copy)]
struct Read {
    length: usize,
    remote: Option<SocketAddr>,
    local: Option<IpAddr>,
    at: f64,
}

impl Batch {
    fn new(said: Vec<u8>) -> Self {
        let headers = MultiHeaders::preallocate(BATCH, Some(said.clone()));
        let buffers = vec![vec![0; LONGEST]; BATCH];
        Self { headers, said, buffers, read: Vec::with_capacity(BATCH) }
    }

    fn read(&mut self, socket: &Socket) -> usize {
        self.read.clear();
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [_; BATCH] = std::array::from_fn(|_| {
            [IoSliceMut::new(buffers.next().expect("there is a buffer for each slice"))]
        });
        let flags = MsgFlags::MSG_DONTWAIT;
        let Ok(results) =
            recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None)
        else {
            return 0;
        };
        let (now, clock) = (now(), clock_gettime(ClockId::CLOCK_REALTIME).map(seconds));
        let mut incomplete = false;
        for message in results {
            let (mut stamp, mut local) = (None, None);
            for one in message.cmsgs().into_iter().flatten() {
                match one {
                    ControlMessageOwned::ScmTimestampns(time) => stamp = Some(seconds(time)),
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        local = Some(u32::from_be(info.ipi_spec_dst.s_addr).to_be_bytes().into());
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        local = Some(info.ipi6_addr.s6_addr.into());
                    }
                    _ => {}
                }
            }
            // The real-time clock may have been set in between.
            let age = match (clock, stamp) {
                (Ok(clock), Some(stamp)) => (clock - stamp).clamp(0.0, 1.0),
                _ => 0.0,
            };
            incomplete |= stamp.is_none() || local.is_none();
            let remote = message.address.as_ref().and_then(address);
            self.read.push(Read { length: message.bytes, remote, local, at: now - age });
        }
        if incomplete {
            self.headers = MultiHeaders::preallocate(BATCH, Some(self.said.clone()));
        }
        self.read.len()
    }

    fn get(&mut self, n: usize) -> Option<Came<'_>> {
        let Read { length, remote, local, at } = self.read[n];
        Some(Came { bytes: &mut self.buffers[n][..length], remote: remote?, local: local?, at })
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}

fn seconds(time: TimeSpec) -> f64 {
    time.tv_sec() as f64 + time.tv_nsec() as f64 * 1e-9
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    fn datagrams_come_with_their_addresses_and_the_time_of_their_arrival() {
        for (any, loopback) in
            [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "::1"), ("127.0.0.1:0", "127.0.0.1")]
        {
            let receiver = Socket::bind(any.parse().unwrap()).unwrap();
            // The kernel begins to note times a little later.
            sleep(Duration::from_millis(100));
            let loopback: IpAddr = loopback.parse().unwrap();
            let sender = UdpSocket::bind((loopback, 0)).unwrap();
            for _ in 0..3 {
                assert!(!receiver.read(|_| panic!("nothing has been sent")));
                sender.send_to(b"first", (loopback, receiver.port().unwrap())).unwrap();
                sleep(Duration::from_millis(100));
                sender.send_to(b"second", (loopback, receiver.port().unwrap())).unwrap();
                let mut seen = Vec::new();
                receiver.read(|came| {
                    assert_eq!((came.local, came.remote), (loopback, sender.local_addr().unwrap()));
                    seen.push((came.bytes.to_vec(), now() - came.at));
                });
                assert_eq!(seen[0].0, b"first");
                assert!((0.1..0.5).contains(&seen[0].1), "{}", seen[0].1);
                assert_eq!(seen[1].0, b"second");
                assert!((0.0..0.05).contains(&seen[1].1), "{}", seen[1].1);
            }
        }
    }
}
