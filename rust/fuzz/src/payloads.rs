//! Whatever payloads come: a decoder makes of each what its header says, or refuses it; all samples are within full scale.

use arbitrary::{Arbitrary, Unstructured};
use audiomixer_core::opus::{BOUND, Concealment, Decoder, Header, STEP};

#[derive(Debug, Arbitrary)]
enum Step {
    Decode(Vec<u8>),
    Recover(Vec<u8>),
    Conceal { steps: u8, neural: bool },
}

/// Reads payloads out of `data`, and decodes them.
///
/// # Panics
/// If the invariant does not hold.
pub fn run(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let channels = 1 + usize::from(first & 1);
    let mut decoder = Decoder::new(48_000, channels);
    let mut pcm = Vec::new();
    let mut source = Unstructured::new(data);
    while !source.is_empty() {
        let Ok(step) = source.arbitrary() else { break };
        pcm.clear();
        let (decoded, duration) = match step {
            Step::Decode(payload) => {
                let Some(header) = Header::parse(&payload) else { continue };
                (decoder.decode(&payload, header.duration, &mut pcm), header.duration)
            }
            Step::Recover(payload) => {
                let Some(header) = Header::parse(&payload) else { continue };
                (decoder.recover(&payload, header.duration, &mut pcm), header.duration)
            }
            Step::Conceal { steps, neural } => {
                let how = if neural { Concealment::Neural } else { Concealment::Classic };
                let duration = STEP * i64::from(1 + steps % 48);
                (decoder.conceal(duration, how, &mut pcm), duration)
            }
        };
        assert!(!decoded || pcm.len() as i64 == duration * channels as i64, "{duration}");
        assert!(decoded || pcm.is_empty(), "{} samples of what was refused", pcm.len());
        assert!(pcm.iter().all(|sample| sample.abs() <= BOUND), "a sample beyond full scale");
    }
}
