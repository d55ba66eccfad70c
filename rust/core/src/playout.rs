//! The samples on their way out: decoded, repaired or made up, and faded where one follows the other.

use crate::comfort::Comfort;
use crate::opus::{self, Concealment, Decoder, Header};
use crate::stretch::{self, Criteria};
use crate::time::{FRAME, TICKS_PER_SECOND, Ticks, ms};

/// Real audio after silence fades in, and what is broken off fades out, over this.
const FADE: Ticks = ms(5);

/// What is 33 dB below the speaker's loudness is not speech.
const QUIET: f32 = 5e-4;
/// The loudness falls by a third of a decibel a second.
const FORGET: f32 = 0.9985;

/// After so many packets a decoder sounds as if it had decoded all that were before them.
const WARM_UP: usize = 2;

/// A decoder, and what it has made that is not played yet.
pub struct Playout {
    rate: u32,
    max_channels: usize,
    decoder: Decoder,
    comfort: Comfort,
    /// Interleaved.
    pcm: Vec<f32>,
    /// So many samples at the end of `pcm` are known to be zeros.
    silence: usize,
    /// The level at which `pcm` ends: less than 1 where made-up audio is fading out, 0 in silence.
    level: f32,
    /// Mean square of the loudest packets of late.
    loudness: f32,
    /// The last packet was no speech.
    quiet: bool,
    /// The last packet was the beginning of a pause.
    dtx: bool,
    /// The packet that was decoded last.
    last: Vec<u8>,
    /// The newest packets that were not decoded: they warm the decoder up for the one that is.
    skipped: [Vec<u8>; WARM_UP],
}

impl Playout {
    /// Plays out at `rate` Hz, with at most `max_channels`.
    pub fn new(rate: u32, max_channels: usize) -> Self {
        let mut playout = Self {
            rate,
            max_channels,
            decoder: Decoder::new(rate, 1),
            comfort: Comfort::new(rate, 1),
            pcm: Vec::new(),
            silence: 0,
            level: 0.0,
            loudness: 0.0,
            quiet: true,
            dtx: false,
            last: Vec::new(),
            skipped: Default::default(),
        };
        playout.pcm.reserve(max_channels * playout.samples(2 * opus::LONGEST));
        playout
    }

    /// The channels of what is played: one until stereo has been decoded.
    pub fn channels(&self) -> usize {
        self.decoder.channels()
    }

    /// How much there is to play.
    pub fn buffered(&self) -> Ticks {
        (self.pcm.len() / self.channels()) as Ticks * TICKS_PER_SECOND / Ticks::from(self.rate)
    }

    /// Decodes `payload`; `false`, and nothing added, if it is corrupt.
    pub fn decode(&mut self, payload: &[u8], header: Header) -> bool {
        if header.stereo && self.channels() < self.max_channels {
            self.become_stereo();
        }
        let start = self.begin();
        self.warm_up();
        let decoded = self.decoder.decode(payload, header.duration, &mut self.pcm);
        let power = stretch::power(&self.pcm[start..]);
        self.loudness = power.max(self.loudness * FORGET);
        self.quiet = power <= self.loudness * QUIET;
        self.last.clear();
        self.last.extend_from_slice(payload);
        self.dtx = header.dtx;
        if header.dtx {
            self.comfort.remember(&self.pcm[start..]);
        }
        self.come_back(start, decoded)
    }

    /// Adds silence in place of `payload`, which nobody would hear; its memory is exchanged for another's.
    pub fn skip(&mut self, payload: &mut Vec<u8>, duration: Ticks) {
        self.pause(duration);
        self.skipped.rotate_left(1);
        self.skipped[WARM_UP - 1].clear();
        std::mem::swap(&mut self.skipped[WARM_UP - 1], payload);
    }

    /// Whether `payload` is the same as the last one that was decoded.
    pub fn repeats(&self, payload: &[u8]) -> bool {
        self.last == payload
    }

    /// Decodes what was skipped last, for nobody to hear.
    fn warm_up(&mut self) {
        let start = self.pcm.len();
        for payload in &mut self.skipped {
            if let Some(header) = Header::parse(payload) {
                self.decoder.decode(payload, header.duration, &mut self.pcm);
                self.pcm.truncate(start);
            }
            payload.clear();
        }
    }

    /// Adds the `duration` before `payload`, from the copy that is in it; `false`, and nothing added, if it is corrupt.
    pub fn recover(&mut self, payload: &[u8], duration: Ticks) -> bool {
        let start = self.begin();
        self.warm_up();
        let recovered = self.decoder.recover(payload, duration, &mut self.pcm);
        self.come_back(start, recovered)
    }

    /// Lets the decoder make up `duration`, during which the level moves to `level`. Only for speech does it do its
    /// best, and not if it is to be `frugal`.
    ///
    /// Returns whether it did its best.
    pub fn conceal(&mut self, duration: Ticks, level: f32, frugal: bool) -> bool {
        let start = self.begin();
        self.warm_up();
        let concealment =
            if frugal || self.quiet { Concealment::Classic } else { Concealment::Neural };
        if !self.decoder.conceal(duration, concealment, &mut self.pcm) {
            self.pcm.resize(start + self.samples(duration), 0.0);
        }
        self.ramp(start, duration, level);
        concealment == Concealment::Neural
    }

    /// Whether the last packet was of a pause, and so can be imitated.
    pub fn knows_comfort(&self) -> bool {
        self.dtx
    }

    /// Adds `duration` of comfort noise, during which the level moves to `level`.
    pub fn comfort(&mut self, duration: Ticks, level: f32) {
        let start = self.begin();
        self.comfort.make(self.samples(duration), &mut self.pcm);
        self.ramp(start, duration, level);
    }

