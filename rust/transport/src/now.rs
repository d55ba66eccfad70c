//! The time, by the clock that Python's `time.monotonic` reads.

use nix::time::{ClockId, clock_gettime};

#[cfg(not(target_vendor = "apple"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
/// `CLOCK_UPTIME_RAW`, which is `mach_absolute_time`.
#[cfg(target_vendor = "apple")]
const CLOCK: ClockId = ClockId::from_raw(8);

/// In seconds.
pub fn now() -> f64 {
    clock_gettime(CLOCK).map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 * 1e-9)
}
