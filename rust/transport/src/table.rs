//! What a hub knows of its connections: by which names, addresses and streams each is known.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use audiomixer_core::lock;

use crate::endpoint::Endpoint;
use crate::now::now;
use crate::stream::Stream;
use crate::stun::Transaction;

/// Addresses of one connection that are known at once; then the oldest is forgotten.
const ADDRESSES: usize = 32;
/// TCP connections of one connection.
const STREAMS: usize = 8;
/// Streams by which one connection is known wherever it is; then the oldest is forgotten.
pub const SSRCS: usize = 1024;
/// Connections that are asked whether a packet from a new address is theirs, of those with the same SSRC.
const NAMESAKES: usize = 4;
/// An address at which a connection was heard within so many seconds is not another's.
const HEARD: f64 = 1.0;
/// Seconds for which a response is waited for.
const PATIENCE: f64 = 60.0;
/// So many requests may wait for responses before it is looked whether any has waited for too long.
const REQUESTS: usize = 1024;

/// Everything by which what comes is sorted.
#[derive(Default)]
pub struct Table {
    pub by_ufrag: HashMap<Vec<u8>, Arc<Endpoint>>,
    pub by_address: HashMap<SocketAddr, Owner>,
    pub by_ssrc: HashMap<u32, Vec<Arc<Endpoint>>>,
    /// By the address of ours, and their other side's.
    pub streams: HashMap<(IpAddr, SocketAddr), Arc<Stream>>,
    pub requests: HashMap<Transaction, Request>,
    /// How many there may be.
    pub most_requests: usize,
    /// From where how many TCP connections are that have not told whose they are.
    pub unknown: HashMap<IpAddr, usize>,
}

/// Whose an address is.
pub struct Owner {
    pub endpoint: Arc<Endpoint>,
    /// When it was heard there last.
    pub heard: f64,
}

/// What a response is waited for.
pub struct Request {
    pub endpoint: Arc<Endpoint>,
    pub remote: SocketAddr,
    pub at: f64,
    /// It is only asked whether somebody is there.
    pub is_ours: bool,
}

impl Table {
    /// One TCP connection fewer from there has not told whose it is.
    pub fn dismiss(&mut self, from: IpAddr) {
        if let Some(count) = self.unknown.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.unknown.remove(&from);
            }
        }
    }

    pub fn owner(&self, remote: SocketAddr) -> Option<Arc<Endpoint>> {
        self.by_address.get(&remote).map(|owner| Arc::clone(&owner.endpoint))
    }

    /// Something has come from there that only its owner can have made.
    pub fn hear(&mut self, remote: SocketAddr, at: f64) {
        if let Some(owner) = self.by_address.get_mut(&remote) {
            owner.heard = at;
        }
    }

    /// What comes from `remote` is the endpoint's, unless another one is there.
    pub fn learn(&mut self, remote: SocketAddr, endpoint: &Arc<Endpoint>, at: f64) {
        let is_anothers =
            |owner: &Owner| at - owner.heard < HEARD && !Arc::ptr_eq(&owner.endpoint, endpoint);
        if !self.by_address.get(&remote).is_some_and(is_anothers) {
            self.take_over(remote, endpoint, at);
        }
    }

    pub fn take_over(&mut self, remote: SocketAddr, endpoint: &Arc<Endpoint>, at: f64) {
        if endpoint.is_silent() {
            return;
        }
        let owner = Owner { endpoint: Arc::clone(endpoint), heard: at };
        let before = self.by_address.insert(remote, owner);
        if let Some(Owner { endpoint: before, .. }) = before {
            if Arc::ptr_eq(&before, endpoint) {
                return;
            }
            before.known().addresses.retain(|address| *address != remote);
        }
        let addresses = &mut endpoint.known().addresses;
        if addresses.len() == ADDRESSES {
            let oldest = addresses.pop_front().expect("there are some");
            self.by_address.remove(&oldest);
        }
        addresses.push_back(remote);
    }

    /// Packets of `ssrc` may be the endpoint's, from wherever they come.
    pub fn know(&mut self, ssrc: u32, endpoint: &Arc<Endpoint>) {
        if endpoint.is_silent() {
            return;
        }
        let known = &mut *endpoint.known();
        if !known.is_known.insert(ssrc) {
            return;
        }
        known.ssrcs.push_back(ssrc);
        let namesakes = self.by_ssrc.entry(ssrc).or_default();
        if namesakes.len() < NAMESAKES {
            namesakes.push(Arc::clone(endpoint));
        }
        if known.ssrcs.len() > SSRCS
            && let Some(oldest) = known.ssrcs.pop_front()
        {
            known.is_known.remove(&oldest);
            self.forget_ssrc(oldest, endpoint);
        }
    }

    pub fn forget_ssrc(&mut self, ssrc: u32, endpoint: &Arc<Endpoint>) {
        if let Some(namesakes) = self.by_ssrc.get_mut(&ssrc) {
            namesakes.retain(|other| !Arc::ptr_eq(other, endpoint));
            if namesakes.is_empty() {
                self.by_ssrc.remove(&ssrc);
            }
        }
    }

    /// A TCP connection is the endpoint's.
    pub fn adopt(&mut self, stream: &Arc<Stream>, endpoint: &Arc<Endpoint>) {
        if stream.is_of(endpoint) || endpoint.is_silent() {
            return;
        }
        let its = self.streams.values().filter(|other| other.is_of(endpoint)).count();
        if its >= STREAMS {
            return;
        }
        if lock(&stream.endpoint).replace(Arc::clone(endpoint)).is_none() {
            self.dismiss(stream.remote.ip());
        }
        self.streams.insert((stream.local.ip(), stream.remote), Arc::clone(stream));
    }

    pub fn expect(
        &mut self,
        transaction: Transaction,
        endpoint: &Arc<Endpoint>,
        remote: SocketAddr,
        is_ours: bool,
    ) {
        let at = now();
        if self.requests.len() >= self.most_requests {
            self.requests.retain(|_, request| at - request.at < PATIENCE);
            self.most_requests = REQUESTS.max(2 * self.requests.len());
        }
        let endpoint = Arc::clone(endpoint);
        self.requests.insert(transaction, Request { endpoint, remote, at, is_ours });
    }
}
