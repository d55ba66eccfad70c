//! [`audiomixer_transport`] for Python.

use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use audiomixer_core::{Effort, lock};
use audiomixer_transport as transport;
use numpy::PyReadwriteArray2;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};
use transport::{MasterKey, What};

use crate::{Mixer, Participant, value_error, within};

/// Called with a list of datagrams.
type Handler = Arc<Py<PyAny>>;

fn master_key(key: &[u8]) -> PyResult<MasterKey> {
    MasterKey::parse(key).ok_or_else(|| {
        let expected = "key: expected 30 bytes (AES-CM), 28 or 44 (AES-GCM)";
        PyValueError::new_err(format!("{expected}, got {}", key.len()))
    })
}

fn ip(argument: &str, host: &str) -> PyResult<IpAddr> {
    host.parse().map_err(|_| {
        PyValueError::new_err(format!("{argument}: expected an IP address, got {host:?}"))
    })
}

fn address(argument: &str, (host, port): (String, u16)) -> PyResult<SocketAddr> {
    Ok(SocketAddr::new(ip(argument, &host)?, port))
}

/// What a call without the GIL has left for handlers: datagrams, in the order they came.
#[derive(Default)]
struct Left(Vec<(Handler, Vec<Vec<u8>>)>);

impl Left {
    fn add(&mut self, handler: &Handler, datagram: Vec<u8>) {
        match self.0.last_mut() {
            Some((last, datagrams)) if Arc::ptr_eq(last, handler) => datagrams.push(datagram),
            _ => self.0.push((Arc::clone(handler), vec![datagram])),
        }
    }

    /// Calls each handler with a list of its datagrams, all of them; the first error is returned.
    fn call(self, py: Python<'_>) -> PyResult<()> {
        let mut outcome = Ok(());
        for (handler, datagrams) in self.0 {
            let datagrams = datagrams.iter().map(|datagram| PyBytes::new(py, datagram));
            let called = PyList::new(py, datagrams).and_then(|list| handler.call1(py, (list,)));
            outcome = outcome.and(called.map(drop));
        }
        outcome
    }
}

#[pyclass(frozen, module = "audiomixer._core")]
pub struct Hub(Arc<transport::Hub>);

#[pymethods]
impl Hub {
    #[new]
    #[pyo3(signature = (addresses, port=0, *, tcp=false))]
    fn new(py: Python<'_>, addresses: Vec<String>, port: u16, tcp: bool) -> PyResult<Self> {
        let addresses = addresses.into_iter().map(|host| ip("addresses", &host));
        let addresses = addresses.collect::<PyResult<Vec<_>>>()?;
        Ok(Self(py.detach(|| transport::Hub::bind(&addresses, port, tcp))?))
    }

    fn open(
        &self,
        py: Python<'_>,
        ufrag: &str,
        password: &str,
        session: &Session,
        on_events: Py<PyAny>,
    ) -> PyResult<Endpoint> {
        let deliver = move |events: Vec<transport::Event>| {
            // At the end of the interpreter they are for nobody.
            Python::try_attach(|py| {
                let events = events.iter().map(|one| {
                    let (local, remote) = (one.local.to_string(), one.remote.ip().to_string());
                    let what = match &one.what {
                        What::Datagram(bytes) => PyBytes::new(py, bytes).into_any(),
                        What::Moved => PyString::new(py, "moved").into_any(),
                        What::Gone => PyString::new(py, "gone").into_any(),
                    };
                    (one.tcp, local, remote, one.remote.port(), what)
                });
                let called = PyList::new(py, events.collect::<Vec<_>>())
                    .and_then(|list| on_events.call1(py, (list,)));
                if let Err(error) = called {
                    error.write_unraisable(py, None);
                }
            });
        };
        let opened = py.detach(|| self.0.open(ufrag, password, Arc::clone(&session.0), deliver));
        let taken =
            || PyValueError::new_err(format!("ufrag: expected one that is free, got {ufrag:?}"));
        let hub = Some(Arc::clone(&self.0)).into();
        Ok(Endpoint { hub, endpoint: opened.ok_or_else(taken)? })
    }

