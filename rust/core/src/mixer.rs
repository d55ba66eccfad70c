//! Participants, the bus they are summed on, and the limiter behind it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::delay::Range;
use crate::denoise;
use crate::fader::{Fader, Faders};
use crate::floor;
use crate::kernel::Kernel;
use crate::limiter::Limiter;
use crate::minus::{Minus, Sums};
use crate::participant::{INAUDIBLE, Participant, Rendering};
use crate::programme::{self, Loudness, Programme};
use crate::time::{FRAMES_PER_SECOND, Moment, ms, ticks};
use crate::{Effort, Error, Result, Sample, lock};

/// The sample rates libopus decodes to.
const RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// An identity may have so many bytes: all of them go into one data channel message, which RFC 8831 (section 6.6) wants
/// to stay below 16 KB.
const LONGEST_IDENTITY: usize = 256;

/// The greatest volume.
const LOUDEST: i32 = 32_767;

/// A participant's volume since it was last asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Whose.
    pub identity: String,
    /// 0 … 32767, or −1 while muted.
    pub level: i32,
}

/// Mixes participants, 20 ms at a time. Usable from several threads: adding, removing and pushing do not wait for a
/// mix that is under way, but for the one participant that it is decoding at that moment.
pub struct Mixer {
    rate: u32,
    channels: usize,
    range: Range,
    leveler: AtomicBool,
    denoise: AtomicBool,
    /// `usize::MAX` is no limit.
    max_speakers: AtomicUsize,
    breaks_down: AtomicBool,
    /// Nanoseconds that a mix takes.
    cost: AtomicU64,
    /// Mixes since the last one in which anybody was aside.
    together: AtomicU32,
    loudness: Mutex<Option<Loudness>>,
    roster: Mutex<Roster>,
    bus: Mutex<Bus>,
}

#[derive(Default)]
struct Roster {
    participants: Vec<Participant>,
    faders: Faders,
    /// Somebody has come or gone since the last mix.
    changed: bool,
}

struct Bus {
    kernel: Kernel,
    limiter: Limiter,
    /// What the limiter was before the last mix: whoever is given a mix of their own begins with that.
    before: Limiter,
    sums: Sums,
    /// What is heard by who is in the room, and not in the mix.
    everybody: Option<Box<Minus>>,
    limited: Vec<f32>,
    /// The loudness of the mix, if it is measured, and what it is turned up or down by, from where to where.
    programme: Option<Box<Programme>>,
    gain: (f32, f32),
    /// The sum, turned up or down.
    turned: Vec<f32>,
    tick: u64,
    /// Whether anybody spoke in the last mix.
    speech: bool,
    /// The roster as of this mix.
    playing: Vec<Participant>,
    /// How strong each one's claim is to be mixed.
    claims: Vec<(f32, usize)>,
}

impl Mixer {
    /// A mixer of `channels` (1 or 2) at `sample_rate` (8000, 12000, 16000, 24000 or 48000 Hz). RTP is played out
    /// `min_delay` to `max_delay` seconds late, as the network demands.
    pub fn new(sample_rate: u32, channels: usize, min_delay: f64, max_delay: f64) -> Result<Self> {
        if !RATES.contains(&sample_rate) {
            let problem = format!("expected one of {RATES:?}, got {sample_rate}");
            return Err(Error::new("sample_rate", problem));
        }
        if !(1..=2).contains(&channels) {
            return Err(Error::new("channels", format!("expected 1 or 2, got {channels}")));
        }
        let range = Range {
            floor: ticks("min_delay", min_delay)?,
            ceiling: ticks("max_delay", max_delay)?,
        };
        if !(0..=ms(2000)).contains(&range.floor) {
            return Err(Error::new("min_delay", format!("expected 0 to 2 s, got {min_delay}")));
        }
        if !(range.floor..=ms(2000)).contains(&range.ceiling) {
            let problem = format!("expected min_delay to 2 s, got {max_delay}");
            return Err(Error::new("max_delay", problem));
        }
        let bus = Bus {
            kernel: Kernel::detect(),
            limiter: Limiter::new(sample_rate, channels),
            before: Limiter::new(sample_rate, channels),
            sums: Sums::new((sample_rate / FRAMES_PER_SECOND) as usize * channels),
            everybody: None,
            limited: vec![0.0; (sample_rate / FRAMES_PER_SECOND) as usize * channels],
            programme: None,
            gain: (1.0, 1.0),
            turned: Vec::new(),
            tick: 0,
            speech: false,
            playing: Vec::new(),
            claims: Vec::new(),
        };
        Ok(Self {
            rate: sample_rate,
            channels,
            range,
            leveler: AtomicBool::new(false),
            denoise: AtomicBool::new(false),
            max_speakers: AtomicUsize::new(usize::MAX),
            breaks_down: AtomicBool::new(false),
            cost: AtomicU64::new(0),
            together: AtomicU32::new(INAUDIBLE),
            loudness: Mutex::default(),
            roster: Mutex::default(),
            bus: Mutex::new(bus),
        })
    }

