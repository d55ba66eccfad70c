//! Whether the audio levels that a sender announces (RFC 6464) are believed: as long as they agree with its audio.
//!
//! A level that is believed spares the decoding of who is not heard. Who announces what is not so would be heard in
//! place of others, or not at all. So the first half second is decoded and compared, later a few frames now and then;
//! whoever is caught is decoded for good.

/// Frames that have to agree before the levels are believed.
const PROOF: u32 = 25;
/// So many in a row that do not are no accident. Speech may begin within a packet, and end within the next, and the
/// longest of Opus have six frames.
const CAUGHT: u32 = 12;
/// A mean square that is off by this, 12 dB, does not agree.
const APART: f32 = 16.0;
/// Below this, −60 dBov, quiet is quiet: noise gates and the codec make of it what they like.
const QUIET: f32 = 1e-6;
/// After so many frames that were believed, 10 s…
const UNCHECKED: u32 = 500;
/// …so many are decoded all the same.
const CHECKED: u32 = CAUGHT;

/// What is thought of a sender's levels.
#[derive(Debug, Default)]
pub struct Trust {
    agreed: u32,
    disagreed: u32,
    lies: bool,
    /// Frames believed, and then checked, in turn.
    turn: u32,
}

/// The mean square of a frame of this RFC 6464 `level`.
pub fn power(level: u8) -> f32 {
    10.0f32.powf(f32::from(level) / -10.0)
}

impl Trust {
    /// Compares what was announced of a frame with the mean square that was measured; whether that was a lie too many.
    pub fn compare(&mut self, level: u8, measured: f32) -> bool {
        let lied = self.lies;
        let (announced, measured) = (power(level).max(QUIET), measured.max(QUIET));
        if announced > APART * measured || measured > APART * announced {
            self.disagreed += 1;
            self.lies |= self.disagreed >= CAUGHT;
        } else {
            self.disagreed = 0;
            self.agreed = self.agreed.saturating_add(1);
        }
        if self.turn >= UNCHECKED {
            self.turn = (self.turn + 1) % (UNCHECKED + CHECKED);
        }
        self.lies && !lied
    }

    /// A frame's level was believed.
    pub fn believe(&mut self) {
        self.turn += 1;
    }

    /// Whether the next frame's level is to be believed.
    pub fn believes(&self) -> bool {
        !self.lies && self.agreed >= PROOF && self.turn < UNCHECKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven(level: u8) -> Trust {
        let mut trust = Trust::default();
        (0..PROOF).for_each(|_| assert!(!trust.compare(level, power(level))));
        assert!(trust.believes());
        trust
    }

    #[test]
    fn levels_are_believed_once_they_have_agreed_for_half_a_second() {
        let mut trust = Trust::default();
        assert!(!trust.believes());
        for n in 0..PROOF {
            assert!(!trust.believes(), "{n}");
            trust.compare(20, power(26));
        }
        assert!(trust.believes());
    }

    #[test]
    fn who_is_caught_is_not_believed_any_more() {
        for (level, measured) in [(0, power(127)), (127, power(20))] {
            let mut trust = proven(30);
            for _ in 1..CAUGHT {
                assert!(!trust.compare(level, measured));
            }
            assert!(trust.believes());
            assert!(trust.compare(level, measured));
            assert!((0..1000).all(|_| !trust.compare(30, power(30))));
            assert!(!trust.believes());
        }
    }

    #[test]
    fn an_onset_within_a_packet_is_no_lie() {
        let mut trust = proven(40);
        for _ in 0..100 {
            // Six frames: speech in the last, and then in the first of the next packet.
            (0..5).for_each(|_| _ = trust.compare(15, power(50)));
            trust.compare(15, power(15));
            trust.compare(15, power(15));
            (0..5).for_each(|_| _ = trust.compare(15, power(50)));
            (0..6).for_each(|_| _ = trust.compare(50, power(50)));
        }
        assert!(trust.believes());
    }

    #[test]
    fn now_and_then_it_is_checked() {
        let mut trust = proven(30);
        let mut checks = 0;
        for _ in 0..10 * (UNCHECKED + CHECKED) {
            if trust.believes() {
                trust.believe();
            } else {
                checks += 1;
                trust.compare(30, power(30));
            }
        }
        assert_eq!(checks, 10 * CHECKED);
    }
}