    #[getter]
    fn port(&self) -> u16 {
        self.0.port()
    }

    #[getter]
    fn strangers(&self) -> u64 {
        self.0.strangers()
    }

    #[getter]
    fn buffers(&self) -> PyResult<(usize, usize)> {
        Ok(self.0.buffers()?)
    }
}

#[pyclass(frozen, module = "audiomixer._core")]
pub struct Endpoint {
    /// Until it is closed: who has a hub of its own gives the port back then.
    hub: Mutex<Option<Arc<transport::Hub>>>,
    endpoint: Arc<transport::Endpoint>,
}

impl Endpoint {
    fn hub(&self) -> Option<Arc<transport::Hub>> {
        lock(&self.hub).clone()
    }
}

#[pymethods]
impl Endpoint {
    fn send(
        &self,
        py: Python<'_>,
        tcp: bool,
        local: &str,
        remote: (String, u16),
        datagram: &[u8],
    ) -> PyResult<()> {
        let (local, remote) = (ip("local", local)?, address("remote", remote)?);
        let hub = self.hub().ok_or(io::Error::from(io::ErrorKind::NotConnected))?;
        py.detach(|| hub.send(&self.endpoint, tcp, local, remote, datagram))?;
        Ok(())
    }

    fn path(&self, tcp: bool, local: &str, remote: (String, u16)) -> PyResult<Option<Path>> {
        let (local, remote) = (ip("local", local)?, address("remote", remote)?);
        Ok(self.hub().and_then(|hub| hub.path(tcp, local, remote)).map(Path))
    }

    #[expect(clippy::too_many_arguments, reason = "they are what ICE agrees on")]
    fn settle(
        &self,
        tcp: bool,
        local: &str,
        remote: (String, u16),
        username: String,
        password: String,
        controlling: bool,
        tie_breaker: u64,
    ) -> PyResult<()> {
        let (local, remote) = (ip("local", local)?, address("remote", remote)?);
        let role = transport::Role { controlling, tie_breaker };
        let settled = transport::Settled { tcp, local, remote, username, password, role };
        self.endpoint.settle(Some(settled));
        Ok(())
    }

    fn unsettle(&self) {
        self.endpoint.settle(None);
    }

    fn silence(&self, remote: (String, u16)) -> PyResult<f64> {
        let remote = address("remote", remote)?;
        Ok(self.hub().map_or(f64::INFINITY, |hub| hub.silence(remote)))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            let hub = lock(&self.hub).take();
            if let Some(hub) = hub {
                hub.close(&self.endpoint);
            }
        });
    }
}

#[pyclass(frozen, module = "audiomixer._core")]
pub struct Path(transport::Path);

#[pyclass(frozen, module = "audiomixer._core")]
pub struct Session(Arc<transport::Session>);

#[pymethods]
impl Session {
    #[new]
    fn new(inlet: &Inlet, outlet: &Outlet) -> Self {
        let session = transport::Session::new(Arc::clone(&inlet.0), Arc::clone(&outlet.0));
        Self(Arc::new(session))
    }

    #[getter]
    fn inlet(&self) -> Inlet {
        Inlet(Arc::clone(&self.0.inlet))
    }

    fn open(&self, key: &[u8], ssrc: i64, cname: &str) -> PyResult<()> {
        self.0.open(&master_key(key)?, within("ssrc", ssrc, u32::MAX)?, cname);
        Ok(())
    }

    fn report<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.report().iter().map(|packet| PyBytes::new(py, packet)).collect()
    }

    fn close<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.close().iter().map(|packet| PyBytes::new(py, packet)).collect()
    }
}

#[pyclass(frozen, get_all, module = "audiomixer._core")]
struct Report {
    ssrc: u32,
    fraction_lost: u8,
    lost: i32,
    highest: u32,
    jitter: u32,
    last_report: u32,
    delay: u32,
}

