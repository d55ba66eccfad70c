//! RTP between sockets and the mixer: what happens per datagram, without Python.
//!
//! Connections come about in Python (ICE, DTLS). A [`Hub`] reads the port that they share, tells whose each datagram is, and
//! has an [`Inlet`] decrypt media ([`srtp`]) and hand packets to [`Participant`](audiomixer_core::Participant)s. An
//! [`Outlet`] encrypts and sends packets, a [`Fanout`] the same packet to many, and a [`Distributor`] does that by threads of
//! its own. A [`Session`] reports on both directions.
//!
//! Sockets never block. Nothing waits here but for a lock that somebody else holds for a packet's time, and no memory is
//! taken per packet of media, unless one has to be handed to Python.
#![forbid(unsafe_code)]

mod cipher;
mod consent;
mod datagram;
mod distributor;
mod endpoint;
mod hub;
mod inlet;
mod now;
mod outlet;
mod path;
mod reader;
mod reception;
pub mod rtcp;
mod session;
#[cfg_attr(any(not(target_os = "linux"), elsewhere), path = "socket_elsewhere.rs")]
mod socket;
pub mod srtp;
mod stream;
pub mod stun;
mod table;

pub use cipher::MasterKey;
pub use distributor::Distributor;
pub use endpoint::{Endpoint, Event, Settled, What};
pub use hub::Hub;
pub use inlet::{Inlet, Settings, Taken};
pub use now::now;
pub use outlet::{Counts, Fanout, Outlet, Sent};
pub use path::Path;
pub use reader::read_all;
pub use reception::Report;
pub use session::Session;
#[doc(hidden)]
pub use stream::take_apart;
pub use stun::Role;
