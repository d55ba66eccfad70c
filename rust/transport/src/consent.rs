//! Whether the other side is still there, and wants what it is sent (RFC 7675): it is asked now and then.

/// Seconds between two questions, or two looks whether one is needed.
const INTERVAL: f64 = 2.0;
/// So many questions in a row are left out while signs of life come: consent lasts for 30 s.
const UNASKED: u32 = 4;
/// Seconds for an answer…
const PATIENCE: f64 = 0.5;
/// …and until the next question, if there was none.
const RETRY: f64 = 0.25;
/// Who answers none of so many and gives no sign of life, for about seven seconds, is gone: browsers find that out after five,
/// and may look for another way…
const FAILURES: u32 = 6;
/// …as is who has not answered for so many seconds, whatever comes from there.
const LASTS: f64 = 30.0;
/// By how much the time until the next question varies: those of many connections must not coincide.
const SPREAD: f64 = 0.2;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Ask,
    GiveUp,
}

/// The questions to one connection.
#[derive(Debug)]
pub struct Consent {
    due: f64,
    /// A question has not been answered yet.
    asked: bool,
    /// When the last one was.
    answered: f64,
    failures: u32,
    unasked: u32,
    /// Signs of life until the last look.
    signs: u64,
    /// Some number, by which the times vary.
    spread: u32,
}

impl Consent {
    pub fn new(now: f64, signs: u64, seed: u32) -> Self {
        let mut consent = Self {
            due: 0.0,
            asked: false,
            answered: now,
            failures: 0,
            unasked: 0,
            signs,
            spread: seed,
        };
        consent.wait(now, INTERVAL);
        consent
    }

    /// What to do at `now` seconds, if there have been so many signs of life in all.
    pub fn step(&mut self, now: f64, signs: u64) -> Step {
        if now < self.due {
            return Step::Nothing;
        }
        if self.asked {
            self.asked = false;
            self.failures += 1;
            if self.failures >= FAILURES || now - self.answered > LASTS {
                return Step::GiveUp;
            }
            self.wait(now, RETRY);
            return Step::Nothing;
        }
        let is_there = std::mem::replace(&mut self.signs, signs) < signs;
        if is_there && self.unasked < UNASKED {
            (self.unasked, self.failures) = (self.unasked + 1, 0);
            self.wait(now, INTERVAL);
            return Step::Nothing;
        }
        (self.unasked, self.asked) = (0, true);
        self.due = now + PATIENCE;
        Step::Ask
    }

    /// A question has been answered.
    pub fn answer(&mut self, now: f64) {
        (self.asked, self.answered, self.failures) = (false, now, 0);
        self.wait(now, INTERVAL);
    }

    fn wait(&mut self, now: f64, seconds: f64) {
        self.spread = self.spread.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let varied = f64::from(self.spread) / f64::from(u32::MAX) * 2.0 - 1.0;
        self.due = now + seconds * (1.0 + SPREAD * varied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When it asks, and when it gives up, of 60 seconds in which it answers, and gives signs of life, until a time.
    fn life(answers_until: f64, signs_until: f64) -> (Vec<f64>, Option<f64>) {
        let (mut consent, mut asked, mut signs) = (Consent::new(0.0, 0, 7), Vec::new(), 0);
        for now in (0..1200).map(|n| 0.05 * f64::from(n)) {
            signs += u64::from(now < signs_until);
            match consent.step(now, signs) {
                Step::Nothing => {}
                Step::Ask => {
                    asked.push(now);
                    if now < answers_until {
                        consent.answer(now + 0.01);
                    }
                }
                Step::GiveUp => return (asked, Some(now)),
            }
        }
        (asked, None)
    }

    #[test]
    fn who_says_nothing_is_asked_every_two_seconds() {
        let (asked, given_up) = life(60.0, 0.0);
        assert!((25..=36).contains(&asked.len()), "{asked:?}");
        assert_eq!(given_up, None);
    }

    #[test]
    fn who_sends_is_asked_every_ten_seconds() {
        let (asked, given_up) = life(60.0, 60.0);
        assert!((4..=7).contains(&asked.len()), "{asked:?}");
        assert_eq!(given_up, None);
    }

    #[test]
    fn who_has_gone_is_given_up_within_ten_seconds() {
        let (_, given_up) = life(20.0, 20.0);
        assert!((23.0..30.0).contains(&given_up.unwrap()), "{given_up:?}");
    }

    #[test]
    fn who_sends_but_answers_nothing_is_given_up_after_half_a_minute() {
        let (asked, given_up) = life(0.0, 60.0);
        assert!(asked.len() >= 3, "{asked:?}");
        assert!((30.0..42.0).contains(&given_up.unwrap()), "{given_up:?}");
    }
}
