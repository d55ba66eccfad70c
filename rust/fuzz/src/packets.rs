//! Whatever datagrams come from one sender, and whenever: every tick has audio below the ceiling, and each packet that is
//! RTP is accounted for.

use arbitrary::{Arbitrary, Unstructured};
use audiomixer_core::Mixer;
use audiomixer_core::rtp::Packet;

use crate::check_frame;

/// What the session is taken to have called the audio level.
const LEVEL_EXTENSION: u8 = 1;

#[derive(Debug, Arbitrary)]
struct Datagram {
    /// Of the packet before, or as the bytes say.
    follows: bool,
    /// Milliseconds since the datagram before; time may go back.
    passed: i16,
    bytes: Vec<u8>,
}

/// Reads datagrams out of `data`, and receives them.
///
/// # Panics
/// If the invariant does not hold.
pub fn run(data: &[u8]) {
    let mixer = Mixer::new(48_000, 1, 0.04, 0.4).expect("these are good arguments");
    let sender = mixer.add_participant("sender").expect("there is nobody else");
    let mut frame = vec![0.0f32; mixer.frame_size()];
    let (mut now, mut ticks, mut pushed) = (0.0f64, 0u32, 0u64);
    let (mut sequence, mut timestamp) = (0u16, 0u32);
    let mut source = Unstructured::new(data);
    while !source.is_empty() {
        let Ok(Datagram { follows, passed, bytes }) = source.arbitrary() else { break };
        now += f64::from(passed % 500) / 1000.0;
        if let Some(packet) = Packet::parse(&bytes, Some(LEVEL_EXTENSION)) {
            if follows {
                (sequence, timestamp) = (sequence.wrapping_add(1), timestamp.wrapping_add(960));
            } else {
                (sequence, timestamp) = (packet.sequence, packet.timestamp);
            }
            let level = packet.audio_level;
            sender.push_rtp(sequence, timestamp, packet.payload, now, level).expect("it is there");
            pushed += 1;
        }
        while f64::from(ticks) * 0.02 < now {
            ticks += 1;
            mixer.mix(f64::from(ticks) * 0.02, &mut frame).expect("these are good arguments");
            check_frame(&frame);
        }
        let stats = sender.stats();
        assert!(
            stats.received + stats.duplicate + stats.discarded >= pushed,
            "{pushed}: {stats:?}"
        );
        assert!(stats.received <= pushed && stats.recovered <= stats.received, "{stats:?}");
        let durations = [stats.concealed, stats.accelerated, stats.expanded, stats.jitter];
        assert!(
            durations.iter().all(|seconds| seconds.is_finite() && *seconds >= -1e-9),
            "{stats:?}"
        );
        assert!((0.04..=0.4).contains(&stats.target_delay) || pushed == 0, "{stats:?}");
    }
}
