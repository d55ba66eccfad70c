//! The `audiomixer._core` module: [`audiomixer_core`] and [`audiomixer_transport`] for Python. Documented for its users
//! in `_core.pyi`.
#![forbid(unsafe_code)]

mod transport;

use std::fmt::Display;
use std::sync::{Arc, Mutex};

use audiomixer_core as core;
use numpy::PyUntypedArrayMethods;
use numpy::{PyArray1, PyArray2, PyReadonlyArrayDyn, PyReadwriteArray2, PyUntypedArray};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

fn value_error(error: core::Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// `value` in a type whose least is 0 and whose most is `most`.
fn within<T: TryFrom<i64> + PartialOrd + Display>(
    argument: &str,
    value: i64,
    most: T,
) -> PyResult<T> {
    T::try_from(value).ok().filter(|value| *value <= most).ok_or_else(|| {
        PyValueError::new_err(format!("{argument}: expected 0 to {most}, got {value}"))
    })
}

/// What an argument that should have been an array of samples was instead.
fn describe(value: &Bound<'_, PyAny>) -> String {
    match value.cast::<PyUntypedArray>() {
        Ok(array) => format!("{} of shape {:?}", array.dtype(), array.shape()),
        Err(_) => value.get_type().to_string(),
    }
}

/// An array for output: `float32` or `int16`, of one frame's shape, C-contiguous and writeable.
enum Out<'py> {
    F32(PyReadwriteArray2<'py, f32>),
    I16(PyReadwriteArray2<'py, i16>),
}

impl<'py> Out<'py> {
    fn new(mixer: &core::Mixer, out: &Bound<'py, PyAny>) -> PyResult<Self> {
        let shape = [mixer.frame_size(), mixer.channels()];
        let fits = out
            .cast::<PyUntypedArray>()
            .is_ok_and(|array| array.shape() == shape && array.is_c_contiguous());
        let f32 = || out.extract::<PyReadwriteArray2<'py, f32>>().ok().map(Self::F32);
        let i16 = || out.extract::<PyReadwriteArray2<'py, i16>>().ok().map(Self::I16);
        fits.then(|| f32().or_else(i16)).flatten().ok_or_else(|| {
            PyValueError::new_err(format!(
                "out: expected a writeable C-contiguous float32 or int16 array of shape {shape:?}, got {}",
                describe(out)
            ))
        })
    }
}

/// Calls `$mixer.$method($argument, slice)` with the slice behind an [`Out`], without the GIL.
macro_rules! write_out {
    ($py:expr, $out:expr, |$slice:ident| $call:expr) => {
        match $out {
            Out::F32(mut array) => {
                let $slice = array.as_slice_mut()?;
                $py.detach(|| $call)
            }
            Out::I16(mut array) => {
                let $slice = array.as_slice_mut()?;
                $py.detach(|| $call)
            }
        }
        .map_err(value_error)
    };
}

#[pyclass(frozen, module = "audiomixer")]
struct Mixer(core::Mixer);

impl Mixer {
    fn new_frame<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f32>> {
        PyArray2::zeros(py, [self.0.frame_size(), self.0.channels()], false)
    }
}

#[pymethods]
impl Mixer {
    #[new]
    #[pyo3(signature = (sample_rate=48_000, channels=2, *, min_delay=0.04, max_delay=0.4, leveler=false, max_speakers=None))]
    fn new(
        sample_rate: i64,
        channels: i64,
        min_delay: f64,
        max_delay: f64,
        leveler: bool,
        max_speakers: Option<i64>,
    ) -> PyResult<Self> {
        // What is out of range for the type is out of range for the core, which says so.
        let sample_rate = u32::try_from(sample_rate).unwrap_or(0);
        let channels = usize::try_from(channels).unwrap_or(0);
        let mixer = core::Mixer::new(sample_rate, channels, min_delay, max_delay)
            .map(Self)
            .map_err(value_error)?;
        mixer.set_leveler(leveler);
        mixer.set_max_speakers(max_speakers)?;
        Ok(mixer)
    }

    #[getter]
    fn leveler(&self) -> bool {
        self.0.leveler()
    }

    #[setter]
    fn set_leveler(&self, leveler: bool) {
        self.0.set_leveler(leveler);
    }

    #[getter]
    fn denoise(&self) -> bool {
        self.0.denoise()
    }

    #[setter]
    fn set_denoise(&self, denoise: bool) -> PyResult<()> {
        self.0.set_denoise(denoise).map_err(value_error)
    }

    #[getter]
    fn loudness(&self) -> Option<(f64, f64, f64, f64, f64)> {
        let found = self.0.loudness()?;
        Some((found.momentary, found.short_term, found.integrated, found.gain, found.reduction))
    }

    #[pyo3(signature = (target=None))]
    fn measure_loudness(&self, py: Python<'_>, target: Option<f64>) -> PyResult<()> {
        py.detach(|| self.0.set_loudness(target)).map_err(value_error)
    }

    #[getter]
    fn max_speakers(&self) -> Option<usize> {
        self.0.max_speakers()
    }

    #[setter]
    fn set_max_speakers(&self, max_speakers: Option<i64>) -> PyResult<()> {
        // What is below zero is refused like zero.
        let most = max_speakers.map(|most| usize::try_from(most).unwrap_or(0));
        self.0.set_max_speakers(most).map_err(value_error)
    }

    #[getter]
    fn sample_rate(&self) -> u32 {
        self.0.sample_rate()
    }

    #[getter]
    fn channels(&self) -> usize {
        self.0.channels()
    }

    #[getter]
    fn frame_size(&self) -> usize {
        self.0.frame_size()
    }

    #[getter]
    fn latency(&self, py: Python<'_>) -> f64 {
        py.detach(|| self.0.latency() as f64 / f64::from(self.0.sample_rate()))
    }

    #[getter]
    fn kernel(&self, py: Python<'_>) -> &'static str {
        py.detach(|| self.0.kernel())
    }

    #[getter]
    fn identities(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.0.identities())
    }

    #[getter]
    fn cost(&self) -> f64 {
        self.0.cost().as_secs_f64()
    }

    fn _break_down(&self) {
        self.0.break_down();
    }

    fn add_participant(&self, identity: &str) -> PyResult<Participant> {
        self.0.add_participant(identity).map(Participant).map_err(value_error)
    }

    fn add_track(&self, identity: &str) -> PyResult<Participant> {
        self.0.add_track(identity).map(Participant).map_err(value_error)
    }

    fn remove_track(&self, track: &Participant) -> PyResult<()> {
        self.0.remove_track(&track.0).map_err(value_error)
    }

    fn remove_participant(&self, identity: &str) -> PyResult<()> {
        self.0.remove_participant(identity).map_err(value_error)
    }

    fn mix<'py>(&self, py: Python<'py>, now: f64) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let frame = self.new_frame(py);
        self.mix_into(py, frame.as_any(), now)?;
        Ok(frame)
    }

    fn mix_into(&self, py: Python<'_>, out: &Bound<'_, PyAny>, now: f64) -> PyResult<()> {
        write_out!(py, Out::new(&self.0, out)?, |slice| self.0.mix(now, slice))
    }

    #[pyo3(signature = (participant=None, out=None))]
    fn mix_minus<'py>(
        &self,
        py: Python<'py>,
        participant: Option<&Participant>,
        out: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let out = out.unwrap_or_else(|| self.new_frame(py).into_any());
        let participant = participant.map(|participant| &participant.0);
        write_out!(py, Out::new(&self.0, &out)?, |slice| match participant {
            Some(participant) => self.0.mix_minus(participant, slice),
            None => self.0.mix_of_room(slice),
        })?;
        Ok(out)
    }

    fn fader(&self, identity: &str) -> PyResult<Fader> {
        self.0.fader(identity).map(Fader).map_err(value_error)
    }

    #[getter]
    fn has_aside(&self) -> bool {
        self.0.has_aside()
    }

    #[getter]
    fn aside(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.0.aside())
    }

    #[getter]
    fn muted(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.0.muted())
    }

    fn solos<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let solos = PyDict::new(py);
        for (identity, samples) in py.detach(|| self.0.solos()) {
            solos.set_item(identity, PyArray1::from_vec(py, samples))?;
        }
        Ok(solos)
    }

    fn volumes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let volumes = PyDict::new(py);
        for volume in py.detach(|| self.0.volumes()) {
            volumes.set_item(volume.identity, volume.level)?;
        }
        Ok(volumes)
    }
}

