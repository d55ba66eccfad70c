//! Receives one participant's RTP: decides, 20 ms at a time, what to decode and what to make up.
//!
//! The rules:
//! 1. The *playhead* is the timestamp that is decoded next. A packet is due when it has been held for the target
//!    delay ([`delay`](crate::delay)), counted from when it would have come through an undelayed network.
//! 2. While playing, packets follow each other by timestamp. Where one is missing although a newer one is there, it
//!    is lost: the newer one's in-band FEC repairs it, or else the decoder conceals it; the playhead moves on.
//! 3. Where nothing is there at all, the decoder makes something up, fading out by 200 ms, and *the playhead stays*:
//!    a late packet is still played. The delay won by that is given back by cutting pitch periods, and a delay that
//!    is too small for the network is won by repeating some ([`stretch`](crate::stretch)).
//! 4. A sender's own pause (DTX, or a jump of the timestamp with consecutive sequence numbers) is no loss: comfort
//!    noise for a second at most, then silence, until the next packet is due.
//! 5. A sender whose clock stands still while it pauses is set forward by as much ([`standstill`](crate::standstill)).
//! 6. A packet that holds no Opus is a part of the sequence, and of nothing else.
//! 7. A packet that does not fit the sequence or the clock, or goes on with an earlier timestamp, is dropped. When the
//!    next one continues it, the sender has started anew, and so does the receiver ([`sender`](crate::sender)).

use crate::adjust::{Adjustment, adjustment};
use crate::delay::{Estimator, Range};
use crate::hearing::{Attention, Heard, LEVEL_OF_SILENCE};
use crate::history::History;
use crate::jitter::{Inserted, JitterBuffer, Packet};
use crate::made_up::{BREAK, COMFORT, CONCEALMENT, MadeUp};
use crate::opus::{self, Header};
use crate::playhead::{Place, State};
use crate::playout::Playout;
use crate::sender::{Arrival, Sender, Verdict};
use crate::standstill::{self, Standstill};
use crate::stats::Stats;
use crate::time::{FRAME, Moment, Sequence, Stamp, Ticks, Unwrap, ms, seconds};

/// Made-up audio comes in pieces of this length.
const PIECE: Ticks = ms(10);
/// The delay may be over its ceiling by this.
const SLACK: Ticks = ms(20);

/// What [`Receiver::pull`] says of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Pulled {
    /// Where its samples came from.
    pub heard: Heard,
    /// Whether it took up to 1 ms, as audio was concealed as well as can be.
    pub toiled: bool,
    /// Whether it is known to be zeros: there is nothing to add to a mix.
    pub silent: bool,
}

/// One participant's stream, from packets to samples.
pub struct Receiver {
    buffer: JitterBuffer,
    estimator: Estimator,
    playout: Playout,
    sender: Sender,
    standstill: Standstill,
    sequence: Unwrap<16>,
    timestamp: Unwrap<32>,
    history: History,
    state: State,
    place: Place,
    made_up: MadeUp,
    /// How much of it was for packets that may turn out never to have been sent.
    unproven: Ticks,
    heard: Heard,
    attention: Attention,
    /// Audio was concealed as well as can be in this frame.
    toiled: bool,
    last_edit: Moment,
    /// The newest packet told its level.
    announces: bool,
    stats: Stats,
}

impl Receiver {
    /// A receiver that decodes to `rate` Hz and at most `max_channels`.
    pub fn new(rate: u32, max_channels: usize, range: Range) -> Self {
        Self {
            buffer: JitterBuffer::new(range.ceiling),
            estimator: Estimator::new(range),
            playout: Playout::new(rate, max_channels),
            sender: Sender::default(),
            standstill: Standstill::default(),
            sequence: Unwrap::default(),
            timestamp: Unwrap::default(),
            history: History::default(),
            state: State::Waiting,
            place: Place::default(),
            made_up: MadeUp::default(),
            unproven: 0,
            heard: Heard::Nothing,
            attention: Attention::Close,
            toiled: false,
            last_edit: Moment(Ticks::MIN / 2),
            announces: false,
            stats: Stats::default(),
        }
    }

    /// The channels that [`Receiver::pull`] gives: one until the sender has sent stereo.
    pub fn channels(&self) -> usize {
        self.playout.channels()
    }

    /// Whether the sender tells the level of each packet: then it is known without decoding.
    pub fn announces(&self) -> bool {
        self.announces
    }

