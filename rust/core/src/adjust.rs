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
const FAR: Ticks = ms(200);
const ROUGHLY_ALIKE: f32 = 0.5;
/// Between two edits at least (NetEq's), which with one chance in each frame makes 60 ms.
const BETWEEN_EDITS: Ticks = ms(50);
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

/// What to do about a playout delay of `delay`, if the last edit was `rested` ago.
///
/// A network that delayed packets lately may soon do so again: by as much as it did, up to the ceiling, the delay may be
/// too long.
pub fn adjustment(delay: Ticks, rested: Ticks, estimator: &Estimator) -> Option<Adjustment> {
    let excess = delay - estimator.target();
    let lengthen = excess < 0;
    let tolerated = estimator.spread().min(estimator.range().ceiling - estimator.target());
    let distance = if lengthen { -excess } else { excess - tolerated };
    if rested < BETWEEN_EDITS || distance <= NEAR {
        return None;
    }
    let alike = if distance > FAR {
        ROUGHLY_ALIKE
    } else if distance > TOLERANCE {
        ALIKE
    } else {
        PAUSES_ONLY
    };
    Some(Adjustment { lengthen, length: excess.abs().min(FRAME), alike })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delay::Range;
    use crate::time::{Moment, Stamp};

    /// 10 s of packets, every fourth late by `jitter`.
    fn after(jitter: Ticks) -> Estimator {
        let mut estimator = Estimator::new(Range::default());
        for n in 0..500 {
            let late = if n % 4 == 0 { jitter } else { 0 };
            estimator.observe(Moment(n * FRAME + late), Stamp(n * FRAME));
        }
        estimator
    }

    #[test]
    fn on_a_steady_network_the_delay_is_kept_within_20_ms() {
        let estimator = after(0);
        let alike =
            |delay| adjustment(delay, BETWEEN_EDITS, &estimator).map(|adjustment| adjustment.alike);
        assert_eq!(estimator.target(), ms(40));
        assert_eq!(alike(ms(30)), None);
        assert_eq!(alike(ms(29)), Some(PAUSES_ONLY));
        assert_eq!(alike(ms(19)), Some(ALIKE));
        assert_eq!(alike(ms(50)), None);
        assert_eq!(alike(ms(51)), Some(PAUSES_ONLY));
        assert_eq!(alike(ms(61)), Some(ALIKE));
        assert_eq!(alike(ms(241)), Some(ROUGHLY_ALIKE));
    }

    #[test]
    fn on_a_restless_network_it_may_be_longer() {
        let estimator = after(ms(80));
        let target = estimator.target();
        let adjustment = |delay| adjustment(delay, BETWEEN_EDITS, &estimator);
        assert!(target >= ms(80));
        assert_eq!(adjustment(target + ms(89)), None);
        let longer = adjustment(target + ms(101)).unwrap();
        assert_eq!(longer, Adjustment { lengthen: false, length: FRAME, alike: ALIKE });
        assert!(adjustment(target - ms(15)).unwrap().lengthen);
    }

    #[test]
    fn beyond_the_ceiling_it_may_not() {
        let estimator = after(ms(300));
        let cuts = |delay| adjustment(delay, BETWEEN_EDITS, &estimator).is_some();
        assert!(estimator.target() + estimator.spread() > ms(420));
        assert!(!cuts(ms(410)));
        assert!(cuts(ms(411)));
    }

    #[test]
    fn between_two_edits_is_a_while() {
        let estimator = after(0);
        assert!(adjustment(ms(100), BETWEEN_EDITS, &estimator).is_some());
        assert_eq!(adjustment(ms(100), BETWEEN_EDITS - 1, &estimator), None);
    }
}
