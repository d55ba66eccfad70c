//! One participant's channel strip: source, meter, mute, fade and gain.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::delay::Range;
use crate::denoise::{self, Denoiser};
use crate::duck::{self, Duck};
use crate::fade::Fade;
use crate::fader::{self, Fader};
use crate::floor::Claim;
use crate::hearing::{Attention, Heard};
use crate::kernel::{Kernel, Measure};
use crate::level::Meter;
use crate::leveler::Leveler;
use crate::limiter::Limiter;
use crate::minus::{Minus, Sums};
use crate::mute::Detector;
use crate::pcm::Fifo;
use crate::receiver::Receiver;
use crate::resample::Resampler;
use crate::time::{FRAME, FRAMES_PER_SECOND, Moment, ticks};
use crate::trust::{self, Trust};
use crate::{Error, Result, Sample, Stats, lock};

/// Music may go down by so many decibels for speech.
const DEEPEST: f32 = -60.0;
/// PCM beyond this (36 dB over full scale) is no audio.
const MAX_SAMPLE: f32 = 64.0;
/// After so many mixes in which a participant was not, which are two seconds, it is taken for a listener.
pub(crate) const INAUDIBLE: u32 = 2 * FRAMES_PER_SECOND;

/// A participant of a [`Mixer`](crate::Mixer). Clones are handles of the same participant, usable from any thread:
/// a packet may be pushed while a mix is under way.
#[derive(Clone)]
pub struct Participant {
    identity: Arc<str>,
    strip: Arc<Mutex<Strip>>,
}

impl Participant {
    pub(crate) fn new(
        identity: &str,
        fader: Arc<Fader>,
        rate: u32,
        channels: usize,
        range: Range,
    ) -> Self {
        let strip = Strip::new(fader, rate, channels, range);
        Self { identity: identity.into(), strip: Arc::new(Mutex::new(strip)) }
    }

    /// Who this is.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Takes in one RTP packet's Opus `payload`, which came at `arrival` seconds. `audio_level` is the RFC 6464
    /// level in −dBov, where the sender gave one. A packet that is no Opus is counted and dropped.
    pub fn push_rtp(
        &self,
        sequence_number: u16,
        timestamp: u32,
        payload: &[u8],
        arrival: f64,
        audio_level: Option<u8>,
    ) -> Result<()> {
        let arrival = Moment(ticks("arrival", arrival)?);
        if audio_level.is_some_and(|level| level > 127) {
            return Err(Error::new("audio_level", "expected 0 to 127 (−dBov)"));
        }
        let mut strip = self.present()?;
        let receiver = strip.receiver()?;
        receiver.push(sequence_number, timestamp, payload, arrival, audio_level);
        Ok(())
    }

    /// Takes in `samples` of one or two interleaved `channels`, full scale being ±1: at the mixer's rate, or at another,
    /// of 8000 to 192000 Hz, from which they are resampled 10 ms at a time.
    pub fn push_pcm<T: Sample>(
        &self,
        samples: &[T],
        channels: usize,
        sample_rate: Option<u32>,
    ) -> Result<()> {
        // Of all of them, without a way out: so many at a time.
        let audible = |good, sample: &T| good & (sample.to_f32().abs() <= MAX_SAMPLE);
        if !samples.iter().fold(true, audible) {
            return Err(Error::new("samples", format!("expected values within ±{MAX_SAMPLE}")));
        }
        let mut strip = self.present()?;
        let rate = sample_rate.unwrap_or(strip.rate);
        if rate == strip.rate {
            strip.resampler = None;
            strip.fifo()?.push(samples, channels);
            return Ok(());
        }
        strip.fifo()?;
        let Strip { rate: target, resampler, source: Source::Pcm(fifo), .. } = &mut *strip else {
            return Ok(());
        };
        if !resampler.as_ref().is_some_and(|resampler| resampler.fits(rate, channels)) {
            *resampler = Some(Box::new(Resampler::new(rate, *target, channels)?));
        }
        if let Some(resampler) = resampler {
            resampler.push(|waiting| T::append(samples, waiting), |made| fifo.push(made, channels));
        }
        Ok(())
    }

