//! Which packets came, to tell a lost one from a duplicate.

use crate::time::Sequence;

/// The packets whose arrival is remembered one by one.
const REMEMBERED: i64 = 128;

/// The sequence numbers that came: how many, and which of the last [`REMEMBERED`].
#[derive(Debug)]
pub struct History {
    first: Sequence,
    highest: Sequence,
    came: u64,
    bits: u128,
}

impl Default for History {
    /// None has come.
    fn default() -> Self {
        Self { first: Sequence(0), highest: Sequence(0), came: 0, bits: 0 }
    }
}

impl History {
    /// `false` if `sequence` came before, as far as is remembered.
    pub fn insert(&mut self, sequence: Sequence) -> bool {
        if self.came == 0 {
            (self.first, self.highest) = (sequence, sequence - 1);
        }
        if sequence > self.highest {
            let shift = sequence - self.highest;
            self.bits = if shift < REMEMBERED { self.bits << shift } else { 0 };
            self.highest = sequence;
        }
        let age = self.highest - sequence;
        if age >= REMEMBERED {
            return true;
        }
        if self.bits >> age & 1 == 1 {
            return false;
        }
        self.bits |= 1 << age;
        self.first = self.first.min(sequence);
        self.came += 1;
        true
    }

    /// How many of those up to the newest have not come.
    pub fn missing(&self) -> u64 {
        if self.came == 0 { 0 } else { (self.highest - self.first + 1) as u64 - self.came }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once_in_whatever_order_it_comes() {
        let mut history = History::default();
        for sequence in [100, 102, 101, 105, 99] {
            assert!(history.insert(Sequence(sequence)));
        }
        for sequence in [100, 105, 99] {
            assert!(!history.insert(Sequence(sequence)));
        }
        assert_eq!(history.missing(), 2);
        assert!(history.insert(Sequence(103)));
        assert_eq!(history.missing(), 1);
        assert!(history.insert(Sequence(103 + 10 * REMEMBERED)));
        assert_eq!(history.missing(), 1278);
    }
}