    /// Samples a second.
    pub fn sample_rate(&self) -> u32 {
        self.rate
    }

    /// Channels of the mix.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Samples per channel in the frame of 20 ms that each mix makes.
    pub fn frame_size(&self) -> usize {
        (self.rate / FRAMES_PER_SECOND) as usize
    }

    /// Samples by which the limiter delays the mix.
    pub fn latency(&self) -> usize {
        self.bus().limiter.latency()
    }

    /// Whether speakers are brought to one loudness.
    pub fn leveler(&self) -> bool {
        self.leveler.load(Ordering::Relaxed)
    }

    /// Begins or ceases to bring speakers to one loudness.
    pub fn set_leveler(&self, on: bool) {
        self.leveler.store(on, Ordering::Relaxed);
    }

    /// Whether noise is taken off everybody.
    pub fn denoise(&self) -> bool {
        self.denoise.load(Ordering::Relaxed)
    }

    /// Begins to take noise off everybody, or leaves off; at 48 kHz only.
    pub fn set_denoise(&self, on: bool) -> Result<()> {
        if on && self.rate != denoise::RATE {
            let problem = format!("expected a mixer at 48000 Hz, not {}", self.rate);
            return Err(Error::new("denoise", problem));
        }
        self.denoise.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// How loud the mix is, if that is measured; it is told twice a second.
    pub fn loudness(&self) -> Option<Loudness> {
        *lock(&self.loudness)
    }

    /// Measures the loudness of the mix from now on, and brings it to a `target` in LUFS, if there is one.
    pub fn set_loudness(&self, target: Option<f64>) -> Result<()> {
        if let Some(target) = target.filter(|target| !programme::TARGETS.contains(target)) {
            let (least, most) = (programme::TARGETS.start(), programme::TARGETS.end());
            let problem = format!("expected {least} to {most} LUFS, got {target}");
            return Err(Error::new("loudness", problem));
        }
        let bus = &mut *self.bus();
        if bus.programme.is_none() {
            bus.programme = Some(Box::new(Programme::new(self.rate, self.channels)?));
            *lock(&self.loudness) = Some(Loudness::SILENCE);
        }
        if let Some(programme) = &mut bus.programme {
            programme.set_target(target);
        }
        Ok(())
    }

    /// How many speakers are mixed at once; `None` is all.
    pub fn max_speakers(&self) -> Option<usize> {
        let most = self.max_speakers.load(Ordering::Relaxed);
        (most < usize::MAX).then_some(most)
    }

    /// Lets only the loudest `most` be mixed.
    pub fn set_max_speakers(&self, most: Option<usize>) -> Result<()> {
        if most == Some(0) {
            return Err(Error::new("max_speakers", "expected at least 1, or none for no limit"));
        }
        self.max_speakers.store(most.unwrap_or(usize::MAX), Ordering::Relaxed);
        Ok(())
    }

    /// The name of the instruction set the mix uses.
    pub fn kernel(&self) -> &'static str {
        self.bus().kernel.name()
    }

