//! Opus decoding by libopus, and what can be told from a packet without decoding it (RFC 6716, section 3).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr::NonNull;

use opusic_sys as sys;

use crate::time::{TICKS_PER_SECOND, Ticks, ms};

/// The longest audio one packet may hold.
pub const LONGEST: Ticks = ms(120);

/// libopus works in steps of 2.5 ms.
pub const STEP: Ticks = 120;

/// The largest payload accepted: the six maximal frames of a 120 ms packet, and their header.
pub const LARGEST_PAYLOAD: usize = 6 * 1275 + 8;

/// Decoded samples are within this, whatever the sender made its encoder overshoot to.
pub const BOUND: f32 = 1.0;

/// How lost audio is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concealment {
    /// By extrapolation: about as costly as decoding.
    Classic,
    /// By libopus's neural vocoder: better for speech, and far more costly, above all for the first 20 ms.
    Neural,
}

impl Concealment {
    /// The decoder complexity that asks libopus for it; decoding itself costs the same.
    fn complexity(self) -> c_int {
        match self {
            Self::Classic => 0,
            Self::Neural => 5,
        }
    }
}

/// What a payload's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How much audio the payload holds.
    pub duration: Ticks,
    /// Whether it was coded as two channels.
    pub stereo: bool,
    /// A payload of at most two bytes: discontinuous transmission, the sender has gone quiet.
    pub dtx: bool,
}

impl Header {
    /// Of a packet that holds no audio: padding that probes the network, say.
    pub const EMPTY: Self = Self { duration: 0, stereo: false, dtx: false };

    /// Reads the header of `payload`; `None` if it is no Opus packet.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        if payload.is_empty() || payload.len() > LARGEST_PAYLOAD {
            return None;
        }
        let mut sizes = [0i16; 48];
        // SAFETY: the pointer and length are those of a live slice, `sizes` has room for the 48 frames libopus may
        // report, and the other outputs may be null.
        let frames = unsafe {
            sys::opus_packet_parse(
                payload.as_ptr(),
                payload.len() as i32,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                sizes.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        // SAFETY: `payload` has at least one byte, the only one these read.
        let (frame, channels) = unsafe {
            (
                sys::opus_packet_get_samples_per_frame(payload.as_ptr(), TICKS_PER_SECOND as i32),
                sys::opus_packet_get_nb_channels(payload.as_ptr()),
            )
        };
        let duration = Ticks::from(frames) * Ticks::from(frame);
        (frames > 0 && duration <= LONGEST).then_some(Self {
            duration,
            stereo: channels == 2,
            dtx: payload.len() <= 2,
        })
    }
}

/// Whether `payload` carries a low-bitrate copy of the audio before it (in-band FEC).
pub fn has_fec(payload: &[u8]) -> bool {
    // SAFETY: the pointer and length are those of a live slice; libopus checks the contents.
    !payload.is_empty()
        && unsafe { sys::opus_packet_has_lbrr(payload.as_ptr(), payload.len() as i32) } == 1
}

/// One stream's decoder: interleaved `f32` at a fixed rate and channel count, whatever the packets hold.
pub struct Decoder {
    state: NonNull<sys::OpusDecoder>,
    rate: u32,
    channels: usize,
    concealment: Option<Concealment>,
    /// What the soft clipper remembers of each channel.
    clipped: [f32; 2],
}

// SAFETY: a decoder's state is plain memory that only its owner reaches; libopus keeps nothing per thread.
unsafe impl Send for Decoder {}

impl Decoder {
    /// A decoder to `rate` Hz (8000, 12000, 16000, 24000 or 48000) and one or two `channels`.
    ///
    /// # Panics
    /// If libopus refuses these, which its callers have checked, or memory is exhausted.
    pub fn new(rate: u32, channels: usize) -> Self {
        let mut error: c_int = 0;
        // SAFETY: plain values, and a valid place for the error.
        let state = unsafe { sys::opus_decoder_create(rate as i32, channels as c_int, &mut error) };
        let state = NonNull::new(state).expect("libopus makes a decoder for checked arguments");
        Self { state, rate, channels, concealment: None, clipped: [0.0; 2] }
    }

    /// The channels of the decoded samples.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Decodes `payload` and appends its samples to `pcm`; `false`, and nothing appended, if it is corrupt.
    pub fn decode(&mut self, payload: &[u8], duration: Ticks, pcm: &mut Vec<f32>) -> bool {
        self.run(Some(payload), duration, false, pcm)
    }

