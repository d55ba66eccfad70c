//! Reads several datagrams in one system call, with the times at which the kernel got them.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Longer than any datagram of a WebRTC peer.
const LONGEST: usize = 2048;

/// Room for datagrams, to be used again and again.
pub struct Batch {
    headers: MultiHeaders<()>,
    buffers: Vec<Vec<u8>>,
    /// Lengths and times.
    read: Vec<(usize, f64)>,
}

impl Batch {
    /// Datagrams that are read at once.
    pub const SIZE: usize = 8;

    pub fn new() -> Self {
        Self {
            headers: headers(),
            buffers: vec![vec![0; LONGEST]; Self::SIZE],
            read: Vec::with_capacity(Self::SIZE),
        }
    }

    /// Reads what there is, `now` being the time in seconds; how many.
    pub fn read(&mut self, socket: &UdpSocket, now: f64) -> usize {
        self.read.clear();
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [_; Self::SIZE] = std::array::from_fn(|_| {
            [IoSliceMut::new(buffers.next().expect("there is a buffer for each slice"))]
        });
        let flags = MsgFlags::MSG_DONTWAIT;
        let Ok(results) =
            recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None)
        else {
            return 0;
        };
        let clock = clock_gettime(ClockId::CLOCK_REALTIME).map(seconds);
        let mut unstamped = false;
        for message in results {
            let stamp = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|one| match one {
                    ControlMessageOwned::ScmTimestampns(time) => Some(seconds(time)),
                    _ => None,
                })
            });
            // The real-time clock may have been set in between.
            let age = match (clock, stamp) {
                (Ok(clock), Some(stamp)) => (clock - stamp).clamp(0.0, 1.0),
                _ => 0.0,
            };
            unstamped |= stamp.is_none();
            self.read.push((message.bytes, now - age));
        }
        if unstamped {
            // The kernel has noted that there was no stamp, and nix would leave no room for the next one.
            self.headers = headers();
        }
        self.read.len()
    }

    /// A datagram that was read, and when it came.
    pub fn get(&mut self, n: usize) -> (&mut [u8], f64) {
        let (length, time) = self.read[n];
        (&mut self.buffers[n][..length], time)
    }
}

fn headers() -> MultiHeaders<()> {
    MultiHeaders::preallocate(Batch::SIZE, Some(cmsg_space!(TimeSpec)))
}

fn seconds(time: TimeSpec) -> f64 {
    time.tv_sec() as f64 + time.tv_nsec() as f64 * 1e-9
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    #[test]
    fn datagrams_come_with_the_time_of_their_arrival() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&receiver, sockopt::ReceiveTimestampns, &true).unwrap();
        // The kernel begins a little later.
        sleep(Duration::from_millis(100));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let mut batch = Batch::new();
        for _ in 0..3 {
            assert_eq!(batch.read(&receiver, 100.0), 0);
            sender.send_to(b"first", address).unwrap();
            sleep(Duration::from_millis(100));
            sender.send_to(b"second", address).unwrap();
            assert_eq!(batch.read(&receiver, 100.0), 2);
            let (first, came) = batch.get(0);
            assert_eq!(first, b"first");
            assert!((99.5..=99.9).contains(&came), "{came}");
            let (second, came) = batch.get(1);
            assert_eq!(second, b"second");
            assert!((99.95..=100.0).contains(&came), "{came}");
        }
    }
}