    /// Adds `duration` of silence.
    pub fn pause(&mut self, duration: Ticks) {
        let samples = self.samples(duration);
        self.pcm.resize(self.pcm.len() + samples, 0.0);
        self.silence += samples;
        self.level = 0.0;
    }

    /// Fades out the end of what there is: what comes next does not follow it.
    pub fn break_off(&mut self) {
        let tail = self.samples(FADE).min(self.pcm.len());
        // What is there carries its level already.
        self.level = 1.0;
        self.ramp(self.pcm.len() - tail, FADE, 0.0);
    }

    /// How much there must be for [`Playout::shorten`] to leave a frame.
    pub fn enough_to_shorten(&self) -> Ticks {
        2 * FRAME
    }

    /// Takes one pitch period out, if there is one; returns how many seconds that was.
    pub fn shorten(&mut self, alike: f32, length: Ticks) -> f64 {
        let criteria = self.criteria(alike, length);
        let channels = self.channels();
        self.begin();
        let removed = stretch::accelerate(&mut self.pcm, self.rate, channels, criteria);
        removed as f64 / f64::from(self.rate)
    }

    /// Repeats one pitch period, if there is one; returns how many seconds that was.
    pub fn lengthen(&mut self, alike: f32, length: Ticks) -> f64 {
        let criteria = self.criteria(alike, length);
        let channels = self.channels();
        self.begin();
        let added = stretch::expand(&mut self.pcm, self.rate, channels, criteria);
        added as f64 / f64::from(self.rate)
    }

    fn criteria(&self, alike: f32, length: Ticks) -> Criteria {
        let length = self.samples(length) / self.channels();
        Criteria { alike, quiet: self.loudness * QUIET, length }
    }

    /// Moves the next 20 ms into `frame`; whether they are known to be zeros.
    pub fn take(&mut self, frame: &mut Vec<f32>) -> bool {
        let samples = self.samples(FRAME);
        let silent = self.silence == self.pcm.len();
        frame.clear();
        if silent {
            frame.resize(samples, 0.0);
            self.pcm.truncate(self.pcm.len() - samples);
            self.silence -= samples;
        } else {
            frame.extend_from_slice(&self.pcm[..samples]);
            self.pcm.drain(..samples);
            self.silence = self.silence.min(self.pcm.len());
        }
        silent
    }

    /// Real audio was added at `start`: it fades in where silence was before.
    fn come_back(&mut self, start: usize, added: bool) -> bool {
        if added && self.level < 1.0 {
            self.ramp(start, FADE, 1.0);
        }
        added
    }

    /// Moves the level to `to` within `duration`, from the sample at `start`.
    fn ramp(&mut self, start: usize, duration: Ticks, to: f32) {
        if self.level == 1.0 && to == 1.0 {
            return;
        }
        let channels = self.channels();
        let length = (self.samples(duration) / channels) as f32;
        for (n, frame) in self.pcm[start..].chunks_exact_mut(channels).enumerate() {
            let passed = ((n + 1) as f32 / length).min(1.0);
            for sample in frame {
                *sample *= self.level + (to - self.level) * passed;
            }
        }
        self.level = to;
    }

    /// Where something else than silence is about to be added.
    fn begin(&mut self) -> usize {
        self.silence = 0;
        self.pcm.len()
    }

    fn become_stereo(&mut self) {
        self.decoder = Decoder::new(self.rate, 2);
        self.comfort = Comfort::new(self.rate, 2);
        let mono = self.pcm.len();
        self.pcm.resize(2 * mono, 0.0);
        for n in (0..mono).rev() {
            self.pcm[2 * n] = self.pcm[n];
            self.pcm[2 * n + 1] = self.pcm[2 * n];
        }
    }

    /// Values in `duration` of interleaved audio.
    fn samples(&self, duration: Ticks) -> usize {
        (duration * i64::from(self.rate) / TICKS_PER_SECOND) as usize * self.channels()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(playout: &mut Playout) -> Vec<f32> {
        let mut frame = Vec::new();
        playout.take(&mut frame);
        frame
    }

    #[test]
    fn what_there_is_comes_out_20_ms_at_a_time() {
        let mut playout = Playout::new(16_000, 2);
        playout.pause(ms(30));
        playout.conceal(ms(10), 1.0, false);
        assert_eq!(playout.buffered(), ms(40));
        assert_eq!(taken(&mut playout).len(), 320);
        assert_eq!(playout.buffered(), FRAME);
        assert_eq!(playout.channels(), 1);
    }

    #[test]
    fn silence_is_known_as_long_as_there_is_nothing_else() {
        let mut playout = Playout::new(48_000, 1);
        let mut frame = vec![1.0; 7];
        playout.pause(ms(30));
        assert!(playout.take(&mut frame));
        assert_eq!(frame, [0.0; 960]);
        playout.pcm.extend([0.5; 480]);
        playout.silence = 0;
        playout.pause(ms(40));
        assert!(!playout.take(&mut frame), "its second half is something");
        assert_eq!(frame[480..], [0.5; 480]);
        assert!(playout.take(&mut frame));
        assert_eq!(playout.buffered(), FRAME);
    }

    #[test]
    fn what_is_broken_off_ends_in_silence() {
        let mut playout = Playout::new(48_000, 1);
        playout.pcm = vec![0.5; 960];
        playout.level = 1.0;
        playout.break_off();
        let frame = taken(&mut playout);
        assert!(frame[..720].iter().all(|&sample| sample == 0.5));
        assert_eq!(frame[959], 0.0);
    }
}
