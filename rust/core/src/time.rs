//! Stream time, and RTP counters that wrap around.

use std::ops::{Add, Sub};

use crate::{Error, Result};

/// Time in ticks of the Opus RTP clock, 1/48000 s whatever the audio's sample rate (RFC 7587, section 4.1).
pub type Ticks = i64;

/// When something happens here, on the clock that packet arrivals and mixes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Ticks);

/// When something was said, on the sender's clock: an RTP timestamp, extended so that it never wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub Ticks);

/// An RTP sequence number, extended so that it never wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub i64);

impl Moment {
    /// From when it was said until now, and a constant that nobody knows: the two clocks began at any time.
    pub fn transit(self, said: Stamp) -> Ticks {
        self.0 - said.0
    }
}

/// Differences are plain numbers, and what they are added to is of its own kind.
macro_rules! of_its_own_kind {
    ($($kind:ident),*) => {$(
        impl Sub for $kind {
            type Output = i64;

            fn sub(self, other: Self) -> i64 {
                self.0 - other.0
            }
        }

        impl Add<i64> for $kind {
            type Output = Self;

            fn add(self, more: i64) -> Self {
                Self(self.0 + more)
            }
        }

        impl Sub<i64> for $kind {
            type Output = Self;

            fn sub(self, less: i64) -> Self {
                Self(self.0 - less)
            }
        }
    )*};
}

of_its_own_kind!(Moment, Stamp, Sequence);

/// [`Ticks`] in a second.
pub const TICKS_PER_SECOND: Ticks = 48_000;

/// [`Ticks`] in a mixed frame: 20 ms.
pub const FRAME: Ticks = 960;

/// Mixed frames in a second.
pub const FRAMES_PER_SECOND: u32 = 50;

/// So many ticks as there are in `milliseconds`.
pub const fn ms(milliseconds: i64) -> Ticks {
    milliseconds * TICKS_PER_SECOND / 1000
}

/// The tick at `seconds`; an error names `argument` unless it is finite and within ±10¹² s.
pub fn ticks(argument: &'static str, seconds: f64) -> Result<Ticks> {
    if seconds.is_finite() && seconds.abs() <= 1e12 {
        Ok((seconds * TICKS_PER_SECOND as f64).round() as Ticks)
    } else {
        Err(Error::new(argument, format!("expected a time in seconds, got {seconds}")))
    }
}

/// `ticks` in seconds.
pub fn seconds(ticks: Ticks) -> f64 {
    ticks as f64 / TICKS_PER_SECOND as f64
}

/// Extends a counter of `BITS` bits that wraps around to one that does not.
///
/// A value is taken to be within half the range of the one before it (RFC 3550, appendix A.1).
#[derive(Debug, Default, Clone)]
pub struct Unwrap<const BITS: u32> {
    last: Option<i64>,
}

impl<const BITS: u32> Unwrap<BITS> {
    /// What `value` is on the extended scale, without remembering it.
    pub fn peek(&self, value: u32) -> i64 {
        let value = i64::from(value);
        let Some(last) = self.last else { return value };
        let unused = 64 - BITS;
        last + (((value - last) << unused) >> unused)
    }

    /// What `value` is on the extended scale; the next value is taken to be near it.
    pub fn unwrap(&mut self, value: u32) -> i64 {
        let extended = self.peek(value);
        self.last = Some(extended);
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_continue_across_the_wrap_and_back() {
        let mut sequence = Unwrap::<16>::default();
        assert_eq!(sequence.unwrap(65_534), 65_534);
        assert_eq!(sequence.unwrap(1), 65_537);
        assert_eq!(sequence.unwrap(65_535), 65_535);
        assert_eq!(sequence.unwrap(0), 65_536);
    }

    #[test]
    fn timestamps_continue_across_the_wrap() {
        let mut timestamp = Unwrap::<32>::default();
        timestamp.unwrap(u32::MAX - 959);
        assert_eq!(timestamp.unwrap(0), 1 << 32);
    }

    #[test]
    fn times_that_are_no_numbers_are_refused() {
        assert!(ticks("now", f64::NAN).is_err());
        assert!(ticks("now", f64::INFINITY).is_err());
        assert_eq!(ticks("now", 0.02), Ok(FRAME));
    }
}