    /// Takes a packet in, as it came at `arrival`.
    pub fn push(
        &mut self,
        sequence: u16,
        timestamp: u32,
        payload: &[u8],
        arrival: Moment,
        audio_level: Option<u8>,
    ) {
        let header = Header::parse(payload).unwrap_or(Header::EMPTY);
        let packet = Arrival { sequence, timestamp, at: arrival };
        let verdict = self.sender.judge(packet, self.estimator.range().ceiling);
        match verdict {
            Verdict::Continues | Verdict::GoesOn => {}
            Verdict::StartsAnew => self.restart(),
            Verdict::Stranger => {
                self.stats.discarded += 1;
                return;
            }
        }
        let sequence = Sequence(self.sequence.unwrap(u32::from(packet.sequence)));
        let timestamp = Stamp(self.timestamp.unwrap(packet.timestamp));
        if !self.history.insert(sequence) {
            self.stats.duplicate += 1;
            return;
        }
        if header == Header::EMPTY {
            let count = if payload.is_empty() {
                &mut self.stats.received
            } else {
                &mut self.stats.discarded
            };
            *count += 1;
            if sequence > self.place.sequence {
                let timestamp = timestamp + self.standstill.offset();
                self.buffer.insert(sequence, timestamp, header, None, &[]);
            }
            return;
        }
        self.stats.received += 1;
        self.announces = audio_level.is_some();
        let timestamp = self.observe(arrival, timestamp, verdict == Verdict::GoesOn);
        if self.place.playhead.is_some_and(|playhead| timestamp < playhead) {
            self.stats.late += 1;
            return;
        }
        let kept = self.buffer.insert(sequence, timestamp, header, audio_level, payload);
        match kept {
            Inserted::Kept => {}
            Inserted::Overflow => self.stats.overflow += 1,
            Inserted::Duplicate => self.stats.duplicate += 1,
        }
    }

    /// Takes note of when a packet came; its timestamp, set forward by what the sender's clock stood still.
    fn observe(&mut self, arrival: Moment, timestamp: Stamp, goes_on: bool) -> Stamp {
        let timestamp = timestamp + self.standstill.offset();
        let late = arrival.transit(timestamp) - self.estimator.undelayed();
        if goes_on && late >= standstill::LATE && self.buffer.head().is_none() {
            self.settle(standstill::Verdict::ClockStood);
            self.standstill.suspect(late);
            self.standstill.hold((arrival, timestamp + late));
            return timestamp + late;
        }
        if !self.standstill.suspects() {
            self.estimator.observe(arrival, timestamp);
            return timestamp;
        }
        match self.standstill.hold((arrival, timestamp)) {
            standstill::Verdict::Open => timestamp,
            verdict => timestamp - self.settle(verdict),
        }
    }

    /// It is known what the last silence was: by how much timestamps are set back.
    fn settle(&mut self, verdict: standstill::Verdict) -> Ticks {
        let (back, held) = self.standstill.settle(verdict);
        self.buffer.set_back(back);
        self.place.set_back(back);
        held.for_each(|(arrival, timestamp)| self.estimator.observe(arrival, timestamp));
        back
    }

    /// The sender has started anew: what it sent before is forgotten, but for the samples decoded already.
    fn restart(&mut self) {
        if self.state.plays() && !self.made_up.has_faded(CONCEALMENT) {
            // What comes next does not follow what was decoded.
            self.conceal(PIECE);
            self.playout.break_off();
        }
        self.buffer.clear();
        self.estimator = Estimator::new(self.estimator.range());
        self.standstill = Standstill::default();
        self.sequence = Unwrap::default();
        self.timestamp = Unwrap::default();
        self.stats.lost += self.history.missing();
        self.history = History::default();
        self.place.playhead = None;
        self.state = State::Waiting;
    }

    /// Puts the 20 ms that end at `now` into `frame`, interleaved as [`Receiver::channels`] then says.
    pub fn pull(&mut self, now: Moment, attention: Attention, frame: &mut Vec<f32>) -> Pulled {
        self.attention = attention;
        self.toiled = false;
        let start = now - FRAME;
        while self.playout.buffered() < FRAME {
            if self.state.plays() {
                self.play();
            } else {
                self.wait(start + self.playout.buffered());
            }
        }
        if self.state.plays() && self.can_skip(start) {
            self.playout.break_off();
            self.state = self.state.at_rest();
        } else if self.state.plays() {
            self.adjust(start);
        }
        let silent = self.playout.take(frame);
        Pulled { heard: self.heard, toiled: self.toiled, silent }
    }

