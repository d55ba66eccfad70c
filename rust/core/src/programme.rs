//! The loudness of the mix, by ITU-R BS.1770 and EBU R 128, and a slow gain that brings it to a target.
//!
//! The gain is decided on by what came out: blocks of 400 ms, gated as R 128 has it, less the gain at which they came out,
//! tell how loud the programme is by itself; what the limiter takes away is in that. Nothing changes in pauses.

use ebur128::{Channel, EbuR128, Mode};

use crate::time::FRAMES_PER_SECOND;
use crate::{Error, Result};

/// Targets, in LUFS.
pub const TARGETS: std::ops::RangeInclusive<f64> = -40.0..=-5.0;
/// The programme is turned up or down by so many decibels at most.
const RANGE: f64 = 24.0;
/// Decibels a second, once the programme is known…
const SLOW: f64 = 0.5;
/// …and at its beginning.
const FAST: f64 = 6.0;
/// Blocks of 100 ms that are listened to until it is known: 4 s…
const KNOWN: f64 = 40.0;
/// …and that count at most: half a minute.
const REMEMBERED: f64 = 300.0;
/// Blocks below this are silence, and those so far below the programme pauses (R 128).
const ABSOLUTE_GATE: f64 = -70.0;
const RELATIVE_GATE: f64 = -10.0;
/// Frames in a block.
const BLOCK: u64 = FRAMES_PER_SECOND as u64 / 10;

/// How loud a mix is, in LUFS; minus infinity is silence, or nothing yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loudness {
    /// Of the last 400 ms.
    pub momentary: f64,
    /// Of the last 3 s.
    pub short_term: f64,
    /// Of everything since it is measured, gated.
    pub integrated: f64,
    /// The gain that brings it there, in decibels.
    pub gain: f64,
}

/// Measures a mix, and says at which gain the next frame is to be.
pub(crate) struct Programme {
    meter: EbuR128,
    target: Option<f64>,
    frames: u64,
    /// Decibels at the end of the last frame.
    gain: f64,
    /// What it is moving to.
    aim: f64,
    /// Mean square of the programme at no gain, by R 128's scale, and of how many blocks that is.
    power: f64,
    blocks: f64,
}

impl Programme {
    /// For frames of `channels` at `rate`.
    pub fn new(rate: u32, channels: usize) -> Result<Self> {
        let failed = |error| Error::new("loudness", format!("cannot be measured: {error}"));
        let mode = Mode::M | Mode::S | Mode::I | Mode::HISTOGRAM;
        let mut meter = EbuR128::new(channels as u32, rate, mode).map_err(failed)?;
        if channels == 1 {
            meter.set_channel(0, Channel::DualMono).map_err(failed)?;
        }
        Ok(Self { meter, target: None, frames: 0, gain: 0.0, aim: 0.0, power: 0.0, blocks: 0.0 })
    }

    /// Brings the mix to `target` from now on, or back to no gain.
    pub fn set_target(&mut self, target: Option<f64>) {
        self.target = target;
        self.aim_anew();
    }

    /// The gain at the beginning of the next frame, and at its end.
    pub fn advance(&mut self) -> (f32, f32) {
        let from = self.gain;
        let speed = if self.blocks < KNOWN { FAST } else { SLOW };
        let step = speed / f64::from(FRAMES_PER_SECOND);
        self.gain += (self.aim - self.gain).clamp(-step, step);
        (linear(from), linear(self.gain))
    }

    /// Takes note of a frame that has come out.
    pub fn observe(&mut self, frame: &[f32]) {
        // It can fail for a frame of another form only.
        let _ = self.meter.add_frames_f32(frame);
        self.frames += 1;
        if self.frames.is_multiple_of(BLOCK) && self.target.is_some() {
            let out = self.meter.loudness_momentary().unwrap_or(f64::NEG_INFINITY);
            self.listen(out, out - self.gain);
        }
    }

    /// A block came out at `out`, and would have been at `by_itself`.
    fn listen(&mut self, out: f64, by_itself: f64) {
        let known = self.known();
        if out < ABSOLUTE_GATE || known.is_some_and(|known| by_itself < known + RELATIVE_GATE) {
            self.aim = self.gain;
            return;
        }
        // Who begins softly is not to be measured by that.
        if known.is_some_and(|known| by_itself > known - RELATIVE_GATE) {
            self.blocks = 0.0;
        }
        self.blocks = (self.blocks + 1.0).min(REMEMBERED);
        self.power += (10f64.powf(by_itself / 10.0) - self.power) / self.blocks;
        self.aim_anew();
    }

    fn known(&self) -> Option<f64> {
        (self.blocks > 0.0).then(|| 10.0 * self.power.log10())
    }

    fn aim_anew(&mut self) {
        self.aim = match (self.target, self.known()) {
            (Some(target), Some(known)) => (target - known).clamp(-RANGE, RANGE),
            (Some(_), None) => self.gain,
            (None, _) => 0.0,
        };
    }

    /// How loud it is.
    pub fn loudness(&self) -> Loudness {
        let of = |measured: std::result::Result<f64, _>| measured.unwrap_or(f64::NEG_INFINITY);
        Loudness {
            momentary: of(self.meter.loudness_momentary()),
            short_term: of(self.meter.loudness_shortterm()),
            integrated: of(self.meter.loudness_global()),
            gain: self.gain,
        }
    }
}

fn linear(decibels: f64) -> f32 {
    10f64.powf(decibels / 20.0) as f32
}

/// Multiplies interleaved `samples` of `channels` by a gain that moves evenly.
pub(crate) fn ramp(samples: &mut [f32], channels: usize, (from, to): (f32, f32)) {
    if from == to {
        samples.iter_mut().for_each(|sample| *sample *= from);
        return;
    }
    let step = (to - from) / (samples.len() / channels) as f32;
    for (n, frame) in samples.chunks_exact_mut(channels).enumerate() {
        let gain = from + step * n as f32;
        frame.iter_mut().for_each(|sample| *sample *= gain);
    }
}