    /// The gain in the mix, beside that of the fader, which volumes have as well.
    pub fn gain(&self) -> f32 {
        self.strip().gain
    }

    /// Sets the gain, 0 to 4; it takes effect within 20 ms, without a click.
    pub fn set_gain(&self, gain: f32) -> Result<()> {
        let gain = fader::checked(gain)?;
        self.present()?.gain = gain;
        Ok(())
    }

    /// By how many decibels it goes down while others speak, 0 or less.
    pub fn duck(&self) -> f32 {
        self.strip().duck.as_ref().map_or(0.0, Duck::depth)
    }

    /// Has it go down by so many decibels, −60 to 0, while others speak, who do not do so themselves.
    pub fn set_duck(&self, decibels: f32) -> Result<()> {
        if !(DEEPEST..=0.0).contains(&decibels) {
            let problem = format!("expected {DEEPEST} to 0 dB, got {decibels}");
            return Err(Error::new("duck", problem));
        }
        self.present()?.duck = (decibels < 0.0).then(|| Duck::new(decibels));
        Ok(())
    }

    /// Whether signalling says that the participant is muted.
    pub fn signalled_mute(&self) -> Option<bool> {
        self.strip().signalled_mute
    }

    /// Sets what signalling says about mute; with `None` it is detected from the audio.
    pub fn set_signalled_mute(&self, muted: Option<bool>) -> Result<()> {
        self.present()?.signalled_mute = muted;
        Ok(())
    }

    /// Whether the last mix is anything else without this participant, or one of the last two seconds was.
    pub fn audible(&self) -> bool {
        self.strip().inaudible < INAUDIBLE
    }

    /// What happened to the participant's packets so far.
    pub fn stats(&self) -> Stats {
        self.strip().stats()
    }

    pub(crate) fn strip(&self) -> MutexGuard<'_, Strip> {
        lock(&self.strip)
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.strip, &other.strip)
    }

    fn present(&self) -> Result<MutexGuard<'_, Strip>> {
        let strip = self.strip();
        if strip.left {
            return Err(Error::new("participant", format!("{:?} has left", self.identity)));
        }
        Ok(strip)
    }
}

enum Source {
    /// Nothing has come yet.
    Unknown,
    Rtp(Box<Receiver>),
    Pcm(Fifo),
}

/// The state behind a [`Participant`].
pub(crate) struct Strip {
    fader: Arc<Fader>,
    rate: u32,
    channels: usize,
    range: Range,
    source: Source,
    /// What brings PCM to the mixer's rate, if it needs to be.
    resampler: Option<Box<Resampler>>,
    gain: f32,
    signalled_mute: Option<bool>,
    left: bool,
    fade: Fade,
    /// How much of it is in the mix; the rest is aside.
    place: Fade,
    /// That, at the beginning of `frame` and at its end.
    share: (f32, f32),
    detector: Detector,
    meter: Meter,
    leveler: Option<Box<Leveler>>,
    denoiser: Option<Box<Denoiser>>,
    duck: Option<Duck>,
    /// Whether the last frame was speech that others go down for.
    speaks: bool,
    claim: Claim,
    trust: Trust,
    now: Moment,
    /// What was played last, interleaved.
    frame: Vec<f32>,
    frame_channels: usize,
    /// `frame` is known to be zeros.
    silent: bool,
    /// The gain at which `frame` is in the mix, or aside.
    mixed: f32,
    /// Mixes since the last one in which it was.
    inaudible: u32,
    minus: Option<Box<Minus>>,
}

/// How a strip is rendered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rendering {
    /// Lost audio is concealed simply.
    pub frugal: bool,
    /// Speakers are brought to one loudness.
    pub leveled: bool,
    /// Noise is taken off everybody.
    pub denoised: bool,
    /// Somebody spoke in the last mix.
    pub speech: bool,
}

