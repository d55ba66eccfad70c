//! What a receiver tells of itself.

/// What happened to a participant's packets and audio so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Packets received, without duplicates and discarded ones.
    pub received: u64,
    /// Packets that never came, or have not come yet though newer ones have.
    pub lost: u64,
    /// Lost packets repaired by in-band FEC.
    pub recovered: u64,
    /// Packets that came after their place was played.
    pub late: u64,
    /// Packets received more than once.
    pub duplicate: u64,
    /// Packets that were no Opus, failed to decode, or belonged to no known stream.
    pub discarded: u64,
    /// Packets, or samples of PCM, dropped because too many were waiting.
    pub overflow: u64,
    /// Seconds of audio made up for missing packets.
    pub concealed: f64,
    /// Seconds of audio cut to lessen the delay.
    pub accelerated: f64,
    /// Seconds of audio repeated to raise the delay.
    pub expanded: f64,
    /// Current playout delay in seconds, above that of the undelayed network.
    pub delay: f64,
    /// The delay aimed at, in seconds.
    pub target_delay: f64,
    /// Interarrival jitter in seconds (RFC 3550).
    pub jitter: f64,
}
