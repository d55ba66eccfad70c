//! What one of a room hears: both sums of the mix, without what it is in them itself, and a limiter of its own.

use crate::kernel::Kernel;
use crate::limiter::Limiter;
use crate::programme;

/// What a mix adds up.
#[derive(Debug)]
pub(crate) struct Sums {
    /// What the stream gets.
    pub mix: Vec<f32>,
    /// What the room hears besides.
    pub aside: Vec<f32>,
    /// Whether there is anything in that.
    pub has_aside: bool,
}

impl Sums {
    /// Sums of `length` samples.
    pub fn new(length: usize) -> Self {
        Self { mix: vec![0.0; length], aside: vec![0.0; length], has_aside: false }
    }

    /// Nothing is in them.
    pub fn clear(&mut self) {
        self.mix.fill(0.0);
        if std::mem::take(&mut self.has_aside) {
            self.aside.fill(0.0);
        }
    }

    /// What is added to for who is in the mix, or not.
    pub fn of(&mut self, in_mix: bool) -> &mut [f32] {
        if in_mix {
            return &mut self.mix;
        }
        self.has_aside = true;
        &mut self.aside
    }
}

/// The frame that one hears, made once for each mix.
pub(crate) struct Minus {
    channels: usize,
    limiter: Limiter,
    tick: u64,
    bus: Vec<f32>,
    frame: Vec<f32>,
}

impl Minus {
    /// For frames of `length` samples, interleaved of `channels`, at `rate`.
    pub fn new(rate: u32, channels: usize, length: usize) -> Self {
        let limiter = Limiter::new(rate, channels);
        Self { channels, limiter, tick: 0, bus: vec![0.0; length], frame: vec![0.0; length] }
    }

    /// What is heard of the mix number `tick`, whose limiter was `before`; `take_off` takes what is not to be heard off
    /// the sum, which is at `gain` like the mix.
    pub fn make(
        &mut self,
        tick: u64,
        sums: &Sums,
        gain: (f32, f32),
        kernel: Kernel,
        before: &Limiter,
        take_off: impl FnOnce(&mut [f32]),
    ) {
        if self.tick != tick {
            if self.tick + 1 != tick {
                self.limiter.follow(before);
            }
            self.tick = tick;
            self.bus.copy_from_slice(&sums.mix);
            if sums.has_aside {
                kernel.add(&mut self.bus, &sums.aside, 1.0);
            }
            take_off(&mut self.bus);
            if gain != (1.0, 1.0) {
                programme::ramp(&mut self.bus, self.channels, gain);
            }
            self.limiter.process(&self.bus, &mut self.frame);
        }
    }

    /// The last one.
    pub fn frame(&self) -> &[f32] {
        &self.frame
    }
}