    /// What [`Stats`] says now; `delay` as of the frame that ended at `now`.
    pub fn stats(&self, now: Moment) -> Stats {
        let playing = self.state.plays();
        Stats {
            lost: self.stats.lost + self.history.missing(),
            delay: if playing { seconds(self.delay(now)) } else { 0.0 },
            target_delay: seconds(self.estimator.target()),
            jitter: seconds(self.estimator.jitter()),
            ..self.stats
        }
    }

    /// Silence or comfort noise until the oldest packet is due; `at` is when the next sample will be played.
    fn wait(&mut self, at: Moment) {
        self.pass_over_empty();
        let undelayed = self.estimator.undelayed();
        let latest = said_at(at, undelayed) - self.estimator.range().ceiling;
        while let (Some(head), Some(_)) = (self.buffer.head(), self.buffer.second()) {
            if head.timestamp >= latest {
                break;
            }
            self.stats.late += u64::from(head.header != Header::EMPTY);
            self.buffer.discard();
        }
        let missing = FRAME - self.playout.buffered();
        let wait = self.buffer.head().map_or(missing, |head| {
            (undelayed + self.estimator.target() - at.transit(head.timestamp)).clamp(0, missing)
        });
        match self.buffer.head() {
            Some(head) if wait < opus::STEP => {
                self.place.playhead = Some(head.timestamp);
                // Until it is decoded, what was before still holds.
                self.state =
                    if self.state == State::Pausing { State::Ebbing } else { State::Playing };
            }
            _ => self.pass((wait.max(1) + opus::STEP - 1) / opus::STEP * opus::STEP),
        }
    }

    /// Comfort noise for `duration`, or silence.
    fn pass(&mut self, duration: Ticks) {
        let listening = matches!(self.attention, Attention::Close | Attention::Frugal);
        if self.state.at_rest() == State::Pausing && listening {
            if self.playout.knows_comfort() && !self.made_up.has_faded(COMFORT) {
                self.heard = Heard::MadeUp;
                let level = self.made_up.add(duration, COMFORT);
                return self.playout.comfort(duration, level);
            }
            if !self.made_up.has_faded(CONCEALMENT) {
                // The sender has paused without a packet that tells what its pause sounds like.
                self.heard = Heard::MadeUp;
                let level = self.made_up.add(duration, BREAK);
                self.playout.conceal(duration, level, true);
                return;
            }
        }
        if self.playout.buffered() == 0 {
            self.heard = Heard::Nothing;
        }
        self.playout.pause(duration);
    }

    /// The next piece of audio: decoded, repaired or made up.
    fn play(&mut self) {
        self.pass_over_empty();
        let Some(head) = self.buffer.head() else {
            if self.state == State::Ebbing || self.made_up.has_faded(CONCEALMENT) {
                self.state = self.state.at_rest();
            } else {
                self.unproven += PIECE;
                self.conceal(PIECE);
            }
            return;
        };
        let playhead = *self.place.playhead.get_or_insert(head.timestamp);
        let gap = head.timestamp - playhead;
        if gap < opus::STEP {
            self.decode_head();
        } else if self.state == State::Ebbing || self.place.is_followed_by(head.sequence) {
            self.state = State::Pausing;
        } else if self.made_up.has_faded(CONCEALMENT) {
            self.state = State::Waiting;
        } else {
            self.repair(gap);
        }
    }

    /// What holds no audio is not played, and its place in the sequence no gap.
    fn pass_over_empty(&mut self) {
        while self.buffer.head().is_some_and(|head| head.header == Header::EMPTY) {
            self.place.passed_over += 1;
            self.buffer.discard();
        }
    }

    fn decode_head(&mut self) {
        let Some(mut packet) = self.buffer.pop() else { return };
        let paused =
            self.place.is_followed_by(packet.sequence) && packet.timestamp > self.place.end;
        if paused {
            self.stats.concealed -= seconds(self.unproven);
        }
        self.unproven = 0;
        let end = packet.timestamp + packet.header.duration;
        let sequence = packet.sequence;
        self.place = Place { playhead: Some(end), sequence, end, passed_over: 0 };
        self.state = if packet.header.dtx { State::Ebbing } else { State::Playing };
        if self.can_ignore(&packet) {
            self.heard = match (self.attention, packet.audio_level) {
                (Attention::Drowsy { trusting: false }, _) | (Attention::Drowsy { .. }, None) => {
                    Heard::Received(None)
                }
                (_, Some(level)) => Heard::Announced(level),
                (_, None) => Heard::MadeUp,
            };
            self.made_up.reset();
            self.playout.skip(&mut packet.payload, packet.header.duration);
        } else if self.playout.decode(&packet.payload, packet.header) {
            self.made_up.reset();
            self.heard =
                if packet.header.dtx { Heard::MadeUp } else { Heard::Received(packet.audio_level) };
        } else {
            self.stats.discarded += 1;
            self.conceal(packet.header.duration);
        }
        self.buffer.recycle(packet);
    }