#[pyclass(frozen, module = "audiomixer._core")]
#[derive(Default)]
pub struct Inlet(Arc<transport::Inlet>);

#[pymethods]
impl Inlet {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[pyo3(signature = (key, payload_types, level_extension=None))]
    fn agree(
        &self,
        key: &[u8],
        payload_types: Vec<u8>,
        level_extension: Option<u8>,
    ) -> PyResult<()> {
        let key = master_key(key)?;
        self.0.agree(transport::Settings { key, payload_types, level_extension });
        Ok(())
    }

    fn route(&self, ssrc: Option<i64>, participant: Option<&Participant>) -> PyResult<()> {
        let ssrc = ssrc.map(|ssrc| within("ssrc", ssrc, u32::MAX)).transpose()?;
        self.0.route(ssrc, participant.map(|participant| participant.0.clone()));
        Ok(())
    }

    fn take(&self, datagram: &[u8], arrival: f64) -> bool {
        self.0.take(&mut datagram.to_vec(), arrival) != transport::Taken::Not
    }

    fn reports(&self) -> Vec<Report> {
        let reports = self.0.reports(transport::now());
        reports.into_iter().map(Report::from).collect()
    }

    #[getter]
    fn authentic(&self) -> u64 {
        self.0.authentic()
    }

    #[getter]
    fn flooded(&self) -> u64 {
        self.0.flooded()
    }

    #[getter]
    fn refused(&self) -> u64 {
        self.0.refused()
    }
}

impl From<transport::Report> for Report {
    fn from(report: transport::Report) -> Self {
        let transport::Report { ssrc, fraction_lost, lost, highest, jitter, last_report, delay } =
            report;
        Self { ssrc, fraction_lost, lost, highest, jitter, last_report, delay }
    }
}

/// A room: its mixer, where the mix goes, and when that is due.
type Room<'py> = (Bound<'py, Mixer>, PyReadwriteArray2<'py, f32>, f64);

/// Whose turn it is to be mixed first: what all rooms share is spent in this order.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// What was said when something panicked.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[pyfunction]
fn mix_rooms(
    py: Python<'_>,
    mut rooms: Vec<Room<'_>>,
    read: bool,
) -> PyResult<Vec<(usize, String)>> {
    let mut work = Vec::with_capacity(rooms.len());
    for (mixer, out, due) in &mut rooms {
        work.push((&mixer.get().0, out.as_slice_mut()?, *due));
    }
    let mut mixed = Ok(());
    let mut broken = Vec::new();
    py.detach(|| {
        if read {
            transport::read_all();
        }
        let mut effort = Effort::default();
        let first = TURN.fetch_add(1, Ordering::Relaxed) % work.len().max(1);
        let (last, next) = work.split_at_mut(first);
        let places = (first..first + next.len()).chain(0..first);
        for (place, (mixer, out, due)) in places.zip(next.iter_mut().chain(last)) {
            let began = Instant::now();
            let mix = AssertUnwindSafe(|| {
                let mixed = mixer.mix_sharing(*due, out, &mut effort);
                mixer.note_cost(began.elapsed());
                mixed
            });
            // A room that panics is not mixed again: what it left behind is looked at by nobody but those who leave it.
            match catch_unwind(mix) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => mixed = Err(error),
                Err(panic) => broken.push((place, panic_message(&*panic))),
            }
        }
    });
    let outcome = mixed.map_err(value_error);
    if broken.is_empty() {
        outcome?;
    } else if let Err(error) = outcome {
        // Which rooms are broken is what nobody would ever hear of again.
        error.write_unraisable(py, None);
    }
    Ok(broken)
}

#[pyclass(frozen, module = "audiomixer._core")]
#[derive(Default)]
pub struct Outlet(Arc<transport::Outlet>);

