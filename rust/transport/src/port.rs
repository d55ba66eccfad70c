//! The socket of one connection.

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// A UDP socket between two addresses, which never blocks and tells when datagrams came.
pub struct Port(pub(crate) UdpSocket);

impl Port {
    /// A socket beside another one that is bound to `local` already, which has to allow it (`SO_REUSEADDR`) for the
    /// moment: from now on the kernel gives this one what comes from `remote`, and the other one all else.
    #[cfg(target_os = "linux")]
    pub fn beside(local: SocketAddr, remote: SocketAddr) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        use nix::sys::socket::{
            AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
        };

        let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Datagram, flags, None)?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
        setsockopt(&fd, sockopt::ReuseAddr, &false)?;
        let socket = UdpSocket::from(fd);
        socket.connect(remote)?;
        Ok(Self(socket))
    }

    /// Elsewhere no two sockets can share a port like that.
    #[cfg(not(target_os = "linux"))]
    pub fn beside(_: SocketAddr, _: SocketAddr) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;
    use crate::{Inlet, Intake};

    #[test]
    fn a_port_takes_what_comes_from_its_other_side_and_leaves_the_rest() {
        let shared = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = shared.local_addr().unwrap();
        let [peer, stranger] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let remote = peer.local_addr().unwrap();
        assert!(Port::beside(local, remote).is_err());
        setsockopt(&shared, sockopt::ReuseAddr, &true).unwrap();
        let port = Arc::new(Port::beside(local, remote).unwrap());
        setsockopt(&shared, sockopt::ReuseAddr, &false).unwrap();
        assert!(UdpSocket::bind(local).is_err());

        let (intake, inlet) = (Intake::default(), Arc::new(Inlet::default()));
        intake.add(port, Arc::clone(&inlet), "tag").unwrap();
        peer.send_to(b"from the peer", local).unwrap();
        stranger.send_to(b"from a stranger", local).unwrap();
        let mut seen = Vec::new();
        intake.poll(1.0, |tag, datagram| seen.push((*tag, datagram.to_vec())));
        assert_eq!(seen, [("tag", b"from the peer".to_vec())]);
        let mut buffer = [0; 100];
        shared.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(shared.recv(&mut buffer).unwrap(), b"from a stranger".len());
        assert_eq!(intake.remove(&inlet), Some("tag"));
        peer.send_to(b"for nobody", local).unwrap();
        intake.poll(2.0, |_, _| panic!("nothing is read any more"));
    }
}