impl Strip {
    fn new(fader: Arc<Fader>, rate: u32, channels: usize, range: Range) -> Self {
        let share = f32::from(fader.in_mix());
        Self {
            fader,
            rate,
            channels,
            range,
            source: Source::Unknown,
            resampler: None,
            gain: 1.0,
            signalled_mute: None,
            left: false,
            fade: Fade::new(rate, 0.0),
            place: Fade::new(rate, share),
            share: (share, share),
            detector: Detector::default(),
            meter: Meter::default(),
            leveler: None,
            denoiser: None,
            duck: None,
            speaks: false,
            claim: Claim::default(),
            trust: Trust::default(),
            now: Moment(0),
            frame: vec![0.0; (rate / FRAMES_PER_SECOND) as usize * channels],
            frame_channels: channels,
            silent: false,
            mixed: 0.0,
            inaudible: INAUDIBLE,
            minus: None,
        }
    }

    fn receiver(&mut self) -> Result<&mut Receiver> {
        if let Source::Unknown = self.source {
            let receiver = Receiver::new(self.rate, self.channels, self.range);
            self.source = Source::Rtp(Box::new(receiver));
        }
        match &mut self.source {
            Source::Rtp(receiver) => Ok(receiver),
            _ => Err(Error::new("payload", "expected PCM: this participant sends samples")),
        }
    }

    fn fifo(&mut self) -> Result<&mut Fifo> {
        if let Source::Unknown = self.source {
            self.source = Source::Pcm(Fifo::new(self.rate, self.channels));
        }
        match &mut self.source {
            Source::Pcm(fifo) => Ok(fifo),
            _ => Err(Error::new("samples", "expected RTP: this participant sends packets")),
        }
    }

    /// Makes the 20 ms that end at `now`, and adds them to `sums`; whether that took long
    /// ([`Pulled::toiled`](crate::receiver::Pulled)).
    pub fn render(&mut self, now: Moment, how: Rendering, kernel: Kernel, sums: &mut Sums) -> bool {
        self.now = now;
        match &mut self.leveler {
            None if how.leveled => self.leveler = Some(Box::new(Leveler::new(self.rate))),
            Some(leveler) if !how.leveled && leveler.retired() => self.leveler = None,
            Some(leveler) => leveler.retire(!how.leveled),
            None => {}
        }
        let unheard = self.silenced() || !self.claim.granted();
        let attention = self.attention(unheard, how.frugal);
        let mut toiled = false;
        let heard = match &mut self.source {
            Source::Unknown => Heard::Nothing,
            Source::Rtp(receiver) => {
                let pulled = receiver.pull(now, attention, &mut self.frame);
                self.frame_channels = receiver.channels();
                (self.silent, toiled) = (pulled.silent, pulled.toiled);
                pulled.heard
            }
            Source::Pcm(fifo) => fifo.pull(&mut self.frame),
        };
        let ducked = self.duck.as_mut().map_or(1.0, |duck| duck.advance(how.speech));
        let gain = if unheard { 0.0 } else { self.gain * self.fader.gain() * ducked };
        let in_mix = f32::from(self.fader.in_mix());
        // Of what is heard of it: without its noise, if that is taken off.
        let mut heard_of = 0.0;
        let measure = if heard == Heard::Nothing {
            // Whatever comes next fades in.
            self.fade = Fade::new(self.rate, 0.0);
            self.place = Fade::new(self.rate, in_mix);
            self.share = (in_mix, in_mix);
            self.mixed = 0.0;
            self.rest_denoiser();
            Measure::default()
        } else {
            self.fade.set(gain);
            self.place.set(in_mix);
            let wanted = how.denoised || self.fader.denoise();
            let is_heard = gain > 0.0 || self.fade.steady() != Some(0.0);
            let as_it_came = self.take_noise_off(wanted, is_heard, kernel, sums);
            let real = matches!(heard, Heard::Received(_)) && attention != Attention::None;
            if let Some(leveler) = &mut self.leveler {
                leveler.listen(if real { &self.frame } else { &[] }, self.frame_channels);
            }
            let clean = self.add(kernel, sums);
            heard_of = clean.sum_squares;
            let measure = as_it_came.unwrap_or(clean);
            match heard {
                Heard::Announced(level) => {
                    self.trust.believe();
                    let measure = self.announced(level);
                    heard_of = measure.sum_squares;
                    measure
                }
                Heard::Received(Some(level)) => {
                    if self.trust.compare(level, measure.sum_squares / self.frame.len() as f32) {
                        self.claim.forget();
                    }
                    measure
                }
                _ => measure,
            }
        };
        let is_in = self.mixed != 0.0 && !self.silent;
        self.inaudible = if is_in { 0 } else { self.inaudible.saturating_add(1) };
        self.detector.observe(heard, measure.peak, FRAME);
        self.meter.add(measure, self.fader.gain() * ducked, self.frame.len());
        // Who is muted claims nothing.
        let claimed = if self.silenced() { 0.0 } else { heard_of };
        self.claim.observe(claimed / self.frame.len() as f32);
        let heard = self.mixed * self.mixed * claimed / self.frame.len() as f32;
        self.speaks = self.duck.is_none() && self.fader.in_mix() && duck::is_speech(heard);
        toiled
    }