    /// Whether nobody would hear `packet`.
    fn can_ignore(&self, packet: &Packet) -> bool {
        match self.attention {
            Attention::Close | Attention::Frugal => false,
            Attention::Drowsy { trusting } => {
                packet.header.dtx
                    || trusting && packet.audio_level == Some(LEVEL_OF_SILENCE)
                    || self.playout.repeats(&packet.payload)
            }
            Attention::None => true,
        }
    }

    /// Rule 2: `gap` is missing before the oldest packet. What was made up while nothing was there is a part of it.
    fn repair(&mut self, gap: Ticks) {
        let Some(head) = self.buffer.head() else { return };
        let repeated = if opus::has_fec(&head.payload) { head.header.duration } else { 0 };
        let made_up = self.unproven.min(gap - repeated) / opus::STEP * opus::STEP;
        let piece = if made_up > 0 {
            self.unproven = 0;
            made_up
        } else if repeated > 0 && gap <= repeated {
            let gap = gap / opus::STEP * opus::STEP;
            if self.attention != Attention::None && self.playout.recover(&head.payload, gap) {
                self.stats.recovered += 1;
                self.heard = Heard::MadeUp;
                self.made_up.reset();
            } else {
                self.conceal(gap);
            }
            gap
        } else {
            let piece = (gap - repeated).min(ms(20)) / opus::STEP * opus::STEP;
            let piece = piece.max(opus::STEP);
            self.conceal(piece);
            piece
        };
        self.place.playhead = self.place.playhead.map(|playhead| playhead + piece);
    }

    fn conceal(&mut self, duration: Ticks) {
        self.stats.concealed += seconds(duration);
        self.heard = Heard::MadeUp;
        let level = self.made_up.add(duration, CONCEALMENT);
        if self.attention == Attention::None {
            self.playout.pause(duration);
        } else {
            let frugal = self.attention != Attention::Close;
            self.toiled |= self.playout.conceal(duration, level, frugal);
        }
    }

    /// Rule 3, second half: brings the delay nearer to its target.
    fn adjust(&mut self, at: Moment) {
        let Some(Adjustment { lengthen, length, alike }) =
            adjustment(self.delay(at), at - self.last_edit, &self.estimator)
        else {
            return;
        };
        let before = self.stats.expanded + self.stats.accelerated;
        if lengthen && self.made_up.is_none() {
            self.stats.expanded += self.playout.lengthen(alike, length);
        } else if !lengthen && self.decode_ahead(self.playout.enough_to_shorten()) {
            self.stats.accelerated += self.playout.shorten(alike, length);
        }
        if self.stats.expanded + self.stats.accelerated > before {
            self.last_edit = at;
        }
    }

    /// Decodes until `enough` is there; `false` if the packets for it are not.
    fn decode_ahead(&mut self, enough: Ticks) -> bool {
        while self.playout.buffered() < enough {
            self.pass_over_empty();
            match (self.buffer.head(), self.place.playhead) {
                (Some(head), Some(playhead)) if head.timestamp == playhead => self.decode_head(),
                _ => return false,
            }
        }
        true
    }

    /// Whether the delay is beyond its ceiling, as nothing could be cut, and packets that are within it are there.
    fn can_skip(&self, at: Moment) -> bool {
        let ceiling = self.estimator.range().ceiling;
        let latest = said_at(at, self.estimator.undelayed()) - ceiling;
        let within = self.buffer.newest().is_some_and(|newest| newest.timestamp >= latest);
        within && self.delay(at) > ceiling + SLACK
    }

    /// How long after its undelayed arrival the next sample is played, at `at`.
    fn delay(&self, at: Moment) -> Ticks {
        let next = self.place.playhead.unwrap_or(Stamp(0)) - self.playout.buffered();
        at.transit(next) - self.estimator.undelayed()
    }
}

/// What comes at `at` with this transit was said then.
fn said_at(at: Moment, transit: Ticks) -> Stamp {
    Stamp(at.0 - transit)
}
