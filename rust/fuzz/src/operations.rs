//! Whatever is asked of a mixer, in whatever order and at whatever time: no panic, nothing above the ceiling, volumes
//! within their range.

use arbitrary::{Arbitrary, Unstructured};
use audiomixer_core::{Mixer, Participant};

use crate::check_frame;

const PARTICIPANTS: usize = 4;

/// Something that is asked of a mixer; participants are numbers.
#[derive(Debug, Clone, Arbitrary)]
#[allow(missing_docs)]
pub enum Step {
    Add(u8),
    Remove(u8),
    Rtp {
        to: u8,
        sequence: u16,
        timestamp: u32,
        payload: Vec<u8>,
        arrival: f64,
        level: Option<u8>,
    },
    /// So many packets of 20 ms that follow each other, and a mix after each.
    Follow {
        to: u8,
        packets: u8,
        payload: Vec<u8>,
        level: Option<u8>,
    },
    Pcm {
        to: u8,
        samples: Vec<f32>,
        stereo: bool,
        rate: Option<u32>,
    },
    Gain(u8, f32),
    Mute(u8, Option<bool>),
    Level(bool),
    MaxSpeakers(Option<u8>),
    Mix(f64),
    Minus(u8),
    Volumes,
    Fader {
        of: u8,
        gain: f32,
        muted: bool,
        in_mix: bool,
        denoise: bool,
    },
    Duck(u8, f32),
    Denoise(bool),
    Loudness(Option<f64>),
    Room,
}

/// A mixer that is asked.
pub struct Asked {
    mixer: Mixer,
    participants: [Option<Participant>; PARTICIPANTS],
    /// Where each one's stream goes on: sequence number, timestamp, arrival.
    streams: [(u16, u32, f64); PARTICIPANTS],
    out: Vec<f32>,
}

impl Default for Asked {
    fn default() -> Self {
        let mixer = Mixer::new(48_000, 2, 0.04, 0.4).expect("these are the defaults");
        let out = vec![0.0; 2 * mixer.frame_size()];
        Self { mixer, participants: Default::default(), streams: Default::default(), out }
    }
}

impl Asked {
    /// Does as it is asked. Errors are answers too: only panics, stalls and overloads are not.
    pub fn perform(&mut self, step: Step) {
        match step {
            Step::Add(who) => {
                let who = usize::from(who) % PARTICIPANTS;
                if let Ok(participant) = self.mixer.add_participant(&who.to_string()) {
                    self.participants[who] = Some(participant);
                }
            }
            Step::Remove(who) => {
                let who = usize::from(who) % PARTICIPANTS;
                drop(self.mixer.remove_participant(&who.to_string()));
            }
            Step::Rtp { to, sequence, timestamp, payload, arrival, level } => {
                self.with(to, |p| drop(p.push_rtp(sequence, timestamp, &payload, arrival, level)));
            }
            Step::Follow { to, packets, payload, level } => {
                for _ in 0..packets % 40 {
                    let stream = &mut self.streams[usize::from(to) % PARTICIPANTS];
                    let (sequence, timestamp, arrival) = *stream;
                    *stream =
                        (sequence.wrapping_add(1), timestamp.wrapping_add(960), arrival + 0.02);
                    self.with(to, |p| {
                        drop(p.push_rtp(sequence, timestamp, &payload, arrival, level))
                    });
                    self.mix(arrival);
                }
            }
            Step::Pcm { to, samples, stereo, rate } => {
                let channels = 1 + usize::from(stereo);
                let samples = &samples[..samples.len() / channels * channels];
                self.with(to, |p| drop(p.push_pcm(samples, channels, rate)));
            }
            Step::Gain(who, gain) => self.with(who, |p| drop(p.set_gain(gain))),
            Step::Mute(who, muted) => self.with(who, |p| drop(p.set_signalled_mute(muted))),
            Step::Level(on) => self.mixer.set_leveler(on),
            Step::MaxSpeakers(most) => drop(self.mixer.set_max_speakers(most.map(usize::from))),
            Step::Mix(now) => self.mix(now),
            Step::Minus(who) => {
                let who = self.participants[usize::from(who) % PARTICIPANTS].as_ref();
                if who.is_some_and(|who| self.mixer.mix_minus(who, &mut self.out).is_ok()) {
                    check_frame(&self.out);
                }
            }
            Step::Volumes => {
                let levels = self.mixer.volumes().into_iter().map(|volume| volume.level);
                assert!(levels.into_iter().all(|level| (-1..=32_767).contains(&level)));
            }
            Step::Fader { of, gain, muted, in_mix, denoise } => {
                let who = usize::from(of) % PARTICIPANTS;
                if let Ok(fader) = self.mixer.fader(&who.to_string()) {
                    drop(fader.set_gain(gain));
                    fader.set_muted(muted);
                    fader.set_in_mix(in_mix);
                    fader.set_denoise(denoise);
                }
            }
            Step::Duck(who, decibels) => self.with(who, |p| drop(p.set_duck(decibels))),
            Step::Denoise(on) => drop(self.mixer.set_denoise(on)),
            Step::Loudness(target) => drop(self.mixer.set_loudness(target)),
            Step::Room => {
                if self.mixer.mix_of_room(&mut self.out).is_ok() {
                    check_frame(&self.out);
                }
            }
        }
    }

    fn with(&self, who: u8, ask: impl FnOnce(&Participant)) {
        self.participants[usize::from(who) % PARTICIPANTS].as_ref().map(ask);
    }

    fn mix(&mut self, now: f64) {
        if self.mixer.mix(now, &mut self.out).is_ok() {
            check_frame(&self.out);
        }
    }
}

/// Reads steps out of `data`, and performs them.
pub fn run(data: &[u8]) {
    let mut asked = Asked::default();
    let mut source = Unstructured::new(data);
    while !source.is_empty() {
        let Ok(step) = source.arbitrary() else { break };
        asked.perform(step);
    }
}
