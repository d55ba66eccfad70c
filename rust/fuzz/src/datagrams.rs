//! Whatever datagrams come, before and after they are decrypted: an inlet counts them or hands them back, reports stay in
//! range, and what it hands to a participant breaks no mix.

use arbitrary::{Arbitrary, Unstructured};
use audiomixer_core::Mixer;
use audiomixer_transport::MasterKey;
use audiomixer_transport::srtp::Sender;
use audiomixer_transport::{Inlet, Settings};

#[derive(Debug, Arbitrary)]
enum Step {
    /// As it came, from anybody.
    Raw(Vec<u8>),
    /// Protected with the right key, whatever it is.
    Protected {
        first: u8,
        second: u8,
        sequence: u16,
        timestamp: u32,
        ssrc: u8,
        rest: Vec<u8>,
    },
    Report,
    Mix,
}

/// Reads steps out of `data`, and performs them.
///
/// # Panics
/// If the invariant does not hold.
pub fn run(data: &[u8]) {
    let key = MasterKey::Counter([7; 30]);
    let mixer = Mixer::new(48_000, 2, 0.04, 0.4).expect("the arguments are good");
    let participant = mixer.add_participant("alice").expect("nobody is there yet");
    let inlet = Inlet::default();
    inlet.route(None, Some(participant.clone()));
    inlet.agree(Settings { key, payload_types: vec![111], level_extension: Some(1) });
    let mut frame = vec![0.0f32; 1920];
    let mut now = 0.0;
    let mut source = Unstructured::new(data);
    while !source.is_empty() {
        let Ok(step) = source.arbitrary() else { break };
        now += 0.02;
        match step {
            Step::Raw(mut datagram) => {
                let before = inlet.authentic();
                inlet.take(&mut datagram, now);
                assert_eq!(inlet.authentic(), before, "it had no key");
            }
            Step::Protected { first, second, sequence, timestamp, ssrc, rest } => {
                let mut packet = vec![0x80 | first & 0x3F, second];
                packet.extend(sequence.to_be_bytes());
                packet.extend(timestamp.to_be_bytes());
                packet.extend([0, 0, 0, ssrc]);
                packet.extend(rest);
                // What has no header of its own length cannot be protected.
                if has_header(&packet) {
                    Sender::new(&key).protect(&mut packet);
                    inlet.take(&mut packet, now);
                }
            }
            // All streams go one way, which one at a time takes.
            Step::Report => assert!(inlet.reports(now).len() <= 1),
            Step::Mix => {
                mixer.mix(now, &mut frame).expect("the frame fits");
                crate::check_frame(&frame);
            }
        }
    }
    assert!(participant.stats().received <= inlet.authentic());
}

fn has_header(packet: &[u8]) -> bool {
    let mut header = 12 + 4 * usize::from(packet[0] & 0x0F);
    if packet[0] & 0x10 != 0 {
        let Some(length) = packet.get(header + 2..header + 4) else { return false };
        header += 4 + 4 * usize::from(u16::from_be_bytes([length[0], length[1]]));
    }
    header <= packet.len()
}