    /// Adds a participant, who may get further tracks; an identity may be in the mixer once.
    pub fn add_participant(&self, identity: &str) -> Result<Participant> {
        check_identity(identity)?;
        let mut roster = self.roster();
        if roster.has(identity) {
            return Err(Error::new("identity", format!("{identity:?} is in this mixer already")));
        }
        let participant = self.participant(&mut roster, identity);
        roster.add(&participant);
        Ok(participant)
    }

    fn participant(&self, roster: &mut Roster, identity: &str) -> Participant {
        let fader = roster.faders.of(identity);
        Participant::new(identity, fader, self.rate, self.channels, self.range)
    }

    /// What a host may set of whoever is called `identity`, now or later.
    pub fn fader(&self, identity: &str) -> Result<Arc<Fader>> {
        check_identity(identity)?;
        let faders = &mut self.roster().faders;
        if faders.has_room_for(identity) {
            return Ok(faders.of(identity));
        }
        Err(Error::new("identity", "expected fewer that are not here and have settings"))
    }

    /// Adds one more source of the participant called `identity`, who has one volume, and one solo, for all of them.
    pub fn add_track(&self, identity: &str) -> Result<Participant> {
        let mut roster = self.roster();
        if !roster.has(identity) {
            return Err(nobody(identity));
        }
        let track = self.participant(&mut roster, identity);
        roster.add(&track);
        Ok(track)
    }

    /// Removes one source of a participant, who may have others; it fades out in the next mix.
    pub fn remove_track(&self, track: &Participant) -> Result<()> {
        let roster = self.roster();
        let found = roster.present().find(|other| other.is(track));
        let problem = || Error::new("track", format!("no such one of {:?}", track.identity()));
        found.ok_or_else(problem)?.strip().leave();
        Ok(())
    }

    /// Removes the participant called `identity`, with all tracks; they fade out in the next mix.
    pub fn remove_participant(&self, identity: &str) -> Result<()> {
        let roster = self.roster();
        if !roster.has(identity) {
            return Err(nobody(identity));
        }
        for participant in roster.participants.iter().filter(|p| p.identity() == identity) {
            participant.strip().leave();
        }
        Ok(())
    }

    /// The identities of those present.
    pub fn identities(&self) -> Vec<String> {
        self.distinct(|_| true)
    }

    /// The identities of those present that are so, each once.
    fn distinct(&self, is_so: impl Fn(&Participant) -> bool) -> Vec<String> {
        let mut known = HashSet::new();
        let roster = self.roster();
        let found = roster.present().filter(|participant| is_so(participant));
        found
            .map(|one| one.identity())
            .filter(|one| known.insert(*one))
            .map(str::to_owned)
            .collect()
    }

    /// Mixes the 20 ms that end at `now` (seconds) into `out`, interleaved and peak-limited.
    pub fn mix<T: Sample>(&self, now: f64, out: &mut [T]) -> Result<()> {
        self.mix_sharing(now, out, &mut Effort::default())
    }

