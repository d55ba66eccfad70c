//! Takes noise off a speaker: fans, keyboards, streets. RNNoise (J.-M. Valin, 2018), by nnnoiseless.

use nnnoiseless::DenoiseState;

/// The only rate at which it works.
pub const RATE: u32 = 48_000;
/// Samples at a time: 10 ms, by which what comes out is late.
const PIECE: usize = DenoiseState::FRAME_SIZE;
/// What the network takes for full scale.
const SCALE: f32 = 32_768.0;

struct Channel {
    state: Box<DenoiseState<'static>>,
    before: [f32; PIECE],
    after: [f32; PIECE],
}

/// One speaker's. It begins and ends by fading from one to the other, within a frame.
pub struct Denoiser {
    channels: Vec<Channel>,
    /// How much of what is heard is without noise, at the end of the last frame.
    wet: f32,
    is_warm: bool,
}

impl Denoiser {
    /// For frames of so many `channels`.
    pub fn new(channels: usize) -> Self {
        let channel =
            || Channel { state: DenoiseState::new(), before: [0.0; PIECE], after: [0.0; PIECE] };
        Self { channels: (0..channels).map(|_| channel()).collect(), wet: 0.0, is_warm: false }
    }

    /// Whether it is for so many `channels`.
    pub fn fits(&self, channels: usize) -> bool {
        self.channels.len() == channels
    }

    /// Whether all that is heard is as it was.
    pub fn is_dry(&self) -> bool {
        self.wet == 0.0
    }

    /// What comes next has nothing to do with what was: it begins as it is.
    pub fn rest(&mut self) {
        (self.wet, self.is_warm) = (0.0, false);
    }

    /// Takes the noise off a frame of interleaved samples, of whole pieces; or leaves off doing so.
    pub fn process(&mut self, frame: &mut [f32], wanted: bool) {
        // The first frame is not heard: the network has to have listened.
        let target = f32::from(wanted && self.is_warm);
        let count = self.channels.len();
        let step = (target - self.wet) / (frame.len() / count) as f32;
        for (number, channel) in self.channels.iter_mut().enumerate() {
            let mut wet = self.wet;
            for piece in frame.chunks_exact_mut(PIECE * count) {
                for (sample, frame) in channel.before.iter_mut().zip(piece.chunks_exact(count)) {
                    *sample = frame[number] * SCALE;
                }
                channel.state.process_frame(&mut channel.after, &channel.before);
                for (clean, frame) in channel.after.iter().zip(piece.chunks_exact_mut(count)) {
                    wet += step;
                    frame[number] += wet * (clean / SCALE - frame[number]);
                }
            }
        }
        self.wet = target;
        self.is_warm = true;
    }
}
