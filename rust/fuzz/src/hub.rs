//! Whatever comes to a port, from whomever: a connection is handed what is from addresses that have proven to be its, media is
//! taken in with the right key only, and TCP is taken apart as it was put together.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use audiomixer_transport::srtp::Sender;
use audiomixer_transport::stun::{self, Role};
use audiomixer_transport::{Endpoint, Hub, Inlet, MasterKey, Outlet, Session, Settings, What};
use audiomixer_transport::{rtcp, take_apart};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PASSWORDS: [&str; 2] = ["the first one's", "the second one's"];
const UFRAGS: [&str; 2] = ["one", "two"];

#[derive(Debug, Arbitrary)]
enum Step {
    /// As it came, from one of four addresses.
    Raw { from: u8, bytes: Vec<u8> },
    /// A check for one of two connections, which may be forged.
    Check { from: u8, whose: bool, forged: Option<u8> },
    /// A packet of a connection's other side.
    Media { from: u8, whose: bool, ssrc: u8, payload: Vec<u8> },
    /// Time goes by.
    Wait(u8),
    /// A connection ends, and another begins in its place.
    Again(bool),
    /// What came by TCP.
    Tcp { bytes: Vec<u8>, cut: u8 },
    /// What was decrypted.
    Control(Vec<u8>),
}

/// One of two connections.
struct Side {
    endpoint: Arc<Endpoint>,
    inlet: Arc<Inlet>,
    senders: Vec<(Sender, u16)>,
    /// From which it has had a check, or media.
    proven: HashSet<u8>,
}

impl Side {
    fn new(hub: &Hub, which: usize) -> Self {
        let (inlet, outlet) = (Arc::new(Inlet::default()), Arc::new(Outlet::default()));
        let key = MasterKey::Counter([which as u8 + 1; 30]);
        inlet.agree(Settings { key, payload_types: vec![111], level_extension: None });
        let session = Arc::new(Session::new(Arc::clone(&inlet), outlet));
        let opened = hub.open(UFRAGS[which], PASSWORDS[which], session, |_| ());
        Self {
            endpoint: opened.expect("its name is free"),
            inlet,
            senders: (0..4).map(|_| (Sender::new(&key), 0)).collect(),
            proven: HashSet::new(),
        }
    }
}

/// Reads steps out of `data`, and performs them.
///
/// # Panics
/// If the invariant does not hold.
pub fn run(data: &[u8]) {
    let hub = Hub::bind(&[], 0, false).expect("nothing is bound");
    let mut sides = [Side::new(&hub, 0), Side::new(&hub, 1)];
    let (mut now, mut transaction) = (0.0, 0u8);
    let mut source = Unstructured::new(data);
    while !source.is_empty() {
        let Ok(step) = source.arbitrary() else { break };
        now += 0.001;
        match step {
            Step::Raw { from, mut bytes } => {
                let before = sides.each_ref().map(|side| side.inlet.authentic());
                take_in(&hub, &sides, from % 4, &mut bytes, now);
                assert_eq!(sides.each_ref().map(|side| side.inlet.authentic()), before);
            }
            Step::Check { from, whose, forged } => {
                let which = usize::from(whose);
                transaction = transaction.wrapping_add(1);
                let role = Role { controlling: true, tie_breaker: 7 };
                let username = format!("{}:theirs", UFRAGS[which]);
                let password = PASSWORDS[which].as_bytes();
                let mut check = stun::request([transaction; 12], &username, role, password);
                // What is beyond the integrity is not covered by it.
                let covered = check.len() - 8;
                match forged {
                    Some(place) => check[usize::from(place) % covered] ^= 1,
                    None => {
                        sides[which].proven.insert(from % 4);
                    }
                }
                take_in(&hub, &sides, from % 4, &mut check, now);
            }
            Step::Media { from, whose, ssrc, payload } => {
                let which = usize::from(whose);
                let (sender, sequence) = &mut sides[which].senders[usize::from(ssrc % 4)];
                let mut packet = vec![0x80, 111];
                packet.extend(sequence.to_be_bytes());
                packet.extend([0, 0, 0, 0, 0, 0, which as u8, ssrc % 4]);
                packet.extend(payload);
                sender.protect(&mut packet);
                *sequence = sequence.wrapping_add(1);
                let before = sides.each_ref().map(|side| side.inlet.authentic());
                // If it is taken, that proves the address.
                sides[which].proven.insert(from % 4);
                take_in(&hub, &sides, from % 4, &mut packet, now);
                let other = sides[1 - which].inlet.authentic();
                assert_eq!(other, before[1 - which], "it had another key");
            }
            Step::Wait(ticks) => now += 0.02 * f64::from(ticks),
            Step::Again(whose) => {
                let which = usize::from(whose);
                hub.close(&sides[which].endpoint);
                sides[which] = Side::new(&hub, which);
            }
            Step::Tcp { bytes, cut } => {
                let (mut whole, mut parts) = (Vec::new(), Vec::new());
                let one = take_apart(&mut Vec::new(), &bytes, &mut |some| {
                    whole.push(some.to_vec());
                    true
                });
                let mut received = Vec::new();
                let mut outcome = Ok(());
                for some in bytes.chunks(usize::from(cut) + 1) {
                    outcome = take_apart(&mut received, some, &mut |some| {
                        parts.push(some.to_vec());
                        true
                    });
                    if outcome.is_err() {
                        break;
                    }
                }
                assert_eq!((one.is_ok(), whole), (outcome.is_ok(), parts));
            }
            Step::Control(bytes) => {
                assert!(rtcp::sender_reports(&bytes).count() <= bytes.len() / 4)
            }
        }
    }
}

fn take_in(hub: &Hub, sides: &[Side; 2], from: u8, bytes: &mut [u8], now: f64) {
    let remote = SocketAddr::new(HOST, 1000 + u16::from(from));
    for (endpoint, event) in hub.take_in(bytes, remote, HOST, now) {
        let side = sides.iter().find(|side| Arc::ptr_eq(&side.endpoint, &endpoint));
        let side = side.expect("one that has ended is handed nothing");
        assert_eq!(event.remote, remote);
        assert!(side.proven.contains(&from), "{:?} of a stranger", event.what);
        assert_ne!(event.what, What::Gone);
    }
}
