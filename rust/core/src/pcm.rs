//! A participant whose audio comes as samples, not as packets.

use crate::Sample;
use crate::hearing::Heard;

/// Samples waiting to be mixed, interleaved. At most one second: a full queue drops its oldest, and counts them.
///
/// Not a ring: whoever pushes and pulls in turn uses the same few kilobytes again and again, which stay in the cache.
#[derive(Debug)]
pub struct Fifo {
    samples: Vec<f32>,
    /// The samples before this have been pulled.
    head: usize,
    limit: usize,
    channels: usize,
    dropped: u64,
}

impl Fifo {
    /// A queue of `channels` at `rate` Hz.
    pub fn new(rate: u32, channels: usize) -> Self {
        let limit = rate as usize * channels;
        Self { samples: Vec::new(), head: 0, limit, channels, dropped: 0 }
    }

    /// Adds `samples` of `channels`; mono goes to both sides of stereo, and stereo to mono as its mean.
    pub fn push<T: Sample>(&mut self, samples: &[T], channels: usize) {
        if self.head > self.samples.len() / 2 {
            self.samples.drain(..self.head);
            self.head = 0;
        }
        match (channels, self.channels) {
            (1, 2) => self.samples.extend(samples.iter().flat_map(|sample| [sample.to_f32(); 2])),
            (2, 1) => {
                let pairs = samples.chunks_exact(2);
                self.samples.extend(pairs.map(|pair| (pair[0].to_f32() + pair[1].to_f32()) / 2.0));
            }
            _ => T::append(samples, &mut self.samples),
        }
        let excess = self.waiting().saturating_sub(self.limit);
        self.dropped += (excess / self.channels) as u64;
        self.head += excess;
    }

    fn waiting(&self) -> usize {
        self.samples.len() - self.head
    }

    /// Fills `frame`, with silence where there is nothing.
    pub fn pull(&mut self, frame: &mut Vec<f32>) -> Heard {
        if self.head == 0 && self.samples.len() == frame.len() {
            std::mem::swap(&mut self.samples, frame);
            self.samples.clear();
            return Heard::Received(None);
        }
        let there = self.waiting().min(frame.len());
        frame[..there].copy_from_slice(&self.samples[self.head..self.head + there]);
        frame[there..].fill(0.0);
        self.head += there;
        if there > 0 { Heard::Received(None) } else { Heard::Nothing }
    }

    /// Samples per channel that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
