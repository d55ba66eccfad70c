//! Ducking: music goes down while somebody speaks, and comes back when nobody has for a while.

/// Frames in which it goes down all the way: 200 ms…
const ATTACK: f32 = 10.0;
/// …and up again: a second.
const RELEASE: f32 = 50.0;
/// Frames after the last speech for which it stays down: half a second, as pauses between words are shorter.
const HOLD: u32 = 25;
/// The mean square from which on somebody is taken to speak: −45 dBFS.
const SPEECH: f32 = 3.2e-5;

/// Whether a frame of this mean square is one of speech.
pub fn is_speech(power: f32) -> bool {
    power > SPEECH
}

/// The gain of what is ducked.
#[derive(Debug)]
pub struct Duck {
    /// Decibels when it is all the way down.
    depth: f32,
    /// How far down it is, 0 to 1.
    down: f32,
    held: u32,
}

impl Duck {
    /// It goes down by so many decibels, which are negative.
    pub fn new(depth: f32) -> Self {
        Self { depth, down: 0.0, held: 0 }
    }

    /// How far down it may go, in decibels.
    pub fn depth(&self) -> f32 {
        self.depth
    }

    /// The gain for the next frame, if somebody `speaks`, or nobody.
    pub fn advance(&mut self, speaks: bool) -> f32 {
        self.held = if speaks { HOLD } else { self.held.saturating_sub(1) };
        let step = if self.held > 0 { 1.0 / ATTACK } else { -1.0 / RELEASE };
        self.down = (self.down + step).clamp(0.0, 1.0);
        10f32.powf(self.down * self.depth / 20.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_down_in_200_ms_stays_in_pauses_and_comes_back_within_a_second() {
        let mut duck = Duck::new(-12.0);
        let mut gains: Vec<f32> = (0..10).map(|_| duck.advance(true)).collect();
        assert!(gains.windows(2).all(|pair| pair[1] < pair[0]));
        assert!((20.0 * gains[9].log10() + 12.0).abs() < 0.01);
        gains = (0..24).map(|_| duck.advance(false)).collect();
        assert!(gains.iter().all(|&gain| gain == gains[0]));
        gains = (0..51).map(|_| duck.advance(false)).collect();
        assert!(gains.windows(2).all(|pair| pair[1] >= pair[0]));
        assert_eq!(gains[50], 1.0);
    }
}