    /// Whether nothing of it is to be heard, whoever else speaks.
    fn silenced(&self) -> bool {
        self.left || self.signalled_mute == Some(true) || self.fader.muted()
    }

    /// How closely to listen to who is `unheard` or not.
    fn attention(&self, unheard: bool, frugal: bool) -> Attention {
        let announces = matches!(&self.source, Source::Rtp(receiver) if receiver.announces());
        let trusting = announces && self.trust.believes();
        // Who may be mixed again has to be measured.
        let measured = self.claim.granted() || trusting || self.silenced();
        if unheard && measured && self.fade.steady() == Some(0.0) {
            Attention::None
        } else if self.detector.silent() {
            Attention::Drowsy { trusting }
        } else if frugal || unheard {
            Attention::Frugal
        } else {
            Attention::Close
        }
    }

    /// Takes the noise off the frame, if that is wanted and heard; what is measured of it before.
    fn take_noise_off(
        &mut self,
        wanted: bool,
        heard: bool,
        kernel: Kernel,
        sums: &mut Sums,
    ) -> Option<Measure> {
        if self.silent || !heard || self.rate != denoise::RATE {
            self.rest_denoiser();
            return None;
        }
        let is_at_work = self.denoiser.as_ref().is_some_and(|denoiser| !denoiser.is_dry());
        if !wanted && !is_at_work {
            return None;
        }
        let measure = self.add_at(0.0, kernel, &mut sums.mix);
        let channels = self.frame_channels;
        let denoiser = self.denoiser.take().filter(|denoiser| denoiser.fits(channels));
        let mut denoiser = denoiser.unwrap_or_else(|| Box::new(Denoiser::new(channels)));
        denoiser.process(&mut self.frame, wanted);
        self.denoiser = Some(denoiser);
        Some(measure)
    }

    /// What comes next begins as it is.
    fn rest_denoiser(&mut self) {
        if let Some(denoiser) = &mut self.denoiser {
            denoiser.rest();
        }
    }