    /// Appends the `duration` of audio before `payload`, whose packet is lost, as far as `payload` repeats it;
    /// the rest is concealed. `duration` is a multiple of [`STEP`] and at most [`LONGEST`].
    pub fn recover(&mut self, payload: &[u8], duration: Ticks, pcm: &mut Vec<f32>) -> bool {
        // What the copy does not hold is little, and its neighbours are heard.
        self.set_concealment(Concealment::Classic);
        self.run(Some(payload), duration, true, pcm)
    }

    /// Appends `duration` of what the decoder makes up for lost audio. The same bounds apply.
    pub fn conceal(
        &mut self,
        duration: Ticks,
        concealment: Concealment,
        pcm: &mut Vec<f32>,
    ) -> bool {
        self.set_concealment(concealment);
        self.run(None, duration, false, pcm)
    }

    fn set_concealment(&mut self, concealment: Concealment) {
        if self.concealment.replace(concealment) == Some(concealment) {
            return;
        }
        // SAFETY: the state is live, and the request takes one integer.
        let set = unsafe {
            sys::opus_decoder_ctl(
                self.state.as_ptr(),
                sys::OPUS_SET_COMPLEXITY_REQUEST,
                concealment.complexity(),
            )
        };
        debug_assert_eq!(set, sys::OPUS_OK);
    }

    fn run(
        &mut self,
        payload: Option<&[u8]>,
        duration: Ticks,
        fec: bool,
        pcm: &mut Vec<f32>,
    ) -> bool {
        let frames = (duration * Ticks::from(self.rate) / TICKS_PER_SECOND) as usize;
        let start = pcm.len();
        pcm.resize(start + frames * self.channels, 0.0);
        let (data, length) = payload.map_or((std::ptr::null(), 0), |p| (p.as_ptr(), p.len()));
        // SAFETY: `data` and `length` are those of a live slice, or null for concealment; the output has room for
        // `frames` samples of each channel, which is what libopus is told.
        let decoded = unsafe {
            sys::opus_decode_float(
                self.state.as_ptr(),
                data,
                length as i32,
                pcm[start..].as_mut_ptr(),
                frames as c_int,
                c_int::from(fec),
            )
        };
        let decoded = usize::try_from(decoded).unwrap_or(0);
        pcm.truncate(start + decoded * self.channels);
        self.soft_clip(&mut pcm[start..]);
        decoded > 0
    }

    /// Bends what is beyond [`BOUND`] back, as smoothly as may be; what is within it stays as it is.
    fn soft_clip(&mut self, pcm: &mut [f32]) {
        let (frames, channels) = (pcm.len() / self.channels, self.channels as c_int);
        // SAFETY: `pcm` holds `frames` samples of each channel, and `clipped` a number for each of at most two.
        unsafe {
            sys::opus_pcm_soft_clip(
                pcm.as_mut_ptr(),
                frames as c_int,
                channels,
                self.clipped.as_mut_ptr(),
            );
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the state came from opus_decoder_create and is not used again.
        unsafe { sys::opus_decoder_destroy(self.state.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_tells_duration_and_channels() {
        // Configuration 28 (CELT, fullband, 2.5 ms) to 31 (20 ms); bit 2 is stereo; code 0 is one frame.
        let header = |first| Header::parse(&[first, 1, 2]).unwrap();
        assert_eq!(header(31 << 3).duration, ms(20));
        assert_eq!(header(28 << 3).duration, STEP);
        assert!(header(31 << 3 | 4).stereo);
        assert!(!header(31 << 3).stereo);
        assert_eq!(Header::parse(&[]), None);
        assert_eq!(Header::parse(&vec![0; LARGEST_PAYLOAD + 1]), None);
    }

    proptest! {
        #[test]
        fn any_payload_with_a_header_decodes_to_its_duration_or_is_refused(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..20)
        ) {
            let mut decoder = Decoder::new(48_000, 2);
            for payload in payloads {
                let Some(header) = Header::parse(&payload) else { continue };
                let mut pcm = Vec::new();
                if decoder.decode(&payload, header.duration, &mut pcm) {
                    prop_assert_eq!(pcm.len(), 2 * header.duration as usize);
                }
                prop_assert!(pcm.iter().all(|sample| sample.abs() <= BOUND));
            }
        }
    }
}