#[pymethods]
impl Outlet {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[pyo3(signature = (key, ssrc, payload_type, sequence_number, timestamp, path=None))]
    fn open(
        &self,
        key: &[u8],
        ssrc: i64,
        payload_type: i64,
        sequence_number: i64,
        timestamp: i64,
        path: Option<&Path>,
    ) -> PyResult<()> {
        let start = (
            within("sequence_number", sequence_number, u16::MAX)?,
            within("timestamp", timestamp, u32::MAX)?,
        );
        let payload_type = within("payload_type", payload_type, 127)?;
        let path = path.map(|path| path.0.clone());
        self.0.open(&master_key(key)?, within("ssrc", ssrc, u32::MAX)?, payload_type, start, path);
        Ok(())
    }

    fn redirect(&self, path: Option<&Path>) {
        self.0.redirect(path.map(|path| path.0.clone()));
    }

    fn close(&self) {
        self.0.close();
    }

    fn send<'py>(
        &self,
        py: Python<'py>,
        payload: &[u8],
        timestamp: i64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(match py.detach(|| self.0.send(payload, timestamp as u32)) {
            transport::Sent::Unsent(packet) => Some(PyBytes::new(py, &packet)),
            _ => None,
        })
    }

    #[getter]
    fn packets(&self) -> u32 {
        self.0.counts().packets
    }

    #[getter]
    fn octets(&self) -> u32 {
        self.0.counts().octets
    }

    #[getter]
    fn timestamp(&self) -> u32 {
        self.0.counts().timestamp
    }

    #[getter]
    fn dropped(&self) -> u64 {
        self.0.counts().dropped
    }
}

#[pyclass(frozen, module = "audiomixer._core")]
#[derive(Default)]
pub struct Fanout(transport::Fanout<Handler>);

#[pymethods]
impl Fanout {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn add(&self, py: Python<'_>, outlet: &Outlet, on_unsent: Py<PyAny>) {
        let (outlet, on_unsent) = (Arc::clone(&outlet.0), Arc::new(on_unsent));
        py.detach(|| self.0.add(outlet, on_unsent));
    }

    fn remove(&self, py: Python<'_>, outlet: &Outlet) {
        py.detach(|| self.0.remove(&outlet.0));
    }

    fn send(&self, py: Python<'_>, payload: &[u8], timestamp: i64) -> PyResult<()> {
        let mut unsent = Left::default();
        py.detach(|| {
            self.0.send(payload, timestamp as u32, |handler, packet| unsent.add(handler, packet));
        });
        unsent.call(py)
    }
}

/// Called with what an outlet has no path to be sent by.
struct Unsent(Py<PyAny>);

#[pyclass(frozen, module = "audiomixer._core")]
pub struct Distributor(transport::Distributor<Unsent>);

#[pymethods]
impl Distributor {
    #[new]
    fn new() -> Self {
        Self(transport::Distributor::new(|handler: &Unsent, packet: Vec<u8>| {
            // At the end of the interpreter it is for nobody.
            Python::try_attach(|py| {
                let called = PyList::new(py, [PyBytes::new(py, &packet)])
                    .and_then(|packets| handler.0.call1(py, (packets,)));
                if let Err(error) = called {
                    error.write_unraisable(py, None);
                }
            });
        }))
    }

    fn add(&self, py: Python<'_>, outlet: &Outlet, on_unsent: Py<PyAny>) {
        let outlet = Arc::clone(&outlet.0);
        py.detach(|| self.0.add(outlet, Unsent(on_unsent)));
    }

    fn remove(&self, py: Python<'_>, outlet: &Outlet) {
        // Whoever drops the handler has to have the GIL.
        let _handler = py.detach(|| self.0.remove(&outlet.0));
    }

    fn send(&self, py: Python<'_>, payload: &[u8], timestamp: i64) {
        py.detach(|| self.0.send(payload, timestamp as u32));
    }
}

pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Hub>()?;
    module.add_class::<Endpoint>()?;
    module.add_class::<Path>()?;
    module.add_class::<Session>()?;
    module.add_class::<Report>()?;
    module.add_class::<Inlet>()?;
    module.add_class::<Outlet>()?;
    module.add_class::<Fanout>()?;
    module.add_class::<Distributor>()?;
    module.add_function(wrap_pyfunction!(mix_rooms, module)?)
}