#[pyclass(frozen, module = "audiomixer")]
struct Fader(Arc<core::Fader>);

#[pymethods]
impl Fader {
    #[getter]
    fn gain(&self) -> f32 {
        self.0.gain()
    }

    #[setter]
    fn set_gain(&self, gain: f32) -> PyResult<()> {
        self.0.set_gain(gain).map_err(value_error)
    }

    #[getter]
    fn muted(&self) -> bool {
        self.0.muted()
    }

    #[setter]
    fn set_muted(&self, muted: bool) {
        self.0.set_muted(muted);
    }

    #[getter]
    fn in_mix(&self) -> bool {
        self.0.in_mix()
    }

    #[setter]
    fn set_in_mix(&self, in_mix: bool) {
        self.0.set_in_mix(in_mix);
    }

    #[getter]
    fn denoise(&self) -> bool {
        self.0.denoise()
    }

    #[setter]
    fn set_denoise(&self, denoise: bool) {
        self.0.set_denoise(denoise);
    }
}

#[pyclass(frozen, module = "audiomixer")]
struct Participant(core::Participant);

#[pymethods]
impl Participant {
    #[getter]
    fn identity(&self) -> &str {
        self.0.identity()
    }

    #[pyo3(signature = (sequence_number, timestamp, payload, arrival, audio_level=None))]
    fn push_rtp(
        &self,
        sequence_number: i64,
        timestamp: i64,
        payload: &[u8],
        arrival: f64,
        audio_level: Option<i64>,
    ) -> PyResult<()> {
        let sequence_number = within("sequence_number", sequence_number, u16::MAX)?;
        let timestamp = within("timestamp", timestamp, u32::MAX)?;
        let audio_level = audio_level.map(|level| within("audio_level", level, 127)).transpose()?;
        self.0
            .push_rtp(sequence_number, timestamp, payload, arrival, audio_level)
            .map_err(value_error)
    }

