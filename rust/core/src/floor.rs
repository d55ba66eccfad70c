//! Who has the floor, when more speak than may be mixed: the loudest, with some reluctance to change.

/// Who has the floor keeps it until somebody is louder by this: 6 dB.
const HOLD: f32 = 4.0;
/// Of a speaker who has fallen silent, half of the loudness is left after 0.3 s.
const RELEASE: f32 = 0.955;

/// A speaker's claim.
#[derive(Debug)]
pub struct Claim {
    power: f32,
    granted: bool,
}

impl Default for Claim {
    /// Everybody is heard until it is known who is louder.
    fn default() -> Self {
        Self { power: 0.0, granted: true }
    }
}

impl Claim {
    /// Takes note of a frame's mean square.
    pub fn observe(&mut self, power: f32) {
        self.power = power.max(self.power * RELEASE);
    }

    /// What was noted is not so.
    pub fn forget(&mut self) {
        self.power = 0.0;
    }

    /// Whether the speaker is to be mixed.
    pub fn granted(&self) -> bool {
        self.granted
    }

    /// Grants or withdraws.
    pub fn grant(&mut self, granted: bool) {
        self.granted = granted;
    }

    /// How strong the claim is.
    pub fn strength(&self) -> f32 {
        if self.granted { self.power * HOLD } else { self.power }
    }
}

/// Moves the `most` strongest of `claims`, each with whose it is, to the front.
pub fn strongest_first(claims: &mut [(f32, usize)], most: usize) {
    if most < claims.len() {
        // Of equals, who came first.
        claims.select_nth_unstable_by(most, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_floor_is_kept_until_somebody_is_clearly_louder() {
        let mut claims = [Claim::default(), Claim::default()];
        let mut compete = |first: f32, second: f32| {
            claims[0].observe(first);
            claims[1].observe(second);
            let mut order = [(claims[0].strength(), 0), (claims[1].strength(), 1)];
            strongest_first(&mut order, 1);
            claims.iter_mut().enumerate().for_each(|(n, claim)| claim.grant(n == order[0].1));
            order[0].1
        };
        assert_eq!(compete(0.1, 0.1), 0);
        assert_eq!(compete(0.1, 0.3), 0);
        assert_eq!(compete(0.1, 0.5), 1);
        assert_eq!(compete(0.3, 0.1), 1);
        let frames = (0..100).take_while(|_| compete(0.1, 0.0) == 1).count();
        assert!((30..90).contains(&frames), "{frames}");
    }

    proptest! {
        #[test]
        fn nobody_left_out_is_stronger(
            strengths in prop::collection::vec(0.0f32..1.0, 1..50),
            most in 1usize..50,
        ) {
            let mut claims: Vec<_> = strengths.into_iter().zip(0..).collect();
            strongest_first(&mut claims, most);
            let (front, rest) = claims.split_at(most.min(claims.len()));
            let least = front.iter().map(|claim| claim.0).fold(f32::MAX, f32::min);
            prop_assert!(rest.iter().all(|claim| claim.0 <= least));
        }
    }
}
