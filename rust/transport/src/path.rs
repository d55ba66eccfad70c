//! Where datagrams of one connection go.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::socket::Socket;
use crate::stream::Stream;

/// A way to the other side.
#[derive(Clone)]
pub enum Path {
    /// By a socket that others have as well.
    Udp {
        /// Which one.
        socket: Arc<Socket>,
        /// Our address, where it has to be said.
        source: Option<IpAddr>,
        /// Theirs.
        remote: SocketAddr,
    },
    /// By a connection of its own.
    Tcp(Arc<Stream>),
}

impl Path {
    /// Sends one datagram.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp { socket, source, remote } => {
                let mut sent = Ok(());
                socket.send(*source, &[(datagram, *remote)], |_| {
                    sent = Err(io::ErrorKind::WouldBlock.into());
                });
                sent
            }
            Self::Tcp(stream) => stream.send(datagram),
        }
    }
}