    fn add(&mut self, kernel: Kernel, sums: &mut Sums) -> Measure {
        let place = self.place.steady();
        if let Some(share) = place {
            self.share = (share, share);
        }
        let leveled = self.leveler.as_ref().map_or(Some(1.0), |leveler| leveler.steady());
        if let (Some(gain), Some(leveled), Some(share)) = (self.fade.steady(), leveled, place) {
            self.mixed = gain * leveled;
            if self.silent {
                return Measure::default();
            }
            return self.add_at(self.mixed, kernel, sums.of(share > 0.0));
        }
        let measure = self.add_at(0.0, kernel, &mut sums.mix);
        if let Some(leveler) = &self.leveler {
            leveler.apply(&mut self.frame, self.frame_channels);
        }
        self.fade.apply(&mut self.frame, self.frame_channels);
        self.mixed = 1.0;
        if let Some(share) = place {
            self.add_at(1.0, kernel, sums.of(share > 0.0));
        } else {
            sums.has_aside = true;
            let Sums { mix, aside, .. } = sums;
            self.share =
                self.place.share(&self.frame, self.frame_channels, self.channels, mix, aside);
        }
        measure
    }

    /// What would have been measured of a frame of this RFC 6464 `level`.
    fn announced(&self, level: u8) -> Measure {
        let power = trust::power(level);
        Measure { sum_squares: power * self.frame.len() as f32, peak: power.sqrt() }
    }

    /// The only way onto the bus, and with a negative gain off it.
    fn add_at(&self, gain: f32, kernel: Kernel, bus: &mut [f32]) -> Measure {
        if self.frame_channels < self.channels {
            kernel.add_mono(bus, &self.frame, gain)
        } else {
            kernel.add(bus, &self.frame, gain)
        }
    }

    /// What this participant is in the last mix, as one channel.
    pub fn solo(&self) -> Vec<f32> {
        let frames = self.frame.chunks_exact(self.frame_channels);
        let gain = self.mixed / self.frame_channels as f32;
        let (first, step) = (gain * self.share.0, gain * (self.share.1 - self.share.0));
        let step = step / frames.len() as f32;
        let gains = (0..).map(|n| first + step * n as f32);
        frames.zip(gains).map(|(all, gain)| all.iter().sum::<f32>() * gain).collect()
    }

    /// Makes what this participant hears of the mix number `tick`, whose limiter was `before`.
    pub fn minus(
        &mut self,
        tick: u64,
        kernel: Kernel,
        sums: &Sums,
        gain: (f32, f32),
        before: &Limiter,
    ) -> &[f32] {
        let (rate, channels) = (self.rate, self.channels);
        let new = || Box::new(Minus::new(rate, channels, sums.mix.len()));
        let mut minus = self.minus.take().unwrap_or_else(new);
        minus.make(tick, sums, gain, kernel, before, |bus| {
            if self.mixed != 0.0 {
                self.add_at(-self.mixed, kernel, bus);
            }
        });
        self.minus.insert(minus).frame()
    }

    /// Whether it is muted, as far as that is its own doing.
    pub fn muted(&self) -> bool {
        self.signalled_mute.unwrap_or(self.detector.muted())
    }

    /// Whether a host has taken it out of the mix.
    pub fn is_aside(&self) -> bool {
        !self.fader.in_mix()
    }

    /// Whether the last frame was speech that others go down for.
    pub fn speaks(&self) -> bool {
        self.speaks
    }

    /// The claim to be mixed, where not all are.
    pub fn claim(&mut self) -> &mut Claim {
        &mut self.claim
    }

    /// The participant leaves: its last frame, at the next mix, fades out.
    pub fn leave(&mut self) {
        self.left = true;
    }

    pub fn left(&self) -> bool {
        self.left
    }

    /// Whether it has left, and nothing of it is heard any more.
    pub fn faded_out(&self) -> bool {
        self.left && self.fade.steady() == Some(0.0)
    }

    /// Volume since the last call; `None` is muted.
    pub fn volume(&mut self) -> Option<i32> {
        let level = self.meter.take();
        let muted = self.muted() || self.fader.muted();
        (!muted).then_some(level)
    }

    fn stats(&self) -> Stats {
        match &self.source {
            Source::Unknown => Stats::default(),
            Source::Rtp(receiver) => receiver.stats(self.now),
            Source::Pcm(fifo) => Stats { overflow: fifo.dropped(), ..Stats::default() },
        }
    }
}
