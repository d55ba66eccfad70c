//! Where a receiver is: what it plays, and how far it has come in the sender's stream.

use crate::time::{Sequence, Stamp, Ticks};

/// What is played.
///
/// | from | when | to |
/// |---|---|---|
/// | `Waiting`, `Pausing` | the oldest packet is due | `Playing` |
/// | `Playing`, `Ebbing` | a packet is decoded that announces no pause | `Playing` |
/// | `Playing`, `Ebbing` | one is that does (DTX) | `Ebbing` |
/// | `Playing`, `Ebbing` | the next packet has a later timestamp, and nothing is missing before it | `Pausing` |
/// | `Ebbing` | nothing is there, or something is missing | `Pausing` |
/// | `Playing` | concealment has faded | `Waiting` |
/// | `Playing`, `Ebbing` | the delay is beyond its ceiling, and nothing could be cut | `Waiting`, `Pausing` |
/// | any | the sender has started anew | `Waiting` |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Silence, until the oldest packet is due.
    Waiting,
    /// Comfort noise, until then: the sender pauses.
    Pausing,
    /// Packets follow each other.
    Playing,
    /// They do, and the last one announced a pause.
    Ebbing,
}

impl State {
    /// Whether packets are played.
    pub fn plays(self) -> bool {
        matches!(self, Self::Playing | Self::Ebbing)
    }

    /// What it becomes until the oldest packet is due.
    pub fn at_rest(self) -> Self {
        match self {
            Self::Waiting | Self::Playing => Self::Waiting,
            Self::Pausing | Self::Ebbing => Self::Pausing,
        }
    }
}

/// How far playing has come in the sender's stream.
#[derive(Debug)]
pub struct Place {
    /// The timestamp that is decoded next; none before the first packet is due.
    pub playhead: Option<Stamp>,
    /// Of the packet that was decoded last.
    pub sequence: Sequence,
    /// The end of its audio.
    pub end: Stamp,
    /// So many without audio have come after it.
    pub passed_over: i64,
}

impl Default for Place {
    /// Nothing has been played.
    fn default() -> Self {
        Self { playhead: None, sequence: Sequence(0), end: Stamp(0), passed_over: 0 }
    }
}

impl Place {
    /// Whether nothing is missing before `sequence`.
    pub fn is_followed_by(&self, sequence: Sequence) -> bool {
        sequence <= self.sequence + self.passed_over + 1
    }

    /// The timestamps turn out to be earlier.
    pub fn set_back(&mut self, by: Ticks) {
        self.playhead = self.playhead.map(|playhead| playhead - by);
        self.end = self.end - by;
    }
}
