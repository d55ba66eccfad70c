//! How long made-up audio may go on: at full level for a while, then fading to silence.

use crate::time::{Ticks, ms};

/// When made-up audio begins to fade, and when it has become silence.
#[derive(Debug, Clone, Copy)]
pub struct Fading {
    from: Ticks,
    to: Ticks,
}

/// What is made up for a loss soon sounds like nothing anybody says.
pub const CONCEALMENT: Fading = Fading { from: ms(120), to: ms(200) };
/// Comfort noise bridges the 400 ms between two packets of a sender in DTX.
pub const COMFORT: Fading = Fading { from: ms(900), to: ms(1000) };

/// Where a sender has paused without a word, what it said before only rings out.
pub const BREAK: Fading = Fading { from: ms(20), to: ms(60) };

/// How long nothing real was played.
#[derive(Debug, Default)]
pub struct MadeUp(Ticks);

impl MadeUp {
    /// Something real is played.
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    /// Whether the last that was played is real.
    pub fn is_none(&self) -> bool {
        self.0 == 0
    }

    /// Whether it has become silence.
    pub fn has_faded(&self, fading: Fading) -> bool {
        self.0 >= fading.to
    }

    /// Another `duration` is made up; its level at the end.
    pub fn add(&mut self, duration: Ticks, fading: Fading) -> f32 {
        self.0 += duration;
        let left = (fading.to - self.0) as f32 / (fading.to - fading.from) as f32;
        left.clamp(0.0, 1.0)
    }
}
