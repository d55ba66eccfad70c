//! What the two sides of one connection tell each other beside media: an RTP session (RFC 3550).

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use audiomixer_core::lock;

use crate::cipher::{Cipher, MasterKey};
use crate::inlet::Inlet;
use crate::now::now;
use crate::outlet::Outlet;
use crate::rtcp::{self, SenderInfo};

/// Seconds between reports, as often as browsers send theirs, varied by half.
const INTERVAL: f64 = 5.0;
/// Seconds from 1900 to 1970.
const SINCE_1900: f64 = 2_208_988_800.0;

/// What is received and sent, and the reports on it.
pub struct Session {
    /// What is received.
    pub inlet: Arc<Inlet>,
    /// What is sent.
    pub outlet: Arc<Outlet>,
    open: Mutex<Option<Open>>,
}

struct Open {
    cipher: Cipher,
    /// Of the next packet.
    index: u32,
    ssrc: u32,
    cname: String,
    due: f64,
    /// How many packets had been sent when it reported last, and the time before that.
    sent: [u32; 2],
}

impl Session {
    /// Of a connection; it tells nothing yet.
    pub fn new(inlet: Arc<Inlet>, outlet: Arc<Outlet>) -> Self {
        Self { inlet, outlet, open: Mutex::default() }
    }

    /// Begins to report, with our master key, as `ssrc`; after that, only the name counts.
    pub fn open(&self, key: &MasterKey, ssrc: u32, cname: &str) {
        let cipher = Cipher::derive_for_control(key);
        let begin = || Open {
            cipher,
            index: 0,
            ssrc,
            cname: String::new(),
            due: now() + varied(INTERVAL),
            sent: [0; 2],
        };
        lock(&self.open).get_or_insert_with(begin).cname = cname.into();
    }

    /// Sends reports if it is time to; gives them instead if there is no path.
    pub fn report(&self) -> Vec<Vec<u8>> {
        let at = now();
        let Some(open) = &mut *lock(&self.open) else { return Vec::new() };
        if at < open.due {
            return Vec::new();
        }
        open.due = at + varied(INTERVAL);
        let counts = self.outlet.counts();
        // Who has sent nothing for two reports is no sender (RFC 3550, section 6.4).
        let sends = open.sent[1] != counts.packets;
        open.sent = [counts.packets, open.sent[0]];
        let info = sends.then(|| SenderInfo {
            ntp: ntp(),
            timestamp: counts.timestamp,
            packets: counts.packets,
            octets: counts.octets,
        });
        let packets = rtcp::reports(open.ssrc, &open.cname, info, &self.inlet.reports(at));
        self.send(open, packets)
    }

    /// Tells that no more will come, if anything has; reports nothing any more.
    pub fn close(&self) -> Vec<Vec<u8>> {
        let Some(mut open) = lock(&self.open).take() else { return Vec::new() };
        if self.outlet.counts().packets == 0 {
            return Vec::new();
        }
        let bye = rtcp::bye(open.ssrc, &open.cname);
        self.send(&mut open, vec![bye])
    }

    fn send(&self, open: &mut Open, mut packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        for packet in &mut packets {
            open.cipher.seal_control(packet, open.index);
            open.index += 1;
        }
        let Some(path) = self.outlet.path() else { return packets };
        for packet in packets {
            // What is lost is told again.
            let _ = path.send(&packet);
        }
        Vec::new()
    }
}

fn varied(seconds: f64) -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    seconds * (0.5 + f64::from(random) / f64::from(u32::MAX))
}

/// The time of day, as NTP has it.
fn ntp() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ((since.as_secs_f64() + SINCE_1900) * 65_536.0 * 65_536.0) as u64
}
