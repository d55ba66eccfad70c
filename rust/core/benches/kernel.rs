//! What each kernel costs per participant and 20 ms stereo frame, beside a copy of the same samples.

use std::hint::black_box;
use std::time::Instant;

use audiomixer_core::envelope::Envelope;
use audiomixer_core::kernel::{Kernel, true_peak};
use audiomixer_core::limiter::Limiter;

const PARTICIPANTS: usize = 50;
const SAMPLES: usize = 1920;
const ROUNDS: usize = 2000;

/// Microseconds per participant: the median round.
fn time(mut round: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed().as_secs_f64() * 1e6 / PARTICIPANTS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn main() {
    let frames = vec![vec![0.01f32; SAMPLES]; PARTICIPANTS];
    let mut bus = vec![0.0f32; SAMPLES];
    let copy = time(|| {
        for frame in &frames {
            black_box(&mut bus).copy_from_slice(black_box(frame));
        }
    });
    println!(
        "mix + sum of squares + peak, µs per participant and frame ({PARTICIPANTS} × 48 kHz stereo × 20 ms)"
    );
    println!("  {:10} {copy:.3}", "memcpy");
    for kernel in Kernel::available() {
        let cost = time(|| {
            bus.fill(0.0);
            for frame in &frames {
                black_box(kernel.add(&mut bus, black_box(frame), 0.9));
            }
        });
        println!("  {:10} {cost:.3}  ({:.1} × memcpy)", kernel.name(), cost / copy);
    }

    println!(
        "of a whole mix, µs per stereo frame: true peaks, envelope, the limiter when loud and quiet"
    );
    let samples = vec![0.9f32; SAMPLES + 2 * true_peak::PAST];
    let quiet = vec![0.1f32; SAMPLES];
    let mut out = vec![0.0f32; SAMPLES];
    for kernel in Kernel::available() {
        let one = |mut work: Box<dyn FnMut()>| time(&mut work) * PARTICIPANTS as f64;
        let (input, mut peaks) = (samples.clone(), vec![0.0f32; SAMPLES]);
        let peaks_cost = one(Box::new(move || kernel.true_peaks(black_box(&input), 2, &mut peaks)));
        let (mut envelope, mut gains) = (Envelope::new(960, 240, 4800.0), vec![0.0f32; 960]);
        let envelope_cost = one(Box::new(move || {
            gains.fill(1.5);
            kernel.advance(&mut envelope, black_box(&mut gains));
        }));
        let mut limiter = Limiter::with(kernel, 48_000, 2);
        let loud_cost = time(|| limiter.process(black_box(&samples[..SAMPLES]), &mut out))
            * PARTICIPANTS as f64;
        let mut limiter = Limiter::with(kernel, 48_000, 2);
        let quiet_cost =
            time(|| limiter.process(black_box(&quiet), &mut out)) * PARTICIPANTS as f64;
        println!(
            "  {:10} {peaks_cost:.2}  {envelope_cost:.2}  {loud_cost:.2}  {quiet_cost:.2}",
            kernel.name()
        );
    }
}
