//! What a participant's strip and its receiver tell each other: how closely one listens, and what was heard.

/// The RFC 6464 audio level of digital silence, −127 dBov.
pub const LEVEL_OF_SILENCE: u8 = 127;

/// How closely somebody listens to what is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// What is lost is made up as well as can be.
    Close,
    /// It is made up simply: many others have to be concealed at this tick as well.
    Frugal,
    /// There was nothing but silence: packets that are no different are not decoded.
    Drowsy {
        /// Whether those that announce silence are taken to be.
        trusting: bool,
    },
    /// Nobody listens: nothing is decoded.
    None,
}

/// Where a frame's samples came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// From the sender, with the RFC 6464 level it announced.
    Received(Option<u8>),
    /// There are none: of what the sender sent, only the level it announced is known.
    Announced(u8),
    /// Made up by the receiver: concealment or comfort noise.
    MadeUp,
    /// There is nothing.
    Nothing,
}
