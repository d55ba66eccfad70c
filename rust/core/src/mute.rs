//! Tells a muted microphone from a quiet one, by the audio alone.
//!
//! A muted track sends encoded silence. It never decodes to exact zero (±1 or 2 steps of 16 bits), while the noise
//! of even a very quiet room (−80 dBFS) decodes to about ten steps. So: muted when silence was received that began at
//! least 400 ms ago, or after a second without media; not muted any more at the first frame that is clearly louder,
//! or the third that is a little louder. Audio that the receiver made up proves nothing: it only lets time pass.

use crate::hearing::{Heard, LEVEL_OF_SILENCE};
use crate::time::{Ticks, ms};

/// One step of 16-bit audio.
const STEP: f32 = 1.0 / 32_768.0;
/// Encoded digital silence decodes to no more than this.
pub const SILENCE: f32 = 2.5 * STEP;
/// A frame above this is sound for certain.
const SOUND: f32 = 8.5 * STEP;
/// What is above this, −50 dBFS, is heard, and no silence whatever is announced.
const AUDIBLE: f32 = 100.0 * STEP;
/// So many frames in a row above silence are sound as well.
const FAINT_FRAMES: u32 = 3;
/// How long silence lasts before it is a mute.
const SILENT: Ticks = ms(400);
/// How long nothing is received before it is a mute; senders in DTX refresh every 400 ms.
const NO_MEDIA: Ticks = ms(1000);

/// Decides whether a participant is muted, frame by frame.
#[derive(Debug)]
pub struct Detector {
    muted: bool,
    silent: Ticks,
    absent: Ticks,
    faint_frames: u32,
}

impl Default for Detector {
    /// Who has sent nothing yet is muted.
    fn default() -> Self {
        Self { muted: true, silent: 0, absent: 0, faint_frames: 0 }
    }
}

impl Detector {
    /// Looks at a frame of `duration` whose loudest sample is `peak`.
    pub fn observe(&mut self, heard: Heard, peak: f32, duration: Ticks) {
        let is_silence = match heard {
            Heard::Received(Some(LEVEL_OF_SILENCE)) => peak <= AUDIBLE,
            Heard::Received(_) => peak <= SILENCE,
            Heard::Announced(level) => level == LEVEL_OF_SILENCE,
            Heard::MadeUp | Heard::Nothing => {
                self.absent += duration;
                if self.silent > 0 {
                    self.silent += duration;
                }
                self.muted |= self.absent >= NO_MEDIA;
                return;
            }
        };
        self.absent = 0;
        if is_silence {
            self.silent += duration;
            self.faint_frames = 0;
            self.muted |= self.silent >= SILENT;
        } else {
            self.silent = 0;
            self.faint_frames += 1;
            self.muted &= peak <= SOUND && self.faint_frames < FAINT_FRAMES;
        }
    }

    /// Whether nothing but silence has been received for as long as a mute takes.
    pub fn silent(&self) -> bool {
        self.silent >= SILENT
    }

    /// Whether the participant is muted.
    pub fn muted(&self) -> bool {
        self.muted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::FRAME;

    const RECEIVED: Heard = Heard::Received(None);

    fn after(detector: &mut Detector, heard: Heard, steps: f32, milliseconds: i64) -> bool {
        for _ in 0..ms(milliseconds) / FRAME {
            detector.observe(heard, steps * STEP, FRAME);
        }
        detector.muted()
    }

    #[test]
    fn silence_is_a_mute_after_400_ms_and_a_loud_frame_ends_it() {
        let mut detector = Detector::default();
        assert!(detector.muted());
        assert!(!after(&mut detector, RECEIVED, 1000.0, 20));
        assert!(!after(&mut detector, RECEIVED, 2.0, 380));
        assert!(after(&mut detector, RECEIVED, 2.0, 20));
        assert!(!after(&mut detector, RECEIVED, 9.0, 20));
    }

    #[test]
    fn faint_sound_needs_three_frames() {
        let mut detector = Detector::default();
        assert!(after(&mut detector, RECEIVED, 4.0, 40));
        assert!(!after(&mut detector, RECEIVED, 4.0, 20));
        assert!(!after(&mut detector, RECEIVED, 4.0, 5000));
    }

    #[test]
    fn an_announced_level_of_silence_is_silence() {
        let mut detector = Detector::default();
        after(&mut detector, RECEIVED, 1000.0, 100);
        assert!(after(&mut detector, Heard::Received(Some(127)), 50.0, 400));
        after(&mut detector, RECEIVED, 1000.0, 100);
        assert!(after(&mut detector, Heard::Announced(127), 0.0, 400));
    }

    #[test]
    fn an_announced_level_of_silence_of_what_is_audible_is_none() {
        let mut detector = Detector::default();
        assert!(!after(&mut detector, Heard::Received(Some(127)), 1000.0, 1000));
        assert!(!detector.silent());
    }

    #[test]
    fn concealment_proves_nothing_until_a_second_has_passed() {
        let mut detector = Detector::default();
        after(&mut detector, RECEIVED, 1000.0, 100);
        assert!(!after(&mut detector, Heard::MadeUp, 0.0, 980));
        assert!(after(&mut detector, Heard::Nothing, 0.0, 20));
    }

    #[test]
    fn silence_refreshed_every_400_ms_is_a_mute_and_faint_noise_is_not() {
        for (steps, muted) in [(10.0, false), (1.0, true)] {
            let mut detector = Detector::default();
            after(&mut detector, RECEIVED, 10.0, 100);
            for _ in 0..2 {
                after(&mut detector, RECEIVED, steps, 20);
                after(&mut detector, Heard::MadeUp, 0.0, 380);
            }
            assert_eq!(after(&mut detector, RECEIVED, steps, 20), muted);
        }
    }
}