    /// The same as one of several rooms that share an `effort`.
    pub fn mix_sharing<T: Sample>(
        &self,
        now: f64,
        out: &mut [T],
        effort: &mut Effort,
    ) -> Result<()> {
        let now = Moment(ticks("now", now)?);
        let mut bus = self.bus();
        self.check("out", out.len())?;
        assert!(!self.breaks_down.load(Ordering::Relaxed), "the mixer was told to break down");
        let Bus {
            kernel,
            limiter,
            before,
            sums,
            limited,
            programme,
            gain,
            turned,
            tick,
            speech,
            playing,
            claims,
            ..
        } = &mut *bus;
        let spoken = std::mem::take(speech);
        self.roster().update(playing);
        sums.clear();
        grant(playing, claims, self.max_speakers.load(Ordering::Relaxed));
        let leveled = self.leveler.load(Ordering::Relaxed);
        let denoised = self.denoise.load(Ordering::Relaxed);
        let mut gone = false;
        for participant in playing.iter() {
            let mut strip = participant.strip();
            let how = Rendering { frugal: effort.is_spent(), leveled, denoised, speech: spoken };
            if strip.render(now, how, *kernel, sums) {
                effort.spend();
            }
            *speech |= strip.speaks();
            gone |= strip.faded_out();
        }
        if gone {
            self.roster().forget_gone();
        }
        *tick += 1;
        let together = self.together.load(Ordering::Relaxed).saturating_add(1);
        self.together.store(if sums.has_aside { 0 } else { together }, Ordering::Relaxed);
        before.follow(limiter);
        *gain = programme.as_mut().map_or((1.0, 1.0), |programme| programme.advance());
        if *gain == (1.0, 1.0) {
            limiter.process(&sums.mix, limited);
        } else {
            turned.clone_from(&sums.mix);
            programme::ramp(turned, self.channels, *gain);
            limiter.process(turned, limited);
        }
        if let Some(loudness) = programme.as_mut().and_then(|one| one.observe(limited)) {
            let reduction = 20.0 * f64::from(limiter.take_least_gain()).log10();
            *lock(&self.loudness) = Some(Loudness { reduction, ..loudness });
        }
        write(limited, out);
        Ok(())
    }

    /// Puts the last mix without `participant` into `out`: what that participant should hear. Where that was the mix
    /// itself until now, it follows without a step.
    pub fn mix_minus<T: Sample>(&self, participant: &Participant, out: &mut [T]) -> Result<()> {
        let mut bus = self.bus();
        self.check("out", out.len())?;
        if !self.roster().participants.iter().any(|other| other.is(participant)) {
            let problem = format!("{:?} is not in this mixer", participant.identity());
            return Err(Error::new("participant", problem));
        }
        let Bus { kernel, before, sums, gain, tick, .. } = &mut *bus;
        write(participant.strip().minus(*tick, *kernel, sums, *gain, before), out);
        Ok(())
    }

    /// Puts what the room hears of the last mix into `out`: everybody, also who is not in the mix.
    pub fn mix_of_room<T: Sample>(&self, out: &mut [T]) -> Result<()> {
        let mut bus = self.bus();
        self.check("out", out.len())?;
        let Bus { kernel, before, sums, gain, tick, everybody, .. } = &mut *bus;
        let new = || Box::new(Minus::new(self.rate, self.channels, sums.mix.len()));
        let everybody = everybody.get_or_insert_with(new);
        everybody.make(*tick, sums, *gain, *kernel, before, |_| {});
        write(everybody.frame(), out);
        Ok(())
    }

    /// Whether the room has heard anything else than the mix, now or in the last two seconds.
    pub fn has_aside(&self) -> bool {
        self.together.load(Ordering::Relaxed) < INAUDIBLE
    }

    /// The identities of those present whom a host has taken out of the mix.
    pub fn aside(&self) -> Vec<String> {
        if self.roster().faders.all_in_mix() {
            return Vec::new();
        }
        self.distinct(|participant| participant.strip().is_aside())
    }

    /// The identities of those present who are muted, as far as that is their own doing.
    pub fn muted(&self) -> Vec<String> {
        let sounding = self.distinct(|participant| !participant.strip().muted());
        let sounding: HashSet<String> = sounding.into_iter().collect();
        self.distinct(|participant| !sounding.contains(participant.identity()))
    }

    /// A mix has taken so long: what does not read a clock is told.
    pub fn note_cost(&self, took: Duration) {
        let (took, before) = (took.as_nanos() as u64, self.cost.load(Ordering::Relaxed));
        self.cost.store(before - before / 16 + took / 16, Ordering::Relaxed);
    }

    /// How long a mix has taken of late.
    pub fn cost(&self) -> Duration {
        Duration::from_nanos(self.cost.load(Ordering::Relaxed))
    }

    /// The next mix panics: to see what becomes of all else.
    #[doc(hidden)]
    pub fn break_down(&self) {
        self.breaks_down.store(true, Ordering::Relaxed);
    }

