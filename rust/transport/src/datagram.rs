//! A datagram, as sockets of all kinds give it.

use std::net::{IpAddr, SocketAddr};

/// Longer than any datagram of a WebRTC peer.
pub const LONGEST: usize = 2048;

/// A datagram, where it came from and where to, and when, in seconds.
pub struct Came<'a> {
    pub bytes: &'a mut [u8],
    pub remote: SocketAddr,
    pub local: IpAddr,
    pub at: f64,
}
