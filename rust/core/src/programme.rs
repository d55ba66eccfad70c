//! The loudness of the mix, by ITU-R BS.1770 and EBU R 128, and a slow gain that brings it to a target.
//!
//! The gain is decided on by what came out: blocks of 400 ms, less the gain at which they came out, tell how loud the
//! programme is by itself; what the limiter takes away is in that. They are gated as R 128 has it, but with means that
//! forget. Nothing changes in pauses.

use ebur128::{Channel, EbuR128, Mode};

use crate::time::FRAMES_PER_SECOND;
use crate::{Error, Result};

/// Targets, in LUFS: louder, and it is the limiter's work.
pub const TARGETS: std::ops::RangeInclusive<f64> = -40.0..=-12.0;
/// The programme is turned up or down by so many decibels at most.
const RANGE: f64 = 24.0;
/// Decibels a second, once the programme is known…
const SLOW: f64 = 0.5;
/// …and at its beginning, and where it is far too loud, by so much.
const FAST: f64 = 6.0;
const FAR: f64 = 6.0;
/// Blocks that are listened to until the programme is known: 4 s…
const KNOWN: f64 = 40.0;
/// …and that are remembered: 15 s.
const REMEMBERED: f64 = 150.0;
/// What by itself is below this, in LUFS, is the noise of a room…
const NOISE: f64 = -55.0;
/// …and so far below the mean of all else, a pause (R 128).
const PAUSE: f64 = 10.0;
/// What is louder than this, and nothing but that for so many blocks, is another programme: 10 s.
const SOFT: f64 = -45.0;
const ANOTHER: u32 = 100;
/// Frames from block to block, which is of four times as many…
const STEP: u64 = FRAMES_PER_SECOND as u64 / 10;
/// …and from telling how loud it is to telling it again.
const TELL: u64 = FRAMES_PER_SECOND as u64 / 2;

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
    /// How far down the limiter turned it at most, since this was told before, in decibels: 0 or less.
    pub reduction: f64,
}

impl Loudness {
    /// Nothing yet.
    pub const SILENCE: Self = Self {
        momentary: f64::NEG_INFINITY,
        short_term: f64::NEG_INFINITY,
        integrated: f64::NEG_INFINITY,
        gain: 0.0,
        reduction: 0.0,
    };
}

/// Mean power of blocks, of all at first, and then of the last ones.
#[derive(Debug, Default)]
struct Mean {
    power: f64,
    blocks: f64,
}

impl Mean {
    fn add(&mut self, loudness: f64) {
        self.blocks = (self.blocks + 1.0).min(REMEMBERED);
        self.power += (10f64.powf(loudness / 10.0) - self.power) / self.blocks;
    }

    fn loudness(&self) -> Option<f64> {
        (self.blocks > 0.0).then(|| 10.0 * self.power.log10())
    }
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
    /// Decibels a second at which it does.
    speed: f64,
    /// The mean gain of each step of the block.
    gains: [f64; 4],
    /// Of all that is no noise, and of what is no pause either.
    all: Mean,
    programme: Mean,
    /// Blocks, since the last that was no pause, that were louder than pauses are.
    soft: u32,
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
        Ok(Self {
            meter,
            target: None,
            frames: 0,
            gain: 0.0,
            aim: 0.0,
            speed: SLOW,
            gains: [0.0; 4],
            all: Mean::default(),
            programme: Mean::default(),
            soft: 0,
        })
    }

    /// Brings the mix to `target` from now on, or back to no gain.
    pub fn set_target(&mut self, target: Option<f64>) {
        self.target = target;
        self.aim_anew(f64::NEG_INFINITY);
    }

    /// The gain at the beginning of the next frame, and at its end.
    pub fn advance(&mut self) -> (f32, f32) {
        let from = self.gain;
        let step = self.speed / f64::from(FRAMES_PER_SECOND);
        self.gain += (self.aim - self.gain).clamp(-step, step);
        (linear(from), linear(self.gain))
    }

    /// Takes note of a frame that has come out; tells how loud it is, now and then.
    pub fn observe(&mut self, frame: &[f32]) -> Option<Loudness> {
        self.meter.add_frames_f32(frame).expect("frames are of the form that it was made for");
        self.frames += 1;
        self.gains[3] += self.gain / STEP as f64;
        if self.frames.is_multiple_of(STEP) {
            if self.target.is_some() {
                let out = self.meter.loudness_momentary().unwrap_or(f64::NEG_INFINITY);
                self.listen(out, out - self.gains.iter().sum::<f64>() / 4.0);
            }
            self.gains.rotate_left(1);
            self.gains[3] = 0.0;
        }
        self.frames.is_multiple_of(TELL).then(|| self.loudness())
    }

    /// A block came out at `out`, and would have been at `by_itself`.
    fn listen(&mut self, out: f64, by_itself: f64) {
        self.aim = self.gain;
        if !by_itself.is_finite() || by_itself < NOISE {
            return;
        }
        if by_itself > SOFT && self.soft >= ANOTHER {
            (self.all, self.programme) = (Mean::default(), Mean::default());
        }
        self.all.add(by_itself);
        self.soft += u32::from(by_itself > SOFT);
        if self.all.loudness().is_some_and(|all| by_itself > all - PAUSE) {
            self.soft = 0;
            self.programme.add(by_itself);
            self.aim_anew(out);
        }
    }

    fn aim_anew(&mut self, out: f64) {
        let is_new = self.programme.blocks < KNOWN;
        let is_far = self.target.is_some_and(|target| out > target + FAR);
        self.speed = if is_new || is_far { FAST } else { SLOW };
        self.aim = match (self.target, self.programme.loudness()) {
            (Some(target), Some(known)) => (target - known).clamp(-RANGE, RANGE),
            (Some(_), None) => self.gain,
            (None, _) => 0.0,
        };
    }

    fn loudness(&self) -> Loudness {
        let of = |measured: std::result::Result<f64, _>| measured.unwrap_or(f64::NEG_INFINITY);
        Loudness {
            momentary: of(self.meter.loudness_momentary()),
            short_term: of(self.meter.loudness_shortterm()),
            integrated: of(self.meter.loudness_global()),
            gain: self.gain,
            reduction: 0.0,
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