    #[pyo3(signature = (samples, sample_rate=None))]
    fn push_pcm(
        &self,
        py: Python<'_>,
        samples: &Bound<'_, PyAny>,
        sample_rate: Option<i64>,
    ) -> PyResult<()> {
        // What is out of range for the type is out of range for the core, which says so.
        let rate = sample_rate.map(|rate| u32::try_from(rate).unwrap_or(0));
        let pushed = if let Ok(array) = samples.extract::<PyReadonlyArrayDyn<'_, f32>>() {
            channels(&array).and_then(|n| Some(push(py, &self.0, array.as_slice().ok()?, n, rate)))
        } else if let Ok(array) = samples.extract::<PyReadonlyArrayDyn<'_, i16>>() {
            channels(&array).and_then(|n| Some(push(py, &self.0, array.as_slice().ok()?, n, rate)))
        } else {
            None
        };
        let pushed = pushed.ok_or_else(|| {
            PyValueError::new_err(format!(
                "samples: expected a C-contiguous float32 or int16 array of shape (n,) or (n, channels), got {}",
                describe(samples)
            ))
        })?;
        pushed.map_err(value_error)
    }

    #[getter]
    fn gain(&self) -> f32 {
        self.0.gain()
    }

    #[setter]
    fn set_gain(&self, gain: f32) -> PyResult<()> {
        self.0.set_gain(gain).map_err(value_error)
    }

    #[getter]
    fn duck(&self) -> f32 {
        self.0.duck()
    }

    #[setter]
    fn set_duck(&self, decibels: f32) -> PyResult<()> {
        self.0.set_duck(decibels).map_err(value_error)
    }

    #[getter]
    fn muted(&self) -> Option<bool> {
        self.0.signalled_mute()
    }

    #[setter]
    fn set_muted(&self, muted: Option<bool>) -> PyResult<()> {
        self.0.set_signalled_mute(muted).map_err(value_error)
    }

    #[getter]
    fn audible(&self) -> bool {
        self.0.audible()
    }

    fn stats(&self) -> Stats {
        Stats(self.0.stats())
    }

    fn __repr__(&self) -> String {
        format!("<Participant {:?}>", self.0.identity())
    }
}

