//! Comfort noise: what a sender in discontinuous transmission leaves to the receiver to make up.
//!
//! The decoder's own costs as much as decoding does. Here, grains of 5 ms are taken at random from the last 10 ms of
//! noise that were decoded, and overlapped: the same level and spectrum, and no period to hear.

use std::f32::consts::FRAC_PI_2;

use crate::mute::SILENCE;

/// Makes noise that sounds like what it was given.
#[derive(Debug)]
pub struct Comfort {
    channels: usize,
    /// The noise to be imitated, interleaved.
    model: Vec<f32>,
    /// Whether there is any.
    audible: bool,
    /// The second half of the grain before.
    tail: Vec<f32>,
    /// Grains rise like this, and fall like its mirror image: of noise, the powers add up (sin² + cos² = 1).
    rise: Vec<f32>,
    random: u32,
}

impl Comfort {
    /// For interleaved `channels` of `rate` samples a second; knows only silence yet.
    pub fn new(rate: u32, channels: usize) -> Self {
        let step = rate as usize / 400;
        let rise = |n| ((n as f32 + 0.5) / step as f32 * FRAC_PI_2).sin();
        Self {
            channels,
            model: vec![0.0; 4 * step * channels],
            audible: false,
            tail: vec![0.0; step * channels],
            rise: (0..step).map(rise).collect(),
            random: 1,
        }
    }

    /// Remembers the end of `noise`, unless it is too short.
    pub fn remember(&mut self, noise: &[f32]) {
        if let Some(start) = noise.len().checked_sub(self.model.len()) {
            self.model.copy_from_slice(&noise[start..]);
            self.audible = self.model.iter().any(|sample| sample.abs() > SILENCE);
        }
    }

    /// Appends `values` to `pcm`.
    pub fn make(&mut self, values: usize, pcm: &mut Vec<f32>) {
        let end = pcm.len() + values;
        if !self.audible {
            pcm.resize(end, 0.0);
            return;
        }
        let step = self.tail.len();
        while pcm.len() < end {
            let (place, sign) = self.choose();
            let grain = &self.model[place * self.channels..][..2 * step];
            for n in 0..step {
                let weight = n / self.channels;
                let (rise, fall) = (self.rise[weight], self.rise[self.rise.len() - 1 - weight]);
                pcm.push(self.tail[n] * fall + sign * grain[n] * rise);
                self.tail[n] = sign * grain[step + n];
            }
        }
        pcm.truncate(end);
    }

    /// Where in the model a grain begins, and its sign.
    fn choose(&mut self) -> (usize, f32) {
        // xorshift32 (Marsaglia, 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let sign = if self.random & 1 == 0 { 1.0 } else { -1.0 };
        ((self.random >> 1) as usize % (2 * self.rise.len()), sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power(samples: &[f32]) -> f32 {
        samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32
    }

    #[test]
    fn the_noise_is_as_loud_as_its_model_on_each_side_and_does_not_repeat() {
        let mut random = Comfort::new(48_000, 1);
        let model: Vec<f32> =
            (0..960).flat_map(|_| [0.01 * random.choose().1, 0.001 * random.choose().1]).collect();
        let mut comfort = Comfort::new(48_000, 2);
        comfort.remember(&model);
        let mut pcm = Vec::new();
        comfort.make(2 * 48_000, &mut pcm);
        assert_eq!(pcm.len(), 2 * 48_000);
        let side = |n| pcm[960..].iter().skip(n).step_by(2).copied().collect::<Vec<_>>();
        assert!((0.8..1.2).contains(&(power(&side(0)) / 1e-4)), "{}", power(&side(0)));
        assert!((0.8..1.2).contains(&(power(&side(1)) / 1e-6)), "{}", power(&side(1)));
        let left = side(0);
        for lag in [240, 480, 960] {
            let alike: f32 = left.iter().zip(&left[lag..]).map(|(a, b)| a * b).sum();
            assert!(alike.abs() < 0.1 * 1e-4 * left.len() as f32, "{lag}: {alike}");
        }
    }

    #[test]
    fn of_silence_and_of_what_is_too_short_it_makes_silence() {
        let mut comfort = Comfort::new(8_000, 1);
        comfort.remember(&[0.5; 79]);
        let mut pcm = Vec::new();
        comfort.make(7, &mut pcm);
        assert_eq!(pcm, [0.0; 7]);
    }
}
