//! A network in virtual time, with seeded mishaps, an encoder at its one end and a mixer at the other.
#![allow(dead_code)] // Not every test needs all of it.

use std::f32::consts::TAU;
use std::ptr::NonNull;

use audiomixer_core::{Mixer, Participant, Stats};
use opusic_sys as sys;

/// Samples in 20 ms.
pub const FRAME: usize = 960;
/// Where sequence numbers and timestamps begin: they wrap soon.
const FIRST: (u16, u32) = (65_500, u32::MAX - 48_000);

/// Opus as browsers make it: mono, 32 kbit/s, with in-band FEC.
pub struct Encoder(NonNull<sys::OpusEncoder>);

impl Encoder {
    pub fn new() -> Self {
        let mut error = 0;
        // SAFETY: plain values, and a valid place for the error.
        let state =
            unsafe { sys::opus_encoder_create(48_000, 1, sys::OPUS_APPLICATION_VOIP, &mut error) };
        let encoder = Self(NonNull::new(state).expect("libopus makes an encoder"));
        for (request, value) in [
            (sys::OPUS_SET_BITRATE_REQUEST, 32_000),
            (sys::OPUS_SET_INBAND_FEC_REQUEST, 1),
            (sys::OPUS_SET_PACKET_LOSS_PERC_REQUEST, 10),
            (sys::OPUS_SET_SIGNAL_REQUEST, sys::OPUS_SIGNAL_VOICE),
        ] {
            // SAFETY: the state is live, and the requests take one integer.
            assert_eq!(unsafe { sys::opus_encoder_ctl(encoder.0.as_ptr(), request, value) }, 0);
        }
        encoder
    }

    /// A packet of `samples`, 20 ms of them.
    pub fn encode(&mut self, samples: &[f32]) -> Vec<u8> {
        let mut packet = vec![0; 1500];
        // SAFETY: the state is live, and the lengths are those of the slices.
        let length = unsafe {
            sys::opus_encode_float(
                self.0.as_ptr(),
                samples.as_ptr(),
                samples.len() as i32,
                packet.as_mut_ptr(),
                packet.len() as i32,
            )
        };
        packet.truncate(usize::try_from(length).expect("it encodes"));
        packet
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: the state came from opus_encoder_create and is not used again.
        unsafe { sys::opus_encoder_destroy(self.0.as_ptr()) }
    }
}

/// The packets of a tone.
pub fn tone(frequency: f32, seconds: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    (0..50 * seconds)
        .map(|n| {
            let sample = |k| TAU * frequency * (n * FRAME + k) as f32 / 48_000.0;
            let samples: Vec<f32> = (0..FRAME).map(|k| 0.3 * sample(k).sin()).collect();
            encoder.encode(&samples)
        })
        .collect()
}

/// The packets of something like a voice, which the encoder puts copies of into the next packet: a fundamental that
/// wavers, and its overtones, in syllables.
pub fn voice(seconds: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let mut phase = 0.0f32;
    (0..50 * seconds)
        .map(|n| {
            let samples: Vec<f32> = (0..FRAME)
                .map(|k| {
                    let time = (n * FRAME + k) as f32 / 48_000.0;
                    phase += (140.0 + 10.0 * (TAU * 3.0 * time).sin()) / 48_000.0;
                    let syllable = 0.55 + 0.45 * (TAU * 4.0 * time).sin();
                    let sound = |h| (TAU * h as f32 * phase).sin() / h as f32;
                    (1..20).map(sound).sum::<f32>() * 0.3 * syllable
                })
                .collect();
            encoder.encode(&samples)
        })
        .collect()
}

/// A packet on its way: number, timestamp in frames, when it comes, and what is in it.
#[derive(Debug, Clone)]
pub struct Sent {
    pub number: usize,
    pub frame: f64,
    pub arrival: f64,
    pub payload: Vec<u8>,
}

/// Packets that come when they are sent, 10 ms after a tick.
pub fn punctual(payloads: Vec<Vec<u8>>) -> Vec<Sent> {
    let sent = |(number, payload)| Sent {
        number,
        frame: number as f64,
        arrival: 0.01 + 0.02 * number as f64,
        payload,
    };
    payloads.into_iter().enumerate().map(sent).collect()
}

/// Numbers between 0 and 1, the same for a seed each time (xorshift64, Marsaglia 2003).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One talker, and what a mixer makes of its packets.
pub struct Call {
    mixer: Mixer,
    talker: Participant,
    waiting: Vec<Sent>,
    ticks: usize,
    pub mixed: Vec<f32>,
    pub delays: Vec<f64>,
    pub volumes: Vec<i32>,
}

impl Call {
    pub fn new(mut packets: Vec<Sent>) -> Self {
        let mixer = Mixer::new(48_000, 1, 0.04, 0.4).expect("the arguments are good");
        let talker = mixer.add_participant("talker").expect("nobody is there");
        packets.sort_by(|a, b| b.arrival.total_cmp(&a.arrival));
        Self {
            mixer,
            talker,
            waiting: packets,
            ticks: 0,
            mixed: Vec::new(),
            delays: Vec::new(),
            volumes: Vec::new(),
        }
    }

    /// Mixes until `seconds`.
    pub fn until(&mut self, seconds: f64) -> &mut Self {
        let mut frame = vec![0.0f32; FRAME];
        while (self.ticks as f64) < seconds * 50.0 - 1e-6 {
            self.ticks += 1;
            let now = 0.02 * self.ticks as f64;
            while self.waiting.last().is_some_and(|packet| packet.arrival <= now) {
                let packet = self.waiting.pop().expect("there is one");
                let sequence = FIRST.0.wrapping_add(packet.number as u16);
                let timestamp = FIRST.1.wrapping_add((packet.frame * FRAME as f64) as u32);
                self.talker
                    .push_rtp(sequence, timestamp, &packet.payload, packet.arrival, None)
                    .expect("it is there");
            }
            self.mixer.mix(now, &mut frame).expect("the frame fits");
            self.mixed.extend_from_slice(&frame);
            self.delays.push(self.talker.stats().delay);
            if self.ticks.is_multiple_of(25) {
                self.volumes.push(self.mixer.volumes()[0].level);
            }
        }
        self
    }

    pub fn mute(&mut self, muted: Option<bool>) -> &mut Self {
        self.talker.set_signalled_mute(muted).expect("it is there");
        self
    }

    pub fn stats(&self) -> Stats {
        self.talker.stats()
    }

    /// The RMS of each 20 ms between two times.
    pub fn levels(&self, from: f64, to: f64) -> Vec<f32> {
        let at = |seconds: f64| (seconds * 48_000.0).round() as usize;
        let rms = |frame: &[f32]| (frame.iter().map(|s| s * s).sum::<f32>() / FRAME as f32).sqrt();
        self.mixed[at(from)..at(to)].chunks_exact(FRAME).map(rms).collect()
    }

    /// The least of them.
    pub fn quietest(&self, from: f64, to: f64) -> f32 {
        self.levels(from, to).into_iter().fold(f32::MAX, f32::min)
    }

    /// The largest of them.
    pub fn loudest(&self, from: f64, to: f64) -> f32 {
        self.levels(from, to).into_iter().fold(0.0, f32::max)
    }
}