/// Pushes samples; without the GIL if they have to be resampled first, as it costs less than to let go of it if not.
fn push<T: core::Sample + Sync>(
    py: Python<'_>,
    participant: &core::Participant,
    samples: &[T],
    channels: usize,
    rate: Option<u32>,
) -> core::Result<()> {
    if rate.is_none() {
        return participant.push_pcm(samples, channels, rate);
    }
    py.detach(|| participant.push_pcm(samples, channels, rate))
}

/// The channels of an array of samples: one for `(n,)` and `(n, 1)`, two for `(n, 2)`.
fn channels<T: numpy::Element>(array: &PyReadonlyArrayDyn<'_, T>) -> Option<usize> {
    match *array.shape() {
        [_] | [_, 1] => Some(1),
        [_, 2] => Some(2),
        _ => None,
    }
}

#[pyclass(frozen, module = "audiomixer")]
struct Meter(Mutex<core::Meter>);

#[pymethods]
impl Meter {
    #[new]
    #[pyo3(signature = (sample_rate=48000, channels=2))]
    fn new(sample_rate: i64, channels: i64) -> PyResult<Self> {
        let rate = within("sample_rate", sample_rate, 192_000u32)?;
        let channels = within("channels", channels, 2u32)?;
        if rate < 8000 || channels == 0 {
            return Err(PyValueError::new_err("expected 8000 to 192000 Hz, and 1 or 2 channels"));
        }
        core::Meter::new(rate, channels as usize)
            .map(|meter| Self(Mutex::new(meter)))
            .map_err(value_error)
    }

    fn add(&self, py: Python<'_>, samples: &Bound<'_, PyAny>) -> PyResult<()> {
        let array = samples.extract::<PyReadonlyArrayDyn<'_, f32>>().ok();
        let channels = core::lock(&self.0).channels();
        let fits = array.as_ref().filter(|array| {
            array.shape().last() == Some(&channels) || array.ndim() == 1 && channels == 1
        });
        let Some(slice) = fits.and_then(|array| array.as_slice().ok()) else {
            return Err(PyValueError::new_err(format!(
                "samples: expected a C-contiguous float32 array of shape (n, {channels}), got {}",
                describe(samples)
            )));
        };
        py.detach(|| core::lock(&self.0).add(slice));
        Ok(())
    }

    #[getter]
    fn loudness(&self, py: Python<'_>) -> f64 {
        py.detach(|| core::lock(&self.0).loudness())
    }

    #[getter]
    fn true_peak(&self, py: Python<'_>) -> f64 {
        py.detach(|| core::lock(&self.0).true_peak())
    }

    fn outline<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        PyArray1::from_vec(py, core::lock(&self.0).outline())
    }
}

#[pyclass(frozen, module = "audiomixer")]
struct Stats(core::Stats);

macro_rules! stats_getters {
    ($($field:ident: $type:ty),* $(,)?) => {
        #[pymethods]
        impl Stats {
            $(#[getter] fn $field(&self) -> $type { self.0.$field })*
        }
    };
}

stats_getters! {
    received: u64,
    lost: u64,
    recovered: u64,
    late: u64,
    duplicate: u64,
    discarded: u64,
    overflow: u64,
    concealed: f64,
    accelerated: f64,
    expanded: f64,
    delay: f64,
    target_delay: f64,
    jitter: f64,
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Mixer>()?;
    module.add_class::<Fader>()?;
    module.add_class::<Participant>()?;
    module.add_class::<Stats>()?;
    module.add_class::<Meter>()?;
    transport::add_to(module)
}