    /// What each participant is in the last mix, before the limiter, as one channel, in the order they came.
    pub fn solos(&self) -> Vec<(String, Vec<f32>)> {
        let _between_mixes = self.bus();
        let mut solos: Vec<(String, Vec<f32>)> = Vec::new();
        for participant in self.roster().present() {
            let solo = participant.strip().solo();
            match solos.iter_mut().find(|(identity, _)| identity == participant.identity()) {
                Some((_, sum)) => sum.iter_mut().zip(solo).for_each(|(sum, more)| *sum += more),
                None => solos.push((participant.identity().to_owned(), solo)),
            }
        }
        solos
    }

    /// The volume of each participant since the last call, in the order they came.
    pub fn volumes(&self) -> Vec<Volume> {
        let mut volumes: Vec<Volume> = Vec::new();
        for participant in self.roster().present() {
            let level = participant.strip().volume().unwrap_or(-1);
            match volumes.iter_mut().find(|volume| volume.identity == participant.identity()) {
                Some(volume) => volume.level = together(volume.level, level),
                None => volumes.push(Volume { identity: participant.identity().to_owned(), level }),
            }
        }
        volumes
    }

    fn check(&self, argument: &'static str, length: usize) -> Result<()> {
        let expected = self.frame_size() * self.channels;
        if length == expected {
            return Ok(());
        }
        Err(Error::new(argument, format!("expected {expected} samples, got {length}")))
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        lock(&self.roster)
    }

    fn bus(&self) -> MutexGuard<'_, Bus> {
        lock(&self.bus)
    }
}

impl Roster {
    /// Those who have not left.
    fn present(&self) -> impl Iterator<Item = &Participant> {
        self.participants.iter().filter(|participant| !participant.strip().left())
    }

    fn has(&self, identity: &str) -> bool {
        self.present().any(|participant| participant.identity() == identity)
    }

    fn add(&mut self, participant: &Participant) {
        self.participants.push(participant.clone());
        self.changed = true;
    }

    /// Makes `playing` the same, if it is not.
    fn update(&mut self, playing: &mut Vec<Participant>) {
        if std::mem::take(&mut self.changed) {
            playing.clone_from(&self.participants);
        }
    }

    /// Drops those who have left and faded out.
    fn forget_gone(&mut self) {
        self.participants.retain(|participant| !participant.strip().faded_out());
        self.changed = true;
    }
}

fn check_identity(identity: &str) -> Result<()> {
    if (1..=LONGEST_IDENTITY).contains(&identity.len()) {
        return Ok(());
    }
    let problem = format!("expected 1 to {LONGEST_IDENTITY} bytes, got {}", identity.len());
    Err(Error::new("identity", problem))
}

fn nobody(identity: &str) -> Error {
    Error::new("identity", format!("no {identity:?} in this mixer"))
}

/// The volume of two sources that have nothing to do with each other: their powers add up.
fn together(one: i32, other: i32) -> i32 {
    if one.min(other) < 0 {
        return one.max(other);
    }
    (f64::from(one).hypot(f64::from(other)).round() as i32).min(LOUDEST)
}

/// Lets the `most` loudest of `playing` be mixed, and who is not to be in the mix be heard.
fn grant(playing: &[Participant], claims: &mut Vec<(f32, usize)>, most: usize) {
    let limited = most < playing.len();
    if !limited && claims.is_empty() {
        return;
    }
    claims.clear();
    if !limited {
        playing.iter().for_each(|participant| participant.strip().claim().grant(true));
        return;
    }
    for (n, participant) in playing.iter().enumerate() {
        let mut strip = participant.strip();
        if strip.is_aside() {
            strip.claim().grant(true);
        } else {
            claims.push((strip.claim().strength(), n));
        }
    }
    floor::strongest_first(claims, most);
    for (place, &(_, n)) in claims.iter().enumerate() {
        playing[n].strip().claim().grant(place < most);
    }
}

fn write<T: Sample>(frame: &[f32], out: &mut [T]) {
    for (place, &sample) in out.iter_mut().zip(frame) {
        *place = T::from_f32(sample);
    }
}
