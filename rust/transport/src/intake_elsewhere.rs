//! Where no two sockets can share a port, there is none to read.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::inlet::Inlet;
use crate::port::Port;

/// Reads nothing.
pub struct Intake<T>(PhantomData<T>);

impl<T> Default for Intake<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Intake<T> {
    /// Never called, as there are no ports.
    pub fn add(&self, _: Arc<Port>, _: Arc<Inlet>, _: T) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Has nothing.
    pub fn remove(&self, _: &Arc<Inlet>) -> Option<T> {
        None
    }

    /// Takes in nothing.
    pub fn poll(&self, _: f64, _: impl FnMut(&T, &[u8])) {}
}
