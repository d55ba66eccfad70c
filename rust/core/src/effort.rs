//! How much costly concealment one tick can bear.

/// So many participants are concealed as well as can be in one tick of a thread, which takes up to 1 ms each; the others
/// simply, so that a stall that hits everybody does not become one of the mix.
const CONCEALED_WELL: usize = 6;

/// What is left of it, for all rooms that are mixed one after the other.
#[derive(Debug)]
pub struct Effort(usize);

impl Default for Effort {
    /// A tick begins.
    fn default() -> Self {
        Self(CONCEALED_WELL)
    }
}

impl Effort {
    /// Whether the rest of the tick has to be frugal.
    pub(crate) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    /// One more was concealed as well as can be.
    pub(crate) fn spend(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}
