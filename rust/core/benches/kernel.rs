//! What each kernel costs per participant and 20 ms stereo frame, beside a copy of the same samples.

use std::hint::black_box;
use std::time::Instant;

use audiomixer_core::kernel::Kernel;

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
}
