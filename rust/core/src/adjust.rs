//! Whether to bring the delay nearer to its target, and how much the audio may suffer for it.
//!
//! Every edit is a change of the delay that may be heard, so the delay is left alone while it is near enough, pauses
//! are preferred to speech, and a delay that is too long is tolerated on a network that may soon need it.

use crate::delay::Estimator;
use crate::time::{FRAME, Ticks, ms};

/// A delay this near its target is let be.
const NEAR: Ticks = ms(10);
/// Further than this, speech is edited as well, where a period is as alike to the next as this…
const TOLERANCE: Ticks = ms(20);
const ALIKE: f32 = 0.9;
/// …or, this far, as this.
const FAR: Ticks = ms(100);
/// A network that delays some packets so much may soon do so again: such shares of that, in per cent, is the delay let be
/// more where it is too short, or too long.
const SHORT: Ticks = 15;
const LONG: Ticks = 60;
const ROUGHLY_ALIKE: f32 = 0.5;
/// No two periods are as alike: only pauses are edited.
const PAUSES_ONLY: f32 = 2.0;

/// An edit of the audio that is to be played next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adjustment {
    /// Audio is to be repeated; if not, cut.
    pub lengthen: bool,
    /// By so much, in a pause; in speech, by a pitch period.
    pub length: Ticks,
    /// How alike one period and the next have to be, as a normalised correlation.
    pub alike: f32,
}

/// What to do about a playout delay of `delay`.
pub fn adjustment(delay: Ticks, estimator: &Estimator) -> Option<Adjustment> {
    let excess = delay - estimator.target();
    let (distance, lengthen) = (excess.abs(), excess < 0);
    let patience = estimator.spread() * if lengthen { SHORT } else { LONG } / 100;
    let tolerance = TOLERANCE + patience;
    let alike = if distance > FAR + patience {
        ROUGHLY_ALIKE
    } else if distance > tolerance {
        ALIKE
    } else if distance > if lengthen { NEAR } else { tolerance - NEAR } {
        PAUSES_ONLY
    } else {
        return None;
    };
    Some(Adjustment { lengthen, length: distance.min(FRAME), alike })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delay::Range;

    /// 10 s of packets, every fourth late by `jitter`.
    fn after(jitter: Ticks) -> Estimator {
        let mut estimator = Estimator::new(Range::default());
        for n in 0..500 {
            let late = if n % 4 == 0 { jitter } else { 0 };
            estimator.observe(n * FRAME + late, n * FRAME);
        }
        estimator
    }

    #[test]
    fn on_a_steady_network_the_delay_is_kept_within_20_ms() {
        let estimator = after(0);
        let alike = |delay| adjustment(delay, &estimator).map(|adjustment| adjustment.alike);
        assert_eq!(estimator.target(), ms(40));
        assert_eq!(alike(ms(30)), None);
        assert_eq!(alike(ms(29)), Some(PAUSES_ONLY));
        assert_eq!(alike(ms(19)), Some(ALIKE));
        assert_eq!(alike(ms(50)), None);
        assert_eq!(alike(ms(51)), Some(PAUSES_ONLY));
        assert_eq!(alike(ms(61)), Some(ALIKE));
        assert_eq!(alike(ms(141)), Some(ROUGHLY_ALIKE));
    }

    #[test]
    fn on_a_restless_network_it_may_be_longer() {
        let estimator = after(ms(80));
        let target = estimator.target();
        assert!(target >= ms(80));
        assert_eq!(adjustment(target + ms(57), &estimator), None);
        let longer = adjustment(target + ms(69), &estimator).unwrap();
        assert_eq!(longer, Adjustment { lengthen: false, length: FRAME, alike: ALIKE });
        assert!(adjustment(target - ms(15), &estimator).unwrap().lengthen);
    }

    #[test]
    fn however_restless_it_is_speech_is_first_edited_where_that_is_not_heard() {
        let estimator = after(ms(200));
        let target = estimator.target();
        let alike = |delay| adjustment(delay, &estimator).map(|adjustment| adjustment.alike);
        assert_eq!(alike(target + ms(139)), Some(PAUSES_ONLY));
        assert_eq!(alike(target + ms(141)), Some(ALIKE));
        assert_eq!(alike(target + ms(221)), Some(ROUGHLY_ALIKE));
    }
}
